//! What killed writers leave behind: files that were being written, and uploads that were not put in their place.
//!
//! No listing shows them and no reader sees them; whoever opens or commits a cache, and `gc`, removes those that nobody writes to any more.

use std::time::{Duration, SystemTime};

use object_store::ObjectMeta;

use crate::store::{Place, Store};
use crate::{Error, Result, upload};

/// A temporary file that a killed writer left behind.
#[derive(Debug, Clone)]
pub struct Leftover {
    /// File name.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// Time since it was last written to.
    pub age: Duration,
}

impl Leftover {
    /// The object that it would have become.
    pub(crate) fn target(&self) -> &str {
        let local = self.name.rsplit_once('#').map(|(target, _)| target);
        local.or_else(|| upload::target(&self.name)).unwrap_or_default()
    }
}

impl Store {
    /// What writers left when they were killed (or are writing now): temporary files `name#1` in a local folder, uploads in parts
    /// in a bucket.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be listed.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        let Place::Folder(folder) = &self.place else {
            return self.unfinished_uploads();
        };
        let failed = |error: std::io::Error| Error::io("list", self.display().to_owned(), &error);
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // A file that vanishes between listing and asking was a live writer's: not a leftover.
            let (true, Ok(meta)) = (is_temporary(&name), entry.metadata()) else { continue };
            let touched = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let age = SystemTime::now().duration_since(touched).unwrap_or_default();
            found.push(Leftover { name, size_bytes: meta.len(), age });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Objects that were uploaded in parts, and not yet put in their place.
    fn unfinished_uploads(&self) -> Result<Vec<Leftover>> {
        let leftover = |meta: ObjectMeta| {
            let name = meta.location.filename().filter(|name| upload::is_unfinished(name))?.to_owned();
            let touched = SystemTime::from(meta.last_modified);
            let age = SystemTime::now().duration_since(touched).unwrap_or_default();
            Some(Leftover { name, size_bytes: meta.size, age })
        };
        let mut found: Vec<Leftover> = self.listing()?.objects.into_iter().filter_map(leftover).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes leftovers of objects for which `ours` holds and that nobody has touched for `min_age`.
    pub(crate) fn sweep(&self, min_age: Duration, ours: impl Fn(&str) -> bool) -> Result<()> {
        for leftover in self.leftovers()? {
            if leftover.age >= min_age && ours(leftover.target()) {
                self.remove_leftover(&leftover.name)?;
                tracing::debug!(name = leftover.name, "removed the leftover of a killed writer");
            }
        }
        Ok(())
    }

    fn remove_leftover(&self, name: &str) -> Result<()> {
        let Place::Folder(folder) = &self.place else { return self.delete(name) };
        match std::fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("delete", self.name_of(name), &error))
            }
            _ => Ok(()),
        }
    }
}

/// `object_store` writes `name#1`, `name#2` … before it links or renames them into place.
fn is_temporary(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(target, number)| {
        !target.is_empty() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
