//! Is one method better than another on the same images? Two tests of the difference of a statistic of summed counts.
//!
//! Both methods are redrawn with the *same* images, because what makes an image hard is common to them: the interval of
//! the difference is much narrower than those of the two scores suggest. The bootstrap's `p` is the level at which its
//! interval would just touch zero.
//!
//! The other test assumes that nothing distinguishes the methods: then on every image the two results could as well
//! change places. `p` is the share of random swaps (a coin per image) with a difference at least as large, the swap
//! that was observed included (Fisher; Edgington). It holds its level exactly for images that are independent, however
//! few.
//!
//! Units may be groups of images, see [`group_sums`](crate::group_sums). Neither test says anything about other
//! training runs.

use ndarray::Array2;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::bootstrap::{Interval, Resampling};
use crate::count_table::CountTable;
use crate::error::expect_shape;
use crate::{ConfusionMatrix, Error, Result};

/// Added to the seed for the coins, so that they are not the draws of the bootstrap.
const COINS: u64 = 0x636f_696e;

/// The difference of two methods on the same images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// `statistic(a) − statistic(b)`.
    pub difference: f64,
    /// Of the difference.
    pub interval: Interval,
    /// Two-sided, from the paired bootstrap: below `1 − level` if zero lies outside the interval.
    pub p_bootstrap: f64,
    /// Two-sided, from random swaps: at least `1 / (resamples + 1)`.
    pub p_swap: f64,
}

impl Resampling {
    /// Compares two methods by a statistic of summed counts.
    ///
    /// Where one has more outputs than the other, the other is given empty ones.
    ///
    /// * `a`, `b`: one matrix per image or group, the same ones in the same order, `[c, m]`.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) without images, [`Error::Shape`](crate::Error::Shape) for different
    /// numbers of images or classes.
    ///
    /// # Panics
    /// If the matrices of one method differ in shape.
    ///
    /// ```
    /// use ndarray::array;
    /// use probe::{ConfusionMatrix, Resampling};
    ///
    /// let images = |right: u64| (0..40).map(move |i| ConfusionMatrix::from_counts(array![[right + i % 7, 20 - i % 7 - right]]));
    /// let (a, b): (Vec<_>, Vec<_>) = (images(9).collect(), images(7).collect());
    /// let comparison = Resampling::default().compare(&a, &b, |counts| counts.scores().accuracy)?;
    /// assert!((comparison.difference - 0.1).abs() < 1e-12 && comparison.p_swap < 0.01);
    /// # Ok::<(), probe::Error>(())
    /// ```
    pub fn compare(
        &self,
        a: &[ConfusionMatrix],
        b: &[ConfusionMatrix],
        statistic: impl Fn(&ConfusionMatrix) -> f64 + Sync,
    ) -> Result<Comparison> {
        let [Some(first), Some(second)] = [a, b].map(<[_]>::first) else {
            return Err(Error::Empty("list of images to compare on"));
        };
        expect_shape("images of the second method", &[a.len()], &[b.len()])?;
        expect_shape("classes of the second method", &[first.classes()], &[second.classes()])?;
        let outputs = first.outputs().max(second.outputs());
        let [a, b] = [a, b].map(|units| CountTable::new(&widened(units, outputs)));
        let (a_sum, b_sum) = (a.sum(), b.sum());
        let difference = |a: &ConfusionMatrix, b: &ConfusionMatrix| statistic(a) - statistic(b);
        let pairs = |a: Vec<ConfusionMatrix>, b: Vec<ConfusionMatrix>| {
            a.iter().zip(&b).map(|(a, b)| difference(a, b)).collect()
        };
        let observed = difference(&a_sum, &b_sum);
        let redrawn = |weights: Array2<f64>| pairs(a.weighted(weights.view()), b.weighted(weights.view()));
        let without = || pairs(a.all_but_one().collect(), b.all_but_one().collect());
        let chance = self.redraw(observed, a.len(), redrawn, without);
        let swapped = self.chunks(|resamples| {
            let exchanged = a.exchanged(&b, self.coins(resamples, a.len()).view());
            exchanged.iter().map(|(a, b)| difference(a, b)).collect()
        });
        let tolerance = 1e-12 * observed.abs(); // sums of the same counts may come in another order
        let as_large = swapped.iter().filter(|value| value.abs() >= observed.abs() - tolerance).count();
        let p_swap = (1 + as_large) as f64 / (1 + swapped.len()) as f64;
        let p_swap = if observed.is_nan() { f64::NAN } else { p_swap };
        Ok(Comparison {
            difference: observed,
            interval: chance.interval(self.level),
            p_bootstrap: chance.level_of_zero(),
            p_swap,
        })
    }

    /// A coin per resample and unit, `[r, n]`.
    fn coins(&self, resamples: std::ops::Range<usize>, n: usize) -> Array2<f64> {
        let mut coins = Array2::zeros((resamples.len(), n));
        for (i, mut row) in resamples.zip(coins.outer_iter_mut()) {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(COINS));
            rng.set_stream(i as u64);
            row.iter_mut().for_each(|coin| *coin = f64::from(u8::from(rng.random::<bool>())));
        }
        coins
    }
}

