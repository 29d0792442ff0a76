//! Convolution without bias, as ResNets have them, on pixels with channels last: `[n, h, w, c]`.
//!
//! Large maps are convolved where they lie ([`kernels::conv`]). Of small ones, where weights outnumber pixels, a convolution is a matrix
//! product over the pixels of many images: the inputs under the kernel at each output pixel are a row, `[k · k · c]` ("im2col"), and
//! the weights `[outputs, k · k · c]`. Rows of a few images are made at a time, so that they stay small; a kernel of one pixel at
//! stride 1 needs none. The way back makes the same rows again instead of keeping them, and gathers the input's
//! gradient from all rows that a pixel was in, in the order of the kernel: the same bits on any number of threads.

use kernels::{
    ConvShape, Matrix, MatrixMut, Threads, conv, conv_input_gradient, conv_weight_gradient, for_each_row,
    gemm,
};

use crate::buffer::sized;
use crate::params::{Layout, Slot};

/// Numbers of rows at a time.
const ROWS: usize = 1 << 20;

/// Output pixels of an image from which on it is convolved where it lies.
const LARGE: usize = 32;

/// A convolution without its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    weight: Slot, // [outputs, inputs, k, k]
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
}

/// Height and width.
pub(crate) type Size = (usize, usize);

/// Buffers of the passes; nothing of it outlives one.
#[derive(Debug, Default)]
pub(crate) struct ConvScratch {
    rows: Vec<f32>,
    drows: Vec<f32>,
    packed: Vec<f32>,
    dpacked: Vec<f32>,
}

impl Conv {
    pub(crate) fn add(
        layout: &mut Layout,
        name: &str,
        (inputs, outputs): (usize, usize),
        kernel: usize,
        (stride, padding): (usize, usize),
    ) -> Self {
        let weight = layout.add(format!("{name}.weight"), &[outputs, inputs, kernel, kernel]);
        Self { weight, inputs, outputs, kernel, stride, padding }
    }

    /// The size of what leaves.
    pub(crate) fn size(&self, (h, w): Size) -> Size {
        let side = |n: usize| (n + 2 * self.padding - self.kernel) / self.stride + 1;
        (side(h), side(w))
    }

    fn columns(&self) -> usize {
        self.kernel * self.kernel * self.inputs
    }

