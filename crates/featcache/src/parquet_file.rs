//! Shards as Parquet: the forms `binary`, `packed` and `list`.
//!
//! Row groups of 8 rows, without dictionary; `binary` and `packed` give every large cell a page of its own, so that one image is
//! one seek, and write a directory of these pages into the footer. The same rows give the same bytes. What the file is
//! (key, index, samples, skipped images) stands in the footer as well, closed by the seal.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, parquet_to_arrow_schema};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::batch;
use crate::damage::Flaw;
use crate::directory::{Directory, RowEntry};
use crate::schema::{Column, Columns, ShardHead};
use crate::{DamageKind, Error, Form, Record, Result, planes, seal};

/// Rows in a row group.
pub(crate) const GROUP_ROWS: usize = 8;
/// Bytes at the end of every Parquet file: the length of the footer and a mark.
const TRAILER: usize = 8;

/// Encodes records of `columns`, without the seal's digits.
pub(crate) fn encode(head: &ShardHead, columns: &Columns, form: Form, records: &[Record]) -> Result<Vec<u8>> {
    let broken = |cause: String| Error::Encode { shard: head.index, cause };
    let failed = |cause: ParquetError| broken(cause.to_string());
    let schema = columns.schema(form);
    let room = records.len() * (columns.layout.row_bytes(columns.dtype) + 512) + (64 << 10);
    let properties = properties(head, columns, form, records);
    let mut writer =
        ArrowWriter::try_new(Vec::with_capacity(room), schema.clone(), Some(properties)).map_err(failed)?;
    for group in records.chunks(GROUP_ROWS) {
        let batch = batch::build(&schema, columns, form, group).map_err(|cause| broken(cause.to_string()))?;
        writer.write(&batch).map_err(failed)?;
    }
    let file = writer.into_inner().map_err(failed)?;
    if form == Form::List || records.is_empty() {
        return Ok(file);
    }
    Directory::fill_in(file, records, columns).map_err(broken)
}

fn properties(head: &ShardHead, columns: &Columns, form: Form, records: &[Record]) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_max_row_group_row_count(Some(GROUP_ROWS));
    let mut pairs: Vec<(&str, String)> = head.pairs().into();
    if form != Form::List {
        // A page is closed after the first batch that fills it: batches of one row, pages of one row.
        properties = properties.set_write_batch_size(1);
        pairs.extend(Directory::placeholder(records, columns));
    }
    for column in &columns.list {
        let leaf = if form == Form::List { &["list", "item"][..] } else { &[] }; // below a list
        let path = [column.name.as_str()].into_iter().chain(leaf.iter().copied()).map(str::to_owned);
        let path = ColumnPath::new(path.collect());
        properties = properties.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        if form != Form::List && column.is_large() {
            properties = properties.set_column_data_page_size_limit(path.clone(), 1);
        }
        if form == Form::Packed && column.is_large() {
            let level = ZstdLevel::try_new(1).expect("1 is a level");
            properties = properties.set_column_compression(path, Compression::ZSTD(level));
        }
    }
    pairs.push(("featlab.seal", seal::placeholder()));
    let pairs = pairs.into_iter().map(|(name, value)| KeyValue::new(name.into(), value)).collect();
    properties.set_key_value_metadata(Some(pairs)).build()
}

/// Bytes of the footer at the end of a file.
pub(crate) fn footer_bytes(file: &[u8]) -> usize {
    let Some(at) = file.len().checked_sub(TRAILER) else { return file.len() };
    let length = u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
    (length as usize).saturating_add(TRAILER).min(file.len())
}

/// What a footer says; `file_bytes` is the size of the whole file.
pub(crate) fn read_footer(
    footer: &[u8],
    columns: &Columns,
    form: Form,
    file_bytes: u64,
) -> std::result::Result<(ShardHead, Option<Directory>), Flaw> {
    let unreadable = |error: ParquetError| Flaw::new(DamageKind::Schema, error);
    let metadata = footer.len().checked_sub(TRAILER).map(|end| &footer[..end]);
    let metadata = metadata.ok_or_else(|| Flaw::new(DamageKind::Schema, "it has no footer"))?;
    let metadata = ParquetMetaDataReader::decode_metadata(metadata).map_err(unreadable)?;
    let file = metadata.file_metadata();
    let pairs = file.key_value_metadata();
    let schema = parquet_to_arrow_schema(file.schema_descr(), pairs).map_err(unreadable)?;
    let expected = columns.schema(form);
    if schema.fields() != expected.fields() {
        let detail = format!("columns are {schema:?}, expected {expected:?}");
        return Err(Flaw::new(DamageKind::Schema, detail));
    }
    let find = |name: &str| pairs?.iter().find(|pair| pair.key == name)?.value.as_deref();
    let head = ShardHead::from_pairs(find)?;
    let directory = match form {
        Form::Binary | Form::Packed => Directory::from_pairs(find, columns.list.len(), file_bytes)?,
        Form::List | Form::Arrow => None,
    };
    Ok((head, directory))
}

/// A record from the stored bytes of its cells.
pub(crate) fn record(
    row: &RowEntry,
    stored: Vec<Option<Bytes>>,
    columns: &Arc<Columns>,
    form: Form,
) -> std::result::Result<Record, Flaw> {
    let cells = stored.into_iter().zip(&columns.list).map(|(bytes, column)| match bytes {
        None => Ok(None),
        Some(bytes) => unpack(bytes, column, form).map(Some),
    });
    let cells = cells.collect::<std::result::Result<_, _>>()?;
    Ok(Record { image_id: row.image_id.clone(), crop: row.crop, cells, columns: columns.clone() })
}

/// The bytes of a cell as they are in memory.
fn unpack(stored: Bytes, column: &Column, form: Form) -> std::result::Result<Bytes, Flaw> {
    let width = column.width();
    let wrong = |what: String| Flaw::new(DamageKind::Schema, format!("a value of {}: {what}", column.name));
    if form != Form::Packed || !column.is_large() {
        let found = stored.len();
        return if found == width {
            Ok(stored)
        } else {
            Err(wrong(format!("{found} bytes, expected {width}")))
        };
    }
    // Before the value of a nullable column there are a few bytes that say that it is there.
    let mut page = zstd::bulk::decompress(&stored, width + 64)
        .map_err(|error| wrong(format!("not unpacked: {error}")))?;
    let at = page
        .len()
        .checked_sub(width)
        .ok_or_else(|| wrong(format!("{} bytes, expected {width}", page.len())))?;
    if column.has_planes(form) {
        return Ok(planes::join(&page[at..], column.element.size_bytes()).into());
    }
    page.drain(..at);
    Ok(page.into())
}

/// Decodes the pages as any reader would.
pub(crate) fn from_pages(
    file: &Bytes,
    columns: &Arc<Columns>,
    form: Form,
) -> std::result::Result<Vec<Record>, Flaw> {
    let unreadable = |error: &dyn std::error::Error| Flaw::new(DamageKind::Schema, error);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file.clone()).map_err(|error| unreadable(&error))?;
    let reader = builder.with_batch_size(GROUP_ROWS).build().map_err(|error| unreadable(&error))?;
    let mut records = Vec::new();
    for batch in reader {
        let batch: RecordBatch = batch.map_err(|error| unreadable(&error))?;
        records.extend(batch::records(&batch, columns, form)?);
    }
    Ok(records)
}
