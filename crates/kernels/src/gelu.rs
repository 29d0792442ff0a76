//! GELU as DINO uses it, with the error function: `x Φ(x)`, and its derivative `Φ(x) + x φ(x)`.
//!
//! `Φ(-|x|) = erfc(z) / 2` with `z = |x| / √2`, for which `exp(-z²)` times a polynomial in `1 / (1 + 0.3 z)` stands
//! (`tests/golden/kernels/erfc.py`): accurate to the last places also where GELU fades out, and the same exponential
//! serves `φ`.

use rayon::prelude::*;

use crate::dispatch::simd;
use crate::exp::exp;
use crate::rows::rows_per_task;

/// Fit of `erfc(z) exp(z²) / 2` in `t = 1 / (1 + 0.3 z)` without constant term, highest power first; off by 2e-8 of the value.
pub(crate) const COEFFICIENTS: [f32; 9] = [
    -0.064_717_05,
    0.242_548_24,
    -0.255_613_27,
    0.273_197_6,
    -0.046_815_667,
    0.107_218_154,
    0.074_241_21,
    0.085_345_97,
    0.084_594_81,
];

/// `1 / √(2π)`.
const DENSITY_AT_0: f32 = 0.398_942_3;

/// `(Φ(x), φ(x))` of the standard normal distribution.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / z.mul_add(0.3, 1.0);
    let mut poly = COEFFICIENTS[0];
    for &c in &COEFFICIENTS[1..] {
        poly = poly.mul_add(t, c);
    }
    let bell = exp(-0.5 * x * x);
    let tail = bell * poly * t;
    (if x > 0.0 { 1.0 - tail } else { tail }, bell * DENSITY_AT_0)
}

/// Writes `y = x Φ(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn gelu(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "as many outputs as inputs");
    let task = rows_per_task(1);
    y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
        simd(
            #[inline(always)]
            || {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = x * normal(x).0;
                }
            },
        );
    });
}

/// Turns `dy`, the gradient of `y`, into that of `x`.
///
/// # Panics
/// If the lengths differ.
pub fn gelu_backward(x: &[f32], dy: &mut [f32]) {
    assert_eq!(x.len(), dy.len(), "as many gradients as inputs");
    let task = rows_per_task(1);
    dy.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(dy, x)| {
        simd(
            #[inline(always)]
            || {
                for (dy, &x) in dy.iter_mut().zip(x) {
                    let (below, density) = normal(x);
                    *dy *= x.mul_add(density, below);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_known() {
        let x = [0.0, 1.0, -1.0, 3.0, -50.0, 50.0];
        let mut y = [f32::NAN; 6];
        gelu(&x, &mut y);
        let expected = [0.0, 0.841_344_7, -0.158_655_26, 2.995_950_3, 0.0, 50.0];
        for (got, want) in y.iter().zip(expected) {
            assert!((got - want).abs() < 3e-7, "{got} {want}");
        }
    }
}
