//! SwAV's loss: every view predicts the assignments of the others.
//!
//! For the assigned views `c`, with assignments `q_c` `[B, K]`, the loss is the mean over `c` of the mean over the other views
//! `v ≠ c` of the mean over images of `-Σ_k q_c log softmax(o_v / T)`. Assignments are targets: no gradient goes through
//! them. Scores are view-major: all images of view 0, then of view 1, …

use kernels::{for_each_row, max, simd};
use rayon::prelude::*;

use crate::buffer::sized;

/// What the loss needs to know besides scores and assignments.
#[derive(Debug, Clone, Copy)]
pub struct SwappedShape<'a> {
    /// B: images.
    pub images: usize,
    /// V: views of each.
    pub views: usize,
    /// The views that have assignments, in their order.
    pub assigned: &'a [usize],
    /// T.
    pub temperature: f64,
}

/// The loss; the scores `[V · B, K]` become its gradient.
///
/// * `assignments`: `[assigned · B, K]`, rows that sum to 1.
/// * `losses`: `[V · B]`, scratch.
///
/// # Panics
/// If the shapes do not fit, or there are fewer than two views.
pub fn swapped_loss(
    scores: &mut [f32],
    assignments: &[f32],
    shape: SwappedShape<'_>,
    losses: &mut Vec<f32>,
) -> f64 {
    let SwappedShape { images, views, assigned, temperature } = shape;
    let k = assignments.len() / (assigned.len() * images).max(1);
    assert!(views >= 2 && scores.len() == views * images * k, "scores of {views} views of {images} images");
    let share = 1.0 / (assigned.len() * (views - 1) * images) as f64;
    let inverse = (1.0 / temperature) as f32;
    let losses = sized(losses, views * images);
    scores.par_chunks_mut(k.max(1)).zip(losses.par_iter_mut()).enumerate().for_each(
        |(row, (scores, loss))| {
            let (view, image) = (row / images, row % images);
            let others = assigned.iter().enumerate().filter(|(_, c)| **c != view);
            let targets: Vec<&[f32]> =
                others.map(|(place, _)| &assignments[(place * images + image) * k..][..k]).collect();
            *loss = simd(
                #[inline(always)]
                || row_loss(scores, &targets, inverse, share as f32),
            );
        },
    );
    losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() * share
}

/// `Σ_q CE(q, o / T)`; `o` becomes `share / T · (n softmax(o / T) - Σ_q q)`.
#[inline(always)]
fn row_loss(scores: &mut [f32], targets: &[&[f32]], inverse: f32, share: f32) -> f32 {
    let n = targets.len() as f32;
    let top = max(scores);
    let (mut sum, mut along) = (0.0_f64, 0.0_f64);
    for target in targets {
        for i in 0..scores.len() {
            along += f64::from(target[i]) * f64::from((scores[i] - top) * inverse);
        }
    }
    for score in scores.iter_mut() {
        *score = kernels::exp((*score - top) * inverse);
        sum += f64::from(*score);
    }
    let soft = (f64::from(n) / sum) as f32 * inverse * share;
    for score in scores.iter_mut() {
        *score *= soft;
    }
    for target in targets {
        for i in 0..scores.len() {
            scores[i] = target[i].mul_add(-inverse * share, scores[i]);
        }
    }
    (f64::from(n) * sum.ln() - along) as f32
}

/// Mean entropy of assignments in nats, and how many prototypes are some sample's largest.
#[must_use]
pub fn assignment_signs(assignments: &[f32], k: usize) -> (f64, usize) {
    let rows = assignments.len() / k.max(1);
    let mut used = vec![false; k];
    let mut entropy = 0.0;
    for row in assignments.chunks_exact(k) {
        let own = row.iter().filter(|q| **q > 0.0).map(|&q| f64::from(q) * f64::from(q).ln());
        entropy -= own.sum::<f64>();
        let (top, _) =
            row.iter().enumerate().fold((0, f32::MIN), |top, (i, &q)| if q > top.1 { (i, q) } else { top });
        used[top] = true;
    }
    (entropy / rows.max(1) as f64, used.iter().filter(|used| **used).count())
}

