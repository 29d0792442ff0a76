//! From runs to rows: mean and standard deviation over the seeds of one setting.
//!
//! A setting is (backbone, method, dim, probe, CRF or not). The standard deviation is the sample's (`n - 1` below the line) and
//! there is none for one seed. A row's interval is the mean of its seeds' intervals: it says what another
//! sample of images could have given, where the standard deviation says what another seed could have given.
//! Baseline rows come first, then methods and probes in plan order, refined ones after plain ones, dimensions ascending.

use serde::Serialize;

use crate::study::{Majority, RunRecord, Study, short_name};

/// Method name of the features as they are, the yardstick of every reduction.
pub(super) const BASELINE: &str = "none";

/// One setting, aggregated over its seeds. Scores are fractions in `[0, 1]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SummaryRow {
    /// Backbone as the user named it.
    pub(crate) backbone: String,
    /// Whether that is another backbone than the study's, beside which it stands for comparison.
    pub(crate) compared: bool,
    /// `none`, `pca`, `rp`, `rp-sparse`, `umap`, `hnne`.
    pub(crate) method: String,
    /// Dimensions `k` that the probe saw.
    pub(crate) dim: usize,
    /// `linear`, `cluster`, `knn`, `ridge`, `kmeans`.
    pub(crate) probe: String,
    /// Whether a dense CRF refined the predictions.
    pub(crate) crf: bool,
    /// Number of seeds behind the row.
    pub(crate) seeds: usize,
    /// Mean IoU, averaged over seeds.
    pub(crate) miou: f64,
    /// Its standard deviation over seeds; `None` for one seed.
    pub(crate) miou_std: Option<f64>,
    /// Mean lower end of the seeds' 95 % intervals.
    pub(crate) miou_lo: f64,
    /// Mean upper end of the seeds' 95 % intervals.
    pub(crate) miou_hi: f64,
    /// Pixel accuracy, averaged over seeds.
    pub(crate) accuracy: f64,
    /// Its standard deviation over seeds; `None` for one seed.
    pub(crate) accuracy_std: Option<f64>,
    /// Mean seconds per run.
    pub(crate) wall_s: f64,
    /// Boundary IoU, averaged over the seeds that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) boundary_iou: Option<f64>,
    /// Many-to-one scores of a cluster probe, averaged over the seeds that have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) majority: Option<Majority>,
}

impl SummaryRow {
    fn of(runs: &[&RunRecord], study: &Study) -> Self {
        let first = runs[0];
        let column = |value: fn(&RunRecord) -> f64| runs.iter().map(|run| value(run)).collect::<Vec<_>>();
        let (mious, accuracies) = (column(|r| r.miou), column(|r| r.accuracy));
        Self {
            backbone: first.backbone.clone(),
            compared: is_compared(first, study),
            method: first.method.clone(),
            dim: first.dim,
            probe: first.probe.clone(),
            crf: first.crf,
            seeds: runs.len(),
            miou: mean(&mious),
            miou_std: sample_std(&mious),
            miou_lo: mean(&column(|r| r.miou_lo)),
            miou_hi: mean(&column(|r| r.miou_hi)),
            accuracy: mean(&accuracies),
            accuracy_std: sample_std(&accuracies),
            wall_s: mean(&column(|r| r.wall_s)),
            boundary_iou: mean_of(runs.iter().filter_map(|run| run.boundary_iou)),
            majority: majority(runs),
        }
    }

    /// Whether a run belongs to this row.
    pub(super) fn covers(&self, run: &RunRecord) -> bool {
        setting(run) == (&self.backbone, &self.method, self.dim, &self.probe, self.crf)
    }

    /// The method as a reader sees it: `pca`, `pca + crf` where a CRF came after, and with another backbone's name before it
    /// where it was applied to that one's features, or the name alone.
    pub(super) fn label(&self) -> String {
        label((&self.backbone, &self.method), self.compared, self.crf)
    }

    /// Whether these are the study's own features as they are, refined or not.
    pub(super) fn is_baseline(&self) -> bool {
        self.method == BASELINE && !self.compared
    }
}

