//! One chart: panels side by side, each with a percent axis of its own, a legend above, dimensions on a log2 axis below.
//!
//! The model is data only (series of points with an interval and a tooltip); [`Chart::draw`] turns it into SVG.
//! Series that share a dimension are moved a few pixels apart, so that their intervals do not hide each other.
//! Panels do not share their percent axis: cluster scores would be squeezed flat under those of the linear probe.
//! Values are percent. Points that are not finite are left out; a chart without points is still a frame.

use super::svg::{Px, Scale, Svg, ticks};

const PLOT_HEIGHT: f64 = 270.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 46.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const GAP: f64 = 52.0;
/// Pixels between series at the same dimension.
const DODGE: f64 = 5.0;
/// Percent that an axis spans at least: less would make noise look like a trend.
const LEAST_SPAN: f64 = 4.0;
/// Height of the dashed line's label as a part of the values' span.
const LABEL_SHARE: f64 = 0.07;
/// Tick labels nearer than this to their neighbour are left out.
const LABEL_ROOM: f64 = 24.0;

/// One value over one dimension.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// Dimensions `k`.
    pub(super) dim: usize,
    /// Value in percent.
    pub(super) value: f64,
    /// Ends of its interval in percent.
    pub(super) interval: Option<(f64, f64)>,
    /// Marker's tooltip; a point without one only shapes the line.
    pub(super) tooltip: Option<String>,
}

/// Points joined by a line.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// Colour and marker, the same for one method in all panels.
    pub(super) style: usize,
    /// Points by ascending dimension.
    pub(super) points: Vec<Point>,
}

/// One frame of a chart.
#[derive(Debug, Clone, Default)]
pub(super) struct Panel {
    /// Title above the frame.
    pub(super) title: String,
    /// What is drawn.
    pub(super) series: Vec<Series>,
    /// Height of the dashed line and its label.
    pub(super) baseline: Option<(f64, String)>,
}

/// A figure.
#[derive(Debug, Clone, Default)]
pub(super) struct Chart {
    /// Title above everything.
    pub(super) title: String,
    /// Title of the vertical axis.
    pub(super) y_title: String,
    /// Style and name of the series.
    pub(super) legend: Vec<(usize, String)>,
    /// Meaning of the dashed line, if any panel has one.
    pub(super) baseline: Option<String>,
    /// Dimensions with a tick, ascending.
    pub(super) dims: Vec<usize>,
    /// Frames, left to right.
    pub(super) panels: Vec<Panel>,
}

impl Panel {
    /// Round values that enclose everything drawn, within 0 to 100, with room for the label above the dashed line.
    fn levels(&self) -> Vec<f64> {
        let of_points = self.series.iter().flat_map(|s| &s.points).flat_map(|p| {
            [p.value, p.interval.map_or(p.value, |i| i.0), p.interval.map_or(p.value, |i| i.1)]
        });
        let values = || of_points.clone().chain(self.baseline.iter().map(|b| b.0)).filter(|v| v.is_finite());
        let (lo, hi) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let (lo, hi) = if lo <= hi { (lo, hi) } else { (0.0, 100.0) };
        let room = (LEAST_SPAN - (hi - lo)).max(0.0) / 2.0;
        let (lo, hi) = (lo - room, hi + room);
        let label = self.baseline.as_ref().map_or(hi, |b| b.0 + LABEL_SHARE * (hi - lo));
        let (lo, hi) = (lo.clamp(0.0, 100.0), hi.max(label).clamp(0.0, 100.0));
        ticks(lo, hi, 6)
    }
}

