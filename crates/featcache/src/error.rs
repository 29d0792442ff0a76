//! What can go wrong with a cache, by what the caller can do about it.
//!
//! Three groups matter at the edge: *usage* (the caller asked for something impossible), *integrity*
//! (what lies in the store is not what the key or the manifest says) and everything else (the disk, the
//! network). [`Error::is_usage`] and [`Error::is_integrity`] tell them apart; no message repeats its cause.

use std::io;

use crate::cloud::hint;
use crate::{DamageKind, Difference};

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that reading or writing a cache can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A URL whose scheme names a store that this build cannot reach.
    #[error(
        "{url}: this build has no store for {scheme}:// (it can use plain paths, file://, memory://, s3://, gs:// and az://)"
    )]
    UnsupportedScheme {
        /// The scheme, without `://`.
        scheme: String,
        /// The whole URL, without credentials.
        url: String,
    },
    /// A URL or name that is malformed.
    #[error("{url} is not a usable location: {reason}")]
    InvalidUrl {
        /// What was given, without credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing at this place.
    #[error("nothing found at {path}")]
    NotFound {
        /// The cache or the object.
        path: String,
    },
    /// The store refused an operation: disk full, no permission, not a folder …
    #[error("cannot {operation} {path}: {cause}")]
    Io {
        /// `read`, `write`, `list` or `delete`.
        operation: &'static str,
        /// The object.
        path: String,
        /// The kind of the underlying I/O error, `Other` if there is none.
        kind: io::ErrorKind,
        /// The innermost cause, in words.
        cause: String,
    },
    /// The cache was begun but never committed.
    #[error("the cache at {location} is incomplete: {}; run the same extraction again to resume it", absent(missing, *total))]
    Incomplete {
        /// The cache.
        location: String,
        /// Number of planned shards; `None` if even the plan is missing.
        total: Option<usize>,
        /// Indices of the shards that are not there; empty if only the manifest is missing.
        missing: Vec<usize>,
    },
    /// The prefix holds features made in another way.
    #[error("{location} holds other features ({}); choose another place or overwrite it", join(differences))]
    KeyMismatch {
        /// The cache.
        location: String,
        /// Every element of the key that differs.
        differences: Vec<Difference>,
    },
    /// The key agrees, but shapes, columns or the sample count do not.
    #[error(
        "{location} has the same key but another {what}: asked for {asked}, found {found}; choose another place or overwrite it"
    )]
    PlanMismatch {
        /// The cache.
        location: String,
        /// `layout` or `sample count`.
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// What is there.
        found: String,
    },
    /// The backbone does not reproduce the activation recorded with the cache.
    #[error(
        "the backbone does not reproduce the golden activation of {location} ({detail}): every element of the key agrees, so weights, code or device compute something else than when the cache was begun"
    )]
    GoldenMismatch {
        /// The cache.
        location: String,
        /// Shapes or deviation against tolerance.
        detail: String,
    },
    /// `plan.json` or `manifest.json` is not what was written.
    #[error("{path} is damaged: {reason}")]
    Corrupt {
        /// The document.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard is not what the manifest says.
    #[error("{path} is damaged ({kind}): {detail}")]
    Damaged {
        /// The shard.
        path: String,
        /// The kind of damage.
        kind: DamageKind,
        /// Expected and found.
        detail: String,
    },
    /// The document was written by a newer version.
    #[error("{path} has format version {found}, this build reads up to {supported}; upgrade to read it")]
    UnsupportedVersion {
        /// The document.
        path: String,
        /// Its version.
        found: u32,
        /// The newest version known.
        supported: u32,
    },
    /// Nothing to cache.
    #[error("the sample list is empty, there is nothing to cache")]
    Empty,
    /// An element of the key that cannot be.
    #[error("feature key: {field} {reason}")]
    InvalidKey {
        /// The element.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An option or layout that cannot be.
    #[error("{option} {reason}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A feature is NaN or infinite.
    #[error("{column} of image {image_id} holds {value}; check the weights and the input")]
    NonFinite {
        /// The image.
        image_id: String,
        /// The column.
        column: String,
        /// The value.
        value: f32,
    },
    /// A feature is too large for the dtype of the cache.
    #[error("{column} of image {image_id} holds {value}, too large for {dtype}; use bf16 or f32")]
    Overflow {
        /// The image.
        image_id: String,
        /// The column.
        column: String,
        /// The value.
        value: f32,
        /// The dtype of the cache.
        dtype: crate::Dtype,
    },
    /// The rows handed over for a shard are not the rows that were planned.
    #[error("rows of shard {shard}: {reason}")]
    InvalidRows {
        /// The shard.
        shard: usize,
        /// Expected and got, naming the image.
        reason: String,
    },
    /// The Parquet encoder failed.
    #[error("encoding shard {shard}: {cause}")]
    Encode {
        /// The shard.
        shard: usize,
        /// The cause.
        cause: String,
    },
}

impl Error {
    /// Whether what lies in the store is not what the key or the manifest says.
    #[must_use]
    pub fn is_integrity(&self) -> bool {
        matches!(
            self,
            Self::Incomplete { .. }
                | Self::KeyMismatch { .. }
                | Self::PlanMismatch { .. }
                | Self::GoldenMismatch { .. }
                | Self::Corrupt { .. }
                | Self::Damaged { .. }
                | Self::UnsupportedVersion { .. }
        )
    }

    /// Whether the caller asked for something that cannot be.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::UnsupportedScheme { .. }
                | Self::InvalidUrl { .. }
                | Self::InvalidKey { .. }
                | Self::InvalidOption { .. }
                | Self::NotFound { .. }
                | Self::Empty
        )
    }

    pub(crate) fn store(operation: &'static str, path: String, error: &object_store::Error) -> Self {
        if matches!(error, object_store::Error::NotFound { .. }) {
            return Self::NotFound { path };
        }
        let kinds = causes(error).filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
        let kind = kinds.last().unwrap_or(io::ErrorKind::Other);
        let cause = innermost(error) + hint(&path);
        Self::Io { operation, path, kind, cause }
    }

    pub(crate) fn io(operation: &'static str, path: String, error: &io::Error) -> Self {
        Self::Io { operation, path, kind: error.kind(), cause: error.to_string() }
    }
}

/// An error and what it came from, the innermost last.
fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |cause| cause.source())
}

/// The innermost cause in words.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

fn join(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn absent(missing: &[usize], total: Option<usize>) -> String {
    match total {
        None => "its plan.json is missing".into(),
        Some(_) if missing.is_empty() => "every shard is there, only the commit is missing".into(),
        Some(total) => {
            format!("{} of {total} shards are missing ({})", missing.len(), runs(missing))
        }
    }
}

/// `0, 2-5, 9` for ascending indices; at most eight runs are spelled out.
fn runs(indices: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &index in indices {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let spelled = runs.iter().take(8).map(|&(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    let text = spelled.collect::<Vec<_>>().join(", ");
    if runs.len() > 8 { text + ", …" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_shards_are_spelled_as_runs() {
        assert_eq!(runs(&[0, 2, 3, 4, 9]), "0, 2-4, 9");
        assert_eq!(runs(&(0..40).step_by(2).collect::<Vec<_>>()), "0, 2, 4, 6, 8, 10, 12, 14, …");
    }

    #[test]
    fn groups_are_disjoint() {
        let usage = Error::Empty;
        let integrity = Error::Corrupt { path: "x".into(), reason: "y".into() };
        assert!(usage.is_usage() && !usage.is_integrity());
        assert!(integrity.is_integrity() && !integrity.is_usage());
    }
}
