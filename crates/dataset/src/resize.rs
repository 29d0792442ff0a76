//! Resampling pixels into a [`Frame`], to the pixel like Pillow.
//!
//! *Nearest*: output pixel `i` of `m` takes source pixel `floor((i + ½) · n / m)`. It is what the reference uses, for images
//! as well as labels. *Bilinear* and *bicubic* are antialiased when shrinking: the kernel is as wide as the
//! scale, so every source pixel counts. They are not torch's `interpolate`; that is the crate `resample`.

use std::fmt;
use std::str::FromStr;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use ndarray::{Array, Array3, ArrayView, ArrayView3, Axis, RemoveAxis, s};
use serde::{Deserialize, Serialize};

use crate::frame::Frame;
use crate::word::{self, Words};
use crate::{Error, Result};

/// Pixels of a resized picture before its centre is cut out; more is refused.
const MAX_PIXELS: usize = 1 << 27;

/// How images are resampled; labels are always taken by [`Resize::Nearest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// One source pixel each, as STEGO does it.
    #[default]
    Nearest,
    /// Triangle kernel, antialiased.
    Bilinear,
    /// Cubic kernel with a = −½, antialiased.
    Bicubic,
}

impl Resize {
    const WORDS: &'static Words<Self> =
        &[("nearest", Self::Nearest), ("bilinear", Self::Bilinear), ("bicubic", Self::Bicubic)];

    /// `[h, w, 3]` to `[res, res, 3]`; the error is the reason why not.
    pub(crate) fn image(self, image: ArrayView3<'_, u8>, frame: Frame) -> std::result::Result<Array3<u8>, String> {
        match self {
            Self::Nearest => Ok(nearest(image, frame)),
            Self::Bilinear => antialiased(image, frame, FilterType::Bilinear),
            Self::Bicubic => antialiased(image, frame, FilterType::CatmullRom),
        }
    }
}

impl FromStr for Resize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        word::read("resize", Self::WORDS, text)
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        word::write(f, Self::WORDS, self)
    }
}

/// `[h, w, ..]` to `[res, res, ..]`, each pixel a copy of one source pixel.
pub(crate) fn nearest<T: Copy, D: RemoveAxis>(picture: ArrayView<'_, T, D>, frame: Frame) -> Array<T, D> {
    let axis = |axis, resized, offset| sources(picture.len_of(Axis(axis)), resized, offset, frame.res);
    let (rows, cols) = (axis(0, frame.resized.0, frame.offset.0), axis(1, frame.resized.1, frame.offset.1));
    picture.select(Axis(0), &rows).select(Axis(1), &cols)
}

/// The source pixels, out of `n`, of `count` output pixels from `first` on, out of `resized`.
///
/// The position is a running sum as in Pillow: its rounding decides on which side of a pixel border a sample falls.
fn sources(n: usize, resized: usize, first: usize, count: usize) -> Vec<usize> {
    let scale = n as f64 / resized as f64;
    let positions = std::iter::successors(Some(0.5 * scale), |at| Some(at + scale));
    positions.skip(first).take(count).map(|at| (at as usize).min(n - 1)).collect()
}

fn antialiased(
    image: ArrayView3<'_, u8>,
    frame: Frame,
    filter: FilterType,
) -> std::result::Result<Array3<u8>, String> {
    let ((h, w, _), (rh, rw)) = (image.dim(), frame.resized);
    if rh.saturating_mul(rw) > MAX_PIXELS {
        return Err(format!("would become {rw} x {rh} pixels before its centre is cut out, which is too large"));
    }
    let side = |pixels: usize| u32::try_from(pixels).map_err(|_| format!("has a side of {pixels} pixels"));
    let pixels = image.as_standard_layout();
    let bytes = pixels.as_slice().expect("standard layout is contiguous");
    let source =
        ImageRef::new(side(w)?, side(h)?, bytes, PixelType::U8x3).map_err(|error| error.to_string())?;
    let mut resized = Image::new(side(rw)?, side(rh)?, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize(&source, &mut resized, &options).map_err(|error| error.to_string())?;
    let resized = Array3::from_shape_vec((rh, rw, 3), resized.into_vec()).expect("three bytes a pixel");
    let ((top, left), res) = (frame.offset, frame.res);
    Ok(resized.slice(s![top..top + res, left..left + res, ..]).to_owned()) // [res, res, 3]
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn nearest_reads_the_pixel_under_the_centre() {
        assert_eq!(sources(4, 2, 0, 2), [1, 3]);
        assert_eq!(sources(5, 3, 0, 3), [0, 2, 4]);
        assert_eq!(sources(2, 5, 0, 5), [0, 0, 1, 1, 1]);
        assert_eq!(sources(10, 5, 2, 2), [5, 7]);
    }

    #[test]
    fn nearest_keeps_a_picture_of_the_right_size() {
        let picture = array![[1, 2, 3], [4, 5, 6], [7, 8, 9]];
        assert_eq!(nearest(picture.view(), Frame::center((3, 3), 3)), picture);
        assert_eq!(nearest(picture.view(), Frame::center((3, 3), 1)), array![[5]]);
    }

    #[test]
    fn shrinking_with_antialias_averages_and_a_flat_picture_stays_flat() {
        let stripes = Array3::from_shape_fn((16, 16, 3), |(_, x, _)| if x % 2 == 0 { 0 } else { 200 });
        for resize in [Resize::Bilinear, Resize::Bicubic] {
            let small = resize.image(stripes.view(), Frame::stretch(4)).unwrap();
            assert!(small.iter().all(|v| v.abs_diff(100) <= 4), "{resize}: {small}");
            let flat = Array3::from_elem((9, 5, 3), 77);
            assert_eq!(
                resize.image(flat.view(), Frame::center((9, 5), 8)).unwrap(),
                Array3::from_elem((8, 8, 3), 77)
            );
        }
        assert_eq!(
            Resize::Nearest.image(stripes.view(), Frame::stretch(4)).unwrap(),
            Array3::from_elem((4, 4, 3), 0)
        );
    }

    #[test]
    fn a_sliver_is_refused_instead_of_filling_the_memory() {
        let sliver = Array3::zeros((1, 60_000, 3));
        let frame = Frame::center((1, 60_000), 224);
        assert!(Resize::Bicubic.image(sliver.view(), frame).unwrap_err().contains("13440000 x 224"));
        assert_eq!(Resize::Nearest.image(sliver.view(), frame).unwrap().dim(), (224, 224, 3));
    }
}
