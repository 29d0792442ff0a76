//! Paired comparisons: which settings of a study differ by more than the choice of images explains.
//!
//! Of each probe: every two reductions at the same dimension, each reduction at its best dimension against the features as they
//! are, and refined against plain predictions; of two backbones, what was done to the features of both. A setting's score is the mean over its seeds, and both settings of a pair are
//! redrawn with the same images, so the counts of all seeds of an image stand side by side in one matrix.

use anyhow::Result;
use ndarray::{Array2, Axis, concatenate, s};
use probe::{ConfusionMatrix, Resampling};

use crate::records::Records;
use crate::stages::probe::IntervalMethod;
use crate::study::{Comparison, RunRecord, short_name};

/// Method name of the features as they are.
const BASELINE: &str = "none";

/// The runs of one setting, by seed.
struct Setting<'a> {
    first: &'a RunRecord,
    runs: Vec<&'a RunRecord>,
}

impl Setting<'_> {
    fn name(&self) -> String {
        let crf = if self.first.crf { " + crf" } else { "" };
        format!("{}{crf}, {}", self.first.method, self.first.dim)
    }

    fn full_name(&self) -> String {
        format!("{}: {}", short_name(&self.first.backbone), self.name())
    }

    fn miou(&self) -> f64 {
        self.runs.iter().map(|run| run.miou).sum::<f64>() / self.runs.len() as f64
    }

    fn is_baseline(&self) -> bool {
        self.first.method == BASELINE && !self.first.crf
    }

    /// Whether the same was done to both: features as they are may differ in width.
    fn is_same_reduction(&self, other: &Self) -> bool {
        let (own, their) = (self.first, other.first);
        let same = (&own.method, own.crf) == (&their.method, their.crf);
        same && (own.method == BASELINE || own.dim == their.dim)
    }
}

/// Compares settings of one study's runs, whose counts lie in `records`. Pairs whose counts are not there are left out.
///
/// # Errors
/// If counts of equal images do not fit together.
pub(super) fn comparisons(
    runs: &[RunRecord],
    records: &Records,
    (interval, resamples): (IntervalMethod, usize),
) -> Result<Vec<Comparison>> {
    let settings = settings(runs);
    let mut probes: Vec<&str> = settings.iter().map(|setting| setting.first.probe.as_str()).collect();
    probes.dedup();
    let resampling = interval.resampling(resamples, 0);
    let mut found = Vec::new();
    for (at, probe) in probes.iter().enumerate() {
        if probes[..at].contains(probe) {
            continue;
        }
        let mine: Vec<&Setting<'_>> = settings.iter().filter(|s| s.first.probe == *probe).collect();
        let of_first = |s: &&&Setting<'_>| s.first.backbone == runs[0].backbone;
        let own: Vec<&Setting<'_>> = mine.iter().filter(of_first).copied().collect();
        for (first, second) in pairs(&own) {
            let names = (first.name(), second.name());
            found.extend(compare((first, second), names, records, (interval, resampling))?);
        }
        for other in mine.iter().filter(|s| s.first.backbone != runs[0].backbone && !s.first.crf) {
            let Some(same) = own.iter().find(|s| s.is_same_reduction(other)) else { continue };
            let names = (other.full_name(), same.full_name());
            found.extend(compare((other, same), names, records, (interval, resampling))?);
        }
    }
    Ok(found)
}

fn settings(runs: &[RunRecord]) -> Vec<Setting<'_>> {
    let key =
        |run: &RunRecord| (run.backbone.clone(), run.method.clone(), run.dim, run.probe.clone(), run.crf);
    let mut settings: Vec<Setting<'_>> = Vec::new();
    for run in runs {
        match settings.iter_mut().find(|setting| key(setting.first) == key(run)) {
            Some(setting) => setting.runs.push(run),
            None => settings.push(Setting { first: run, runs: vec![run] }),
        }
    }
    settings
}

