//! The settings of the study: the loss, how colours are measured, what a code is, and how much entropies count.

use ndarray::ArrayView3;
use serde::{Deserialize, Serialize};

use crate::lab::lab;
use crate::stego::CrfLoss;
use crate::stego::error::{Result, expect_range};
use crate::stego::unit::make_unit;

/// How colours are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colours {
    /// Red, green and blue of `[0, 1]`.
    #[default]
    Rgb,
    /// L*a*b* by `(100, 256, 256)`.
    Lab,
}

/// What a code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CodeKind {
    /// A direction.
    #[default]
    Continuous,
    /// Logits of regions.
    Discrete,
}

/// The study's settings. The default sees about 20 pixels far (`α = 400`) and tells colours apart that differ by a tenth (`β = 0.01`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrfStudy {
    /// The loss; its `side` is not used.
    pub crf: CrfLoss,
    /// How colours are measured.
    pub colours: Colours,
    /// What a code is.
    pub code: CodeKind,
    /// `k`, numbers of a code: regions, where it is discrete.
    pub dim: usize,
    /// `w_g`: how much all regions should be used.
    pub global_ent_weight: f32,
    /// `w_l`: how undecided a pixel should be (below 0: how decided).
    pub local_ent_weight: f32,
    /// Adam's learning rate.
    pub lr: f32,
    /// Of initial codes and of the pixels of every step.
    pub seed: u64,
}

impl Default for CrfStudy {
    fn default() -> Self {
        Self {
            crf: CrfLoss { alpha: 400.0, beta: 0.01, gamma: 4.0, shift: 0.3, ..CrfLoss::default() },
            colours: Colours::default(),
            code: CodeKind::default(),
            dim: 16,
            global_ent_weight: 0.0,
            local_ent_weight: 0.0,
            lr: 1e-2,
            seed: 0,
        }
    }
}

impl CrfStudy {
    /// Whether the settings can be.
    ///
    /// # Errors
    /// [`Error::Range`](crate::stego::Error::Range) for a setting that cannot be.
    pub fn check(&self) -> Result<()> {
        self.crf.check()?;
        let samples = self.crf.crf_samples;
        expect_range(samples > 0, "number of pixels that a step sees", "at least 1", samples)?;
        expect_range((1..=256).contains(&self.dim), "dim", "1 to 256", self.dim)?;
        expect_range(self.lr > 0.0 && self.lr.is_finite(), "learning rate", "a positive number", self.lr)?;
        for weight in [self.global_ent_weight, self.local_ent_weight] {
            let fits = weight == 0.0 || self.code == CodeKind::Discrete && weight.is_finite();
            expect_range(fits, "weight of an entropy", "a number, 0 where codes are continuous", weight)?;
        }
        Ok(())
    }

    /// Codes to what the loss sees, in place.
    pub(super) fn shape(&self, rows: &mut [f32]) {
        match self.code {
            CodeKind::Continuous => make_unit(rows, self.dim),
            CodeKind::Discrete => kernels::simd(
                #[inline(always)]
                || rows.chunks_exact_mut(self.dim).for_each(kernels::softmax),
            ),
        }
    }
}

impl Colours {
    /// `[h·w, 3]`.
    pub(super) fn of(self, image: ArrayView3<'_, u8>) -> Vec<f32> {
        let pixels = image.rows().into_iter().flat_map(|pixel| {
            let rgb = [pixel[0], pixel[1], pixel[2]];
            match self {
                Self::Rgb => rgb.map(|value| f32::from(value) / 255.0),
                Self::Lab => {
                    let [lightness, a, b] = lab(rgb);
                    [lightness / 100.0, a / 256.0, b / 256.0]
                }
            }
        });
        pixels.collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;

    #[test]
    fn colours_are_scaled() {
        let white = Array3::from_elem((1, 1, 3), 255);
        assert_eq!(Colours::Rgb.of(white.view()), [1.0; 3]);
        let lab = Colours::Lab.of(white.view());
        assert!((lab[0] - 1.0).abs() < 1e-3 && lab[1].abs() < 1e-3 && lab[2].abs() < 1e-3);
        let red = Array3::from_shape_fn((1, 1, 3), |(_, _, c)| if c == 0 { 255 } else { 0 });
        assert!((Colours::Lab.of(red.view())[1] - 80.09 / 256.0).abs() < 1e-3);
    }
}
