//! Colour jitter: brightness, contrast, saturation and hue by random amounts in random order.
//!
//! Drawing and doing are apart: [`ColorJitter::sample`] gives a list of [`Adjustment`]s, which any image can take. The order
//! matters, since each step rounds and contrast depends on what the picture is by then.

use ndarray::Array3;
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::crop::between;
use super::{adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation};
use crate::{Error, Result};

/// How strongly colours are changed at most; a strength of 0 leaves its step out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColorJitter {
    /// The factor is uniform in `[max(0, 1 − brightness), 1 + brightness]`.
    pub brightness: f64,
    /// As brightness.
    pub contrast: f64,
    /// As brightness.
    pub saturation: f64,
    /// The turn is uniform in `[−hue, hue]`, of a full one; at most ½.
    pub hue: f64,
}

/// One step of a colour jitter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Adjustment {
    /// [`adjust_brightness`] by this factor.
    Brightness(f64),
    /// [`adjust_contrast`] by this factor.
    Contrast(f64),
    /// [`adjust_saturation`] by this factor.
    Saturation(f64),
    /// [`adjust_hue`] by this part of a turn.
    Hue(f64),
}

impl Adjustment {
    /// Changes `[h, w, 3]`.
    ///
    /// # Panics
    /// If the image has not 3 channels.
    pub fn apply(self, image: &mut Array3<u8>) {
        match self {
            Self::Brightness(factor) => adjust_brightness(image, factor),
            Self::Contrast(factor) => adjust_contrast(image, factor),
            Self::Saturation(factor) => adjust_saturation(image, factor),
            Self::Hue(factor) => adjust_hue(image, factor),
        }
    }
}

impl ColorJitter {
    /// Changes nothing.
    pub const NONE: Self = Self { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };

    /// Whether the strengths can be.
    ///
    /// # Errors
    /// With [`Error::is_usage`] unless all are finite and at least 0, and the hue's at most ½.
    pub fn check(&self) -> Result<()> {
        for (option, strength, most) in [
            ("jitter brightness", self.brightness, f64::MAX),
            ("jitter contrast", self.contrast, f64::MAX),
            ("jitter saturation", self.saturation, f64::MAX),
            ("jitter hue", self.hue, 0.5),
        ] {
            if !(0.0..=most).contains(&strength) {
                let at_most = if most < 1.0 { format!(" and at most {most}") } else { String::new() };
                let reason = format!("must be finite, at least 0{at_most}, got {strength}");
                return Err(Error::InvalidOption { option, reason });
            }
        }
        Ok(())
    }

    /// At most four steps in the order to take them; every order is equally likely.
    pub fn sample(&self, rng: &mut impl Rng) -> Vec<Adjustment> {
        let factor = |strength: f64| ((1.0 - strength).max(0.0), 1.0 + strength);
        let mut steps: Vec<Adjustment> = [
            (self.brightness, factor(self.brightness), Adjustment::Brightness as fn(f64) -> Adjustment),
            (self.contrast, factor(self.contrast), Adjustment::Contrast),
            (self.saturation, factor(self.saturation), Adjustment::Saturation),
            (self.hue, (-self.hue, self.hue), Adjustment::Hue),
        ]
        .into_iter()
        .filter(|(strength, ..)| *strength != 0.0)
        .map(|(_, range, step)| step(between(rng, range)))
        .collect();
        steps.shuffle(rng);
        steps
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const STRONG: ColorJitter = ColorJitter { brightness: 0.4, contrast: 1.5, saturation: 0.2, hue: 0.1 };

    fn draws(jitter: ColorJitter, n: usize) -> Vec<Vec<Adjustment>> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        (0..n).map(|_| jitter.sample(&mut rng)).collect()
    }

    #[test]
    fn every_order_is_equally_likely() {
        let letter = |step: &Adjustment| match step {
            Adjustment::Brightness(_) => 'b',
            Adjustment::Contrast(_) => 'c',
            Adjustment::Saturation(_) => 's',
            Adjustment::Hue(_) => 'h',
        };
        let mut counts = BTreeMap::<String, u32>::new();
        for steps in draws(STRONG, 24_000) {
            *counts.entry(steps.iter().map(letter).collect()).or_default() += 1;
        }
        assert_eq!(counts.len(), 24);
        // Standard deviation of each count: 31.
        assert!(counts.values().all(|count| count.abs_diff(1000) < 150), "{counts:?}");
    }

    #[test]
    fn factors_fill_their_ranges() {
        let draws = draws(STRONG, 5000);
        let of = |pick: fn(Adjustment) -> Option<f64>| {
            let values: Vec<f64> = draws.iter().flatten().filter_map(|step| pick(*step)).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            (
                values.iter().copied().fold(f64::MAX, f64::min),
                mean,
                values.into_iter().fold(f64::MIN, f64::max),
            )
        };
        let close = |(least, mean, most): (f64, f64, f64), low: f64, high: f64| {
            let slack = (high - low) / 50.0;
            assert!(least >= low && least < low + slack && most <= high && most > high - slack);
            assert!((mean - (low + high) / 2.0).abs() < slack, "{mean}");
        };
        close(of(|s| if let Adjustment::Brightness(f) = s { Some(f) } else { None }), 0.6, 1.4);
        close(of(|s| if let Adjustment::Contrast(f) = s { Some(f) } else { None }), 0.0, 2.5);
        close(of(|s| if let Adjustment::Saturation(f) = s { Some(f) } else { None }), 0.8, 1.2);
        close(of(|s| if let Adjustment::Hue(f) = s { Some(f) } else { None }), -0.1, 0.1);
    }

    #[test]
    fn a_strength_of_zero_leaves_its_step_out() {
        assert!(draws(ColorJitter::NONE, 9).iter().all(Vec::is_empty));
        let grey = ColorJitter { saturation: 0.0, hue: 0.0, ..STRONG };
        assert!(draws(grey, 9).iter().all(|steps| steps.len() == 2));
    }
}