/// One row per setting, averaged over seeds.
pub(crate) fn summary(study: &Study) -> Vec<SummaryRow> {
    let mut settings = distinct(study.runs.iter().map(setting));
    let backbones = distinct(settings.iter().map(|s| s.0.as_str()));
    let methods = distinct(settings.iter().map(|s| s.1.as_str()));
    let probes = distinct(settings.iter().map(|s| s.3.as_str()));
    settings.sort_by_key(|&(backbone, method, dim, probe, crf)| {
        let place = methods.iter().position(|&m| m == method.as_str());
        let backbone = backbones.iter().position(|&b| b == backbone);
        (method != BASELINE, backbone, place, crf, dim, probes.iter().position(|&p| p == probe))
    });
    let runs_of = |s| study.runs.iter().filter(|run| setting(run) == s).collect::<Vec<_>>();
    settings.into_iter().map(|s| SummaryRow::of(&runs_of(s), study)).collect()
}

/// Whether a run is of another backbone than the study's, which is that of its first run.
fn is_compared(run: &RunRecord, study: &Study) -> bool {
    study.runs.first().is_some_and(|first| first.backbone != run.backbone)
}

/// A run's setting as a reader sees it; see [`SummaryRow::label`].
pub(super) fn label_of(run: &RunRecord, study: &Study) -> String {
    label((&run.backbone, &run.method), is_compared(run, study), run.crf)
}

fn label((backbone, method): (&str, &str), compared: bool, crf: bool) -> String {
    let shown = match (compared, method) {
        (false, _) => method.to_owned(),
        (true, BASELINE) => short_name(backbone),
        (true, _) => format!("{}: {method}", short_name(backbone)),
    };
    if crf { format!("{shown} + crf") } else { shown }
}

/// The rows laid out as readers want them: one line per (method, dim), one cell per probe.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    /// Probes, in plan order.
    pub(super) probes: Vec<String>,
    /// Lines, baseline first.
    pub(super) lines: Vec<Line>,
}

/// One (method, dim) of a [`Grid`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Method as shown, e.g. `pca + crf`.
    pub(super) label: String,
    /// Dimensions `k`.
    pub(super) dim: usize,
    /// Whether these are the features as they are.
    pub(super) baseline: bool,
    /// One entry per probe of the grid; `None` where the sweep has no such run.
    pub(super) cells: Vec<Option<SummaryRow>>,
}

impl Grid {
    /// Lays out a study.
    pub(super) fn of(study: &Study) -> Self {
        let rows = summary(study);
        let probes: Vec<String> = distinct(study.runs.iter().map(|run| run.probe.clone()));
        let lines = distinct(rows.iter().map(|row| (row.label(), row.dim))).into_iter();
        let lines = lines.map(|(label, dim)| {
            let mine = |row: &&SummaryRow| row.dim == dim && row.label() == label;
            let cell = |probe: &String| rows.iter().filter(mine).find(|row| row.probe == *probe).cloned();
            let baseline = rows.iter().filter(mine).any(SummaryRow::is_baseline);
            Line { cells: probes.iter().map(cell).collect(), label, dim, baseline }
        });
        Self { lines: lines.collect(), probes }
    }

    /// Highest value of a score in one probe's column.
    pub(super) fn best(&self, probe: usize, score: fn(&SummaryRow) -> f64) -> Option<f64> {
        let cells = self.lines.iter().filter_map(|line| line.cells[probe].as_ref());
        cells.map(score).filter(|v| v.is_finite()).max_by(f64::total_cmp)
    }

    /// Whether any row rests on more than one seed.
    pub(super) fn has_seeds(&self) -> bool {
        self.lines.iter().flat_map(|line| line.cells.iter().flatten()).any(|row| row.seeds > 1)
    }
}

/// Mean IoU of each class over the seeds in which it has one, in class order.
pub(super) fn class_means(study: &Study, row: &SummaryRow) -> Vec<Option<f64>> {
    let runs: Vec<&RunRecord> = study.runs.iter().filter(|run| row.covers(run)).collect();
    let of_class = |class: usize| -> Vec<f64> {
        runs.iter().filter_map(|run| run.per_class.get(class)?.iou).filter(|iou| iou.is_finite()).collect()
    };
    (0..study.classes.len()).map(|c| Some(of_class(c)).filter(|v| !v.is_empty()).map(|v| mean(&v))).collect()
}

/// The items without repetitions, each where it first occurs.
pub(super) fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

fn setting(run: &RunRecord) -> (&String, &String, usize, &String, bool) {
    (&run.backbone, &run.method, run.dim, &run.probe, run.crf)
}

fn majority(runs: &[&RunRecord]) -> Option<Majority> {
    let known: Vec<Majority> = runs.iter().filter_map(|run| run.majority).collect();
    let column = |value: fn(&Majority) -> f64| mean_of(known.iter().map(value));
    Some(Majority { miou: column(|m| m.miou)?, coverage: column(|m| m.coverage)? })
}

