//! The function that the engine knows: `featlab_unit(order, unit) -> report`.
//!
//! Scheduler and driver have it by name only; an executor's has the worker. A panic of the worker is a failure of its unit.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, BinaryArray, UInt64Array};
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use serde::{Deserialize, Serialize};

use crate::{Report, UnitFailure, Worker};

/// The name that the engine knows it by.
const NAME: &str = "featlab_unit";

/// How much longer an executor waits with each failure in a row.
const PAUSE: Duration = Duration::from_secs(1);

/// What the driver sends: a job, and who asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Version of the driver.
    pub(crate) version: String,
    /// What the worker understands.
    pub(crate) job: String,
}

/// Who does the work.
#[derive(Debug, Clone)]
pub(crate) struct Hand {
    /// Name of the executor.
    pub(crate) executor: String,
    /// Its version.
    pub(crate) version: String,
    pub(crate) worker: Arc<dyn Worker>,
    /// Units in a row that failed and may go better elsewhere.
    pub(crate) failures: Arc<AtomicU32>,
}

#[derive(Debug)]
struct UnitFunction {
    signature: Signature,
    hand: Option<Hand>,
}

// A session has one such function, whatever stands behind it.
impl PartialEq for UnitFunction {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for UnitFunction {}
impl Hash for UnitFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        NAME.hash(state);
    }
}

/// The function, with the worker that it calls or by name only.
pub(crate) fn unit_function(hand: Option<Hand>) -> ScalarUDF {
    let arguments = TypeSignature::Exact(vec![DataType::Utf8, DataType::UInt64]);
    let signature = Signature::new(arguments, Volatility::Volatile);
    ScalarUDF::new_from_impl(UnitFunction { signature, hand })
}

impl ScalarUDFImpl for UnitFunction {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(hand) = &self.hand else { return exec_err!("units are worked on by executors only") };
        let [ColumnarValue::Scalar(ScalarValue::Utf8(Some(order))), units] = &args.args[..] else {
            return exec_err!("{NAME} takes an order and a column of unit numbers");
        };
        let Ok(order) = serde_json::from_str::<Order>(order) else {
            return exec_err!("{NAME} was given no order of featlab");
        };
        let units = units.to_array(args.number_rows)?;
        let Some(units) = units.as_any().downcast_ref::<UInt64Array>() else {
            return exec_err!("{NAME} takes unit numbers");
        };
        let reports: Vec<Vec<u8>> =
            units.values().iter().map(|&unit| hand.report(&order, unit).encode()).collect();
        let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(reports));
        Ok(ColumnarValue::Array(column))
    }
}

impl Hand {
    fn report(&self, order: &Order, unit: u64) -> Report {
        let started = Instant::now();
        let (payload, failure) = match self.work(order, unit) {
            Ok(payload) => (payload, None),
            Err(failure) => (Vec::new(), Some(failure)),
        };
        // An executor that fails at once must not take all units from those that would not.
        let in_a_row = match &failure {
            Some(failure) if failure.again => self.failures.fetch_add(1, Ordering::Relaxed),
            _ => {
                self.failures.store(0, Ordering::Relaxed);
                0
            }
        };
        if failure.is_some() {
            std::thread::sleep(PAUSE * in_a_row.min(10));
        }
        Report {
            unit,
            executor: self.executor.clone(),
            version: self.version.clone(),
            seconds: started.elapsed().as_secs_f64(),
            failure,
            payload,
        }
    }

    fn work(&self, order: &Order, unit: u64) -> Result<Vec<u8>, UnitFailure> {
        if order.version != self.version {
            // The driver compares the versions and says so in its own words.
            return Err(UnitFailure { message: "another version".into(), code: 4, again: false });
        }
        // A thread of its own: stores wait for the network with a runtime, and there may be only one around a thread.
        let done = std::thread::scope(|scope| {
            let work = || self.worker.run(&order.job, unit);
            std::thread::Builder::new().name(format!("unit {unit}")).spawn_scoped(scope, work).map(|thread| {
                thread.join().unwrap_or_else(|panic| {
                    let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                    Err(UnitFailure { message: format!("a panic: {said}"), code: 1, again: true })
                })
            })
        });
        done.unwrap_or_else(|error| {
            Err(UnitFailure { message: format!("no thread for it: {error}"), code: 1, again: true })
        })
    }
}
