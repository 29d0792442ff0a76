//! Signs of health and of collapse, from the teacher's targets.
//!
//! For a teacher's row `p` and a student's `q` the cross-entropy is `H(p, q) = h(p) + KL(p ‖ q)`. Over a batch: `h̄` the mean
//! entropy, `h_marg` the entropy of the mean target, and the information `I = h_marg - h̄`, about the logarithm of the number of
//! groups that are told apart. A healthy run has `KL > 0` and `I > 0`. Both go to 0 in either collapse, and `h̄` tells which:
//! near `ln K` all outputs are equal, near 0 one output dominates.

use std::collections::VecDeque;
use std::fmt;

/// `I` and `KL` below this, for [`Watch::WINDOW`] steps, are a collapse.
const LIMIT: f64 = 0.05;

/// Numbers of one step, entropies in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signs {
    /// h̄: mean entropy of the teacher's targets, 0 to `ln K`.
    pub teacher_entropy: f64,
    /// KL̄: what remains of the loss.
    pub kl: f64,
    /// Entropy of the mean target.
    pub marginal_entropy: f64,
    /// `I = h_marg - h̄`.
    pub information: f64,
    /// Share of rows whose largest target is the most frequent one.
    pub top_share: f64,
    /// `‖c‖₂`.
    pub center_norm: f64,
    /// Effective rank of what the teacher's head reads in this batch: `(Σ λ)² / Σ λ²` over the eigenvalues of its covariance.
    pub feature_rank: f64,
}

/// Sums over the teacher's rows of a step.
#[derive(Debug)]
pub(crate) struct TargetSums {
    mean: Vec<f32>,   // [K]
    counts: Vec<u32>, // [K]
    entropy: f64,
    rows: usize,
}

impl TargetSums {
    pub(crate) fn new(out_dim: usize) -> Self {
        Self { mean: vec![0.0; out_dim], counts: vec![0; out_dim], entropy: 0.0, rows: 0 }
    }

    /// * `targets`: `[rows, K]`; `entropies`: `[rows]`.
    pub(crate) fn add(&mut self, targets: &[f32], entropies: &[f32]) {
        kernels::add_column_sums(targets, &mut self.mean);
        self.entropy += entropies.iter().map(|&h| f64::from(h)).sum::<f64>();
        self.rows += entropies.len();
        for row in targets.chunks_exact(self.mean.len()) {
            let (top, _) = row
                .iter()
                .enumerate()
                .fold((0, f32::MIN), |top, (i, &p)| if p > top.1 { (i, p) } else { top });
            self.counts[top] += 1;
        }
    }

    /// As [`TargetSums::add`], of column sums `[K]`, each row's largest column and the sum of entropies.
    pub(crate) fn add_sums(&mut self, sums: &[f32], tops: &[u32], entropy: f64) {
        self.mean.iter_mut().zip(sums).for_each(|(mean, sum)| *mean += sum);
        tops.iter().for_each(|&top| self.counts[top as usize] += 1);
        self.entropy += entropy;
        self.rows += tops.len();
    }

    pub(crate) fn signs(&self, loss: f64, center_norm: f64, feature_rank: f64) -> Signs {
        let rows = self.rows as f64;
        let teacher_entropy = self.entropy / rows;
        let mean = self.mean.iter().map(|&p| f64::from(p) / rows).filter(|p| *p > 0.0);
        let marginal_entropy = -mean.map(|p| p * p.ln()).sum::<f64>();
        let top = self.counts.iter().max().copied().unwrap_or(0);
        Signs {
            teacher_entropy,
            kl: loss - teacher_entropy,
            marginal_entropy,
            information: marginal_entropy - teacher_entropy,
            top_share: f64::from(top) / rows,
            center_norm,
            feature_rank,
        }
    }
}

/// The participation ratio `(Σ λ)² / Σ λ²` of the eigenvalues of the features' covariance: 1 if they lie on a line, `d` if they
/// spread evenly.
///
/// * `features`: `[n, d]`. It is read off the `n x n` matrix of inner products, which has the same eigenvalues.
pub(crate) fn effective_rank(features: &[f32], d: usize) -> f64 {
    let n = features.len() / d;
    let mut mean = vec![0.0; d];
    kernels::add_column_sums(features, &mut mean);
    let mut centered = features.to_vec();
    kernels::for_each_row(&mut centered, d, |_, row| {
        row.iter_mut().zip(&mean).for_each(|(x, sum)| *x -= sum / n as f32);
    });
    let mut gram = vec![0.0; n * n];
    let x = kernels::Matrix::new(&centered, n, d);
    kernels::gemm(kernels::MatrixMut::new(&mut gram, n, n), 0.0, 1.0, x, x.t(), kernels::Threads::All);
    let trace: f64 = gram.iter().step_by(n + 1).map(|&x| f64::from(x)).sum();
    let squares: f64 = gram.iter().map(|&x| f64::from(x).powi(2)).sum();
    if squares > 0.0 { trace * trace / squares } else { 0.0 }
}

