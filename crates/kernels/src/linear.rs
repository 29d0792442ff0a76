//! The linear layer `y = x Wᵀ + b`, with weights as PyTorch stores them: `[outputs, inputs]`.

use crate::matrix::{Matrix, MatrixMut, Threads, gemm};
use crate::rows::{add_column_sums, for_each_row};

/// Where the gradients of a linear layer's parameters are added.
#[derive(Debug)]
pub struct LinearGrads<'a> {
    /// `[outputs, inputs]`.
    pub weight: &'a mut [f32],
    /// `[outputs]`.
    pub bias: Option<&'a mut [f32]>,
}

/// Writes `y = x Wᵀ + b`, `[rows, outputs]`.
///
/// * `x`: `[rows, inputs]`; `weight`: `[outputs, inputs]`; `bias`: `[outputs]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn linear(x: &[f32], weight: &[f32], bias: Option<&[f32]>, inputs: usize, y: &mut [f32]) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    if let Some(bias) = bias {
        for_each_row(y, outputs, |_, row| row.copy_from_slice(bias));
    }
    let keep = if bias.is_some() { 1.0 } else { 0.0 };
    let factors = (Matrix::new(x, rows, inputs), Matrix::new(weight, outputs, inputs).t());
    gemm(MatrixMut::new(y, rows, outputs), keep, 1.0, factors.0, factors.1, Threads::All);
}

/// Adds the gradients of the parameters, and writes the input's, `[rows, inputs]`, where one is asked for.
///
/// * `dy`: the gradient of `y`, `[rows, outputs]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn linear_backward(
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    inputs: usize,
    grads: LinearGrads<'_>,
    dx: Option<&mut [f32]>,
) {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let (dy_matrix, x) = (Matrix::new(dy, rows, outputs), Matrix::new(x, rows, inputs));
    gemm(MatrixMut::new(grads.weight, outputs, inputs), 1.0, 1.0, dy_matrix.t(), x, Threads::All);
    if let Some(bias) = grads.bias {
        add_column_sums(dy, bias);
    }
    if let Some(dx) = dx {
        let weight = Matrix::new(weight, outputs, inputs);
        gemm(MatrixMut::new(dx, rows, inputs), 0.0, 1.0, dy_matrix, weight, Threads::All);
    }
}
