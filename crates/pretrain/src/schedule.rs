//! The schedules of DINO: arrays over the iterations of a run.
//!
//! A linear warm-up *with its end point*, then a cosine that starts there again and never quite arrives: with `w` iterations of
//! warm-up out of `n`, value `i >= w` is `final + (base - final) (1 + cos(π (i - w) / (n - w))) / 2`. All in double
//! precision, as numpy computes it.

use std::f64::consts::PI;

/// `n` values: from `start` to `base` in `warmup` of them, then a cosine towards `end`.
#[must_use]
pub fn cosine_schedule(base: f64, end: f64, n: usize, warmup: usize, start: f64) -> Vec<f64> {
    let warmup = warmup.min(n);
    let rest = n - warmup;
    let cosine = (0..rest).map(|i| end + 0.5 * (base - end) * (1.0 + (PI * i as f64 / rest as f64).cos()));
    linspace(start, base, warmup).chain(cosine).collect()
}

/// The teacher's temperature in each epoch: `warmup` values up to `end` (included), then `end`.
#[must_use]
pub fn teacher_temperatures(start: f64, end: f64, warmup: usize, epochs: usize) -> Vec<f64> {
    let warmup = warmup.min(epochs);
    linspace(start, end, warmup).chain(std::iter::repeat_n(end, epochs - warmup)).collect()
}

/// `n` values from `start` to `end`, both included.
fn linspace(start: f64, end: f64, n: usize) -> impl Iterator<Item = f64> {
    let step = (end - start) / (n.max(2) - 1) as f64;
    (0..n).map(move |i| if i + 1 == n && n > 1 { end } else { start + i as f64 * step })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Specification 4.6: base 1, final 0.1, 5 epochs of 4, warm-up of 2 epochs.
    #[test]
    fn warm_up_joint_and_end_are_those_of_the_original() {
        let got = cosine_schedule(1.0, 0.1, 20, 8, 0.0);
        let want = [
            0.0, 0.142857, 0.285714, 0.428571, 0.571429, 0.714286, 0.857143, 1.0, 1.0, 0.984667, 0.939711,
            0.868198, 0.775, 0.666469, 0.55, 0.433531, 0.325, 0.231802, 0.160289, 0.115333,
        ];
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{got:?}");
        let momentum = cosine_schedule(0.996, 1.0, 1000, 0, 0.0);
        assert!((momentum[250] - 0.996_585_79).abs() < 1e-8 && (momentum[500] - 0.998).abs() < 1e-12);
    }

    #[test]
    fn the_temperature_reaches_its_end_within_the_warm_up() {
        assert_eq!(teacher_temperatures(0.04, 0.07, 0, 2), [0.07, 0.07]);
        let warm = teacher_temperatures(0.04, 0.07, 4, 6);
        assert_eq!((warm[0], warm[3], warm[5], warm.len()), (0.04, 0.07, 0.07, 6));
        assert_eq!(teacher_temperatures(0.04, 0.07, 1, 2), [0.04, 0.07]);
    }
}
