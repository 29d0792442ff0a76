//! The normal distribution and Student's: what intervals of the form `estimate ± quantile · error` need.
//!
//! `Φ` is Marsaglia's series (2004), `½ + φ(x) (x + x³/3 + x⁵/(3·5) + …)`. Student's with `ν` degrees of freedom comes from
//! `t = √ν tan θ`, which makes its density `cos^(ν−1) θ`: the share of an integral over a bounded range. Both are inverted by
//! bisection. They are called a few times per interval, so nothing here is made fast.

use std::f64::consts::{FRAC_PI_2, PI};

/// Degrees of freedom from which an expansion about the normal is exact to more digits than the integral.
const MANY: f64 = 500.0;

/// Share of a standard normal below `x`.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-18 {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    (0.5 + sum * (-0.5 * x * x).exp() / (2.0 * PI).sqrt()).clamp(0.0, 1.0)
}

/// The value below which a share `p` of a standard normal lies; infinite at 0 and 1.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    match p {
        p if p <= 0.0 => f64::NEG_INFINITY,
        p if p >= 1.0 => f64::INFINITY,
        p => bisect(-8.0, 8.0, |x| normal_cdf(x) < p),
    }
}

/// The value below which a share `p` in `(0, 1)` of Student's distribution with `freedom ≥ 1` lies.
pub(crate) fn student_quantile(p: f64, freedom: f64) -> f64 {
    if freedom > MANY {
        let (z, v) = (normal_quantile(p), freedom); // Cornish and Fisher
        return z
            + (z.powi(3) + z) / (4.0 * v)
            + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v);
    }
    freedom.sqrt() * bisect(-FRAC_PI_2, FRAC_PI_2, |angle| below(angle, freedom) < p).tan()
}

/// Share of Student's distribution with `freedom ≥ 1` below `t`.
pub(crate) fn student_cdf(t: f64, freedom: f64) -> f64 {
    if freedom > MANY {
        let v = freedom; // Abramowitz and Stegun, 26.7.8
        return normal_cdf(t * (1.0 - 0.25 / v) / (1.0 + t * t / (2.0 * v)).sqrt());
    }
    below((t / freedom.sqrt()).atan(), freedom)
}

/// Share below `√ν tan angle`.
fn below(angle: f64, freedom: f64) -> f64 {
    0.5 + 0.5 * integral(angle.abs(), freedom) / integral(FRAC_PI_2, freedom) * angle.signum()
}

/// `∫ cos^(ν−1)` from 0 to `to`, by Simpson's rule.
fn integral(to: f64, freedom: f64) -> f64 {
    const STEPS: usize = 1000;
    let f = |i: usize| (to * i as f64 / STEPS as f64).cos().max(0.0).powf(freedom - 1.0);
    let inner: f64 = (1..STEPS).map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (f(0) + inner + f(STEPS)) * to / (3 * STEPS) as f64
}

/// Where `low` changes from true to false between two ends.
fn bisect(mut from: f64, mut to: f64, low: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..60 {
        let middle = 0.5 * (from + to);
        if low(middle) { from = middle } else { to = middle }
    }
    0.5 * (from + to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_the_tables() {
        assert!((normal_quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-12);
        assert!((normal_cdf(-3.0) - 0.001_349_898_031_630_095).abs() < 1e-15);
        for (freedom, expected) in [
            (1.0, 12.706_204_736_432_095),
            (2.0, 4.302_652_729_911_275),
            (9.0, 2.262_157_162_740_992),
            (99.0, 1.984_216_951_543_4),
            (499.0, 1.964_729_390_987_5),
            (501.0, 1.964_710_325_127_3),
            (1e6, 1.959_966_356_883_2),
        ] {
            let got = student_quantile(0.975, freedom);
            assert!((got - expected).abs() < 2e-6 * expected, "{got} for {expected}");
            assert!((student_quantile(0.025, freedom) + got).abs() < 1e-9 * got);
            assert!((student_cdf(got, freedom) - 0.975).abs() < 1e-6, "{freedom}");
        }
    }

    #[test]
    fn the_ends_are_infinite_and_the_middle_is_zero() {
        assert_eq!((normal_quantile(0.0), normal_quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(normal_quantile(0.5).abs() < 1e-15 && student_quantile(0.5, 3.5).abs() < 1e-12);
        assert_eq!((normal_cdf(-9.0), normal_cdf(9.0)), (0.0, 1.0));
    }
}
