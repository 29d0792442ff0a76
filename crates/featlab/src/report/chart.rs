//! One chart: panels two abreast, each with a percent axis of its own, a legend above, one horizontal axis for all.
//!
//! The model is data only: series of points with a band (an interval over images), a bar (a spread over seeds) and a tooltip, and
//! levels, which are values without a place on the axis. [`Chart::draw`] turns it into SVG. What belongs to one name carries it as
//! `data-series`, so that a page's script can hide it; without a script all of it is there.
//! Panels do not share their percent axis: cluster scores would be squeezed flat under those of the linear probe.
//! Values are percent. Points that are not finite are left out; a chart without points is still a frame.

use super::plot::{Key, draw_data, draw_key};
use super::svg::{Px, Scale, Svg, ticks};

const PLOT_HEIGHT: f64 = 270.0;
/// From the foot of one row of panels to the head of the next.
const ROW_GAP: f64 = 92.0;
const BOTTOM: f64 = 46.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const GAP: f64 = 52.0;
/// First line of the legend, and from one to the next.
const LEGEND: (f64, f64) = (44.0, 20.0);
/// Room on both sides of the outermost dimensions.
pub(super) const MARGIN: f64 = 22.0;
/// Percent that an axis spans at least: less would make noise look like a trend.
const LEAST_SPAN: f64 = 4.0;
/// Height of a level's label as a part of the values' span.
const LABEL_SHARE: f64 = 0.07;
/// Tick labels nearer than this to their neighbour are left out.
const LABEL_ROOM: f64 = 26.0;

/// One value over one place.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Point {
    /// Place on the horizontal axis, e.g. dimensions `k`.
    pub(super) x: f64,
    /// Value in percent.
    pub(super) value: f64,
    /// Ends of its interval in percent; drawn as an area.
    pub(super) band: Option<(f64, f64)>,
    /// Ends of its spread in percent; drawn as a bar.
    pub(super) bar: Option<(f64, f64)>,
    /// Marker's tooltip; a point without one only shapes the line.
    pub(super) tooltip: Option<String>,
}

/// What a series is, which decides how heavily it is drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Scores of the study.
    #[default]
    Own,
    /// Scores of the study after a CRF.
    Refined,
    /// Somebody else's scores, for orientation.
    Published,
    /// The same after a CRF.
    PublishedRefined,
}

/// Points joined by a line.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Series {
    /// Name in the legend.
    pub(super) name: String,
    /// Colour, marker and dashes, the same for one method in all figures.
    pub(super) style: usize,
    /// How it is drawn.
    pub(super) kind: Kind,
    /// Points by ascending place.
    pub(super) points: Vec<Point>,
}

/// A value that holds everywhere: a horizontal line.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Level {
    /// Name in the legend.
    pub(super) name: String,
    /// Value in percent.
    pub(super) value: f64,
    /// Ends of its interval in percent.
    pub(super) band: Option<(f64, f64)>,
    /// Text on the line; empty for none.
    pub(super) label: String,
    /// The line's tooltip.
    pub(super) tooltip: String,
    /// Whether it is somebody else's.
    pub(super) published: bool,
}

/// One frame of a chart.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Panel {
    /// Title above the frame.
    pub(super) title: String,
    /// What is drawn.
    pub(super) series: Vec<Series>,
    /// Horizontal lines.
    pub(super) levels: Vec<Level>,
}

/// The horizontal axis, the same in all panels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    /// Title below it.
    pub(super) title: String,
    /// Places at the two ends.
    pub(super) ends: (f64, f64),
    /// Whether doubling is one step.
    pub(super) log2: bool,
    /// Places with a label, ascending.
    pub(super) ticks: Vec<(f64, String)>,
    /// Places with a tick alone.
    pub(super) minor: Vec<f64>,
}

impl Default for Axis {
    fn default() -> Self {
        Self { title: String::new(), ends: (1.0, 1.0), log2: false, ticks: Vec::new(), minor: Vec::new() }
    }
}

