//! The contrastive CRF loss: codes of nearby pixels of similar colour should agree.
//!
//! With directions `ĉ` of the codes at `n` pixels of a small map, the loss of an image is `-mean_{a,b} K_ab ⟨ĉ_a, ĉ_b⟩`, over all ordered
//! pairs, `a = b` included. `K_ab = w₁ exp(-|p_a - p_b|²/2α - |I_a - I_b|²/2β) + w₂ exp(-|p_a - p_b|²/2γ) - shift` with places in
//! pixels of the map. `K` is symmetric, so that the loss is `-Σ ⟨ĉ, K ĉ⟩ / n²` and its gradient `-2 K ĉ / n²`: one product, of
//! which some rows of `K` are in memory at a time. This is a loss for training, not the dense CRF that
//! refines predictions.

use kernels::{Matrix, MatrixMut, Threads, dot, exp, gemm, simd};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, ArrayView4, Axis};
use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Points;
use super::error::{Error, Result, expect_finite, expect_range, expect_shape};
use super::unit::{make_unit, through_unit};

/// Rows of the kernel that are computed together.
const ROWS: usize = 64;

/// The contrastive CRF loss; the default is the original's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrfLoss {
    /// Side of the map to which images and codes are resized.
    pub side: usize,
    /// `n`, pixels that are drawn.
    pub crf_samples: usize,
    /// Spread of places where colours count.
    pub alpha: f32,
    /// Spread of colours.
    pub beta: f32,
    /// Spread of places alone.
    pub gamma: f32,
    /// Weight of places and colours.
    pub w1: f32,
    /// Weight of places alone.
    pub w2: f32,
    /// What is subtracted from the kernel.
    pub shift: f32,
}

/// A loss with its slope in the codes.
#[derive(Debug, Clone, PartialEq)]
pub struct CodeGradient {
    /// The mean over images.
    pub loss: f64,
    /// `[b, t, k]`.
    pub grad_codes: Array3<f32>,
}

impl Default for CrfLoss {
    fn default() -> Self {
        Self {
            side: 56,
            crf_samples: 1000,
            alpha: 0.5,
            beta: 0.15,
            gamma: 0.05,
            w1: 10.0,
            w2: 3.0,
            shift: 0.0,
        }
    }
}

impl CrfLoss {
    /// The kernel as the original's figure of label co-occurrence has it, for places in `[-1, 1]²`: spreads are `e^α`, `e^β` and `e^γ`.
    #[must_use]
    pub fn co_occurrence() -> Self {
        let own = Self::default();
        Self { alpha: own.alpha.exp(), beta: own.beta.exp(), gamma: own.gamma.exp(), shift: -0.3, ..own }
    }

