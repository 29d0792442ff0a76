//! What the CRF loss alone makes of pictures: a code for every pixel, free to move, and nothing else.
//!
//! Codes start as `0.1 · N(0, 1)` and are moved by Adam against `CRF loss - w_g H(mean p) - w_l H(p)`. *Continuous* codes enter
//! the loss by their direction and know no entropies. *Discrete* ones are logits: `p = softmax(code)` enters the loss, `H(mean p)` is the entropy of
//! how often each region is used in all pictures, `H(p)` the mean entropy of a pixel. A step sees some pixels of every picture, drawn
//! from (seed, step, picture); entropies see all. A picture's share is computed on one thread and shares are added in their order.
//!
//! Unlike in training ([`crate::stego::CrfLoss::gradient`]) there is no grid of patches and no resizing: places are pixels of the picture as it is. The
//! spreads that are used in training, fractions of a pixel of a map of 56, let some thousand pixels of a picture know nothing of
//! each other, and without a shift all codes may be the same; the study's defaults ([`CrfStudy`]) are wider, and have one.

mod entropies;
mod picture;
mod settings;

use ndarray::{Array2, ArrayView3};
use probe::adam_step;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::entropies::{entropy, usage};
use self::picture::Picture;
pub use self::settings::{CodeKind, Colours, CrfStudy};
use crate::stego::error::{Error, Result, expect_finite};
use crate::stego::unit::{make_unit, through_unit};

/// The loss of a step and its parts, before the step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StudyStep {
    /// Number of the step, from 1 on.
    pub step: usize,
    /// What is made small.
    pub loss: f64,
    /// The CRF loss.
    pub crf: f64,
    /// `H(mean p)` in nats, of discrete codes.
    pub global_entropy: Option<f64>,
    /// `H(p)` in nats, of discrete codes.
    pub local_entropy: Option<f64>,
}

/// A study on some pictures.
#[derive(Debug, Clone)]
pub struct StudyRun {
    study: CrfStudy,
    pictures: Vec<Picture>,
    step: usize,
}

/// One picture's share of a step.
struct Share {
    crf: f64,
    local: f64,
    grad: Vec<f32>,
}

impl StudyRun {
    /// Codes before the first step.
    ///
    /// * `images`: `[h, w, 3]`, red, green and blue; each may have a size of its own.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Shape`] or [`Error::Range`] for pictures or settings that cannot be.
    pub fn new(study: CrfStudy, images: &[ArrayView3<'_, u8>]) -> Result<Self> {
        study.check()?;
        if images.is_empty() || images.iter().any(|image| image.is_empty()) {
            return Err(Error::Empty("list of pictures, or a picture"));
        }
        let pictures = (0..)
            .zip(images)
            .map(|(number, image)| Picture::start(&study, number, *image))
            .collect::<Result<_>>()?;
        Ok(Self { study, pictures, step: 0 })
    }

    /// Makes one step.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the loss is no number; codes are as before then.
    pub fn advance(&mut self) -> Result<StudyStep> {
        let (value, grads) = self.gradient()?;
        self.step += 1;
        let (rate, step) = (self.study.lr, i32::try_from(self.step).unwrap_or(i32::MAX));
        self.pictures.par_iter_mut().zip(grads).for_each(|(picture, grad)| {
            let moments = (&mut picture.mean[..], &mut picture.square[..]);
            adam_step((rate, step), &mut picture.codes, &grad, moments);
        });
        Ok(value)
    }

    /// Steps that were made.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.step
    }

    /// Number of pictures.
    #[must_use]
    pub fn pictures(&self) -> usize {
        self.pictures.len()
    }

    /// The codes of a picture as the loss sees them (directions, or probabilities): `[h·w, k]`, and `(h, w)`.
    ///
    /// # Panics
    /// If there is no such picture.
    #[must_use]
    pub fn codes(&self, picture: usize) -> (Array2<f32>, (usize, usize)) {
        let (Picture { codes, size, .. }, k) = (&self.pictures[picture], self.study.dim);
        let mut rows = codes.clone();
        self.study.shape(&mut rows);
        (Array2::from_shape_vec((size.0 * size.1, k), rows).expect("all pixels"), *size)
    }