/// A figure.
#[derive(Debug, Clone, Default)]
pub(super) struct Chart {
    /// Title above everything.
    pub(super) title: String,
    /// What bands and bars are.
    pub(super) subtitle: String,
    /// Title of the vertical axes.
    pub(super) y_title: String,
    /// The horizontal axis.
    pub(super) axis: Axis,
    /// Frames, in reading order.
    pub(super) panels: Vec<Panel>,
}

impl Kind {
    /// Whether these are somebody else's scores.
    pub(super) fn published(self) -> bool {
        matches!(self, Self::Published | Self::PublishedRefined)
    }
}

impl Axis {
    /// A logarithmic axis of dimensions with the labels 3·2^k, as the studies have them, and the two ends. Other dimensions that
    /// occur have a tick.
    pub(super) fn dimensions(dims: &[usize]) -> Self {
        let (first, last) =
            (dims.iter().min().map_or(1, |d| *d.max(&1)), dims.iter().max().map_or(1, |d| *d.max(&1)));
        let doubled = std::iter::successors(Some(3_usize), |d| d.checked_mul(2)).take_while(|d| *d <= last);
        let mut labelled: Vec<usize> = doubled.filter(|d| *d >= first).chain([first, last]).collect();
        labelled.sort_unstable();
        labelled.dedup();
        let minor = dims.iter().filter(|d| !labelled.contains(d)).map(|d| *d.max(&1) as f64).collect();
        Self {
            title: "dimensions k (log scale)".to_owned(),
            ends: (first as f64, last as f64),
            log2: true,
            ticks: labelled.iter().map(|d| (*d as f64, d.to_string())).collect(),
            minor,
        }
    }
}

impl Panel {
    /// Round values that enclose everything drawn, within 0 to 100, with room for the labels above the levels.
    fn ticks(&self) -> Vec<f64> {
        let of_points = self.series.iter().flat_map(|s| &s.points).flat_map(|p| {
            let ends = |pair: Option<(f64, f64)>| pair.map_or([p.value; 2], |(lo, hi)| [lo, hi]);
            [[p.value; 2], ends(p.band), ends(p.bar)].concat()
        });
        let of_levels = self.levels.iter().flat_map(|l| {
            let (lo, hi) = l.band.unwrap_or((l.value, l.value));
            [l.value, lo, hi]
        });
        let values = || of_points.clone().chain(of_levels.clone()).filter(|v| v.is_finite());
        let (lo, hi) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let (lo, hi) = if lo <= hi { (lo, hi) } else { (0.0, 100.0) };
        let room = (LEAST_SPAN - (hi - lo)).max(0.0) / 2.0;
        let (lo, hi) = (lo - room, hi + room);
        let label = |l: &Level| if l.label.is_empty() { hi } else { l.value + LABEL_SHARE * (hi - lo) };
        let top = self.levels.iter().map(label).filter(|v| v.is_finite()).fold(hi, f64::max);
        ticks(lo.clamp(0.0, 100.0), top.clamp(0.0, 100.0), 6)
    }
}

impl Chart {
    /// Draws the chart.
    pub(super) fn draw(&self) -> String {
        let abreast = self.panels.len().clamp(1, 2);
        let rows = self.panels.len().div_ceil(abreast).max(1);
        let width = if abreast > 1 { 960.0 } else { 640.0 };
        let panel_width = (width - LEFT - RIGHT - GAP * (abreast as f64 - 1.0)) / abreast as f64;
        let legend = self.legend(width);
        let lines = legend.last().map_or(0.0, |(_, (_, y))| y + LEGEND.1 - LEGEND.0);
        let subtitle = if self.subtitle.is_empty() { 0.0 } else { 18.0 };
        let top = 60.0 + subtitle + lines;
        let height = top + rows as f64 * PLOT_HEIGHT + (rows as f64 - 1.0) * ROW_GAP + BOTTOM;
        let mut svg = Svg::new((width, height), &self.title);
        svg.text((LEFT, 22.0), "head", &self.title);
        if !self.subtitle.is_empty() {
            svg.text((LEFT, 40.0), "sub", &self.subtitle);
        }
        for (key, (x, y)) in &legend {
            draw_key(&mut svg, key, (*x, y + subtitle));
        }
        for (i, panel) in self.panels.iter().enumerate() {
            let left = LEFT + (i % abreast) as f64 * (panel_width + GAP);
            let head = top + (i / abreast) as f64 * (PLOT_HEIGHT + ROW_GAP);
            let x = Scale {
                domain: self.axis.ends,
                range: (left + MARGIN, left + panel_width - MARGIN),
                log2: self.axis.log2,
            };
            let levels = panel.ticks();
            let domain = (levels[0], levels[levels.len() - 1]);
            let y = Scale { domain, range: (head + PLOT_HEIGHT, head), log2: false };
            if i % abreast == 0 {
                svg.text_up((16.0, head + PLOT_HEIGHT / 2.0), "mid", &self.y_title);
            }
            self.draw_frame(&mut svg, panel, &x, &y, &levels);
            draw_data(&mut svg, panel, &x, &y);
        }
        svg.finish()
    }

