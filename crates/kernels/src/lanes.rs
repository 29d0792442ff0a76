//! Loops over one row whose sums run in 16 lanes, which are added in a fixed order: the same bits for any width of vectors.
//!
//! All of them are inlined into their caller, so that [`simd`](crate::simd) around it compiles them for this machine.

use crate::exp::exp;

/// Partial sums that run side by side.
pub const LANES: usize = 16;

/// `Σ a b`.
#[inline(always)]
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let whole = a.len() - a.len() % LANES;
    for (a, b) in a[..whole].chunks_exact(LANES).zip(b[..whole].chunks_exact(LANES)) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    for i in whole..a.len() {
        lanes[i - whole] = a[i].mul_add(b[i], lanes[i - whole]);
    }
    lanes.iter().sum()
}

/// The largest number; NaN counts as none.
#[inline(always)]
#[must_use]
pub fn max(row: &[f32]) -> f32 {
    let mut tops = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (top, &x) in tops.iter_mut().zip(chunk) {
            *top = if x > *top { x } else { *top };
        }
    }
    tops.iter().chain(rest).fold(f32::NEG_INFINITY, |top, &x| if x > top { x } else { top })
}

/// A row's softmax, in place.
#[inline(always)]
pub fn softmax(row: &mut [f32]) {
    let top = max(row);
    let mut sums = [0.0_f32; LANES];
    let mut chunks = row.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *x = exp(*x - top);
            *sum += *x;
        }
    }
    for (sum, x) in sums.iter_mut().zip(chunks.into_remainder()) {
        *x = exp(*x - top);
        *sum += *x;
    }
    let scale = 1.0 / sums.iter().sum::<f32>();
    for x in row {
        *x *= scale;
    }
}

/// Turns the gradient of softmax weights into that of the scores: `ds = p (dp - Σ p dp)`.
#[inline(always)]
pub(crate) fn softmax_backward(p: &[f32], dp: &mut [f32]) {
    let mean = dot(p, dp);
    for (dp, p) in dp.iter_mut().zip(p) {
        *dp = p * (*dp - mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows shorter and longer than the lanes, and not whole.
    #[test]
    fn rows_of_any_length() {
        for n in [1, 15, 16, 17, 50] {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 1.7).sin()).collect();
            let b: Vec<f32> = (0..n).map(|i| (i as f32 * 0.3).cos()).collect();
            let exact: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(dot(&a, &b)) - exact).abs() < 1e-5);
            assert_eq!(max(&a), a.iter().copied().fold(f32::MIN, f32::max));
            let sum: f64 = a.iter().map(|&a| f64::from(a).exp()).sum();
            let mut p = a.clone();
            softmax(&mut p);
            assert!(p.iter().zip(&a).all(|(p, &a)| (f64::from(*p) - f64::from(a).exp() / sum).abs() < 1e-6));
        }
    }
}
