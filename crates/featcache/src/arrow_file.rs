//! Shards as Arrow IPC files: the form `arrow`.
//!
//! One record batch per file, its cells fixed-shape tensors, its buffers aligned to 64 bytes: who maps the file has
//! arrays. What the file is stands in the footer's metadata, closed by the seal.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::root_as_footer;
use arrow::ipc::writer::FileWriter;
use bytes::Bytes;

use crate::batch;
use crate::damage::Flaw;
use crate::schema::{Columns, ShardHead};
use crate::{DamageKind, Error, Form, Record, Result, seal};

/// Bytes at the end of every file: the length of the footer and a mark.
const TRAILER: usize = 10;

/// Encodes records of `columns`, without the seal's digits.
pub(crate) fn encode(head: &ShardHead, columns: &Columns, records: &[Record]) -> Result<Vec<u8>> {
    let failed = |cause: ArrowError| Error::Encode { shard: head.index, cause: cause.to_string() };
    let schema = columns.schema(Form::Arrow);
    let room = records.len() * (columns.layout.row_bytes(columns.dtype) + 512) + (64 << 10);
    let mut writer = FileWriter::try_new(Vec::with_capacity(room), &schema).map_err(failed)?;
    let batch = batch::build(&schema, columns, Form::Arrow, records).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    // The file's metadata is a map without an order: one entry, so that the same rows give the same bytes.
    let mut pairs: serde_json::Map<String, serde_json::Value> =
        head.pairs().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    pairs.insert("featlab.seal".into(), seal::placeholder().into());
    writer.write_metadata("featlab", serde_json::Value::Object(pairs).to_string());
    writer.into_inner().map_err(failed)
}

/// Decodes a whole file and checks its columns; where the file is mapped, nothing is copied.
pub(crate) fn decode(
    file: &Bytes,
    columns: &Arc<Columns>,
) -> std::result::Result<(ShardHead, Vec<Record>), Flaw> {
    let wrong = |what: String| Flaw::new(DamageKind::Schema, what);
    let unreadable = |error: ArrowError| wrong(error.to_string());
    let trailer = file.len().checked_sub(TRAILER).ok_or_else(|| wrong("it has no footer".into()))?;
    let tail: [u8; TRAILER] = file[trailer..].try_into().expect("ten bytes");
    let length = read_footer_length(tail).map_err(unreadable)?;
    let start =
        trailer.checked_sub(length).ok_or_else(|| wrong("its footer is longer than the file".into()))?;
    let footer = root_as_footer(&file[start..trailer]).map_err(|error| wrong(error.to_string()))?;

    let schema: Schema = fb_to_schema(footer.schema().ok_or_else(|| wrong("it has no schema".into()))?);
    let expected = columns.schema(Form::Arrow);
    if schema.fields() != expected.fields() {
        return Err(wrong(format!("columns are {schema:?}, expected {expected:?}")));
    }
    let mut pairs = HashMap::new();
    for pair in footer.custom_metadata().iter().flatten() {
        if pair.key() == Some("featlab") {
            pairs = serde_json::from_str(pair.value().unwrap_or_default())
                .map_err(|error| wrong(error.to_string()))?;
        }
    }
    let pairs: HashMap<String, String> = pairs;
    let head = ShardHead::from_pairs(|name| pairs.get(name).map(String::as_str))?;

    let decoder = FileDecoder::new(Arc::new(schema), footer.version());
    let mut records = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let range = usize::try_from(block.offset())
            .ok()
            .zip(usize::try_from(block.bodyLength()).ok().zip(usize::try_from(block.metaDataLength()).ok()));
        let range = range.and_then(|(at, (body, meta))| Some(at..at.checked_add(body)?.checked_add(meta)?));
        let range = range.filter(|range| range.end <= file.len());
        let bytes = file.slice(range.ok_or_else(|| wrong("a batch lies outside of the file".into()))?);
        let batch = decoder.read_record_batch(block, &Buffer::from(bytes)).map_err(unreadable)?;
        if let Some(batch) = batch {
            records.extend(batch::records(&batch, columns, Form::Arrow)?);
        }
    }
    Ok((head, records))
}