/// What is compared with what, of one probe and backbone.
fn pairs<'a>(settings: &[&'a Setting<'a>]) -> Vec<(&'a Setting<'a>, &'a Setting<'a>)> {
    let reduced: Vec<&Setting<'_>> =
        settings.iter().copied().filter(|s| !s.first.crf && s.first.method != BASELINE).collect();
    let mut pairs = Vec::new();
    for (at, first) in reduced.iter().enumerate() {
        let rivals = reduced[at + 1..].iter();
        let rivals = rivals
            .filter(|other| other.first.dim == first.first.dim && other.first.method != first.first.method);
        pairs.extend(rivals.map(|second| (*first, *second)));
    }
    pairs.sort_by_key(|(first, _)| first.first.dim);
    if let Some(baseline) = settings.iter().find(|setting| setting.is_baseline()) {
        let mut methods: Vec<&str> = reduced.iter().map(|s| s.first.method.as_str()).collect();
        methods.dedup();
        for method in methods {
            let own = reduced.iter().filter(|s| s.first.method == method && s.first.dim < baseline.first.dim);
            let best = own.filter(|s| s.miou().is_finite()).max_by(|a, b| a.miou().total_cmp(&b.miou()));
            pairs.extend(best.map(|best| (*best, *baseline)));
        }
    }
    for refined in settings.iter().filter(|setting| setting.first.crf) {
        let of = |s: &&&Setting<'_>| {
            !s.first.crf && (&s.first.method, s.first.dim) == (&refined.first.method, refined.first.dim)
        };
        pairs.extend(settings.iter().find(of).map(|plain| (*refined, *plain)));
    }
    pairs
}

fn compare(
    (first, second): (&Setting<'_>, &Setting<'_>),
    names: (String, String),
    records: &Records,
    (interval, resampling): (IntervalMethod, Resampling),
) -> Result<Option<Comparison>> {
    // Seeds that one of them lacks say nothing about the pair; a run without chance stands beside any seed.
    let both: Vec<(&RunRecord, &RunRecord)> = match (first.runs.len(), second.runs.len()) {
        (_, 1) => first.runs.iter().map(|run| (*run, second.runs[0])).collect(),
        (1, _) => second.runs.iter().map(|run| (first.runs[0], *run)).collect(),
        _ => {
            let partner = |run: &&RunRecord| second.runs.iter().find(|other| other.seed == run.seed).copied();
            first.runs.iter().filter_map(|run| Some((*run, partner(run)?))).collect()
        }
    };
    let (a, b): (Vec<_>, Vec<_>) = both.iter().copied().unzip();
    let counts = |runs: Vec<&RunRecord>| {
        runs.into_iter().map(|run| records.counts(run).ok()).collect::<Option<Vec<_>>>()
    };
    let (Some(a), Some(b)) = (counts(a), counts(b)) else { return Ok(None) };
    let images = a.first().map_or(0, Vec::len);
    if images == 0 || a.iter().chain(&b).any(|run| run.len() != images) {
        return Ok(None);
    }
    let seeds = both.len();
    let (a, b) = (abreast(&a), abreast(&b));
    let found = resampling.compare(&a, &b, |counts| mean_miou(counts, seeds))?;
    Ok(Some(Comparison {
        probe: first.first.probe.clone(),
        first: names.0,
        second: names.1,
        difference: found.difference,
        interval: Some((found.interval.lo, found.interval.hi)),
        p: Some(found.p_swap),
        test: format!(
            "{} and random swaps over {images} images, {seeds} seed{}",
            interval.name(),
            if seeds == 1 { "" } else { "s" }
        ),
    }))
}

/// The counts of several runs `[s][n]` of `[c, c or c + 1]` each, side by side: `[n]` of `[c, s · (c + 1)]`.
fn abreast(runs: &[Vec<ConfusionMatrix>]) -> Vec<ConfusionMatrix> {
    let image = |i: usize| {
        let wide = runs.iter().map(|run| {
            let counts = run[i].counts();
            let mut wide = Array2::zeros((counts.nrows(), counts.nrows() + 1));
            wide.slice_mut(s![.., ..counts.ncols()]).assign(&counts);
            wide
        });
        let wide: Vec<Array2<u64>> = wide.collect();
        let views: Vec<_> = wide.iter().map(Array2::view).collect();
        ConfusionMatrix::from_counts(concatenate(Axis(1), &views).expect("runs of the same classes"))
    };
    (0..runs[0].len()).map(image).collect()
}

