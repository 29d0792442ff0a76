//! A job as a plan of the engine: a projection of the unit function over a table with one partition per unit.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::common::ScalarValue;
use datafusion::config::ConfigOptions;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion_proto::physical_plan::AsExecutionPlan as _;
use datafusion_proto::protobuf::PhysicalPlanNode;

use crate::unit_function::{Order, unit_function};

/// The plan of `units`, as the scheduler takes it.
pub(crate) fn encoded(order: &Order, units: &[u64]) -> Result<Vec<u8>> {
    let plan = PhysicalPlanNode::try_from_physical_plan(
        plan(order, units)?,
        &BallistaPhysicalExtensionCodec::default(),
    )?;
    let mut bytes = Vec::new();
    plan.try_encode(&mut bytes)?;
    Ok(bytes)
}

fn plan(order: &Order, units: &[u64]) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = Arc::new(Schema::new(vec![Field::new("unit", DataType::UInt64, false)]));
    let partition = |&unit: &u64| -> Result<Vec<RecordBatch>> {
        let column = Arc::new(UInt64Array::from(vec![unit]));
        Ok(vec![RecordBatch::try_new(Arc::clone(&schema), vec![column])?])
    };
    let partitions = units.iter().map(partition).collect::<Result<Vec<_>>>()?;
    let table = MemorySourceConfig::try_new_exec(&partitions, Arc::clone(&schema), None)?;
    let order = serde_json::to_string(order).expect("an order has a JSON form");
    let arguments: Vec<Arc<dyn PhysicalExpr>> =
        vec![Arc::new(Literal::new(ScalarValue::Utf8(Some(order)))), Arc::new(Column::new("unit", 0))];
    let call = ScalarFunctionExpr::try_new(
        Arc::new(unit_function(None)),
        arguments,
        &schema,
        Arc::new(ConfigOptions::default()),
    )?;
    let call: Arc<dyn PhysicalExpr> = Arc::new(call);
    Ok(Arc::new(ProjectionExec::try_new([(call, "report".to_owned())], table)?))
}
