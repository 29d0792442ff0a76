//! Multi-crop: two large and several small random views of one picture, as networks read them.
//!
//! The order is global 1, global 2, then the local views. All randomness comes from one generator; [`view_rng`] makes it a
//! function of (seed, epoch, image), so that neither threads nor the order of images change a view.

use ndarray::{Array3, ArrayView3};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ColorJitter, RandomResizedCrop, ViewConfig};
use crate::normalise::Normalise;
use crate::{Error, Resize, Result};

/// The recipe of all views of one picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiCrop {
    /// The first large view.
    pub global1: ViewConfig,
    /// The second large view.
    pub global2: ViewConfig,
    /// Every small view.
    pub local: ViewConfig,
    /// Number of small views.
    pub locals: usize,
    /// Mean of red, green and blue, of pixels in `[0, 1]`.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue, of pixels in `[0, 1]`.
    pub std: [f32; 3],
}

impl Default for MultiCrop {
    fn default() -> Self {
        Self::dino()
    }
}

impl MultiCrop {
    /// The views of DINO (Caron et al. 2021): 2 of 224 pixels and 40 % to 100 % of the area, 8 of 96 and 5 % to 40 %.
    ///
    /// Without local views its authors use `scale: (0.14, 1.0)`; for smaller views see [`MultiCrop::resized`].
    #[must_use]
    pub fn dino() -> Self {
        let local = ViewConfig {
            size: 96,
            scale: (0.05, 0.4),
            ratio: RandomResizedCrop::RATIO,
            interpolation: Resize::Bicubic,
            flip: 0.5,
            jitter: ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1 },
            jitter_probability: 0.8,
            grayscale: 0.2,
            blur: 0.5,
            blur_radius: (0.1, 2.0),
            solarize: 0.0,
        };
        let global = ViewConfig { size: 224, scale: (0.4, 1.0), ..local };
        Self {
            global1: ViewConfig { blur: 1.0, ..global },
            global2: ViewConfig { blur: 0.1, solarize: 0.2, ..global },
            local,
            locals: 8,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }

    /// The views of SwAV (Caron et al. 2020): 2 of 224 pixels and 14 % to 100 % of the area, 6 of 96 and 5 % to 14 %.
    #[must_use]
    pub fn swav() -> Self {
        let dino = Self::dino();
        let local = ViewConfig {
            scale: (0.05, 0.14),
            interpolation: Resize::Bilinear,
            jitter: ColorJitter { brightness: 0.8, contrast: 0.8, saturation: 0.8, hue: 0.2 },
            ..dino.local
        };
        let global = ViewConfig { size: 224, scale: (0.14, 1.0), ..local };
        Self { global1: global, global2: global, local, locals: 6, std: [0.228, 0.224, 0.225], ..dino }
    }

    /// The same recipe with views of other sizes, and all blur radii times `global` over the old size of the first view.
    ///
    /// ```
    /// use dataset::augment::MultiCrop;
    ///
    /// let small = MultiCrop::dino().resized(112, 48);
    /// assert_eq!((small.global1.size, small.local.size), (112, 48));
    /// assert_eq!((small.global1.blur_radius, small.local.blur_radius), ((0.05, 1.0), (0.05, 1.0)));
    /// ```
    #[must_use]
    pub fn resized(self, global: usize, local: usize) -> Self {
        let factor = global as f64 / self.global1.size as f64;
        let view = |config: ViewConfig, size| ViewConfig { size, ..config.scaled_blur(factor) };
        Self {
            global1: view(self.global1, global),
            global2: view(self.global2, global),
            local: view(self.local, local),
            ..self
        }
    }

    /// Whether the recipe can be followed.
    ///
    /// # Errors
    /// With [`Error::is_usage`], naming the field and what it holds.
    pub fn check(&self) -> Result<()> {
        [self.global1, self.global2, self.local].iter().try_for_each(ViewConfig::check)?;
        Normalise::new(self.mean, self.std).map(|_| ())
    }

    /// All views of `image` `[h, w, 3]`, each `[3, size, size]` and normalised: global 1, global 2, `locals` local ones.
    ///
    /// # Errors
    /// As [`MultiCrop::check`], or with [`Error::is_sample`] if the image has no pixels or not 3 channels.
    ///
    /// ```
    /// use dataset::augment::{MultiCrop, view_rng};
    ///
    /// let image = ndarray::Array3::from_elem((20, 30, 3), 128);
    /// let views = MultiCrop::dino().resized(16, 8).views(image.view(), &mut view_rng(0, 0, 0))?;
    /// assert_eq!((views.len(), views[0].dim(), views[2].dim()), (10, (3, 16, 16), (3, 8, 8)));
    /// # Ok::<(), dataset::Error>(())
    /// ```
    pub fn views(&self, image: ArrayView3<'_, u8>, rng: &mut ChaCha8Rng) -> Result<Vec<Array3<f32>>> {
        self.check()?;
        let normalise = Normalise::new(self.mean, self.std)?;
        let (h, w, channels) = image.dim();
        if h == 0 || w == 0 || channels != 3 {
            let reason = format!("has {channels} channels; expected at least one pixel of 3");
            return Err(Error::Unfit { id: "to augment".into(), size: (h, w), reason });
        }
        let view = |config: &ViewConfig| {
            let draw = config.draw(rng, h, w);
            normalise.apply(config.apply(image, &draw).view())
        };
        Ok(self.configs().map(view).collect())
    }

