//! Sinkhorn–Knopp: scores of samples and prototypes to soft assignments that use all prototypes alike.
//!
//! `E = exp(o / ε)` for scores `o`, `[M, K]`, is scaled by a factor for each sample and one for each prototype until every sample
//! holds `1 / M` of the mass and every prototype about `1 / K`. A round scales prototypes, then samples; the last
//! word is the samples', so that rows of the result, `Q = M · diag(a) E diag(b)`, sum to 1 while columns are only close to
//! `M / K`. `E` itself never changes: a round is two products of `E` with a vector.
//!
//! Forms: the published one; the older one by marginals, which may replace infinities by the largest finite number
//! ("shoot infs"); and one in logarithms, which neither overflows nor loses a prototype at small `ε`. In `f32`, `exp` overflows
//! for cosines once `ε < 0.0113`; with the maximum subtracted a prototype may lose all its mass once `ε < 0.0194`.
//! `E` is kept in `f32` as published, factors and sums in `f64`.

use kernels::{for_each_row, simd};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::buffer::sized;

/// How the iteration is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkhornForm {
    /// As published last: rows and columns in turn.
    #[default]
    Current,
    /// As published first: by target marginals, samples once more at the end.
    Marginals,
    /// The same in logarithms, in double precision.
    Log,
}

/// The settings of the assignment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sinkhorn {
    /// How the iteration is written.
    pub form: SinkhornForm,
    /// ε: the smaller, the harder the assignment.
    pub epsilon: f64,
    /// Rounds.
    pub iterations: usize,
    /// Whether infinities are replaced by the largest finite number of the same table ([`SinkhornForm::Marginals`] only).
    pub shoot_infs: bool,
    /// Whether the largest score is taken off all of them before `exp`, which changes nothing but the range.
    pub subtract_max: bool,
}

impl Default for Sinkhorn {
    fn default() -> Self {
        Self {
            form: SinkhornForm::Current,
            epsilon: 0.05,
            iterations: 3,
            shoot_infs: false,
            subtract_max: false,
        }
    }
}

/// Tables that are kept from step to step.
#[derive(Debug, Default)]
pub struct SinkhornBuffers {
    table: Vec<f32>,      // [M, K], E or o / ε
    samples: Vec<f64>,    // [M], a
    prototypes: Vec<f64>, // [K], b
}

/// Columns that are summed side by side.
const COLUMNS: usize = 64;

impl Sinkhorn {
    /// Assignments `[last, K]` of the last `last` samples, written to `out`; the others, a queue's, only take part. Whether
    /// all are finite: if not, the scores are out of range for this form and `ε`.
    ///
    /// * `scores`: `[M, K]`.
    ///
    /// # Panics
    /// If `scores` is not a table of `k` columns, or has fewer than `last` rows.
    #[must_use]
    pub fn assign(
        &self,
        scores: &[f32],
        k: usize,
        last: usize,
        buffers: &mut SinkhornBuffers,
        out: &mut Vec<f32>,
    ) -> bool {
        let m = scores.len() / k.max(1);
        assert!(k > 0 && scores.len() == m * k && last <= m, "{} scores of {k} prototypes", scores.len());
        let out = sized(out, last * k);
        if m == 0 {
            return true;
        }
        match self.form {
            SinkhornForm::Log => self.in_logarithms(scores, k, buffers),
            SinkhornForm::Current | SinkhornForm::Marginals => self.by_factors(scores, k, buffers),
        }
        let SinkhornBuffers { table, samples, prototypes } = &*buffers;
        let first = m - last;
        for_each_row(out, k, |row, out| {
            let (table, a) = (&table[(first + row) * k..][..k], samples[first + row]);
            for ((out, &x), b) in out.iter_mut().zip(table).zip(prototypes) {
                *out = match self.form {
                    SinkhornForm::Log => (f64::from(x) + a + b).exp() as f32,
                    _ => (f64::from(x) * b * a) as f32,
                };
            }
        });
        out.iter().all(|q| q.is_finite())
    }

    /// Factors `a` (times `M`) and `b` for `table = exp(o / ε)`.
    fn by_factors(&self, scores: &[f32], k: usize, buffers: &mut SinkhornBuffers) {
        let m = scores.len() / k;
        let SinkhornBuffers { table, samples, prototypes } = buffers;
        let top = if self.subtract_max { scores.iter().copied().fold(f32::MIN, f32::max) } else { 0.0 };
        let epsilon = self.epsilon as f32;
        for_each_row(sized(table, m * k), k, |row, out| {
            exp_row(&scores[row * k..][..k], top / epsilon, epsilon, out);
        });
        let shoots = self.shoot_infs && self.form == SinkhornForm::Marginals;
        if shoots {
            shoot(table);
        }
        let table = &*table;
        sized(samples, m).fill(1.0);
        column_sums(table, samples, k, sized(prototypes, k));
        let total: f64 = prototypes.iter().sum();
        samples.fill(m as f64 / total);
        prototypes.iter_mut().for_each(|sum| *sum /= total); // what each prototype holds of all the mass
        let mut held = prototypes.clone();
        prototypes.fill(1.0);
        for _ in 0..self.iterations {
            let mut share: Vec<f64> = held.iter().map(|held| 1.0 / (k as f64 * held)).collect();
            if shoots {
                shoot(&mut share);
            }
            prototypes.iter_mut().zip(&share).for_each(|(b, share)| *b *= share);
            scale_samples(table, prototypes, samples);
            // The products of the old factors with what the prototypes now hold: `Σ_m a_m E_mk b_k / M`.
            column_sums(table, samples, k, &mut held);
            held.iter_mut().zip(&*prototypes).for_each(|(held, b)| *held *= b / m as f64);
        }
        if self.form == SinkhornForm::Marginals {
            scale_samples(table, prototypes, samples); // the form's last normalisation
        }
    }

