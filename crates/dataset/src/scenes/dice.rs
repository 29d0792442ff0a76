//! The scene's random choices: one ChaCha stream per (seed, index).
//!
//! A thin vocabulary over the generator, so that the layout code reads as sentences: *between*,
//! *chance*, *pick*. Pictures of one seed are streams of one key: independent, in any order, on any thread.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::exact::Rgb;

/// A source of choices that is a pure function of `(seed, index)`.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    pub(super) fn new(seed: u64, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        Self(rng)
    }

    /// Uniform in `[low, high)`.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.random::<f32>()
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f32) -> bool {
        self.0.random::<f32>() < p
    }

    /// -1 or 1.
    pub(super) fn sign(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    /// A whole number in `low..=high`.
    pub(super) fn count(&mut self, low: u32, high: u32) -> u32 {
        let span = (high - low + 1) as f32;
        low + (self.between(0.0, span) as u32).min(high - low)
    }

    /// One of `choices`, all alike likely.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.count(0, choices.len() as u32 - 1) as usize]
    }

    /// A seed for a surface's noise.
    pub(super) fn grain(&mut self) -> u32 {
        self.0.random()
    }

    /// One of `palette`, made lighter or darker and a little more or less red and blue.
    pub(super) fn tint(&mut self, palette: &[Rgb]) -> Rgb {
        let base = self.pick(palette);
        let gain = self.between(0.7, 1.35);
        let cast = Rgb { x: self.between(0.88, 1.12), y: 1.0, z: self.between(0.86, 1.14) };
        (base * cast * gain).map(|v| v.min(0.92))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_cover_their_range_and_streams_differ() {
        let mut dice = Dice::new(1, 2);
        let seen: Vec<u32> = (0..200).map(|_| dice.count(3, 5)).collect();
        assert!((3..=5).all(|n| seen.contains(&n)) && seen.iter().all(|n| (3..=5).contains(n)));
        assert_ne!(Dice::new(1, 2).grain(), Dice::new(1, 3).grain());
        assert_ne!(Dice::new(1, 2).grain(), Dice::new(2, 2).grain());
    }
}
