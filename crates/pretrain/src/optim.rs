//! The optimisers on one vector of parameters, and what happens to gradients before.
//!
//! Clipping is per tensor. A frozen tensor's step is skipped altogether: it neither moves nor decays, and its moments and its
//! count of steps stay, so that Adam's bias correction is right after it thaws.

use kernels::{LANES, simd};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::params::{Layout, TensorSpec};

/// Numbers per task where a vector is worked on in parallel; sums over tasks are added in order.
const TASK: usize = 16 * 1024;

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay; β 0.9 and 0.999, ε 1e-8.
    Adamw,
    /// Momentum 0.9; weight decay is added to the gradient.
    Sgd,
    /// Layer-wise adaptive rates for large batches of convolutional networks; momentum 0.9, η 1e-3.
    Lars,
    /// SGD with momentum 0.9 on gradients that are scaled per tensor, as SwAV trains (LARC); trust 1e-3.
    Larc,
}

/// An optimiser and its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Optimizer {
    kind: OptimizerKind,
    /// First moments (AdamW), or velocities.
    pub(crate) first: Vec<f32>,
    /// Second moments (AdamW); empty for the others.
    pub(crate) second: Vec<f32>,
    /// Steps that each tensor has taken.
    pub(crate) steps: Vec<u64>,
    floats: Vec<f32>, // the same, as PyTorch stores them
}

/// The values of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSize {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay of the tensors that have one.
    pub weight_decay: f64,
}

impl Optimizer {
    /// A fresh state for the parameters of a layout.
    #[must_use]
    pub fn new(kind: OptimizerKind, layout: &Layout) -> Self {
        let second = if kind == OptimizerKind::Adamw { vec![0.0; layout.len()] } else { Vec::new() };
        let tensors = layout.tensors().len();
        let (steps, floats) = (vec![0; tensors], vec![0.0; tensors]);
        Self { kind, first: vec![0.0; layout.len()], second, steps, floats }
    }

    /// Which optimiser this is.
    #[must_use]
    pub fn kind(&self) -> OptimizerKind {
        self.kind
    }

    /// First moments (AdamW), or velocities; they lie like the parameters.
    #[must_use]
    pub fn first(&self) -> &[f32] {
        &self.first
    }

    /// Second moments (AdamW); empty for the others.
    #[must_use]
    pub fn second(&self) -> &[f32] {
        &self.second
    }

    /// Steps that each tensor has taken, in the order of the layout.
    #[must_use]
    pub fn steps(&self) -> &[u64] {
        &self.steps
    }

    /// As [`Optimizer::steps`], as PyTorch stores them.
    pub(crate) fn counts_as_floats(&self) -> &[f32] {
        &self.floats
    }

    /// Puts the counts back.
    pub(crate) fn set_steps(&mut self, steps: Vec<u64>) {
        self.floats = steps.iter().map(|&steps| steps as f32).collect();
        self.steps = steps;
    }

    /// Moves the parameters, except tensors that are frozen.
    pub fn step(
        &mut self,
        layout: &Layout,
        params: &mut [f32],
        grads: &[f32],
        size: StepSize,
        frozen: impl Fn(&TensorSpec) -> bool,
    ) {
        self.step_decaying(layout, params, grads, size, |tensor| !tensor.is_exempt_from_decay(), frozen);
    }

    /// As [`Optimizer::step`], with another rule for which tensors decay.
    pub fn step_decaying(
        &mut self,
        layout: &Layout,
        params: &mut [f32],
        grads: &[f32],
        size: StepSize,
        decays: impl Fn(&TensorSpec) -> bool,
        frozen: impl Fn(&TensorSpec) -> bool,
    ) {
        for ((tensor, steps), float) in layout.tensors().iter().zip(&mut self.steps).zip(&mut self.floats) {
            if frozen(tensor) {
                continue;
            }
            *steps += 1;
            *float = *steps as f32;
            let weight_decay = if decays(tensor) { size.weight_decay } else { 0.0 };
            let (p, g) = (tensor.slot.of_mut(params), tensor.slot.of(grads));
            let first = tensor.slot.of_mut(&mut self.first);
            match self.kind {
                OptimizerKind::Adamw => {
                    let second = tensor.slot.of_mut(&mut self.second);
                    adamw(p, g, first, second, AdamStep::new(size.lr, weight_decay, *steps));
                }
                OptimizerKind::Sgd => sgd(p, g, first, size.lr as f32, weight_decay as f32, *steps == 1),
                OptimizerKind::Lars => {
                    let adapt = tensor.shape.len() > 1;
                    lars(p, g, first, size.lr as f32, if adapt { weight_decay as f32 } else { 0.0 }, adapt);
                }
                OptimizerKind::Larc => larc(p, g, first, size.lr as f32, size.weight_decay as f32),
            }
        }
    }
}