fn mean_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| mean(&values))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn sample_std(values: &[f64]) -> Option<f64> {
    let centre = mean(values);
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn mean_and_sample_deviation_by_hand() {
        let mut study = sample::study();
        study.runs.retain(|r| r.method == "pca" && r.dim == 3 && r.probe == "linear");
        for (run, (miou, lo, hi, accuracy)) in
            study.runs.iter_mut().zip([(0.2, 0.1, 0.3, 0.5), (0.4, 0.2, 0.5, 0.7), (0.6, 0.3, 0.7, 0.6)])
        {
            (run.miou, run.miou_lo, run.miou_hi, run.accuracy, run.wall_s) = (miou, lo, hi, accuracy, 2.0);
        }
        let rows = summary(&study);
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert!(close(row.miou, 0.4) && close(row.accuracy, 0.6) && close(row.wall_s, 2.0));
        // Deviations (-0.2, 0, 0.2): sqrt(0.08 / 2) = 0.2; (-0.1, 0.1, 0): sqrt(0.02 / 2) = 0.1.
        assert!(close(row.miou_std.unwrap(), 0.2) && close(row.accuracy_std.unwrap(), 0.1));
        assert!(close(row.miou_lo, 0.2) && close(row.miou_hi, 0.5));
        assert_eq!(row.seeds, 3);
    }

    #[test]
    fn one_seed_has_no_deviation() {
        let mut study = sample::study();
        study.runs.retain(|r| r.seed == 0);
        assert!(
            summary(&study).iter().all(|r| r.miou_std.is_none() && r.accuracy_std.is_none() && r.seeds == 1)
        );
        assert!(!Grid::of(&study).has_seeds());
    }

    #[test]
    fn baseline_leads_and_dimensions_ascend_whatever_the_plan_order() {
        let mut study = sample::study();
        study.runs.reverse();
        let rows = summary(&study);
        assert!(rows[0].method == BASELINE && rows[1].method == BASELINE && rows[2].method != BASELINE);
        let dims: Vec<usize> = rows.iter().filter(|r| r.method == "pca").map(|r| r.dim).collect();
        assert!(dims.is_sorted());
        let grid = Grid::of(&study);
        assert!(grid.lines[0].baseline && grid.lines[1..].iter().all(|line| !line.baseline));
        assert!(grid.lines.iter().all(|line| line.cells.len() == 2));
    }

    #[test]
    fn crf_runs_are_rows_of_their_own() {
        let mut study = sample::study();
        study.runs.retain(|r| r.method == "pca" && r.dim == 3 && r.probe == "linear" && r.seed < 2);
        study.runs[1].crf = true;
        assert_eq!(summary(&study).iter().map(SummaryRow::label).collect::<Vec<_>>(), ["pca", "pca + crf"]);
    }

    #[test]
    fn further_scores_are_averaged_where_they_are() {
        let mut study = sample::study();
        study.runs.retain(|r| r.method == "pca" && r.dim == 3 && r.probe == "cluster");
        for (run, miou) in study.runs.iter_mut().zip([Some(0.2), None, Some(0.4)]) {
            (run.boundary_iou, run.majority) = (miou, miou.map(|miou| Majority { miou, coverage: 0.5 }));
        }
        let row = &summary(&study)[0];
        assert!(close(row.boundary_iou.unwrap(), 0.3) && close(row.majority.unwrap().miou, 0.3));
        study.runs.iter_mut().for_each(|run| (run.boundary_iou, run.majority) = (None, None));
        let row = &summary(&study)[0];
        assert!(row.boundary_iou.is_none() && row.majority.is_none());
    }

    #[test]
    fn class_means_leave_out_missing_values() {
        let mut study = sample::study();
        let row = summary(&study).into_iter().find(|r| r.method == "pca").unwrap();
        let mine: Vec<usize> = (0..study.runs.len()).filter(|&i| row.covers(&study.runs[i])).collect();
        for (&run, iou) in mine.iter().zip([Some(0.2), None, Some(0.6)]) {
            study.runs[run].per_class[0].iou = iou;
            study.runs[run].per_class[1].iou = None;
        }
        let means = class_means(&study, &row);
        assert!(close(means[0].unwrap(), 0.4));
        assert_eq!(means[1], None);
        assert_eq!(means.len(), study.classes.len());
    }
}
