//! Dropout of whole feature channels, one draw per image: a channel is zero in all of an image's tokens with probability `p`, and the
//! others are divided by `1 - p`.
//!
//! The original drops channels independently at three places: what the linear branch reads, what the non-linear branch reads, and
//! the features that the loss compares. A mask is a factor per channel, so that it can be applied to a layer's weights
//! instead of the tokens. There are none outside training.

use rand::Rng;

/// Share of the channels that are dropped, as published.
pub const DROPOUT: f32 = 0.1;

/// The masks of one image, `[d]` each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Masks {
    /// Of what the linear branch reads; `None` for no dropout.
    pub linear: Option<Vec<f32>>,
    /// Of what the non-linear branch reads.
    pub nonlinear: Option<Vec<f32>>,
    /// Of the features that the loss compares.
    pub features: Option<Vec<f32>>,
}

impl Masks {
    /// Masks for `channels` channels; those of the features only with `features`, as the original's option `dropout` has it.
    ///
    /// * `p`: the share that is dropped, in `[0, 1)`; with 0 there are no masks.
    pub fn draw(p: f32, channels: usize, features: bool, rng: &mut impl Rng) -> Self {
        if p <= 0.0 {
            return Self::default();
        }
        let scale = 1.0 / (1.0 - p);
        let mut mask =
            || (0..channels).map(|_| if rng.random::<f32>() < p { 0.0 } else { scale }).collect::<Vec<_>>();
        let (linear, nonlinear) = (Some(mask()), Some(mask()));
        Self { linear, nonlinear, features: features.then(mask) }
    }
}

/// Multiplies every row of `[n, d]` by the mask, if there is one.
pub(super) fn mask_rows(rows: &mut [f32], mask: Option<&[f32]>) {
    let Some(mask) = mask else { return };
    for row in rows.chunks_exact_mut(mask.len()) {
        row.iter_mut().zip(mask).for_each(|(x, m)| *x *= m);
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn masks_are_independent_and_keep_the_mean() {
        let masks = Masks::draw(0.1, 20_000, true, &mut ChaCha8Rng::seed_from_u64(0));
        let all = [masks.linear.unwrap(), masks.nonlinear.unwrap(), masks.features.unwrap()];
        for mask in &all {
            assert!(mask.iter().all(|&m| m == 0.0 || (m - 1.0 / 0.9).abs() < 1e-6));
            assert!((mask.iter().sum::<f32>() / 20_000.0 - 1.0).abs() < 0.02);
        }
        let both = all[0].iter().zip(&all[1]).filter(|&(&a, &b)| a == 0.0 && b == 0.0).count();
        assert!((100..300).contains(&both), "{both} of 200 expected");
    }

    #[test]
    fn no_dropout_no_masks() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        assert_eq!(Masks::draw(0.0, 5, true, &mut rng), Masks::default());
        assert!(Masks::draw(0.5, 5, false, &mut rng).features.is_none());
    }
}
