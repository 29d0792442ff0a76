//! Curves of precision over recall, one for each score, as the original draws them: `AP=NN% name` in the legend.

use segment::PrecisionRecall;

use super::chart::{Axis, Chart, Panel, Point, Series};

/// Points of a curve that are drawn.
const POINTS: usize = 200;
/// Of them, those that have a mark and a tooltip.
const MARKS: usize = 10;

/// A figure as SVG.
///
/// * `title`: what was looked at; `curves`: by the score's name.
pub(crate) fn precision_recall_figure(title: &str, curves: &[(String, PrecisionRecall)]) -> String {
    chart(title, curves).draw()
}

fn chart(title: &str, curves: &[(String, PrecisionRecall)]) -> Chart {
    let series = curves.iter().enumerate().map(|(style, (name, curve))| {
        let point = |(i, at): (usize, segment::Threshold)| Point {
            x: 100.0 * at.recall,
            value: 100.0 * at.precision,
            tooltip: (i % (POINTS / MARKS) == 0).then(|| {
                format!(
                    "{name} ≥ {:.3}: precision {:.1} %, recall {:.1} %",
                    at.score,
                    100.0 * at.precision,
                    100.0 * at.recall
                )
            }),
            ..Point::default()
        };
        Series {
            name: format!("AP={:.0}% {name}", 100.0 * curve.average_precision),
            style,
            points: curve.thinned(POINTS).into_iter().enumerate().map(point).collect(),
            ..Series::default()
        }
    });
    let axis = Axis {
        title: "recall in %".to_owned(),
        ends: (0.0, 100.0),
        log2: false,
        ticks: (0..=5).map(|i| (20.0 * f64::from(i), (20 * i).to_string())).collect(),
        minor: Vec::new(),
    };
    let chance = curves.first().map_or(0.0, |(_, curve)| curve.matches as f64 / curve.pairs as f64);
    Chart {
        title: "Do two points bear the same label?".to_owned(),
        subtitle: format!("{:.1} % of all pairs do", 100.0 * chance),
        y_title: "precision in %".to_owned(),
        axis,
        panels: vec![Panel { title: title.to_owned(), series: series.collect(), levels: Vec::new() }],
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use segment::ScoredPairs;

    use super::*;

    #[test]
    fn a_curve_ends_at_full_recall_and_says_its_average() {
        let scores = Array2::from_shape_fn((30, 40), |(i, j)| ((i * 40 + j) as f32 * 0.37).sin());
        let matches = scores.mapv(|score| Some((score * 50.0) as i32 % 3 == 0));
        let mut pairs = ScoredPairs::new();
        pairs.push(scores.view(), matches.view()).unwrap();
        let curve = pairs.precision_recall().unwrap();
        let percent = format!("AP={:.0}% features", 100.0 * curve.average_precision);
        let chart = chart("3 images", &[("features".to_owned(), curve)]);
        let points = &chart.panels[0].series[0].points;
        assert_eq!(points.last().unwrap().x, 100.0);
        assert!(points.windows(2).all(|pair| pair[0].x < pair[1].x) && points.len() <= POINTS);
        let svg = chart.draw();
        assert!(svg.contains(&percent) && svg.contains("recall in %") && svg.contains("3 images"));
    }
}
