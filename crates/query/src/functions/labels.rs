//! `class_count(label, c)`, `class_share(label, c)`, `patch_classes(label, grid_h, grid_w)`.
//!
//! A label map is a list without shape; patches cut it into `grid_h × grid_w` equal rectangles, which needs a square map (as the maps
//! of a cache are). A patch is of the class that most of its pixels are of, the smaller one if two tie; none without any.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, ListBuilder, UInt8Builder};
use arrow::datatypes::{DataType, Field};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::{columns, indices_of, labels_of};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Which {
    Count,
    Share,
    Patches,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LabelFunction {
    which: Which,
    signature: Signature,
}

pub(super) fn functions() -> Vec<ScalarUDF> {
    let function = |which: Which| {
        let arguments = if which == Which::Patches { 3 } else { 2 };
        let signature = Signature::any(arguments, Volatility::Immutable);
        ScalarUDF::new_from_impl(LabelFunction { which, signature })
    };
    [Which::Count, Which::Share, Which::Patches].map(function).into()
}

impl ScalarUDFImpl for LabelFunction {
    fn name(&self) -> &str {
        match self.which {
            Which::Count => "class_count",
            Which::Share => "class_share",
            Which::Patches => "patch_classes",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.which {
            Which::Count => DataType::Int64,
            Which::Share => DataType::Float64,
            Which::Patches => DataType::List(Arc::new(Field::new_list_field(DataType::UInt8, true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = columns(&args)?;
        let labels = labels_of(&columns[0])?;
        let numbers = columns[1..].iter().map(indices_of).collect::<Result<Vec<_>>>()?;
        let rows = labels.iter().enumerate().map(|(row, label)| label.as_deref().zip(numbers[0][row]));
        let column: ArrayRef = match self.which {
            Which::Count => {
                Arc::new(Int64Array::from_iter(rows.map(|row| row.map(|(label, c)| count(label, c)))))
            }
            Which::Share => Arc::new(Float64Array::from_iter(rows.map(|row| {
                let (label, class) = row?;
                let labelled = label.iter().flatten().count();
                (labelled > 0).then(|| count(label, class) as f64 / labelled as f64)
            }))),
            Which::Patches => {
                let mut list = ListBuilder::new(UInt8Builder::new());
                for (row, label) in labels.iter().enumerate() {
                    match (label, numbers[0][row], numbers[1][row]) {
                        (Some(label), Some(gh), Some(gw)) => list.append_value(patches(label, gh, gw)?),
                        _ => list.append_null(),
                    }
                }
                Arc::new(list.finish())
            }
        };
        Ok(ColumnarValue::Array(column))
    }
}

fn count(label: &[Option<u8>], class: i64) -> i64 {
    label.iter().flatten().filter(|&&pixel| i64::from(pixel) == class).count() as i64
}

fn patches(label: &[Option<u8>], gh: i64, gw: i64) -> Result<Vec<Option<u8>>> {
    let side = label.len().isqrt();
    let (gh, gw) = (usize::try_from(gh).unwrap_or(0), usize::try_from(gw).unwrap_or(0));
    if side * side != label.len()
        || gh == 0
        || gw == 0
        || !side.is_multiple_of(gh)
        || !side.is_multiple_of(gw)
    {
        return exec_err!("a label map of {} pixels does not divide into {gh} × {gw} patches", label.len());
    }
    let (h, w) = (side / gh, side / gw);
    let patch = |p: usize| {
        let (top, left) = (p / gw * h, p % gw * w);
        let mut counts = [0u32; 256];
        for y in top..top + h {
            label[y * side + left..][..w].iter().flatten().for_each(|&class| counts[usize::from(class)] += 1);
        }
        let most = counts.iter().copied().max().filter(|&most| most > 0)?;
        counts.iter().position(|&n| n == most).map(|class| class as u8)
    };
    Ok((0..gh * gw).map(patch).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_take_their_most_frequent_class() {
        let label: Vec<Option<u8>> = [1, 1, 2, 2, 1, 3, 2, 9, 9, 9, 4, 5, 9, 9, 5, 4]
            .map(|class| (class != 9).then_some(class))
            .into();
        assert_eq!(patches(&label, 2, 2).unwrap(), [Some(1), Some(2), None, Some(4)]);
        assert!(patches(&label, 3, 2).is_err() && patches(&label[1..], 1, 1).is_err());
    }
}