/// The mean over runs of the mean IoU.
fn mean_miou(counts: &ConfusionMatrix, runs: usize) -> f64 {
    let counts = counts.counts();
    let width = counts.ncols() / runs;
    let run = |i: usize| {
        let own = counts.slice(s![.., i * width..(i + 1) * width]).to_owned();
        ConfusionMatrix::from_counts(own).scores().mean_iou
    };
    (0..runs).map(run).sum::<f64>() / runs as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(method: &str, dim: usize, seed: u64, crf: bool, miou: f64) -> RunRecord {
        RunRecord {
            key: format!("{method}{dim}{seed}{crf}"),
            method: method.into(),
            dim,
            probe: "linear".into(),
            seed,
            crf,
            miou,
            ..RunRecord::default()
        }
    }

    fn images(right: u64) -> Vec<ConfusionMatrix> {
        let image =
            |i: u64| ConfusionMatrix::from_counts(ndarray::array![[right + i % 5, 30 - right], [10, 30]]);
        (0..24).map(image).collect()
    }

    #[test]
    fn what_is_compared_and_which_differ() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        let runs = [
            (run("none", 8, 0, false, 0.5), 20),
            (run("none", 8, 0, true, 0.5), 20),
            (run("pca", 4, 0, false, 0.5), 20),
            (run("pca", 4, 1, false, 0.5), 22),
            (run("rp", 4, 0, false, 0.4), 12),
            (run("rp", 4, 1, false, 0.4), 12),
            (run("rp", 2, 0, false, 0.3), 9),
        ];
        for (run, right) in &runs {
            records.put(run, None, &images(*right)).unwrap();
        }
        let runs: Vec<RunRecord> = runs.into_iter().map(|(run, _)| run).collect();
        let found = comparisons(&runs, &records, (IntervalMethod::Jackknife, 200)).unwrap();
        let names: Vec<_> = found.iter().map(|c| (c.first.as_str(), c.second.as_str())).collect();
        assert_eq!(
            names,
            [("pca, 4", "rp, 4"), ("pca, 4", "none, 8"), ("rp, 4", "none, 8"), ("none + crf, 8", "none, 8")]
        );
        assert!(found[0].difference > 0.1 && found[0].p.unwrap() < 0.01 && found[0].test.contains("2 seeds"));
        assert_eq!((found[3].difference, found[3].p), (0.0, Some(1.0)));
        let by_hand = |right: u64| {
            let sum = images(right).iter().fold(ConfusionMatrix::new(2, 2), |mut sum, image| {
                sum.merge(image);
                sum
            });
            sum.scores().mean_iou
        };
        let expected = 0.5 * (by_hand(20) + by_hand(22)) - by_hand(12);
        assert!((found[0].difference - expected).abs() < 1e-12);
    }

    /// Seeds pair; what only one of them underwent has no partner, full features have one of any width.
    #[test]
    fn backbones_are_compared_under_the_same_reduction() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        let of = |backbone: &str, method: &str, dim, miou| RunRecord {
            backbone: backbone.into(),
            key: format!("{backbone}{method}{dim}").replace('/', "-"),
            ..run(method, dim, 0, false, miou)
        };
        let trained = "runs/dino/backbone.safetensors";
        let runs = [
            (of("random:vit:0", "none", 8, 0.4), 12),
            (of("random:vit:0", "pca", 4, 0.4), 12),
            (of(trained, "none", 16, 0.5), 20),
            (of(trained, "pca", 4, 0.5), 22),
            (of(trained, "pca", 12, 0.5), 22),
        ];
        for (run, right) in &runs {
            records.put(run, None, &images(*right)).unwrap();
        }
        let runs: Vec<RunRecord> = runs.into_iter().map(|(run, _)| run).collect();
        let found = comparisons(&runs, &records, (IntervalMethod::Jackknife, 200)).unwrap();
        let names: Vec<_> = found.iter().map(|c| (c.first.as_str(), c.second.as_str())).collect();
        let expected = [
            ("pca, 4", "none, 8"),
            ("dino: none, 16", "random:vit:0: none, 8"),
            ("dino: pca, 4", "random:vit:0: pca, 4"),
        ];
        assert_eq!(names, expected);
        assert!(found[1..].iter().all(|c| c.difference > 0.1 && c.p.unwrap() < 0.01), "{found:?}");
    }

    #[test]
    fn runs_without_counts_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let runs = [run("pca", 4, 0, false, 0.5), run("rp", 4, 0, false, 0.5)];
        let found =
            comparisons(&runs, &Records::new(folder.path()), (IntervalMethod::Jackknife, 10)).unwrap();
        assert_eq!(found, []);
    }
}
