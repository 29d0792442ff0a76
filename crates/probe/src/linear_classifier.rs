//! Linear classification of whole images on frozen features: the classifier, its loss and its gradient.
//!
//! One vector per image, `logits = weight · x + bias`, softmax cross-entropy. Classes are cut into blocks of a fixed number, and a
//! block is a task, so the bits do not depend on the threads.

use ndarray::linalg::general_mat_mul;
use ndarray::parallel::prelude::*;
use ndarray::{Array1, Array2, ArrayView2, Axis};

use crate::error::{expect_range, expect_shape};
use crate::exp::exp;
use crate::{LabelledRows, Result, TopAccuracy};

/// Classes of one task.
const BLOCK: usize = 64;
/// Test rows that are scored at a time.
const TEST_BATCH: usize = 1024;

/// A linear classifier of images.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearClassifier {
    /// `[c, d]`.
    pub weight: Array2<f32>,
    /// `[c]`.
    pub bias: Array1<f32>,
}

/// Loss of a [`LinearClassifier`] on a batch, with its slope.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifierGradient {
    /// Mean over the images.
    pub loss: f64,
    /// `[c, d]`.
    pub weight: Array2<f32>,
    /// `[c]`.
    pub bias: Array1<f32>,
}

impl LinearClassifier {
    /// Logits `[n, c]` of rows `[n, d]`; the largest is the prediction.
    ///
    /// # Panics
    /// If `d` is not the width the classifier was trained on.
    pub fn logits(&self, rows: ArrayView2<'_, f32>) -> Array2<f32> {
        self.columns(rows).reversed_axes()
    }

    /// Loss on a batch, and its gradient in weight and bias.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty), [`Error::Shape`](crate::Error::Shape) or [`Error::Range`](crate::Error::Range) if the batch does not fit the classifier.
    pub fn gradient(&self, batch: LabelledRows<'_>) -> Result<ClassifierGradient> {
        batch.check("batch")?;
        expect_shape("rows", &[batch.len(), self.weight.ncols()], batch.rows.shape())?;
        let most = batch.classes.iter().copied().max().unwrap_or(0);
        let expected = format!("below {}, the number of classes", self.weight.nrows());
        expect_range((most as usize) < self.weight.nrows(), "class", &expected, most)?;
        Ok(self.slope(batch.rows, batch.classes))
    }

    /// Mean loss and accuracy on a set; of equal logits the lower class comes first.
    pub(crate) fn measure(&self, set: LabelledRows<'_>) -> (f64, TopAccuracy) {
        let mut sum = 0.0;
        let mut places = Vec::with_capacity(set.len());
        let tiles = set.rows.axis_chunks_iter(Axis(0), TEST_BATCH).zip(set.classes.chunks(TEST_BATCH));
        for (rows, classes) in tiles {
            let logits = self.logits(rows);
            for (logits, &class) in logits.outer_iter().zip(classes) {
                let class = class as usize;
                let own = logits[class];
                let ahead = |(c, &z): (usize, &f32)| z > own || (z == own && c < class);
                places.push(Some(logits.iter().enumerate().filter(|&at| ahead(at)).count()));
            }
            sum += softmax_minus_truth(&mut logits.reversed_axes(), classes);
        }
        (sum / set.len() as f64, TopAccuracy::from_places(places))
    }

    /// As [`LinearClassifier::gradient`], of arguments that fit.
    pub(crate) fn slope(&self, rows: ArrayView2<'_, f32>, classes: &[u32]) -> ClassifierGradient {
        let n = classes.len();
        let mut errors = self.columns(rows); // [c, n]
        let loss = softmax_minus_truth(&mut errors, classes) / n as f64;
        errors /= n as f32;
        let mut weight = Array2::zeros(self.weight.dim());
        (weight.axis_chunks_iter_mut(Axis(0), BLOCK).into_par_iter())
            .zip(errors.axis_chunks_iter(Axis(0), BLOCK))
            .for_each(|(mut weight, errors)| general_mat_mul(1.0, &errors, &rows, 0.0, &mut weight));
        ClassifierGradient { loss, weight, bias: errors.sum_axis(Axis(1)) }
    }

    /// Logits with one row per class, `[c, n]`.
    fn columns(&self, rows: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut logits = Array2::zeros((self.weight.nrows(), rows.nrows()));
        (logits.axis_chunks_iter_mut(Axis(0), BLOCK).into_par_iter())
            .zip(self.weight.axis_chunks_iter(Axis(0), BLOCK))
            .for_each(|(mut logits, weight)| general_mat_mul(1.0, &weight, &rows.t(), 0.0, &mut logits));
        logits + self.bias.view().insert_axis(Axis(1))
    }
}

/// Logits `[c, n]` become `softmax - one-hot`, the slope of each image's loss; returns the sum of the losses.
fn softmax_minus_truth(logits: &mut Array2<f32>, classes: &[u32]) -> f64 {
    let mut sum = 0.0;
    for (mut column, &class) in logits.columns_mut().into_iter().zip(classes) {
        let class = class as usize;
        let largest = column.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let own = f64::from(column[class] - largest);
        column.mapv_inplace(|z| exp(z - largest));
        let total: f64 = column.iter().map(|&e| f64::from(e)).sum();
        sum += total.ln() - own;
        column.mapv_inplace(|e| (f64::from(e) / total) as f32);
        column[class] -= 1.0;
    }
    sum
}