/// The factors of one AdamW step, from double precision.
#[derive(Debug, Clone, Copy)]
struct AdamStep {
    keep: f32,
    size: f32,
    root: f32,
}

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const ADAM_EPS: f32 = 1e-8;

impl AdamStep {
    fn new(lr: f64, weight_decay: f64, step: u64) -> Self {
        let power = |beta: f64| 1.0 - beta.powf(step as f64);
        Self {
            keep: (1.0 - lr * weight_decay) as f32,
            size: (lr / power(0.9)) as f32,
            root: (1.0 / power(0.999).sqrt()) as f32,
        }
    }
}

/// `p ← p (1 - lr wd) - lr m̂ / (√v̂ + ε)`.
fn adamw(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], step: AdamStep) {
    let state = m.par_chunks_mut(TASK).zip(v.par_chunks_mut(TASK)).zip(g.par_chunks(TASK));
    p.par_chunks_mut(TASK).zip(state).for_each(|(p, ((m, v), g))| {
        simd(
            #[inline(always)]
            || {
                for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
                    *m += (1.0 - BETA_1) * (g - *m);
                    *v = BETA_2 * *v + (1.0 - BETA_2) * (g * g);
                    *p = *p * step.keep - step.size * *m / (v.sqrt() * step.root + ADAM_EPS);
                }
            },
        );
    });
}

/// PyTorch's SGD: the first velocity is the gradient itself.
fn sgd(p: &mut [f32], g: &[f32], velocity: &mut [f32], lr: f32, weight_decay: f32, is_first: bool) {
    let keep = if is_first { 0.0 } else { 0.9 };
    for ((p, v), &g) in p.iter_mut().zip(velocity).zip(g) {
        *v = keep * *v + (g + weight_decay * *p);
        *p -= lr * *v;
    }
}