/// The kinds of collapse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collapse {
    /// All outputs are equal: the loss is `ln K`.
    Uniform,
    /// One output dominates: the loss goes to 0.
    OneDimension,
}

impl fmt::Display for Collapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uniform => {
                "collapse to uniform outputs: the loss stays at ln K and the teacher no longer tells images apart. \
                 Lower teacher.temp (sharper targets), raise backbone.init_std for narrow networks, or lower optimizer.lr"
            }
            Self::OneDimension => {
                "collapse to one dimension: a single output dominates and the loss goes to 0. Strengthen centring (lower \
                 loss.center_momentum, which must be below 1) or raise teacher.temp"
            }
        })
    }
}

/// Watches the last steps and tells when they have collapsed.
#[derive(Debug, Default)]
pub struct Watch {
    recent: VecDeque<(f64, f64, f64)>,
    told: bool,
}

impl Watch {
    /// Steps over which the signs must be bad: a healthy run may pass through a phase that looks like one of them.
    pub const WINDOW: usize = 300;

    /// Takes note of a step; names a collapse once, when the last [`Watch::WINDOW`] steps, all after the warm-up, show it.
    ///
    /// * `out_dim`: K.
    pub fn observe(&mut self, signs: &Signs, out_dim: usize, is_warm: bool) -> Option<Collapse> {
        if !is_warm {
            return None;
        }
        self.recent.push_back((signs.information, signs.kl, signs.teacher_entropy));
        if self.recent.len() > Self::WINDOW {
            self.recent.pop_front();
        }
        let n = self.recent.len() as f64;
        let mean = |part: fn(&(f64, f64, f64)) -> f64| self.recent.iter().map(part).sum::<f64>() / n;
        let has_collapsed =
            self.recent.len() == Self::WINDOW && mean(|r| r.0) < LIMIT && mean(|r| r.1) < LIMIT;
        if !has_collapsed || self.told {
            self.told &= has_collapsed;
            return None;
        }
        self.told = true;
        let is_uniform = mean(|r| r.2) > 0.5 * (out_dim as f64).ln();
        Some(if is_uniform { Collapse::Uniform } else { Collapse::OneDimension })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(targets: &[f32], k: usize, loss: f64) -> Signs {
        let entropy = |row: &[f32]| -row.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f32>();
        let entropies: Vec<f32> = targets.chunks_exact(k).map(entropy).collect();
        let mut sums = TargetSums::new(k);
        sums.add(targets, &entropies);
        sums.signs(loss, 0.0, 1.0)
    }

    #[test]
    fn information_is_the_logarithm_of_the_number_of_groups() {
        let four_groups: Vec<f32> =
            (0..8).flat_map(|row| (0..16).map(move |k| f32::from(k == row % 4))).collect();
        let signs = signs(&four_groups, 16, 0.3);
        assert!((signs.information - 4f64.ln()).abs() < 1e-6 && signs.teacher_entropy.abs() < 1e-6);
        assert!((signs.kl - 0.3).abs() < 1e-6 && (signs.top_share - 0.25).abs() < 1e-12);
    }

    #[test]
    fn each_collapse_is_named_once_and_only_after_the_window() {
        let uniform = signs(&[1.0 / 16.0; 64], 16, 16f64.ln());
        let one = signs(&[1.0, 0.0, 0.0, 0.0].repeat(4), 4, 0.001);
        for (signs, kind, k) in [(uniform, Collapse::Uniform, 16), (one, Collapse::OneDimension, 4)] {
            let mut watch = Watch::default();
            assert_eq!(watch.observe(&signs, k, false), None);
            let told: Vec<_> =
                (0..2 * Watch::WINDOW).filter_map(|_| watch.observe(&signs, k, true)).collect();
            assert_eq!(told, [kind]);
        }
    }

    #[test]
    fn rank_of_a_line_and_of_a_cross() {
        let line: Vec<f32> = (0..10).flat_map(|i| [i as f32, 2.0 * i as f32, 0.0]).collect();
        assert!((effective_rank(&line, 3) - 1.0).abs() < 1e-5);
        let cross = [1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0];
        assert!((effective_rank(&cross, 2) - 2.0).abs() < 1e-5);
        assert_eq!(effective_rank(&[3.0; 8], 2), 0.0);
    }
}
