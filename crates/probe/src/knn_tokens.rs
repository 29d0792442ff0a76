//! The k-NN probe of patches: training tokens vote for the class of a token, as [`KnnVote`] lets images do.
//!
//! The gallery holds labelled training tokens, usually a [`TokenSample`](crate::TokenSample), so that memory and time
//! are bounded whatever the training set is. The score of a class is its share of the votes of the `k` nearest; one
//! search of the largest `k` serves all. Shares rather than sums, because scores are upsampled: a token with very near
//! neighbours should not drown those beside it.
//!
//! Scores are not affine in the token: upsampled scores are not those of upsampled tokens, and to search for every
//! pixel would cost a hundred times as much. So this is no [`Probe`](crate::Probe); its scores go through
//! [`upsample_argmax`](crate::upsample_argmax) all the same.

use ndarray::{Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::error::{expect_range, expect_shape};
use crate::knn_vote::{TILE, nearest, normalised};
use crate::{KnnVote, LabelledRows, Result};

/// Labelled training tokens, ready for the search.
#[derive(Debug, Clone, PartialEq)]
pub struct KnnGallery {
    /// `[n, d]`, of length 1.
    rows: Array2<f32>,
    /// `[n]`.
    class_of_row: Vec<usize>,
    names: Vec<u32>,
    classes: usize,
}

impl KnnGallery {
    /// * `rows`: `[n, d]`; `labels`: `[n]`, below `classes`, which is `c`.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) without rows, [`Error::Shape`](crate::Error::Shape) and
    /// [`Error::Range`](crate::Error::Range) for what does not fit or is not finite.
    pub fn new(rows: ArrayView2<'_, f32>, labels: &[u8], classes: usize) -> Result<Self> {
        let names: Vec<u32> = labels.iter().map(|&label| u32::from(label)).collect();
        LabelledRows { rows: rows.view(), classes: &names }.check("gallery")?;
        let expected = format!("below {classes}, the number of classes");
        let unfit = labels.iter().find(|&&label| usize::from(label) >= classes);
        expect_range(unfit.is_none(), "label", &expected, unfit.copied().unwrap_or_default())?;
        let class_of_row = labels.iter().map(|&label| usize::from(label)).collect();
        Ok(Self { rows: normalised(rows), class_of_row, names, classes })
    }

    /// Number of tokens `n`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// Never: a gallery has tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shares of the votes, `[t, c]` for every `k` in the order of [`KnnVote::ks`]; rows sum to 1.
    ///
    /// * `tokens`: `[t, d]`.
    ///
    /// # Errors
    /// As [`KnnVote::rank`].
    ///
    /// ```
    /// use ndarray::array;
    /// use probe::{KnnGallery, KnnVote};
    ///
    /// let rows = array![[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]];
    /// let gallery = KnnGallery::new(rows.view(), &[0, 1, 1], 3)?;
    /// let vote = KnnVote { ks: vec![1, 3], temperature: 1e9 }; // all votes are equal
    /// let scores = gallery.scores(&vote, array![[2.0, 0.1]].view())?;
    /// assert_eq!(scores[0], array![[1.0, 0.0, 0.0]]);
    /// assert!((scores[1][[0, 1]] - 2.0 / 3.0).abs() < 1e-6);
    /// # Ok::<(), probe::Error>(())
    /// ```
    pub fn scores(&self, vote: &KnnVote, tokens: ArrayView2<'_, f32>) -> Result<Vec<Array2<f32>>> {
        expect_shape("tokens", &[tokens.nrows(), self.rows.ncols()], tokens.shape())?;
        vote.check(LabelledRows { rows: self.rows.view(), classes: &self.names }, tokens)?;
        let most = vote.ks.iter().copied().max().unwrap_or(0);
        let tokens = normalised(tokens);
        let tiles: Vec<_> = tokens.axis_chunks_iter(Axis(0), TILE.0).collect();
        let of_tile = |tile: &ArrayView2<'_, f32>| {
            let mut scores = vec![Array2::zeros((tile.nrows(), self.classes)); vote.ks.len()];
            for (i, neighbours) in nearest(*tile, self.rows.view(), most).iter().enumerate() {
                for (scores, &k) in scores.iter_mut().zip(&vote.ks) {
                    let sums = vote.sums(&neighbours[..k], &self.class_of_row, self.classes);
                    let total: f64 = sums.iter().sum();
                    scores.row_mut(i).iter_mut().zip(sums).for_each(|(to, sum)| *to = (sum / total) as f32);
                }
            }
            scores
        };
        let parts: Vec<Vec<Array2<f32>>> = tiles.par_iter().map(of_tile).collect();
        let mut all = vec![Array2::zeros((tokens.nrows(), self.classes)); vote.ks.len()];
        for (at, part) in parts.into_iter().enumerate() {
            for (all, part) in all.iter_mut().zip(part) {
                let from = at * TILE.0;
                all.slice_mut(ndarray::s![from..from + part.nrows(), ..]).assign(&part);
            }
        }
        Ok(all) // [ks][t, c]
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::{Error, upsample_argmax};

    fn tokens(n: usize, d: usize, offset: f32) -> Array2<f32> {
        Array2::from_shape_fn((n, d), |(i, j)| ((i * d + j) as f32 * 7.31 + offset).sin())
    }

    fn labels(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * 5 % 3) as u8).collect()
    }

    #[test]
    fn the_largest_share_is_the_first_of_the_ranking() {
        let (train, test, labels) = (tokens(3000, 6, 0.0), tokens(300, 6, 0.4), labels(3000));
        let vote = KnnVote { ks: vec![20, 1, 7], temperature: 0.07 };
        let classes: Vec<u32> = labels.iter().map(|&l| u32::from(l)).collect();
        let rankings =
            vote.rank(LabelledRows { rows: train.view(), classes: &classes }, test.view()).unwrap();
        let scores = KnnGallery::new(train.view(), &labels, 4).unwrap().scores(&vote, test.view()).unwrap();
        for (ranking, scores) in rankings.iter().zip(&scores) {
            assert_eq!(scores.dim(), (300, 4));
            for (ranked, row) in ranking.ranked.iter().zip(scores.outer_iter()) {
                let best = (0..4).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
                assert_eq!(best as u32, ranked[0]);
                assert!((row.sum() - 1.0).abs() < 1e-5 && row[3] == 0.0);
            }
        }
    }

    #[test]
    fn a_token_among_its_own_kind_finds_itself() {
        let (train, labels) = (tokens(200, 5, 0.0), labels(200));
        let gallery = KnnGallery::new(train.view(), &labels, 3).unwrap();
        let scores = &gallery.scores(&KnnVote { ks: vec![1], temperature: 0.07 }, train.view()).unwrap()[0];
        assert!(labels.iter().enumerate().all(|(i, &label)| scores[[i, usize::from(label)]] == 1.0));
        let map = upsample_argmax(scores.view(), (10, 20), (10, 20));
        assert!(map.iter().zip(&labels).all(|(a, b)| a == b));
    }

    #[test]
    fn the_number_of_threads_and_the_cut_do_not_matter() {
        let (train, test, labels) = (tokens(2500, 9, 0.0), tokens(400, 9, 0.2), labels(2500));
        let gallery = KnnGallery::new(train.view(), &labels, 3).unwrap();
        let vote = KnnVote { ks: vec![5, 50], temperature: 0.1 };
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| gallery.scores(&vote, test.view()).unwrap())
        };
        assert_eq!(on(1), on(3));
        let one = gallery.scores(&vote, test.slice(ndarray::s![150..151, ..])).unwrap();
        let near = on(1)[1].row(150).iter().zip(&one[1].row(0)).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near);
    }

    #[test]
    fn misfits_are_refused() {
        let train = tokens(4, 3, 0.0);
        assert!(matches!(
            KnnGallery::new(train.view(), &[0, 1, 2, 3], 3),
            Err(Error::Range { what: "label", .. })
        ));
        assert!(matches!(KnnGallery::new(train.view(), &[0, 1], 3), Err(Error::Shape { .. })));
        assert!(matches!(
            KnnGallery::new(Array2::zeros((0, 3)).view(), &[], 3),
            Err(Error::Empty("gallery"))
        ));
        let gallery = KnnGallery::new(train.view(), &[0, 1, 2, 0], 3).unwrap();
        assert_eq!((gallery.len(), gallery.is_empty()), (4, false));
        let vote = KnnVote { ks: vec![5], temperature: 0.07 };
        assert!(matches!(gallery.scores(&vote, train.view()), Err(Error::Range { what: "k", .. })));
        assert!(gallery.scores(&KnnVote::default(), array![[1.0_f32]].view()).is_err());
    }
}
