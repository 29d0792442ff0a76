//! Convolution without bias on maps with channels last, `[n, h, w, c]`, and its way back, without rows of windows ("im2col").
//!
//! The numbers under one row of the kernel, `k · c` of them, lie side by side in a map with channels last. So a tile of a few output
//! pixels by a vector or two of output channels is summed as a matrix product's is, and reads the map where it lies: in a padded
//! copy of one image at a time. Weights are laid out once per call as tiles read them, `[outputs / L, k · k · c, L]`, blocks of `L`
//! output channels. The input's gradient is a convolution as well; that of the weights is in `weight.rs`. Every number is one chain of
//! multiply-adds in a fixed order.

mod weight;

use std::array::from_fn;

use pulp::Simd;
use rayon::prelude::*;

use crate::Level;
use crate::level::mul_add;
use crate::panels::{panel_lanes, vectorized};

pub use weight::conv_weight_gradient;

/// A convolution of maps of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// `c`, channels that enter.
    pub inputs: usize,
    /// Channels that leave.
    pub outputs: usize,
    /// `k`, side of the kernel.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Zeros around the map.
    pub padding: usize,
    /// `(h, w)` of what enters.
    pub size: (usize, usize),
}

impl ConvShape {
    /// `(oh, ow)` of what leaves.
    ///
    /// # Panics
    /// If the kernel is larger than the padded map.
    #[must_use]
    pub fn out_size(&self) -> (usize, usize) {
        let (h, w) = self.padded();
        let side = |n: usize| (n - self.kernel) / self.stride + 1;
        (side(h), side(w))
    }

    fn padded(&self) -> (usize, usize) {
        (self.size.0 + 2 * self.padding, self.size.1 + 2 * self.padding)
    }

    /// Numbers under one row of the kernel.
    fn row(&self) -> usize {
        self.kernel * self.inputs
    }

    fn per_image(&self) -> (usize, usize) {
        let (oh, ow) = self.out_size();
        (self.size.0 * self.size.1 * self.inputs, oh * ow * self.outputs)
    }

    /// Where the window of an output pixel begins in the padded map, row `ky` of the kernel.
    #[inline(always)]
    fn window(&self, pixel: usize, ow: usize, ky: usize) -> usize {
        let (oy, ox) = (pixel / ow, pixel % ow);
        ((oy * self.stride + ky) * self.padded().1 + ox * self.stride) * self.inputs
    }

    fn check(&self, weight: &[f32], x: &[f32], y: &[f32]) -> usize {
        let (from, to) = self.per_image();
        assert!(from > 0 && to > 0 && x.len().is_multiple_of(from), "{} numbers of {self:?}", x.len());
        let images = x.len() / from;
        assert_eq!(y.len(), images * to, "maps of {images} images that leave {self:?}");
        assert_eq!(weight.len(), self.outputs * self.row() * self.kernel, "weights of {self:?}");
        images
    }

    /// One image with zeros around it.
    fn pad<'a>(&self, x: &'a [f32], buffer: &'a mut Vec<f32>) -> &'a [f32] {
        if self.padding == 0 {
            return x;
        }
        let (row, (ph, pw)) = (self.size.1 * self.inputs, self.padded());
        buffer.clear();
        buffer.resize(ph * pw * self.inputs, 0.0);
        for (y, from) in x.chunks_exact(row).enumerate() {
            let start = ((y + self.padding) * pw + self.padding) * self.inputs;
            buffer[start..start + row].copy_from_slice(from);
        }
        buffer
    }
}

/// Writes `[n, oh, ow, outputs]`.
///
/// * `weight`: `[outputs, inputs, k, k]`; `x`: `[n, h, w, inputs]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn conv(shape: ConvShape, weight: &[f32], x: &[f32], y: &mut [f32]) {
    forward(Level::current(), shape, weight, x, y);
}

fn forward(level: Level, shape: ConvShape, weight: &[f32], x: &[f32], y: &mut [f32]) {
    shape.check(weight, x, y);
    let (lanes, row) = (panel_lanes(level), shape.row());
    let taps = shape.kernel * shape.kernel;
    let mut packed = vec![0.0; shape.outputs.div_ceil(lanes) * taps * shape.inputs * lanes];
    for (output, weight) in weight.chunks_exact(row * shape.kernel).enumerate() {
        let to = &mut packed[output / lanes * taps * shape.inputs * lanes + output % lanes..];
        for (i, to) in to.iter_mut().step_by(lanes).take(taps * shape.inputs).enumerate() {
            *to = weight[i % shape.inputs * taps + i / shape.inputs];
        }
    }
    let (from, to) = shape.per_image();
    let images = y.par_chunks_exact_mut(to).zip(x.par_chunks_exact(from)).with_max_len(1);
    images.for_each_init(Vec::new, |buffer, (y, x)| {
        level.run(Forward { shape, x: shape.pad(x, buffer), weight: &packed, y });
    });
}