    /// Logarithms of the factors, `a` (times `M`) and `b`, for `table = o / ε`.
    fn in_logarithms(&self, scores: &[f32], k: usize, buffers: &mut SinkhornBuffers) {
        let m = scores.len() / k;
        let SinkhornBuffers { table, samples, prototypes } = buffers;
        let inverse = (1.0 / self.epsilon) as f32;
        let table = sized(table, m * k);
        table.iter_mut().zip(scores).for_each(|(x, score)| *x = score * inverse);
        let table = &*table;
        sized(prototypes, k).fill(0.0);
        let total = log_sum_exp(table.iter().map(|&x| f64::from(x)));
        sized(samples, m).fill((m as f64).ln() - total);
        for _ in 0..self.iterations {
            let a = &*samples;
            prototypes.par_iter_mut().enumerate().for_each(|(column, b)| {
                let held = log_sum_exp((0..m).map(|row| f64::from(table[row * k + column]) + a[row]));
                *b = (m as f64 / k as f64).ln() - held;
            });
            let b = &*prototypes;
            samples.par_iter_mut().enumerate().for_each(|(row, a)| {
                let values = table[row * k..][..k].iter().zip(b);
                *a = -log_sum_exp(values.map(|(&x, b)| f64::from(x) + b));
            });
        }
    }
}

/// `exp(o / ε - top)`, with the overflow and underflow of `f32`.
fn exp_row(scores: &[f32], top: f32, epsilon: f32, out: &mut [f32]) {
    let wild = scores.iter().any(|&score| !(-87.0..=88.0).contains(&(score / epsilon - top)));
    if wild {
        out.iter_mut().zip(scores).for_each(|(out, score)| *out = (score / epsilon - top).exp());
        return;
    }
    simd(
        #[inline(always)]
        || {
            for (out, &score) in out.iter_mut().zip(scores) {
                *out = kernels::exp(score / epsilon - top);
            }
        },
    );
}

/// `Σ_m a_m E_mk` for each column, row after row.
fn column_sums(table: &[f32], samples: &[f64], k: usize, sums: &mut [f64]) {
    sums.par_chunks_mut(COLUMNS).enumerate().for_each(|(block, sums)| {
        simd(
            #[inline(always)]
            || {
                sums.fill(0.0);
                for (row, a) in samples.iter().enumerate() {
                    let numbers = &table[row * k + block * COLUMNS..][..sums.len()];
                    for (sum, &x) in sums.iter_mut().zip(numbers) {
                        *sum += a * f64::from(x);
                    }
                }
            },
        );
    });
}

/// `a_m = 1 / Σ_k E_mk b_k`.
fn scale_samples(table: &[f32], prototypes: &[f64], samples: &mut [f64]) {
    let k = prototypes.len();
    samples.par_iter_mut().enumerate().for_each(|(row, a)| {
        *a = simd(
            #[inline(always)]
            || {
                let mut lanes = [0.0_f64; 8];
                let (whole, rest) = table[row * k..][..k].as_chunks::<8>();
                let (factors, last) = prototypes.as_chunks::<8>();
                for (x, b) in whole.iter().zip(factors) {
                    for lane in 0..8 {
                        lanes[lane] += f64::from(x[lane]) * b[lane];
                    }
                }
                for lane in 0..rest.len() {
                    lanes[lane] += f64::from(rest[lane]) * last[lane];
                }
                1.0 / lanes.iter().sum::<f64>()
            },
        );
    });
}

fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if !top.is_finite() {
        return top;
    }
    top + values.map(|x| (x - top).exp()).sum::<f64>().ln()
}

