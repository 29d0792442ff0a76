//! Which image is whose negative: a map of a batch to itself.
//!
//! As published, a random permutation is drawn and every fixed point moved to the next image. The result has no fixed points, but
//! images that occur twice and images that do not occur, and in a batch of one the image is its own negative. A
//! derangement, a permutation without fixed points, is what was meant.

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::error::{Result, expect_range};

/// How negatives are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Negatives {
    /// A random permutation without fixed points, all of them equally likely.
    #[default]
    Derangement,
    /// A random permutation whose fixed points are increased by one, modulo the batch, as in the original.
    Published,
}

impl Negatives {
    /// The negative of every image of a batch of `b`, `[b]`.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range) if there is none: a batch of one has no derangement.
    pub fn draw(self, b: usize, rng: &mut impl Rng) -> Result<Vec<usize>> {
        let mut order: Vec<usize> = (0..b).collect();
        match self {
            Self::Derangement => {
                expect_range(b != 1, "batch size", "at least 2, for an image to have a negative", b)?;
                // One permutation in e is a derangement.
                while order.iter().enumerate().any(|(i, &j)| i == j) {
                    order.shuffle(rng);
                }
                Ok(order)
            }
            Self::Published => {
                order.shuffle(rng);
                Ok(without_fixed_points(order))
            }
        }
    }
}

/// Moves every fixed point of a permutation to the next image.
#[must_use]
pub fn without_fixed_points(mut order: Vec<usize>) -> Vec<usize> {
    let b = order.len();
    for (i, j) in order.iter_mut().enumerate() {
        if *j == i {
            *j = (i + 1) % b;
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn derangements_are_equally_likely_permutations_without_fixed_points() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = BTreeMap::new();
        for _ in 0..9000 {
            *counts.entry(Negatives::Derangement.draw(4, &mut rng).unwrap()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 9);
        assert!(counts.values().all(|&count: &i32| (count - 1000).abs() < 150), "{counts:?}");
        for order in counts.keys() {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted == [0, 1, 2, 3] && order.iter().enumerate().all(|(i, &j)| i != j));
        }
    }

    #[test]
    fn the_published_map_moves_fixed_points_to_the_next_image() {
        assert_eq!(without_fixed_points(vec![0, 2, 1, 3]), [1, 2, 1, 0]);
        assert_eq!(without_fixed_points(vec![1, 0]), [1, 0]);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        assert_eq!(Negatives::Published.draw(1, &mut rng).unwrap(), [0]);
        for _ in 0..50 {
            let order = Negatives::Published.draw(5, &mut rng).unwrap();
            assert!(order.iter().enumerate().all(|(i, &j)| i != j && j < 5));
        }
    }

    #[test]
    fn one_image_has_no_negative() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let refused = Negatives::Derangement.draw(1, &mut rng).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "batch size is 1, expected at least 2, for an image to have a negative"
        );
        assert!(Negatives::Derangement.draw(0, &mut rng).unwrap().is_empty());
    }
}