/// Writes the gradient of `x` for a convolution of stride 1: that of the outputs, convolved with the kernel turned round.
///
/// * `weight`: `[outputs, inputs, k, k]`; `dy`: `[n, oh, ow, outputs]`; `dx`: `[n, h, w, inputs]`.
///
/// # Panics
/// If the lengths do not fit, the stride is not 1, or there is more padding than kernel.
pub fn conv_input_gradient(shape: ConvShape, weight: &[f32], dy: &[f32], dx: &mut [f32]) {
    input_gradient(Level::current(), shape, weight, dy, dx);
}

fn input_gradient(level: Level, shape: ConvShape, weight: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(shape.stride == 1 && shape.padding < shape.kernel, "no way back for {shape:?}");
    shape.check(weight, dx, dy);
    let taps = shape.kernel * shape.kernel;
    let back = ConvShape {
        inputs: shape.outputs,
        outputs: shape.inputs,
        padding: shape.kernel - 1 - shape.padding,
        size: shape.out_size(),
        ..shape
    };
    let mut turned = vec![0.0; weight.len()]; // [inputs, outputs, k, k]
    for (i, &weight) in weight.iter().enumerate() {
        let (output, input, tap) = (i / (taps * shape.inputs), i / taps % shape.inputs, i % taps);
        turned[(input * shape.outputs + output) * taps + taps - 1 - tap] = weight;
    }
    forward(level, back, &turned, dy, dx);
}

/// One image.
struct Forward<'a> {
    shape: ConvShape,
    x: &'a [f32],      // padded
    weight: &'a [f32], // [blocks, k · k · c, L]
    y: &'a mut [f32],  // [pixels, outputs]
}

vectorized!(Forward => run_forward);

#[inline(always)]
fn run_forward<S: Simd, const R: usize, const NV: usize, const L: usize>(simd: S, image: Forward<'_>) {
    let Forward { shape, x, weight, y } = image;
    let steps = shape.row() * shape.kernel;
    let pixels = y.len() / shape.outputs;
    for (block, weight) in weight.chunks_exact(steps * L).enumerate() {
        let weight: &[[S::f32s; NV]] = S::as_simd_f32s(weight).0.as_chunks().0;
        let out = Out { first: block * L, used: L.min(shape.outputs - block * L), outputs: shape.outputs };
        if pixels < R {
            (0..pixels).for_each(|pixel| {
                let sums = window_sums::<S, 1, NV>(simd, shape, x, weight, pixel);
                out.store::<S, 1, NV, L>(simd, &sums, pixel, y);
            });
            continue;
        }
        // The last tile may go over pixels again, which finds the same.
        for pixel in (0..pixels).step_by(R) {
            let pixel = pixel.min(pixels - R);
            let sums = window_sums::<S, R, NV>(simd, shape, x, weight, pixel);
            out.store::<S, R, NV, L>(simd, &sums, pixel, y);
        }
    }
}

/// Sums of `R` pixels from `pixel` on.
#[inline(always)]
fn window_sums<S: Simd, const R: usize, const NV: usize>(
    simd: S,
    shape: ConvShape,
    x: &[f32],
    weight: &[[S::f32s; NV]],
    pixel: usize,
) -> [[S::f32s; NV]; R] {
    let (row, (_, ow)) = (shape.row(), shape.out_size());
    let down = shape.padded().1 * shape.inputs;
    let windows: [usize; R] = from_fn(|r| shape.window(pixel + r, ow, 0));
    let mut sums = [[simd.splat_f32s(0.0); NV]; R];
    for (ky, weight) in weight.chunks_exact(row).enumerate() {
        let under: [&[f32]; R] = from_fn(|r| &x[windows[r] + ky * down..][..row]);
        for (i, weight) in weight.iter().enumerate() {
            for r in 0..R {
                let factor = simd.splat_f32s(under[r][i]);
                for v in 0..NV {
                    sums[r][v] = mul_add(simd, factor, weight[v], sums[r][v]);
                }
            }
        }
    }
    sums
}

/// Where a block of output channels is written.
#[derive(Clone, Copy)]
struct Out {
    first: usize,
    used: usize,
    outputs: usize,
}

