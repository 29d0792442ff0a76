//! Resampling pixels into a [`Frame`], to the pixel like Pillow.
//!
//! *Nearest*: output pixel `i` of `m` takes source pixel `floor((i + ½) · n / m)`. It is what the reference uses, for images
//! as well as labels. *Bilinear* and *bicubic* are antialiased when shrinking: the kernel is as wide as the
//! scale, so every source pixel counts. They are not torch's `interpolate`; that is the crate `resample`.

use std::fmt;
use std::str::FromStr;

use ndarray::{Array, Array3, ArrayView, ArrayView3, Axis, RemoveAxis};
use serde::{Deserialize, Serialize};

use crate::antialias::{Kernel, resample};
use crate::frame::Frame;
use crate::word::{self, Words};
use crate::{Error, Result};

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

    /// A picture `[h, w, 3]` stretched to `size`, `(h, w)`.
    ///
    /// # Panics
    /// If one of the two has no pixel.
    #[must_use]
    pub fn stretched(self, picture: ArrayView3<'_, u8>, size: (usize, usize)) -> Array3<u8> {
        self.image(picture, Frame::stretch(size))
    }

    /// `[h, w, 3]` to the frame's pixels, `[.., .., 3]`.
    pub(crate) fn image(self, image: ArrayView3<'_, u8>, frame: Frame) -> Array3<u8> {
        match self {
            Self::Nearest => nearest(image, frame),
            Self::Bilinear => resample(image, frame, Kernel::Triangle),
            Self::Bicubic => resample(image, frame, Kernel::Cubic),
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

/// `[h, w, ..]` to the frame's pixels, each pixel a copy of one source pixel.
pub(crate) fn nearest<T: Copy, D: RemoveAxis>(picture: ArrayView<'_, T, D>, frame: Frame) -> Array<T, D> {
    let Frame { resized, offset, size } = frame;
    let rows = sources(picture.len_of(Axis(0)), resized.0, offset.0, size.0);
    let cols = sources(picture.len_of(Axis(1)), resized.1, offset.1, size.1);
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
    fn every_filter_takes_a_sliver() {
        let sliver = Array3::from_elem((1, 60_000, 3), 5);
        for resize in [Resize::Nearest, Resize::Bilinear, Resize::Bicubic] {
            let pixels = resize.image(sliver.view(), Frame::center((1, 60_000), 224));
            assert_eq!(pixels, Array3::from_elem((224, 224, 3), 5));
        }
    }
}