    /// One recipe per view, in their order.
    fn configs(&self) -> impl Iterator<Item = &ViewConfig> {
        [&self.global1, &self.global2].into_iter().chain(std::iter::repeat_n(&self.local, self.locals))
    }
}

/// The generator for the views of image number `index` in `epoch`: ChaCha8 keyed by the SHA-256 of the three numbers.
#[must_use]
pub fn view_rng(seed: u64, epoch: u64, index: u64) -> ChaCha8Rng {
    let hash = Sha256::new().chain_update("featlab views");
    let hash = [seed, epoch, index].iter().fold(hash, |hash, number| hash.chain_update(number.to_le_bytes()));
    ChaCha8Rng::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Array3<u8> {
        Array3::from_shape_fn((40, 50, 3), |(y, x, c)| (y * 5 + x * 3 + c * 40) as u8)
    }

    fn small() -> MultiCrop {
        MultiCrop::dino().resized(16, 8)
    }

    fn views(crop: MultiCrop, seed: u64, epoch: u64, index: u64) -> Vec<Array3<f32>> {
        crop.views(image().view(), &mut view_rng(seed, epoch, index)).unwrap()
    }

    #[test]
    fn views_come_in_order_and_size() {
        let mut crop = MultiCrop { mean: [0.0; 3], std: [1.0; 3], locals: 3, ..small() };
        crop.global2.size = 11;
        let sizes: Vec<usize> = views(crop, 0, 0, 0).iter().map(|view| view.dim().1).collect();
        assert_eq!(sizes, [16, 11, 8, 8, 8]);
        // Brightness tells the views apart, whatever they show.
        let mark = |scale, jitter| ViewConfig { scale, jitter, ..ViewConfig::crop_and_flip(4) };
        let dark = ColorJitter::NONE;
        let crop = MultiCrop {
            global1: ViewConfig { solarize: 1.0, ..mark((1.0, 1.0), dark) },
            global2: mark((1.0, 1.0), dark),
            local: ViewConfig { solarize: 1.0, grayscale: 1.0, ..mark((0.5, 0.5), dark) },
            ..crop
        };
        let red = Array3::from_shape_fn((9, 9, 3), |(.., c)| if c == 0 { 255 } else { 0 });
        let views = crop.views(red.view(), &mut view_rng(0, 0, 0)).unwrap();
        let pixel = |view: &Array3<f32>| [0, 1, 2].map(|c| (view[[c, 1, 1]] * 255.0) as u8);
        let expected = [[0, 0, 0], [255, 0, 0], [76; 3], [76; 3], [76; 3]];
        assert_eq!(views.iter().map(pixel).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_same_numbers_give_the_same_views_and_others_others() {
        let first = views(small(), 1, 2, 3);
        assert_eq!(first, views(small(), 1, 2, 3));
        for (seed, epoch, index) in [(0, 2, 3), (1, 0, 3), (1, 2, 0), (3, 2, 1)] {
            assert_ne!(first, views(small(), seed, epoch, index));
        }
        assert!(first[2..].windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn the_generator_is_keyed_by_the_hash() {
        // sha256(b"featlab views" + bytes of 1, 2, 3 as u64 LE), by python's hashlib.
        let key = "e6f6b69d6f949fc57795857c9bcabeed2997464ac8907c04b3922fee7db6af80";
        let seed: Vec<String> = view_rng(1, 2, 3).get_seed().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(seed.concat(), key);
    }

    #[test]
    fn published_parameters() {
        let (dino, swav) = (MultiCrop::dino(), MultiCrop::swav());
        assert_eq!(MultiCrop::default(), dino);
        let summary = |view: ViewConfig| (view.size, view.scale, view.blur, view.solarize);
        assert_eq!(summary(dino.global1), (224, (0.4, 1.0), 1.0, 0.0));
        assert_eq!(summary(dino.global2), (224, (0.4, 1.0), 0.1, 0.2));
        assert_eq!((summary(dino.local), dino.locals), ((96, (0.05, 0.4), 0.5, 0.0), 8));
        assert_eq!(summary(swav.global1), (224, (0.14, 1.0), 0.5, 0.0));
        assert_eq!((summary(swav.local), swav.locals), ((96, (0.05, 0.14), 0.5, 0.0), 6));
        assert!(dino.check().is_ok() && swav.check().is_ok());
    }

    #[test]
    fn what_cannot_be_is_said() {
        let mut rng = view_rng(0, 0, 0);
        let wrong = MultiCrop { std: [1.0, 0.0, 1.0], ..small() };
        assert!(wrong.views(image().view(), &mut rng).unwrap_err().is_usage());
        for shape in [(0, 3, 3), (3, 0, 3), (3, 3, 4)] {
            let error = small().views(Array3::zeros(shape).view(), &mut rng).unwrap_err();
            assert!(error.is_sample() && error.to_string().contains("at least one pixel of 3"), "{error}");
        }
    }

    #[test]
    fn it_is_written_whole_and_unknown_fields_are_refused() {
        let text = serde_json::to_string(&small()).unwrap();
        assert_eq!(serde_json::from_str::<MultiCrop>(&text).unwrap(), small());
        assert!(serde_json::from_str::<MultiCrop>(&text.replace("locals", "small")).is_err());
    }
}
