//! Where a square input lies in a resized picture: all whole-number rules of resizing and cropping.
//!
//! `shorter side → res, longer side → floor(res · long / short)`, then the centre `res x res`, at
//! `round((size − res) / 2)` with ties to even: torchvision's `Resize(res)` and `CenterCrop(res)`. It moves no pixels.

/// A window of `res x res` pixels in a picture resized to `resized`; pairs are `(h, w)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) resized: (usize, usize),
    pub(crate) offset: (usize, usize),
    pub(crate) res: usize,
}

impl Frame {
    /// The shorter side becomes `res`; the centre is kept.
    pub(crate) fn center((h, w): (usize, usize), res: usize) -> Self {
        let longer = |long: usize, short: usize| (res as f64 * long as f64 / short as f64) as usize;
        let resized = if w <= h { (longer(h, w), res) } else { (res, longer(w, h)) };
        Self { resized, offset: (center_offset(resized.0, res), center_offset(resized.1, res)), res }
    }

    /// Both sides become `res`, whatever the aspect; everything is kept.
    pub(crate) fn stretch(res: usize) -> Self {
        Self { resized: (res, res), offset: (0, 0), res }
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
        assert_eq!(Frame::center((7, 7), 5), Frame::stretch(5));
    }

    #[test]
    fn the_centre_rounds_ties_to_even() {
        assert_eq!([4, 5, 6, 7, 8, 9].map(|whole| center_offset(whole, 4)), [0, 0, 1, 2, 2, 2]);
    }

    #[test]
    fn the_window_lies_inside() {
        for size in [(1, 1), (1, 9), (9, 1), (31, 64), (64, 31), (100, 101)] {
            for res in [1, 2, 7, 224] {
                let Frame { resized, offset, .. } = Frame::center(size, res);
                assert!(resized.0.min(resized.1) == res, "{size:?} {res}");
                assert!(offset.0 + res <= resized.0 && offset.1 + res <= resized.1, "{size:?} {res}");
            }
        }
    }
}
