//! Images through the backbone: every layer that was asked for, from one pass.
//!
//! Images go in batches of a fixed number: one copy to the device, one pass, one copy back, and no other waiting for the
//! device. On a CPU the number is 1, and no number depends on it anyway. On a GPU products of other shapes are other
//! kernels, which round otherwise; so a batch that there are not enough images for is filled up with zeros, and an image's numbers do not
//! depend on how many others happened to be ready.
//!
//! Copies go from and to ordinary memory, in which the driver stages them. Pinned memory would be faster, but is reached
//! through calls of cudarc that are `unsafe`, which this workspace does without.

use std::time::Instant;

use anyhow::{Context as _, Result};
use backbone::{Features, Layer, Loaded, Precision};
use candle_core::{DType, Device, Tensor};
use dataset::{Crop, Transform};
use featcache::GoldenActivation;
use ndarray::{Array1, Array2, Array3, ArrayView3, s};

use crate::exit::integrity;

/// Patch tokens `[t, d]` and class token `[d]` of one layer of one image.
pub(super) type Tokens = (Array2<f32>, Array1<f32>);

/// Images of a batch on a GPU, unless said otherwise: enough to keep one busy, little beside the memory of any.
const GPU_BATCH: usize = 16;

/// A backbone, and how images go through it: all that changes the numbers besides the images.
pub(crate) struct Forward<'a> {
    pub(crate) backbone: &'a Loaded,
    pub(crate) device: Device,
    pub(crate) transform: Transform,
    /// What is read: the column `tokens` first, then a column each.
    pub(crate) layers: Vec<Layer>,
    /// Whether an image's features are averaged with those of its mirror image.
    pub(crate) flip_average: bool,
    /// Images of a batch, at least 1; mirror images count.
    pub(crate) batch: usize,
}