    fn is_plain(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// What the kernels are told, of maps that are large enough.
    fn direct(&self, size: Size) -> Option<ConvShape> {
        let Self { inputs, outputs, kernel, stride, padding, .. } = *self;
        let (oh, ow) = self.size(size);
        let is_large = !self.is_plain() && oh * ow >= LARGE;
        is_large.then_some(ConvShape { inputs, outputs, kernel, stride, padding, size })
    }

    /// Images whose rows are made at a time.
    fn images_at_a_time(&self, size: Size) -> usize {
        let (h, w) = self.size(size);
        (ROWS / (h * w * self.columns())).max(1)
    }

    /// The weights as the rows lie: `[outputs, k, k, inputs]`.
    fn pack(&self, params: &[f32], packed: &mut Vec<f32>) {
        let (weight, taps) = (self.weight.of(params), self.kernel * self.kernel);
        for_each_row(sized(packed, weight.len()), self.columns(), |output, row| {
            let own = &weight[output * self.columns()..][..self.columns()];
            for (i, x) in row.iter_mut().enumerate() {
                *x = own[i % self.inputs * taps + i / self.inputs];
            }
        });
    }

    /// Rows of the images `x`, `[n, h, w, c]`.
    fn fill_rows(&self, x: &[f32], (h, w): Size, rows: &mut Vec<f32>) {
        let ((oh, ow), c, k) = (self.size((h, w)), self.inputs, self.kernel);
        let images = x.len() / (h * w * c);
        let len = images * oh * ow * self.columns();
        for_each_row(sized(rows, len), self.columns(), |number, row| {
            let (image, oy, ox) = (number / (oh * ow), number / ow % oh, number % ow);
            for (tap, to) in row.chunks_exact_mut(c).enumerate() {
                let (y, x_at) = (oy * self.stride + tap / k, ox * self.stride + tap % k);
                match (y.checked_sub(self.padding), x_at.checked_sub(self.padding)) {
                    (Some(y), Some(x_at)) if y < h && x_at < w => {
                        to.copy_from_slice(&x[((image * h + y) * w + x_at) * c..][..c]);
                    }
                    _ => to.fill(0.0),
                }
            }
        });
    }

    /// `[n, h, w, inputs]` to `[n, oh, ow, outputs]`.
    pub(crate) fn forward(
        &self,
        params: &[f32],
        x: &[f32],
        size: Size,
        scratch: &mut ConvScratch,
        y: &mut Vec<f32>,
    ) {
        let ((oh, ow), columns) = (self.size(size), self.columns());
        let per_image = size.0 * size.1 * self.inputs;
        let y = sized(y, x.len() / per_image * oh * ow * self.outputs);
        if let Some(shape) = self.direct(size) {
            return conv(shape, self.weight.of(params), x, y);
        }
        let ConvScratch { rows, packed, .. } = scratch;
        self.pack(params, packed);
        let weight = Matrix::new(packed, self.outputs, columns).t();
        let images = self.images_at_a_time(size);
        for (x, y) in x.chunks(images * per_image).zip(y.chunks_mut(images * oh * ow * self.outputs)) {
            let n = y.len() / self.outputs;
            let rows = if self.is_plain() {
                x
            } else {
                self.fill_rows(x, size, rows);
                rows.as_slice()
            };
            gemm(
                MatrixMut::new(y, n, self.outputs),
                0.0,
                1.0,
                Matrix::new(rows, n, columns),
                weight,
                Threads::All,
            );
        }
    }

    /// Adds the weights' gradient; writes the input's where it is asked for.
    ///
    /// * `dy`: `[n, oh, ow, outputs]`; `x`: what went in.
    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dy: &[f32],
        (x, size): (&[f32], Size),
        scratch: &mut ConvScratch,
        mut dx: Option<&mut Vec<f32>>,
    ) {
        let ((oh, ow), columns, taps) = (self.size(size), self.columns(), self.kernel * self.kernel);
        let per_image = size.0 * size.1 * self.inputs;
        let ConvScratch { rows, drows, packed, dpacked } = scratch;
        if let Some(dx) = dx.as_deref_mut() {
            sized(dx, x.len());
        }
        let direct = self.direct(size);
        if let Some(shape) = direct {
            conv_weight_gradient(shape, x, dy, self.weight.of_mut(grads));
            let Some(dx) = dx.as_deref_mut() else { return };
            if self.stride == 1 && self.padding < self.kernel {
                return conv_input_gradient(shape, self.weight.of(params), dy, dx);
            }
        }
        self.pack(params, packed);
        sized(dpacked, packed.len()).fill(0.0);
        let images = self.images_at_a_time(size);
        let parts = x.chunks(images * per_image).zip(dy.chunks(images * oh * ow * self.outputs));
        for (part, (x, dy)) in parts.enumerate() {
            let n = dy.len() / self.outputs;
            let dy = Matrix::new(dy, n, self.outputs);
            if direct.is_none() {
                let rows = if self.is_plain() {
                    x
                } else {
                    self.fill_rows(x, size, rows);
                    rows.as_slice()
                };
                let product = MatrixMut::new(dpacked, self.outputs, columns);
                gemm(product, 1.0, 1.0, dy.t(), Matrix::new(rows, n, columns), Threads::All);
            }
            let Some(dx) = dx.as_deref_mut() else { continue };
            let dx = &mut dx[part * images * per_image..][..x.len()];
            let weight = Matrix::new(packed, self.outputs, columns);
            if self.is_plain() {
                gemm(MatrixMut::new(dx, n, columns), 0.0, 1.0, dy, weight, Threads::All);
            } else {
                let product = MatrixMut::new(sized(drows, n * columns), n, columns);
                gemm(product, 0.0, 1.0, dy, weight, Threads::All);
                self.gather(drows, size, dx);
            }
        }
        let dweight = self.weight.of_mut(grads);
        for (dweight, dpacked) in dweight.chunks_exact_mut(columns).zip(dpacked.chunks_exact(columns)) {
            for (i, d) in dpacked.iter().enumerate() {
                dweight[i % self.inputs * taps + i / self.inputs] += d;
            }
        }
    }

