//! The columns of a shard, and what its footer says.
//!
//! This is the one place that knows their names; FORMAT.md describes the same for readers in other languages. The first
//! four columns say which row it is; the others are *cells*, arrays of one shape per column, kept as bytes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::damage::Flaw;
use crate::{DamageKind, Dtype, Form, Layout, Tombstone};

const KEY: &str = "featlab.key";
const SHARD: &str = "featlab.shard";
const SAMPLES: &str = "featlab.samples";
const SKIPPED: &str = "featlab.skipped";

/// Number type of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    Bf16,
    I8,
    U8,
}

impl Element {
    pub(crate) fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I8 => "i8",
            Self::U8 => "u8",
        }
    }

    /// As a number of Arrow's, which has no bf16: there it is the upper half of an f32.
    pub(crate) fn data_type(self) -> DataType {
        match self {
            Self::F32 => DataType::Float32,
            Self::F16 => DataType::Float16,
            Self::Bf16 => DataType::UInt16,
            Self::I8 => DataType::Int8,
            Self::U8 => DataType::UInt8,
        }
    }
}

/// A column of cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    pub(crate) nullable: bool,
}

impl Column {
    /// Numbers in a cell.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of a cell.
    pub(crate) fn width(&self) -> usize {
        self.len() * self.element.size_bytes()
    }

    /// Whether a cell is large enough for a page of its own; the others are a vector at most.
    pub(crate) fn is_large(&self) -> bool {
        self.shape.len() > 1
    }

    /// Whether the bytes of its numbers are taken apart before they are compressed.
    pub(crate) fn has_planes(&self, form: Form) -> bool {
        form == Form::Packed && self.is_large() && self.element.size_bytes() > 1
    }

    fn field(&self, form: Form) -> Field {
        let length = |n: usize| i32::try_from(n).expect("the layout was checked");
        let shape = self.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let order = if self.has_planes(form) {
            "byte planes of row-major little-endian"
        } else {
            "row-major little-endian"
        };
        let mut metadata = vec![
            ("dtype", self.element.name().to_owned()),
            ("shape", format!("[{shape}]")),
            ("order", order.to_owned()),
        ];
        let data_type = match form {
            Form::Binary | Form::Packed => DataType::FixedSizeBinary(length(self.width())),
            Form::List | Form::Arrow => DataType::FixedSizeList(Arc::new(self.item()), length(self.len())),
        };
        if form == Form::Arrow {
            metadata.push(("ARROW:extension:name", "arrow.fixed_shape_tensor".into()));
            metadata.push(("ARROW:extension:metadata", format!("{{\"shape\":[{shape}]}}")));
        }
        let metadata: HashMap<_, _> =
            metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Field::new(&self.name, data_type, self.nullable).with_metadata(metadata)
    }

    /// The element of a list.
    pub(crate) fn item(&self) -> Field {
        Field::new("item", self.element.data_type(), false)
    }
}

/// Where a feature's parts are among the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Feature {
    pub(crate) values: usize,
    /// For number formats with scales.
    pub(crate) scales: Option<usize>,
}

/// The cells of a layout.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Columns {
    pub(crate) layout: Layout,
    pub(crate) dtype: Dtype,
    pub(crate) list: Vec<Column>,
    pub(crate) tokens: Feature,
    /// In the order of `layout.more`.
    pub(crate) more: Vec<Feature>,
    pub(crate) cls: Option<Feature>,
    pub(crate) label: Option<usize>,
    pub(crate) image: Option<usize>,
}

impl Columns {
    pub(crate) fn new(layout: &Layout, dtype: Dtype) -> Self {
        let (t, d) = (layout.tokens(), layout.dim);
        let (h, w) = layout.label_size;
        let mut list = Vec::new();
        let tokens = feature(&mut list, "tokens", dtype, &[t, d]);
        let more = layout.more.iter().map(|name| feature(&mut list, name, dtype, &[t, d])).collect();
        let cls = layout.has_cls.then(|| feature(&mut list, "cls", dtype, &[d]));
        let pixels = |name: &str, shape: &[usize], nullable| Column {
            name: name.into(),
            element: Element::U8,
            shape: shape.into(),
            nullable,
        };
        let mut push = |column| {
            list.push(column);
            list.len() - 1
        };
        let label = layout.has_label.then(|| push(pixels("label", &[h, w], true)));
        let image = layout.has_image.then(|| push(pixels("image", &[h, w, 3], false)));
        Self { layout: layout.clone(), dtype, list, tokens, more, cls, label, image }
    }

    /// The feature whose column is called `name`.
    pub(crate) fn feature(&self, name: &str) -> Option<Feature> {
        let mut token_columns = self.more.iter().chain([&self.tokens]);
        token_columns.find(|feature| self.list[feature.values].name == name).copied()
    }

    /// The schema of every shard of a cache.
    pub(crate) fn schema(&self, form: Form) -> SchemaRef {
        let mut fields = vec![
            Field::new("image_id", DataType::Utf8, false),
            Field::new("crop", DataType::UInt8, false),
            Field::new("grid_h", DataType::UInt16, false),
            Field::new("grid_w", DataType::UInt16, false),
        ];
        fields.extend(self.list.iter().map(|column| column.field(form)));
        Arc::new(Schema::new(fields))
    }
}

/// Adds the columns of a feature whose vectors are the last axis of `shape`.
fn feature(list: &mut Vec<Column>, name: &str, dtype: Dtype, shape: &[usize]) -> Feature {
    let element = match dtype {
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::Bf16 => Element::Bf16,
        Dtype::Int8 => Element::I8,
    };
    let values = list.len();
    list.push(Column { name: name.into(), element, shape: shape.into(), nullable: false });
    let scales = dtype.is_scaled().then(|| {
        let vectors = shape[..shape.len() - 1].iter().product();
        let name = format!("{name}_scale");
        list.push(Column { name, element: Element::F32, shape: vec![vectors], nullable: false });
        values + 1
    });
    Feature { values, scales }
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

    /// Checks that the shard is the one that was planned.
    pub(crate) fn expect(&self, key: &str, index: usize, samples: &Range<usize>) -> Result<(), Flaw> {
        let pairs = [
            ("key", self.key.clone(), key.to_owned()),
            ("index", self.index.to_string(), index.to_string()),
            ("sample range", format!("{:?}", self.samples), format!("{samples:?}")),
        ];
        match pairs.into_iter().find(|(_, found, expected)| found != expected) {
            None => Ok(()),
            Some((what, found, expected)) => {
                Err(Flaw::new(DamageKind::Plan, format!("its {what} is {found}, expected {expected}")))
            }
        }
    }
}