    /// Every name once with its place, our own before those published, which begin a new line.
    fn legend<'a>(&'a self, width: f64) -> Vec<(Key<'a>, Px)> {
        let mut keys: Vec<Key<'a>> = Vec::new();
        for panel in &self.panels {
            let drawn = panel.series.iter().filter(|s| s.points.iter().any(|p| p.value.is_finite()));
            let all = panel.levels.iter().map(Key::Level).chain(drawn.map(Key::Series));
            for key in all.filter(|key| !key.name().is_empty()) {
                if keys.iter().all(|known| known.name() != key.name()) {
                    keys.push(key);
                }
            }
        }
        keys.sort_by_key(Key::published);
        let (mut x, mut y) = (LEFT, LEGEND.0);
        let mut published = keys.first().is_some_and(Key::published);
        let place = |key: Key<'a>| {
            let room = 33.0 + text_width(key.name());
            if x > LEFT && (x + room > width - RIGHT || key.published() != published) {
                (x, y) = (LEFT, y + LEGEND.1);
            }
            published = key.published();
            let at = (x, y);
            x += room + 18.0;
            (key, at)
        };
        keys.into_iter().map(place).collect()
    }

    fn draw_frame(&self, svg: &mut Svg, panel: &Panel, x: &Scale, y: &Scale, levels: &[f64]) {
        let (left, right, foot) = (x.range.0 - MARGIN, x.range.1 + MARGIN, y.range.0);
        let centre = (left + right) / 2.0;
        svg.text((centre, y.range.1 - 10.0), "title mid", &panel.title);
        for level in levels {
            svg.polyline(&[(left, y.at(*level)), (right, y.at(*level))], "grid");
            svg.text((left - 8.0, y.at(*level) + 4.0), "end", &short(*level));
        }
        for place in &self.axis.minor {
            svg.polyline(&[(x.at(*place), foot), (x.at(*place), foot + 3.0)], "axis");
        }
        let mut free = f64::NEG_INFINITY; // the end of the label before
        let last = self
            .axis
            .ticks
            .last()
            .map_or((f64::INFINITY, 0.0), |(place, text)| (x.at(*place), text_width(text) / 2.0));
        for (place, text) in &self.axis.ticks {
            let (at, half) = (x.at(*place), (text_width(text) / 2.0).max(LABEL_ROOM / 2.0 - 3.0));
            svg.polyline(&[(at, foot), (at, foot + 5.0)], "axis");
            // The last place is the one most asked for: it keeps its label, the one before it gives way.
            if at - half >= free && (at == last.0 || at + half + 4.0 <= last.0 - last.1) {
                svg.text((at, foot + 19.0), "mid", text);
                free = at + half + 4.0;
            }
        }
        svg.polyline(&[(left, y.range.1), (left, foot), (right, foot)], "axis");
        svg.text((centre, foot + 38.0), "mid", &self.axis.title);
    }
}

/// A tick value without needless decimals.
fn short(value: f64) -> String {
    let tenths = format!("{value:.1}");
    tenths.strip_suffix(".0").unwrap_or(&tenths).to_owned()
}

