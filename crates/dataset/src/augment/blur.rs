//! Gaussian blur of 8-bit pixels, bit for bit as Pillow does it: three box blurs per axis.
//!
//! A box of fractional radius `r + ε` is the sum of `2 r + 1` pixels plus a share of the next one on either side, in 24 bits
//! of fraction; beyond the edge lies the edge pixel. Each pass rounds to 8 bits. All passes run down the rows, a
//! whole row of numbers at a time; for the other axis the picture is turned and turned back.

use ndarray::Array3;

use super::colour::bytes;

/// Window blurs per axis.
const PASSES: usize = 3;

/// Fraction bits of the weights.
const PRECISION: u32 = 24;

/// Blurs `[h, w, 3]` with a Gaussian of standard deviation `radius` pixels, not negative; 0 changes nothing.
///
/// # Panics
/// If the image has not 3 channels.
pub fn gaussian_blur(image: &mut Array3<u8>, radius: f64) {
    let ((h, w, _), window) = (image.dim(), Window::of(radius as f32));
    if h * w == 0 || window.is_one_pixel() {
        return;
    }
    let image = bytes(image);
    let mut other = vec![0; image.len()];
    transpose(image, &mut other, w);
    window.blur(&mut other, 3 * h);
    transpose(&other, image, h);
    window.blur(image, 3 * w);
}

/// Turns rows of `width` pixels into columns.
fn transpose(from: &[u8], to: &mut [u8], width: usize) {
    let (from, to) = (from.as_chunks::<3>().0, to.as_chunks_mut::<3>().0);
    let height = from.len() / width;
    for (x, column) in to.chunks_exact_mut(height).enumerate() {
        column.iter_mut().zip(from[x..].iter().step_by(width)).for_each(|(to, from)| *to = *from);
    }
}

/// The weights of one box blur.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    /// Pixels with full weight on either side of the centre.
    radius: usize,
    /// Their weight.
    inner: u32,
    /// Weight of the next pixel on either side.
    outer: u32,
}

impl Window {
    /// The box of which three make a Gaussian of standard deviation `sigma`.
    ///
    /// Gwosdek et al. 2011, equations 7, 11 and 14: the fraction makes the variance exact. In single precision, as the
    /// last bit shows.
    fn of(sigma: f32) -> Self {
        let variance = sigma * sigma / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let next = (whole + 1.0) * (whole + 1.0);
        let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance) / (6.0 * (variance - next));
        let (radius, width) = ((whole + part) as usize, (whole + part) * 2.0 + 1.0);
        let inner = ((1 << PRECISION) as f32 / width) as u32;
        Self { radius, inner, outer: ((1 << PRECISION) - (2 * radius as u32 + 1) * inner) / 2 }
    }

    fn is_one_pixel(self) -> bool {
        self.inner == 1 << PRECISION
    }

    /// Blurs `lines`, each of `stride` numbers, along the first axis.
    fn blur(self, lines: &mut [u8], stride: usize) {
        let mut blurred = vec![0; lines.len()];
        for _ in 0..PASSES {
            self.pass(lines, &mut blurred, stride);
            lines.copy_from_slice(&blurred);
        }
    }

    fn pass(self, from: &[u8], to: &mut [u8], stride: usize) {
        let last = from.len() / stride - 1;
        let line = |at: usize| &from[at.min(last) * stride..][..stride];
        let mut sums: Vec<u32> = line(0).iter().map(|&byte| self.radius as u32 * u32::from(byte)).collect();
        for at in 0..=self.radius {
            sums.iter_mut().zip(line(at)).for_each(|(sum, &byte)| *sum += u32::from(byte));
        }
        for (at, to) in to.chunks_exact_mut(stride).enumerate() {
            let (left, right) = (line(at.saturating_sub(self.radius + 1)), line(at + self.radius + 1));
            let leaving = line(at.saturating_sub(self.radius));
            for ((((to, sum), &left), &right), &leaving) in
                to.iter_mut().zip(&mut sums).zip(left).zip(right).zip(leaving)
            {
                let (near, far) = (*sum * self.inner, (u32::from(left) + u32::from(right)) * self.outer);
                *to = ((near + far + (1 << (PRECISION - 1))) >> PRECISION) as u8;
                *sum = *sum + u32::from(right) - u32::from(leaving);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(h: usize, w: usize, y: usize, x: usize) -> Array3<u8> {
        Array3::from_shape_fn((h, w, 3), |at| if (at.0, at.1) == (y, x) { 255 } else { 0 })
    }

    #[test]
    fn the_weights_sum_to_one_and_give_the_variance() {
        for sigma in [0.1_f32, 0.3, 0.9, 1.0, 1.37, 2.0, 5.5] {
            let window = Window::of(sigma);
            let total = (2 * window.radius as u32 + 1) * window.inner + 2 * window.outer;
            assert!((1 << PRECISION) - total <= 1, "{sigma}");
            let square = |at: usize| 2.0 * (at * at) as f64;
            let inner: f64 = (1..=window.radius).map(square).sum::<f64>() * f64::from(window.inner);
            let variance = inner + square(window.radius + 1) * f64::from(window.outer);
            let of_three = 3.0 * variance / f64::from(1 << PRECISION);
            assert!((of_three / f64::from(sigma * sigma) - 1.0).abs() < 1e-3, "{sigma}: {of_three}");
        }
    }

    #[test]
    fn nothing_to_blur_changes_nothing() {
        let mut image = dot(7, 5, 3, 2);
        gaussian_blur(&mut image, 0.0);
        assert_eq!(image, dot(7, 5, 3, 2));
        let mut flat = Array3::from_elem((4, 9, 3), 201);
        gaussian_blur(&mut flat, 3.0);
        assert_eq!(flat, Array3::from_elem((4, 9, 3), 201));
    }

    #[test]
    fn a_dot_spreads_alike_in_all_directions() {
        let mut image = dot(9, 9, 4, 4);
        gaussian_blur(&mut image, 1.0);
        // The axes are rounded one after the other, and so differ by a last bit.
        let turned = image.view().permuted_axes([1, 0, 2]);
        assert!(image.iter().zip(turned).all(|(a, b)| a.abs_diff(*b) <= 1));
        assert_eq!(image, image.slice(ndarray::s![..;-1, .., ..]));
        assert!(image[[4, 4, 0]] > image[[4, 5, 0]] && image[[4, 5, 0]] > image[[4, 6, 0]]);
    }

    #[test]
    fn slivers_and_radii_beyond_the_picture_are_fine() {
        for (h, w) in [(1, 1), (1, 40), (40, 1), (2, 3)] {
            let mut image = dot(h, w, 0, 0);
            gaussian_blur(&mut image, 30.0);
            assert_eq!(image.dim(), (h, w, 3));
        }
        gaussian_blur(&mut Array3::zeros((0, 4, 3)), 1.0);
    }
}
