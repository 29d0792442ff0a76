//! From a sample to what a network reads: crop, resize, normalise.
//!
//! `image = ((u8 / 255) − mean) / std` on the pixels of a [`Frame`]; the label map takes the nearest pixels of the same
//! frame. Every field of [`Transform`] changes the features, so all of it is part of the cache key. Nothing here
//! is random: a random crop's place is a function of the sample's number.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, s};
use serde::{Deserialize, Serialize};

use crate::crop::{CropBox, five_crop_boxes, random_crop_boxes};
use crate::frame::Frame;
use crate::normalise::Normalise;
use crate::resize::nearest;
use crate::{Crop, Error, Resize, Result, Sample};

/// How samples become network inputs of `res x res` pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transform {
    /// Side of the input in pixels.
    pub res: usize,
    /// Which parts of the picture.
    pub crop: Crop,
    /// Sides of [`Crop::Five`] and [`Crop::Random`] as a fraction of the picture's, in `(0, 1]`.
    pub crop_ratio: f64,
    /// How images are resampled.
    pub resize: Resize,
    /// Mean of red, green and blue, of pixels in `[0, 1]`.
    pub mean: [f32; 3],
    /// Standard deviation of red, green and blue, of pixels in `[0, 1]`.
    pub std: [f32; 3],
}

