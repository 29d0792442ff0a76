//! The figures of a report: mIoU and accuracy over target dimension, and explained variance.
//!
//! Scores are drawn per probe in panels of their own, one series per reduction, the unreduced features as a dashed
//! line. mIoU carries the mean of the seeds' 95 % intervals over images; accuracy carries one standard deviation over
//! seeds, since it has no interval of its own. `chart` does the drawing.

use super::aggregate::{BASELINE, SummaryRow, distinct, summary};
use super::chart::{Chart, Panel, Point, Series};
use super::table::percent;
use crate::study::Study;

/// File name of the figure that only a study with a PCA has.
pub(super) const VARIANCE_FILE: &str = "explained-variance.svg";
const VARIANCE_TITLE: &str = "Variance held by the first k principal components";

/// Methods that have a colour and a marker of their own, so that the figures of two studies can be read together.
const KNOWN: [&str; 7] = ["pca", "rp", "rp-sparse", "hnne", "umap", "stego", "stego-nested"];

/// The figures as `(file name, SVG)`: mIoU and accuracy over dimension, and the variance if the study has a curve.
pub(crate) fn figures(study: &Study) -> Vec<(String, String)> {
    let drawn = [MIOU, ACCURACY].into_iter().map(|score| (score.file, scores(study, &score)));
    let drawn = drawn.chain(variance(study).map(|chart| (VARIANCE_FILE, chart)));
    drawn.map(|(file, chart)| (file.to_owned(), chart.draw())).collect()
}

/// The same figures as `(file name, title)`, for pages that link to them.
pub(super) fn titled_files(study: &Study) -> Vec<(&'static str, &'static str)> {
    let mut files = vec![(MIOU.file, MIOU.title), (ACCURACY.file, ACCURACY.title)];
    files.extend(variance(study).map(|_| (VARIANCE_FILE, VARIANCE_TITLE)));
    files
}

/// One score, as a figure sees it. All values are fractions.
struct Score {
    file: &'static str,
    title: &'static str,
    /// What the bars are, if there are any; the argument is whether any setting has several seeds.
    bars: fn(bool) -> Option<&'static str>,
    y_title: &'static str,
    value: fn(&SummaryRow) -> f64,
    interval: fn(&SummaryRow) -> Option<(f64, f64)>,
}

const MIOU: Score = Score {
    file: "miou-over-dimension.svg",
    title: "Mean IoU over target dimension",
    bars: |seeds| {
        Some(if seeds { "95 % interval over images, mean over seeds" } else { "95 % interval over images" })
    },
    y_title: "mIoU in %",
    value: |row| row.miou,
    interval: |row| Some((row.miou_lo, row.miou_hi)),
};

const ACCURACY: Score = Score {
    file: "accuracy-over-dimension.svg",
    title: "Pixel accuracy over target dimension",
    bars: |seeds| seeds.then_some("± 1 standard deviation over seeds"),
    y_title: "accuracy in %",
    value: |row| row.accuracy,
    interval: |row| row.accuracy_std.map(|std| (row.accuracy - std, row.accuracy + std)),
};

impl Score {
    fn point(&self, row: &SummaryRow) -> Point {
        let interval = (self.interval)(row);
        let ends = interval.map_or(String::new(), |(lo, hi)| format!(" [{}, {}]", percent(lo), percent(hi)));
        let seeds = if row.seeds == 1 { "1 seed".to_owned() } else { format!("{} seeds", row.seeds) };
        let value = (self.value)(row);
        Point {
            dim: row.dim,
            value: 100.0 * value,
            interval: interval.map(|(lo, hi)| (100.0 * lo, 100.0 * hi)),
            tooltip: Some(format!(
                "{}, {} probe, k = {}: {} %{ends}, {seeds}",
                row.label(),
                row.probe,
                row.dim,
                percent(value)
            )),
        }
    }
}

fn scores(study: &Study, score: &Score) -> Chart {
    let (baseline, reduced): (Vec<_>, Vec<_>) = summary(study).into_iter().partition(SummaryRow::is_baseline);
    let reduced: Vec<_> = reduced.into_iter().filter(|row| !row.compared).collect(); // they stand in the table
    let legend = with_styles(distinct(reduced.iter().map(SummaryRow::label)));
    let bars = (score.bars)(reduced.iter().any(|row| row.seeds > 1)).filter(|_| !reduced.is_empty());
    let panel = |probe: String| {
        let series = legend.iter().map(|(style, label)| Series {
            style: *style,
            points: (reduced.iter().filter(|r| r.probe == probe && r.label() == *label))
                .map(|r| score.point(r))
                .collect(),
        });
        let unreduced = baseline.iter().find(|row| row.probe == probe && (score.value)(row).is_finite());
        let baseline =
            unreduced.map(score.value).map(|v| (100.0 * v, format!("{BASELINE}: {} %", percent(v))));
        Panel { series: series.collect(), baseline, title: format!("{probe} probe") }
    };
    let panels = distinct(study.runs.iter().map(|run| run.probe.clone())).into_iter().map(panel).collect();
    let shown = baseline.first().map(|row| format!("{BASELINE} (all {} dimensions)", row.dim));
    Chart {
        title: score.title.to_owned() + &bars.map_or(String::new(), |bars| format!(" (bars: {bars})")),
        y_title: score.y_title.to_owned(),
        dims: swept(if reduced.is_empty() { &baseline } else { &reduced }),
        baseline: shown,
        legend,
        panels,
    }
}