/// Rows of unit length; returns nothing for rows of length 0, which stay 0.
///
/// `x / max(‖x‖, 1e-12)`, as `torch.nn.functional.normalize`.
pub(crate) fn normalize_rows(x: &[f32], d: usize, unit: &mut Vec<f32>) {
    for_each_row(sized(unit, x.len()), d, |row, unit| {
        let x = &x[row * d..][..d];
        let scale = 1.0 / length(x).max(NORMALIZE_EPS);
        unit.iter_mut().zip(x).for_each(|(unit, x)| *unit = x * scale);
    });
}

/// The gradient through [`normalize_rows`], in place.
pub(crate) fn normalize_rows_backward(x: &[f32], unit: &[f32], d: usize, dunit: &mut [f32]) {
    for_each_row(dunit, d, |row, dunit| {
        let at = row * d..(row + 1) * d;
        let (length, unit) = (length(&x[at.clone()]), &unit[at]);
        let along = if length > NORMALIZE_EPS { dot(unit, dunit) } else { 0.0 };
        let scale = 1.0 / length.max(NORMALIZE_EPS);
        dunit.iter_mut().zip(unit).for_each(|(d, unit)| *d = scale * (*d - along * unit));
    });
}

/// Below this a vector counts as this long.
const NORMALIZE_EPS: f32 = 1e-12;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    simd(
        #[inline(always)]
        || kernels::dot(a, b),
    )
}

fn length(x: &[f32]) -> f32 {
    dot(x, x).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_assigned_view_is_not_predicted_by_itself() {
        // Two images, three views, two prototypes; only view 1 has assignments.
        let mut scores: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
        let before = scores.clone();
        let q = [1.0, 0.0, 0.25, 0.75];
        let shape = SwappedShape { images: 2, views: 3, assigned: &[1], temperature: 0.5 };
        let loss = swapped_loss(&mut scores, &q, shape, &mut Vec::new());
        assert_eq!(scores[4..8], [0.0; 4], "no gradient in the view itself");
        let mut expected = 0.0;
        for (row, q) in [(0, 0), (1, 1), (4, 0), (5, 1)] {
            let x = [before[2 * row], before[2 * row + 1]].map(|x| f64::from(x) / 0.5);
            let lse = (x[0].exp() + x[1].exp()).ln();
            expected -= (0..2).map(|k| [[1.0, 0.0], [0.25, 0.75]][q][k] * (x[k] - lse)).sum::<f64>() / 4.0;
        }
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
    }

    #[test]
    fn the_order_of_assigned_views_does_not_matter() {
        let scores: Vec<f32> = (0..4 * 3 * 7).map(|i| (i as f32 * 1.3).cos()).collect();
        let q: Vec<f32> = [[0.1, 0.2, 0.3, 0.05, 0.05, 0.2, 0.1]; 6].concat();
        let run = |assigned: &[usize], q: &[f32]| {
            let mut grads = scores.clone();
            let shape = SwappedShape { images: 3, views: 4, assigned, temperature: 0.1 };
            (swapped_loss(&mut grads, q, shape, &mut Vec::new()), grads)
        };
        let mut swapped = q[21..].to_vec();
        swapped.extend(&q[..21]);
        let (one, other) = (run(&[0, 2], &q), run(&[2, 0], &swapped));
        assert!((one.0 - other.0).abs() < 1e-9);
        assert!(one.1.iter().zip(&other.1).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn equal_scores_cost_ln_k() {
        let shape = SwappedShape { images: 2, views: 2, assigned: &[0, 1], temperature: 0.1 };
        let loss = swapped_loss(&mut [0.3; 4 * 8], &[1.0 / 8.0; 4 * 8], shape, &mut Vec::new());
        assert!((loss - 8f64.ln()).abs() < 1e-6);
        assert_eq!(assignment_signs(&[0.0, 1.0, 0.0, 1.0, 0.5, 0.5], 2), ((2f64.ln()) / 3.0, 2));
    }
}
