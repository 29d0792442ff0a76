//! Elementary functions of vectors.

use pulp::Simd;

use crate::exp::ROUND;
use crate::gelu::COEFFICIENTS as TAIL;
use crate::level::mul_add;

/// Fit of `2^f` for `|f| <= 1/2`, highest power first (`tests/golden/kernels/exp2.py`).
#[expect(clippy::approx_constant, reason = "a fit, near the series but not equal to it")]
const EXP2: [f32; 6] = [0.001_326_472_7, 0.009_671_513, 0.055_507_336, 0.240_222_42, 0.693_147, 1.0];

/// `2^x` for `x <= 127`; below -126 it stays at `2^-126`. NaN stays NaN.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let least = simd.splat_f32s(-126.0);
    // A comparison, because what minima and maxima make of NaN differs between machines.
    let x = simd.select_f32s(simd.less_than_f32s(x, least), least, x);
    let round = simd.splat_f32s(ROUND);
    let shifted = simd.add_f32s(x, round);
    let f = simd.sub_f32s(x, simd.sub_f32s(shifted, round));
    let mut power = simd.splat_f32s(EXP2[0]);
    for c in &EXP2[1..] {
        power = mul_add(simd, power, f, simd.splat_f32s(*c));
    }
    // The integer part goes into the exponent.
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(power), exponent))
}

/// GELU with the error function: `x Φ(x)`.
#[inline(always)]
pub(super) fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |c: f32| simd.splat_f32s(c);
    let z = simd.mul_f32s(simd.abs_f32s(x), splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = simd.div_f32s(splat(1.0), mul_add(simd, z, splat(0.3), splat(1.0)));
    let mut poly = splat(TAIL[0]);
    for c in &TAIL[1..] {
        poly = mul_add(simd, poly, t, splat(*c));
    }
    let half_square = simd.mul_f32s(simd.mul_f32s(x, x), splat(-0.5 * std::f32::consts::LOG2_E));
    let tail = simd.mul_f32s(simd.mul_f32s(exp2(simd, half_square), poly), t); // Φ(-|x|)
    let above = simd.greater_than_f32s(x, splat(0.0));
    simd.mul_f32s(x, simd.select_f32s(above, simd.sub_f32s(splat(1.0), tail), tail))
}

/// `ln x` for positive normal numbers; NaN stays NaN. What it makes of zero, infinity and negative numbers is no logarithm.
///
/// `x = m 2^e` with `m` between `√½` and `√2`, and `ln m = 2 (s + s³/3 + s⁵/5 + …)` with `s = (m - 1) / (m + 1)`.
#[inline(always)]
pub(crate) fn ln<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const SQRT_HALF: u32 = std::f32::consts::FRAC_1_SQRT_2.to_bits();
    let splat = |c: f32| simd.splat_f32s(c);
    let bits = simd.sub_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(SQRT_HALF));
    // The exponent, with its sign: shifted by 256 beforehand, and read as a number through the bits of 2²³.
    let exponent =
        simd.wrapping_dyn_shr_u32s(simd.add_u32s(bits, simd.splat_u32s(256 << 23)), simd.splat_u32s(23));
    let exponent = simd.and_u32s(exponent, simd.splat_u32s(511));
    let exponent = simd.transmute_f32s_u32s(simd.or_u32s(exponent, simd.splat_u32s(0x4b00_0000)));
    let exponent = simd.sub_f32s(exponent, splat(8_388_608.0 + 256.0));
    let mantissa =
        simd.add_u32s(simd.and_u32s(bits, simd.splat_u32s(0x007f_ffff)), simd.splat_u32s(SQRT_HALF));
    let m = simd.transmute_f32s_u32s(mantissa);
    let s = simd.div_f32s(simd.sub_f32s(m, splat(1.0)), simd.add_f32s(m, splat(1.0)));
    let square = simd.mul_f32s(s, s);
    let mut series = splat(1.0 / 9.0);
    for c in [1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0] {
        series = mul_add(simd, series, square, splat(c));
    }
    let ln_m = simd.mul_f32s(simd.mul_f32s(s, splat(2.0)), series);
    let result = mul_add(simd, exponent, splat(std::f32::consts::LN_2), ln_m);
    simd.select_f32s(simd.equal_f32s(x, x), result, x)
}
