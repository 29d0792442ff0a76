//! One random view: what may happen to a picture, what does happen, and the pixels that come of it.
//!
//! Crop, flip, jitter, grey, blur, solarise, in this order. A [`ViewConfig`] is the recipe, a [`Draw`] one outcome of its
//! dice; only drawing is random, and carrying a draw out is the arithmetic of Pillow and torchvision.

use ndarray::{Array3, ArrayView3};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::crop::between;
use super::{Adjustment, ColorJitter, RandomResizedCrop, flip, gaussian_blur, grayscale, solarize};
use crate::{CropBox, Error, Resize, Result};

/// Bytes from this one on are inverted.
const SOLARIZE: u8 = 128;

/// Largest blur in pixels that a configuration may name.
const MAX_BLUR: f64 = 1000.0;

/// Widest and narrowest parts that a configuration may name.
const MAX_RATIO: f64 = 1000.0;

/// The recipe of a random view; probabilities are in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    /// Side of the view in pixels.
    pub size: usize,
    /// Smallest and largest part of the picture's area, in `(0, 1]`.
    pub scale: (f64, f64),
    /// Smallest and largest aspect of the part, width over height.
    pub ratio: (f64, f64),
    /// How the part is resized.
    pub interpolation: Resize,
    /// Probability of mirroring left to right.
    pub flip: f64,
    /// Strengths of the colour jitter.
    pub jitter: ColorJitter,
    /// Probability of the colour jitter.
    pub jitter_probability: f64,
    /// Probability of turning grey.
    pub grayscale: f64,
    /// Probability of the blur.
    pub blur: f64,
    /// Smallest and largest standard deviation of the blur, in pixels of the view.
    pub blur_radius: (f64, f64),
    /// Probability of inverting the bright half of the bytes.
    pub solarize: f64,
}

impl ViewConfig {
    /// Crop and flip only, as supervised training does it: 8 % to all of the area, bilinear, mirrored half of the time.
    #[must_use]
    pub fn crop_and_flip(size: usize) -> Self {
        Self {
            size,
            scale: (0.08, 1.0),
            ratio: RandomResizedCrop::RATIO,
            interpolation: Resize::Bilinear,
            flip: 0.5,
            jitter: ColorJitter::NONE,
            jitter_probability: 0.0,
            grayscale: 0.0,
            blur: 0.0,
            blur_radius: (0.1, 2.0),
            solarize: 0.0,
        }
    }

    /// The same recipe with blur radii times `factor`.
    ///
    /// Published radii are for views of 224 pixels; in smaller ones they erase everything, unless scaled by `size / 224`.
    /// Nothing else does this by itself.
    ///
    /// ```
    /// use dataset::augment::MultiCrop;
    ///
    /// let small = MultiCrop::dino().local.scaled_blur(0.5);
    /// assert_eq!(small.blur_radius, (0.05, 1.0));
    /// ```
    #[must_use]
    pub fn scaled_blur(self, factor: f64) -> Self {
        let (low, high) = self.blur_radius;
        Self { blur_radius: (low * factor, high * factor), ..self }
    }

    /// Whether the recipe can be followed.
    ///
    /// # Errors
    /// With [`Error::is_usage`], naming the field and what it holds.
    pub fn check(&self) -> Result<()> {
        let invalid = |option, reason| Err(Error::InvalidOption { option, reason });
        if self.size == 0 {
            return invalid("view size", "must be at least 1, got 0".into());
        }
        check_range("view scale", self.scale, true, 1.0)?;
        check_range("view ratio", self.ratio, true, MAX_RATIO)?;
        check_range("blur radius", self.blur_radius, false, MAX_BLUR)?;
        for (option, probability) in [
            ("flip probability", self.flip),
            ("jitter probability", self.jitter_probability),
            ("grayscale probability", self.grayscale),
            ("blur probability", self.blur),
            ("solarize probability", self.solarize),
        ] {
            if !(0.0..=1.0).contains(&probability) {
                return invalid(option, format!("must be from 0 to 1, got {probability}"));
            }
        }
        self.jitter.check()
    }

    /// Throws the dice for a picture of `h x w` pixels, each at least 1.
    pub fn draw(&self, rng: &mut impl Rng, h: usize, w: usize) -> Draw {
        let part = self.crop().sample(rng, h, w);
        let flip = happens(rng, self.flip);
        let jitter = if happens(rng, self.jitter_probability) { self.jitter.sample(rng) } else { Vec::new() };
        let grayscale = happens(rng, self.grayscale);
        let blur = happens(rng, self.blur).then(|| between(rng, self.blur_radius));
        Draw { part, flip, jitter, grayscale, blur, solarize: happens(rng, self.solarize) }
    }

    /// `[h, w, 3]` to the pixels `[size, size, 3]` of the view that `draw` describes.
    ///
    /// # Panics
    /// If the image has not 3 channels or does not hold `draw.part`.
    #[must_use]
    pub fn apply(&self, image: ArrayView3<'_, u8>, draw: &Draw) -> Array3<u8> {
        let mut view = self.crop().apply(image, draw.part);
        if draw.flip {
            flip(&mut view);
        }
        draw.jitter.iter().for_each(|step| step.apply(&mut view));
        if draw.grayscale {
            grayscale(&mut view);
        }
        if let Some(radius) = draw.blur {
            gaussian_blur(&mut view, radius);
        }
        if draw.solarize {
            solarize(&mut view, SOLARIZE);
        }
        view
    }

