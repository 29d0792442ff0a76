//! STEGO's segmentation head: from features to codes, token by token.
//!
//! `code = L(x ∘ m) + V relu(U (x ∘ m') + u) + v`, with a linear branch `L` and, if wanted, a perceptron with as many hidden units as
//! there are features. All are 1×1 convolutions, so an image is a matrix of tokens. `m` and `m'` are dropout's masks
//! ([`Masks`]), which are applied to the weights: that is cheaper than to the tokens, and the same.
//!
//! All parameters lie in one vector, in the order of [`HeadShape::tensors`].

use kernels::{Matrix, MatrixMut, Threads, gemm, simd};
use ndarray::{Array2, ArrayView2};

use super::dropout::Masks;
use super::error::{Result, expect_shape};
use super::head_shape::{HeadKind, HeadShape};
use super::init::{Stream, convolution};
use super::unit::add_rows;

/// A head with its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    shape: HeadShape,
    pub(super) parameters: Vec<f32>,
}

/// What a forward pass leaves for the way back, and room for both.
#[derive(Debug, Default)]
pub(super) struct Activations {
    /// `[n, d]`, behind the ReLU; then the gradient before it.
    hidden: Vec<f32>,
}

/// Room for masked weights and for products before they are masked; one per thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    matrix: Vec<f32>,
}

/// Weights and biases of the branches.
struct Branches<'a> {
    linear: (&'a [f32], &'a [f32]),
    hidden: Option<(&'a [f32], &'a [f32])>,
    out: Option<(&'a [f32], &'a [f32])>,
}

impl Head {
    /// A head with the weights of a PyTorch convolution's default: uniform in `±1/√d`.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range) for a dimension of 0.
    pub fn new(shape: HeadShape, seed: u64) -> Result<Self> {
        shape.check()?;
        let mut parameters = vec![0.0; shape.parameters()];
        convolution(&mut parameters, shape.embed_dim, &mut Stream::Head.rng(seed));
        Ok(Self { shape, parameters })
    }

    /// A head with the given weights, which lie as [`HeadShape::tensors`] says.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range) for a dimension of 0, [`Error::Shape`](super::Error::Shape) for another number of
    /// weights.
    pub fn from_parameters(shape: HeadShape, parameters: Vec<f32>) -> Result<Self> {
        shape.check()?;
        expect_shape("parameters", &[shape.parameters()], &[parameters.len()])?;
        Ok(Self { shape, parameters })
    }

    /// The sizes.
    #[must_use]
    pub fn shape(&self) -> HeadShape {
        self.shape
    }

    /// All weights and biases.
    #[must_use]
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// The code of every token, `[n, k]`, without dropout.
    ///
    /// * `tokens`: features, `[n, d]`.
    ///
    /// # Errors
    /// [`Error::Shape`](super::Error::Shape) if tokens have other than `d` numbers.
    pub fn code(&self, tokens: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        let (n, _) = tokens.dim();
        expect_shape("tokens", &[n, self.shape.embed_dim], tokens.shape())?;
        let tokens = tokens.as_standard_layout();
        let mut code = vec![0.0; n * self.shape.code_dim];
        let rows = tokens.as_slice().expect("standard layout");
        let (mut kept, mut scratch) = (Activations::default(), Scratch::default());
        self.forward(rows, &Masks::default(), Threads::All, &mut kept, &mut scratch, &mut code);
        Ok(Array2::from_shape_vec((n, self.shape.code_dim), code).expect("a row per token"))
    }

