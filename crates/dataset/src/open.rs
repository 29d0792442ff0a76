//! From what a user types after `--dataset` to a data set.
//!
//! `NAME`, `NAME:ROOT`, or just the root of a folder of images. A root is a path, or a URL for the caller's opener. A
//! known name wins over a folder of that name; write `./scenes` for the folder.

use std::path::Path;
use std::sync::Arc;

use crate::directory;
use crate::image_folder::ImageFolder;
use crate::labelled_folder::{LabelledFolder, TABLES};
use crate::native::{LAYOUTS, Native};
use crate::opener::is_url;
use crate::scenes_dataset::Scenes;
use crate::source::Source;
use crate::{ClassFolder, Dataset, Error, Local, Memo, Opener, Result, Split};

/// Opens the data set that `spec` names; lists it, decodes nothing.
///
/// * `spec`: `scenes`, `scenes:train=64,val=32,size=160,seed=0`, `camvid:ROOT`, `cocostuff27:ROOT` (also 15 and 3),
///   `cityscapes27:ROOT`, `potsdam3:ROOT`, `voc:ROOT`, `directory:ROOT[?classes=N]`, `classes:ROOT` (a folder per class),
///   `folder:DIR`, or the path of a folder.
/// * `split`: a folder of images has no splits and ignores it.
///
/// Roots lie on this machine; see [`open_with`] for others, and [`OpenOptions`] for a memo.
///
/// # Errors
/// With [`Error::is_usage`] if there is no such data set, folder, split or option, or no image in it.
///
/// ```
/// let scenes = dataset::open("scenes:train=3,size=32", dataset::Split::Train)?;
/// assert_eq!((scenes.len(), scenes.id(0)), (3, "train-00000"));
/// # Ok::<(), dataset::Error>(())
/// ```
pub fn open(spec: &str, split: Split) -> Result<Box<dyn Dataset>> {
    OpenOptions::new().open(spec, split)
}

/// Like [`open`], with an opener for roots like `camvid:s3://bucket/camvid`, `folder:file:///photos` or just `s3://bucket/photos`.
///
/// # Errors
/// As for [`open`], and what the opener fails with.
pub fn open_with(spec: &str, split: Split, opener: &dyn Opener) -> Result<Box<dyn Dataset>> {
    OpenOptions::new().opener(opener).open(spec, split)
}

/// How to open data sets: who opens roots that are elsewhere, and what remembers contents.
///
/// ```
/// use dataset::{Memo, OpenOptions, Split};
///
/// let folder = tempfile::tempdir().unwrap();
/// let options = OpenOptions::new().memo(Memo::in_folder(folder.path()));
/// assert!(options.open("camvid:s3://bucket/camvid", Split::Train).err().unwrap().is_usage(), "no opener");
/// ```
#[derive(Clone, Default)]
pub struct OpenOptions<'a> {
    opener: Option<&'a dyn Opener>,
    memo: Option<Memo>,
}

impl<'a> OpenOptions<'a> {
    /// Folders of this machine only, without memo.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens roots with `://` in them by `opener`.
    #[must_use]
    pub fn opener(self, opener: &'a dyn Opener) -> Self {
        Self { opener: Some(opener), ..self }
    }

    /// Keeps the hashes of files' contents in `memo`, or in none.
    #[must_use]
    pub fn memo(self, memo: impl Into<Option<Memo>>) -> Self {
        Self { memo: memo.into(), ..self }
    }