impl Chart {
    /// Draws the chart.
    pub(super) fn draw(&self) -> String {
        let count = self.panels.len().max(1) as f64;
        let width = if self.panels.len() > 1 { 960.0 } else { 640.0 };
        let panel_width = (width - LEFT - RIGHT - GAP * (count - 1.0)) / count;
        let mut svg = Svg::new((width, TOP + PLOT_HEIGHT + BOTTOM), &self.title);
        svg.text((LEFT, 22.0), "head", &self.title);
        self.draw_legend(&mut svg);
        svg.text_up((16.0, TOP + PLOT_HEIGHT / 2.0), &self.y_title);
        for (i, panel) in self.panels.iter().enumerate() {
            let left = LEFT + i as f64 * (panel_width + GAP);
            let x = self.x_scale(left, left + panel_width);
            let levels = panel.levels();
            let domain = (levels[0], levels[levels.len() - 1]);
            let y = Scale { domain, range: (TOP + PLOT_HEIGHT, TOP), log2: false };
            self.draw_frame(&mut svg, panel, &x, &y, &levels);
            draw_data(&mut svg, panel, &x, &y);
        }
        svg.finish()
    }

    /// Dimensions over pixels with a margin at both ends.
    fn x_scale(&self, left: f64, right: f64) -> Scale {
        let (first, last) = (self.dims.first().map_or(1, |d| *d), self.dims.last().map_or(1, |d| *d));
        Scale {
            domain: (first.max(1) as f64, last.max(1) as f64),
            range: (left + 22.0, right - 22.0),
            log2: true,
        }
    }

    fn draw_legend(&self, svg: &mut Svg) {
        let mut x = LEFT;
        for (style, name) in &self.legend {
            svg.group(&format!("s{}", style % super::svg::STYLES), name, |g| {
                g.polyline(&[(x, 40.0), (x + 26.0, 40.0)], "line");
                g.marker((x + 13.0, 40.0), *style);
                g.text((x + 33.0, 44.0), "", name);
            });
            x += 33.0 + text_width(name) + 18.0;
        }
        if let Some(name) = &self.baseline {
            svg.polyline(&[(x, 40.0), (x + 26.0, 40.0)], "base");
            svg.text((x + 33.0, 44.0), "", name);
        }
    }

    fn draw_frame(&self, svg: &mut Svg, panel: &Panel, x: &Scale, y: &Scale, levels: &[f64]) {
        let (left, right, foot) = (x.range.0 - 22.0, x.range.1 + 22.0, TOP + PLOT_HEIGHT);
        let centre = (left + right) / 2.0;
        svg.text((centre, TOP - 10.0), "title mid", &panel.title);
        for level in levels {
            svg.polyline(&[(left, y.at(*level)), (right, y.at(*level))], "grid");
            svg.text((left - 8.0, y.at(*level) + 4.0), "end", &short(*level));
        }
        let mut labelled = f64::NEG_INFINITY;
        let last = self.dims.last().map_or(f64::INFINITY, |d| x.at(*d as f64));
        for dim in &self.dims {
            let at = x.at(*dim as f64);
            svg.polyline(&[(at, foot), (at, foot + 5.0)], "axis");
            // The last dimension is the one most asked for: it keeps its label, the one before it gives way.
            if at - labelled >= LABEL_ROOM && (at == last || last - at >= LABEL_ROOM) {
                svg.text((at, foot + 19.0), "mid", &dim.to_string());
                labelled = at;
            }
        }
        svg.polyline(&[(left, TOP), (left, foot), (right, foot)], "axis");
        svg.text((centre, foot + 38.0), "mid", "dimensions k (log scale)");
    }
}

fn draw_data(svg: &mut Svg, panel: &Panel, x: &Scale, y: &Scale) {
    if let Some((value, _)) = &panel.baseline {
        svg.polyline(&[(x.range.0 - 22.0, y.at(*value)), (x.range.1 + 22.0, y.at(*value))], "base");
    }
    let middle = (panel.series.len() as f64 - 1.0) / 2.0;
    for (i, series) in panel.series.iter().enumerate() {
        let shift = (i as f64 - middle) * DODGE;
        draw_series(svg, series, &|p| (x.at(p.dim.max(1) as f64) + shift, y.at(p.value)), y);
    }
    if let Some((value, label)) = &panel.baseline {
        // Few dimensions score low: the left end of the line is where it is not crossed.
        svg.text((x.range.0 - 16.0, y.at(*value) - 6.0), "halo", label);
    }
}

