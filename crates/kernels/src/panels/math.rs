//! Elementary functions of vectors, `N` at a time.
//!
//! One alone would wait for its own results, step after step. Of several the steps alternate, which is also what a polynomial's
//! loop is for: without it compilers do one vector after another again.

use std::hint::black_box;

use pulp::Simd;

use crate::exp::ROUND;
use crate::gelu::COEFFICIENTS as TAIL;
use crate::level::mul_add;

/// Fit of `2^f` for `|f| <= 1/2`, highest power first (`tests/golden/kernels/exp2.py`).
#[expect(clippy::approx_constant, reason = "a fit, near the series but not equal to it")]
const EXP2: [f32; 6] = [0.001_326_472_7, 0.009_671_513, 0.055_507_336, 0.240_222_42, 0.693_147, 1.0];

/// `Σ_i c_i x^(n - 1 - i)`, highest power first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, coefficients: &[f32], x: &[S::f32s; N]) -> [S::f32s; N] {
    let mut sums = [simd.splat_f32s(coefficients[0]); N];
    let mut step = |c: f32| {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = mul_add(simd, *sum, *x, simd.splat_f32s(c));
        }
    };
    if N < 4 {
        coefficients[1..].iter().for_each(|&c| step(c));
    } else {
        // Not unrolled, since the compiler does not know how many there are.
        black_box(&coefficients[1..]).iter().for_each(|&c| step(c));
    }
    sums
}

/// `2^x` for `x <= 127`; below -126 it stays at `2^-126`. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp2<S: Simd, const N: usize>(simd: S, mut x: [S::f32s; N]) -> [S::f32s; N] {
    let (least, round) = (simd.splat_f32s(-126.0), simd.splat_f32s(ROUND));
    let mut exponents = x;
    for (x, exponent) in x.iter_mut().zip(&mut exponents) {
        // A comparison, because what minima and maxima make of NaN differs between machines.
        *x = simd.select_f32s(simd.less_than_f32s(*x, least), least, *x);
        *exponent = simd.add_f32s(*x, round);
        *x = simd.sub_f32s(*x, simd.sub_f32s(*exponent, round));
    }
    let mut powers = polynomial(simd, &EXP2, &x);
    for (power, exponent) in powers.iter_mut().zip(exponents) {
        // The integer part goes into the exponent.
        let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(exponent), simd.splat_u32s(23));
        *power = simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(*power), exponent));
    }
    powers
}

/// GELU with the error function: `x Φ(x)`.
#[inline(always)]
pub(super) fn gelu<S: Simd, const N: usize>(simd: S, mut x: [S::f32s; N]) -> [S::f32s; N] {
    let splat = |c: f32| simd.splat_f32s(c);
    let mut half_squares = x;
    for square in &mut half_squares {
        *square = simd.mul_f32s(simd.mul_f32s(*square, *square), splat(-0.5 * std::f32::consts::LOG2_E));
    }
    let bells = exp2(simd, half_squares);
    let mut t = x;
    for t in &mut t {
        let z = simd.mul_f32s(simd.abs_f32s(*t), splat(std::f32::consts::FRAC_1_SQRT_2));
        *t = simd.div_f32s(splat(1.0), mul_add(simd, z, splat(0.3), splat(1.0)));
    }
    let polynomials = polynomial(simd, &TAIL, &t);
    for (((x, t), polynomial), bell) in x.iter_mut().zip(t).zip(polynomials).zip(bells) {
        let tail = simd.mul_f32s(simd.mul_f32s(bell, polynomial), t); // Φ(-|x|)
        let above = simd.greater_than_f32s(*x, splat(0.0));
        *x = simd.mul_f32s(*x, simd.select_f32s(above, simd.sub_f32s(splat(1.0), tail), tail));
    }
    x
}

/// `ln x` for positive normal numbers; NaN stays NaN. What it makes of zero, infinity and negative numbers is no logarithm.
///
/// `x = m 2^e` with `m` between `√½` and `√2`, and `ln m = 2 (s + s³/3 + s⁵/5 + …)` with `s = (m - 1) / (m + 1)`.
#[inline(always)]
pub(crate) fn ln<S: Simd, const N: usize>(simd: S, mut x: [S::f32s; N]) -> [S::f32s; N] {
    const SQRT_HALF: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();
    const SERIES: [f32; 5] = [1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0];
    let splat = |c: f32| simd.splat_f32s(c);
    let (mut exponents, mut s) = (x, x);
    for ((exponent, s), x) in exponents.iter_mut().zip(&mut s).zip(x) {
        let bits = simd.sub_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(SQRT_HALF));
        // The exponent, with its sign: shifted by 256 beforehand, and read as a number through the bits of 2²³.
        let shifted =
            simd.wrapping_dyn_shr_u32s(simd.add_u32s(bits, simd.splat_u32s(256 << 23)), simd.splat_u32s(23));
        let shifted = simd.and_u32s(shifted, simd.splat_u32s(511));
        let shifted = simd.transmute_f32s_u32s(simd.or_u32s(shifted, simd.splat_u32s(0x4b00_0000)));
        *exponent = simd.sub_f32s(shifted, splat(8_388_608.0 + 256.0));
        let mantissa =
            simd.add_u32s(simd.and_u32s(bits, simd.splat_u32s(0x007f_ffff)), simd.splat_u32s(SQRT_HALF));
        let m = simd.transmute_f32s_u32s(mantissa);
        *s = simd.div_f32s(simd.sub_f32s(m, splat(1.0)), simd.add_f32s(m, splat(1.0)));
    }
    let mut squares = s;
    squares.iter_mut().for_each(|s| *s = simd.mul_f32s(*s, *s));
    let series = polynomial(simd, &SERIES, &squares);
    for (((x, exponent), s), series) in x.iter_mut().zip(exponents).zip(s).zip(series) {
        let ln_m = simd.mul_f32s(simd.mul_f32s(s, splat(2.0)), series);
        let result = mul_add(simd, exponent, splat(std::f32::consts::LN_2), ln_m);
        *x = simd.select_f32s(simd.equal_f32s(*x, *x), result, *x);
    }
    x
}
