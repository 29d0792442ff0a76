//! How well a score tells pairs that belong together from those that do not: precision, recall, average precision.
//!
//! Every pair has a score and is a match or is not. Of the pairs that score at least a threshold, *precision* is the share that
//! match; *recall* is the share of all matches that they hold. Average precision is the sum `Σ (R_n - R_{n-1}) P_n` over all different
//! thresholds from the highest on, no interpolation; pairs of one score are never told apart. It depends on the order of
//! the scores alone: no scale or shift changes it.

use ndarray::ArrayView2;

use crate::stego::error::{Error, Result, expect_shape};

/// Scores of pairs, with whether they match.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoredPairs(Vec<(f32, bool)>);

/// A score and how it separates.
#[derive(Debug, Clone, PartialEq)]
pub struct PrecisionRecall {
    /// Area below the steps of the curve, 0 to 1; `matches / pairs` for scores that say nothing.
    pub average_precision: f64,
    /// Pairs that match.
    pub matches: u64,
    /// All pairs.
    pub pairs: u64,
    /// One point for each different score, highest first, so that recall rises.
    pub curve: Vec<Threshold>,
}

/// What scores at least `score`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    /// The least score that is taken.
    pub score: f32,
    /// Share of what is taken that matches.
    pub precision: f64,
    /// Share of the matches that is taken.
    pub recall: f64,
}

impl ScoredPairs {
    /// No pairs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds every pair that is one.
    ///
    /// * `scores`: `[n, m]`; `matches`: `[n, m]`, `None` for a pair that does not count.
    ///
    /// # Errors
    /// [`Error::Shape`] if they differ in shape, [`Error::NotFinite`] for a score that is NaN.
    pub fn push(&mut self, scores: ArrayView2<'_, f32>, matches: ArrayView2<'_, Option<bool>>) -> Result<()> {
        expect_shape("matches", scores.shape(), matches.shape())?;
        if scores.iter().any(|score| score.is_nan()) {
            return Err(Error::NotFinite { what: "a score" });
        }
        self.0.extend(scores.iter().zip(matches).filter_map(|(&score, &is)| Some((score, is?))));
        Ok(())
    }

    /// Precision and recall at every threshold.
    ///
    /// ```
    /// use ndarray::array;
    /// let mut pairs = segment::ScoredPairs::new();
    /// let matches = array![[Some(false), Some(false), Some(true), Some(true)]];
    /// pairs.push(array![[0.1, 0.4, 0.35, 0.8]].view(), matches.view())?;
    /// let found = pairs.precision_recall()?;
    /// assert!((found.average_precision - 5.0 / 6.0).abs() < 1e-12); // scikit-learn's example
    /// # Ok::<(), segment::stego::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Empty`] if no pair matches: recall would be of nothing.
    pub fn precision_recall(mut self) -> Result<PrecisionRecall> {
        // -0 and 0 are one score.
        self.0.iter_mut().for_each(|(score, _)| *score += 0.0);
        self.0.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let matches = self.0.iter().filter(|(_, is)| *is).count() as u64;
        if matches == 0 {
            return Err(Error::Empty("set of pairs that match"));
        }
        let (mut taken, mut hits, mut average, mut before) = (0_u64, 0_u64, 0.0, 0.0);
        let mut curve = Vec::new();
        for equal in self.0.chunk_by(|a, b| a.0 == b.0) {
            taken += equal.len() as u64;
            hits += equal.iter().filter(|(_, is)| *is).count() as u64;
            let (precision, recall) = (hits as f64 / taken as f64, hits as f64 / matches as f64);
            average += (recall - before) * precision;
            before = recall;
            curve.push(Threshold { score: equal[0].0, precision, recall });
        }
        Ok(PrecisionRecall { average_precision: average, matches, pairs: taken, curve })
    }
}