/// About how wide a text is: an average letter of a sans-serif face at 12 pixels.
pub(super) fn text_width(text: &str) -> f64 {
    6.6 * text.chars().count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[(usize, f64)]) -> Chart {
        let point = |&(dim, value): &(usize, f64)| Point {
            x: dim.max(1) as f64,
            value,
            tooltip: Some("a point".to_owned()),
            ..Point::default()
        };
        let points = values.iter().map(point).collect();
        let series = Series { name: "pca".to_owned(), points, ..Series::default() };
        let panel = Panel { title: "linear".to_owned(), series: vec![series], levels: Vec::new() };
        let dims: Vec<usize> = values.iter().map(|v| v.0).collect();
        Chart { axis: Axis::dimensions(&dims), panels: vec![panel], ..Chart::default() }
    }

    #[test]
    fn axis_encloses_values_bands_bars_and_levels() {
        let mut chart = chart(&[(3, 31.0), (64, 52.0)]);
        chart.panels[0].series[0].points[0].band = Some((22.0, 33.0));
        chart.panels[0].series[0].points[0].bar = Some((19.0, 33.0));
        chart.panels[0].levels = vec![Level { value: 67.0, ..Level::default() }];
        let levels = chart.panels[0].ticks();
        assert!(levels[0] <= 19.0 && levels[levels.len() - 1] >= 67.0);
    }

    #[test]
    fn a_single_value_gets_an_axis_around_it() {
        let levels = chart(&[(8, 62.0)]).panels[0].ticks();
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
    fn labels_are_three_times_powers_of_two_and_the_ends() {
        let axis = Axis::dimensions(&[3, 8, 16, 64, 70, 200]);
        let labels: Vec<&str> = axis.ticks.iter().map(|t| t.1.as_str()).collect();
        assert_eq!(labels, ["3", "6", "12", "24", "48", "96", "192", "200"]);
        assert_eq!(axis.minor, [8.0, 16.0, 64.0, 70.0]);
        assert_eq!(Axis::dimensions(&[]).ends, (1.0, 1.0));
    }

    #[test]
    fn crowded_tick_labels_give_way_but_the_last_stays() {
        let svg = chart(&[(3, 40.0), (200, 40.0)]).draw();
        assert!(svg.contains(">200</text>") && svg.contains(">96</text>") && !svg.contains(">192</text>"));
    }

    #[test]
    fn the_legend_wraps_and_what_is_published_stands_apart() {
        let mut chart = chart(&[(3, 40.0), (6, 50.0)]);
        let own = chart.panels[0].series[0].clone();
        let published = Series { name: "published pca".to_owned(), kind: Kind::Published, ..own.clone() };
        let more = (0..12).map(|i| Series { name: format!("a long name {i}"), ..own.clone() });
        chart.panels[0].series = std::iter::once(published).chain(more).collect();
        let legend = chart.legend(640.0);
        assert!(legend.iter().all(|(key, (x, _))| x + 33.0 + text_width(key.name()) <= 640.0));
        let (key, (x, y)) = &legend[legend.len() - 1];
        assert!(key.published() && *x == LEFT && *y > legend[legend.len() - 2].1.1);
        let svg = chart.draw();
        assert_eq!(svg.matches("data-series=\"published pca\"").count(), 2, "in the legend and in the panel");
    }

    #[test]
    fn panels_stand_two_abreast() {
        let mut chart = chart(&[(3, 40.0), (6, 50.0)]);
        let height = |chart: &Chart| -> f64 {
            let svg = chart.draw();
            let size = svg.split("viewBox=\"0 0 ").nth(1).unwrap().split('"').next().unwrap().to_owned();
            size.split(' ').nth(1).unwrap().parse().unwrap()
        };
        let one = height(&chart);
        chart.panels = vec![chart.panels[0].clone(); 2];
        assert_eq!(height(&chart), one);
        chart.panels.push(chart.panels[0].clone());
        assert_eq!(height(&chart), one + PLOT_HEIGHT + ROW_GAP);
    }

    #[test]
    fn tick_values_are_short() {
        assert_eq!([short(40.0), short(2.5)], ["40", "2.5"]);
    }
}