    /// The gradient of every pixel from the rows that it was in.
    fn gather(&self, drows: &[f32], (h, w): Size, dx: &mut [f32]) {
        let ((oh, ow), c, k) = (self.size((h, w)), self.inputs, self.kernel);
        let columns = self.columns();
        // The output row or column at which an input lies under a tap.
        let under = |at: usize, tap: usize, outputs: usize| {
            let shifted = (at + self.padding).checked_sub(tap)?;
            let output = shifted / self.stride;
            (shifted.is_multiple_of(self.stride) && output < outputs).then_some(output)
        };
        for_each_row(dx, c, |pixel, dx| {
            let (image, y, x) = (pixel / (h * w), pixel / w % h, pixel % w);
            dx.fill(0.0);
            for tap in 0..k * k {
                let (Some(oy), Some(ox)) = (under(y, tap / k, oh), under(x, tap % k, ow)) else { continue };
                let from = &drows[((image * oh + oy) * ow + ox) * columns + tap * c..][..c];
                dx.iter_mut().zip(from).for_each(|(dx, d)| *dx += d);
            }
        });
    }
}

/// The maximum under a 3 x 3 kernel at stride 2 with padding 1, as the stem of a ResNet has it; `places` says which of the inputs it
/// was.
pub(crate) fn max_pool(x: &[f32], (h, w): Size, c: usize, places: &mut Vec<u32>, y: &mut Vec<f32>) -> Size {
    let (oh, ow) = ((h - 1) / 2 + 1, (w - 1) / 2 + 1);
    let images = x.len() / (h * w * c);
    let places = sized(places, images * oh * ow * c);
    let y = sized(y, images * oh * ow * c);
    for (pixel, (y, places)) in y.chunks_exact_mut(c).zip(places.chunks_exact_mut(c)).enumerate() {
        let (image, oy, ox) = (pixel / (oh * ow), pixel / ow % oh, pixel % ow);
        y.fill(f32::NEG_INFINITY);
        for iy in (2 * oy).saturating_sub(1)..(2 * oy + 2).min(h) {
            for ix in (2 * ox).saturating_sub(1)..(2 * ox + 2).min(w) {
                let at = ((image * h + iy) * w + ix) * c;
                for channel in 0..c {
                    if x[at + channel] > y[channel] {
                        (y[channel], places[channel]) = (x[at + channel], (at + channel) as u32);
                    }
                }
            }
        }
    }
    (oh, ow)
}