    /// The largest number of every pixel's code, `[h, w]`: its region, where codes are discrete.
    ///
    /// # Panics
    /// If there is no such picture.
    #[must_use]
    pub fn regions(&self, picture: usize) -> Array2<u8> {
        let Picture { codes, size, .. } = &self.pictures[picture];
        let best = |row: &[f32]| {
            let above = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
            (0..row.len()).fold(0, above) as u8
        };
        let regions = codes.chunks_exact(self.study.dim).map(best).collect();
        Array2::from_shape_vec(*size, regions).expect("one region a pixel")
    }

    /// The next step's loss, and its gradient in the codes of every picture.
    fn gradient(&self) -> Result<(StudyStep, Vec<Vec<f32>>)> {
        let study = &self.study;
        let pixels: usize = self.pictures.iter().map(|picture| picture.colours.len() / 3).sum();
        let is_discrete = study.code == CodeKind::Discrete;
        let shaped: Vec<Vec<f32>> = self
            .pictures
            .par_iter()
            .map(|picture| {
                let mut rows = if is_discrete { picture.codes.clone() } else { Vec::new() };
                study.shape(&mut rows);
                rows
            })
            .collect();
        let usage = is_discrete.then(|| usage(&shaped, study.dim, pixels));
        let share = |number: usize| -> Result<Share> {
            self.share(number, &shaped[number], usage.as_deref(), pixels)
        };
        let shares: Vec<Share> =
            (0..self.pictures.len()).into_par_iter().map(share).collect::<Result<_>>()?;
        let crf: f64 = shares.iter().map(|share| share.crf).sum();
        let global = usage.as_deref().map(entropy);
        let local = is_discrete.then(|| shares.iter().map(|share| share.local).sum::<f64>());
        let of = |weight: f32, entropy: Option<f64>| f64::from(weight) * entropy.unwrap_or(0.0);
        let loss = crf - of(study.global_ent_weight, global) - of(study.local_ent_weight, local);
        let value = StudyStep {
            step: self.step + 1,
            loss: expect_finite("the loss of the study", loss)?,
            crf,
            global_entropy: global,
            local_entropy: local,
        };
        Ok((value, shares.into_iter().map(|share| share.grad).collect()))
    }

    /// * `shaped`: `[h·w, k]` probabilities of the picture, of discrete codes; `usage`: their mean over all pictures.
    fn share(&self, number: usize, shaped: &[f32], usage: Option<&[f64]>, pixels: usize) -> Result<Share> {
        let (study, picture) = (&self.study, &self.pictures[number]);
        let k = study.dim;
        let drawn = self.drawn(number);
        let (_, w) = picture.size;
        let places: Vec<[f32; 2]> = drawn.iter().map(|&at| [(at / w) as f32, (at % w) as f32]).collect();
        let colours: Vec<f32> =
            drawn.iter().flat_map(|&at| &picture.colours[3 * at..][..3]).copied().collect();
        let codes = &picture.codes;
        let source = if usage.is_some() { shaped } else { codes };
        let own: Vec<f32> = drawn.iter().flat_map(|&at| &source[k * at..][..k]).copied().collect();
        let mut rows = own.clone();
        if usage.is_none() {
            make_unit(&mut rows, k);
        }
        let (crf, mut slope) = study.crf.disagreement(&places, &colours, &rows, k, self.pictures.len());
        let mut grad = vec![0.0; codes.len()];
        if usage.is_none() {
            let all = slope.chunks_exact_mut(k).zip(rows.chunks_exact(k)).zip(own.chunks_exact(k));
            all.for_each(|((slope, unit), code)| through_unit(code, unit, slope));
        }
        for (slope, &at) in slope.chunks_exact(k).zip(&drawn) {
            grad[k * at..][..k].iter_mut().zip(slope).for_each(|(to, g)| *to += g);
        }
        let Some(usage) = usage else { return Ok(Share { crf, local: 0.0, grad }) };
        let local = study.through_softmax(shaped, usage, pixels, &mut grad);
        Ok(Share { crf, local, grad })
    }

    /// The pixels of a picture that the next step sees.
    fn drawn(&self, number: usize) -> Vec<usize> {
        let (h, w) = self.pictures[number].size;
        let mut rng = ChaCha8Rng::seed_from_u64(self.study.seed);
        // Streams below 2³² are the initial codes'.
        rng.set_stream(((self.step as u64 + 1) << 32) | number as u64);
        (0..self.study.crf.crf_samples).map(|_| rng.random_range(0..h * w)).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, s};

    use super::picture::START;
    use super::*;
    use crate::stego::CrfLoss;

