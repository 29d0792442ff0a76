//! Shards as Arrow IPC files: the form `arrow`.
//!
//! One record batch per file, its cells fixed-shape tensors, its buffers aligned to 64 bytes: who maps the file has
//! arrays. What the file is, and where its cells are, stands in the footer's metadata, closed by the seal.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::writer::FileWriter;
use arrow::ipc::{Block, Footer, root_as_footer};
use bytes::Bytes;

use crate::batch;
use crate::damage::Flaw;
use crate::directory::Directory;
use crate::schema::{Columns, ShardHead};
use crate::{DamageKind, Error, Form, Record, Result, seal};

/// Bytes at the end of every file: the length of the footer and a mark.
const TRAILER: usize = 10;

/// Encodes records of `columns`, without the seal's digits.
pub(crate) fn encode(head: &ShardHead, columns: &Columns, records: &[Record]) -> Result<Vec<u8>> {
    let broken = |cause: String| Error::Encode { shard: head.index, cause };
    let failed = |cause: ArrowError| broken(cause.to_string());
    let schema = columns.schema(Form::Arrow);
    let room = records.len() * (columns.layout.row_bytes(columns.dtype) + 512) + (64 << 10);
    let mut writer = FileWriter::try_new(Vec::with_capacity(room), &schema).map_err(failed)?;
    let batch = batch::build(&schema, columns, Form::Arrow, records).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    // The file's metadata is a map without an order: one entry, so that the same rows give the same bytes.
    let mut pairs: serde_json::Map<String, serde_json::Value> =
        head.pairs().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    for (name, value) in Directory::placeholder(records, columns) {
        pairs.insert(name.into(), value.into());
    }
    pairs.insert("featlab.seal".into(), seal::placeholder().into());
    writer.write_metadata("featlab", serde_json::Value::Object(pairs).to_string());
    fill_in(writer.into_inner().map_err(failed)?, columns).map_err(broken)
}

/// Says in the footer where the cells are: reads the file as any reader would, and looks where they were found.
fn fill_in(file: Vec<u8>, columns: &Columns) -> std::result::Result<Vec<u8>, String> {
    let file = Bytes::from(file);
    let records = decode_batches(&file, &Arc::new(columns.clone())).map_err(|flaw| flaw.detail)?;
    let text = Directory::of_slices(&file, &records).ok_or("cells are not parts of the file")?;
    drop(records);
    let mut file = Vec::from(file);
    Directory::put(&text, &mut file)?;
    Ok(file)
}

/// Decodes a whole file as any reader of Arrow would; where the file is mapped, nothing is copied.
fn decode_batches(file: &Bytes, columns: &Arc<Columns>) -> std::result::Result<Vec<Record>, Flaw> {
    let tail = &file[file.len() - footer_bytes(file)..];
    let (footer, schema) = parse_footer(tail, columns)?;
    let decoder = FileDecoder::new(Arc::new(schema), footer.version());
    let mut records = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let bytes = block_range(block, file.len()).map(|range| file.slice(range));
        let bytes = bytes.ok_or_else(|| wrong("a batch lies outside of the file"))?;
        if let Some(batch) = decoder.read_record_batch(block, &Buffer::from(bytes)).map_err(wrong)? {
            records.extend(batch::records(&batch, columns, Form::Arrow)?);
        }
    }
    Ok(records)
}

/// What a footer says; `file_bytes` is the size of the whole file.
pub(crate) fn read_footer(
    footer: &[u8],
    columns: &Columns,
    file_bytes: u64,
) -> std::result::Result<(ShardHead, Option<Directory>), Flaw> {
    let (footer, _) = parse_footer(footer, columns)?;
    let pairs = pairs(&footer)?;
    let find = |name: &str| pairs.get(name).map(String::as_str);
    Ok((ShardHead::from_pairs(find)?, Directory::from_pairs(find, columns.list.len(), file_bytes)?))
}

/// Bytes of the footer at the end of a file.
pub(crate) fn footer_bytes(file: &[u8]) -> usize {
    let length = file.len().checked_sub(TRAILER).and_then(|at| {
        let tail: [u8; TRAILER] = file[at..].try_into().ok()?;
        read_footer_length(tail).ok()
    });
    length.map_or(file.len(), |length| length.saturating_add(TRAILER).min(file.len()))
}

/// The end of a file, whose columns must be the expected ones.
fn parse_footer<'a>(tail: &'a [u8], columns: &Columns) -> std::result::Result<(Footer<'a>, Schema), Flaw> {
    let end = tail.len().checked_sub(TRAILER).ok_or_else(|| wrong("it has no footer"))?;
    let footer = root_as_footer(&tail[..end]).map_err(wrong)?;
    let schema = fb_to_schema(footer.schema().ok_or_else(|| wrong("it has no schema"))?);
    let expected = columns.schema(Form::Arrow);
    if schema.fields() != expected.fields() {
        return Err(wrong(format!("columns are {schema:?}, expected {expected:?}")));
    }
    Ok((footer, schema))
}

fn pairs(footer: &Footer<'_>) -> std::result::Result<HashMap<String, String>, Flaw> {
    let ours = footer.custom_metadata().iter().flatten().find(|pair| pair.key() == Some("featlab"));
    let text =
        ours.and_then(|pair| pair.value()).ok_or_else(|| wrong("the footer lacks the featlab entries"))?;
    serde_json::from_str(text).map_err(wrong)
}

/// Where a batch lies, if it lies in the file.
fn block_range(block: &Block, file_bytes: usize) -> Option<Range<usize>> {
    let start = usize::try_from(block.offset()).ok()?;
    let meta = usize::try_from(block.metaDataLength()).ok()?;
    let end = start.checked_add(meta)?.checked_add(usize::try_from(block.bodyLength()).ok()?)?;
    (end <= file_bytes).then_some(start..end)
}

fn wrong(what: impl ToString) -> Flaw {
    Flaw::new(DamageKind::Schema, what)
}
