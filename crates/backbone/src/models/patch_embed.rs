//! Images as tokens: a convolution whose stride is its kernel, which is a linear map of every patch.

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;

use super::VitConfig;
use crate::nn::{Linear, Tokens};
use crate::{Error, Result};

/// The patch projection with its weights.
pub(super) struct PatchEmbed {
    proj: Linear, // [3 * p * p -> d]
    patch_size: usize,
}

impl PatchEmbed {
    pub(super) fn new(vb: VarBuilder<'_>, config: &VitConfig) -> Result<Self> {
        let (d, p) = (config.embed_dim, config.patch_size);
        let weight = vb.get((d, 3, p, p), "proj.weight")?.reshape((d, 3 * p * p))?;
        let proj = Linear::new(weight, Some(vb.get(d, "proj.bias")?))?;
        Ok(Self { proj, patch_size: p })
    }

    /// The grid of images `[b, 3, h, w]`.
    ///
    /// # Errors
    /// [`Error::Images`] if a side is no multiple of the patch size.
    pub(super) fn grid(&self, images: &Tensor) -> Result<(usize, usize)> {
        let p = self.patch_size;
        match *images.dims() {
            [_, 3, h, w] if h > 0 && w > 0 && h % p == 0 && w % p == 0 => Ok((h / p, w / p)),
            _ => Err(Error::Images { patch_size: p, got: images.dims().to_vec() }),
        }
    }

    /// `[b, 3, h, w] -> [b, t, d]`, patches in row-major order, in `f32`.
    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let (gh, gw) = self.grid(images)?;
        let (b, p) = (images.dim(0)?, self.patch_size);
        let patches = images
            .reshape(&[b, 3, gh, p, gw, p][..])?
            .permute([0, 2, 4, 1, 3, 5])? // [b, gh, gw, 3, p, p]
            .reshape((b, gh * gw, 3 * p * p))?;
        Ok(self.proj.forward(&Tokens::new(patches)?)?.rows()?.to_dtype(DType::F32)?)
    }
}
