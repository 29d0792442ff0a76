//! Which parts of the original picture become views: one, five fixed ones, or five at hashed places.
//!
//! A crop is `floor(h · ratio) x floor(w · ratio)` original pixels, cut before anything is resized, in STEGO's order: top
//! left, top right, bottom left, bottom right, centre. Random places depend on `(sample index, crop)` only. The reference
//! stores its crops as JPEG files; nothing is compressed here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::frame::center_offset;
use crate::python_hash::tuple_hash;
use crate::word::{self, Words};
use crate::{Error, Result};

/// What of a picture is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    /// The centre square of the picture.
    #[default]
    Center,
    /// The centre squares of four corners and the middle: five views.
    Five,
    /// The centre squares of five parts at places hashed from the sample's index: five views.
    Random,
    /// The whole picture, squeezed into a square.
    None,
}

impl Crop {
    const WORDS: &'static Words<Self> =
        &[("center", Self::Center), ("five", Self::Five), ("random", Self::Random), ("none", Self::None)];
}

impl FromStr for Crop {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        word::read("crop", Self::WORDS, text)
    }
}

impl fmt::Display for Crop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        word::write(f, Self::WORDS, self)
    }
}

/// A rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub w: usize,
    /// Rows.
    pub h: usize,
}

/// The boxes of [`Crop::Five`] in a picture of `w x h` pixels, `ratio` in `(0, 1]`.
///
/// Top left, top right, bottom left, bottom right, centre, each `floor(w · ratio) x floor(h · ratio)`.
///
/// ```
/// let boxes = dataset::five_crop_boxes(481, 321, 0.5);
/// assert_eq!((boxes[3].x, boxes[3].y, boxes[3].w, boxes[3].h), (241, 161, 240, 160));
/// assert_eq!((boxes[4].x, boxes[4].y), (120, 80)); // 120.5, 80.5: ties go to even
/// ```
#[must_use]
pub fn five_crop_boxes(w: usize, h: usize, ratio: f64) -> [CropBox; 5] {
    let (cw, ch) = crop_size(w, h, ratio);
    let (right, bottom) = (w - cw, h - ch);
    let middle = (center_offset(w, cw), center_offset(h, ch));
    [(0, 0), (right, 0), (0, bottom), (right, bottom), middle].map(|(x, y)| CropBox { x, y, w: cw, h: ch })
}

/// The boxes of [`Crop::Random`] for the sample `index`; `None` if a crop would fill the picture's width or height.
pub(crate) fn random_crop_boxes(index: u64, w: usize, h: usize, ratio: f64) -> Option<[CropBox; 5]> {
    let (cw, ch) = crop_size(w, h, ratio);
    if cw == w || ch == h {
        return None;
    }
    let place = |crop, axis, room: usize| tuple_hash(&[index, crop, axis]).rem_euclid(room as i64) as usize;
    Some([0, 1, 2, 3, 4].map(|j| CropBox { x: place(j, 1, w - cw), y: place(j, 0, h - ch), w: cw, h: ch }))
}

fn crop_size(w: usize, h: usize, ratio: f64) -> (usize, usize) {
    let part = |size: usize| ((size as f64 * ratio) as usize).min(size);
    (part(w), part(h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_crops_cover_the_corners() {
        let boxes = five_crop_boxes(7, 5, 0.5).map(|b| (b.x, b.y, b.w, b.h));
        assert_eq!(boxes, [(0, 0, 3, 2), (4, 0, 3, 2), (0, 3, 3, 2), (4, 3, 3, 2), (2, 2, 3, 2)]);
        assert!(five_crop_boxes(7, 5, 1.0).iter().all(|b| (b.x, b.y, b.w, b.h) == (0, 0, 7, 5)));
    }

    #[test]
    fn random_crops_are_where_python_puts_them() {
        // Python 3.11: [(hash((3, j, 1)) % 240, hash((3, j, 0)) % 180) for j in range(5)]
        let boxes = random_crop_boxes(3, 480, 360, 0.5).unwrap();
        assert_eq!(boxes.map(|b| (b.x, b.y)), [(90, 36), (45, 51), (129, 143), (98, 36), (54, 0)]);
        assert!(boxes.iter().all(|b| (b.w, b.h) == (240, 180)));
    }

    #[test]
    fn random_crops_need_room() {
        assert_eq!(random_crop_boxes(0, 10, 10, 1.0), None);
        assert_eq!(random_crop_boxes(0, 10, 1, 1.0), None);
    }
}