    fn crop(&self) -> RandomResizedCrop {
        let Self { size, scale, ratio, interpolation, .. } = *self;
        RandomResizedCrop { size, scale, ratio, interpolation }
    }
}

/// What happens to one picture to become one view.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// The part that is taken.
    pub part: CropBox,
    /// Whether it is mirrored.
    pub flip: bool,
    /// Steps of the colour jitter, in order.
    pub jitter: Vec<Adjustment>,
    /// Whether it turns grey.
    pub grayscale: bool,
    /// Standard deviation of the blur in pixels.
    pub blur: Option<f64>,
    /// Whether bright bytes are inverted.
    pub solarize: bool,
}

/// True with `probability`; always for 1, never for 0.
fn happens(rng: &mut impl Rng, probability: f64) -> bool {
    rng.random::<f64>() < probability
}

/// An error unless `low <= high <= most`, both at least 0, and above it if `positive`.
fn check_range(option: &'static str, (low, high): (f64, f64), positive: bool, most: f64) -> Result<()> {
    if low <= high && high <= most && (low > 0.0 || low == 0.0 && !positive) {
        return Ok(());
    }
    let least = if positive { "above 0" } else { "at least 0" };
    let reason = format!("must rise, be {least} and at most {most}, got {low} to {high}");
    Err(Error::InvalidOption { option, reason })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::augment::MultiCrop;

    fn draws(config: ViewConfig, n: usize) -> Vec<Draw> {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        (0..n).map(|_| config.draw(&mut rng, 240, 320)).collect()
    }

    #[test]
    fn everything_happens_as_often_as_configured() {
        let config = ViewConfig { blur: 0.5, ..MultiCrop::dino().global2 };
        let draws = draws(config, 10_000);
        for (of, probability) in [
            ((|d| d.flip) as fn(&Draw) -> bool, 0.5),
            (|d| !d.jitter.is_empty(), 0.8),
            (|d| d.grayscale, 0.2),
            (|d| d.blur.is_some(), 0.5),
            (|d| d.solarize, 0.2),
        ] {
            let share = draws.iter().filter(|draw| of(draw)).count() as f64 / 10_000.0;
            assert!((share - probability).abs() < 0.02, "{share} instead of {probability}");
        }
        let radii: Vec<f64> = draws.iter().filter_map(|draw| draw.blur).collect();
        assert!(radii.iter().all(|radius| (0.1..2.0).contains(radius)));
        assert!((radii.iter().sum::<f64>() / radii.len() as f64 - 1.05).abs() < 0.03);
    }

    #[test]
    fn zero_is_never_and_one_is_always() {
        let never = ViewConfig { flip: 0.0, ..ViewConfig::crop_and_flip(8) };
        let draw = &draws(never, 1)[0];
        let nothing = Draw {
            part: draw.part,
            flip: false,
            jitter: vec![],
            grayscale: false,
            blur: None,
            solarize: false,
        };
        assert!(draws(never, 500).iter().all(|draw| Draw { part: nothing.part, ..draw.clone() } == nothing));
        let always = ViewConfig { flip: 1.0, grayscale: 1.0, blur: 1.0, solarize: 1.0, ..never };
        let all = |draw: &Draw| draw.flip && draw.grayscale && draw.blur.is_some() && draw.solarize;
        assert!(draws(always, 500).iter().all(all));
    }

    #[test]
    fn any_picture_gives_a_view_of_the_size() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let config = ViewConfig { size: 9, blur: 1.0, solarize: 0.5, ..MultiCrop::dino().local };
        for (h, w) in [(1, 1), (1, 2000), (2000, 1), (2, 3), (9, 9), (50, 40)] {
            let image = Array3::from_elem((h, w, 3), 90);
            for _ in 0..20 {
                let draw = config.draw(&mut rng, h, w);
                assert_eq!(config.apply(image.view(), &draw).dim(), (9, 9, 3));
            }
        }
    }

    #[test]
    fn recipes_that_cannot_be_are_usage_errors_that_name_the_field() {
        let good = ViewConfig::crop_and_flip(8);
        assert!(good.check().is_ok());
        let strong = ColorJitter { hue: 0.6, ..ColorJitter::NONE };
        for (config, word) in [
            (ViewConfig { size: 0, ..good }, "view size"),
            (ViewConfig { scale: (0.0, 1.0), ..good }, "view scale"),
            (ViewConfig { scale: (0.5, 1.1), ..good }, "view scale"),
            (ViewConfig { ratio: (2.0, 1.0), ..good }, "view ratio"),
            (ViewConfig { ratio: (f64::NAN, 1.0), ..good }, "view ratio"),
            (ViewConfig { blur_radius: (-1.0, 1.0), ..good }, "blur radius"),
            (ViewConfig { flip: 1.5, ..good }, "flip probability"),
            (ViewConfig { solarize: f64::NAN, ..good }, "solarize probability"),
            (ViewConfig { jitter: strong, ..good }, "jitter hue"),
        ] {
            let error = config.check().unwrap_err();
            assert!(error.is_usage() && error.to_string().starts_with(word), "{error}");
        }
    }

    #[test]
    fn configurations_are_written_whole_and_unknown_fields_are_refused() {
        let config = MultiCrop::dino().local;
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ViewConfig>(&text).unwrap(), config);
        let unknown = text.replace("\"flip\"", "\"mirror\"");
        assert!(serde_json::from_str::<ViewConfig>(&unknown).is_err());
    }
}