impl Forward<'_> {
    /// The usual [`Forward::batch`] of a device.
    pub(crate) fn batch_on(device: &Device) -> usize {
        if device.is_cpu() { 1 } else { GPU_BATCH }
    }

    /// How many images at a time keep a device busy.
    pub(crate) fn busy_batch(device: &Device) -> usize {
        if device.is_cpu() { rayon::current_num_threads() } else { GPU_BATCH }
    }

    /// How many images fill a batch, with their mirror images if these are seen.
    pub(super) fn images_of_a_batch(&self) -> usize {
        if self.flip_average { self.batch.div_ceil(2) } else { self.batch }
    }

    /// Tokens of one embedded test picture of 3 × 3 patches: what a backbone must reproduce to add to this cache.
    pub(crate) fn golden(&self) -> Result<GoldenActivation> {
        let side = 3 * self.backbone.backbone.spec().patch_size;
        let picture = dataset::open("scenes:train=1,val=0,size=96,seed=0", dataset::Split::Train)?.load(0)?;
        let transform = Transform { res: side, crop: Crop::None, ..self.transform.clone() };
        let view = transform.apply(0, &picture)?.swap_remove(0);
        let (tokens, _) = self.all(&[view.image.view()])?.swap_remove(0).swap_remove(0);
        Ok(GoldenActivation::from_tokens(tokens.view()))
    }

    /// Where, and in which type.
    pub(super) fn computes(&self) -> (&Device, DType) {
        (&self.device, Precision::of_architecture(&self.backbone.backbone.spec().architecture).dtype())
    }

    /// Floating-point operations of a view, its mirror image included.
    pub(crate) fn work(&self) -> Result<f64> {
        let side = self.transform.res;
        let once = self.backbone.backbone.spec().work((side, side), &self.layers)?;
        Ok(once * if self.flip_average { 2.0 } else { 1.0 })
    }

    /// Floating-point operations a second of forward passes, from one pass at this size: of one image on a CPU, where all threads
    /// share it, of as many as keep it busy on a GPU. A small one before it warms up.
    pub(crate) fn rate(&self) -> Result<f64> {
        let (network, side) = (&self.backbone.backbone, self.transform.res);
        let batch = Self::batch_on(&self.device);
        let pass = |side: usize| -> Result<f64> {
            let images = Tensor::full(0.5_f32, (batch, 3, side, side), &self.device)?;
            let start = Instant::now();
            let layers = network.forward_layers(&images, &self.layers)?;
            for layer in layers {
                layer.cls.to_device(&Device::Cpu)?; // not before it is computed
            }
            Ok(start.elapsed().as_secs_f64())
        };
        pass(3 * network.spec().patch_size)?;
        Ok(batch as f64 * network.spec().work((side, side), &self.layers)? / pass(side)?)
    }

    /// All layers of each image `[3, h, w]`, averaged with its mirror image's if asked.
    ///
    /// * `images`: of one size.
    pub(crate) fn all(&self, images: &[ArrayView3<'_, f32>]) -> Result<Vec<Vec<Tokens>>> {
        if !self.flip_average {
            return self.in_batches(images);
        }
        let mirrored = images.iter().map(|&image| image.slice_move(s![.., .., ..;-1]));
        let both: Vec<_> = images.iter().copied().zip(mirrored).flat_map(<[_; 2]>::from).collect();
        let mut seen = self.in_batches(&both)?.into_iter();
        let mut averages = Vec::with_capacity(images.len());
        while let (Some(one), Some(mirrored)) = (seen.next(), seen.next()) {
            averages.push(one.into_iter().zip(mirrored).map(average).collect());
        }
        Ok(averages)
    }

    fn in_batches(&self, images: &[ArrayView3<'_, f32>]) -> Result<Vec<Vec<Tokens>>> {
        let mut seen = Vec::with_capacity(images.len());
        for batch in images.chunks(self.batch) {
            seen.extend(self.one_batch(batch)?);
        }
        Ok(seen)
    }

    /// All layers of at most [`Forward::batch`] images, at least one.
    fn one_batch(&self, images: &[ArrayView3<'_, f32>]) -> Result<Vec<Vec<Tokens>>> {
        let (c, h, w) = images.first().context("a batch has images")?.dim();
        let mut pixels = Vec::with_capacity(self.batch * c * h * w);
        images.iter().for_each(|image| pixels.extend(image.iter()));
        pixels.resize(self.batch * c * h * w, 0.0);
        let pixels = Tensor::from_vec(pixels, (self.batch, c, h, w), &self.device)?; // [b, 3, h, w]
        let layers = self.backbone.backbone.forward_layers(&pixels, &self.layers)?;
        self.to_host(&layers, images.len())
    }

    /// Layers of the first `n` images of a batch, in one copy.
    fn to_host(&self, layers: &[Features], n: usize) -> Result<Vec<Vec<Tokens>>> {
        let mut parts = Vec::with_capacity(2 * layers.len());
        for Features { cls, patches, .. } in layers {
            parts.extend([cls.unsqueeze(1)?.narrow(0, 0, n)?, patches.narrow(0, 0, n)?]);
        }
        let all = Tensor::cat(&parts, 1)?; // [n, layers * (1 + t), d]
        let (_, tokens, d) = all.dims3()?;
        let numbers: Vec<f32> = all.flatten_all()?.to_vec1()?;
        self.check(&numbers)?;
        let layer = |numbers: &[f32]| -> Result<Tokens> {
            let (cls, patches) = numbers.split_at(d);
            let patches = Array2::from_shape_vec((patches.len() / d, d), patches.to_vec())?;
            Ok((patches, Array1::from(cls.to_vec())))
        };
        let image = |numbers: &[f32]| numbers.chunks_exact(tokens / layers.len() * d).map(layer).collect();
        numbers.chunks_exact(tokens * d).map(image).collect()
    }

    /// Refuses features that are no numbers.
    fn check(&self, numbers: &[f32]) -> Result<()> {
        if numbers.iter().all(|x| x.is_finite()) {
            return Ok(());
        }
        let architecture = &self.backbone.backbone.spec().architecture;
        let advice = match Precision::of_architecture(architecture) {
            Precision::F16 => "; --precision bf16 has the range of f32",
            _ => "",
        };
        Err(integrity(format!(
            "backbone {} ({architecture}) computes NaN or infinity on an ordinary picture{advice}",
            self.backbone.name
        )))
    }

    /// The picture `[h, w, 3]` that was normalised to `[3, h, w]`: its values were whole numbers of 255, and are found again exactly.
    pub(crate) fn pixels(&self, image: ArrayView3<'_, f32>) -> Array3<u8> {
        let Transform { mean, std, .. } = self.transform;
        let (_, h, w) = image.dim();
        Array3::from_shape_fn((h, w, 3), |(y, x, c)| {
            ((image[[c, y, x]] * std[c] + mean[c]) * 255.0).round() as u8
        })
    }
}

/// The mean of a layer of a square image and of its mirror image, each patch with itself.
fn average(((tokens, cls), (mirrored, mirrored_cls)): (Tokens, Tokens)) -> Tokens {
    let side = tokens.nrows().isqrt();
    let unflipped =
        Array2::from_shape_fn(tokens.dim(), |(t, d)| mirrored[[t / side * side + (side - 1 - t % side), d]]);
    ((tokens + unflipped) / 2.0, (cls + mirrored_cls) / 2.0)
}
