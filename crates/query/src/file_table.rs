//! Parquet and CSV files as tables, from any store: results, label tables, written answers. They are read whole.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use featcache::Store;

/// The files below, or the file at, a place.
pub(crate) fn open(place: &str) -> Result<MemTable> {
    let external = |error: featcache::Error| DataFusionError::External(Box::new(error));
    let (folder, names) = match kind(place) {
        Some(_) => {
            let (folder, name) = place.rsplit_once('/').unwrap_or((".", place));
            (Store::open(folder).map_err(external)?, vec![name.to_owned()])
        }
        None => {
            let store = Store::open(place).map_err(external)?;
            let mut names: Vec<String> =
                store.list().map_err(external)?.into_iter().map(|(name, _)| name).collect();
            names.retain(|name| kind(name).is_some());
            names.sort();
            (store, names)
        }
    };
    let (mut schema, mut batches): (Option<SchemaRef>, Vec<RecordBatch>) = (None, Vec::new());
    for name in &names {
        let bytes = folder.get(name).map_err(external)?;
        let (found, rows) = if kind(name) == Some(Kind::Csv) { csv(bytes)? } else { parquet(bytes)? };
        match &schema {
            Some(schema) if schema.fields() != found.fields() => {
                return Err(DataFusionError::Plan(format!(
                    "{place}: {name} has other columns than {}",
                    names[0]
                )));
            }
            _ => schema = Some(found),
        }
        batches.extend(rows);
    }
    let nothing = || {
        DataFusionError::Plan(format!(
            "{place} is no cache, no .parquet or .csv file, and no folder of such files"
        ))
    };
    MemTable::try_new(schema.ok_or_else(nothing)?, vec![batches])
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Parquet,
    Csv,
}

fn kind(name: &str) -> Option<Kind> {
    match name.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
        "parquet" => Some(Kind::Parquet),
        "csv" => Some(Kind::Csv),
        _ => None,
    }
}

fn parquet(bytes: Bytes) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let schema = Arc::clone(reader.schema());
    Ok((schema, reader.build()?.collect::<std::result::Result<_, _>>()?))
}

fn csv(bytes: Bytes) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let format = arrow::csv::reader::Format::default().with_header(true);
    let (schema, _) = format.infer_schema(&*bytes, None)?;
    let schema = Arc::new(schema);
    let reader = arrow::csv::ReaderBuilder::new(Arc::clone(&schema)).with_header(true).build(&*bytes)?;
    Ok((schema, reader.collect::<std::result::Result<_, _>>()?))
}
