//! An interval for a score that other training runs *and* other images would change.
//!
//! A few runs (seeds) are scored on the same images. The score is the mean over the runs; its error has two parts that
//! are independent, `se² = V_images + V_seeds`: the jackknife's variance of the mean over runs when images come and go,
//! and the variance of the runs' scores over their number. The interval is Student's with Welch and Satterthwaite's
//! degrees of freedom, `se⁴ / (V_images² / (n − 1) + V_seeds² / (s − 1))`, which tells that a variance of three runs is
//! hardly known.
//!
//! Drawing runs with replacement, the obvious bootstrap, gives `(s − 1)/s` of their variance: a third too little for three.

use crate::bootstrap::{Interval, jackknife_error};
use crate::count_table::CountTable;
use crate::error::expect_shape;
use crate::student::student_quantile;
use crate::{ConfusionMatrix, Error, Result};

/// The mean of some runs, and how far it may be chance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeedsAndImages {
    /// Mean over the runs.
    pub mean: f64,
    /// Over other runs and other images.
    pub interval: Interval,
    /// Standard error of the mean from the choice of images.
    pub image_error: f64,
    /// Standard error of the mean from the choice of seeds; NaN for one run, which says nothing about others.
    pub seed_error: f64,
}

/// An interval of confidence `level` for the mean over runs of a statistic of summed counts. With one run it is the
/// jackknife's over images.
///
/// * `per_run`: `[s][n]`; for every run one matrix per image or [group](crate::group_sums), the same ones in the same order.
///
/// # Errors
/// [`Error::Empty`](crate::Error::Empty) without runs or images, [`Error::Shape`](crate::Error::Shape) for runs on
/// different numbers of images.
///
/// # Panics
/// If the matrices of one run differ in shape.
///
/// ```
/// use ndarray::array;
/// use probe::ConfusionMatrix;
///
/// let run = |right: u64| (0..50).map(|i| ConfusionMatrix::from_counts(array![[right + i % 5, 20 - right - i % 5]])).collect();
/// let runs: [Vec<_>; 3] = [10, 11, 12].map(run);
/// let result = probe::seeds_and_images(&runs, |counts| counts.scores().accuracy, 0.95)?;
/// assert!((result.mean - 0.65).abs() < 1e-12);
/// assert!((result.seed_error - 0.05 / 3f64.sqrt()).abs() < 1e-12);
/// # Ok::<(), probe::Error>(())
/// ```
pub fn seeds_and_images(
    per_run: &[Vec<ConfusionMatrix>],
    statistic: impl Fn(&ConfusionMatrix) -> f64,
    level: f64,
) -> Result<SeedsAndImages> {
    let Some(first) = per_run.first().filter(|run| !run.is_empty()) else {
        return Err(Error::Empty("list of runs with images"));
    };
    per_run.iter().try_for_each(|run| expect_shape("images of a run", &[first.len()], &[run.len()]))?;
    let (s, n) = (per_run.len() as f64, first.len() as f64);
    let mut scores = Vec::new();
    let mut without = vec![0.0; first.len()]; // the mean over runs without one image each
    for run in per_run {
        let table = CountTable::new(run);
        scores.push(statistic(&table.sum()));
        without
            .iter_mut()
            .zip(table.all_but_one())
            .for_each(|(mean, counts)| *mean += statistic(&counts) / s);
    }
    let mean = scores.iter().sum::<f64>() / s;
    let image_error = jackknife_error(&without);
    let seed_variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (s - 1.0) / s; // NaN for one
    let (images, seeds) = (image_error.powi(2), if s > 1.0 { seed_variance } else { 0.0 });
    let error = (images + seeds).sqrt();
    let uncertainty = images.powi(2) / (n - 1.0).max(1.0) + seeds.powi(2) / (s - 1.0).max(1.0);
    let freedom = if uncertainty > 0.0 { (error.powi(4) / uncertainty).max(1.0) } else { f64::INFINITY };
    let reach = if error > 0.0 { student_quantile(0.5 + level / 2.0, freedom) * error } else { error };
    let interval = Interval { lo: mean - reach, hi: mean + reach };
    Ok(SeedsAndImages { mean, interval, image_error, seed_error: seed_variance.sqrt() })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::{Method, Resampling};

    fn accuracy(counts: &ConfusionMatrix) -> f64 {
        counts.scores().accuracy
    }

    fn run(images: u64, shift: u64) -> Vec<ConfusionMatrix> {
        (0..images)
            .map(|i| i * 7 % 31 + shift)
            .map(|r| ConfusionMatrix::from_counts(array![[r, 100 - r]]))
            .collect()
    }

    #[test]
    fn one_run_and_equal_runs_are_about_images_alone() {
        let one = seeds_and_images(&[run(40, 20)], accuracy, 0.9).unwrap();
        let jackknife = Resampling { level: 0.9, method: Method::Jackknife, ..Resampling::default() };
        let images = jackknife.interval(&run(40, 20), accuracy);
        assert!((one.interval.lo - images.lo).abs() < 1e-12 && (one.interval.hi - images.hi).abs() < 1e-12);
        assert!(one.seed_error.is_nan());
        let same = seeds_and_images(&[run(40, 20), run(40, 20)], accuracy, 0.9).unwrap();
        assert!((same.interval.lo - images.lo).abs() < 1e-12 && same.seed_error == 0.0);
    }

    #[test]
    fn few_runs_that_differ_leave_much_open() {
        let runs = [run(400, 10), run(400, 30), run(400, 50)];
        let result = seeds_and_images(&runs, accuracy, 0.95).unwrap();
        // Nearly all of the error is that of three runs: 0.2 / √3, with a little more than two degrees of freedom.
        let reach = 0.5 * (result.interval.hi - result.interval.lo);
        assert!((result.seed_error - 0.2 / 3f64.sqrt()).abs() < 1e-9);
        assert!(reach > 4.2 * result.seed_error && reach < 4.31 * result.seed_error, "{reach}");
        let more: Vec<_> = (0..9).map(|i| run(400, 10 + i * 5)).collect();
        let more = seeds_and_images(&more, accuracy, 0.95).unwrap();
        assert!(more.interval.hi - more.interval.lo < reach);
    }

    #[test]
    fn certain_scores_have_no_width_and_undefined_ones_no_ends() {
        let sure = vec![ConfusionMatrix::from_counts(array![[7, 3]]); 4];
        let result = seeds_and_images(&[sure.clone(), sure], accuracy, 0.95).unwrap();
        assert!((result.interval.hi - result.interval.lo).abs() < 1e-6, "{result:?}");
        let nothing = vec![ConfusionMatrix::new(1, 2); 4];
        assert!(seeds_and_images(&[nothing], accuracy, 0.95).unwrap().interval.lo.is_nan());
    }

    #[test]
    fn misfits_are_refused() {
        assert!(seeds_and_images(&[], accuracy, 0.95).is_err());
        assert!(seeds_and_images(&[vec![]], accuracy, 0.95).is_err());
        assert!(seeds_and_images(&[run(3, 0), run(4, 0)], accuracy, 0.95).is_err());
    }
}
