//! The normal distribution in double precision, which GELU is measured by.

/// `Φ(x)` by its series or continued fraction.
pub(crate) fn normal(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let half_erfc = if z < 2.5 {
        let (mut term, mut sum, mut n) = (z, z, 0.0);
        while f64::abs(term) > 1e-18 {
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
