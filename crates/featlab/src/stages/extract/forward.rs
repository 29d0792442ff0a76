//! One image through the backbone: every layer that was asked for, from one pass.
//!
//! Always one image at a time, so that no number depends on a batch.

use anyhow::Result;
use backbone::{Layer, Loaded};
use candle_core::{Device, Tensor};
use dataset::{Crop, Transform};
use featcache::GoldenActivation;
use ndarray::{Array1, Array2, Array3, ArrayView3, s};

use crate::exit::integrity;

/// Patch tokens `[t, d]` and class token `[d]` of one layer of one image.
pub(super) type Tokens = (Array2<f32>, Array1<f32>);

/// A backbone, and how images go through it: all that changes the numbers besides the images.
pub(crate) struct Forward<'a> {
    pub(crate) backbone: &'a Loaded,
    pub(crate) device: Device,
    pub(crate) transform: Transform,
    /// What is read: the column `tokens` first, then a column each.
    pub(crate) layers: Vec<Layer>,
    /// Whether an image's features are averaged with those of its mirror image.
    pub(crate) flip_average: bool,
}

impl Forward<'_> {
    /// Tokens of one embedded test picture of 3 × 3 patches: what a backbone must reproduce to add to this cache.
    pub(crate) fn golden(&self) -> Result<GoldenActivation> {
        let side = 3 * self.backbone.backbone.spec().patch_size;
        let picture = dataset::open("scenes:train=1,val=0,size=96,seed=0", dataset::Split::Train)?.load(0)?;
        let transform = Transform { res: side, crop: Crop::None, ..self.transform.clone() };
        let view = transform.apply(0, &picture)?.swap_remove(0);
        let (tokens, _) = self.all(view.image.view())?.swap_remove(0);
        if tokens.iter().any(|x| !x.is_finite()) {
            return Err(integrity(format!(
                "backbone {} computes NaN or infinity on an ordinary picture",
                self.backbone.name
            )));
        }
        Ok(GoldenActivation::from_tokens(tokens.view()))
    }

    /// Floating-point operations of a view, its mirror image included.
    pub(super) fn work(&self) -> Result<f64> {
        let side = self.transform.res;
        let once = self.backbone.backbone.spec().work((side, side), &self.layers)?;
        Ok(once * if self.flip_average { 2.0 } else { 1.0 })
    }

    /// All layers of one image `[3, h, w]`, averaged with its mirror image's if asked.
    pub(crate) fn all(&self, image: ArrayView3<'_, f32>) -> Result<Vec<Tokens>> {
        let seen = self.once(image)?;
        if !self.flip_average {
            return Ok(seen);
        }
        let mirrored = self.once(image.slice(s![.., .., ..;-1]))?;
        let side = image.dim().2 / self.backbone.backbone.spec().patch_size;
        let average = |((tokens, cls), (mirrored, mirrored_cls)): (Tokens, Tokens)| {
            let unflipped = Array2::from_shape_fn(tokens.dim(), |(t, d)| {
                mirrored[[t / side * side + (side - 1 - t % side), d]]
            });
            ((tokens + unflipped) / 2.0, (cls + mirrored_cls) / 2.0)
        };
        Ok(seen.into_iter().zip(mirrored).map(average).collect())
    }

    fn once(&self, image: ArrayView3<'_, f32>) -> Result<Vec<Tokens>> {
        let (c, h, w) = image.dim();
        let pixels: Vec<f32> = image.iter().copied().collect();
        let images = Tensor::from_vec(pixels, (1, c, h, w), &self.device)?; // [1, 3, h, w]
        let layers = self.backbone.backbone.forward_layers(&images, &self.layers)?;
        let to_host = |features: backbone::Features| {
            let (_, t, d) = features.patches.dims3()?;
            let tokens = features.patches.flatten_all()?.to_vec1()?;
            let cls = features.cls.flatten_all()?.to_vec1()?;
            Ok((Array2::from_shape_vec((t, d), tokens)?, Array1::from_vec(cls)))
        };
        layers.into_iter().map(to_host).collect()
    }

    /// The picture `[h, w, 3]` that was normalised to `[3, h, w]`: its values were whole numbers of 255, and are found again exactly.
    pub(super) fn pixels(&self, image: ArrayView3<'_, f32>) -> Array3<u8> {
        let Transform { mean, std, .. } = self.transform;
        let (_, h, w) = image.dim();
        Array3::from_shape_fn((h, w, 3), |(y, x, c)| {
            ((image[[c, y, x]] * std[c] + mean[c]) * 255.0).round() as u8
        })
    }
}