impl PrecisionRecall {
    /// At most `n` points of the curve, for a chart: the first to reach each of `n` evenly spaced recalls, 1 among them.
    #[must_use]
    pub fn thinned(&self, n: usize) -> Vec<Threshold> {
        let at = |i: usize| self.curve.partition_point(|point| point.recall < (i + 1) as f64 / n as f64);
        let mut places: Vec<usize> = (0..n).map(|i| at(i).min(self.curve.len() - 1)).collect();
        places.dedup();
        places.into_iter().map(|i| self.curve[i]).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn of(pairs: &[(f32, bool)]) -> PrecisionRecall {
        let (scores, matches): (Vec<_>, Vec<_>) = pairs.iter().map(|&(s, m)| (s, Some(m))).unzip();
        let row = |n| (1, n);
        let mut all = ScoredPairs::new();
        let scores = Array2::from_shape_vec(row(pairs.len()), scores).unwrap();
        all.push(scores.view(), Array2::from_shape_vec(row(pairs.len()), matches).unwrap().view()).unwrap();
        assert_eq!(all.len(), pairs.len());
        all.precision_recall().unwrap()
    }

    fn drawn(n: usize, levels: u32) -> Vec<(f32, bool)> {
        let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
        (0..n)
            .map(|_| {
                let score = rng.random_range(0..levels);
                ((score as f32 - 9.0) / 7.0, rng.random_range(0..levels + 5) < score + 2)
            })
            .collect()
    }

    /// Straight from the definition, threshold by threshold.
    #[test]
    fn it_is_the_definition() {
        for (n, levels) in [(1000, 20), (300, 100_000), (50, 2)] {
            let pairs = drawn(n, levels);
            let found = of(&pairs);
            let mut thresholds: Vec<f32> = pairs.iter().map(|p| p.0).collect();
            thresholds.sort_unstable_by(|a, b| b.total_cmp(a));
            thresholds.dedup();
            let all = pairs.iter().filter(|p| p.1).count() as f64;
            let (mut average, mut before) = (0.0, 0.0);
            assert_eq!(found.curve.len(), thresholds.len());
            for (point, &score) in found.curve.iter().zip(&thresholds) {
                let taken = pairs.iter().filter(|p| p.0 >= score).count() as f64;
                let hits = pairs.iter().filter(|p| p.0 >= score && p.1).count() as f64;
                assert_eq!((point.score, point.precision, point.recall), (score, hits / taken, hits / all));
                average += (point.recall - before) * point.precision;
                before = point.recall;
            }
            assert!((found.average_precision - average).abs() < 1e-12);
            assert_eq!((found.pairs, found.matches), (n as u64, all as u64));
        }
    }

    #[test]
    fn order_of_pairs_and_scale_of_scores_do_not_count() {
        let pairs = drawn(500, 60);
        let found = of(&pairs);
        let mut turned = pairs.clone();
        turned.reverse();
        assert_eq!(of(&turned), found);
        let scaled: Vec<_> = pairs.iter().map(|&(score, is)| (4.0 * score - 2.0, is)).collect();
        assert_eq!(of(&scaled).average_precision, found.average_precision);
    }

    #[test]
    fn perfect_useless_and_wrong_scores() {
        let perfect: Vec<_> = (0..20).map(|i| (i as f32, i >= 15)).collect();
        assert_eq!(of(&perfect).average_precision, 1.0);
        let useless: Vec<_> = (0..20).map(|i| (0.5, i >= 15)).collect();
        assert_eq!(of(&useless).average_precision, 0.25);
        let wrong: Vec<_> = (0..20).map(|i| (-(i as f32), i >= 15)).collect();
        assert!(of(&wrong).average_precision < 0.25);
        assert_eq!(of(&[(0.0, true), (-0.0, false)]).curve.len(), 1);
    }

    #[test]
    fn thinned_curves_keep_the_end() {
        let found = of(&drawn(2000, 100_000));
        let few = found.thinned(11);
        assert!(few.len() <= 11 && few.windows(2).all(|pair| pair[0].recall < pair[1].recall));
        assert_eq!(few.last().unwrap().recall, 1.0);
        assert!(few.iter().all(|point| found.curve.contains(point)));
        assert_eq!(of(&[(1.0, true)]).thinned(5).len(), 1);
        assert!(found.thinned(0).is_empty());
    }

    #[test]
    fn odd_pairs_are_left_out_or_refused() {
        let mut pairs = ScoredPairs::new();
        assert!(pairs.is_empty());
        pairs.push(array![[0.1, 0.2]].view(), array![[None, Some(false)]].view()).unwrap();
        assert_eq!(pairs.len(), 1);
        assert!(pairs.push(array![[f32::NAN]].view(), array![[None]].view()).is_err());
        assert!(pairs.push(array![[0.1]].view(), array![[None, None]].view()).is_err());
        assert!(pairs.precision_recall().unwrap_err().to_string().contains("pairs that match is empty"));
    }
}
