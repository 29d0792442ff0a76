//! A folder of this machine as [`Files`].
//!
//! Listing is recursive, links are followed but not in circles, and what cannot be listed becomes a [`Problem`]. A file that
//! cannot be read concerns its sample only: on one machine, that is the file's fault.

use std::fs::{self, DirEntry, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::files::{check_folder, has_extension};
use crate::source::MAX_FILE_BYTES;
use crate::{Error, Files, Kind, Listed, Listing, Problem, Result, Stamp};

/// The files below a folder of this machine.
#[derive(Debug)]
pub struct Local {
    root: PathBuf,
    /// Where the root really is; asked for once, `None` if it cannot be said.
    canonical: OnceLock<Option<String>>,
}

/// A folder still to be read.
struct Folder {
    path: PathBuf,
    /// `""`, or the relative path with a `/` at its end.
    prefix: String,
    /// Where this folder and those above it really are, to notice links that lead back up.
    places: Vec<PathBuf>,
}

impl Local {
    /// The files below `root`, which need not exist.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), canonical: OnceLock::new() }
    }

    fn canonical(&self) -> Option<String> {
        self.root.canonicalize().ok()?.into_os_string().into_string().ok()
    }
}

impl Files for Local {
    fn place(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    fn kind(&self, path: &str) -> Result<Kind> {
        let path = self.place(path);
        match fs::metadata(&path) {
            Ok(about) if about.is_dir() => Ok(Kind::Folder),
            Ok(_) => Ok(Kind::File),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Kind::Absent),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.place(folder);
        let entries = read_dir(&path).map_err(|source| Error::Io { path, source })?;
        let folders = entries.into_iter().filter(|entry| entry.path().is_dir());
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        Ok(names)
    }

    fn list(&self, folder: &str, extensions: &[&str]) -> Result<Listing> {
        check_folder(self, folder)?;
        let top = self.place(folder);
        let io = |source| Error::Io { path: top.clone(), source };
        let places = vec![top.canonicalize().map_err(io)?];
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let (mut listing, mut folders) = (Listing::default(), vec![]);
        let first = Folder { path: top.clone(), prefix, places };
        listing.enter(&first, read_dir(&top).map_err(io)?, extensions, &mut folders);
        while let Some(folder) = folders.pop() {
            match read_dir(&folder.path) {
                Ok(entries) => listing.enter(&folder, entries, extensions, &mut folders),
                Err(error) => listing.refuse(folder.prefix, format!("cannot be listed: {error}")),
            }
        }
        listing.sort();
        Ok(listing)
    }

    fn read(&self, file: &Listed) -> Result<Vec<u8>> {
        const EXPECTED: u64 = 1 << 26;
        let path = self.place(&file.path);
        let mut bytes = Vec::with_capacity(file.bytes.min(EXPECTED) as usize);
        let read = File::open(&path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(bytes),
            Err(error) => Err(Error::File { path, reason: error.to_string() }),
        }
    }

    fn identity(&self) -> Option<String> {
        self.canonical.get_or_init(|| self.canonical()).clone()
    }

    fn stamp(&self, file: &Listed) -> Option<Stamp> {
        Stamp::of_file(&fs::metadata(self.place(&file.path)).ok()?)
    }
}

fn read_dir(path: &Path) -> io::Result<Vec<DirEntry>> {
    fs::read_dir(path)?.collect()
}

impl Listing {
    fn refuse(&mut self, id: String, reason: String) {
        self.problems.push(Problem { id, reason });
    }

    fn enter(
        &mut self,
        folder: &Folder,
        entries: Vec<DirEntry>,
        extensions: &[&str],
        todo: &mut Vec<Folder>,
    ) {
        for entry in entries {
            self.visit(&entry, folder, extensions, todo);
        }
    }

