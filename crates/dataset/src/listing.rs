//! The files below a folder, in one order everywhere.
//!
//! Recursive, sorted by the bytes of the relative path (with `/`), by extension whatever its case; hidden files and
//! folders are skipped, links are followed. No file is opened. What cannot be listed becomes a [`Problem`].

use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Error, Problem, Result};

/// A file, by its path below the listed folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Relative path, parts joined by `/`.
    pub(crate) path: String,
    /// Length of the file.
    pub(crate) bytes: u64,
}

impl Listed {
    /// The relative path without its extension.
    pub(crate) fn stem(&self) -> &str {
        self.path.rsplit_once('.').map_or(&self.path, |(stem, _)| stem)
    }
}

/// What lies in a folder.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) files: Vec<Listed>,
    pub(crate) problems: Vec<Problem>,
}

/// A folder still to be read.
struct Folder {
    path: PathBuf,
    /// `""`, or the relative path with a `/` at its end.
    prefix: String,
    /// Where this folder and those above it really are, to notice links that lead back up.
    places: Vec<PathBuf>,
}

/// All files below `root` whose extension is one of `extensions` (lower case).
pub(crate) fn list(root: &Path, extensions: &[&str]) -> Result<Listing> {
    check_folder(root)?;
    let io = |source| Error::Io { path: root.to_owned(), source };
    let places = vec![root.canonicalize().map_err(io)?];
    let mut folders = vec![Folder { path: root.to_owned(), prefix: String::new(), places }];
    let mut listing = Listing::default();
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder.path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        {
            Ok(entries) => entries,
            Err(source) if folder.prefix.is_empty() => return Err(io(source)),
            Err(error) => {
                listing.refuse(folder.prefix, format!("cannot be listed: {error}"));
                continue;
            }
        };
        for entry in entries {
            listing.visit(&entry, &folder, extensions, &mut folders);
        }
    }
    listing.files.sort_by(|a, b| a.path.cmp(&b.path));
    listing.problems.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(listing)
}

/// An error unless `path` is a folder.
pub(crate) fn check_folder(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => Ok(()),
        Ok(_) => Err(Error::NotAFolder { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::NotFound { path: path.to_owned() }),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

impl Listing {
    fn refuse(&mut self, id: String, reason: String) {
        self.problems.push(Problem { id, reason });
    }

    fn visit(&mut self, entry: &DirEntry, folder: &Folder, extensions: &[&str], folders: &mut Vec<Folder>) {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            return;
        }
        let relative = format!("{}{}", folder.prefix, name.to_string_lossy());
        let wanted = (relative.rsplit_once('.'))
            .is_some_and(|(_, extension)| extensions.contains(&extension.to_ascii_lowercase().as_str()));
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
            Ok(about) => self.files.push(Listed { path: relative, bytes: about.len() }),
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

    fn paths(listing: &Listing) -> Vec<&str> {
        listing.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn files_are_sorted_by_bytes_of_the_path_and_filtered() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["b.PNG", "a/z.jpg", "a-1.jpg", "B.jpeg", "ü.jpg", ".hidden.jpg"]);
        touch(folder.path(), &["notes.txt", "png", ".git/x.png", "a/deep/er/y.Png"]);
        let listing = list(folder.path(), &["jpg", "jpeg", "png"]).unwrap();
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
            let error = list(&folder.path().join(name), &["png"]).unwrap_err();
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
        let listing = list(folder.path(), &["png"]).unwrap();
        assert_eq!(paths(&listing), ["a/to_b/y.png", "a/x.png", "b/to_a/x.png", "b/y.png"]);
        let problems: Vec<&str> = listing.problems.iter().map(|p| p.id.as_str()).collect();
        assert_eq!(problems, ["a/to_b/to_a", "b/to_a/to_b", "broken.png"]);
    }
}
