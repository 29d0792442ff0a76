//! What a trained probe is to those who use it: tokens in, scores out.
//!
//! A prediction at label resolution is the best *upsampled score*, see [`upsample_argmax`](crate::upsample_argmax).
//! The original upsamples tokens and scores those; for both probes here the result is the same, and it costs
//! `k / c` times as much.

use ndarray::{Array2, ArrayView2};

/// A trained classifier of tokens.
pub trait Probe {
    /// Number of scores per token: classes `c`, or clusters `m`.
    fn outputs(&self) -> usize;

    /// Scores `[t, c]` (or `[t, m]`) of tokens `[t, k]`; the largest one is the prediction. They are affine in the
    /// token, so that upsampling may come after.
    ///
    /// # Panics
    /// If `k` is not the width the probe was trained on.
    fn scores(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32>;
}
