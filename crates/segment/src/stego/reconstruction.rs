//! Reconstruction: features should be readable from codes, in direction, by one linear layer.
//!
//! The loss is `-mean cos(W c + v, F)` over tokens. The decoder's weights `W`, `[d, k]`, and biases are trained with the head's.

use kernels::{Matrix, MatrixMut, Threads, gemm};
use ndarray::{Array2, ArrayView2};

use super::alignment::cosine_slopes;
use super::error::{Error, Result, expect_finite, expect_shape};
use super::init::{Stream, convolution};
use super::unit::add_rows;

/// The linear layer from codes to features.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoder {
    embed_dim: usize,
    code_dim: usize,
    /// Weights `[d, k]`, then biases `[d]`.
    pub(super) parameters: Vec<f32>,
}

/// The loss of some tokens with its slopes.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconstructionGradient {
    /// Minus the mean cosine.
    pub loss: f64,
    /// `[n, k]`.
    pub grad_codes: Array2<f32>,
    /// Laid out as [`Decoder::parameters`].
    pub grad_parameters: Vec<f32>,
}

impl Decoder {
    /// A decoder with the weights of a PyTorch convolution's default.
    #[must_use]
    pub fn new(embed_dim: usize, code_dim: usize, seed: u64) -> Self {
        let mut parameters = vec![0.0; embed_dim * (code_dim + 1)];
        convolution(&mut parameters, code_dim, &mut Stream::Decoder.rng(seed));
        Self { embed_dim, code_dim, parameters }
    }

    /// A decoder with the given weights and biases, `[d, k]` and `[d]`, one behind the other.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of them.
    pub fn from_parameters(embed_dim: usize, code_dim: usize, parameters: Vec<f32>) -> Result<Self> {
        expect_shape("parameters", &[embed_dim * (code_dim + 1)], &[parameters.len()])?;
        Ok(Self { embed_dim, code_dim, parameters })
    }

    /// Weights `[d, k]`, then biases `[d]`.
    #[must_use]
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// The loss of some tokens, and its gradient in codes and decoder; features have none.
    ///
    /// * `features`: `[n, d]`; `codes`: `[n, k]`.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Empty`] if they do not fit, [`Error::NotFinite`] if the loss is no number.
    pub fn gradient(
        &self,
        features: ArrayView2<'_, f32>,
        codes: ArrayView2<'_, f32>,
    ) -> Result<ReconstructionGradient> {
        let n = features.nrows();
        expect_shape("features", &[n, self.embed_dim], features.shape())?;
        expect_shape("codes", &[n, self.code_dim], codes.shape())?;
        if n == 0 {
            return Err(Error::Empty("batch of tokens"));
        }
        let (features, codes) = (features.as_standard_layout(), codes.as_standard_layout());
        let slices = (features.as_slice(), codes.as_slice());
        let (features, codes) = (slices.0.expect("standard layout"), slices.1.expect("standard layout"));
        let mut grad_codes = Array2::zeros((n, self.code_dim));
        let mut grad_parameters = vec![0.0; self.parameters.len()];
        let to = grad_codes.as_slice_mut().expect("standard layout");
        let loss = self.add_slopes(features, codes, 1.0 / n as f64, to, &mut grad_parameters);
        Ok(ReconstructionGradient {
            loss: expect_finite("the reconstruction loss", loss)?,
            grad_codes,
            grad_parameters,
        })
    }

    /// `-share Σ cos`, whose gradients are added.
    pub(super) fn add_slopes(
        &self,
        features: &[f32],
        codes: &[f32],
        share: f64,
        grad_codes: &mut [f32],
        grads: &mut [f32],
    ) -> f64 {
        let (d, k) = (self.embed_dim, self.code_dim);
        let n = codes.len() / k;
        let (weight, bias) = self.parameters.split_at(d * k);
        let (weight, codes) = (Matrix::new(weight, d, k), Matrix::new(codes, n, k));
        let mut decoded = bias.repeat(n);
        gemm(MatrixMut::new(&mut decoded, n, d), 1.0, 1.0, codes, weight.t(), Threads::One);
        let (loss, slope, _) = cosine_slopes(&decoded, features, d, share);
        let rows = Matrix::new(&slope, n, d);
        gemm(MatrixMut::new(grad_codes, n, k), 1.0, 1.0, rows, weight, Threads::One);
        let (grad_weight, grad_bias) = grads.split_at_mut(d * k);
        gemm(MatrixMut::new(grad_weight, d, k), 1.0, 1.0, rows.t(), codes, Threads::One);
        add_rows(&slope, grad_bias);
        loss
    }
}
