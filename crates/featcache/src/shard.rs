//! One shard in memory: the bytes of a Parquet file, decoded as far as a reader wants.
//!
//! Columns stay as they are stored; tokens are widened to `f32` row by row on demand, so that a reader which
//! keeps only a projection of them never holds a whole shard in single precision.

use arrow::array::{Array, AsArray, FixedSizeBinaryArray, RecordBatch};
use arrow::datatypes::{UInt8Type, UInt16Type};
use bytes::Bytes;
use ndarray::{Array1, Array2, ArrayView2};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::damage::Flaw;
use crate::encode::GROUP_ROWS;
use crate::schema::{self, ShardHead};
use crate::{DamageKind, Dtype, Layout, Tombstone};

/// The rows of one shard.
#[derive(Debug, Clone)]
pub struct Shard {
    head: ShardHead,
    layout: Layout,
    dtype: Dtype,
    image_ids: Vec<String>,
    crops: Vec<u8>,
    /// Blocks of [`GROUP_ROWS`] rows; only the last may be shorter.
    blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
struct Block {
    tokens: FixedSizeBinaryArray,
    cls: Option<FixedSizeBinaryArray>,
    label: Option<FixedSizeBinaryArray>,
}

impl Shard {
    /// Decodes a file and checks its columns against `layout`.
    pub(crate) fn decode(bytes: Bytes, layout: &Layout, dtype: Dtype) -> Result<Self, Flaw> {
        let unreadable = |error: &dyn std::error::Error| Flaw::new(DamageKind::Schema, error);
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|error| unreadable(&error))?;
        let pairs = builder.metadata().file_metadata().key_value_metadata();
        let find = |name: &str| pairs?.iter().find(|pair| pair.key == name)?.value.as_deref();
        let head = ShardHead::from_pairs(find)?;
        let expected = schema::schema(layout, dtype);
        if builder.schema().fields() != expected.fields() {
            let detail = format!("columns are {:?}, expected {expected:?}", builder.schema());
            return Err(Flaw::new(DamageKind::Schema, detail));
        }
        let reader = builder.with_batch_size(GROUP_ROWS).build().map_err(|error| unreadable(&error))?;
        let mut shard = Self {
            head,
            layout: layout.clone(),
            dtype,
            image_ids: Vec::new(),
            crops: Vec::new(),
            blocks: Vec::new(),
        };
        for batch in reader {
            shard.push(&batch.map_err(|error| unreadable(&error))?)?;
        }
        Ok(shard)
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<(), Flaw> {
        if !self.len().is_multiple_of(GROUP_ROWS) {
            return Err(Flaw::new(DamageKind::Schema, "a row group is short in the middle of the file"));
        }
        let column = |name: &str| batch.column_by_name(name).expect("the schema was compared");
        let sides = [("grid_h", self.layout.grid.0), ("grid_w", self.layout.grid.1)];
        for (name, expected) in sides {
            let found = column(name).as_primitive::<UInt16Type>().values();
            if let Some(&other) = found.iter().find(|&&side| usize::from(side) != expected) {
                return Err(Flaw::new(DamageKind::Schema, format!("{name} is {other}, expected {expected}")));
            }
        }
        let names = column("image_id").as_string::<i32>();
        self.image_ids.extend(names.iter().flatten().map(str::to_owned));
        self.crops.extend_from_slice(column("crop").as_primitive::<UInt8Type>().values());
        let binary = |name: &str| column(name).as_fixed_size_binary().clone();
        self.blocks.push(Block {
            tokens: binary(schema::TOKENS),
            cls: self.layout.has_cls.then(|| binary(schema::CLS)),
            label: self.layout.has_label.then(|| binary(schema::LABEL)),
        });
        Ok(())
    }

    pub(crate) fn head(&self) -> &ShardHead {
        &self.head
    }

    /// Index of the shard in its cache.
    #[must_use]
    pub fn index(&self) -> usize {
        self.head.index
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.crops.len()
    }

    /// Whether there is no row, because every image of the shard was skipped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.crops.is_empty()
    }

    /// Image name of each row.
    #[must_use]
    pub fn image_ids(&self) -> &[String] {
        &self.image_ids
    }

    /// Crop number of each row.
    #[must_use]
    pub fn crops(&self) -> &[u8] {
        &self.crops
    }

    /// Images that were skipped when the shard was written.
    #[must_use]
    pub fn skipped(&self) -> &[Tombstone] {
        &self.head.skipped
    }

    /// The patch tokens of a row as stored: little-endian, row-major `[t, d]`.
    ///
    /// # Panics
    /// If `row` is out of range, like every method here that takes a row.
    #[must_use]
    pub fn token_bytes(&self, row: usize) -> &[u8] {
        self.block(row).tokens.value(row % GROUP_ROWS)
    }

    /// The patch tokens of a row, `[t, d]`.
    #[must_use]
    pub fn tokens_f32(&self, row: usize) -> Array2<f32> {
        let mut tokens = Array2::zeros((self.layout.tokens(), self.layout.dim)); // [t, d]
        self.tokens_into(row, tokens.as_slice_mut().expect("a fresh array is contiguous"));
        tokens
    }

    /// Writes the patch tokens of a row to `out`, row-major `[t, d]`.
    ///
    /// # Panics
    /// If `out` does not hold exactly `t * d` values.
    pub fn tokens_into(&self, row: usize, out: &mut [f32]) {
        self.dtype.decode(self.token_bytes(row), out);
    }

    /// The class token of a row, `[d]`, if the cache has them.
    #[must_use]
    pub fn cls(&self, row: usize) -> Option<Array1<f32>> {
        let column = self.block(row).cls.as_ref()?;
        let mut cls = vec![0.0; self.layout.dim];
        self.dtype.decode(column.value(row % GROUP_ROWS), &mut cls);
        Some(cls.into())
    }

    /// The label map of a row, `[h, w]`, 255 = ignore, if it has one.
    #[must_use]
    pub fn label(&self, row: usize) -> Option<ArrayView2<'_, u8>> {
        let column = self.block(row).label.as_ref()?;
        let row = row % GROUP_ROWS;
        let view = || ArrayView2::from_shape(self.layout.label_size, column.value(row));
        column.is_valid(row).then(|| view().expect("the width of the column is h * w"))
    }

    fn block(&self, row: usize) -> &Block {
        assert!(row < self.len(), "row {row} of a shard with {} rows", self.len());
        &self.blocks[row / GROUP_ROWS]
    }

    /// The first row with a NaN or an infinity in it.
    pub(crate) fn first_non_finite(&self) -> Option<usize> {
        let mut tokens = vec![0.0; self.layout.tokens() * self.layout.dim];
        (0..self.len()).find(|&row| {
            self.tokens_into(row, &mut tokens);
            let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
            !finite(&tokens) || self.cls(row).is_some_and(|cls| !finite(&cls.to_vec()))
        })
    }
}
