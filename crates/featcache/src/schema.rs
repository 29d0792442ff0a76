//! The columns of a shard and what its footer says.
//!
//! This is the one place that knows their names; FORMAT.md describes the same for readers in other languages.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::damage::Flaw;
use crate::{DamageKind, Dtype, Layout, Tombstone};

pub(crate) const TOKENS: &str = "tokens";
pub(crate) const CLS: &str = "cls";
pub(crate) const LABEL: &str = "label";

const KEY: &str = "featlab.key";
const SHARD: &str = "featlab.shard";
const SAMPLES: &str = "featlab.samples";
const SKIPPED: &str = "featlab.skipped";

/// The schema of every shard of a cache.
pub(crate) fn schema(layout: &Layout, dtype: Dtype) -> SchemaRef {
    let (t, d) = (layout.tokens(), layout.dim);
    let mut fields = vec![
        Field::new("image_id", DataType::Utf8, false),
        Field::new("crop", DataType::UInt8, false),
        Field::new("grid_h", DataType::UInt16, false),
        Field::new("grid_w", DataType::UInt16, false),
        binary(TOKENS, layout.token_bytes(dtype), &dtype.to_string(), &[t, d]),
    ];
    if layout.has_cls {
        fields.push(binary(CLS, d * dtype.size_bytes(), &dtype.to_string(), &[d]));
    }
    if layout.has_label {
        let (h, w) = layout.label_size;
        fields.push(binary(LABEL, layout.label_bytes(), "u8", &[h, w]).with_nullable(true));
    }
    Arc::new(Schema::new(fields))
}

fn binary(name: &str, bytes: usize, dtype: &str, shape: &[usize]) -> Field {
    let width = i32::try_from(bytes).expect("the layout was checked");
    let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let metadata = [
        ("dtype", dtype.to_owned()),
        ("shape", format!("[{}]", shape.join(","))),
        ("order", "row-major little-endian".to_owned()),
    ];
    let metadata: HashMap<_, _> = metadata.map(|(name, value)| (name.to_owned(), value)).into();
    Field::new(name, DataType::FixedSizeBinary(width), false).with_metadata(metadata)
}

/// What a shard says of itself in its footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardHead {
    /// Cache id.
    pub(crate) key: String,
    pub(crate) index: usize,
    pub(crate) samples: Range<usize>,
    pub(crate) skipped: Vec<Tombstone>,
}

impl ShardHead {
    pub(crate) fn pairs(&self) -> [(&'static str, String); 4] {
        let skipped = serde_json::to_string(&self.skipped).expect("strings always have a JSON form");
        [
            (KEY, self.key.clone()),
            (SHARD, self.index.to_string()),
            (SAMPLES, format!("{},{}", self.samples.start, self.samples.end)),
            (SKIPPED, skipped),
        ]
    }

    /// Reads the pairs back; `get` finds a value by name.
    pub(crate) fn from_pairs<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, Flaw> {
        let parse = |name: &str| -> Option<usize> { get(name)?.parse().ok() };
        let samples = || {
            let (start, end) = get(SAMPLES)?.split_once(',')?;
            Some(start.parse().ok()?..end.parse().ok()?)
        };
        let head = || {
            Some(Self {
                key: get(KEY)?.to_owned(),
                index: parse(SHARD)?,
                samples: samples()?,
                skipped: serde_json::from_str(get(SKIPPED)?).ok()?,
            })
        };
        head().ok_or_else(|| Flaw::new(DamageKind::Schema, "the footer lacks the featlab entries"))
    }
}
