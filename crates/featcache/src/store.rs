//! A prefix on an object store, with the few blocking operations a cache needs.
//!
//! Writes are atomic: an object is there whole or not at all. [`Store::put_if_absent`] is the conditional create
//! on which commits rest. A local store is a folder, made on the first write; a writer killed in the
//! middle leaves a file `name#1` there, which no listing shows (see [`Store::leftovers`]).
//! This is not a file system: no directories are made or removed, nothing is appended to.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::{Path, PathPart};
use object_store::{
    GetOptions, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use crate::location::Location;
use crate::runtime::block_on;
use crate::{Error, Result, mapped, upload};

/// A prefix on a store. Cloning is cheap; clones see the same objects.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) place: Place,
    display: String,
    /// Objects larger than that are uploaded in parts.
    part_bytes: usize,
    /// Whether objects are neither on a disk of this machine nor in its memory.
    is_far: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// A local folder, which need not exist before the first write.
    Folder(PathBuf),
    Prefix(Arc<dyn ObjectStore>, Path),
}

/// What a conditional create did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object was written.
    Created,
    /// There already was one; nothing was written.
    Existed,
}

/// An object somewhere below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name relative to the prefix, parts joined by `/`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// What changes whenever its contents do, if the store has such a thing.
    pub tag: Option<String>,
}

impl Store {
    /// Opens a plain path, a `file://` or `memory://` location, or a prefix of a bucket (`s3://`, `gs://`, `az://`; the
    /// environment says how it is reached). Nothing is read or made yet.
    ///
    /// Stores in memory are shared within the process by host name: `memory://x/a` opened twice is one store.
    ///
    /// # Errors
    /// [`Error::UnsupportedScheme`] for other schemes, [`Error::InvalidUrl`] for malformed ones.
    pub fn open(url_or_path: &str) -> Result<Self> {
        let location = Location::parse(url_or_path)?;
        let is_far = matches!(location, Location::Bucket { .. });
        let place = match location {
            Location::Local(path) => Place::Folder(path),
            Location::Memory { host, prefix } => Place::Prefix(in_memory(host), prefix),
            Location::Bucket { vendor, url, prefix } => {
                let store = vendor.connect(&url).map_err(|error| Error::InvalidUrl {
                    url: url_or_path.to_owned(),
                    reason: crate::error::innermost(&error) + crate::cloud::hint(&url),
                })?;
                Place::Prefix(store, prefix)
            }
        };
        let display = url_or_path.trim_end_matches('/').to_owned();
        Ok(Self { place, display, part_bytes: upload::PART_BYTES, is_far })
    }

    /// A prefix on a store made elsewhere, which is taken to be far away; `display` is how messages call it.
    #[must_use]
    pub fn from_object_store(store: Arc<dyn ObjectStore>, prefix: Path, display: &str) -> Self {
        let display = display.to_owned();
        Self { place: Place::Prefix(store, prefix), display, part_bytes: upload::PART_BYTES, is_far: true }
    }

    /// Uploads objects that are larger than this in parts of this size; by default 64 MiB. Most stores want at least 5 MiB.
    #[must_use]
    pub fn with_part_bytes(self, part_bytes: usize) -> Self {
        Self { part_bytes, ..self }
    }

    /// The location as the user gave it.
    #[must_use]
    pub fn display(&self) -> &str {
        &self.display
    }

    /// Whether every request takes a while.
    pub(crate) fn is_far(&self) -> bool {
        self.is_far
    }

