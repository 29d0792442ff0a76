//! The ways in which a stored file can be wrong.

use serde::{Deserialize, Serialize};

use std::fmt;

/// One thing that is wrong with a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The shard it concerns; `None` for the plan, the manifest or surplus files.
    pub shard: Option<usize>,
    /// The file it concerns.
    pub file: String,
    /// What kind of damage.
    pub kind: DamageKind,
    /// Expected and found.
    pub detail: String,
}

/// Kinds of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DamageKind {
    /// The file is not there.
    Missing,
    /// The file has another size than recorded.
    Truncated,
    /// The contents do not match the checksum.
    Checksum,
    /// The columns, their types or shapes are not those of the layout.
    Schema,
    /// The number of rows is not the one recorded.
    RowCount,
    /// A stored feature is NaN or infinite.
    NonFinite,
    /// Key, index or sample range are not those of the plan.
    Plan,
    /// An image and crop occur in two places.
    Duplicate,
    /// A file that the manifest does not know: it is ignored by readers and can be deleted.
    Orphan,
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Truncated => "truncated",
            Self::Checksum => "checksum",
            Self::Schema => "schema",
            Self::RowCount => "row count",
            Self::NonFinite => "not finite",
            Self::Plan => "plan",
            Self::Duplicate => "duplicate",
            Self::Orphan => "orphan",
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.file, self.kind, self.detail)
    }
}

/// A kind with its detail, before it is known which file it belongs to.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) kind: DamageKind,
    pub(crate) detail: String,
}

impl Flaw {
    pub(crate) fn new(kind: DamageKind, detail: impl ToString) -> Self {
        Self { kind, detail: detail.to_string() }
    }

    pub(crate) fn of(self, shard: Option<usize>, file: &str) -> Damage {
        Damage { shard, file: file.into(), kind: self.kind, detail: self.detail }
    }
}
