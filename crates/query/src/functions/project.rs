//! `project(tokens, file, k)`: tokens through the first `k` dimensions of a reducer file.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use dimred::{Map, Projection as _, Reducer};
use ndarray::Array2;

use super::{columns, text, tokens_of};
use crate::cache_table::{lists, tokens_type};

#[derive(Debug)]
struct Project {
    signature: Signature,
    /// Maps by file and dimension: a file is read once per session.
    maps: Mutex<HashMap<(String, usize), Arc<Map>>>,
}

impl PartialEq for Project {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Project {}
impl Hash for Project {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

pub(super) fn function() -> ScalarUDF {
    let signature = Signature::any(3, Volatility::Stable);
    ScalarUDF::new_from_impl(Project { signature, maps: Mutex::default() })
}

impl ScalarUDFImpl for Project {
    fn name(&self) -> &str {
        "project"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(tokens_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let file = text(&args.args[1], "the file of project(tokens, file, k)")?;
        let dim = match &args.args[2] {
            ColumnarValue::Scalar(number) => match number.cast_to(&DataType::UInt64)? {
                ScalarValue::UInt64(Some(dim)) => dim as usize,
                _ => return exec_err!("the dimension of project(tokens, file, k) must be a number"),
            },
            ColumnarValue::Array(_) => {
                return exec_err!("the dimension of project(tokens, file, k) must be one number");
            }
        };
        let map = self.map(file, dim)?;
        let tokens = tokens_of(&columns(&args)?[0])?;
        let codes = tokens.into_iter().map(|tokens| {
            let tokens = tokens.unwrap_or_default();
            let (t, d) = (tokens.len(), tokens.first().map_or(0, Vec::len));
            let matrix = Array2::from_shape_vec((t, d), tokens.concat())
                .map_err(|_| DataFusionError::Execution("tokens of different lengths".into()))?;
            map.transform(matrix.view()).map_err(|error| DataFusionError::External(Box::new(error)))
        });
        Ok(ColumnarValue::Array(lists(&codes.collect::<Result<Vec<_>>>()?)))
    }
}

impl Project {
    fn map(&self, file: String, dim: usize) -> Result<Arc<Map>> {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (file, dim);
        if let Some(map) = maps.get(&key) {
            return Ok(Arc::clone(map));
        }
        let failed = |error: dimred::Error| DataFusionError::Execution(format!("reducer {}: {error}", key.0));
        let reducer = Reducer::load(std::path::Path::new(&key.0)).map_err(failed)?;
        let map = Arc::new(reducer.at(dim).map_err(failed)?);
        maps.insert(key, Arc::clone(&map));
        Ok(map)
    }
}