/// Known methods keep their style; the others, in order, get those that are left.
fn with_styles(labels: Vec<String>) -> Vec<(usize, String)> {
    let own = |label: &String| KNOWN.iter().position(|known| known == label);
    let taken: Vec<usize> = labels.iter().filter_map(own).collect();
    let mut free = (0..).filter(|style| !taken.contains(style));
    let styled = |label| (own(&label).or_else(|| free.next()).unwrap_or(0), label);
    labels.into_iter().map(styled).collect()
}

fn variance(study: &Study) -> Option<Chart> {
    let curve = study.variance.as_ref().filter(|curve| !curve.cumulative.is_empty())?;
    let rows = summary(study);
    let mut dims = swept(&rows);
    dims.retain(|dim| (1..=curve.cumulative.len()).contains(dim));
    let point = |(i, share): (usize, &f64)| Point {
        dim: i + 1,
        value: 100.0 * share,
        interval: None,
        tooltip: dims
            .contains(&(i + 1))
            .then(|| format!("k = {}: {} % of the variance", i + 1, percent(*share))),
    };
    let points = curve.cumulative.iter().enumerate().map(point).collect();
    // The axis begins at the first component even where the sweep does not.
    let ends = [1, curve.cumulative.len()];
    let mut ticks: Vec<usize> = dims.iter().copied().chain(ends).collect();
    ticks.sort_unstable();
    ticks.dedup();
    let title = format!("scaling before the decomposition: {}", curve.scaler);
    Some(Chart {
        title: VARIANCE_TITLE.to_owned(),
        y_title: "cumulative variance in %".to_owned(),
        dims: ticks,
        panels: vec![Panel { title, series: vec![Series { style: 0, points }], baseline: None }],
        ..Chart::default()
    })
}

/// Dimensions that occur, ascending.
fn swept(rows: &[SummaryRow]) -> Vec<usize> {
    let mut dims = distinct(rows.iter().map(|row| row.dim));
    dims.sort_unstable();
    dims
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_panel_per_probe_a_series_per_method_a_mark_per_setting() {
        let study = sample::study();
        let chart = scores(&study, &MIOU);
        assert_eq!(
            chart.panels.iter().map(|p| p.title.as_str()).collect::<Vec<_>>(),
            ["linear probe", "cluster probe"]
        );
        assert_eq!(chart.legend, [(0, "pca".to_owned()), (1, "rp".to_owned())]);
        assert_eq!(chart.dims, [3, 8, 16, 32, 64, 128, 256, 384]);
        assert!(
            chart.panels.iter().all(|p| p.series.iter().all(|s| s.points.len() == 8) && p.baseline.is_some())
        );
        let first = &chart.panels[0].series[0].points[0];
        let row = summary(&study).into_iter().find(|r| (r.method.as_str(), r.dim) == ("pca", 3)).unwrap();
        assert_eq!(first.interval, Some((100.0 * row.miou_lo, 100.0 * row.miou_hi)));
    }

    #[test]
    fn dashed_line_shows_its_value() {
        let svg = &figures(&sample::study())[0].1;
        assert!(svg.contains("none: 62.0 %") && svg.contains("none: 29.0 %"));
    }

    #[test]
    fn figures_are_well_formed_for_odd_studies() {
        for (what, study) in sample::odd_studies() {
            for (name, svg) in figures(&study) {
                assert!(!svg.contains("NaN"), "{what}: {name}");
                assert_eq!(sample::unbalanced(&svg), None, "{what}: {name}");
            }
        }
    }

    #[test]
    fn every_method_has_its_style_whatever_else_was_swept() {
        let styles = |labels: &[&str]| -> Vec<usize> {
            with_styles(labels.iter().map(|l| (*l).to_owned()).collect()).into_iter().map(|s| s.0).collect()
        };
        assert_eq!(styles(&["rp", "pca"]), [1, 0]);
        assert_eq!(styles(&["pca + crf", "pca", "mine", "rp"]), [2, 0, 3, 1]);
        assert_eq!(styles(&KNOWN), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn titles_explain_the_bars_that_are_drawn() {
        let mut study = sample::study();
        assert!(scores(&study, &MIOU).title.ends_with("(bars: 95 % interval over images, mean over seeds)"));
        study.runs.retain(|run| run.seed == 0);
        assert!(scores(&study, &MIOU).title.ends_with("(bars: 95 % interval over images)"));
        assert!(scores(&study, &ACCURACY).title.ends_with("target dimension"));
    }

    #[test]
    fn variance_figure_only_where_there_is_a_curve() {
        let mut study = sample::study();
        assert_eq!(figures(&study).len(), 3);
        study.variance = None;
        assert_eq!(figures(&study).len(), 2);
    }
}