fn draw_series(svg: &mut Svg, series: &Series, place: &dyn Fn(&Point) -> Px, y: &Scale) {
    let points: Vec<&Point> = series.points.iter().filter(|p| p.value.is_finite()).collect();
    let class = format!("s{}", series.style % super::svg::STYLES);
    svg.group(&class, "", |g| g.polyline(&points.iter().map(|p| place(p)).collect::<Vec<_>>(), "line"));
    for point in points {
        let Some(tooltip) = &point.tooltip else { continue };
        let (at, height) = place(point);
        svg.group(&class, tooltip, |g| {
            if let Some((lo, hi)) = point.interval.filter(|(lo, hi)| lo.is_finite() && hi.is_finite()) {
                let (lo, hi) = (y.at(lo), y.at(hi));
                g.polyline(&[(at, lo), (at, hi)], "bar");
                g.polyline(&[(at - 3.0, lo), (at + 3.0, lo)], "bar");
                g.polyline(&[(at - 3.0, hi), (at + 3.0, hi)], "bar");
            }
            g.marker((at, height), series.style);
        });
    }
}

/// A tick value without needless decimals.
fn short(value: f64) -> String {
    let tenths = format!("{value:.1}");
    tenths.strip_suffix(".0").unwrap_or(&tenths).to_owned()
}

/// About how wide a text is: an average letter of a sans-serif face at 12 pixels.
fn text_width(text: &str) -> f64 {
    6.6 * text.chars().count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[(usize, f64)]) -> Chart {
        let point =
            |&(dim, value): &(usize, f64)| Point { dim, value, interval: None, tooltip: Some(String::new()) };
        let series = Series { style: 0, points: values.iter().map(point).collect() };
        let panel = Panel { title: "linear".to_owned(), series: vec![series], baseline: None };
        Chart { dims: values.iter().map(|v| v.0).collect(), panels: vec![panel], ..Chart::default() }
    }

    #[test]
    fn axis_encloses_values_intervals_and_baseline() {
        let mut chart = chart(&[(3, 31.0), (64, 52.0)]);
        chart.panels[0].series[0].points[0].interval = Some((22.0, 33.0));
        chart.panels[0].baseline = Some((67.0, String::new()));
        let levels = chart.panels[0].levels();
        assert!(levels[0] <= 22.0 && levels[levels.len() - 1] >= 67.0);
    }

    #[test]
    fn a_single_value_gets_an_axis_around_it() {
        let levels = chart(&[(8, 62.0)]).panels[0].levels();
        assert!(levels[0] <= 60.0 && levels[levels.len() - 1] >= 64.0, "{levels:?}");
    }

    #[test]
    fn odd_data_still_draws() {
        for values in
            [&[][..], &[(8, 50.0)], &[(8, f64::NAN), (16, 50.0)], &[(3, 0.0), (8, 0.0)], &[(0, 100.0)]]
        {
            let svg = chart(values).draw();
            assert!(svg.starts_with("<svg ") && !svg.contains("NaN") && !svg.contains("inf"), "{values:?}");
        }
        assert!(Chart::default().draw().ends_with("</svg>\n"));
    }

    #[test]
    fn crowded_tick_labels_give_way_but_the_last_stays() {
        let values: Vec<(usize, f64)> = [3, 64, 65, 66, 380, 384].iter().map(|&k| (k, 40.0)).collect();
        let svg = chart(&values).draw();
        assert!(svg.contains(">384</text>") && svg.contains(">64</text>"));
        assert!(!svg.contains(">65</text>") && !svg.contains(">380</text>"));
    }

    #[test]
    fn tick_values_are_short() {
        assert_eq!([short(40.0), short(2.5)], ["40", "2.5"]);
    }
}