    /// The gradient in all parameters, laid out as they are, from the gradient in the codes.
    ///
    /// * `tokens`: features, `[n, d]`; `masks`: of dropout; `grad_code`: `[n, k]`.
    ///
    /// # Errors
    /// [`Error::Shape`](super::Error::Shape) if they do not fit.
    pub fn gradient(
        &self,
        tokens: ArrayView2<'_, f32>,
        masks: &Masks,
        grad_code: ArrayView2<'_, f32>,
    ) -> Result<Vec<f32>> {
        let (n, _) = tokens.dim();
        let HeadShape { embed_dim, code_dim, .. } = self.shape;
        expect_shape("tokens", &[n, embed_dim], tokens.shape())?;
        expect_shape("grad_code", &[n, code_dim], grad_code.shape())?;
        for mask in [&masks.linear, &masks.nonlinear].into_iter().flatten() {
            expect_shape("mask", &[embed_dim], &[mask.len()])?;
        }
        let (tokens, grad_code) = (tokens.as_standard_layout(), grad_code.as_standard_layout());
        let rows = tokens.as_slice().expect("standard layout");
        let (mut kept, mut scratch) = (Activations::default(), Scratch::default());
        let mut code = vec![0.0; n * code_dim];
        self.forward(rows, masks, Threads::One, &mut kept, &mut scratch, &mut code);
        let mut grads = vec![0.0; self.parameters.len()];
        let grad_code = grad_code.as_slice().expect("standard layout");
        self.backward(rows, masks, grad_code, &mut kept, &mut scratch, &mut grads);
        Ok(grads)
    }

    /// Writes the codes, `[n, k]`, of the rows `x`, `[n, d]`.
    pub(super) fn forward(
        &self,
        x: &[f32],
        masks: &Masks,
        threads: Threads,
        kept: &mut Activations,
        scratch: &mut Scratch,
        code: &mut [f32],
    ) {
        let HeadShape { embed_dim: d, code_dim: k, .. } = self.shape;
        let n = x.len() / d;
        let rows = Matrix::new(x, n, d);
        let branches = self.branches();
        fill_rows(code, branches.linear.1);
        let weight = masked(branches.linear.0, masks.linear.as_deref(), scratch);
        gemm(MatrixMut::new(code, n, k), 1.0, 1.0, rows, Matrix::new(weight, k, d).t(), threads);
        let (Some((weight, bias)), Some((out, out_bias))) = (branches.hidden, branches.out) else { return };
        kept.hidden.resize(n * d, 0.0);
        fill_rows(&mut kept.hidden, bias);
        let weight = masked(weight, masks.nonlinear.as_deref(), scratch);
        gemm(MatrixMut::new(&mut kept.hidden, n, d), 1.0, 1.0, rows, Matrix::new(weight, d, d).t(), threads);
        // A NaN stays one, so that it is seen in the loss.
        kept.hidden.iter_mut().for_each(|h| *h = if *h < 0.0 { 0.0 } else { *h });
        add_to_rows(code, out_bias);
        let hidden = Matrix::new(&kept.hidden, n, d);
        gemm(MatrixMut::new(code, n, k), 1.0, 1.0, hidden, Matrix::new(out, k, d).t(), threads);
    }

    /// Adds the gradients of the parameters to `grads`, which lies as they do; on the calling thread. What was kept is used up.
    ///
    /// * `grad_code`: `[n, k]`.
    pub(super) fn backward(
        &self,
        x: &[f32],
        masks: &Masks,
        grad_code: &[f32],
        kept: &mut Activations,
        scratch: &mut Scratch,
        grads: &mut [f32],
    ) {
        let HeadShape { embed_dim: d, code_dim: k, .. } = self.shape;
        let n = x.len() / d;
        let (rows, slope) = (Matrix::new(x, n, d), Matrix::new(grad_code, n, k));
        let branches = self.branches();
        let (weight, rest) = grads.split_at_mut(branches.linear.0.len());
        let (bias, rest) = rest.split_at_mut(k);
        add_product(slope.t(), rows, (k, d), masks.linear.as_deref(), scratch, weight);
        add_rows(grad_code, bias);
        let (Some((hidden_weight, _)), Some((out, _))) = (branches.hidden, branches.out) else { return };
        let (weight, rest) = rest.split_at_mut(hidden_weight.len());
        let (bias, rest) = rest.split_at_mut(d);
        let (out_weight, out_bias) = rest.split_at_mut(out.len());
        let hidden = Matrix::new(&kept.hidden, n, d);
        gemm(MatrixMut::new(out_weight, k, d), 1.0, 1.0, slope.t(), hidden, Threads::One);
        add_rows(grad_code, out_bias);
        scratch.matrix.resize(n * d, 0.0);
        let back = MatrixMut::new(&mut scratch.matrix, n, d);
        gemm(back, 0.0, 1.0, slope, Matrix::new(out, k, d), Threads::One);
        for (hidden, &slope) in kept.hidden.iter_mut().zip(&scratch.matrix) {
            *hidden = if *hidden > 0.0 { slope } else { 0.0 };
        }
        let slope = Matrix::new(&kept.hidden, n, d);
        add_product(slope.t(), rows, (d, d), masks.nonlinear.as_deref(), scratch, weight);
        add_rows(&kept.hidden, bias);
    }

