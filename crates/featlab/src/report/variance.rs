//! Fig. 3 of the studies: how much of the features' variance the first `k` principal components hold.
//!
//! The axis is linear, labelled in parts of the number of components `D`; the curve begins at nothing. Marks are the dimensions that
//! the sweep reduced to.

use super::aggregate::distinct;
use super::chart::{Axis, Chart, Panel, Point, Series};
use super::table::percent;
use crate::study::Study;

/// Cumulative explained variance over the share of the components, as the studies draw it: D is their number.
pub(super) fn variance(study: &Study) -> Option<Chart> {
    let curve = study.variance.as_ref().filter(|curve| !curve.cumulative.is_empty())?;
    let d = curve.cumulative.len();
    let swept = distinct(study.runs.iter().map(|run| run.dim));
    let point = |(i, share): (usize, &f64)| Point {
        x: (i + 1) as f64,
        value: 100.0 * share,
        tooltip: swept
            .contains(&(i + 1))
            .then(|| format!("k = {} of {d}: {} % of the variance", i + 1, percent(*share))),
        ..Point::default()
    };
    let points = std::iter::once(Point::default()).chain(curve.cumulative.iter().enumerate().map(point));
    let series = Series { points: points.collect(), ..Series::default() };
    let fractions = [(0, 1, "0"), (1, 16, "D/16"), (1, 4, "D/4"), (1, 2, "D/2"), (3, 4, "3D/4"), (1, 1, "D")];
    let tick = |(n, of, name): (usize, usize, &str)| ((n * d) as f64 / of as f64, name.to_owned());
    let axis = Axis {
        title: format!("components k (D = {d})"),
        ends: (0.0, d as f64),
        log2: false,
        ticks: fractions.map(tick).to_vec(),
        minor: swept.iter().filter(|k| **k <= d).map(|k| *k as f64).collect(),
    };
    let title = format!("scaling before the decomposition: {}", curve.scaler);
    Some(Chart {
        title: "Variance held by the first k principal components".to_owned(),
        subtitle: "marks: dimensions of the sweep".to_owned(),
        y_title: "cumulative variance in %".to_owned(),
        axis,
        panels: vec![Panel { title, series: vec![series], levels: Vec::new() }],
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn variance_begins_at_zero_and_is_labelled_in_parts_of_d() {
        let chart = variance(&sample::study()).unwrap();
        let labels: Vec<&str> = chart.axis.ticks.iter().map(|t| t.1.as_str()).collect();
        assert_eq!(labels, ["0", "D/16", "D/4", "D/2", "3D/4", "D"]);
        assert!(chart.draw().contains(">D/16</text>") && chart.axis.title.contains("D = 384"));
        let points = &chart.panels[0].series[0].points;
        assert!(points.len() == 385 && (points[0].x, points[0].value) == (0.0, 0.0));
        assert_eq!(points.iter().filter(|p| p.tooltip.is_some()).count(), 8);
    }

    #[test]
    fn no_curve_no_figure() {
        let mut study = sample::study();
        study.variance.as_mut().unwrap().cumulative.clear();
        assert!(variance(&study).is_none());
        study.variance = None;
        assert!(variance(&study).is_none());
    }
}
