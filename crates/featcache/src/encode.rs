//! Rows to the bytes of one Parquet shard.
//!
//! Row groups of 8 rows; `tokens`, `cls` and `label` as one fixed-size binary value per row, plain, without dictionary,
//! compression or statistics, `tokens` and `label` with one row per page, so that one image is one seek.
//! The same rows give the same bytes. What the file is (key, index, samples, skipped images) stands in
//! the footer, closed by the seal.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, StringArray, UInt8Array, UInt16Array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use ndarray::ArrayView;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::schema::{self, ShardHead};
use crate::{Dtype, Error, Layout, Result, Row, seal};

/// Rows in a row group.
pub(crate) const GROUP_ROWS: usize = 8;

/// An encoded, sealed shard.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// SHA-256 of `bytes`, in hex.
    pub(crate) sha256: String,
}

/// Encodes rows that have been checked against `layout`.
pub(crate) fn encode(head: &ShardHead, layout: &Layout, dtype: Dtype, rows: &[Row]) -> Result<Encoded> {
    let failed = |cause: ParquetError| Error::Encode { shard: head.index, cause: cause.to_string() };
    let schema = schema::schema(layout, dtype);
    let room = rows.len() * (layout.token_bytes(dtype) + layout.label_bytes() + 512) + (64 << 10);
    let mut writer = ArrowWriter::try_new(Vec::with_capacity(room), schema.clone(), Some(properties(head)))
        .map_err(failed)?;
    for group in rows.chunks(GROUP_ROWS) {
        let batch = batch(&schema, layout, dtype, group, head.index)?;
        writer.write(&batch).map_err(failed)?;
    }
    let mut bytes = writer.into_inner().map_err(failed)?;
    let sha256 = seal::seal(&mut bytes);
    Ok(Encoded { bytes, sha256 })
}

fn properties(head: &ShardHead) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        // A page is closed after the first batch that fills it: batches of one row, pages of one row.
        .set_write_batch_size(1);
    for column in [schema::TOKENS, schema::CLS, schema::LABEL] {
        properties =
            properties.set_column_statistics_enabled(ColumnPath::from(column), EnabledStatistics::None);
    }
    for column in [schema::TOKENS, schema::LABEL] {
        properties = properties.set_column_data_page_size_limit(ColumnPath::from(column), 1);
    }
    let mut pairs: Vec<KeyValue> =
        head.pairs().into_iter().map(|(name, value)| KeyValue::new(name.into(), value)).collect();
    pairs.push(KeyValue::new("featlab.seal".into(), seal::placeholder()));
    properties.set_key_value_metadata(Some(pairs)).build()
}

/// One row group.
fn batch(
    schema: &SchemaRef,
    layout: &Layout,
    dtype: Dtype,
    rows: &[Row],
    shard: usize,
) -> Result<RecordBatch> {
    let failed = |cause: ArrowError| Error::Encode { shard, cause: cause.to_string() };
    let side = |side: usize| -> ArrayRef {
        let side = u16::try_from(side).expect("the layout was checked");
        Arc::new(UInt16Array::from_value(side, rows.len()))
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.image_id))),
        Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.crop))),
        side(layout.grid.0),
        side(layout.grid.1),
    ];

    let mut tokens = Vec::with_capacity(rows.len() * layout.token_bytes(dtype));
    for row in rows {
        append(dtype, row.tokens.view(), &mut tokens).map_err(|value| unfit(row, "tokens", value, dtype))?;
    }
    columns.push(binary(layout.token_bytes(dtype), tokens, None).map_err(failed)?);

    if layout.has_cls {
        let width = layout.dim * dtype.size_bytes();
        let mut cls = Vec::with_capacity(rows.len() * width);
        for row in rows {
            let values = row.cls.as_ref().expect("the rows were checked");
            append(dtype, values.view(), &mut cls).map_err(|value| unfit(row, "cls", value, dtype))?;
        }
        columns.push(binary(width, cls, None).map_err(failed)?);
    }

    if layout.has_label {
        let mut labels = Vec::with_capacity(rows.len() * layout.label_bytes());
        for row in rows {
            match &row.label {
                Some(label) => labels.extend(label.iter()),
                None => labels.resize(labels.len() + layout.label_bytes(), 255),
            }
        }
        let known: NullBuffer = rows.iter().map(|row| row.label.is_some()).collect();
        columns.push(binary(layout.label_bytes(), labels, Some(known)).map_err(failed)?);
    }
    RecordBatch::try_new(schema.clone(), columns).map_err(failed)
}

fn append<D: ndarray::Dimension>(
    dtype: Dtype,
    values: ArrayView<'_, f32, D>,
    out: &mut Vec<u8>,
) -> std::result::Result<(), f32> {
    match values.as_slice() {
        Some(values) => dtype.encode(values, out),
        None => dtype.encode(&values.iter().copied().collect::<Vec<_>>(), out),
    }
}

fn binary(
    width: usize,
    bytes: Vec<u8>,
    nulls: Option<NullBuffer>,
) -> std::result::Result<ArrayRef, ArrowError> {
    let width = i32::try_from(width).expect("the layout was checked");
    Ok(Arc::new(FixedSizeBinaryArray::try_new(width, Buffer::from_vec(bytes), nulls)?))
}

fn unfit(row: &Row, column: &'static str, value: f32, dtype: Dtype) -> Error {
    let image_id = row.image_id.clone();
    if value.is_finite() {
        Error::Overflow { image_id, column, value, dtype }
    } else {
        Error::NonFinite { image_id, column, value }
    }
}
