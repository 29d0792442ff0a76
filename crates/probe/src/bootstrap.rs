//! How far a score may be chance: the percentile bootstrap over images (Efron, 1979).
//!
//! The evaluation set is redrawn many times, image by image with replacement; the interval holds the middle
//! share of the scores of these sets. Images are what is redrawn, not pixels: the pixels of an image are
//! far from independent. As the score is a function of summed counts, a redraw costs one sum of small
//! matrices and no prediction.
//!
//! This says nothing about other training runs; that is what several seeds are for.

use ndarray::Array2;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use crate::ConfusionMatrix;

/// A range of values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub lo: f64,
    /// Its upper end.
    pub hi: f64,
}

/// The middle `level` of `statistic` over `resamples` redrawn sets of images.
///
/// Ends between two resamples are interpolated. Resamples on which the statistic is NaN are left out; if all
/// are, or there are none, both ends are NaN. The result depends on the seed, not on the number of threads.
///
/// * `per_image`: one matrix per image, all `[c, m]`.
/// * `statistic`: of the sum of some of them.
/// * `level`: in `(0, 1)`, for example 0.95.
///
/// # Panics
/// If the matrices differ in shape.
///
/// ```
/// let images = [[3, 1], [4, 0]].map(|row| probe::ConfusionMatrix::from_counts(ndarray::array![row, [0, 4]]));
/// let interval = probe::bootstrap(&images, |counts| counts.scores().accuracy, 1000, 0.95, 0);
/// assert_eq!((interval.lo, interval.hi), (7.0 / 8.0, 1.0)); // the worse image twice, the better one twice
/// ```
pub fn bootstrap(
    per_image: &[ConfusionMatrix],
    statistic: impl Fn(&ConfusionMatrix) -> f64 + Sync,
    resamples: usize,
    level: f64,
    seed: u64,
) -> Interval {
    if per_image.is_empty() {
        return Interval { lo: f64::NAN, hi: f64::NAN };
    }
    // Every resample has its own stream of random numbers, so it is the same on whatever thread it is drawn.
    let values = (0..resamples).into_par_iter().map(|i| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(i as u64);
        statistic(&redraw(per_image, &mut rng))
    });
    let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Interval { lo: quantile(&values, tail), hi: quantile(&values, 1.0 - tail) }
}

/// The sum of as many matrices as there are, drawn with replacement.
fn redraw(per_image: &[ConfusionMatrix], rng: &mut impl Rng) -> ConfusionMatrix {
    let mut times = vec![0_u64; per_image.len()];
    per_image.iter().for_each(|_| times[rng.random_range(0..per_image.len())] += 1);
    let mut sum = Array2::<u64>::zeros(per_image[0].counts().raw_dim());
    for (image, times) in per_image.iter().zip(times).filter(|&(_, times)| times > 0) {
        assert_eq!(image.counts().dim(), sum.dim(), "matrices of different shape");
        sum.zip_mut_with(&image.counts(), |sum, count| *sum += times * count);
    }
    ConfusionMatrix::from_counts(sum)
}

/// The value below which a share `at` of the sorted values lies, linear between neighbours.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = at.clamp(0.0, 1.0) * last as f64;
    let (low, share) = (place as usize, place.fract());
    sorted[low] + share * (sorted[(low + 1).min(last)] - sorted[low])
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn accuracy(counts: &ConfusionMatrix) -> f64 {
        counts.scores().accuracy
    }

    /// `right` of 100 pixels right.
    fn image(right: u64) -> ConfusionMatrix {
        ConfusionMatrix::from_counts(array![[right, 100 - right], [0, 0]])
    }

    #[test]
    fn spans_the_error_of_the_mean() {
        // 400 images with an accuracy of 0.5 ± 0.3: the mean has σ = 0.3 / 20, the 95 % interval ± 1.96 σ.
        let images: Vec<_> = (0..400).map(|i| image(if i % 2 == 0 { 20 } else { 80 })).collect();
        let Interval { lo, hi } = bootstrap(&images, accuracy, 4000, 0.95, 0);
        let expected = 1.96 * 0.3 / 20.0;
        assert!((0.5 - lo - expected).abs() < 0.002 && (hi - 0.5 - expected).abs() < 0.002, "{lo} {hi}");
        let wide = bootstrap(&images, accuracy, 4000, 0.99, 0);
        assert!(wide.lo < lo && wide.hi > hi);
    }

    #[test]
    fn equal_images_leave_no_doubt() {
        assert_eq!(bootstrap(&vec![image(70); 5], accuracy, 100, 0.95, 0), Interval { lo: 0.7, hi: 0.7 });
    }

    #[test]
    fn depends_on_the_seed_and_not_on_the_threads() {
        let images: Vec<_> = (0..30).map(|i| image(i * 3)).collect();
        let run = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bootstrap(&images, accuracy, 200, 0.9, seed))
        };
        assert_eq!(run(1, 0), run(4, 0));
        assert_ne!(run(1, 0), run(1, 1));
    }

    #[test]
    fn undefined_resamples_are_left_out() {
        let images = [ConfusionMatrix::new(2, 2), image(60)];
        assert_eq!(bootstrap(&images, accuracy, 200, 0.95, 0), Interval { lo: 0.6, hi: 0.6 });
        for interval in
            [bootstrap(&images[..1], accuracy, 50, 0.95, 0), bootstrap(&[], accuracy, 50, 0.95, 0)]
        {
            assert!(interval.lo.is_nan() && interval.hi.is_nan());
        }
    }

    #[test]
    fn quantiles_interpolate() {
        let sorted = [1.0, 2.0, 4.0];
        assert_eq!([0.0, 0.25, 0.5, 0.75, 1.0].map(|at| quantile(&sorted, at)), [1.0, 1.5, 2.0, 3.0, 4.0]);
    }
}
