//! Reading a finished cache.
//!
//! There is a cache where there is a manifest; what was begun but not committed cannot be opened. Reads are by whole
//! shard ([`Cache::read_shard`]), by row ([`Cache::read_rows`]) or a stream ([`Cache::stream`]), and check what they read unless told otherwise.
//! The cache keeps little in memory: the manifest, and where rows were found.

use std::sync::Arc;

use crate::damage::Flaw;
use crate::found::Found;
use crate::local_copy::LocalCopy;
use crate::manifest::Manifest;
use crate::plan::{Plan, shard_index};
use crate::schema::Columns;
use crate::store::Store;
use crate::{Classes, DamageKind, Error, Layout, Reading, Result, Shard, checksum, seal};

/// A finished cache. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Cache {
    store: Store,
    manifest: Arc<Manifest>,
    columns: Arc<Columns>,
    found: Arc<Found>,
    local_copy: Option<LocalCopy>,
}

/// How much of a shard is checked when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// Size, columns, place in the plan: the footer, but not the values.
    Shape,
    /// And that every byte is what was written.
    Bytes,
    /// And the same by SHA-256, as others would.
    Full,
}

/// How to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Whether to compare checksums (default). Without, damage of values may go unnoticed, in forms that have a directory in their footer; the
    /// footer, and all of other forms, is checked anyway.
    pub verify: bool,
    /// Names of the columns to read, e.g. `tokens`, `label`; by default all.
    pub columns: Option<Vec<String>>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { verify: true, columns: None }
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

    /// The cache under `store` whose manifest another process has read or written.
    #[must_use]
    pub fn new(store: Store, manifest: Manifest) -> Self {
        let columns = Arc::new(Columns::new(&manifest.layout, manifest.key.dtype));
        let found = Arc::new(Found::new(&manifest));
        Self { store, manifest: Arc::new(manifest), columns, found, local_copy: None }
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

    /// The same cache, whose shards are kept on a local disk once they have been read.
    #[must_use]
    pub fn with_local_copy(self, copy: LocalCopy) -> Self {
        Self { local_copy: Some(copy), ..self }
    }

    /// The same cache, in which another column of tokens is *the* tokens: what records give as such.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if there is no such column.
    pub fn with_column(self, name: &str) -> Result<Self> {
        let Some(tokens) = self.columns.feature(name) else {
            let mut known = vec!["tokens"];
            known.extend(self.layout().more.iter().map(String::as_str));
            let reason = format!("{name:?} holds no tokens in this cache; it has {}", known.join(", "));
            return Err(Error::InvalidOption { option: "column", reason });
        };
        Ok(Self { columns: Arc::new(Columns { tokens, ..(*self.columns).clone() }), ..self })
    }

    /// The name of the column that is the tokens: `tokens`, unless another was chosen.
    #[must_use]
    pub fn column(&self) -> &str {
        &self.columns.list[self.columns.tokens.values].name
    }

    /// What was read of the backbone for that column.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let key = &self.manifest.key;
        let chosen = key.more.iter().find(|reading| reading.column() == self.column());
        chosen.cloned().unwrap_or_else(|| Reading { facet: key.facet.clone(), layer: key.layer })
    }

    /// What the tokens are, of all in the world: the cache id, and the column if it is not the first.
    #[must_use]
    pub fn feature_id(&self) -> String {
        match self.column() {
            "tokens" => self.manifest.cache_id.clone(),
            other => format!("{}:{other}", self.manifest.cache_id),
        }
    }

    pub(crate) fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// What is known of the shards besides the manifest.
    pub(crate) fn found(&self) -> &Found {
        &self.found
    }

    pub(crate) fn local_copy(&self) -> Option<&LocalCopy> {
        self.local_copy.as_ref()
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
    /// [`Error::InvalidOption`] if there is no such shard or column.
    pub fn read_shard(&self, index: usize, options: &ReadOptions) -> Result<Shard> {
        let Some(info) = self.manifest.shards.get(index) else {
            let reason = format!("is {index}, the cache has {}", self.manifest.shards.len());
            return Err(Error::InvalidOption { option: "shard", reason });
        };
        let selected = self.select(options.columns.as_deref())?;
        if selected.contains(&false) && info.footer.is_some() {
            let (head, records) = self.pick(index, None, &selected, options.verify)?;
            return Ok(Shard::new(head, records));
        }
        let check = if options.verify { Check::Bytes } else { Check::Shape };
        let mut shard = self.load(index, check)?.map_err(|flaw| self.damaged(index, flaw))?;
        shard.keep(&selected);
        Ok(shard)
    }

    pub(crate) fn damaged(&self, index: usize, flaw: Flaw) -> Error {
        let path = self.store.name_of(&self.manifest.shards[index].file);
        Error::Damaged { path, kind: flaw.kind, detail: flaw.detail }
    }

    /// Shard `index`, or what is wrong with it; an outer error is the store's.
    pub(crate) fn load(&self, index: usize, check: Check) -> Result<std::result::Result<Shard, Flaw>> {
        let info = &self.manifest.shards[index];
        let whole = match &self.local_copy {
            Some(copy) => copy.fetch(&self.store, info),
            None => self.store.map(&info.file),
        };
        let bytes = match whole {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => {
                return Ok(Err(Flaw::new(DamageKind::Missing, "the manifest lists it, but it is not there")));
            }
            Err(error) => return Err(error),
        };
        Ok(self.examine(index, check, bytes))
    }

    fn examine(&self, index: usize, check: Check, bytes: bytes::Bytes) -> std::result::Result<Shard, Flaw> {
        let Manifest { cache_id, form, .. } = &*self.manifest;
        let info = &self.manifest.shards[index];
        if bytes.len() as u64 != info.bytes {
            let detail = format!("it has {} bytes, expected {}", bytes.len(), info.bytes);
            return Err(Flaw::new(DamageKind::Truncated, detail));
        }
        // What is parsed is always checked: all of the file, or the footer that says where everything is.
        let check = if info.footer.is_none() { check.max(Check::Bytes) } else { check };
        if let (Check::Shape, Some(footer)) = (check, &info.footer) {
            let start = bytes.len().saturating_sub(footer.bytes as usize);
            if checksum::of_file(&bytes[start..]) != footer.xxh3 {
                let detail = "its footer does not match its checksum";
                return Err(Flaw::new(DamageKind::Checksum, detail));
            }
        }
        let fast = check != Check::Shape && !info.xxh3.is_empty();
        let slow = check == Check::Full || check == Check::Bytes && !fast;
        if fast && checksum::of_file(&bytes) != info.xxh3 || slow && seal::sha256_hex(&bytes) != info.sha256 {
            return Err(Flaw::new(DamageKind::Checksum, "its contents do not match its checksum"));
        }
        let shard = Shard::decode(&bytes, &self.columns, *form)?;
        shard.head().expect(cache_id, index, &info.samples)?;
        if shard.len() != info.rows {
            let detail = format!("it has {} rows, expected {}", shard.len(), info.rows);
            return Err(Flaw::new(DamageKind::RowCount, detail));
        }
        Ok(shard)
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
