//! Which images and neighbours make a step: every epoch is a fresh permutation, cut into batches; the neighbour is drawn from the
//! nearest ones, without the image itself.
//!
//! A step's batch depends on the seed and the step alone, so that a training can go on anywhere. A last batch of a single
//! image is left out, since that image would have no negative.

use ndarray::ArrayView2;
use rand::Rng;
use rand::seq::SliceRandom;

use super::error::{Result, expect_range, expect_shape};
use super::init::Stream;

/// The endless sequence of batches.
#[derive(Debug, Clone)]
pub struct PairOrder<'a> {
    neighbours: ArrayView2<'a, u32>,
    batch_size: usize,
    choices: usize,
    seed: u64,
    /// The epoch whose order is at hand.
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl<'a> PairOrder<'a> {
    /// * `neighbours`: `[n, k]`, of every image the nearest, itself first; `num_neighbors`: how many of those behind it are chosen from.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range) without images, batches or neighbours, or for a neighbour that is no image.
    pub fn new(
        neighbours: ArrayView2<'a, u32>,
        batch_size: usize,
        num_neighbors: usize,
        seed: u64,
    ) -> Result<Self> {
        let (n, k) = neighbours.dim();
        expect_shape("neighbours", &[n, k], neighbours.shape())?;
        expect_range(n > 0, "number of images", "at least 1", n)?;
        expect_range(batch_size > 0, "batch size", "at least 1", batch_size)?;
        let most = k.saturating_sub(1);
        let range = format!("1 to {most}, the neighbours that are known");
        expect_range((1..=most).contains(&num_neighbors), "num_neighbors", &range, num_neighbors)?;
        let last = neighbours.iter().copied().max().unwrap_or(0);
        expect_range((last as usize) < n, "neighbour", &format!("one of {n} images"), last)?;
        let order = (0..n).collect();
        Ok(Self { neighbours, batch_size, choices: num_neighbors, seed, epoch: None, order })
    }

    /// Batches of an epoch.
    #[must_use]
    pub fn batches(&self) -> usize {
        let n = self.order.len();
        let whole = n / self.batch_size;
        (whole + usize::from(n % self.batch_size > 1)).max(1)
    }

    /// Images and their neighbours of a step, counted from 0.
    pub fn batch(&mut self, step: usize) -> Vec<(usize, usize)> {
        let batches = self.batches();
        let epoch = (step / batches) as u64;
        if self.epoch != Some(epoch) {
            self.order.iter_mut().enumerate().for_each(|(i, image)| *image = i);
            self.order.shuffle(&mut Stream::Order(epoch).rng(self.seed));
            self.epoch = Some(epoch);
        }
        let first = step % batches * self.batch_size;
        let images = &self.order[first..(first + self.batch_size).min(self.order.len())];
        let mut rng = Stream::Positives(step as u64).rng(self.seed);
        let rank = |rng: &mut rand_chacha::ChaCha8Rng| rng.random_range(1..=self.choices);
        images.iter().map(|&i| (i, self.neighbours[[i, rank(&mut rng)]] as usize)).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    fn ring(n: usize) -> Array2<u32> {
        Array2::from_shape_fn((n, 4), |(i, rank)| ((i + rank) % n) as u32)
    }

    #[test]
    fn an_epoch_has_every_image_once_and_neighbours_of_all_ranks() {
        let neighbours = ring(10);
        let mut order = PairOrder::new(neighbours.view(), 4, 2, 1).unwrap();
        assert_eq!(order.batches(), 3);
        let mut ranks = [0; 4];
        for epoch in 0..20 {
            let mut seen: Vec<usize> = Vec::new();
            for step in 0..3 {
                for (image, neighbour) in order.batch(epoch * 3 + step) {
                    seen.push(image);
                    ranks[(neighbour + 10 - image) % 10] += 1;
                }
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<_>>());
        }
        assert!(ranks[0] == 0 && ranks[3] == 0 && ranks[1] > 70 && ranks[2] > 70, "{ranks:?}");
    }

    #[test]
    fn any_step_can_be_asked_for_and_a_lone_image_waits() {
        let neighbours = ring(9);
        let mut order = PairOrder::new(neighbours.view(), 4, 3, 1).unwrap();
        assert_eq!(order.batches(), 2);
        let late = PairOrder::new(neighbours.view(), 4, 3, 1).unwrap().batch(7);
        assert_eq!((0..8).map(|step| order.batch(step)).next_back().unwrap(), late);
        assert_eq!(PairOrder::new(ring(3).view(), 16, 3, 0).unwrap().batch(5).len(), 3);
    }

    #[test]
    fn misfits_are_refused() {
        assert!(PairOrder::new(ring(5).view(), 4, 4, 0).is_err());
        assert!(PairOrder::new(ring(5).view(), 0, 1, 0).is_err());
        assert!(PairOrder::new(ring(0).view(), 4, 1, 0).is_err());
        assert!(PairOrder::new((ring(5) + 1).view(), 4, 1, 0).is_err());
    }
}
