//! Pixels counted by what they are and what they were predicted to be.
//!
//! `counts[i, j]` is the number of pixels of true class `i` with prediction `j`: `[c, m]`, where `m` is the
//! number of outputs of the probe. With more outputs than classes, the outputs from `c` on are no class: what
//! falls there is missed by its own class and wrong for none. (The original, STEGO, does not count such pixels at all,
//! so its extra clusters can never hurt.) Pixels whose truth is not a class are not counted.

use ndarray::{Array2, ArrayView2, Axis};

use crate::error::{expect_range, expect_shape};
use crate::{Assignment, Result};

/// Counts of pixels, `[c, m]`: row = truth, column = prediction.
///
/// ```
/// let mut counts = probe::ConfusionMatrix::new(2, 2);
/// let (truth, predicted) = (ndarray::array![[0, 1, 255]], ndarray::array![[0, 0, 1]]);
/// counts.add(truth.view(), predicted.view())?;
/// assert_eq!(counts.counts(), ndarray::array![[1, 0], [1, 0]]);
/// assert_eq!(counts.scores().accuracy, 0.5);
/// # Ok::<(), probe::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    counts: Array2<u64>,
}

impl ConfusionMatrix {
    /// No pixels yet, for `classes` classes and `outputs` possible predictions.
    pub fn new(classes: usize, outputs: usize) -> Self {
        Self { counts: Array2::zeros((classes, outputs)) }
    }

    /// A matrix from counts made elsewhere, `[c, m]`, row = truth.
    pub fn from_counts(counts: Array2<u64>) -> Self {
        Self { counts }
    }

    /// The counts, `[c, m]`.
    pub fn counts(&self) -> ArrayView2<'_, u64> {
        self.counts.view()
    }

    /// Number of classes `c`.
    pub fn classes(&self) -> usize {
        self.counts.nrows()
    }

    /// Number of possible predictions `m`.
    pub fn outputs(&self) -> usize {
        self.counts.ncols()
    }

    /// Counts the pixels of one image.
    ///
    /// * `truth`: `[h, w]`; pixels with a value of `c` or more are skipped.
    /// * `predicted`: `[h, w]`, below `m`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the two differ in size, [`Error::Range`](crate::Error::Range) if a
    /// counted pixel has a prediction of `m` or more. Then nothing was counted.
    pub fn add(&mut self, truth: ArrayView2<'_, u8>, predicted: ArrayView2<'_, u8>) -> Result<()> {
        expect_shape("predicted labels", truth.shape(), predicted.shape())?;
        let (c, m) = self.counts.dim();
        let counted = || {
            let pixels = truth.iter().zip(&predicted).map(|(&i, &j)| [usize::from(i), usize::from(j)]);
            pixels.filter(|&[i, _]| i < c)
        };
        if let Some([_, j]) = counted().find(|&[_, j]| j >= m) {
            expect_range(false, "predicted label", &format!("below {m}"), j)?;
        }
        counted().for_each(|at| self.counts[at] += 1);
        Ok(())
    }

    /// Adds the counts of another matrix.
    ///
    /// # Panics
    /// If it has another number of classes or outputs.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.counts.dim(), other.counts.dim(), "matrices of different shape");
        self.counts += &other.counts;
    }

    /// The counts with clusters renamed to the classes they are assigned to.
    ///
    /// Column `j < c` is the cluster assigned to class `j` (zero if there is none). If some clusters have no class,
    /// one more column holds the sum of them: `[c, c]` or `[c, c + 1]`.
    ///
    /// # Panics
    /// If the assignment is of another number of classes or clusters.
    pub fn matched(&self, assignment: &Assignment) -> Self {
        let (c, m) = self.counts.dim();
        let fits = assignment.class_of_cluster.len() == m && assignment.cluster_of_class.len() == c;
        assert!(fits, "an assignment of other classes or clusters than [{c}, {m}]");
        let unmatched = assignment.class_of_cluster.iter().any(Option::is_none);
        let mut counts = Array2::zeros((c, c + usize::from(unmatched)));
        for (from, class) in self.counts.axis_iter(Axis(1)).zip(&assignment.class_of_cluster) {
            let mut to = counts.column_mut(class.unwrap_or(c));
            to += &from;
        }
        Self { counts }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::Error;

    #[test]
    fn rows_are_truth_and_unlabelled_pixels_do_not_count() {
        let mut counts = ConfusionMatrix::new(2, 3);
        let truth = array![[0, 1, 1, 2, 255]];
        counts.add(truth.view(), array![[1, 1, 2, 0, 9]].view()).unwrap();
        assert_eq!(counts.counts(), array![[0, 1, 0], [0, 1, 1]]);
        assert_eq!((counts.classes(), counts.outputs()), (2, 3));
    }

    #[test]
    fn images_add_up() {
        let (mut whole, mut sum) = (ConfusionMatrix::new(3, 3), ConfusionMatrix::new(3, 3));
        for (truth, predicted) in
            [(array![[0, 1, 2]], array![[0, 2, 2]]), (array![[0, 0, 255]], array![[1, 0, 0]])]
        {
            let mut image = ConfusionMatrix::new(3, 3);
            image.add(truth.view(), predicted.view()).unwrap();
            whole.add(truth.view(), predicted.view()).unwrap();
            sum.merge(&image);
        }
        assert_eq!(whole, sum);
        assert_eq!(sum.counts().sum(), 5);
    }

    #[test]
    fn misfits_are_refused_and_nothing_is_counted() {
        let mut counts = ConfusionMatrix::new(2, 2);
        let result = counts.add(array![[0, 1]].view(), array![[0, 2]].view());
        assert_eq!(result.unwrap_err().to_string(), "predicted label is 2, expected below 2");
        let result = counts.add(array![[0, 1]].view(), array![[0]].view());
        assert!(matches!(result, Err(Error::Shape { what: "predicted labels", .. })));
        assert_eq!(counts, ConfusionMatrix::new(2, 2));
    }

    #[test]
    fn matching_renames_columns_and_keeps_every_pixel() {
        let counts = ConfusionMatrix::from_counts(array![[1, 2, 3, 4], [5, 6, 7, 8]]);
        let assignment = Assignment::from_clusters(&[None, Some(1), None, Some(0)], 2);
        assert_eq!(counts.matched(&assignment).counts(), array![[4, 2, 4], [8, 6, 12]]);
        let square = ConfusionMatrix::from_counts(array![[1, 2], [3, 4]]);
        let assignment = Assignment::from_clusters(&[Some(1), Some(0)], 2);
        assert_eq!(square.matched(&assignment).counts(), array![[2, 1], [4, 3]]);
        let few = ConfusionMatrix::from_counts(array![[1], [3]]);
        assert_eq!(few.matched(&Assignment::from_clusters(&[Some(1)], 2)).counts(), array![[0, 1], [0, 3]]);
    }
}
