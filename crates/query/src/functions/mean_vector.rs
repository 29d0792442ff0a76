//! `mean_vector(v)`: the mean of vectors in a group, in 64 bits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, ListArray, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};

use super::{lists_of, vectors_of};
use crate::cache_table::{vector_type, vectors};

#[derive(Debug, PartialEq, Eq, Hash)]
struct MeanVector {
    signature: Signature,
}

/// The aggregate.
pub(crate) fn mean_vector() -> AggregateUDF {
    AggregateUDF::new_from_impl(MeanVector { signature: Signature::any(1, Volatility::Immutable) })
}

fn sums_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))
}

impl AggregateUDFImpl for MeanVector {
    fn name(&self) -> &str {
        "mean_vector"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(vector_type())
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sum::default()))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |name: &str, of| Arc::new(Field::new(format!("{}[{name}]", args.name), of, true));
        Ok(vec![field("count", DataType::UInt64), field("sums", sums_type())])
    }
}

/// Count and sums of a group.
#[derive(Debug, Default)]
struct Sum {
    count: u64,
    sums: Vec<f64>,
}

impl Sum {
    fn add(&mut self, count: u64, vector: impl ExactSizeIterator<Item = f64>) -> Result<()> {
        if self.count == 0 {
            self.sums = vec![0.0; vector.len()];
        }
        if self.sums.len() != vector.len() {
            return exec_err!("vectors of {} and {} numbers in one group", self.sums.len(), vector.len());
        }
        self.sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
        self.count += count;
        Ok(())
    }
}

impl Accumulator for Sum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        vectors_of(&values[0])?
            .iter()
            .flatten()
            .try_for_each(|v| self.add(1, v.iter().map(|&x| f64::from(x))))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mean = || self.sums.iter().map(|sum| (sum / self.count as f64) as f32).collect();
        ScalarValue::try_from_array(&vectors(std::iter::once((self.count > 0).then(mean))), 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sums.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sums: Vec<ScalarValue> = self.sums.iter().map(|&sum| ScalarValue::Float64(Some(sum))).collect();
        let sums = ScalarValue::new_list_nullable(&sums, &DataType::Float64);
        Ok(vec![ScalarValue::UInt64(Some(self.count)), ScalarValue::List(sums)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let sums: ListArray = lists_of(&states[1], &sums_type())?;
        let Some(counts) = states[0].as_any().downcast_ref::<UInt64Array>() else {
            return exec_err!("a state that is none");
        };
        for row in 0..counts.len() {
            let part = sums.value(row);
            let Some(part) = part.as_any().downcast_ref::<Float64Array>() else {
                return exec_err!("a state that is none");
            };
            if counts.value(row) > 0 {
                self.add(counts.value(row), part.values().iter().copied())?;
            }
        }
        Ok(())
    }
}
