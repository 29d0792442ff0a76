//! From what a user types after `--dataset` to a data set.
//!
//! `NAME`, `NAME:PATH`, or just the path of a folder of images. A known name wins over a folder of that name; write
//! `./scenes` for the folder.

use std::path::Path;

use crate::image_folder::ImageFolder;
use crate::labelled_folder::{LabelledFolder, TABLES};
use crate::scenes_dataset::Scenes;
use crate::{Dataset, Error, Result, Split};

/// Opens the data set that `spec` names; lists it, decodes nothing.
///
/// * `spec`: `scenes`, `scenes:train=64,val=32,size=160,seed=0`, `camvid:ROOT`, `folder:DIR`, or the path of a folder.
/// * `split`: a folder of images has no splits and ignores it.
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
    let (name, rest) = match spec.split_once(':') {
        Some((name, rest)) => (name, Some(rest).filter(|rest| !rest.is_empty())),
        None => (spec, None),
    };
    let root = |placeholder| {
        rest.map(Path::new).ok_or_else(|| Error::MissingRoot { name: name.to_owned(), placeholder })
    };
    if name == Scenes::NAME {
        return Ok(Box::new(Scenes::open(rest.unwrap_or_default(), split)?));
    }
    if name == ImageFolder::NAME {
        return Ok(Box::new(ImageFolder::open(root("DIR")?)?));
    }
    if let Some(table) = TABLES.iter().find(|table| table.name == name) {
        return Ok(Box::new(LabelledFolder::open(table, root("ROOT")?, split)?));
    }
    if Path::new(spec).is_dir() {
        return Ok(Box::new(ImageFolder::open(Path::new(spec))?));
    }
    Err(Error::UnknownDataset { name: spec.to_owned(), known: known() })
}

fn known() -> String {
    let tables = TABLES.iter().map(|table| format!("{}:ROOT", table.name));
    let others = [format!("{}:DIR", ImageFolder::NAME), format!("{}[:KEY=VALUE,…]", Scenes::NAME)];
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
        assert_eq!(error("folder:"), "data set folder needs its folder: write folder:DIR");
        assert!(error("camvid:does/not/exist").contains("there is no folder does/not/exist"));
        assert!(error("folder:does/not/exist").contains("there is no folder does/not/exist"));
        let unknown = error("cityscopes:x");
        assert!(
            unknown.contains("\"cityscopes:x\"") && unknown.contains("camvid:ROOT, folder:DIR, scenes"),
            "{unknown}"
        );
    }
}
