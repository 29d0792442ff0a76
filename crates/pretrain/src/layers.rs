//! The layers that the vision transformer and the head share: slots into the parameters, and both directions.
//!
//! `forward(params, …)` writes outputs; `backward(params, grads, …)` adds to `grads`, which lies like `params`, and
//! writes the input's gradient. Rows are tokens.

use kernels::{
    LinearGrads, NormStats, gelu, gelu_backward, layer_norm, layer_norm_backward, linear, linear_backward,
};

use crate::buffer::sized;
use crate::params::{Layout, Slot, two_mut};

/// `y = x Wᵀ + b`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dense {
    weight: Slot,
    bias: Slot,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

impl Dense {
    pub(crate) fn add(layout: &mut Layout, name: &str, inputs: usize, outputs: usize) -> Self {
        Self::add_shaped(layout, name, &[outputs, inputs])
    }

    /// With a weight of more than two dimensions, `[outputs, …]`: a convolution whose stride is its kernel.
    pub(crate) fn add_shaped(layout: &mut Layout, name: &str, shape: &[usize]) -> Self {
        let (outputs, inputs) = (shape[0], shape[1..].iter().product());
        let weight = layout.add(format!("{name}.weight"), shape);
        Self { weight, bias: layout.add(format!("{name}.bias"), &[outputs]), inputs, outputs }
    }

    /// `[rows, inputs]` to `[rows, outputs]`.
    pub(crate) fn forward(&self, params: &[f32], x: &[f32], y: &mut Vec<f32>) {
        let y = sized(y, x.len() / self.inputs * self.outputs);
        linear(x, self.weight.of(params), Some(self.bias.of(params)), self.inputs, y);
    }

    /// The layer's outputs `from..to` alone.
    pub(crate) fn forward_part(
        &self,
        params: &[f32],
        (from, to): (usize, usize),
        x: &[f32],
        y: &mut Vec<f32>,
    ) {
        let weight = &self.weight.of(params)[from * self.inputs..to * self.inputs];
        let y = sized(y, x.len() / self.inputs * (to - from));
        linear(x, weight, Some(&self.bias.of(params)[from..to]), self.inputs, y);
    }

    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dy: &[f32],
        x: &[f32],
        dx: Option<&mut Vec<f32>>,
    ) {
        self.backward_part(params, grads, (0, self.outputs), dy, x, dx);
    }

    /// The way back of [`Dense::forward_part`].
    pub(crate) fn backward_part(
        &self,
        params: &[f32],
        grads: &mut [f32],
        (from, to): (usize, usize),
        dy: &[f32],
        x: &[f32],
        dx: Option<&mut Vec<f32>>,
    ) {
        let rows = from * self.inputs..to * self.inputs;
        let (weight, bias) = two_mut(grads, self.weight, self.bias);
        let grads = LinearGrads { weight: &mut weight[rows.clone()], bias: Some(&mut bias[from..to]) };
        let dx = dx.map(|dx| sized(dx, x.len()));
        linear_backward(dy, x, &self.weight.of(params)[rows], self.inputs, grads, dx);
    }
}

/// Layer norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    weight: Slot,
    bias: Slot,
    d: usize,
    eps: f32,
}

impl Norm {
    pub(crate) fn add(layout: &mut Layout, name: &str, d: usize, eps: f64) -> Self {
        let weight = layout.add(format!("{name}.weight"), &[d]);
        Self { weight, bias: layout.add(format!("{name}.bias"), &[d]), d, eps: eps as f32 }
    }

    pub(crate) fn forward(&self, params: &[f32], x: &[f32], y: &mut Vec<f32>, stats: &mut Vec<NormStats>) {
        let (y, stats) = (sized(y, x.len()), sized(stats, x.len() / self.d));
        layer_norm(x, self.weight.of(params), self.bias.of(params), self.eps, y, stats);
    }

    /// *Adds* the input's gradient to `dx`.
    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dy: &[f32],
        x: &[f32],
        stats: &[NormStats],
        dx: &mut [f32],
    ) {
        let grads = two_mut(grads, self.weight, self.bias);
        layer_norm_backward(dy, x, stats, self.weight.of(params), grads, dx);
    }
}

/// The perceptron of a block: linear, GELU, linear.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mlp {
    fc1: Dense,
    fc2: Dense,
}

/// What [`Mlp::backward`] needs.
#[derive(Debug, Default)]
pub(crate) struct MlpActivations {
    hidden: Vec<f32>,    // [rows, 4 d], before GELU
    activated: Vec<f32>, // [rows, 4 d]
}

impl Mlp {
    pub(crate) fn add(layout: &mut Layout, name: &str, d: usize, hidden: usize) -> Self {
        let fc1 = Dense::add(layout, &format!("{name}.fc1"), d, hidden);
        Self { fc1, fc2: Dense::add(layout, &format!("{name}.fc2"), hidden, d) }
    }

    pub(crate) fn forward(&self, params: &[f32], x: &[f32], y: &mut Vec<f32>, kept: &mut MlpActivations) {
        self.fc1.forward(params, x, &mut kept.hidden);
        gelu(&kept.hidden, sized(&mut kept.activated, kept.hidden.len()));
        self.fc2.forward(params, &kept.activated, y);
    }

    /// Writes the input's gradient to `dx`; `dhidden` is scratch.
    pub(crate) fn backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dy: &[f32],
        x: &[f32],
        kept: &MlpActivations,
        (dx, dhidden): (&mut Vec<f32>, &mut Vec<f32>),
    ) {
        self.fc2.backward(params, grads, dy, &kept.activated, Some(dhidden));
        gelu_backward(&kept.hidden, dhidden);
        self.fc1.backward(params, grads, dhidden, x, Some(dx));
    }
}
