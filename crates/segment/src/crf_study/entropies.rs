//! The entropies of discrete codes: how often each region is used in all pictures, and how undecided a pixel is.

use rayon::prelude::*;

use super::settings::CrfStudy;

impl CrfStudy {
    /// Adds the entropies' slope to the one in `p`, and turns it into the slope in the logits; gives the picture's share of `H(p)`.
    ///
    /// `dH(mean p)/dp = -(ln mean p + 1)/n` and `dH(p)/dp = -(ln p + 1)/n` for `n` pixels in all.
    pub(super) fn through_softmax(&self, p: &[f32], usage: &[f64], pixels: usize, grad: &mut [f32]) -> f64 {
        let share = 1.0 / pixels as f64;
        let global: Vec<f32> = usage
            .iter()
            .map(|&p| {
                (f64::from(self.global_ent_weight) * share * (p.max(f64::MIN_POSITIVE).ln() + 1.0)) as f32
            })
            .collect();
        let local = (f64::from(self.local_ent_weight) * share) as f32;
        let mut sum = 0.0;
        for (p, grad) in p.chunks_exact(self.dim).zip(grad.chunks_exact_mut(self.dim)) {
            let mut along = 0.0;
            for ((g, &p), global) in grad.iter_mut().zip(p).zip(&global) {
                let log = p.max(f32::MIN_POSITIVE).ln();
                sum -= f64::from(p * log);
                *g += global + local * (log + 1.0);
                along += p * *g;
            }
            grad.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - along));
        }
        sum * share
    }
}

/// The mean of all rows `[n, k]`, in their order.
pub(super) fn usage(rows: &[Vec<f32>], k: usize, n: usize) -> Vec<f64> {
    let sums: Vec<Vec<f64>> = rows
        .par_iter()
        .map(|rows| {
            let mut sums = vec![0.0; k];
            for row in rows.chunks_exact(k) {
                sums.iter_mut().zip(row).for_each(|(sum, &p)| *sum += f64::from(p));
            }
            sums
        })
        .collect();
    let mut mean = vec![0.0; k];
    sums.iter().for_each(|sums| mean.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum));
    mean.iter_mut().for_each(|p| *p /= n as f64);
    mean
}

/// `-Σ p ln p`.
pub(super) fn entropy(p: &[f64]) -> f64 {
    p.iter().filter(|&&p| p > 0.0).map(|&p| -p * p.ln()).sum()
}
