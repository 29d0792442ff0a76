//! Data sets by the words of a user: on this machine, or in any store that caches can be in.
//!
//! `dataset` reads trees of files and knows no network, `featcache` knows stores and no pictures; here the one is given to
//! the other. Hashes of files' contents are kept in the user's cache folder, so that a data set is read in full only once.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use dataset::{ClassFolder, Dataset, Error, Files, Keys, Kind, Listed, Listing, Memo, OpenOptions, Split};
use featcache::Store;

/// Files read at once from a store far away.
const READERS: usize = 16;

/// Opens the data set that `spec` names, e.g. `camvid:s3://bucket/camvid`.
///
/// # Errors
/// If there is no such data set, or it cannot be listed.
pub(crate) fn open(spec: &str, split: Split) -> Result<Box<dyn Dataset>> {
    options().open(spec, split).with_context(|| format!("data set {spec}"))
}

/// Opens a folder of class folders.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_classes(root: &str, split: Split) -> Result<ClassFolder> {
    options().open_classes(root, split).with_context(|| format!("class folder {root}"))
}

fn options() -> OpenOptions<'static> {
    OpenOptions::new().opener(&in_store).memo(memo_folder().map(Memo::in_folder))
}

/// `$XDG_CACHE_HOME/featlab/contents`, or the same below the home folder.
fn memo_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("featlab").join("contents"))
}

fn in_store(root: &str) -> dataset::Result<Arc<dyn Files>> {
    let failed = |error: featcache::Error| Error::Store { path: root.into(), source: error.into() };
    let store = Store::open(root).map_err(failed)?;
    let objects = store.walk().map_err(failed)?;
    let listed =
        |object: featcache::Object| Listed { path: object.name, bytes: object.bytes, tag: object.tag };
    Ok(Arc::new(InStore { store, keys: Keys::new(objects.into_iter().map(listed)) }))
}

/// The files below a prefix of a store, listed once.
#[derive(Debug)]
struct InStore {
    store: Store,
    keys: Keys,
}

impl Files for InStore {
    fn place(&self, path: &str) -> PathBuf {
        match path {
            "" => self.store.display().into(),
            path => format!("{}/{path}", self.store.display()).into(),
        }
    }

    fn kind(&self, path: &str) -> dataset::Result<Kind> {
        Ok(self.keys.kind(path))
    }

    fn folders(&self, folder: &str) -> dataset::Result<Vec<String>> {
        Ok(self.keys.folders(folder))
    }

    fn list(&self, folder: &str, extensions: &[&str]) -> dataset::Result<Listing> {
        Ok(self.keys.list(folder, extensions))
    }

    fn read(&self, file: &Listed) -> dataset::Result<Vec<u8>> {
        let bytes = match &file.tag {
            Some(tag) => self.store.get_version(&file.path, tag),
            None => self.store.get(&file.path),
        };
        let path = self.place(&file.path);
        match bytes {
            Ok(bytes) => Ok(bytes.into()),
            Err(error @ featcache::Error::NotFound { .. }) => {
                Err(Error::File { path, reason: error.to_string() })
            }
            Err(error) => Err(Error::Store { path, source: error.into() }),
        }
    }

    /// Two servers may have buckets of one name.
    fn identity(&self) -> Option<String> {
        let endpoints =
            ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AZURE_STORAGE_ENDPOINT", "GOOGLE_SERVICE_ACCOUNT"];
        let server = endpoints.iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
        Some(format!("{server} {}", self.store.display()))
    }

    fn readers(&self) -> usize {
        READERS
    }
}
