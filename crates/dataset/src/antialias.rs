//! Antialiased resampling of 8-bit pixels, bit for bit as Pillow does it.
//!
//! Output pixel `i` of `m` is a weighted mean of source pixels around `(i + ½) · n / m`; when shrinking, the kernel is stretched
//! by `n / m`, so that every source pixel counts. One pass per axis, with 8 bits in between and weights in
//! fixed point. Only the window that is asked for is computed. Nearest-neighbour resampling is not done here.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, s};

use crate::frame::Frame;

/// Fraction bits of the weights: 32 less 8 for the pixel and 2 for sums beyond 1.
const PRECISION: u32 = 22;

/// A half in fixed point, so that cutting off rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// An interpolation kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// `1 − |x|`.
    Triangle,
    /// Keys' cubic with a = −½.
    Cubic,
}

impl Kernel {
    /// Half its width: it is zero beyond.
    fn support(self) -> f64 {
        match self {
            Self::Triangle => 1.0,
            Self::Cubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Triangle if x < 1.0 => 1.0 - x,
            Self::Cubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Cubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// `[h, w, 3]` to `[res, res, 3]`.
pub(crate) fn resample(image: ArrayView3<'_, u8>, frame: Frame, kernel: Kernel) -> Array3<u8> {
    let ((h, w, _), (rh, rw), (top, left)) = (image.dim(), frame.resized, frame.offset);
    let rows = taps(kernel, h, rh, top..top + frame.size.0);
    let columns = taps(kernel, w, rw, left..left + frame.size.1);
    let ((rows, down), (columns, across)) = (from_first(rows), from_first(columns));
    let image = image.slice(s![down, across, ..]); // the pixels that are read
    if vertical_first((h, w), (rh, rw)) {
        horizontal(vertical(image, &rows).view(), &columns)
    } else {
        vertical(horizontal(image, &columns).view(), &rows)
    }
}

/// The order of the two passes, which shows because 8 bits lie in between.
///
/// Columns first, unless the height shrinks by more than twice the pixels that the width does: Pillow since version 13
/// (earlier ones never resize rows first), found by comparing with one-axis resizes of 12 000 random sizes.
fn vertical_first((h, w): (usize, usize), (rh, rw): (usize, usize)) -> bool {
    rh < h && h - rh > 2 * w.saturating_sub(rw)
}

/// `[h, w, 3]` to `[h, columns, 3]`.
fn horizontal(image: ArrayView3<'_, u8>, columns: &[Tap]) -> Array3<u8> {
    let (h, w, _) = image.dim();
    let mut out = Vec::with_capacity(3 * h * columns.len());
    with_lines(image, |line| {
        let pixels = &line.as_chunks::<3>().0[..w];
        for tap in columns {
            let sums = tap.over(pixels).fold([HALF; 3], |sums, (pixel, weight)| {
                std::array::from_fn(|c| sums[c] + i32::from(pixel[c]) * weight)
            });
            out.extend(sums.map(byte));
        }
    });
    Array3::from_shape_vec((h, columns.len(), 3), out).expect("three bytes per pixel")
}

/// `[h, w, 3]` to `[rows, w, 3]`.
fn vertical(image: ArrayView3<'_, u8>, rows: &[Tap]) -> Array3<u8> {
    let (_, w, _) = image.dim();
    let image = image.as_standard_layout();
    let lines: Vec<&[u8]> = image.as_slice().unwrap_or_default().chunks_exact(3 * w).collect();
    let mut out = Vec::with_capacity(3 * w * rows.len());
    let mut sums = vec![0; 3 * w];
    for tap in rows {
        sums.fill(HALF);
        for (line, weight) in tap.over(&lines) {
            sums.iter_mut().zip(*line).for_each(|(sum, &pixel)| *sum += i32::from(pixel) * weight);
        }
        out.extend(sums.iter().copied().map(byte));
    }
    Array3::from_shape_vec((rows.len(), w, 3), out).expect("three bytes per pixel")
}

/// Calls `each` with every row of `[h, w, 3]` as a slice.
fn with_lines(image: ArrayView3<'_, u8>, mut each: impl FnMut(&[u8])) {
    for line in image.outer_iter() {
        each(line.as_standard_layout().as_slice().unwrap_or_default());
    }
}

/// The pixel of a sum in fixed point.
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The taps counted from the first source pixel that any of them reads, and the range of those that are read.
fn from_first(mut taps: Vec<Tap>) -> (Vec<Tap>, Range<usize>) {
    let first = taps.iter().map(|tap| tap.first).min().unwrap_or(0);
    let end = taps.iter().map(|tap| tap.first + tap.weights.len()).max().unwrap_or(first);
    taps.iter_mut().for_each(|tap| tap.first -= first);
    (taps, first..end)
}

/// What one output pixel reads along one axis.
struct Tap {
    first: usize,
    weights: Vec<i32>,
}

impl Tap {
    /// What it reads, each with its weight.
    fn over<'a, T>(&'a self, source: &'a [T]) -> impl Iterator<Item = (&'a T, i32)> {
        source[self.first..].iter().zip(self.weights.iter().copied())
    }
}

/// The taps of the output pixels in `window`, of `resized` out of `n` source pixels.
fn taps(kernel: Kernel, n: usize, resized: usize, window: Range<usize>) -> Vec<Tap> {
    let scale = n as f64 / resized as f64;
    let stretch = scale.max(1.0);
    let support = kernel.support() * stretch;
    let tap = |output: usize| {
        let center = (output as f64 + 0.5) * scale;
        // A negative number becomes 0.
        let first = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(n);
        // Pillow multiplies by the reciprocal; the last bit of a weight depends on it.
        let weight = |source: usize| kernel.at((source as f64 - center + 0.5) * (1.0 / stretch));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let total: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (weight / total * f64::from(1 << PRECISION)).round() as i32;
        Tap { first, weights: weights.iter().map(fixed).collect() }
    };
    window.map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: [Kernel; 2] = [Kernel::Triangle, Kernel::Cubic];

    #[test]
    fn kernels_are_one_at_zero_and_zero_at_other_whole_numbers() {
        for kernel in KERNELS {
            assert_eq!([-2.0, -1.0, 0.0, 1.0, 2.0].map(|x| kernel.at(x)), [0.0, 0.0, 1.0, 0.0, 0.0]);
        }
        assert_eq!((Kernel::Cubic.at(0.5), Kernel::Cubic.at(1.5)), (0.5625, -0.0625));
    }

    #[test]
    fn weights_sum_to_one() {
        for kernel in KERNELS {
            for (n, resized) in [(10, 3), (3, 10), (7, 7), (1, 5), (5, 1)] {
                for tap in taps(kernel, n, resized, 0..resized) {
                    let sum: i32 = tap.weights.iter().sum();
                    assert!((sum - (1 << PRECISION)).abs() <= tap.weights.len() as i32, "{n} {resized}");
                    assert!(tap.first + tap.weights.len() <= n);
                }
            }
        }
    }

    #[test]
    fn shrinking_averages_and_the_same_size_copies() {
        let stripes = Array3::from_shape_fn((16, 16, 3), |(_, x, _)| if x % 2 == 0 { 0 } else { 200 });
        for kernel in KERNELS {
            assert_eq!(resample(stripes.view(), Frame::stretch((16, 16)), kernel), stripes);
            let small = resample(stripes.view(), Frame::stretch((4, 4)), kernel);
            assert!(small.iter().all(|v| v.abs_diff(100) <= 20), "{kernel:?}: {small}");
        }
    }

    #[test]
    fn a_flat_picture_stays_flat_and_overshoot_is_cut_off() {
        for kernel in KERNELS {
            let flat = Array3::from_elem((9, 5, 3), 77);
            let larger = resample(flat.view(), Frame::center((9, 5), 8), kernel);
            assert!(larger.iter().all(|&v| v == 77), "{kernel:?}");
        }
        let edge = Array3::from_shape_fn((4, 4, 3), |(_, x, _)| if x < 2 { 0 } else { 255 });
        let larger = resample(edge.view(), Frame::stretch((16, 16)), Kernel::Cubic);
        assert_eq!((larger[[0, 5, 0]], larger[[0, 10, 0]]), (0, 255));
    }

    #[test]
    fn rows_come_first_where_the_height_shrinks_far_more() {
        assert!(!vertical_first((360, 480), (224, 298)));
        assert!(!vertical_first((30, 20), (10, 10)) && vertical_first((31, 20), (10, 10)));
        assert!(vertical_first((20, 20), (19, 40)) && !vertical_first((20, 20), (21, 40)));
    }

    #[test]
    fn a_window_is_cut_out_of_the_whole() {
        let image = Array3::from_shape_fn((20, 30, 3), |(y, x, c)| (y * 37 + x * 91 + c * 5) as u8);
        let frame = Frame { resized: (16, 25), offset: (0, 0), size: (16, 16) };
        let whole = resample(image.view(), frame, Kernel::Cubic);
        let right = resample(image.view(), Frame { offset: (0, 9), ..frame }, Kernel::Cubic);
        assert_eq!(whole.slice(s![.., 9.., ..]), right.slice(s![.., ..7, ..]));
    }
}
