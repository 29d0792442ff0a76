//! One random view of a picture, as supervised training looks at it.

use ndarray::{Array3, ArrayView3};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::ViewConfig;
use crate::normalise::Normalise;
use crate::{Error, Result};

/// The recipe of a single view.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SingleView {
    /// What may happen to it.
    pub view: ViewConfig,
    /// Mean of red, green and blue, of pixels in `[0, 1]`.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue, of pixels in `[0, 1]`.
    pub std: [f32; 3],
}

impl SingleView {
    /// Crop and flip, with the statistics of ImageNet.
    #[must_use]
    pub fn crop_and_flip(size: usize) -> Self {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        Self { view: ViewConfig::crop_and_flip(size), mean, std }
    }

    /// Whether the recipe can be followed.
    ///
    /// # Errors
    /// With [`Error::is_usage`], naming the field and what it holds.
    pub fn check(&self) -> Result<()> {
        self.view.check()?;
        Normalise::new(self.mean, self.std).map(|_| ())
    }

    /// A view of `image` `[h, w, 3]`, `[3, size, size]` and normalised.
    ///
    /// # Errors
    /// As [`SingleView::check`], or with [`Error::is_sample`] if the image has no pixels or not 3 channels.
    ///
    /// ```
    /// use dataset::augment::{SingleView, view_rng};
    ///
    /// let image = ndarray::Array3::from_elem((20, 30, 3), 128);
    /// let view = SingleView::crop_and_flip(16).view(image.view(), &mut view_rng(0, 0, 0))?;
    /// assert_eq!(view.dim(), (3, 16, 16));
    /// # Ok::<(), dataset::Error>(())
    /// ```
    pub fn view(&self, image: ArrayView3<'_, u8>, rng: &mut impl Rng) -> Result<Array3<f32>> {
        self.check()?;
        let (h, w, channels) = image.dim();
        if h == 0 || w == 0 || channels != 3 {
            let reason = format!("has {channels} channels; expected at least one pixel of 3");
            return Err(Error::Unfit { id: "to augment".into(), size: (h, w), reason });
        }
        let draw = self.view.draw(rng, h, w);
        Ok(Normalise::new(self.mean, self.std)?.apply(self.view.apply(image, &draw).view()))
    }
}