/// The velocity holds gradients scaled by `η ‖p‖ / ‖g + wd p‖` (1 if either is 0); the rate multiplies at the end.
fn lars(p: &mut [f32], g: &[f32], velocity: &mut [f32], lr: f32, weight_decay: f32, adapt: bool) {
    let decayed = |p: f32, g: f32| g + weight_decay * p;
    let mut trust = 1.0;
    if adapt {
        let length = norm(p);
        let update = p.iter().zip(g).map(|(&p, &g)| f64::from(decayed(p, g)).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 && update > 0.0 {
            trust = (1e-3 * length / update) as f32;
        }
    }
    for ((p, v), &g) in p.iter_mut().zip(velocity).zip(g) {
        *v = 0.9 * *v + trust * decayed(*p, g);
        *p -= lr * *v;
    }
}

/// Gradients are scaled by `a = 1e-3 ‖p‖ / (‖g‖ + wd ‖p‖ + 1e-8)` with their decay, `a (g + wd p)`, biases and norms included.
/// A tensor whose norm, or whose gradient's, is 0 takes its gradient as it is.
fn larc(p: &mut [f32], g: &[f32], velocity: &mut [f32], lr: f32, weight_decay: f32) {
    let (length, slope, decay) = (norm(p), norm(g), f64::from(weight_decay));
    let (mut trust, mut weight_decay) = (1.0, weight_decay);
    if length > 0.0 && slope > 0.0 {
        trust = (1e-3 * length / (slope + decay * length + 1e-8)) as f32;
    } else {
        weight_decay = 0.0;
    }
    for ((p, v), &g) in p.iter_mut().zip(velocity).zip(g) {
        *v = 0.9 * *v + trust * (g + weight_decay * *p);
        *p -= lr * *v;
    }
}

/// Scales every tensor's gradient to a norm of at most `clip`, each on its own; returns the norms from before.
///
/// The factor is `clip / (‖g‖ + 1e-6)` where that is below 1. A `clip` of 0 changes nothing.
pub fn clip_gradients(layout: &Layout, grads: &mut [f32], clip: f64) -> Vec<f64> {
    let clip_one = |tensor: &TensorSpec| {
        let grad = tensor.slot.of_mut(grads);
        let length = norm(grad);
        let factor = clip / (length + 1e-6);
        if clip > 0.0 && factor < 1.0 {
            let factor = factor as f32;
            grad.par_chunks_mut(TASK).for_each(|part| part.iter_mut().for_each(|g| *g *= factor));
        }
        length
    };
    layout.tensors().iter().map(clip_one).collect()
}

/// `‖v‖₂`, the same for any number of threads.
fn norm(v: &[f32]) -> f64 {
    v.par_chunks(TASK).map(sum_of_squares).collect::<Vec<f64>>().iter().sum::<f64>().sqrt()
}

/// `Σ v²`, in lanes that are added in order.
fn sum_of_squares(v: &[f32]) -> f64 {
    simd(
        #[inline(always)]
        || {
            let mut lanes = [0.0; LANES];
            let (whole, rest) = v.as_chunks::<LANES>();
            for chunk in whole {
                for (sum, &x) in lanes.iter_mut().zip(chunk) {
                    *sum += f64::from(x) * f64::from(x);
                }
            }
            for (sum, &x) in lanes.iter_mut().zip(rest) {
                *sum += f64::from(x) * f64::from(x);
            }
            lanes.iter().sum()
        },
    )
}

/// The teacher follows the student: `θ_t ← m θ_t + (1 - m) θ_s`.
pub fn ema(teacher: &mut [f32], student: &[f32], momentum: f64) {
    let (keep, take) = (momentum as f32, (1.0 - momentum) as f32);
    teacher.par_chunks_mut(TASK).zip(student.par_chunks(TASK)).for_each(|(teacher, student)| {
        simd(
            #[inline(always)]
            || {
                for (t, s) in teacher.iter_mut().zip(student) {
                    *t = keep * *t + take * *s;
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `S(shape; off)` of the specification: sin(i + off).
    fn s(n: usize, off: f64) -> Vec<f32> {
        (0..n).map(|i| (i as f64 + off).sin() as f32).collect()
    }

    fn layout(shape: &[usize]) -> Layout {
        let mut layout = Layout::default();
        layout.add("w.weight", shape);
        layout
    }

    fn close(got: &[f32], want: &[f32]) {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 2e-6), "{got:?} {want:?}");
    }

    /// Specification 4.6.
    #[test]
    fn adamw_takes_the_steps_of_the_reference() {
        let layout = layout(&[2, 2]);
        let mut optimizer = Optimizer::new(OptimizerKind::Adamw, &layout);
        let mut p = s(4, 1.0);
        let size = StepSize { lr: 0.01, weight_decay: 0.04 };
        optimizer.step(&layout, &mut p, &s(4, 5.0), size, |_| false);
        close(&p, &[0.851_134, 0.918_934, 0.131_064, -0.766_5]);
        optimizer.step(&layout, &mut p, &s(4, 6.0), size, |_| false);
        close(&p, &[0.859_309, 0.914_339, 0.121_106, -0.775_241]);
    }

    #[test]
    fn what_is_frozen_keeps_its_state_and_its_count() {
        let mut layout = Layout::default();
        layout.add("a.weight", &[2, 2]);
        layout.add("last_layer.weight_v", &[2, 2]);
        let size = StepSize { lr: 0.01, weight_decay: 0.4 };
        let mut optimizer = Optimizer::new(OptimizerKind::Adamw, &layout);
        let mut p = [s(4, 1.0), s(4, 1.0)].concat();
        let is_last = |tensor: &TensorSpec| tensor.name.contains("last_layer");
        for step in 0..3 {
            optimizer.step(&layout, &mut p, &s(8, f64::from(step)), size, is_last);
            assert_eq!(p[4..], s(4, 1.0));
        }
        // The first step after thawing is a first step.
        let g = [s(4, 5.0), s(4, 5.0)].concat();
        optimizer.step(&layout, &mut p, &g, StepSize { weight_decay: 0.04, ..size }, |_| false);
        close(&p[4..], &[0.851_134, 0.918_934, 0.131_064, -0.766_5]);
    }

    #[test]
    fn decay_spares_biases_and_vectors_only() {
        let mut layout = Layout::default();
        layout.add("backbone.cls_token", &[1, 1, 3]);
        layout.add("backbone.norm.weight", &[3]);
        layout.add("head.mlp.0.bias", &[3]);
        layout.add("head.last_layer.weight_v", &[1, 3]);
        let exempt: Vec<bool> = layout.tensors().iter().map(TensorSpec::is_exempt_from_decay).collect();
        assert_eq!(exempt, [false, true, true, false]);
    }

    #[test]
    fn clipping_is_per_tensor() {
        let mut layout = Layout::default();
        layout.add("long.weight", &[3]);
        layout.add("short.weight", &[2]);
        let mut g = vec![30.0, 0.0, 40.0, 0.3, 0.4];
        let norms = clip_gradients(&layout, &mut g, 3.0);
        assert!((norms[0] - 50.0).abs() < 1e-9 && (norms[1] - 0.5).abs() < 1e-6);
        close(&g, &[1.8, 0.0, 2.4, 0.3, 0.4]);
        let before = g.clone();
        clip_gradients(&layout, &mut g, 0.0);
        assert_eq!(g, before);
    }

    #[test]
    fn lars_leaves_vectors_unscaled_and_matrices_trusted() {
        let mut layout = Layout::default();
        layout.add("w.weight", &[2, 2]);
        layout.add("w.bias", &[2]);
        let mut optimizer = Optimizer::new(OptimizerKind::Lars, &layout);
        let mut p = [s(4, 1.0), vec![0.0; 2]].concat();
        let g = [s(4, 7.0), s(2, 3.0)].concat();
        optimizer.step(&layout, &mut p, &g, StepSize { lr: 0.5, weight_decay: 1e-6 }, |_| false);
        close(&p[..4], &[0.841_121, 0.908_771, 0.140_901, -0.756_513]);
        close(&p[4..], &[-0.070_56, 0.378_401]);
        // The second step has momentum; a vector's is plain: v = 0.9 v + g.
        let before = p[4..].to_vec();
        let next = [s(4, 8.0), s(2, 4.0)].concat();
        optimizer.step(&layout, &mut p, &next, StepSize { lr: 0.5, weight_decay: 1e-6 }, |_| false);
        close(&p[..4], &[0.840_345, 0.908_104, 0.140_957, -0.755_786]);
        let plain = |i: usize| before[i] - 0.5 * (0.9 * g[4 + i] + next[4 + i]);
        close(&p[4..], &[plain(0), plain(1)]);
    }

    /// Specification 4.6: a tensor at 0 moves freely in its first step and is trusted from the second on.
    #[test]
    fn larc_scales_every_tensor_that_has_a_length() {
        let mut layout = Layout::default();
        layout.add("w.weight", &[2, 2]);
        layout.add("w.bias", &[2]);
        let mut optimizer = Optimizer::new(OptimizerKind::Larc, &layout);
        let mut p = [s(4, 1.0), vec![0.0; 2]].concat();
        let size = StepSize { lr: 0.5, weight_decay: 1e-6 };
        optimizer.step(&layout, &mut p, &[s(4, 7.0), s(2, 3.0)].concat(), size, |_| false);
        close(&p, &[0.841_121, 0.908_771, 0.140_901, -0.756_513, -0.070_560, 0.378_401]);
        optimizer.step(&layout, &mut p, &[s(4, 8.0), s(2, 4.0)].concat(), size, |_| false);
        close(&p, &[0.840_345, 0.908_104, 0.140_957, -0.755_786, -0.133_945, 0.719_113]);
        // Without a slope there is only momentum, and no decay.
        let before = p.clone();
        optimizer.step(&layout, &mut p, &[0.0; 6], StepSize { lr: 0.0, weight_decay: 1.0 }, |_| false);
        assert_eq!(p, before);
    }

    #[test]
    fn sgd_has_momentum_and_coupled_decay() {
        let layout = layout(&[1, 2]);
        let mut optimizer = Optimizer::new(OptimizerKind::Sgd, &layout);
        let mut p = vec![1.0, -2.0];
        let size = StepSize { lr: 0.1, weight_decay: 0.5 };
        optimizer.step(&layout, &mut p, &[1.0, 1.0], size, |_| false); // v = (1.5, 0)
        close(&p, &[0.85, -2.0]);
        optimizer.step(&layout, &mut p, &[0.0, 1.0], size, |_| false); // v = 0.9 v + (0.425, 0)
        close(&p, &[0.85 - 0.1 * 1.775, -2.0]);
    }

    #[test]
    fn the_teacher_after_n_steps_is_the_closed_form() {
        let mut teacher = vec![1.0; 5];
        (0..7).for_each(|_| ema(&mut teacher, &[3.0; 5], 0.9));
        let expected = 3.0 - 2.0 * 0.9_f32.powi(7);
        close(&teacher, &[expected; 5]);
    }
}