    /// Opens the data set that `spec` names, as [`open`] does.
    ///
    /// # Errors
    /// As for [`open`], and what the opener fails with.
    pub fn open(&self, spec: &str, split: Split) -> Result<Box<dyn Dataset>> {
        let (name, rest) = match spec.split_once(':') {
            Some((name, rest)) => (name, Some(rest).filter(|rest| !rest.is_empty())),
            None => (spec, None),
        };
        let source = |placeholder| {
            let missing = || Error::MissingRoot { name: name.to_owned(), placeholder };
            self.source(rest.ok_or_else(missing)?)
        };
        if name == Scenes::NAME {
            return Ok(Box::new(Scenes::open(rest.unwrap_or_default(), split)?));
        }
        if name == ImageFolder::NAME {
            return Ok(Box::new(ImageFolder::open(source("DIR")?)?));
        }
        if name == ClassFolder::NAME {
            return Ok(Box::new(ClassFolder::from(source("ROOT")?, split)?));
        }
        if let Some(table) = TABLES.iter().find(|table| table.name == name) {
            return Ok(Box::new(LabelledFolder::open(table, source("ROOT")?, split)?));
        }
        if name == directory::NAME {
            let missing =
                || Error::MissingRoot { name: name.to_owned(), placeholder: directory::PLACEHOLDER };
            let (root, classes) = directory::options(rest.ok_or_else(missing)?)?;
            return Ok(Box::new(directory::open(self.source(root)?, split, classes)?));
        }
        if let Some(layout) = LAYOUTS.iter().find(|layout| layout.name == name) {
            return Ok(Box::new(Native::open(layout, source("ROOT")?, split)?));
        }
        let is_bare_url = rest.is_some_and(|rest| rest.starts_with("//"));
        if is_bare_url || Path::new(spec).is_dir() {
            return Ok(Box::new(ImageFolder::open(self.source(spec)?)?));
        }
        Err(Error::UnknownDataset { name: spec.to_owned(), known: known() })
    }

    /// Opens a folder of class folders, as [`ClassFolder::open`] does; `root` may be for the opener.
    ///
    /// # Errors
    /// As for [`ClassFolder::open`], and what the opener fails with.
    pub fn open_classes(&self, root: &str, split: Split) -> Result<ClassFolder> {
        ClassFolder::from(self.source(root)?, split)
    }

    fn source(&self, root: &str) -> Result<Source> {
        let files = match self.opener {
            Some(opener) if is_url(root) => opener.files(root)?,
            None if is_url(root) => return Err(Error::NoSource { root: root.to_owned() }),
            _ => Arc::new(Local::new(root)),
        };
        Ok(Source { files, memo: self.memo.clone() })
    }
}

fn known() -> String {
    let names = TABLES.iter().map(|table| table.name).chain(LAYOUTS.iter().map(|layout| layout.name));
    let tables = names.map(|name| format!("{name}:ROOT"));
    let others = [
        format!("{}:{}", directory::NAME, directory::PLACEHOLDER),
        format!("{}:ROOT", ClassFolder::NAME),
        format!("{}:DIR", ImageFolder::NAME),
        format!("{}[:KEY=VALUE,…]", Scenes::NAME),
    ];
    tables.chain(others).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(spec: &str) -> String {
        let error = open(spec, Split::All).err().unwrap();
        assert!(error.is_usage(), "{error}");
        error.to_string()
    }

    #[test]
    fn names_and_bare_folders_open() {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::new(2, 2).save(folder.path().join("x.png")).unwrap();
        let path = folder.path().to_str().unwrap();
        for (spec, name) in [
            (path, "folder"),
            (&format!("folder:{path}"), "folder"),
            ("scenes", "scenes"),
            ("scenes:", "scenes"),
        ] {
            assert_eq!(open(spec, Split::All).unwrap().name(), name, "{spec}");
        }
    }

    #[test]
    fn what_cannot_be_opened_is_said_with_what_could() {
        assert_eq!(error("camvid"), "data set camvid needs its folder: write camvid:ROOT");
        assert_eq!(
            error("directory:"),
            "data set directory needs its folder: write directory:ROOT[?classes=N]"
        );
        assert_eq!(error("folder:"), "data set folder needs its folder: write folder:DIR");
        assert!(error("camvid:does/not/exist").contains("there is no folder does/not/exist"));
        assert!(error("folder:does/not/exist").contains("there is no folder does/not/exist"));
        let unknown = error("cityscopes:x");
        let all = "camvid:ROOT, cocostuff27:ROOT, cocostuff15:ROOT, cocostuff3:ROOT, cityscapes27:ROOT, potsdam3:ROOT, voc:ROOT, \
                   directory:ROOT[?classes=N], classes:ROOT, folder:DIR, scenes";
        assert!(unknown.contains("\"cityscopes:x\"") && unknown.contains(all), "{unknown}");
    }
}
