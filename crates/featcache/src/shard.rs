//! One shard in memory: the records of one file.
//!
//! Cells are slices of the file, so that a shard costs what its file costs, and a mapped one nothing but address space.

use std::sync::Arc;

use bytes::Bytes;
use ndarray::{Array1, Array2, ArrayView2};
use rayon::prelude::*;

use crate::damage::Flaw;
use crate::directory::{Directory, RowEntry};
use crate::schema::{Columns, ShardHead};
use crate::{Form, Record, Tombstone, arrow_file, parquet_file};

/// The rows of one shard.
#[derive(Debug, Clone)]
pub struct Shard {
    head: ShardHead,
    records: Vec<Record>,
}

impl Shard {
    /// Decodes a file and checks its columns.
    pub(crate) fn decode(file: &Bytes, columns: &Arc<Columns>, form: Form) -> Result<Self, Flaw> {
        let footer = match form {
            Form::Arrow => arrow_file::footer_bytes(file),
            Form::Binary | Form::Packed | Form::List => parquet_file::footer_bytes(file),
        };
        let (head, directory) =
            Self::read_footer(&file[file.len() - footer..], columns, form, file.len() as u64)?;
        let records = match directory {
            Some(directory) => from_directory(file, columns, form, &directory)?,
            None => parquet_file::from_pages(file, columns, form)?,
        };
        Ok(Self { head, records })
    }

    /// What a footer says; `file_bytes` is the size of the whole file.
    pub(crate) fn read_footer(
        footer: &[u8],
        columns: &Columns,
        form: Form,
        file_bytes: u64,
    ) -> Result<(ShardHead, Option<Directory>), Flaw> {
        match form {
            Form::Arrow => arrow_file::read_footer(footer, columns, file_bytes),
            form => parquet_file::read_footer(footer, columns, form, file_bytes),
        }
    }

    pub(crate) fn new(head: ShardHead, records: Vec<Record>) -> Self {
        Self { head, records }
    }

    /// Forgets the cells of columns that are not selected.
    pub(crate) fn keep(&mut self, selected: &[bool]) {
        for record in &mut self.records {
            for (cell, _) in record.cells.iter_mut().zip(selected).filter(|(_, selected)| !**selected) {
                *cell = None;
            }
        }
    }

    pub(crate) fn head(&self) -> &ShardHead {
        &self.head
    }

    /// The rows in order.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The rows in order, without the shard.
    #[must_use]
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// Index of the shard in its cache.
    #[must_use]
    pub fn index(&self) -> usize {
        self.head.index
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no row, because every image of the shard was skipped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Images that were skipped when the shard was written.
    #[must_use]
    pub fn skipped(&self) -> &[Tombstone] {
        &self.head.skipped
    }

    /// Image name of a row.
    ///
    /// # Panics
    /// If `row` is out of range, like every method here that takes a row.
    #[must_use]
    pub fn image_id(&self, row: usize) -> &str {
        self.records[row].image_id()
    }

    /// Crop number of a row.
    #[must_use]
    pub fn crop(&self, row: usize) -> u8 {
        self.records[row].crop()
    }

    /// The patch tokens of a row as stored: little-endian, row-major `[t, d]`.
    #[must_use]
    pub fn token_bytes(&self, row: usize) -> &[u8] {
        self.records[row].token_bytes()
    }

    /// The patch tokens of a row, `[t, d]`.
    #[must_use]
    pub fn tokens_f32(&self, row: usize) -> Array2<f32> {
        self.records[row].tokens_f32()
    }

    /// Writes the patch tokens of a row to `out`, row-major `[t, d]`.
    ///
    /// # Panics
    /// If `out` does not hold exactly `t * d` values.
    pub fn tokens_into(&self, row: usize, out: &mut [f32]) {
        self.records[row].tokens_into(out);
    }

    /// The class token of a row, `[d]`, if the cache has them.
    #[must_use]
    pub fn cls(&self, row: usize) -> Option<Array1<f32>> {
        self.records[row].cls()
    }

    /// The label map of a row, `[h, w]`, 255 = ignore, if it has one.
    #[must_use]
    pub fn label(&self, row: usize) -> Option<ArrayView2<'_, u8>> {
        self.records[row].label()
    }

    /// The first row with a NaN or an infinity in it.
    pub(crate) fn first_non_finite(&self) -> Option<usize> {
        let layout = &self.records.first()?.columns.layout;
        let mut room = vec![0.0; layout.tokens() * layout.dim];
        self.records.iter().position(|record| !record.is_finite(&mut room))
    }
}

/// Takes the cells from where the directory says that they are.
fn from_directory(
    file: &Bytes,
    columns: &Arc<Columns>,
    form: Form,
    directory: &Directory,
) -> Result<Vec<Record>, Flaw> {
    let take = |row: &RowEntry| {
        let stored = row.cells.iter().map(|extent| {
            let range = &extent.as_ref()?.range;
            Some(file.slice(range.start as usize..range.end as usize))
        });
        parquet_file::record(row, stored.collect(), columns, form)
    };
    match form {
        Form::Packed => directory.rows.par_iter().map(take).collect(),
        _ => directory.rows.iter().map(take).collect(),
    }
}