    fn visit(&mut self, entry: &DirEntry, folder: &Folder, extensions: &[&str], folders: &mut Vec<Folder>) {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            return;
        }
        let relative = format!("{}{}", folder.prefix, name.to_string_lossy());
        let wanted = has_extension(&relative, extensions);
        match fs::metadata(entry.path()) {
            Ok(about) if about.is_dir() => match entry.path().canonicalize() {
                Ok(place) if folder.places.contains(&place) => {
                    self.refuse(relative, "is a link to a folder above it".into());
                }
                Ok(place) => {
                    let places = folder.places.iter().cloned().chain([place]).collect();
                    folders.push(Folder { path: entry.path(), prefix: relative + "/", places });
                }
                Err(error) => self.refuse(relative, format!("cannot be listed: {error}")),
            },
            Ok(_) if !wanted => {}
            Ok(_) if name.to_str().is_none() => self.refuse(relative, "has a name that is not UTF-8".into()),
            Ok(about) => self.files.push(Listed { path: relative, bytes: about.len(), tag: None }),
            Err(error) if wanted => self.refuse(relative, format!("cannot be opened: {error}")),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, files: &[&str]) {
        for file in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), file).unwrap();
        }
    }

    fn list(root: &Path, folder: &str, extensions: &[&str]) -> Result<Listing> {
        Local::new(root).list(folder, extensions)
    }

    fn paths(listing: &Listing) -> Vec<&str> {
        listing.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn files_are_sorted_by_bytes_of_the_path_and_filtered() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["b.PNG", "a/z.jpg", "a-1.jpg", "B.jpeg", "ü.jpg", ".hidden.jpg"]);
        touch(folder.path(), &["notes.txt", "png", ".git/x.png", "a/deep/er/y.Png"]);
        let listing = list(folder.path(), "", &["jpg", "jpeg", "png"]).unwrap();
        assert_eq!(paths(&listing), ["B.jpeg", "a-1.jpg", "a/deep/er/y.Png", "a/z.jpg", "b.PNG", "ü.jpg"]);
        assert_eq!(listing.files[2].stem(), "a/deep/er/y");
        assert_eq!(listing.files[2].bytes, 15);
        assert_eq!(listing.problems, []);
    }

    #[test]
    fn what_is_no_folder_is_a_usage_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["file"]);
        for (name, word) in [("file", "is not a folder"), ("gone", "there is no folder")] {
            let error = list(&folder.path().join(name), "", &["png"]).unwrap_err();
            assert!(error.is_usage());
            assert!(error.to_string().contains(name) && error.to_string().contains(word), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["a/x.png", "b/y.png"]);
        symlink(folder.path().join("b"), folder.path().join("a/to_b")).unwrap();
        symlink(folder.path().join("a"), folder.path().join("b/to_a")).unwrap();
        symlink(folder.path().join("gone.png"), folder.path().join("broken.png")).unwrap();
        let listing = list(folder.path(), "", &["png"]).unwrap();
        assert_eq!(paths(&listing), ["a/to_b/y.png", "a/x.png", "b/to_a/x.png", "b/y.png"]);
        let problems: Vec<&str> = listing.problems.iter().map(|p| p.id.as_str()).collect();
        assert_eq!(problems, ["a/to_b/to_a", "b/to_a/to_b", "broken.png"]);
    }

    #[test]
    fn a_folder_below_is_listed_by_paths_from_the_root() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["a/x.png", "a/deep/y.png", "b/z.png"]);
        assert_eq!(paths(&list(folder.path(), "a", &["png"]).unwrap()), ["a/deep/y.png", "a/x.png"]);
        let files = Local::new(folder.path());
        assert_eq!(files.folders("").unwrap(), ["a", "b"]);
        assert_eq!(files.folders("a").unwrap(), ["deep"]);
        let kinds = ["", "a/deep", "b/z.png", "c", "b/z.png/no"].map(|path| files.kind(path).unwrap());
        assert_eq!(kinds, [Kind::Folder, Kind::Folder, Kind::File, Kind::Absent, Kind::Absent]);
    }

    #[test]
    fn what_cannot_be_read_concerns_one_sample() {
        let folder = tempfile::tempdir().unwrap();
        let file = Listed { path: "gone.png".into(), bytes: 3, tag: None };
        let error = Local::new(folder.path()).read(&file).unwrap_err();
        assert!(error.is_sample() && error.to_string().contains("gone.png"), "{error}");
    }
}
