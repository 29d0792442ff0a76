//! A cache as a table: a row per image (or crop), as many partitions as the session works on at a time, each some shards one after the
//! other, and only the columns that a query reads.
//!
//! | column | type |
//! |---|---|
//! | `image_id` | text |
//! | `crop`, `grid_h`, `grid_w` | numbers |
//! | `tokens`, and further columns of tokens | list of lists of `f32` |
//! | `cls` | list of `f32` |
//! | `label` | list of `u8`, none for pixels without a class |
//!
//! Rows are read and checked as everywhere, in all forms of a cache; numbers are converted to `f32` from whatever is stored.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringArray, UInt8Array, UInt8Builder, UInt32Array};
use arrow::array::{Float32Array, ListArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
    SendableRecordBatchStream,
};
use featcache::{Cache, ReadOptions, Record};
use ndarray::Array2;

/// Pixels without a class.
const IGNORE: u8 = 255;
/// Rows of a batch: tokens of an image are a megabyte.
const BATCH_ROWS: usize = 16;

/// A cache that queries read.
#[derive(Debug, Clone)]
pub(crate) struct CacheTable {
    cache: Cache,
    schema: SchemaRef,
}

/// A list of `f32`.
pub(crate) fn vector_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true)))
}

/// A list of lists of `f32`.
pub(crate) fn tokens_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(vector_type(), true)))
}

fn label_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::UInt8, true)))
}

impl CacheTable {
    pub(crate) fn new(cache: Cache) -> Self {
        let layout = cache.layout();
        let mut fields = vec![
            Field::new("image_id", DataType::Utf8, false),
            Field::new("crop", DataType::UInt8, false),
            Field::new("grid_h", DataType::UInt32, false),
            Field::new("grid_w", DataType::UInt32, false),
            Field::new("tokens", tokens_type(), false),
        ];
        fields.extend(layout.more.iter().map(|name| Field::new(name, tokens_type(), false)));
        if layout.has_cls {
            fields.push(Field::new("cls", vector_type(), true));
        }
        if layout.has_label {
            fields.push(Field::new("label", label_type(), true));
        }
        Self { schema: Arc::new(Schema::new(fields)), cache }
    }

    /// What is read of the cache for some columns of the table: names and crops are in the footer of every row.
    fn stored(&self, schema: &Schema) -> Vec<String> {
        let light = ["image_id", "crop", "grid_h", "grid_w"];
        let names = schema.fields().iter().map(|field| field.name().clone());
        names.filter(|name| !light.contains(&name.as_str())).collect()
    }

    fn column(&self, name: &str, rows: &[Record]) -> Result<ArrayRef> {
        let (grid_h, grid_w) = self.cache.layout().grid;
        Ok(match name {
            "image_id" => Arc::new(StringArray::from_iter_values(rows.iter().map(Record::image_id))),
            "crop" => Arc::new(UInt8Array::from_iter_values(rows.iter().map(Record::crop))),
            "grid_h" => Arc::new(UInt32Array::from(vec![grid_h as u32; rows.len()])),
            "grid_w" => Arc::new(UInt32Array::from(vec![grid_w as u32; rows.len()])),
            "cls" => vectors(rows.iter().map(|row| row.cls().map(|cls| cls.to_vec()))),
            "label" => {
                let mut list = ListBuilder::new(UInt8Builder::new());
                for row in rows {
                    match row.label() {
                        Some(label) => list.append_value(label.iter().map(|&c| (c != IGNORE).then_some(c))),
                        None => list.append_null(),
                    }
                }
                Arc::new(list.finish())
            }
            name => {
                let tokens = rows.iter().map(|row| row.feature(name));
                let missing = || DataFusionError::Execution(format!("the cache has no column {name}"));
                lists(&tokens.collect::<Option<Vec<_>>>().ok_or_else(missing)?)
            }
        })
    }

    fn batch(&self, schema: &SchemaRef, rows: &[Record]) -> Result<RecordBatch> {
        let columns = schema.fields().iter().map(|field| self.column(field.name(), rows));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_>>()?, &options)?)
    }
}

/// Vectors as a column.
pub(crate) fn vectors(rows: impl Iterator<Item = Option<Vec<f32>>>) -> ArrayRef {
    let mut list = ListBuilder::new(arrow::array::Float32Builder::new());
    for row in rows {
        match row {
            Some(row) => list.append_value(row.into_iter().map(Some)),
            None => list.append_null(),
        }
    }
    Arc::new(list.finish())
}

/// Matrices `[t, d]` as a column of lists of vectors.
pub(crate) fn lists(rows: &[Array2<f32>]) -> ArrayRef {
    let numbers: Vec<f32> = rows.iter().flat_map(|row| row.iter().copied()).collect();
    let widths = rows.iter().flat_map(|row| std::iter::repeat_n(row.ncols(), row.nrows()));
    let inner = ListArray::new(
        Arc::new(Field::new_list_field(DataType::Float32, true)),
        OffsetBuffer::from_lengths(widths),
        Arc::new(Float32Array::new(ScalarBuffer::from(numbers), None)),
        None,
    );
    let outer = OffsetBuffer::from_lengths(rows.iter().map(Array2::nrows));
    Arc::new(ListArray::new(
        Arc::new(Field::new_list_field(vector_type(), true)),
        outer,
        Arc::new(inner),
        None,
    ))
}

#[async_trait]
impl TableProvider for CacheTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let shards = self.cache.manifest().shards.len();
        let parts = shards.clamp(1, session.config().target_partitions().max(1));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(parts),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Arc::new(CacheScan { table: self.clone(), schema, parts, properties: Arc::new(properties) }))
    }
}

/// A read of some columns.
#[derive(Debug, Clone)]
struct CacheScan {
    table: CacheTable,
    schema: SchemaRef,
    parts: usize,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for CacheScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "CacheScan: {} columns [{}]", self.table.cache.store().display(), names.join(", "))
    }
}

impl ExecutionPlan for CacheScan {
    fn name(&self) -> &str {
        "CacheScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let scan = self.clone();
        // Stores wait for the network with a runtime of their own, so that shards are read on a thread without one; it begins when
        // somebody asks for the first batch.
        let batches = futures::stream::once(async move {
            let (send, receive) = futures::channel::mpsc::channel(2);
            let failed = |error: std::io::Error| {
                DataFusionError::Execution(format!("no thread to read with: {error}"))
            };
            std::thread::Builder::new().spawn(move || scan.read(partition, send)).map_err(failed)?;
            Ok::<_, DataFusionError>(receive)
        });
        let batches = futures::TryStreamExt::try_flatten(batches);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches)))
    }
}

impl CacheScan {
    /// Sends the batches of one partition's shards until nobody wants any more.
    fn read(&self, part: usize, mut send: futures::channel::mpsc::Sender<Result<RecordBatch>>) {
        let cache = &self.table.cache;
        let mut put = |batch| futures::executor::block_on(futures::SinkExt::send(&mut send, batch)).is_ok();
        let options =
            ReadOptions { columns: Some(self.table.stored(&self.schema)), ..ReadOptions::default() };
        for shard in (part..cache.manifest().shards.len()).step_by(self.parts) {
            let read = cache.read_shard(shard, &options);
            let read = read.map_err(|error| DataFusionError::External(Box::new(error)));
            let sent = match read {
                Ok(read) => {
                    read.records().chunks(BATCH_ROWS).all(|rows| put(self.table.batch(&self.schema, rows)))
                }
                Err(error) => {
                    put(Err(error));
                    false
                }
            };
            if !sent {
                return;
            }
        }
    }
}