impl Default for Transform {
    /// STEGO's training view: 224 pixels, centre, nearest, statistics of ImageNet.
    fn default() -> Self {
        Self {
            res: 224,
            crop: Crop::Center,
            crop_ratio: 0.5,
            resize: Resize::Nearest,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

/// One input of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Number of the crop, `0..5`; 0 for a single view.
    pub crop: u8,
    /// `[3, res, res]`, normalised.
    pub image: Array3<f32>,
    /// `[res, res]` class indices; 255 = ignore.
    pub label: Option<Array2<u8>>,
}

impl Transform {
    /// Number of views that one sample gives: 1 or 5.
    #[must_use]
    pub fn views(&self) -> usize {
        match self.crop {
            Crop::Center | Crop::None => 1,
            Crop::Five | Crop::Random => 5,
        }
    }

    /// All views of `sample`, in the order of their crops.
    ///
    /// * `index`: the sample's number in its data set, from which the places of [`Crop::Random`] follow.
    ///
    /// # Errors
    /// If a field of the transform cannot be, or with [`Error::is_sample`] if the picture cannot be cut so.
    pub fn apply(&self, index: u64, sample: &Sample) -> Result<Vec<View>> {
        self.check()?;
        let normalise = Normalise::new(self.mean, self.std)?;
        let view = |(crop, part): (usize, CropBox)| {
            let image = cut(sample.image.view(), part);
            let frame = self.frame((part.h, part.w));
            let pixels = self.resize.image(image, frame);
            let label = sample.label.as_ref().map(|label| nearest(cut_label(label.view(), part), frame));
            View { crop: crop as u8, image: normalise.apply(pixels.view()), label }
        };
        Ok(self.boxes(index, sample)?.into_iter().enumerate().map(view).collect())
    }

    /// The pixels `[res, res, 3]` of the whole picture's view, before normalisation.
    ///
    /// For showing: the view of [`Crop::Center`] (of [`Crop::None`] if that is the crop), also where crops are cut.
    ///
    /// # Errors
    /// As [`Transform::apply`].
    pub fn image_u8(&self, sample: &Sample) -> Result<Array3<u8>> {
        self.check()?;
        let whole = whole(sample)?;
        Ok(self.resize.image(sample.image.view(), self.frame((whole.h, whole.w))))
    }

    /// The part of a picture of `(h, w)` pixels that [`Transform::image_u8`] shows, to the nearest pixel.
    #[must_use]
    pub fn seen_part(&self, size: (usize, usize)) -> CropBox {
        self.frame(size).part(size)
    }

    /// Pixels `[h, w, 3]` as a network reads them, `[3, h, w]`.
    ///
    /// # Errors
    /// If mean or deviation cannot be.
    pub fn normalised(&self, pixels: ArrayView3<'_, u8>) -> Result<Array3<f32>> {
        Ok(Normalise::new(self.mean, self.std)?.apply(pixels))
    }

    fn check(&self) -> Result<()> {
        let invalid = |option, reason| Err(Error::InvalidOption { option, reason });
        if self.res == 0 {
            return invalid("res", "must be at least 1, got 0".into());
        }
        if !(self.crop_ratio > 0.0 && self.crop_ratio <= 1.0) {
            return invalid("crop ratio", format!("must be above 0 and at most 1, got {}", self.crop_ratio));
        }
        Normalise::new(self.mean, self.std).map(|_| ())
    }

    fn frame(&self, size: (usize, usize)) -> Frame {
        match self.crop {
            Crop::None => Frame::stretch((self.res, self.res)),
            Crop::Center | Crop::Five | Crop::Random => Frame::center(size, self.res),
        }
    }

    fn boxes(&self, index: u64, sample: &Sample) -> Result<Vec<CropBox>> {
        let whole = whole(sample)?;
        let CropBox { w, h, .. } = whole;
        let boxes = match self.crop {
            Crop::Center | Crop::None => vec![whole],
            Crop::Five => five_crop_boxes(w, h, self.crop_ratio).to_vec(),
            Crop::Random => random_crop_boxes(index, w, h, self.crop_ratio)
                .ok_or_else(|| {
                    unfit(sample, format!("has no room for random crops of ratio {}", self.crop_ratio))
                })?
                .to_vec(),
        };
        if boxes.iter().any(|part| part.w == 0 || part.h == 0) {
            return Err(unfit(sample, format!("is too small for crops of ratio {}", self.crop_ratio)));
        }
        Ok(boxes)
    }
}

fn cut(image: ArrayView3<'_, u8>, part: CropBox) -> ArrayView3<'_, u8> {
    image.slice_move(s![part.y..part.y + part.h, part.x..part.x + part.w, ..])
}

fn cut_label(label: ArrayView2<'_, u8>, part: CropBox) -> ArrayView2<'_, u8> {
    label.slice_move(s![part.y..part.y + part.h, part.x..part.x + part.w])
}

/// The box of the whole picture; a sample that was not loaded but made by hand may be empty or inconsistent.
fn whole(sample: &Sample) -> Result<CropBox> {
    let (h, w, channels) = sample.image.dim();
    if h == 0 || w == 0 || channels != 3 {
        return Err(unfit(sample, format!("has {channels} channels; expected at least one pixel of 3")));
    }
    match sample.label.as_ref().map(Array2::dim) {
        Some((lh, lw)) if (lh, lw) != (h, w) => Err(unfit(sample, format!("has a label of {lw} x {lh}"))),
        _ => Ok(CropBox { x: 0, y: 0, w, h }),
    }
}

fn unfit(sample: &Sample, reason: String) -> Error {
    let (h, w, _) = sample.image.dim();
    Error::Unfit { id: sample.id.clone(), size: (h, w), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `h x w` pixels that tell their place: red is the row, green the column, the label their sum.
    fn sample(h: usize, w: usize) -> Sample {
        let image = Array3::from_shape_fn((h, w, 3), |(y, x, c)| [y as u8, x as u8, 9][c]);
        let label = Array2::from_shape_fn((h, w), |(y, x)| (y + x) as u8);
        Sample { id: "place".into(), image, label: Some(label) }
    }

    /// Statistics that leave bytes as they are.
    fn bytes(res: usize, crop: Crop) -> Transform {
        Transform { res, crop, mean: [0.0; 3], std: [1.0 / 255.0; 3], ..Transform::default() }
    }

    #[test]
    fn image_and_label_take_the_same_pixels() {
        for crop in [Crop::Center, Crop::Five, Crop::Random, Crop::None] {
            let transform = bytes(13, crop);
            let views = transform.apply(4, &sample(40, 61)).unwrap();
            assert_eq!(views.len(), transform.views());
            for (number, view) in views.iter().enumerate() {
                assert_eq!(usize::from(view.crop), number);
                let label = view.label.as_ref().unwrap();
                for ((y, x), &sum) in label.indexed_iter() {
                    let place = (view.image[[0, y, x]] + view.image[[1, y, x]]).round();
                    assert_eq!(place, f32::from(sum), "{crop} {number} at {y}, {x}");
                }
            }
        }
    }

    #[test]
    fn a_crop_is_the_centre_view_of_the_part() {
        let whole = sample(31, 48);
        let views = bytes(10, Crop::Five).apply(0, &whole).unwrap();
        for (view, part) in views.iter().zip(five_crop_boxes(48, 31, 0.5)) {
            let part = Sample {
                id: "part".into(),
                image: cut(whole.image.view(), part).to_owned(),
                label: whole.label.as_ref().map(|label| cut_label(label.view(), part).to_owned()),
            };
            let alone = bytes(10, Crop::Center).apply(0, &part).unwrap().remove(0);
            assert_eq!((&view.image, &view.label), (&alone.image, &alone.label));
        }
    }

    #[test]
    fn normalisation_is_per_channel() {
        let transform = Transform { res: 1, ..Transform::default() };
        let image = Array3::from_shape_vec((1, 1, 3), vec![255, 0, 51]).unwrap();
        let view = transform.apply(0, &Sample { id: "dot".into(), image, label: None }).unwrap().remove(0);
        let expected = [(1.0 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225];
        for (got, want) in view.image.iter().zip(expected) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        assert_eq!(view.label, None);
    }

    #[test]
    fn what_is_shown_is_the_uncropped_view() {
        let sample = sample(20, 33);
        let shown = bytes(8, Crop::Five).image_u8(&sample).unwrap();
        let center = bytes(8, Crop::Center).apply(0, &sample).unwrap().remove(0);
        assert_eq!(shown.mapv(f32::from).permuted_axes([2, 0, 1]), center.image.mapv(f32::round));
        assert_ne!(shown, bytes(8, Crop::None).image_u8(&sample).unwrap());
    }

    #[test]
    fn transforms_that_cannot_be_are_usage_errors() {
        let wrong = [
            Transform { res: 0, ..Transform::default() },
            Transform { crop_ratio: 0.0, ..Transform::default() },
            Transform { crop_ratio: f64::NAN, ..Transform::default() },
            Transform { std: [1.0, 0.0, 1.0], ..Transform::default() },
            Transform { mean: [f32::NAN; 3], ..Transform::default() },
        ];
        for transform in wrong {
            assert!(transform.apply(0, &sample(9, 9)).unwrap_err().is_usage(), "{transform:?}");
        }
    }

    #[test]
    fn pictures_that_cannot_be_cut_are_sample_errors() {
        let cases = [
            (Transform { crop_ratio: 0.1, ..bytes(4, Crop::Five) }, sample(9, 9), "too small"),
            (Transform { crop_ratio: 1.0, ..bytes(4, Crop::Random) }, sample(9, 9), "no room"),
            (bytes(4, Crop::Center), Sample { label: None, ..sample(0, 9) }, "at least one pixel"),
            (
                bytes(4, Crop::Center),
                Sample { label: Some(Array2::zeros((2, 3))), ..sample(9, 9) },
                "label of 3 x 2",
            ),
        ];
        for (transform, sample, word) in cases {
            let error = transform.apply(0, &sample).unwrap_err();
            assert!(error.is_sample() && error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_and_missing_ones_are_the_defaults() {
        let read: Transform = serde_json::from_str(r#"{"res": 320}"#).unwrap();
        assert_eq!(read, Transform { res: 320, ..Transform::default() });
        assert!(serde_json::from_str::<Transform>(r#"{"resolution": 320}"#).is_err());
    }
}
