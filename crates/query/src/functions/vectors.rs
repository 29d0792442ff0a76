//! `l2(a)`, `dot(a, b)`, `cosine(a, b)`, `token(tokens, i)`, `mean_token(tokens)`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::{columns, indices_of, tokens_of, vectors_of};
use crate::cache_table::{vector_type, vectors};

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Which {
    L2,
    Dot,
    Cosine,
    Token,
    MeanToken,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct VectorFunction {
    which: Which,
    signature: Signature,
}

pub(super) fn functions() -> Vec<ScalarUDF> {
    use Which::{Cosine, Dot, L2, MeanToken, Token};
    let function = |which: Which| {
        let arguments = if matches!(which, L2 | MeanToken) { 1 } else { 2 };
        let signature = Signature::any(arguments, Volatility::Immutable);
        ScalarUDF::new_from_impl(VectorFunction { which, signature })
    };
    [L2, Dot, Cosine, Token, MeanToken].map(function).into()
}

impl ScalarUDFImpl for VectorFunction {
    fn name(&self) -> &str {
        match self.which {
            Which::L2 => "l2",
            Which::Dot => "dot",
            Which::Cosine => "cosine",
            Which::Token => "token",
            Which::MeanToken => "mean_token",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.which {
            Which::L2 | Which::Dot | Which::Cosine => DataType::Float64,
            Which::Token | Which::MeanToken => vector_type(),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = columns(&args)?;
        let column: ArrayRef = match self.which {
            Which::L2 => numbers(vectors_of(&columns[0])?.iter().map(|a| Ok(a.as_deref().map(l2))))?,
            Which::Dot => pairs(&columns, dot)?,
            Which::Cosine => pairs(&columns, |a, b| dot(a, b) / (l2(a) * l2(b)))?,
            Which::Token => {
                let (tokens, places) = (tokens_of(&columns[0])?, indices_of(&columns[1])?);
                let rows = tokens.into_iter().zip(places).map(|(tokens, place)| {
                    let place = usize::try_from(place?).ok()?;
                    tokens?.into_iter().nth(place)
                });
                vectors(rows)
            }
            Which::MeanToken => {
                vectors(tokens_of(&columns[0])?.into_iter().map(|tokens| tokens.and_then(|t| mean(&t))))
            }
        };
        Ok(ColumnarValue::Array(column))
    }
}

fn numbers(rows: impl Iterator<Item = Result<Option<f64>>>) -> Result<ArrayRef> {
    Ok(Arc::new(Float64Array::from(rows.collect::<Result<Vec<_>>>()?)))
}

fn pairs(columns: &[ArrayRef], f: impl Fn(&[f32], &[f32]) -> f64) -> Result<ArrayRef> {
    let (left, right) = (vectors_of(&columns[0])?, vectors_of(&columns[1])?);
    numbers(left.iter().zip(&right).map(|pair| match pair {
        (Some(a), Some(b)) if a.len() == b.len() => Ok(Some(f(a, b))),
        (Some(a), Some(b)) => exec_err!("vectors of {} and {} numbers", a.len(), b.len()),
        _ => Ok(None),
    }))
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn l2(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

fn mean(tokens: &[Vec<f32>]) -> Option<Vec<f32>> {
    let width = tokens.first()?.len();
    let sum = |j: usize| tokens.iter().map(|token| f64::from(token[j])).sum::<f64>();
    Some((0..width).map(|j| (sum(j) / tokens.len() as f64) as f32).collect())
}
