//! The gradient of a convolution's weights: tiles of a few numbers under a row of the kernel by a block of output channels, each summed over
//! an image's pixels. A fixed number of groups of images is summed apart, so that the result does not depend on threads.

use pulp::Simd;
use rayon::prelude::*;

use super::ConvShape;
use crate::Level;
use crate::level::mul_add;
use crate::panels::{panel_lanes, vectorized};

/// Groups of images whose weight gradients are summed apart.
const GROUPS: usize = 16;

/// Adds the gradient of the weights, `[outputs, inputs, k, k]`.
///
/// * `x`: `[n, h, w, inputs]`; `dy`: `[n, oh, ow, outputs]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn conv_weight_gradient(shape: ConvShape, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    weight_gradient(Level::current(), shape, x, dy, dweight);
}

pub(super) fn weight_gradient(level: Level, shape: ConvShape, x: &[f32], dy: &[f32], dweight: &mut [f32]) {
    let images = shape.check(dweight, x, dy);
    if images == 0 {
        return;
    }
    let (from, to) = shape.per_image();
    let (lanes, taps) = (panel_lanes(level), shape.kernel * shape.kernel);
    let (blocks, steps) = (shape.outputs.div_ceil(lanes), taps * shape.inputs);
    let group = images.div_ceil(GROUPS);
    let groups = x.par_chunks(group * from).zip(dy.par_chunks(group * to)).with_max_len(1);
    let sums: Vec<Vec<f32>> = groups
        .map(|(x, dy)| {
            let mut sums = vec![0.0; blocks * steps * lanes];
            let (mut buffer, mut packed) = (Vec::new(), vec![0.0; blocks * (to / shape.outputs) * lanes]);
            for (x, dy) in x.chunks_exact(from).zip(dy.chunks_exact(to)) {
                let dy = if shape.outputs == lanes {
                    dy
                } else {
                    pack(dy, shape.outputs, lanes, &mut packed);
                    &packed
                };
                level.run(Weight { shape, x: shape.pad(x, &mut buffer), dy, sums: &mut sums });
            }
            sums
        })
        .collect();
    for (output, dweight) in dweight.chunks_exact_mut(steps).enumerate() {
        let at = output / lanes * steps * lanes + output % lanes;
        for sums in &sums {
            for (i, sum) in sums[at..].iter().step_by(lanes).take(steps).enumerate() {
                dweight[i % shape.inputs * taps + i / shape.inputs] += sum;
            }
        }
    }
}

/// `[pixels, outputs]` as `[blocks, pixels, lanes]`; what is behind the last output stays as it is.
fn pack(dy: &[f32], outputs: usize, lanes: usize, packed: &mut [f32]) {
    let pixels = dy.len() / outputs;
    for (at, block) in packed.chunks_exact_mut(pixels * lanes).enumerate() {
        let used = lanes.min(outputs - at * lanes);
        for (to, from) in block.chunks_exact_mut(lanes).zip(dy.chunks_exact(outputs)) {
            to[..used].copy_from_slice(&from[at * lanes..][..used]);
        }
    }
}

/// One image.
struct Weight<'a> {
    shape: ConvShape,
    x: &'a [f32],        // padded
    dy: &'a [f32],       // [blocks, pixels, L]
    sums: &'a mut [f32], // [blocks, k · k · c, L]
}

vectorized!(Weight => run_weight);

#[inline(always)]
fn run_weight<S: Simd, const R: usize, const NV: usize, const L: usize>(simd: S, image: Weight<'_>) {
    let Weight { shape, x, dy, sums } = image;
    let (row, (oh, ow)) = (shape.row(), shape.out_size());
    let blocks = dy.chunks_exact(oh * ow * L).zip(sums.chunks_exact_mut(row * shape.kernel * L));
    for (dy, sums) in blocks {
        let dy: &[[S::f32s; NV]] = S::as_simd_f32s(dy).0.as_chunks().0;
        let sums: &mut [[S::f32s; NV]] = S::as_mut_simd_f32s(sums).0.as_chunks_mut().0;
        for (ky, sums) in sums.chunks_exact_mut(row).enumerate() {
            let (whole, rest) = sums.as_chunks_mut::<R>();
            let behind = whole.len() * R;
            for (i, sums) in whole.iter_mut().enumerate() {
                add_pixels::<S, R, NV>(simd, (shape, ky, i * R), x, dy, sums);
            }
            for (i, sums) in rest.as_chunks_mut::<1>().0.iter_mut().enumerate() {
                add_pixels::<S, 1, NV>(simd, (shape, ky, behind + i), x, dy, sums);
            }
        }
    }
}

/// Adds all pixels to the sums of `R` numbers from `first` on of a row of the kernel.
#[inline(always)]
fn add_pixels<S: Simd, const R: usize, const NV: usize>(
    simd: S,
    (shape, ky, first): (ConvShape, usize, usize),
    x: &[f32],
    dy: &[[S::f32s; NV]],
    sums: &mut [[S::f32s; NV]; R],
) {
    let (_, ow) = shape.out_size();
    let mut local = *sums;
    for (oy, dy) in dy.chunks_exact(ow).enumerate() {
        let x = &x[shape.window(oy * ow, ow, ky) + first..];
        for (ox, dy) in dy.iter().enumerate() {
            let under: &[f32; R] =
                x[ox * shape.stride * shape.inputs..].first_chunk().expect("a window in the map");
            for r in 0..R {
                let factor = simd.splat_f32s(under[r]);
                for v in 0..NV {
                    local[r][v] = mul_add(simd, factor, dy[v], local[r][v]);
                }
            }
        }
    }
    *sums = local;
}
