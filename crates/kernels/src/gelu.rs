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

    /// `erfc` by its continued fraction or series, in double precision.
    fn normal_exact(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        let half_erfc = if z < 2.5 {
            let (mut term, mut sum, mut n) = (z, z, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= -z * z / n;
                sum += term / (2.0 * n + 1.0);
            }
            0.5 - sum / std::f64::consts::PI.sqrt()
        } else {
            let fraction = (1..200).rev().fold(0.0, |f, k| f64::from(k) / 2.0 / (z + f));
            (-z * z).exp() / std::f64::consts::PI.sqrt() / (z + fraction) / 2.0
        };
        if x > 0.0 { 1.0 - half_erfc } else { half_erfc }
    }

    #[test]
    fn the_distribution_function_is_exact_to_single_precision_in_both_tails() {
        let worst = (-120_000..120_000).map(|i| i as f32 * 1e-4).fold(0.0, |worst: f64, x| {
            let exact = normal_exact(f64::from(x));
            worst.max((f64::from(normal(x).0) - exact).abs() / exact)
        });
        // In the tail the exponent's rounding counts: x²/2 = 72 has a unit of 8e-6.
        assert!(worst < 1e-5, "{worst}");
        let near = (-30_000..30_000).map(|i| i as f32 * 1e-4).fold(0.0, |worst: f64, x| {
            let exact = normal_exact(f64::from(x));
            worst.max((f64::from(normal(x).0) - exact).abs() / exact)
        });
        assert!(near < 1e-6, "{near}");
    }

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

    #[test]
    fn the_gradient_is_the_slope() {
        let x: Vec<f32> = (-60..60).map(|i| i as f32 * 0.1 + 0.05).collect();
        let mut dy = vec![2.0; x.len()];
        gelu_backward(&x, &mut dy);
        for (&x, &got) in x.iter().zip(&dy) {
            let (x, h) = (f64::from(x), 1e-5);
            let f = |x: f64| x * normal_exact(x);
            let slope = 2.0 * (f(x + h) - f(x - h)) / (2.0 * h);
            assert!((f64::from(got) - slope).abs() < 1e-6, "{x} {got} {slope}");
        }
    }
}