/// The way back of [`max_pool`] to `len` inputs.
pub(crate) fn max_pool_backward(dy: &[f32], places: &[u32], len: usize, dx: &mut Vec<f32>) {
    let dx = sized(dx, len);
    dx.fill(0.0);
    dy.iter().zip(places).for_each(|(d, &place)| dx[place as usize] += d);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.83 + phase).sin()).collect()
    }

    /// Kernel, stride, padding.
    const KINDS: [(usize, usize, usize); 6] =
        [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (7, 2, 3), (2, 2, 0)];

    fn conv((kernel, stride, padding): (usize, usize, usize)) -> (Layout, Conv) {
        let mut layout = Layout::default();
        let conv = Conv::add(&mut layout, "conv", (3, 4), kernel, (stride, padding));
        (layout, conv)
    }

    /// By its definition, pixel by pixel.
    #[test]
    fn every_output_is_the_sum_under_the_kernel() {
        let (n, h, w) = (2, 7, 6);
        for kind in KINDS {
            let (layout, conv) = conv(kind);
            let (kernel, stride, padding) = kind;
            let (params, x) = (wave(layout.len(), 0.2), wave(n * h * w * 3, 1.0));
            let mut y = Vec::new();
            conv.forward(&params, &x, (h, w), &mut ConvScratch::default(), &mut y);
            let (oh, ow) = conv.size((h, w));
            assert_eq!(y.len(), n * oh * ow * 4);
            for (i, got) in y.iter().enumerate() {
                let (image, oy, ox, output) = (i / (oh * ow * 4), i / (ow * 4) % oh, i / 4 % ow, i % 4);
                let mut sum = 0.0;
                for (c, ky, kx) in
                    (0..3).flat_map(|c| (0..kernel * kernel).map(move |t| (c, t / kernel, t % kernel)))
                {
                    let (y, x_at) =
                        ((oy * stride + ky).wrapping_sub(padding), (ox * stride + kx).wrapping_sub(padding));
                    if y < h && x_at < w {
                        let weight = params[((output * 3 + c) * kernel + ky) * kernel + kx];
                        sum += weight * x[((image * h + y) * w + x_at) * 3 + c];
                    }
                }
                assert!((got - sum).abs() < 1e-4, "{kind:?} {i}: {got} {sum}");
            }
        }
    }

    /// A convolution is linear in weights and inputs: its gradients are its adjoint, which any step shows exactly.
    #[test]
    fn gradients_are_slopes() {
        let (n, h, w) = (2, 6, 5);
        for kind in KINDS {
            let (layout, conv) = conv(kind);
            let (params, x) = (wave(layout.len(), 0.2), wave(n * h * w * 3, 1.0));
            let (oh, ow) = conv.size((h, w));
            let weight = wave(n * oh * ow * 4, 3.0);
            let value = |params: &[f32], x: &[f32]| {
                let mut y = Vec::new();
                conv.forward(params, x, (h, w), &mut ConvScratch::default(), &mut y);
                y.iter().zip(&weight).map(|(y, w)| f64::from(y * w)).sum::<f64>()
            };
            let (mut grads, mut dx) = (vec![0.0; layout.len()], Vec::new());
            conv.backward(
                &params,
                &mut grads,
                &weight,
                (&x, (h, w)),
                &mut ConvScratch::default(),
                Some(&mut dx),
            );
            let start = value(&params, &x);
            let slope = |values: &[f32], i: usize, of: &dyn Fn(&[f32]) -> f64| {
                let mut moved = values.to_vec();
                moved[i] += 1.0;
                of(&moved) - start
            };
            for (i, &got) in grads.iter().enumerate() {
                let want = slope(&params, i, &|params| value(params, &x));
                assert!((want - f64::from(got)).abs() < 1e-3, "{kind:?} weight {i}");
            }
            for (i, &got) in dx.iter().enumerate() {
                let want = slope(&x, i, &|x| value(&params, x));
                assert!((want - f64::from(got)).abs() < 1e-3, "{kind:?} input {i}");
            }
        }
    }

    #[test]
    fn the_largest_neighbour_is_taken_and_gets_the_gradient() {
        let x: Vec<f32> = (0..5 * 4).map(|i| if i == 6 { 9.0 } else { -(i as f32) }).collect();
        let (mut places, mut y, mut dx) = (Vec::new(), Vec::new(), Vec::new());
        assert_eq!(max_pool(&x, (5, 4), 1, &mut places, &mut y), (3, 2));
        assert_eq!(y, [0.0, 9.0, -4.0, 9.0, -12.0, -13.0]);
        max_pool_backward(&[1.0; 6], &places, 20, &mut dx);
        assert_eq!((dx[6], dx.iter().sum::<f32>()), (2.0, 6.0));
    }
}