impl Out {
    #[inline(always)]
    fn store<S: Simd, const R: usize, const NV: usize, const L: usize>(
        self,
        _: S,
        sums: &[[S::f32s; NV]; R],
        pixel: usize,
        y: &mut [f32],
    ) {
        for (r, sums) in sums.iter().enumerate() {
            let to = &mut y[(pixel + r) * self.outputs + self.first..][..self.used];
            if self.used == L {
                S::as_mut_simd_f32s(to).0.copy_from_slice(sums);
                continue;
            }
            let mut lanes = [0.0; L];
            S::as_mut_simd_f32s(&mut lanes).0.copy_from_slice(sums);
            to.copy_from_slice(&lanes[..self.used]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::weight::weight_gradient;
    use super::*;

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.83 + phase).sin()).collect()
    }

    /// Kernels, strides, paddings and sizes, of few and many channels and pixels.
    fn shapes() -> Vec<ConvShape> {
        let kinds = [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (7, 2, 3), (2, 2, 0), (3, 1, 0)];
        let channels = [(3, 4), (5, 17), (2, 40)];
        let of = |(kernel, stride, padding)| {
            channels.map(|(inputs, outputs)| ConvShape {
                inputs,
                outputs,
                kernel,
                stride,
                padding,
                size: if outputs == 17 { (3, 4) } else { (7, 6) },
            })
        };
        kinds.into_iter().flat_map(of).collect()
    }

    /// Calls `f(output number, weight number, input number)` for every product of an image's sums.
    fn products(shape: ConvShape, mut f: impl FnMut(usize, usize, usize)) {
        let ((oh, ow), (h, w), k) = (shape.out_size(), shape.size, shape.kernel);
        for (oy, ox, o) in (0..oh * ow * shape.outputs)
            .map(|i| (i / (ow * shape.outputs), i / shape.outputs % ow, i % shape.outputs))
        {
            for (c, ky, kx) in (0..shape.inputs * k * k).map(|i| (i / (k * k), i / k % k, i % k)) {
                let y = (oy * shape.stride + ky).wrapping_sub(shape.padding);
                let x = (ox * shape.stride + kx).wrapping_sub(shape.padding);
                if y < h && x < w {
                    let output = (oy * ow + ox) * shape.outputs + o;
                    let weight = ((o * shape.inputs + c) * k + ky) * k + kx;
                    f(output, weight, (y * w + x) * shape.inputs + c);
                }
            }
        }
    }

    #[track_caller]
    fn near(what: &str, got: &[f32], want: &[f64]) {
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
            assert!((f64::from(got) - want).abs() < 1e-4, "{what} {i}: {got} {want}");
        }
    }

    /// By their definition, product by product, at every level.
    #[test]
    fn sums_and_their_gradients() {
        for level in Level::available() {
            for shape in shapes() {
                let what = format!("{level:?} {shape:?}");
                let (images, (from, to)) = (2, shape.per_image());
                let weight = wave(shape.outputs * shape.row() * shape.kernel, 0.2);
                let (x, dy) = (wave(images * from, 1.0), wave(images * to, 3.0));
                let (mut y, mut dx) = (vec![0.0; images * to], vec![0.0; images * from]);
                let mut dweight = vec![0.5; weight.len()];
                forward(level, shape, &weight, &x, &mut y);
                weight_gradient(level, shape, &x, &dy, &mut dweight);
                let (mut y_sums, mut dx_sums) = (vec![0.0; y.len()], vec![0.0; dx.len()]);
                let mut weight_sums = vec![0.5; weight.len()];
                for image in 0..images {
                    products(shape, |o, w, i| {
                        let (o, i) = (image * to + o, image * from + i);
                        let [weight_f, x_f, dy_f] = [weight[w], x[i], dy[o]].map(f64::from);
                        y_sums[o] += weight_f * x_f;
                        dx_sums[i] += weight_f * dy_f;
                        weight_sums[w] += x_f * dy_f;
                    });
                }
                near(&what, &y, &y_sums);
                near(&what, &dweight, &weight_sums);
                if shape.stride == 1 {
                    input_gradient(level, shape, &weight, &dy, &mut dx);
                    near(&what, &dx, &dx_sums);
                }
            }
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let shape = ConvShape { inputs: 5, outputs: 20, kernel: 3, stride: 1, padding: 1, size: (9, 8) };
        let (from, to) = shape.per_image();
        let (x, dy) = (wave(19 * from, 0.0), wave(19 * to, 1.0));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut dweight = vec![0.0; 20 * 5 * 9];
            pool.install(|| conv_weight_gradient(shape, &x, &dy, &mut dweight));
            dweight
        };
        assert_eq!(run(1), run(3));
    }
}
