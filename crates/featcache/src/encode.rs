//! Records to the bytes of one sealed shard.

use crate::schema::{Columns, ShardHead};
use crate::{Form, Record, Result, arrow_file, checksum, parquet_file, seal};

/// An encoded, sealed shard.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sums: Sums,
}

/// The checksums of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    /// SHA-256 of the file, in hex.
    pub(crate) sha256: String,
    /// XXH3-128 of the file, in hex.
    pub(crate) xxh3: String,
    /// Length of the footer and its XXH3-128, if it can be read on its own.
    pub(crate) footer: Option<(u64, String)>,
}

impl Sums {
    /// Of a file whose SHA-256 is known already.
    pub(crate) fn new(file: &[u8], form: Form, sha256: String) -> Self {
        let length = match form {
            Form::Binary | Form::Packed => Some(parquet_file::footer_bytes(file)),
            Form::Arrow => Some(arrow_file::footer_bytes(file)),
            Form::List => None,
        };
        let footer = length.map(|length| (length as u64, checksum::of_file(&file[file.len() - length..])));
        Self { sha256, xxh3: checksum::of_file(file), footer }
    }
}

/// Encodes records, all of the same columns.
pub(crate) fn encode(head: &ShardHead, columns: &Columns, form: Form, records: &[Record]) -> Result<Encoded> {
    let mut bytes = match form {
        Form::Arrow => arrow_file::encode(head, columns, records)?,
        Form::Binary | Form::Packed | Form::List => parquet_file::encode(head, columns, form, records)?,
    };
    let sha256 = seal::seal(&mut bytes);
    let sums = Sums::new(&bytes, form, sha256);
    Ok(Encoded { bytes, sums })
}
