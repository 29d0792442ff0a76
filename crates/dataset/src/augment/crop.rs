//! The random resized crop: a part of random area and aspect, squeezed into a square.
//!
//! Area is uniform in `scale · h · w`, aspect log-uniform in `ratio`; a box that does not fit is drawn again, ten times
//! in all, and then the largest centre box with an allowed aspect is taken. Drawing a box moves no pixels.

use ndarray::{Array3, ArrayView3, s};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::frame::Frame;
use crate::{CropBox, Resize};

/// Draws before the centre is taken.
const TRIES: usize = 10;

/// Which parts of a picture are taken, and how they are resized.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomResizedCrop {
    /// Side of the result in pixels.
    pub size: usize,
    /// Smallest and largest area, as a fraction of the picture's.
    pub scale: (f64, f64),
    /// Smallest and largest aspect, width over height.
    pub ratio: (f64, f64),
    /// How the part is resized; antialiased as Pillow does it.
    pub interpolation: Resize,
}

impl RandomResizedCrop {
    /// Aspects of the published recipes: from 3:4 to 4:3.
    pub const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

    /// A box inside a picture of `h x w` pixels, each at least 1.
    pub fn sample(&self, rng: &mut impl Rng, h: usize, w: usize) -> CropBox {
        let logs = (self.ratio.0.ln(), self.ratio.1.ln());
        for _ in 0..TRIES {
            let area = h as f64 * w as f64 * between(rng, self.scale);
            let aspect = between(rng, logs).exp();
            let (cw, ch) = (whole((area * aspect).sqrt()), whole((area / aspect).sqrt()));
            if (1..=w).contains(&cw) && (1..=h).contains(&ch) {
                let y = rng.random_range(0..=h - ch);
                return CropBox { x: rng.random_range(0..=w - cw), y, w: cw, h: ch };
            }
        }
        self.center(h, w)
    }

    /// The largest box in the middle whose aspect is allowed.
    fn center(&self, h: usize, w: usize) -> CropBox {
        let (aspect, (least, most)) = (w as f64 / h as f64, self.ratio);
        let (cw, ch) = match aspect {
            narrow if narrow < least => (w, whole(w as f64 / least).clamp(1, h)),
            wide if wide > most => (whole(h as f64 * most).clamp(1, w), h),
            _ => (w, h),
        };
        CropBox { x: (w - cw) / 2, y: (h - ch) / 2, w: cw, h: ch }
    }

    /// `[h, w, 3]` to `[size, size, 3]`: the pixels of `part`, resized as if nothing lay around it.
    ///
    /// # Panics
    /// If `part` is empty or reaches out of the picture, or `size` is 0.
    #[must_use]
    pub fn apply(&self, image: ArrayView3<'_, u8>, part: CropBox) -> Array3<u8> {
        let part = image.slice_move(s![part.y..part.y + part.h, part.x..part.x + part.w, ..]);
        self.interpolation.image(part, Frame::stretch((self.size, self.size)))
    }
}

/// Uniform in `[low, high)`; `low` if there is nothing between.
pub(super) fn between(rng: &mut impl Rng, (low, high): (f64, f64)) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

/// Nearest whole number, ties to even.
fn whole(number: f64) -> usize {
    number.round_ties_even() as usize
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const LOCAL: RandomResizedCrop = RandomResizedCrop {
        size: 8,
        scale: (0.05, 0.4),
        ratio: RandomResizedCrop::RATIO,
        interpolation: Resize::Bicubic,
    };

    fn boxes(crop: RandomResizedCrop, h: usize, w: usize, n: usize) -> Vec<CropBox> {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        (0..n).map(|_| crop.sample(&mut rng, h, w)).collect()
    }

    fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
        let n = values.len() as f64;
        values.sum::<f64>() / n
    }

    #[test]
    fn area_is_uniform_and_aspect_log_uniform_within_their_ranges() {
        let boxes = boxes(LOCAL, 1000, 1500, 20_000);
        let area = |b: &CropBox| (b.w * b.h) as f64 / 1.5e6;
        let log = |b: &CropBox| (b.w as f64 / b.h as f64).ln();
        assert!(boxes.iter().all(|b| (0.0495..0.4005).contains(&area(b)) && log(b).abs() < 0.295));
        assert!((mean(boxes.iter().map(area)) - 0.225).abs() < 3e-3);
        assert!(mean(boxes.iter().map(log)).abs() < 5e-3);
        // The variance of a uniform number is (b − a)² / 12.
        let variance = mean(boxes.iter().map(|b| (area(b) - 0.225).powi(2)));
        assert!((variance - 0.35 * 0.35 / 12.0).abs() < 3e-4, "{variance}");
        let variance = mean(boxes.iter().map(|b| log(b).powi(2)));
        assert!((variance - 0.5754_f64.powi(2) / 12.0).abs() < 1e-3, "{variance}");
    }

    #[test]
    fn places_are_uniform_up_to_both_edges() {
        let boxes = boxes(LOCAL, 40, 60, 20_000);
        assert!(boxes.iter().all(|b| b.x + b.w <= 60 && b.y + b.h <= 40));
        assert!(boxes.iter().any(|b| b.x == 0) && boxes.iter().any(|b| b.x + b.w == 60));
        assert!(boxes.iter().any(|b| b.y == 0) && boxes.iter().any(|b| b.y + b.h == 40));
        let middle = mean(boxes.iter().map(|b| (2 * b.x + b.w) as f64 / 120.0));
        assert!((middle - 0.5).abs() < 5e-3, "{middle}");
    }

    #[test]
    fn where_nothing_fits_the_centre_is_taken() {
        let large = RandomResizedCrop { scale: (0.9, 1.0), ..LOCAL };
        let first = |h, w| boxes(large, h, w, 1)[0];
        assert_eq!(first(10, 100), CropBox { x: 43, y: 0, w: 13, h: 10 });
        assert_eq!(first(100, 10), CropBox { x: 0, y: 43, w: 10, h: 13 });
        assert_eq!(LOCAL.center(9, 9), CropBox { x: 0, y: 0, w: 9, h: 9 });
        assert_eq!(boxes(LOCAL, 1, 1, 50), vec![CropBox { x: 0, y: 0, w: 1, h: 1 }; 50]);
        for part in boxes(LOCAL, 1, 5000, 50).into_iter().chain(boxes(LOCAL, 5000, 1, 50)) {
            assert!(part.w >= 1 && part.h >= 1);
        }
    }

    #[test]
    fn nothing_outside_the_box_is_read() {
        let image = Array3::from_shape_fn((9, 9, 3), |(y, x, _)| if y < 4 && x >= 5 { 77 } else { 0 });
        let part = CropBox { x: 5, y: 0, w: 4, h: 4 };
        assert_eq!(LOCAL.apply(image.view(), part), Array3::from_elem((8, 8, 3), 77));
    }
}
