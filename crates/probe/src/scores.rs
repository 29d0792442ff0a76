//! Segmentation scores, read off one confusion matrix for the whole evaluation set.
//!
//! With `tp` the diagonal, `truth` the row sums and `predicted` the column sums: recall is `tp / truth`,
//! precision `tp / predicted`, IoU `tp / (truth + predicted - tp)`. A quotient with nothing below the line is
//! undefined and left out of means; a class that was predicted but never occurs has IoU 0 and counts.
//!
//! (The mean of per-image scores is a different number; it is not called mIoU. In the original, recall and precision
//! have each other's names.)

use crate::ConfusionMatrix;

/// Scores of one evaluation, as fractions in `[0, 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Mean of the defined IoUs; NaN if there is none.
    pub mean_iou: f64,
    /// Share of counted pixels that are right; NaN if no pixel was counted.
    pub accuracy: f64,
    /// `[c]`: intersection over union; `None` for a class in neither truth nor prediction.
    pub per_class_iou: Vec<Option<f64>>,
    /// `[c]`: share of a class's predictions that are right; `None` for a class that was never predicted.
    pub precision: Vec<Option<f64>>,
    /// `[c]`: share of a class's pixels that were found; `None` for a class that does not occur.
    pub recall: Vec<Option<f64>>,
}

impl ConfusionMatrix {
    /// Scores of counts whose column `j < c` is the prediction of class `j`. Further columns are predictions of no
    /// class: wrong for every pixel in them. Classes without a column were never predicted.
    ///
    /// Counts of clusters become such counts by [`ConfusionMatrix::matched`].
    ///
    /// ```
    /// let counts = probe::ConfusionMatrix::from_counts(ndarray::array![[3, 1], [0, 4]]);
    /// assert_eq!(counts.scores().mean_iou, (3. / 4. + 4. / 5.) / 2.);
    /// ```
    pub fn scores(&self) -> Scores {
        let counts = self.counts();
        let columns = self.outputs().min(self.classes());
        let total = counts.sum();
        let mut hits = 0;
        let mut scores = Scores {
            mean_iou: f64::NAN,
            accuracy: f64::NAN,
            per_class_iou: Vec::new(),
            precision: Vec::new(),
            recall: Vec::new(),
        };
        for class in 0..self.classes() {
            let truth = counts.row(class).sum();
            let has_column = class < columns;
            let right = if has_column { counts[[class, class]] } else { 0 };
            let predicted = if has_column { counts.column(class).sum() } else { 0 };
            hits += right;
            scores.per_class_iou.push(quotient(right, truth + predicted - right));
            scores.precision.push(quotient(right, predicted));
            scores.recall.push(quotient(right, truth));
        }
        let defined: Vec<f64> = scores.per_class_iou.iter().flatten().copied().collect();
        scores.mean_iou = defined.iter().sum::<f64>() / defined.len() as f64;
        scores.accuracy = hits as f64 / total as f64;
        scores
    }
}

fn quotient(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    fn scores(counts: Array2<u64>) -> Scores {
        ConfusionMatrix::from_counts(counts).scores()
    }

    #[test]
    fn a_perfect_prediction_scores_one() {
        let out = scores(array![[5, 0], [0, 7]]);
        let ones = vec![Some(1.0); 2];
        let perfect = Scores {
            mean_iou: 1.0,
            accuracy: 1.0,
            per_class_iou: ones.clone(),
            precision: ones.clone(),
            recall: ones,
        };
        assert_eq!(out, perfect);
    }

    #[test]
    fn scores_by_hand() {
        let out = scores(array![[6, 2], [1, 3]]);
        assert_eq!(out.per_class_iou, [Some(6. / 9.), Some(3. / 6.)]);
        assert_eq!(out.precision, [Some(6. / 7.), Some(3. / 5.)]);
        assert_eq!(out.recall, [Some(6. / 8.), Some(3. / 4.)]);
        assert_eq!(out.accuracy, 9. / 12.);
        assert_eq!(out.mean_iou, (6. / 9. + 3. / 6.) / 2.);
    }

    #[test]
    fn an_absent_class_changes_nothing_unless_it_is_predicted() {
        let out = scores(array![[6, 2, 0], [1, 3, 0], [0, 0, 0]]);
        assert_eq!(out.mean_iou, scores(array![[6, 2], [1, 3]]).mean_iou);
        assert_eq!((out.per_class_iou[2], out.precision[2], out.recall[2]), (None, None, None));
        let out = scores(array![[6, 0], [0, 0]]);
        assert_eq!(out.mean_iou, 1.0);
        let out = scores(array![[6, 3], [0, 0]]);
        assert_eq!((out.per_class_iou[1], out.precision[1], out.recall[1]), (Some(0.0), Some(0.0), None));
        assert_eq!(out.mean_iou, (6. / 9.) / 2.);
    }

    #[test]
    fn predictions_of_no_class_are_misses() {
        let out = scores(array![[6, 0, 2], [0, 4, 0]]);
        assert_eq!(out.per_class_iou, [Some(0.75), Some(1.0)]);
        assert_eq!(out.accuracy, 10. / 12.);
        let out = scores(array![[6], [2]]);
        assert_eq!(out.per_class_iou, [Some(0.75), Some(0.0)]);
    }

    #[test]
    fn no_pixels_no_scores() {
        let out = scores(Array2::zeros((3, 3)));
        assert!(out.mean_iou.is_nan() && out.accuracy.is_nan());
    }
}
