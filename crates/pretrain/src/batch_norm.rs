//! Batch norm over rows, as the head may use it: `y = (x - mean) / √(var + ε) · w + b` per column.
//!
//! In training the statistics are the batch's (the variance that of the population), and running ones follow them (with the
//! unbiased variance). Running statistics are no parameters: student and teacher each keep their own.

use crate::buffer::sized;
use crate::params::{Layout, Slot, two_mut};

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// Which statistics a batch norm uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The batch's; the running ones are updated.
    Train,
    /// The running ones.
    Eval,
}

/// Batch norm without its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchNorm {
    weight: Slot,
    bias: Slot,
    running_mean: Slot,
    running_var: Slot,
    d: usize,
}

/// What [`BatchNorm::backward`] needs.
#[derive(Debug, Default)]
pub(crate) struct BatchNormActivations {
    unit: Vec<f32>,  // [rows, d], normalised
    scale: Vec<f32>, // [d], 1 / √(var + ε)
}

impl BatchNorm {
    pub(crate) fn add(layout: &mut Layout, buffers: &mut Layout, name: &str, d: usize) -> Self {
        let weight = layout.add(format!("{name}.weight"), &[d]);
        let bias = layout.add(format!("{name}.bias"), &[d]);
        let running_mean = buffers.add(format!("{name}.running_mean"), &[d]);
        Self { weight, bias, running_mean, running_var: buffers.add(format!("{name}.running_var"), &[d]), d }
    }

    /// Normalises `x`, `[rows, d]`, in place.
    pub(crate) fn forward(
        &self,
        params: &[f32],
        buffers: &mut [f32],
        mode: Mode,
        x: &mut [f32],
        kept: &mut BatchNormActivations,
    ) {
        let (d, rows) = (self.d, x.len() / self.d);
        let unit = sized(&mut kept.unit, x.len());
        let scale = sized(&mut kept.scale, d);
        let (running_mean, running_var) = two_mut(buffers, self.running_mean, self.running_var);
        for column in 0..d {
            let values = || x.iter().skip(column).step_by(d).map(|&x| f64::from(x));
            let (mean, variance) = match mode {
                Mode::Eval => (f64::from(running_mean[column]), f64::from(running_var[column])),
                Mode::Train => {
                    let mean = values().sum::<f64>() / rows as f64;
                    let squares = values().map(|x| (x - mean).powi(2)).sum::<f64>();
                    follow(&mut running_mean[column], mean);
                    follow(&mut running_var[column], squares / (rows.max(2) - 1) as f64);
                    (mean, squares / rows as f64)
                }
            };
            scale[column] = (1.0 / (variance + EPS).sqrt()) as f32;
            for row in 0..rows {
                unit[row * d + column] = (x[row * d + column] - mean as f32) * scale[column];
            }
        }
        let (weight, bias) = (self.weight.of(params), self.bias.of(params));
        for (x, unit) in x.chunks_exact_mut(d).zip(unit.chunks_exact(d)) {
            for i in 0..d {
                x[i] = unit[i].mul_add(weight[i], bias[i]);
            }
        }
    }

    /// Adds the parameters' gradients and turns `dy`, `[rows, d]`, into the input's. For [`Mode::Train`].
    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        kept: &BatchNormActivations,
        dy: &mut [f32],
    ) {
        let (d, rows) = (self.d, dy.len() / self.d);
        let weight = self.weight.of(params);
        let (dweight, dbias) = two_mut(grads, self.weight, self.bias);
        for column in 0..d {
            let at = |row: usize| row * d + column;
            let sum: f64 = (0..rows).map(|row| f64::from(dy[at(row)])).sum();
            let along: f64 =
                (0..rows).map(|row| f64::from(dy[at(row)]) * f64::from(kept.unit[at(row)])).sum();
            dweight[column] += along as f32;
            dbias[column] += sum as f32;
            let (mean, along) = (sum / rows as f64, along / rows as f64);
            let scale = weight[column] * kept.scale[column];
            for row in 0..rows {
                let d = f64::from(dy[at(row)]) - mean - f64::from(kept.unit[at(row)]) * along;
                dy[at(row)] = scale * d as f32;
            }
        }
    }
}

/// A running statistic's step towards that of a batch.
pub(crate) fn follow(running: &mut f32, now: f64) {
    *running = ((1.0 - MOMENTUM) * f64::from(*running) + MOMENTUM * now) as f32;
}
