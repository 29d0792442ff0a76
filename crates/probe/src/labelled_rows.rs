//! One feature vector and one class per image: what image-level classifiers are trained and tested on.

use ndarray::ArrayView2;

use crate::error::{expect_range, expect_shape};
use crate::{Error, Result};

/// Image features with their classes.
#[derive(Debug, Clone, Copy)]
pub struct LabelledRows<'a> {
    /// `[n, d]`, one row per image.
    pub rows: ArrayView2<'a, f32>,
    /// `[n]` class indices.
    pub classes: &'a [u32],
}

impl LabelledRows<'_> {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fails unless there are images, each with a class, and all features are finite.
    pub(crate) fn check(&self, what: &'static str) -> Result<()> {
        if self.is_empty() {
            return Err(Error::Empty(what));
        }
        expect_shape("classes", &[self.len()], &[self.classes.len()])?;
        check_finite(what, self.rows)
    }
}

/// Fails at the first row that holds NaN or infinity.
pub(crate) fn check_finite(what: &'static str, rows: ArrayView2<'_, f32>) -> Result<()> {
    let broken = rows.outer_iter().position(|row| row.iter().any(|v| !v.is_finite()));
    let got = format!("NaN or infinite in row {}", broken.unwrap_or_default());
    expect_range(broken.is_none(), what, "finite features; leave such images out", got)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn rows_without_class_and_broken_features_are_refused() {
        let rows = array![[1.0, 2.0], [f32::NAN, 0.0]];
        let refused =
            |classes| LabelledRows { rows: rows.view(), classes }.check("training set").unwrap_err();
        assert!(matches!(refused(&[0]), Error::Shape { what: "classes", .. }));
        assert_eq!(
            refused(&[0, 1]).to_string(),
            "training set is NaN or infinite in row 1, expected finite features; leave such images out"
        );
        let none = LabelledRows { rows: Array2::zeros((0, 2)).view(), classes: &[] }.check("test set");
        assert!(matches!(none, Err(Error::Empty("test set"))));
    }
}
