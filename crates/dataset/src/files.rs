//! Where a data set's files lie: a tree of files below one root that can be listed and read, and nothing else.
//!
//! [`Local`](crate::Local) is a folder of this machine; whoever has files elsewhere (a bucket, an archive) implements [`Files`]
//! and hands it to [`open_with`](crate::open_with). Paths are relative to the root and joined by `/`; `""` is the root.
//!
//! Two kinds of failure must not be mixed up. A file that is not there, or may not be read, concerns one sample:
//! [`Error::File`], and the rest goes on. A source that does not answer concerns everything: [`Error::Store`] ends the run, for
//! otherwise a minute without network would leave samples out for good.

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread::available_parallelism;

use crate::stamp::Stamp;
use crate::{Error, Problem, Result};

/// A read-only tree of files below one root.
pub trait Files: Send + Sync + fmt::Debug {
    /// What messages call `path`: the whole path, or a URL.
    fn place(&self, path: &str) -> PathBuf;

    /// What lies at `path`.
    ///
    /// # Errors
    /// With [`Error::Io`] or [`Error::Store`] if that cannot be known; [`Kind::Absent`] is no error.
    fn kind(&self, path: &str) -> Result<Kind>;

    /// Names of the folders directly in `folder`, sorted; hidden ones (`.name`) are left out.
    ///
    /// # Errors
    /// If the folder is not there or cannot be listed.
    fn folders(&self, folder: &str) -> Result<Vec<String>>;

    /// All files below `folder`, at any depth, whose extension in lower case is one of `extensions`.
    ///
    /// Paths are relative to the root, not to `folder`, and sorted by their bytes; what is hidden is left out. What cannot be
    /// used is a [`Problem`]. No file is opened.
    ///
    /// # Errors
    /// If `folder` is not there or cannot be listed.
    fn list(&self, folder: &str, extensions: &[&str]) -> Result<Listing>;

    /// The whole of a listed file.
    ///
    /// A source with tags should ask for the version that was listed (`If-Match`), and fail with [`Error::Store`] if there is
    /// another by now: features then never come from other pixels than the fingerprint.
    ///
    /// # Errors
    /// [`Error::File`] if this file is gone or may not be read; [`Error::Store`] if the source fails.
    fn read(&self, file: &Listed) -> Result<Vec<u8>>;

    /// What tells this root from every other in the world, for a [`Memo`](crate::Memo); `None`: there is nothing of the kind.
    ///
    /// By default [`place`](Files::place) of the root. Two servers with buckets of one name need to differ here.
    fn identity(&self) -> Option<String> {
        Some(self.place("").to_string_lossy().into_owned())
    }

    /// What changes when the contents of `file` do, known without reading it; by default its tag.
    fn stamp(&self, file: &Listed) -> Option<Stamp> {
        file.tag.as_deref().map(|tag| Stamp::of_tag(file.bytes, tag))
    }

    /// How many files to read at once; by default the number of cores. Sources far away gain from more.
    fn readers(&self) -> usize {
        available_parallelism().map_or(1, NonZero::get)
    }
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// Anything else.
    File,
    /// Nothing.
    Absent,
}

/// A file of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path relative to the root, parts joined by `/`.
    pub path: String,
    /// Length of the file.
    pub bytes: u64,
    /// What the source says of the contents: equal tags, equal contents. An `ETag`, for example.
    pub tag: Option<String>,
}

impl Listed {
    /// The path without its extension.
    pub(crate) fn stem(&self) -> &str {
        self.path.rsplit_once('.').map_or(&self.path, |(stem, _)| stem)
    }
}

/// What lies in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The files, sorted by the bytes of their paths.
    pub files: Vec<Listed>,
    /// What cannot be used, sorted by path.
    pub problems: Vec<Problem>,
}

impl Listing {
    pub(crate) fn sort(&mut self) {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.problems.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

/// Whether the name of `path` ends in one of `extensions`, which are in lower case.
pub(crate) fn has_extension(path: &str, extensions: &[&str]) -> bool {
    path.rsplit_once('.')
        .is_some_and(|(_, extension)| extensions.contains(&extension.to_ascii_lowercase().as_str()))
}

/// An error unless `path` is a folder.
pub(crate) fn check_folder(files: &dyn Files, path: &str) -> Result<()> {
    match files.kind(path)? {
        Kind::Folder => Ok(()),
        Kind::File => Err(Error::NotAFolder { path: files.place(path) }),
        Kind::Absent => Err(Error::NotFound { path: files.place(path) }),
    }
}
