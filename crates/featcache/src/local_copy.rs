//! A copy of remote shards on a local disk, filled as they are read, with a limit on its size.
//!
//! A shard is a file named after its SHA-256, so that one folder serves any number of caches and processes, and a cache that was computed
//! anew is never mistaken for the old one. What was used longest ago goes first when there is no room. The copy is never
//! needed: where it cannot be written, reading goes on without.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;

use crate::store::Store;
use crate::{Result, ShardInfo, checksum, mapped, seal};

/// A folder with copies of shards.
#[derive(Debug, Clone)]
pub struct LocalCopy {
    folder: PathBuf,
    limit_bytes: u64,
    fetched: Arc<AtomicU64>,
}

impl LocalCopy {
    /// Copies below `folder`, of at most `limit_bytes` in all. Nothing is made yet.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, limit_bytes: u64) -> Self {
        Self { folder: folder.into(), limit_bytes, fetched: Arc::default() }
    }

    /// Bytes that had to be fetched from elsewhere so far.
    #[must_use]
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// The file of a shard: from the folder, or from the store and into the folder.
    pub(crate) fn fetch(&self, store: &Store, info: &ShardInfo) -> Result<Bytes> {
        if !store.is_far() {
            return store.map(&info.file);
        }
        let path = self.folder.join(&info.sha256);
        if let Ok(bytes) = mapped::map(&path) {
            if holds(info, &bytes) {
                touch(&path);
                return Ok(bytes);
            }
            tracing::warn!(path = %path.display(), "a damaged local copy is fetched again");
        }
        let bytes = store.get(&info.file)?;
        self.fetched.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        // Damage is the reader's to report, and not to be kept.
        if holds(info, &bytes)
            && let Err(error) = self.keep(&path, &bytes)
        {
            tracing::warn!(path = %path.display(), %error, "no local copy is kept");
        }
        Ok(bytes)
    }

    fn keep(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.limit_bytes {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        self.make_room(bytes.len() as u64)?;
        // Two processes that fetch the same shard write the same bytes; the later name wins.
        let unfinished =
            path.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
        let written = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Removes what was used longest ago until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // A file that vanishes was another process's to remove.
            let Ok(about) = entry.metadata() else { continue };
            files.push((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), about.len(), entry.path()));
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in files {
            if total + bytes <= self.limit_bytes {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= size,
            }
        }
        Ok(())
    }
}

fn holds(info: &ShardInfo, bytes: &[u8]) -> bool {
    let sum = || match info.xxh3.as_str() {
        "" => seal::sha256_hex(bytes) == info.sha256,
        xxh3 => checksum::of_file(bytes) == xxh3,
    };
    bytes.len() as u64 == info.bytes && sum()
}

/// Notes that a file was used; that this fails costs nothing but the order of removal.
fn touch(path: &Path) {
    let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
}