    /// The store below this one called `name`.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let place = match &self.place {
            Place::Folder(path) => Place::Folder(path.join(name)),
            Place::Prefix(store, prefix) => {
                let below = name.split('/').filter(|part| !part.is_empty());
                Place::Prefix(
                    store.clone(),
                    below.fold(prefix.clone(), |path, part| match PathPart::parse(part) {
                        Ok(part) => path.join(part),
                        Err(_) => path.join(part),
                    }),
                )
            }
        };
        Self { place, display: self.name_of(name), ..*self }
    }

    /// The whole object.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::Io`] if it cannot be read.
    pub fn get(&self, name: &str) -> Result<Bytes> {
        let Some((store, path)) = self.existing("read", name)? else {
            return Err(Error::NotFound { path: self.name_of(name) });
        };
        block_on(async { store.get(&path).await?.bytes().await })
            .map_err(|error| Error::store("read", self.name_of(name), &error))
    }

    /// The whole object; a file on a local disk is mapped into memory instead of being copied there. For objects that
    /// never change once they are there.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn map(&self, name: &str) -> Result<Bytes> {
        match self.local_path("read", name)? {
            Some(path) => mapped::map(&path).map_err(|error| self.unreadable(name, &error)),
            None => self.get(name),
        }
    }

    /// Some ranges of an object, each within it; those that are close together are fetched as one.
    ///
    /// # Errors
    /// As [`Store::get`], and [`Error::Io`] if a range is not within the object.
    pub fn get_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some(path) = self.local_path("read", name)? {
            return mapped::map_ranges(&path, ranges).map_err(|error| self.unreadable(name, &error));
        }
        let Some((store, path)) = self.existing("read", name)? else {
            return Err(Error::NotFound { path: self.name_of(name) });
        };
        block_on(store.get_ranges(&path, ranges))
            .map_err(|error| Error::store("read", self.name_of(name), &error))
    }

    fn unreadable(&self, name: &str, error: &std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::NotFound => Error::NotFound { path: self.name_of(name) },
            _ => Error::io("read", self.name_of(name), error),
        }
    }

    /// Where the object is on a local disk, if it is on one.
    fn local_path(&self, operation: &'static str, name: &str) -> Result<Option<PathBuf>> {
        let Place::Folder(folder) = &self.place else { return Ok(None) };
        match self.existing(operation, name)? {
            Some((_, path)) => {
                Ok(Some(path.parts().fold(folder.clone(), |folder, part| folder.join(part.as_ref()))))
            }
            None => Err(Error::NotFound { path: self.name_of(name) }),
        }
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// [`Error::Io`] if the store does not answer.
    pub fn exists(&self, name: &str) -> Result<bool> {
        let Some((store, path)) = self.existing("read", name)? else {
            return Ok(false);
        };
        match block_on(store.head(&path)) {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(Error::store("read", self.name_of(name), &error)),
        }
    }

    /// Writes the object unless there is one, atomically: of several writers exactly one creates it.
    ///
    /// # Errors
    /// [`Error::Io`] with path and cause, e.g. on a full disk or a read-only folder.
    pub fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<PutOutcome> {
        match self.put_with(name, bytes, PutMode::Create) {
            Ok(()) => Ok(PutOutcome::Created),
            Err(Failure::Exists) => Ok(PutOutcome::Existed),
            Err(Failure::Other(error)) => Err(error),
        }
    }

    /// Writes the object, atomically replacing any other.
    ///
    /// # Errors
    /// [`Error::Io`] with path and cause.
    pub fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.put_with(name, bytes, PutMode::Overwrite).map_err(|failure| match failure {
            Failure::Other(error) => error,
            Failure::Exists => Error::Io {
                operation: "write",
                path: self.name_of(name),
                kind: std::io::ErrorKind::AlreadyExists,
                cause: "the store refuses to replace an object".into(),
            },
        })
    }

    /// Names and sizes in bytes of the objects directly below, sorted by name.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be listed. A folder that is not there is empty.
    pub fn list(&self) -> Result<Vec<(String, u64)>> {
        let objects = self.listing()?.objects;
        let named = objects.iter().filter_map(|meta| Some((meta.location.filename()?.to_owned(), meta.size)));
        let mut files: Vec<(String, u64)> = named.filter(|(name, _)| !upload::is_unfinished(name)).collect();
        files.sort();
        Ok(files)
    }

    /// Names of the prefixes (folders) directly below, sorted.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be listed.
    pub fn prefixes(&self) -> Result<Vec<String>> {
        let prefixes = self.listing()?.common_prefixes;
        let mut names: Vec<String> =
            prefixes.iter().filter_map(|path| Some(path.filename()?.to_owned())).collect();
        names.sort();
        Ok(names)
    }

    /// All objects below, at any depth, sorted by name.
    ///
    /// # Errors
    /// [`Error::Io`] if the store cannot be listed.
    pub fn walk(&self) -> Result<Vec<Object>> {
        let Some((store, prefix)) = self.existing("list", "")? else { return Ok(Vec::new()) };
        let found = block_on(store.list(Some(&prefix)).try_collect::<Vec<_>>())
            .map_err(|error| Error::store("list", self.display.clone(), &error))?;
        let object = |meta: ObjectMeta| {
            let parts: Vec<_> = meta.location.prefix_match(&prefix)?.collect();
            let name = parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/");
            Some(Object { name, bytes: meta.size, tag: meta.e_tag })
        };
        let mut objects: Vec<Object> = found.into_iter().filter_map(object).collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// The version of an object that had this tag when it was listed.
    ///
    /// # Errors
    /// As [`Store::get`]; [`Error::Io`] if there is another version by now.
    pub fn get_version(&self, name: &str, tag: &str) -> Result<Bytes> {
        let Some((store, path)) = self.existing("read", name)? else {
            return Err(Error::NotFound { path: self.name_of(name) });
        };
        let options = GetOptions { if_match: Some(tag.to_owned()), ..GetOptions::default() };
        block_on(async { store.get_opts(&path, options).await?.bytes().await })
            .map_err(|error| Error::store("read", self.name_of(name), &error))
    }

    /// Deletes the object; there being none is fine.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be deleted.
    pub fn delete(&self, name: &str) -> Result<()> {
        let Some((store, path)) = self.existing("delete", name)? else {
            return Ok(());
        };
        match block_on(store.delete(&path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::store("delete", self.name_of(name), &error)),
        }
    }

    /// How messages call the object `name`.
    pub(crate) fn name_of(&self, name: &str) -> String {
        format!("{}/{name}", self.display)
    }

    fn put_with(&self, name: &str, bytes: Bytes, mode: PutMode) -> std::result::Result<(), Failure> {
        if let Place::Folder(folder) = &self.place {
            std::fs::create_dir_all(folder)
                .map_err(|error| Failure::Other(Error::io("write", self.name_of(name), &error)))?;
        }
        let (store, path) = self
            .existing("write", name)
            .map_err(Failure::Other)?
            .ok_or_else(|| Failure::Other(Error::NotFound { path: self.display.clone() }))?;
        let create = mode == PutMode::Create;
        if bytes.len() > self.part_bytes && matches!(self.place, Place::Prefix(..)) {
            let uploaded = block_on(upload::in_parts(&*store, &path, bytes, self.part_bytes, create));
            return match uploaded {
                Ok(PutOutcome::Created) => Ok(()),
                Ok(PutOutcome::Existed) => Err(Failure::Exists),
                Err(error) => Err(Failure::Other(Error::store("write", self.name_of(name), &error))),
            };
        }
        let options = PutOptions { mode, ..PutOptions::default() };
        match block_on(store.put_opts(&path, PutPayload::from_bytes(bytes), options)) {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => Err(Failure::Exists),
            // Whoever commits a cache sweeps the temporary files of writers that came too late; then the
            // object is there, which is all that a conditional create promises.
            Err(_) if create && self.exists(name).unwrap_or(false) => Err(Failure::Exists),
            Err(error) => Err(Failure::Other(Error::store("write", self.name_of(name), &error))),
        }
    }

    pub(crate) fn listing(&self) -> Result<ListResult> {
        let Some((store, path)) = self.existing("list", "")? else {
            return Ok(ListResult { objects: Vec::new(), common_prefixes: Vec::new() });
        };
        block_on(store.list_with_delimiter(Some(&path)))
            .map_err(|error| Error::store("list", self.display.clone(), &error))
    }

    /// The store and the path of `name` in it; `None` if the folder is not there.
    fn existing(&self, operation: &'static str, name: &str) -> Result<Option<(Arc<dyn ObjectStore>, Path)>> {
        let parsed = Path::parse(name)
            .map_err(|error| Error::InvalidUrl { url: self.name_of(name), reason: error.to_string() })?;
        match &self.place {
            Place::Prefix(store, prefix) => {
                let path = parsed.parts().fold(prefix.clone(), |path, part| path.join(part));
                Ok(Some((store.clone(), path)))
            }
            Place::Folder(folder) => {
                match std::fs::metadata(folder) {
                    Ok(meta) if meta.is_dir() => {}
                    Ok(_) => {
                        let error = std::io::Error::from(std::io::ErrorKind::NotADirectory);
                        return Err(Error::io(operation, self.display.clone(), &error));
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(Error::io(operation, self.display.clone(), &error)),
                }
                let store = LocalFileSystem::new_with_prefix(folder)
                    .map_err(|error| Error::store(operation, self.display.clone(), &error))?;
                Ok(Some((Arc::new(store), parsed)))
            }
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

enum Failure {
    Exists,
    Other(Error),
}

fn in_memory(host: String) -> Arc<dyn ObjectStore> {
    static STORES: OnceLock<Mutex<HashMap<String, Arc<InMemory>>>> = OnceLock::new();
    let mut stores = STORES.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    stores.entry(host).or_default().clone()
}