    fn branches(&self) -> Branches<'_> {
        let HeadShape { embed_dim: d, code_dim: k, kind } = self.shape;
        let mut rest = self.parameters.as_slice();
        let mut layer = |from: usize, to: usize| {
            let (weight, behind) = rest.split_at(from * to);
            let (bias, behind) = behind.split_at(to);
            rest = behind;
            (weight, bias)
        };
        let linear = layer(d, k);
        match kind {
            HeadKind::Linear => Branches { linear, hidden: None, out: None },
            HeadKind::Nonlinear => Branches { linear, hidden: Some(layer(d, d)), out: Some(layer(d, k)) },
        }
    }
}

/// A weight `[to, d]` for masked inputs.
fn masked<'a>(weight: &'a [f32], mask: Option<&[f32]>, scratch: &'a mut Scratch) -> &'a [f32] {
    let Some(mask) = mask else { return weight };
    scratch.matrix.resize(weight.len(), 0.0);
    for (to, row) in scratch.matrix.chunks_exact_mut(mask.len()).zip(weight.chunks_exact(mask.len())) {
        for ((to, w), m) in to.iter_mut().zip(row).zip(mask) {
            *to = w * m;
        }
    }
    &scratch.matrix
}

/// Adds `a b` to `sums`, `[to, d]`, its columns masked.
fn add_product(
    a: Matrix<'_>,
    b: Matrix<'_>,
    (to, d): (usize, usize),
    mask: Option<&[f32]>,
    scratch: &mut Scratch,
    sums: &mut [f32],
) {
    let Some(mask) = mask else {
        gemm(MatrixMut::new(sums, to, d), 1.0, 1.0, a, b, Threads::One);
        return;
    };
    scratch.matrix.resize(to * d, 0.0);
    gemm(MatrixMut::new(&mut scratch.matrix, to, d), 0.0, 1.0, a, b, Threads::One);
    simd(
        #[inline(always)]
        || {
            for (sums, row) in sums.chunks_exact_mut(d).zip(scratch.matrix.chunks_exact(d)) {
                for ((sum, x), m) in sums.iter_mut().zip(row).zip(mask) {
                    *sum += x * m;
                }
            }
        },
    );
}

fn fill_rows(rows: &mut [f32], row: &[f32]) {
    rows.chunks_exact_mut(row.len()).for_each(|to| to.copy_from_slice(row));
}

