//! The files of one opened data set, and what remembers their contents.
//!
//! Everything that a data set asks of its files goes through here, so that it holds for every source: listings are
//! sorted, no file of absurd length is read, and an unusable file becomes the error of what it was to be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::files::check_folder;
use crate::{Error, Files, Kind, Listed, Listing, Local, Memo, Result};

/// Longest file that is read.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 30;

/// Files below a root, with or without a memo of their contents.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) memo: Option<Memo>,
}

impl Source {
    /// A folder of this machine, without memo.
    pub(crate) fn local(root: &Path) -> Self {
        Self { files: Arc::new(Local::new(root)), memo: None }
    }

    /// What messages call `path`.
    pub(crate) fn place(&self, path: &str) -> PathBuf {
        self.files.place(path)
    }

    /// An error unless the root is a folder.
    pub(crate) fn check(&self) -> Result<()> {
        check_folder(&*self.files, "")
    }

    pub(crate) fn is_folder(&self, path: &str) -> Result<bool> {
        Ok(self.files.kind(path)? == Kind::Folder)
    }

    pub(crate) fn folders(&self, folder: &str) -> Result<Vec<String>> {
        self.files.folders(folder)
    }

    pub(crate) fn list(&self, folder: &str, extensions: &[&str]) -> Result<Listing> {
        let mut listing = self.files.list(folder, extensions)?;
        listing.sort();
        Ok(listing)
    }

    /// The bytes of a file, whatever they are.
    pub(crate) fn bytes(&self, file: &Listed) -> Result<Vec<u8>> {
        let check = |length: u64| match length {
            0..=MAX_FILE_BYTES => Ok(()),
            _ => Err(Error::File {
                path: self.place(&file.path),
                reason: format!("the file has more than {MAX_FILE_BYTES} bytes"),
            }),
        };
        check(file.bytes)?;
        let bytes = self.files.read(file)?;
        check(bytes.len() as u64)?;
        Ok(bytes)
    }

    /// The bytes of a file that is to be decoded.
    ///
    /// * `refuse`: the error for a file that cannot be, from the reason.
    pub(crate) fn read(&self, file: &Listed, refuse: impl Fn(String) -> Error) -> Result<Vec<u8>> {
        match self.bytes(file) {
            Ok(bytes) if bytes.is_empty() => Err(refuse("the file is empty".into())),
            Err(Error::File { reason, .. }) => Err(refuse(reason)),
            other => other,
        }
    }
}