    /// Two halves of different colour, with a little noise.
    fn image(h: usize, w: usize) -> Array3<u8> {
        Array3::from_shape_fn((h, w, 3), |(y, x, c)| {
            let base = if x < w / 2 { [200, 40, 40] } else { [30, 60, 220] }[c];
            base + ((y * 7 + x * 3 + c) % 9) as u8
        })
    }

    /// Mean cosine of codes within regions less that across them.
    fn contrast(codes: ndarray::ArrayView2<'_, f32>, labels: &[u8]) -> f64 {
        let mut sums = [(0.0, 0.0); 2];
        for (i, a) in codes.rows().into_iter().enumerate() {
            for (j, b) in codes.rows().into_iter().enumerate() {
                let (sum, count) = &mut sums[usize::from(labels[i] == labels[j])];
                *sum += f64::from(a.dot(&b));
                *count += 1.0;
            }
        }
        let [across, within] = sums.map(|(sum, count)| sum / count);
        within - across
    }

    fn study(code: CodeKind) -> CrfStudy {
        let crf = CrfLoss { crf_samples: 60, alpha: 40.0, beta: 0.02, gamma: 2.0, ..CrfLoss::default() };
        CrfStudy { crf, code, dim: 4, ..CrfStudy::default() }
    }

    fn run(study: CrfStudy) -> StudyRun {
        let (one, two) = (image(6, 8), image(5, 10));
        StudyRun::new(study, &[one.view(), two.view()]).unwrap()
    }

