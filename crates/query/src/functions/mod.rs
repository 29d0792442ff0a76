//! Functions of vectors, tokens and label maps.

mod labels;
mod mean_vector;
mod project;
mod vectors;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float32Array, ListArray, UInt8Array};
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

pub(crate) use mean_vector::mean_vector;

use crate::cache_table::{tokens_type, vector_type};

/// All that give one value per row.
pub(crate) fn scalar() -> Vec<ScalarUDF> {
    let mut all = vectors::functions();
    all.extend(labels::functions());
    all.push(project::function());
    all
}

/// Arguments as columns of the same length.
fn columns(args: &ScalarFunctionArgs) -> Result<Vec<ArrayRef>> {
    args.args.iter().map(|value| value.to_array(args.number_rows)).collect()
}

/// A constant argument.
fn text(value: &ColumnarValue, what: &str) -> Result<String> {
    match value {
        ColumnarValue::Scalar(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::LargeUtf8(Some(text))
            | ScalarValue::Utf8View(Some(text)),
        ) => Ok(text.clone()),
        _ => exec_err!("{what} must be written out as a text"),
    }
}

/// A column of lists whose items are of a type.
fn lists_of(column: &ArrayRef, of: &DataType) -> Result<ListArray> {
    let list = arrow::compute::cast(column, of)?;
    match list.as_any().downcast_ref::<ListArray>() {
        Some(list) => Ok(list.clone()),
        None => exec_err!("expected a list, got {}", column.data_type()),
    }
}

/// A vector per row; none where there is none.
fn vectors_of(column: &ArrayRef) -> Result<Vec<Option<Vec<f32>>>> {
    let list = lists_of(column, &vector_type())?;
    (0..list.len()).map(|row| list.is_valid(row).then(|| numbers(&list.value(row))).transpose()).collect()
}

/// `t` vectors per row.
fn tokens_of(column: &ArrayRef) -> Result<Vec<Option<Vec<Vec<f32>>>>> {
    let list = lists_of(column, &tokens_type())?;
    let row = |row: usize| -> Result<Vec<Vec<f32>>> {
        Ok(vectors_of(&list.value(row))?.into_iter().map(Option::unwrap_or_default).collect())
    };
    (0..list.len()).map(|i| list.is_valid(i).then(|| row(i)).transpose()).collect()
}

/// Classes per row; none where there is none.
fn labels_of(column: &ArrayRef) -> Result<Vec<Option<Vec<Option<u8>>>>> {
    let of = DataType::List(Arc::new(arrow::datatypes::Field::new_list_field(DataType::UInt8, true)));
    let list = lists_of(column, &of)?;
    let row = |row: usize| -> Result<Vec<Option<u8>>> {
        match list.value(row).as_any().downcast_ref::<UInt8Array>() {
            Some(classes) => Ok(classes.iter().collect()),
            None => exec_err!("expected a list of classes"),
        }
    };
    (0..list.len()).map(|i| list.is_valid(i).then(|| row(i)).transpose()).collect()
}

fn numbers(values: &ArrayRef) -> Result<Vec<f32>> {
    match values.as_any().downcast_ref::<Float32Array>() {
        Some(numbers) => Ok(numbers.values().to_vec()),
        None => exec_err!("expected numbers, got {}", values.data_type()),
    }
}

/// Whole numbers per row.
fn indices_of(column: &ArrayRef) -> Result<Vec<Option<i64>>> {
    let column = arrow::compute::cast(column, &DataType::Int64)?;
    match column.as_any().downcast_ref::<arrow::array::Int64Array>() {
        Some(numbers) => Ok(numbers.iter().collect()),
        None => exec_err!("expected whole numbers"),
    }
}
