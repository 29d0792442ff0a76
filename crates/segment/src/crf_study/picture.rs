//! A picture of the study: its colours, a free code for every pixel, and the codes' moments.

use ndarray::ArrayView3;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::settings::CrfStudy;
use crate::stego::error::{Result, expect_shape};

/// Standard deviation of a code before the first step.
pub(super) const START: f32 = 0.1;

/// A picture, its codes and their moments.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    pub(super) size: (usize, usize),
    /// `[h·w, 3]`.
    pub(super) colours: Vec<f32>,
    /// `[h·w, k]`, as what follows.
    pub(super) codes: Vec<f32>,
    pub(super) mean: Vec<f32>,
    pub(super) square: Vec<f32>,
}

impl Picture {
    /// Picture `number` before the first step.
    ///
    /// * `image`: `[h, w, 3]`.
    pub(super) fn start(study: &CrfStudy, number: u64, image: ArrayView3<'_, u8>) -> Result<Self> {
        let (h, w, _) = image.dim();
        expect_shape("image", &[h, w, 3], image.shape())?;
        let mut rng = ChaCha8Rng::seed_from_u64(study.seed);
        rng.set_stream(number);
        let n = h * w * study.dim;
        let mut normal = || START * rng.sample::<f32, _>(StandardNormal);
        Ok(Self {
            size: (h, w),
            colours: study.colours.of(image),
            codes: (0..n).map(|_| normal()).collect(),
            mean: vec![0.0; n],
            square: vec![0.0; n],
        })
    }
}
