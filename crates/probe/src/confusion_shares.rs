//! A confusion matrix as shares, for tables and figures.
//!
//! Over the truth, a row sums to 1 and its diagonal entry is the class's recall; over the predictions, a column sums to
//! 1 and the diagonal is the precision. (STEGO's figure divides by the pixels of the true class, and shows that
//! transposed.) Rows and columns without pixels are zero, not NaN, because they are drawn.

use ndarray::{Array2, Axis};

use crate::ConfusionMatrix;

/// What the counts are shares of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharesOf {
    /// The pixels of the true class: rows sum to 1.
    Truth,
    /// The pixels with that prediction: columns sum to 1.
    Prediction,
    /// All counted pixels.
    All,
}

impl ConfusionMatrix {
    /// The counts `[c, m]` as shares in `[0, 1]`.
    ///
    /// ```
    /// use probe::{ConfusionMatrix, SharesOf};
    ///
    /// let counts = ConfusionMatrix::from_counts(ndarray::array![[3, 1], [0, 0]]);
    /// assert_eq!(counts.shares(SharesOf::Truth), ndarray::array![[0.75, 0.25], [0.0, 0.0]]);
    /// assert_eq!(counts.shares(SharesOf::Prediction), ndarray::array![[1.0, 1.0], [0.0, 0.0]]);
    /// ```
    #[must_use]
    pub fn shares(&self, of: SharesOf) -> Array2<f64> {
        let counts = self.counts().mapv(|pixels| pixels as f64);
        let totals = match of {
            SharesOf::Truth => counts.sum_axis(Axis(1)).insert_axis(Axis(1)), // [c, 1]
            SharesOf::Prediction => counts.sum_axis(Axis(0)).insert_axis(Axis(0)), // [1, m]
            SharesOf::All => Array2::from_elem((1, 1), counts.sum()),
        };
        counts / totals.mapv(|total| total.max(1.0))
    }

    /// Mean over the classes that occur of the share of their pixels that was found (mean recall); NaN if none occurs.
    ///
    /// Columns from `c` on are no class, as in [`ConfusionMatrix::scores`], whose `recall` this is the mean of.
    #[must_use]
    pub fn mean_class_accuracy(&self) -> f64 {
        let recall = self.scores().recall;
        let defined: Vec<f64> = recall.into_iter().flatten().collect();
        defined.iter().sum::<f64>() / defined.len() as f64
    }

    /// Mean IoU in which a class counts by its share of the true pixels; NaN if no pixel was counted.
    ///
    /// From the same counts and IoUs as [`ConfusionMatrix::scores`].
    #[must_use]
    pub fn frequency_weighted_iou(&self) -> f64 {
        let counts = self.counts();
        let weighted =
            |(class, iou): (usize, Option<f64>)| iou.unwrap_or(0.0) * counts.row(class).sum() as f64;
        self.scores().per_class_iou.into_iter().enumerate().map(weighted).sum::<f64>() / counts.sum() as f64
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn diagonals_are_recall_and_precision() {
        let counts = ConfusionMatrix::from_counts(array![[6, 2, 1], [1, 3, 0], [0, 0, 5]]);
        let scores = counts.scores();
        for class in 0..3 {
            assert_eq!(Some(counts.shares(SharesOf::Truth)[[class, class]]), scores.recall[class]);
            assert_eq!(Some(counts.shares(SharesOf::Prediction)[[class, class]]), scores.precision[class]);
        }
        assert_eq!(counts.shares(SharesOf::All).sum(), 1.0);
        assert_eq!(ConfusionMatrix::new(2, 3).shares(SharesOf::All), Array2::<f64>::zeros((2, 3)));
    }

    #[test]
    fn scores_by_hand() {
        let counts = ConfusionMatrix::from_counts(array![[6, 2], [1, 3]]);
        assert_eq!(counts.mean_class_accuracy(), (6. / 8. + 3. / 4.) / 2.);
        assert_eq!(counts.frequency_weighted_iou(), (8. * 6. / 9. + 4. * 3. / 6.) / 12.);
    }

    #[test]
    fn equal_frequencies_weigh_nothing_and_absent_classes_do_not_count() {
        let counts = ConfusionMatrix::from_counts(array![[6, 2, 0], [1, 7, 0], [0, 0, 0]]);
        assert!((counts.frequency_weighted_iou() - counts.scores().mean_iou).abs() < 1e-15);
        assert_eq!(counts.mean_class_accuracy(), (6. / 8. + 7. / 8.) / 2.);
        let unmatched = ConfusionMatrix::from_counts(array![[6, 0, 2], [0, 4, 0]]);
        assert_eq!(unmatched.frequency_weighted_iou(), (8. * 0.75 + 4.) / 12.);
        let none = ConfusionMatrix::new(2, 2);
        assert!(none.mean_class_accuracy().is_nan() && none.frequency_weighted_iou().is_nan());
    }
}
