//! Reading a finished cache.
//!
//! There is a cache where there is a manifest; what was begun but not committed cannot be opened. Reads are by whole
//! shard and check its checksum unless told otherwise. The cache keeps nothing in memory but the manifest.

use std::ops::Range;
use std::sync::Arc;

use crate::damage::Flaw;
use crate::manifest::Manifest;
use crate::plan::{Plan, shard_index};
use crate::store::Store;
use crate::{Classes, DamageKind, Error, Layout, Result, Shard, seal};

/// A finished cache. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Cache {
    store: Store,
    manifest: Arc<Manifest>,
}

/// How to read a shard.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// Whether to compare the checksum (default). Without, damage may go unnoticed.
    pub verify: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { verify: true }
    }
}

impl Cache {
    /// Opens the cache under `store`.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if it was begun but not committed, [`Error::NotFound`] if there is nothing,
    /// [`Error::Corrupt`] if the manifest is damaged, [`Error::UnsupportedVersion`] if it is from the future.
    pub fn open(store: Store) -> Result<Self> {
        match Manifest::read(&store)? {
            Some(manifest) => Ok(Self::new(store, manifest)),
            None => Err(uncommitted(&store)?),
        }
    }

    pub(crate) fn new(store: Store, manifest: Manifest) -> Self {
        Self { store, manifest: Arc::new(manifest) }
    }

    /// Where the cache lies.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// All that is known of the cache.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of rows in all shards.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.manifest.rows
    }

    /// Shapes and columns.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.manifest.layout
    }

    /// Names and colours of the label classes, if recorded.
    #[must_use]
    pub fn classes(&self) -> Option<&Classes> {
        self.manifest.classes.as_ref()
    }

    /// Reads shard `index`.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not what the manifest says, [`Error::Io`] if it cannot be read,
    /// [`Error::InvalidOption`] if there is no such shard.
    pub fn read_shard(&self, index: usize, options: ReadOptions) -> Result<Shard> {
        let Some(info) = self.manifest.shards.get(index) else {
            let reason = format!("is {index}, the cache has {}", self.manifest.shards.len());
            return Err(Error::InvalidOption { option: "shard", reason });
        };
        self.load(index, options.verify)?.map_err(|flaw| Error::Damaged {
            path: self.store.name_of(&info.file),
            kind: flaw.kind,
            detail: flaw.detail,
        })
    }

    /// Shard `index`, or what is wrong with it; an outer error is the store's.
    pub(crate) fn load(&self, index: usize, verify: bool) -> Result<std::result::Result<Shard, Flaw>> {
        let info = &self.manifest.shards[index];
        let bytes = match self.store.get(&info.file) {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => {
                return Ok(Err(Flaw::new(DamageKind::Missing, "the manifest lists it, but it is not there")));
            }
            Err(error) => return Err(error),
        };
        Ok(self.examine(index, verify, bytes))
    }

    fn examine(&self, index: usize, verify: bool, bytes: bytes::Bytes) -> std::result::Result<Shard, Flaw> {
        let Manifest { cache_id, key, layout, .. } = &*self.manifest;
        let info = &self.manifest.shards[index];
        if bytes.len() as u64 != info.bytes {
            let detail = format!("it has {} bytes, expected {}", bytes.len(), info.bytes);
            return Err(Flaw::new(DamageKind::Truncated, detail));
        }
        if verify && seal::sha256_hex(&bytes) != info.sha256 {
            return Err(Flaw::new(DamageKind::Checksum, "its contents do not match its checksum"));
        }
        let shard = Shard::decode(bytes, layout, key.dtype)?;
        shard.expect(cache_id, index, &info.samples)?;
        if shard.len() != info.rows {
            let detail = format!("it has {} rows, expected {}", shard.len(), info.rows);
            return Err(Flaw::new(DamageKind::RowCount, detail));
        }
        Ok(shard)
    }
}

impl Shard {
    /// Checks that the shard is the one that was planned.
    pub(crate) fn expect(
        &self,
        key: &str,
        index: usize,
        samples: &Range<usize>,
    ) -> std::result::Result<(), Flaw> {
        let head = self.head();
        let pairs = [
            ("key", head.key.clone(), key.to_owned()),
            ("index", head.index.to_string(), index.to_string()),
            ("sample range", format!("{:?}", head.samples), format!("{samples:?}")),
        ];
        match pairs.into_iter().find(|(_, found, expected)| found != expected) {
            None => Ok(()),
            Some((what, found, expected)) => {
                Err(Flaw::new(DamageKind::Plan, format!("its {what} is {found}, expected {expected}")))
            }
        }
    }
}

/// Why there is no manifest.
fn uncommitted(store: &Store) -> Result<Error> {
    let present: Vec<usize> = store.list()?.iter().filter_map(|(file, _)| shard_index(file)).collect();
    let location = store.display().to_owned();
    Ok(match Plan::read(store)? {
        Some(plan) => Error::Incomplete {
            location,
            total: Some(plan.shards()),
            missing: (0..plan.shards()).filter(|index| !present.contains(index)).collect(),
        },
        None if present.is_empty() => Error::NotFound { path: location },
        None => Error::Incomplete { location, total: None, missing: Vec::new() },
    })
}