    /// `K_ab` of every `a` with every `b`, `[n, m]`.
    ///
    /// * `places`: two axes in whatever unit; `colours`: `[n, c]` and `[m, c]`.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Range`] if they do not fit.
    pub fn kernel(
        &self,
        (places, colours): (&[[f32; 2]], ArrayView2<'_, f32>),
        (others, their_colours): (&[[f32; 2]], ArrayView2<'_, f32>),
    ) -> Result<Array2<f32>> {
        self.check()?;
        let channels = colours.ncols();
        expect_range(channels > 0, "number of channels", "at least 1", channels)?;
        expect_shape("colours", &[places.len(), channels], colours.shape())?;
        expect_shape("colours", &[others.len(), channels], their_colours.shape())?;
        let (own, theirs): (Vec<f32>, Vec<f32>) =
            (colours.iter().copied().collect(), their_colours.iter().copied().collect());
        let mut kernel = vec![0.0; places.len() * others.len()];
        if !others.is_empty() {
            let rows = kernel.chunks_exact_mut(others.len());
            for ((row, &place), colour) in rows.zip(places).zip(own.chunks_exact(channels)) {
                self.kernel_row((place, colour), (others, &theirs), row);
            }
        }
        Ok(Array2::from_shape_vec((places.len(), others.len()), kernel).expect("all pairs"))
    }

    /// An error for spreads that are not positive.
    pub(crate) fn check(&self) -> Result<()> {
        for (what, spread) in [("alpha", self.alpha), ("beta", self.beta), ("gamma", self.gamma)] {
            expect_range(spread > 0.0, what, "a positive number", spread)?;
        }
        Ok(())
    }

    /// Pixels of the map, drawn uniformly; a batch shares them.
    pub fn draw(&self, rng: &mut impl Rng) -> Vec<(usize, usize)> {
        let mut at = || rng.random_range(0..self.side.max(1));
        (0..self.crf_samples).map(|_| (at(), at())).collect()
    }

    /// The loss and its gradient in the codes.
    ///
    /// * `images`: `[b, 3, h, w]`, normalised; `codes`: `[b, t, k]` on the patch grid `(gh, gw)`.
    /// * `pixels`: `(row, column)` of the map of [`CrfLoss::side`].
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Range`] or [`Error::Empty`] if they do not fit, [`Error::NotFinite`] if the loss is no number.
    pub fn gradient(
        &self,
        images: ArrayView4<'_, f32>,
        codes: ArrayView3<'_, f32>,
        grid: (usize, usize),
        pixels: &[(usize, usize)],
    ) -> Result<CodeGradient> {
        let ((b, channels, h, w), (_, t, k)) = (images.dim(), codes.dim());
        expect_shape("codes", &[b, grid.0 * grid.1, k], codes.shape())?;
        if b == 0 || k == 0 || channels == 0 || pixels.is_empty() {
            return Err(Error::Empty("batch of images, or list of pixels"));
        }
        self.check()?;
        let of_map = |grid| Points::pixels(pixels, (self.side, self.side), grid);
        let (of_image, of_code) = (of_map((h, w))?, of_map(grid)?);
        let places: Vec<[f32; 2]> = pixels.iter().map(|&(row, column)| [row as f32, column as f32]).collect();
        let image = |i: usize| -> Result<(f64, Vec<f32>)> {
            let image = images.index_axis(Axis(0), i);
            let image = image.to_shape((channels, h * w)).expect("one image");
            let colours = of_image.sample(image.t())?;
            let sampled = of_code.sample(codes.index_axis(Axis(0), i))?;
            let colours: Vec<f32> = colours.iter().copied().collect();
            let sampled = sampled.into_raw_vec_and_offset().0;
            let (loss, slope) = self.image(&places, &colours, &sampled, b);
            let mut grad = vec![0.0; t * k];
            of_code.add_back(&slope, k, &mut grad);
            Ok((loss, grad))
        };
        let images: Vec<_> = (0..b).into_par_iter().map(image).collect::<Result<_>>()?;
        let loss = expect_finite("the CRF loss", images.iter().map(|(loss, _)| loss).sum())?;
        let grads = images.into_iter().flat_map(|(_, grad)| grad).collect();
        Ok(CodeGradient { loss, grad_codes: Array3::from_shape_vec((b, t, k), grads).expect("all images") })
    }

    /// One image's share of the loss, and its gradient in the sampled codes `[n, k]`.
    fn image(&self, places: &[[f32; 2]], colours: &[f32], codes: &[f32], batch: usize) -> (f64, Vec<f32>) {
        let n = places.len();
        let k = codes.len() / n;
        let mut unit = codes.to_vec();
        make_unit(&mut unit, k);
        let (loss, mut slope) = self.disagreement(places, colours, &unit, k, batch);
        for ((slope, unit), code) in
            slope.chunks_exact_mut(k).zip(unit.chunks_exact(k)).zip(codes.chunks_exact(k))
        {
            through_unit(code, unit, slope);
        }
        (loss, slope)
    }

    /// `-Σ ⟨u_a, K_ab u_b⟩ / (batch n²)` of any rows `u`, `[n, k]`, and its gradient in them.
    pub(crate) fn disagreement(
        &self,
        places: &[[f32; 2]],
        colours: &[f32],
        rows: &[f32],
        k: usize,
        batch: usize,
    ) -> (f64, Vec<f32>) {
        let n = places.len();
        let channels = colours.len() / n;
        let share = 1.0 / (batch as f64 * (n * n) as f64);
        let (mut kernel, mut slope) = (vec![0.0; ROWS.min(n) * n], vec![0.0; n * k]);
        let mut loss = 0.0;
        for (first, slope) in (0..n).step_by(ROWS).zip(slope.chunks_mut(ROWS * k)) {
            let count = slope.len() / k;
            let kernel = &mut kernel[..count * n];
            for (a, row) in (first..).zip(kernel.chunks_exact_mut(n)) {
                let own = &colours[a * channels..][..channels];
                self.kernel_row((places[a], own), (places, colours), row);
            }
            let factors = (Matrix::new(kernel, count, n), Matrix::new(rows, n, k));
            gemm(MatrixMut::new(slope, count, k), 0.0, 1.0, factors.0, factors.1, Threads::One);
            for (slope, row) in slope.chunks_exact_mut(k).zip(rows[first * k..].chunks_exact(k)) {
                loss -= f64::from(dot(row, slope));
                slope.iter_mut().for_each(|x| *x *= (-2.0 * share) as f32);
            }
        }
        (loss * share, slope)
    }

    /// `K_ab` for one `a`, place and colour, and all `b`.
    fn kernel_row(
        &self,
        (at, own): ([f32; 2], &[f32]),
        (places, colours): (&[[f32; 2]], &[f32]),
        row: &mut [f32],
    ) {
        let [by_alpha, by_beta, by_gamma] = [self.alpha, self.beta, self.gamma].map(|x| -0.5 / x);
        simd(
            #[inline(always)]
            || {
                for ((to, place), colour) in row.iter_mut().zip(places).zip(colours.chunks_exact(own.len())) {
                    let apart = (place[0] - at[0]).powi(2) + (place[1] - at[1]).powi(2);
                    let mut unlike = 0.0;
                    for (x, y) in colour.iter().zip(own) {
                        unlike += (x - y) * (x - y);
                    }
                    let near = self.w1 * exp(apart * by_alpha + unlike * by_beta);
                    *to = near + self.w2 * exp(apart * by_gamma) - self.shift;
                }
            },
        );
    }
}
