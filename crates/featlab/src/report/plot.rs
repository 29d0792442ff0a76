//! What is drawn inside a panel's frame: areas, levels, lines, bars and marks, and the same marks in the legend.
//!
//! Everything that belongs to one name is a group with that name, `key` in the legend and `data` in the panels. A point's group
//! (`pt`) and a level's (`lv`) carry the tooltip.

use super::chart::{Kind, Level, MARGIN, Panel, Point, Series};
use super::svg::{Px, REFINED, STYLES, Scale, Svg};

/// One entry of the legend.
pub(super) enum Key<'a> {
    Series(&'a Series),
    Level(&'a Level),
}

impl<'a> Key<'a> {
    pub(super) fn name(&self) -> &'a str {
        match self {
            Self::Series(series) => &series.name,
            Self::Level(level) => &level.name,
        }
    }

    pub(super) fn published(&self) -> bool {
        match self {
            Self::Series(series) => series.kind.published(),
            Self::Level(level) => level.published,
        }
    }
}

impl Series {
    fn class(&self) -> String {
        let kind = match self.kind {
            Kind::Own => "",
            Kind::Refined => " crf",
            Kind::Published | Kind::PublishedRefined => " ref",
        };
        format!("s{}{kind}", self.style % STYLES)
    }

    fn mark(&self, svg: &mut Svg, at: Px) {
        match self.kind {
            Kind::Own => svg.marker(at, self.style, 1.0),
            Kind::Refined => svg.marker(at, REFINED, 1.0),
            Kind::Published => svg.marker(at, self.style, 0.65),
            Kind::PublishedRefined => svg.marker(at, REFINED, 0.75),
        }
    }
}

impl Level {
    fn class(&self) -> &'static str {
        if self.published { "base ref" } else { "base" }
    }
}

pub(super) fn draw_key(svg: &mut Svg, key: &Key<'_>, (x, y): Px) {
    let line = [(x, y), (x + 26.0, y)];
    match key {
        Key::Series(series) => svg.series(&format!("{} key", series.class()), &series.name, |g| {
            if series.points.len() > 1 {
                g.polyline(&line, "line");
            }
            series.mark(g, (x + 13.0, y));
            g.text((x + 33.0, y + 4.0), "", &series.name);
        }),
        Key::Level(level) => svg.series(&format!("{} key", level.class()), &level.name, |g| {
            g.polyline(&line, "line");
            g.text((x + 33.0, y + 4.0), "", &level.name);
        }),
    }
}

/// Areas below, then what is published, then our own lines: none may hide what is nearer to the question.
pub(super) fn draw_data(svg: &mut Svg, panel: &Panel, x: &Scale, y: &Scale) {
    let (left, right) = (x.range.0 - MARGIN, x.range.1 + MARGIN);
    let finite = |pair: Option<(f64, f64)>| pair.filter(|(lo, hi)| lo.is_finite() && hi.is_finite());
    let levels = || panel.levels.iter().filter(|level| level.value.is_finite());
    for level in levels() {
        let Some((lo, hi)) = finite(level.band) else { continue };
        let edge = |value: f64| [(left, y.at(value)), (right, y.at(value))];
        svg.series(&format!("{} data", level.class()), &level.name, |g| g.area(&edge(hi), &edge(lo), "band"));
    }
    for series in &panel.series {
        let band: Vec<(f64, (f64, f64))> =
            series.points.iter().filter_map(|p| Some((x.at(p.x), finite(p.band)?))).collect();
        let edge = |end: fn(&(f64, f64)) -> f64| -> Vec<Px> {
            band.iter().map(|(at, ends)| (*at, y.at(end(ends)))).collect()
        };
        match band.as_slice() {
            [] => {}
            // A single place has an interval but no area: a bar, as wide as a marker.
            [(at, (lo, hi))] => {
                let side = |value: f64| [(at - 4.0, y.at(value)), (at + 4.0, y.at(value))];
                svg.series(&format!("{} data", series.class()), &series.name, |g| {
                    g.area(&side(*hi), &side(*lo), "band");
                });
            }
            _ => svg.series(&format!("{} data", series.class()), &series.name, |g| {
                g.area(&edge(|e| e.1), &edge(|e| e.0), "band");
            }),
        }
    }
    for level in levels() {
        svg.series(&format!("{} data", level.class()), &level.name, |g| {
            let line =
                |g: &mut Svg| g.polyline(&[(left, y.at(level.value)), (right, y.at(level.value))], "line");
            g.group("lv", &level.tooltip, line);
        });
    }
    let mut order: Vec<&Series> = panel.series.iter().collect();
    order.sort_by_key(|series| !series.kind.published());
    order.into_iter().for_each(|series| draw_series(svg, series, x, y));
    for level in levels().filter(|level| !level.label.is_empty()) {
        // Few dimensions score low: the left end of the line is where it is not crossed.
        svg.series(&format!("{} data", level.class()), &level.name, |g| {
            g.text((left + 6.0, y.at(level.value) - 6.0), "halo", &level.label);
        });
    }
}

fn draw_series(svg: &mut Svg, series: &Series, x: &Scale, y: &Scale) {
    let points: Vec<&Point> = series.points.iter().filter(|p| p.value.is_finite()).collect();
    if points.is_empty() {
        return;
    }
    svg.series(&format!("{} data", series.class()), &series.name, |svg| {
        if points.len() > 1 {
            svg.polyline(&points.iter().map(|p| (x.at(p.x), y.at(p.value))).collect::<Vec<_>>(), "line");
        }
        for point in &points {
            let Some(tooltip) = &point.tooltip else { continue };
            let at = x.at(point.x);
            svg.group("pt", tooltip, |g| {
                if let Some((lo, hi)) = point.bar.filter(|(lo, hi)| lo.is_finite() && hi.is_finite()) {
                    let (lo, hi) = (y.at(lo), y.at(hi));
                    g.polyline(&[(at, lo), (at, hi)], "bar");
                    g.polyline(&[(at - 4.0, lo), (at + 4.0, lo)], "bar");
                    g.polyline(&[(at - 4.0, hi), (at + 4.0, hi)], "bar");
                }
                series.mark(g, (at, y.at(point.value)));
            });
        }
    });
}