/// Replaces infinities by the largest finite number.
fn shoot<T: Copy + PartialOrd + Into<f64>>(values: &mut [T]) {
    let is_infinite = |x: T| x.into().is_infinite();
    let mut finite = values.iter().copied().filter(|&x| x.into().is_finite());
    let Some(first) = finite.next() else { return };
    let top = finite.fold(first, |top, x| if x > top { x } else { top });
    values.iter_mut().filter(|x| is_infinite(**x)).for_each(|x| *x = top);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sin(i + off)`.
    fn s(n: usize, off: f64) -> Vec<f32> {
        (0..n).map(|i| (i as f64 + off).sin() as f32).collect()
    }

    fn run(sinkhorn: Sinkhorn, scores: &[f32], k: usize) -> Vec<f32> {
        let mut out = Vec::new();
        let finite = sinkhorn.assign(scores, k, scores.len() / k, &mut SinkhornBuffers::default(), &mut out);
        assert!(finite, "{out:?}");
        out
    }

    fn forms() -> [Sinkhorn; 4] {
        let plain = Sinkhorn::default();
        [
            plain,
            Sinkhorn { subtract_max: true, ..plain },
            Sinkhorn { form: SinkhornForm::Marginals, shoot_infs: true, ..plain },
            Sinkhorn { form: SinkhornForm::Log, ..plain },
        ]
    }

    fn close(got: &[f32], want: &[f32], limit: f32) {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < limit), "{got:?} {want:?}");
    }

    /// Specification 4.6.
    #[test]
    fn three_rounds_are_the_originals_and_a_hundred_share_evenly() {
        let scores: Vec<f32> = s(12, 0.0).iter().map(|x| 0.2 * x).collect();
        let want = [
            0.022_598, 0.612_314, 0.365_088, 0.969_932, 0.025_004, 0.005_064, 0.009_203, 0.364_551,
            0.626_245, 0.978_548, 0.019_985, 0.001_466,
        ];
        let sums = |q: &[f32]| [0, 1, 2].map(|k| q.iter().skip(k).step_by(3).sum::<f32>());
        for form in forms() {
            let got = run(form, &scores, 3);
            close(&got, &want, 2e-6);
            close(&sums(&got), &[1.980_282, 1.021_854, 0.997_864], 1e-5);
            let many = run(Sinkhorn { iterations: 100, ..form }, &scores, 3);
            close(&sums(&many), &[4.0 / 3.0; 3], 1e-5);
        }
    }

    #[test]
    fn rows_are_shares_whatever_is_added_and_however_samples_are_ordered() {
        let (m, k) = (40, 17);
        let scores = s(m * k, 0.3);
        for form in forms() {
            let q = run(form, &scores, k);
            for row in q.chunks_exact(k) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6 && row.iter().all(|&q| q >= 0.0));
            }
            let shifted: Vec<f32> = scores.iter().map(|x| x + 0.5).collect();
            close(&run(form, &shifted, k), &q, 2e-5);
            let reversed: Vec<f32> = scores.chunks_exact(k).rev().flatten().copied().collect();
            let back: Vec<f32> = run(form, &reversed, k).chunks_exact(k).rev().flatten().copied().collect();
            close(&back, &q, 1e-6);
        }
    }

    #[test]
    fn equal_features_are_shared_evenly() {
        for form in forms() {
            close(&run(form, &[0.7; 6 * 8], 8), &[1.0 / 8.0; 48], 1e-7);
            close(&run(form, &[0.3], 1), &[1.0], 1e-7); // one sample, one prototype
        }
    }

    /// Only logarithms survive an ε at which `exp` overflows or a prototype loses all mass; the others say so.
    #[test]
    fn what_overflows_is_told_and_logarithms_do_not() {
        let (m, k) = (8, 4);
        let mut scores = s(m * k, 1.0);
        scores.chunks_exact_mut(k).for_each(|row| row[3] = -1.0); // a prototype that nobody is near
        scores[0] = 1.0;
        let hard = |form: Sinkhorn| Sinkhorn { epsilon: 0.01, ..form };
        let (mut buffers, mut out) = (SinkhornBuffers::default(), Vec::new());
        let [plain, subtracted, shooting, log] = forms().map(hard);
        assert!(!plain.assign(&scores, k, m, &mut buffers, &mut out));
        assert!(!subtracted.assign(&scores, k, m, &mut buffers, &mut out));
        assert!(shooting.assign(&scores, k, m, &mut buffers, &mut out));
        assert!(log.assign(&scores, k, m, &mut buffers, &mut out));
        let many = Sinkhorn { iterations: 500, ..log };
        assert!(many.assign(&scores, k, m, &mut buffers, &mut out));
        let lonely: f32 = out.iter().skip(3).step_by(k).sum();
        assert!((lonely - 2.0).abs() < 0.05, "{lonely} of 8 samples, evenly shared 2");
    }

    #[test]
    fn the_last_rows_are_those_of_the_whole_table() {
        let (k, scores) = (5, s(55, 2.0));
        let whole = run(Sinkhorn::default(), &scores, k);
        let mut out = Vec::new();
        assert!(Sinkhorn::default().assign(&scores, k, 3, &mut SinkhornBuffers::default(), &mut out));
        assert_eq!(out, whole[8 * k..]);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let (k, scores) = (130, s(300 * 130, 0.1));
        for form in forms() {
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| run(form, &scores, k))
            };
            let one = with(1);
            assert!([2, 5].into_iter().all(|threads| with(threads) == one));
        }
    }
}
