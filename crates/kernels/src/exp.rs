//! `exp` in `f32` that compilers turn into vector instructions: no table, no branch, no call.
//!
//! `x = n ln 2 + r` with `|r| <= ln 2 / 2`, so that `exp(x) = 2ⁿ exp(r)`; a polynomial stands for `exp(r)`, and `2ⁿ` is
//! written into the exponent bits. The same polynomial as the probes' (`tests/golden/probe/exp.py`), with fused
//! multiply-adds.

/// Added to and taken from a number below 2²², it leaves that number rounded to an integer, which is then also found in
/// the low bits of the sum.
pub(crate) const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³

/// ln 2 in two parts, the first with so few bits that `n · LN_2_HIGH` is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Fit of `(exp(r) - 1 - r) / r²`, highest power first.
const COEFFICIENTS: [f32; 5] = [0.001_381_454, 0.008_368_745, 0.041_668_39, 0.166_665_21, 0.499_999_94];

/// `exp(x)`, at most two units in the last place off, for `x` clamped to `[-87, 88]`. NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    // Written as comparisons, because `clamp` and `max` treat NaN in ways that cost instructions.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let [a, b, c, d, e] = COEFFICIENTS;
    let tail = a.mul_add(r, b).mul_add(r, c).mul_add(r, d).mul_add(r, e);
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    tail.mul_add(r * r, r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_two_units_of_the_last_place() {
        let worst = (-870_000..=880_000).map(|i| i as f32 * 1e-4).fold(0.0, |worst: f64, x| {
            let exact = f64::from(x).exp();
            let unit = f64::from((exact as f32).next_up() - exact as f32);
            worst.max((f64::from(exp(x)) - exact).abs() / unit)
        });
        assert!(worst <= 2.0, "{worst} units off");
    }

    #[test]
    fn exact_at_zero_and_tame_at_the_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert_eq!(exp(1e9), exp(88.0));
        assert!(exp(f32::NAN).is_nan());
    }
}
