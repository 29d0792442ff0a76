//! A bounded sample of labelled tokens, drawn while the training images go by once.
//!
//! Every token of every image has a random priority of its own, a function of the seed, the image's number and the
//! token's place; the sample is the tokens with the lowest ones. Every set of labelled tokens of that size is equally
//! likely, and which one it is depends neither on the order of the images nor on how they were shared among samples
//! that are merged.

use std::collections::BinaryHeap;

use ndarray::{Array2, ArrayView2};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::error::{expect_range, expect_shape};
use crate::labelled_rows::check_finite;
use crate::patch_labels::NO_CLASS;
use crate::{Error, Result};

/// At most so many labelled tokens of all that were added.
#[derive(Debug, Clone)]
pub struct TokenSample {
    limit: usize,
    seed: u64,
    dim: usize,
    seen: u64,
    /// The one that goes next on top.
    kept: BinaryHeap<Kept>,
}

/// A token in the sample; the order is that of the first three fields, which no two tokens share.
#[derive(Debug, Clone)]
struct Kept {
    priority: u64,
    image: u64,
    token: usize,
    label: u8,
    row: Vec<f32>,
}

impl Kept {
    fn key(&self) -> (u64, u64, usize) {
        (self.priority, self.image, self.token)
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl TokenSample {
    /// An empty sample of tokens of `dim` features. It holds `4 · limit · dim` bytes at most, and a little per token.
    ///
    /// # Errors
    /// [`Error::Range`] for a limit of 0.
    pub fn new(dim: usize, limit: usize, seed: u64) -> Result<Self> {
        expect_range(limit > 0, "limit of the sample", "at least one token", limit)?;
        Ok(Self { limit, seed, dim, seen: 0, kept: BinaryHeap::new() })
    }

    /// Offers the tokens of an image.
    ///
    /// * `image`: its number, another one for every image (or crop).
    /// * `tokens`: `[t, d]`; `labels`: `[t]`, as [`patch_majority`](crate::patch_majority) gives them; tokens labelled
    ///   255 are left out.
    ///
    /// # Errors
    /// [`Error::Shape`] for what does not fit, [`Error::Range`] for tokens that are not finite. Then nothing was added.
    pub fn add(&mut self, image: u64, tokens: ArrayView2<'_, f32>, labels: &[u8]) -> Result<()> {
        expect_shape("tokens", &[labels.len(), self.dim], tokens.shape())?;
        check_finite("tokens", tokens)?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(image);
        for (token, (row, &label)) in tokens.outer_iter().zip(labels).enumerate() {
            let priority = rng.next_u64(); // tokens without label have one as well, so that labels change no other's
            if label != NO_CLASS {
                self.seen += 1;
                if self.wants((priority, image, token)) {
                    self.keep(Kept { priority, image, token, label, row: row.to_vec() });
                }
            }
        }
        Ok(())
    }

    fn wants(&self, key: (u64, u64, usize)) -> bool {
        self.kept.len() < self.limit || self.kept.peek().is_some_and(|last| key < last.key())
    }

    fn keep(&mut self, token: Kept) {
        self.kept.push(token);
        if self.kept.len() > self.limit {
            self.kept.pop();
        }
    }

    /// Adds what another sample has seen: other images, with the same limit and seed.
    ///
    /// # Panics
    /// If limit, seed or width differ.
    pub fn merge(&mut self, other: Self) {
        let kind = |sample: &Self| (sample.limit, sample.seed, sample.dim);
        assert_eq!(kind(self), kind(&other), "samples of the same kind");
        self.seen += other.seen;
        for token in other.kept {
            if self.wants(token.key()) {
                self.keep(token);
            }
        }
    }

    /// How many labelled tokens were offered.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The sample in the order of images and places: rows `[n, d]` and labels `[n]`.
    ///
    /// # Errors
    /// [`Error::Empty`] if no labelled token was offered.
    pub fn finish(self) -> Result<(Array2<f32>, Vec<u8>)> {
        if self.kept.is_empty() {
            return Err(Error::Empty("sample of labelled tokens"));
        }
        let mut kept = self.kept.into_vec();
        kept.sort_unstable_by_key(|token| (token.image, token.token));
        let labels = kept.iter().map(|token| token.label).collect();
        let mut rows = Array2::zeros((kept.len(), self.dim));
        for (mut to, token) in rows.outer_iter_mut().zip(kept) {
            to.iter_mut().zip(token.row).for_each(|(to, x)| *to = x);
        }
        Ok((rows, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Image `i` with 20 tokens that carry where they come from; each third has no label.
    fn add(sample: &mut TokenSample, image: u64) {
        let tokens = Array2::from_shape_fn((20, 2), |(t, j)| if j == 0 { image as f32 } else { t as f32 });
        let labels: Vec<u8> = (0..20).map(|t| if t % 3 == 2 { 255 } else { (t % 5) as u8 }).collect();
        sample.add(image, tokens.view(), &labels).unwrap();
    }

    fn of(images: impl IntoIterator<Item = u64>, limit: usize, seed: u64) -> TokenSample {
        let mut sample = TokenSample::new(2, limit, seed).unwrap();
        images.into_iter().for_each(|image| add(&mut sample, image));
        sample
    }

    #[test]
    fn order_and_sharing_do_not_matter_and_the_seed_does() {
        let whole = of(0..50, 60, 1).finish().unwrap();
        assert_eq!((whole.0.dim(), whole.1.len()), ((60, 2), 60));
        assert_eq!(of((0..50).rev(), 60, 1).finish().unwrap(), whole);
        let mut parts = of((0..50).step_by(2), 60, 1);
        parts.merge(of((1..50).step_by(2), 60, 1));
        assert_eq!(parts.seen(), 50 * 14);
        assert_eq!(parts.finish().unwrap(), whole);
        assert_ne!(of(0..50, 60, 2).finish().unwrap(), whole);
    }

    #[test]
    fn labels_stay_with_their_tokens_and_no_token_comes_twice() {
        let (rows, labels) = of(0..30, 100, 3).finish().unwrap();
        let mut places: Vec<(u32, u32)> = rows.outer_iter().map(|r| (r[0] as u32, r[1] as u32)).collect();
        assert!(places.iter().zip(&labels).all(|(&(_, t), &label)| t % 3 != 2 && u32::from(label) == t % 5));
        assert!(places.is_sorted());
        places.dedup();
        assert_eq!(places.len(), 100);
    }

    #[test]
    fn every_image_has_its_share_and_few_tokens_are_all_taken() {
        let (rows, _) = of(0..40, 280, 4).finish().unwrap(); // half of 560
        for image in 0..40 {
            let count = rows.outer_iter().filter(|row| row[0] == image as f32).count();
            assert!((1..14).contains(&count), "{count} of 14");
        }
        assert_eq!(of(0..2, 1000, 0).finish().unwrap().1.len(), 28);
    }

    #[test]
    fn misfits_are_refused() {
        assert!(TokenSample::new(2, 0, 0).is_err());
        let mut sample = TokenSample::new(2, 5, 0).unwrap();
        assert!(sample.add(0, Array2::zeros((3, 2)).view(), &[0, 1]).is_err());
        assert!(sample.add(0, Array2::from_elem((1, 2), f32::NAN).view(), &[0]).is_err());
        sample.add(0, Array2::zeros((1, 2)).view(), &[255]).unwrap();
        assert!(matches!(sample.finish(), Err(Error::Empty(_))));
    }
}