/// The matrices with as many outputs as asked for.
fn widened(units: &[ConfusionMatrix], outputs: usize) -> Vec<ConfusionMatrix> {
    let wide = |unit: &ConfusionMatrix| {
        let mut counts = Array2::zeros((unit.classes(), outputs));
        counts.slice_mut(ndarray::s![.., ..unit.outputs()]).assign(&unit.counts());
        ConfusionMatrix::from_counts(counts)
    };
    units.iter().map(wide).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::Method;

    fn accuracy(counts: &ConfusionMatrix) -> f64 {
        counts.scores().accuracy
    }

    /// `right` of 100 pixels right.
    fn image(right: u64) -> ConfusionMatrix {
        ConfusionMatrix::from_counts(array![[right, 100 - right], [0, 0]])
    }

    /// Images that differ much more among themselves than the methods do.
    fn methods(n: u64, better: u64) -> (Vec<ConfusionMatrix>, Vec<ConfusionMatrix>) {
        let hard = |i: u64| 10 + i * 37 % 71;
        (0..n).map(|i| (image(hard(i) + better + i * 5 % 4), image(hard(i) + i * 3 % 4))).unzip()
    }

    #[test]
    fn a_small_common_difference_is_found_among_large_ones_between_images() {
        let (a, b) = methods(60, 1);
        for method in [Method::Percentile, Method::Bca, Method::Jackknife] {
            let resampling = Resampling { method, ..Resampling::default() };
            let found = resampling.compare(&a, &b, accuracy).unwrap();
            assert!(found.interval.lo > 0.0 && found.p_bootstrap < 0.01 && found.p_swap < 0.01, "{found:?}");
            let (mine, other) = (resampling.interval(&a, accuracy), resampling.interval(&b, accuracy));
            assert!(mine.lo < other.hi, "the two intervals overlap");
        }
    }

    #[test]
    fn exchanged_methods_give_the_opposite() {
        let (a, b) = methods(40, 1);
        let (ab, ba) = (
            Resampling::default().compare(&a, &b, accuracy).unwrap(),
            Resampling::default().compare(&b, &a, accuracy).unwrap(),
        );
        assert!((ab.difference + ba.difference).abs() < 1e-15 && (ab.p_swap - ba.p_swap).abs() < 1e-12);
        assert!((ab.p_bootstrap - ba.p_bootstrap).abs() < 1e-9);
        assert!((ab.interval.lo + ba.interval.hi).abs() < 1e-9, "{ab:?} {ba:?}");
    }

    #[test]
    fn p_is_the_level_whose_interval_touches_zero() {
        // Of a hundred thousand pixels, so that hardly any two resamples are equal.
        let fine =
            |i: u64, right: u64| ConfusionMatrix::from_counts(array![[right, 100_000 - right], [i % 3, 0]]);
        let (a, b): (Vec<_>, Vec<_>) =
            (0..25).map(|i| (fine(i, 40_000 + i * 7919 % 1013), fine(i, 40_000 + i * 6007 % 887))).unzip();
        for method in [Method::Percentile, Method::Bca, Method::Jackknife] {
            let resampling = Resampling { method, resamples: 4000, ..Resampling::default() };
            let p = resampling.compare(&a, &b, accuracy).unwrap().p_bootstrap;
            assert!(p > 0.01 && p < 0.99, "{method:?} {p}");
            let holds = |level: f64| {
                let interval = Resampling { level, ..resampling }.compare(&a, &b, accuracy).unwrap().interval;
                interval.lo <= 0.0 && 0.0 <= interval.hi
            };
            assert!(holds(1.0 - p + 0.01) && !holds(1.0 - p - 0.01), "{method:?} {p}");
        }
    }

    #[test]
    fn few_images_have_few_swaps() {
        // All 2^3 swaps: only none and all of them are as extreme, so p is a quarter, to the coins' chance.
        let a = [80, 70, 60].map(image);
        let b = [50, 30, 55].map(image);
        let resampling = Resampling { resamples: 20_000, ..Resampling::default() };
        let p = resampling.compare(&a, &b, accuracy).unwrap().p_swap;
        assert!((p - 0.25).abs() < 0.02, "{p}");
    }

    #[test]
    fn equal_methods_are_not_different_and_outputs_may_differ() {
        let (a, _) = methods(30, 0);
        let same = Resampling::default().compare(&a, &a, accuracy).unwrap();
        assert_eq!((same.difference, same.p_bootstrap, same.p_swap), (0.0, 1.0, 1.0));
        let wide = widened(&a, 5);
        assert_eq!(Resampling::default().compare(&a, &wide, accuracy).unwrap(), same);
    }

    #[test]
    fn misfits_are_refused() {
        let compare =
            |a: &[ConfusionMatrix], b: &[ConfusionMatrix]| Resampling::default().compare(a, b, accuracy);
        assert!(matches!(compare(&[], &[]), Err(Error::Empty(_))));
        assert!(matches!(compare(&[image(1), image(2)], &[image(1)]), Err(Error::Shape { .. })));
        assert!(matches!(compare(&[image(1)], &[ConfusionMatrix::new(3, 3)]), Err(Error::Shape { .. })));
        let nothing = [ConfusionMatrix::new(2, 2)];
        let undefined = compare(&nothing, &nothing).unwrap();
        assert!(
            undefined.p_swap.is_nan() && undefined.p_bootstrap.is_nan() && undefined.interval.lo.is_nan()
        );
    }
}