    fn nudged(run: &StudyRun, picture: usize, at: usize, by: f32) -> f64 {
        let mut run = run.clone();
        run.pictures[picture].codes[at] += by;
        run.gradient().unwrap().0.loss
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_whole_loss() {
        let entropies = CrfStudy {
            global_ent_weight: 0.7,
            local_ent_weight: -0.3,
            crf: CrfLoss { shift: 0.5, ..study(CodeKind::Discrete).crf },
            ..study(CodeKind::Discrete)
        };
        for study in [study(CodeKind::Continuous), study(CodeKind::Discrete), entropies] {
            let run = run(study.clone());
            let (_, grads) = run.gradient().unwrap();
            let largest = grads.iter().flatten().fold(0.0_f32, |most, g| most.max(g.abs()));
            assert!(largest > 0.0);
            for (picture, grad) in grads.iter().enumerate() {
                for at in (0..grad.len()).step_by(17) {
                    let slope = (nudged(&run, picture, at, 5e-3) - nudged(&run, picture, at, -5e-3)) / 1e-2;
                    let off = (slope - f64::from(grad[at])).abs();
                    assert!(
                        off < 0.02 * f64::from(largest),
                        "{study:?}: {picture} {at}: {slope} {}",
                        grad[at]
                    );
                }
            }
        }
    }

    /// The sum over all pairs, in `f64`.
    #[test]
    fn the_loss_is_its_formula() {
        let run = run(study(CodeKind::Continuous));
        let crf = run.study.crf;
        let mut want = 0.0;
        for number in 0..2 {
            let (codes, (_, w)) = run.codes(number);
            let drawn = run.drawn(number);
            let colours = &run.pictures[number].colours;
            for &a in &drawn {
                for &b in &drawn {
                    let place = |at: usize| ((at / w) as f64, (at % w) as f64);
                    let ((ya, xa), (yb, xb)) = (place(a), place(b));
                    let apart = (ya - yb).powi(2) + (xa - xb).powi(2);
                    let unlike: f64 =
                        (0..3).map(|c| f64::from(colours[3 * a + c] - colours[3 * b + c]).powi(2)).sum();
                    let [alpha, beta, gamma] = [crf.alpha, crf.beta, crf.gamma].map(f64::from);
                    let kernel = 10.0 * (-apart / (2.0 * alpha) - unlike / (2.0 * beta)).exp()
                        + 3.0 * (-apart / (2.0 * gamma)).exp();
                    want -= kernel * f64::from(codes.row(a).dot(&codes.row(b))) / (2.0 * 3600.0);
                }
            }
        }
        let got = run.gradient().unwrap().0;
        assert!((got.crf - want).abs() < 1e-5 * want.abs().max(1.0), "{} {want}", got.crf);
        assert_eq!((got.loss, got.global_entropy, got.step), (got.crf, None, 1));
    }

    #[test]
    fn colours_that_differ_part_and_entropies_are_obeyed() {
        let long = |study: CrfStudy, steps: usize| {
            let mut run = run(study);
            let first = run.advance().unwrap();
            let last = (1..steps).map(|_| run.advance().unwrap()).last().unwrap();
            assert!(last.loss < first.loss, "{first:?} {last:?}");
            (run, last)
        };
        let shifted = |code| {
            let base = study(code);
            CrfStudy { crf: CrfLoss { shift: 2.0, ..base.crf }, lr: 0.05, ..base }
        };
        let (run, _) = long(shifted(CodeKind::Continuous), 150);
        let labels: Vec<u8> = (0..48).map(|i| u8::from(i % 8 >= 4)).collect();
        let (codes, size) = run.codes(0);
        assert_eq!(size, (6, 8));
        assert!(contrast(codes.view(), &labels) > 1.0, "{}", contrast(codes.view(), &labels));

        let (run, _) = long(shifted(CodeKind::Discrete), 150);
        let regions = run.regions(0);
        let (left, right) = (regions.slice(s![.., ..4]), regions.slice(s![.., 4..]));
        assert!(left.iter().all(|r| r == left.first().unwrap()), "{regions}");
        assert!(right.iter().all(|r| r == right.first().unwrap() && r != left.first().unwrap()), "{regions}");

        let ent = |global, local| CrfStudy {
            global_ent_weight: global,
            local_ent_weight: local,
            ..shifted(CodeKind::Discrete)
        };
        let (_, decided) = long(ent(50.0, -50.0), 150);
        assert!(decided.local_entropy.unwrap() < 0.1, "{decided:?}");
        assert!(decided.global_entropy.unwrap() > 0.95 * 4.0_f64.ln(), "{decided:?}");
        let (_, torn) = long(ent(0.0, 50.0), 150);
        assert!(torn.local_entropy.unwrap() > 0.99 * 4.0_f64.ln(), "{torn:?}");
    }

    #[test]
    fn steps_are_the_same_on_any_number_of_threads() {
        let of = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut run = run(CrfStudy { global_ent_weight: 1.0, ..study(CodeKind::Discrete) });
                let steps: Vec<_> = (0..5).map(|_| run.advance().unwrap()).collect();
                (steps, run.codes(0), run.codes(1))
            })
        };
        let one = of(1);
        assert_eq!(of(2), one);
        assert_eq!(of(5), one);
        assert_eq!((one.0[4].step, one.0[0].global_entropy.is_some()), (5, true));
    }

    #[test]
    fn a_step_is_adams_from_codes_of_the_right_spread() {
        let mut run = run(CrfStudy { lr: 0.25, ..study(CodeKind::Continuous) });
        let codes = |run: &StudyRun| run.pictures[0].codes.clone();
        let before = codes(&run);
        let spread = (before.iter().map(|c| c * c).sum::<f32>() / before.len() as f32).sqrt();
        assert!((spread - START).abs() < 0.02, "{spread}");
        let (_, grads) = run.gradient().unwrap();
        run.advance().unwrap();
        for ((was, is), grad) in before.iter().zip(codes(&run)).zip(&grads[0]) {
            let moved = if *grad == 0.0 { 0.0 } else { 0.25 * grad.signum() };
            assert!((was - is - moved).abs() < 1e-2 || grad.abs() < 1e-6, "{was} {is} {grad}");
        }
        assert_eq!((run.steps(), run.pictures()), (1, 2));
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let refused = |study: CrfStudy| {
            StudyRun::new(study, &[image(4, 4).view()]).err().map(|error| error.to_string()).unwrap()
        };
        let base = study(CodeKind::Continuous);
        assert!(refused(CrfStudy { dim: 0, ..base.clone() }).contains("1 to 256"));
        assert!(refused(CrfStudy { lr: -1.0, ..base.clone() }).contains("learning rate"));
        assert!(refused(CrfStudy { local_ent_weight: 1.0, ..base.clone() }).contains("continuous"));
        let crf = CrfLoss { beta: 0.0, ..base.crf };
        assert!(refused(CrfStudy { crf, ..base.clone() }).contains("beta"));
        let crf = CrfLoss { crf_samples: 0, ..base.crf };
        assert!(refused(CrfStudy { crf, ..base.clone() }).contains("pixels"));
        assert!(StudyRun::new(base.clone(), &[]).is_err());
        assert!(StudyRun::new(base, &[Array3::zeros((3, 3, 4)).view()]).is_err());
    }
}
