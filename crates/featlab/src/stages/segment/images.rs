//! Pictures as STEGO's trainer sees them: each view goes through the backbone when it is asked for.
//!
//! This is the original's way: what is stored is the pictures, every step costs forward passes, and what needs pixels can be had, an
//! augmented view and the CRF loss. A view is a crop of a sample; its number is `sample · crops + crop`. The augmentation follows the original
//! (mirror, 80 to 100 % of the area, colours, grey, blur) on bytes, before they are normalised.

use std::borrow::Cow;
use std::sync::OnceLock;

use anyhow::Result;
use dataset::augment::{ColorJitter, Draw, RandomResizedCrop, ViewConfig};
use dataset::{Dataset, Resize, View};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use segment::stego::{Augmented, FetchError, TokenSet};

use crate::stages::extract::Forward;

/// A data set through a backbone.
pub(crate) struct ImageSet<'a> {
    dataset: &'a dyn Dataset,
    forward: Forward<'a>,
    grid: (usize, usize),
    augmentation: ViewConfig,
    /// The labels of views that have been seen.
    labels: Vec<OnceLock<Option<Array2<u8>>>>,
}

impl<'a> ImageSet<'a> {
    /// * `forward`: reads one layer.
    pub(crate) fn new(dataset: &'a dyn Dataset, forward: Forward<'a>) -> Self {
        let side = forward.transform.res / forward.backbone.backbone.spec().patch_size;
        let views = dataset.len() * forward.transform.views();
        Self {
            augmentation: augmentation(forward.transform.res),
            labels: std::iter::repeat_with(OnceLock::new).take(views).collect(),
            dataset,
            forward,
            grid: (side, side),
        }
    }

    /// Views of all pictures.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    fn view(&self, i: usize) -> Result<View, FetchError> {
        let crops = self.forward.transform.views();
        let (sample, crop) = (i / crops, i % crops);
        let mut views = self.forward.transform.apply(sample as u64, &self.dataset.load(sample)?)?;
        Ok(views.swap_remove(crop))
    }

    /// Features of an input `[3, h, w]`.
    fn features(&self, image: ArrayView3<'_, f32>) -> Result<Vec<f32>, FetchError> {
        // A batch of views keeps all threads busy, each with one of them.
        let mut layers = kernels::one_thread(|| self.forward.all(&[image]))?.swap_remove(0);
        Ok(layers.swap_remove(0).0.into_raw_vec_and_offset().0)
    }
}

impl TokenSet for ImageSet<'_> {
    fn grid(&self) -> (usize, usize) {
        self.grid
    }

    fn embed_dim(&self) -> usize {
        self.forward.backbone.backbone.spec().embed_dim
    }

    fn tokens(&self, image: usize) -> Result<Cow<'_, [f32]>, FetchError> {
        let view = self.view(image)?;
        self.labels[image].get_or_init(|| view.label);
        Ok(Cow::Owned(self.features(view.image.view())?))
    }

    fn label(&self, image: usize) -> Option<ArrayView2<'_, u8>> {
        self.labels[image].get().and_then(Option::as_ref).map(Array2::view)
    }

    fn picture(&self, image: usize) -> Result<Array3<f32>, FetchError> {
        Ok(self.view(image)?.image)
    }

    fn augmented(&self, image: usize, seed: u64) -> Result<Augmented, FetchError> {
        let pixels = self.forward.pixels(self.view(image)?.image.view());
        let (h, w, _) = pixels.dim();
        let draw = self.augmentation.draw(&mut ChaCha8Rng::seed_from_u64(seed), h, w);
        let input =
            self.forward.transform.normalised(self.augmentation.apply(pixels.view(), &draw).view())?;
        let tokens = self.features(input.view())?;
        Ok(Augmented { tokens, coordinates: coordinates(&draw, (h, w), self.augmentation.size) })
    }
}

/// The original's augmentation of a view of `size` pixels.
fn augmentation(size: usize) -> ViewConfig {
    ViewConfig {
        size,
        scale: (0.8, 1.0),
        ratio: RandomResizedCrop::RATIO,
        interpolation: Resize::Bilinear,
        flip: 0.5,
        jitter: ColorJitter { brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1 },
        jitter_probability: 1.0,
        grayscale: 0.2,
        blur: 0.5,
        blur_radius: (0.1, 2.0),
        solarize: 0.0,
    }
}

/// Where the pixels of an augmented view lie in the view, `[size, size, 2]`: `(row, column)`, -1 and 1 being its outermost pixels.
fn coordinates(draw: &Draw, (h, w): (usize, usize), size: usize) -> Array3<f32> {
    let place = |at: usize, first: usize, length: usize, whole: usize| {
        let pixel = first as f64 + (at as f64 + 0.5) * length as f64 / size as f64 - 0.5;
        (2.0 * pixel / (whole as f64 - 1.0).max(1.0) - 1.0) as f32
    };
    Array3::from_shape_fn((size, size, 2), |(y, x, axis)| {
        let x = if draw.flip { size - 1 - x } else { x };
        match axis {
            0 => place(y, draw.part.y, draw.part.h, h),
            _ => place(x, draw.part.x, draw.part.w, w),
        }
    })
}

#[cfg(test)]
mod tests {
    use dataset::CropBox;

    use super::*;

    fn draw(part: CropBox, flip: bool) -> Draw {
        Draw { part, flip, jitter: Vec::new(), grayscale: false, blur: None, solarize: false }
    }

    #[test]
    fn coordinates_lead_back_to_the_pixels() {
        // Red is the row, green the column: the augmented view's colours are its coordinates.
        let n = 64;
        let picture = Array3::from_shape_fn((n, n, 3), |(y, x, c)| [4 * y as u8, 4 * x as u8, 0][c]);
        let config = ViewConfig { jitter_probability: 0.0, grayscale: 0.0, blur: 0.0, ..augmentation(n) };
        for (part, flip) in [
            (CropBox { x: 0, y: 0, w: n, h: n }, false),
            (CropBox { x: 5, y: 9, w: 52, h: 50 }, false),
            (CropBox { x: 5, y: 9, w: 52, h: 50 }, true),
        ] {
            let draw = draw(part, flip);
            let (view, at) = (config.apply(picture.view(), &draw), coordinates(&draw, (n, n), n));
            for y in (2..n - 2).step_by(7) {
                for x in (2..n - 2).step_by(5) {
                    for axis in 0..2 {
                        let pixel = (f64::from(at[[y, x, axis]]) + 1.0) / 2.0 * 63.0;
                        let seen = f64::from(view[[y, x, axis]]) / 4.0;
                        assert!((pixel - seen).abs() < 0.5, "{flip} {y} {x} {axis}: {pixel} {seen}");
                    }
                }
            }
        }
    }
}