fn add_to_rows(rows: &mut [f32], row: &[f32]) {
    for to in rows.chunks_exact_mut(row.len()) {
        to.iter_mut().zip(row).for_each(|(to, x)| *to += x);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn shape(kind: HeadKind) -> HeadShape {
        HeadShape { embed_dim: 7, code_dim: 3, kind }
    }

    fn tokens(n: usize) -> Array2<f32> {
        Array::from_shape_fn((n, 7), |(t, c)| ((t * 5 + c * 3 + t * c) as f32).sin())
    }

    /// The code from a masked copy of the tokens, by the definition.
    fn definition(head: &Head, x: &Array2<f32>, masks: &Masks) -> Array2<f32> {
        let tensors = head.shape.tensors();
        let part = |i: usize| {
            let tensor = &tensors[i];
            let columns = if tensor.shape.len() == 4 { tensor.shape[1] } else { 1 };
            let values = head.parameters[tensor.range.clone()].to_vec();
            Array2::from_shape_vec((tensor.shape[0], columns), values).unwrap()
        };
        let drop = |mask: &Option<Vec<f32>>| match mask {
            Some(mask) => x * &Array::from_vec(mask.clone()),
            None => x.clone(),
        };
        let mut code = drop(&masks.linear).dot(&part(0).t()) + part(1).t();
        if tensors.len() > 2 {
            let hidden = (drop(&masks.nonlinear).dot(&part(2).t()) + part(3).t()).mapv(|h| h.max(0.0));
            code = code + hidden.dot(&part(4).t()) + part(5).t();
        }
        code
    }

    #[test]
    fn names_and_shapes_are_the_originals() {
        let tensors = shape(HeadKind::Nonlinear).tensors();
        let names: Vec<_> = tensors.iter().map(|tensor| (tensor.name, tensor.shape.clone())).collect();
        assert_eq!(names[2], ("cluster2.0.weight", vec![7, 7, 1, 1]));
        assert_eq!(names[5], ("cluster2.2.bias", vec![3]));
        assert_eq!(tensors[5].range.end, shape(HeadKind::Nonlinear).parameters());
        assert_eq!(shape(HeadKind::Linear).tensors(), tensors[..2]);
    }

    #[test]
    fn masks_on_weights_are_masks_on_tokens_and_the_gradient_is_the_slope() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let x = tokens(11);
        let grad = Array::from_shape_fn((11, 3), |(t, k)| ((t + 4 * k) as f32).cos());
        for kind in [HeadKind::Linear, HeadKind::Nonlinear] {
            for p in [0.0, 0.3] {
                let masks = Masks::draw(p, 7, true, &mut rng);
                let mut head = Head::new(shape(kind), 5).unwrap();
                if p == 0.0 {
                    let off = head.code(x.view()).unwrap() - definition(&head, &x, &masks);
                    assert!(off.iter().all(|off| off.abs() < 1e-6));
                }
                let slope = head.gradient(x.view(), &masks, grad.view()).unwrap();
                for (i, &slope) in slope.iter().enumerate() {
                    let before = head.parameters[i];
                    let [up, down] = [1e-2, -1e-2].map(|shift| {
                        head.parameters[i] = before + shift;
                        (definition(&head, &x, &masks) * &grad).mapv(f64::from).sum()
                    });
                    head.parameters[i] = before;
                    let measured = (up - down) / 2e-2;
                    assert!((measured - f64::from(slope)).abs() < 2e-2, "{kind:?} {i}: {measured}, {slope}");
                }
            }
        }
    }

    #[test]
    fn starts_uniform_within_its_bound_and_depends_on_the_seed() {
        let head = Head::new(shape(HeadKind::Nonlinear), 0).unwrap();
        let bound = 1.0 / 7.0_f32.sqrt();
        assert!(head.parameters.iter().all(|w| w.abs() <= bound));
        assert!(head.parameters.iter().any(|&w| w > 0.8 * bound) && head.parameters.iter().any(|&w| w < 0.0));
        assert_eq!(head, Head::new(shape(HeadKind::Nonlinear), 0).unwrap());
        assert_ne!(head, Head::new(shape(HeadKind::Nonlinear), 1).unwrap());
    }

    #[test]
    fn misfits_are_refused() {
        assert!(Head::new(HeadShape { embed_dim: 0, ..shape(HeadKind::Linear) }, 0).is_err());
        assert!(Head::from_parameters(shape(HeadKind::Linear), vec![0.0; 23]).is_err());
        let head = Head::from_parameters(shape(HeadKind::Linear), vec![0.0; 24]).unwrap();
        assert!(head.code(Array2::zeros((2, 6)).view()).is_err());
        assert_eq!(head.code(Array2::zeros((0, 7)).view()).unwrap().dim(), (0, 3));
        let masks = Masks { linear: Some(vec![1.0; 6]), ..Masks::default() };
        assert!(head.gradient(tokens(1).view(), &masks, Array2::zeros((1, 3)).view()).is_err());
    }
}
