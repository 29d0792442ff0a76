//! Where an input lies in a resized picture: all whole-number rules of resizing and cropping.
//!
//! `shorter side → res, longer side → floor(res · long / short)`, then the centre `res x res`, at
//! `round((size − res) / 2)` with ties to even: torchvision's `Resize(res)` and `CenterCrop(res)`. It moves no pixels.

use crate::CropBox;

/// A window of `size` pixels in a picture resized to `resized`; pairs are `(h, w)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) resized: (usize, usize),
    pub(crate) offset: (usize, usize),
    pub(crate) size: (usize, usize),
}

impl Frame {
    /// The shorter side becomes `res`; the centre is kept.
    pub(crate) fn center((h, w): (usize, usize), res: usize) -> Self {
        let longer = |long: usize, short: usize| (res as f64 * long as f64 / short as f64) as usize;
        let resized = if w <= h { (longer(h, w), res) } else { (res, longer(w, h)) };
        let offset = (center_offset(resized.0, res), center_offset(resized.1, res));
        Self { resized, offset, size: (res, res) }
    }

    /// The sides become `size`, whatever the aspect; everything is kept.
    pub(crate) fn stretch(size: (usize, usize)) -> Self {
        Self { resized: size, offset: (0, 0), size }
    }

    /// The part of a picture of `(h, w)` pixels that the window shows, to the nearest pixel.
    pub(crate) fn part(&self, (h, w): (usize, usize)) -> CropBox {
        let axis = |n: usize, resized: usize, from: usize, length: usize| {
            let at = |i: usize| (i as f64 * n as f64 / resized as f64).round() as usize;
            let first = at(from).min(n - 1);
            (first, at(from + length).clamp(first + 1, n) - first)
        };
        let (y, h) = axis(h, self.resized.0, self.offset.0, self.size.0);
        let (x, w) = axis(w, self.resized.1, self.offset.1, self.size.1);
        CropBox { x, y, w, h }
    }
}

/// First of the `part` pixels in the middle of `whole`, as Python rounds: ties to even.
pub(crate) fn center_offset(whole: usize, part: usize) -> usize {
    ((whole - part) as f64 / 2.0).round_ties_even() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_is_rounded_down() {
        assert_eq!(Frame::center((360, 480), 224).resized, (224, 298)); // 298.67
        assert_eq!(Frame::center((481, 321), 224).resized, (335, 224)); // 335.65
        assert_eq!(Frame::center((7, 7), 5), Frame::stretch((5, 5)));
    }

    #[test]
    fn the_centre_rounds_ties_to_even() {
        assert_eq!([4, 5, 6, 7, 8, 9].map(|whole| center_offset(whole, 4)), [0, 0, 1, 2, 2, 2]);
    }

    #[test]
    fn the_window_lies_inside() {
        for size in [(1, 1), (1, 9), (9, 1), (31, 64), (64, 31), (100, 101)] {
            for res in [1, 2, 7, 224] {
                let frame = Frame::center(size, res);
                let Frame { resized, offset, .. } = frame;
                let part = frame.part(size);
                assert!(part.w > 0 && part.h > 0 && part.y + part.h <= size.0 && part.x + part.w <= size.1);
                assert!(resized.0.min(resized.1) == res, "{size:?} {res}");
                assert!(offset.0 + res <= resized.0 && offset.1 + res <= resized.1, "{size:?} {res}");
            }
        }
    }

    #[test]
    fn the_part_is_what_the_window_shows() {
        // 360 x 480 becomes 320 x 426, of which columns 53 to 373 are kept: 59.7 to 420.3 of the picture.
        assert_eq!(Frame::center((360, 480), 320).part((360, 480)), CropBox { x: 60, y: 0, w: 360, h: 360 });
        assert_eq!(Frame::stretch((8, 16)).part((5, 7)), CropBox { x: 0, y: 0, w: 7, h: 5 });
    }
}
