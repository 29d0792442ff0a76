//! `directory:ROOT[?classes=N]`: somebody's own pictures, with or without label maps.
//!
//! ```text
//! imgs/{train,val,test}/…          pictures, any nesting
//! labels/{train,val,test}/…png     class indices as they are, 255 for none; paired with pictures by path without extension
//! ```
//!
//! Splits without a folder in `labels` are unlabelled: features, reducers and STEGO's head need no labels, and probes refuse. The classes are
//! `class 0` to `class N-1`; if `N` is not given, it is one more than the largest index in any split's labels, which are decoded
//! for that once (a split more or fewer must not renumber anything, and no split may lack a class that another has).
//! Everything else is as in every labelled folder ([`labelled_folder`](crate::labelled_folder)).

use std::panic::resume_unwind;
use std::thread;

use crate::label_file::{IGNORE, read_values};
use crate::labelled_folder::{Folders, LabelledFolder, SPLITS, folder};
use crate::native::pascal;
use crate::source::Source;
use crate::{ClassTable, Error, Listed, Result, Split};

pub(crate) const NAME: &str = "directory";
/// What follows the name.
pub(crate) const PLACEHOLDER: &str = "ROOT[?classes=N]";
const OPTION: &str = "directory option classes";
/// Labels are bytes, and the last one is for no class.
const MOST: usize = IGNORE as usize;

/// The root, and the number of classes if it is given.
pub(crate) fn options(text: &str) -> Result<(&str, Option<usize>)> {
    let Some((root, options)) = text.rsplit_once('?') else { return Ok((text, None)) };
    let mut classes = None;
    for option in options.split('&') {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if key != "classes" {
            return Err(Error::UnknownWord {
                what: "directory option",
                got: key.to_owned(),
                known: "classes".into(),
            });
        }
        let number = value.parse().ok().filter(|number| (1..=MOST).contains(number));
        let reason = || format!("must be a whole number from 1 to {MOST}, got \"{value}\"");
        classes = Some(number.ok_or_else(|| Error::InvalidOption { option: OPTION, reason: reason() })?);
    }
    Ok((root, classes))
}

/// Lists `split`; decodes labels only if `classes` is not given.
pub(crate) fn open(source: Source, split: Split, classes: Option<usize>) -> Result<LabelledFolder> {
    source.check()?;
    let classes = match classes {
        Some(classes) => classes,
        None => counted(&source)?,
    };
    let table = ClassTable {
        names: (0..classes).map(|class| format!("class {class}")).collect(),
        palette: (0..classes).map(pascal).collect(),
    };
    LabelledFolder::of(Folders { name: NAME, images: "imgs", classes: table, void: None }, source, split)
}

/// One more than the largest index in the labels; 0 if there are none.
fn counted(source: &Source) -> Result<usize> {
    let mut labels = Vec::new();
    for split in SPLITS {
        let folder = folder("labels", split);
        if source.is_folder(&folder)? {
            labels.extend(source.list(&folder, &["png"])?.files);
        }
    }
    let share = labels.len().div_ceil(source.files.readers().max(1)).max(1);
    let parts = thread::scope(|scope| {
        let read = |part| scope.spawn(move || largest(source, part));
        let readers: Vec<_> = labels.chunks(share).map(read).collect();
        let parts = readers.into_iter().map(|reader| reader.join().unwrap_or_else(|e| resume_unwind(e)));
        parts.collect::<Result<Vec<_>>>()
    })?;
    match parts.into_iter().flatten().max() {
        Some(largest) => Ok(usize::from(largest) + 1),
        None if labels.is_empty() => Ok(0),
        None => {
            let reason = format!(
                "must be given, as no label below {} has a class to count: write directory:ROOT?classes=N",
                source.place("labels").display()
            );
            Err(Error::InvalidOption { option: OPTION, reason })
        }
    }
}

/// The largest index in `labels`. One that cannot be read is its sample's error, later.
fn largest(source: &Source, labels: &[Listed]) -> Result<Option<u8>> {
    let mut largest = None;
    for file in labels {
        match read_values(source, file) {
            Ok(values) => {
                largest = largest.max(values.iter().copied().filter(|&value| value != IGNORE).max());
            }
            Err(error) if error.is_sample() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage};
    use tempfile::TempDir;

    use super::*;
    use crate::contract::save;
    use crate::{Dataset, contract, open as open_spec};

    fn image(root: &TempDir, file: &str) {
        save(root, &format!("imgs/{file}"), RgbImage::from_pixel(4, 3, Rgb([1, 2, 3])));
    }

    fn label(root: &TempDir, file: &str, value: u8) {
        save(root, &format!("labels/{file}"), GrayImage::from_pixel(4, 3, Luma([value])));
    }

    fn open_at(root: &TempDir, options: &str, split: Split) -> Result<Box<dyn Dataset>> {
        open_spec(&format!("directory:{}{options}", root.path().display()), split)
    }

    /// train: b, a/c unlabelled; val: x labelled 0, y labelled 4.
    fn small() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        ["train/b.png", "train/a/c.bmp", "val/x.png", "val/y.png"].iter().for_each(|file| image(&root, file));
        label(&root, "val/x.png", 0);
        label(&root, "val/y.png", 4);
        root
    }

    #[test]
    fn every_split_keeps_the_contract_labelled_or_not() {
        let root = small();
        for (split, len, is_labelled) in [
            (Split::Train, 2, false),
            (Split::Val, 2, true),
            (Split::TrainVal, 4, true),
            (Split::All, 4, true),
        ] {
            let dataset = open_at(&root, "", split).unwrap();
            contract::check(&*dataset);
            assert_eq!((dataset.name(), dataset.len(), dataset.problems()), ("directory", len, &[][..]));
            assert_eq!(dataset.classes().is_some(), is_labelled, "{split}");
            assert_eq!(dataset.load(0).unwrap().label.is_some(), split == Split::Val);
        }
        let val = open_at(&root, "", Split::Val).unwrap();
        assert_eq!(val.classes().unwrap().names, ["class 0", "class 1", "class 2", "class 3", "class 4"]);
        assert_eq!(val.classes().unwrap().palette[1], [128, 0, 0]);
        assert!(open_at(&root, "", Split::Test).err().unwrap().is_usage());
    }

    #[test]
    fn classes_are_counted_in_all_splits_or_given() {
        let root = small();
        label(&root, "train/b.png", 6);
        label(&root, "train/a/c.png", 255);
        let classes = |options: &str, split| {
            open_at(&root, options, split).map(|dataset| dataset.classes().map_or(0, |c| c.names.len()))
        };
        assert_eq!(classes("", Split::Train).unwrap(), 7);
        assert_eq!(classes("", Split::Val).unwrap(), 7, "a class that only train has keeps its number");
        assert_eq!(classes("?classes=9", Split::Val).unwrap(), 9);
        let few = open_at(&root, "?classes=5", Split::Train).unwrap();
        let error = few.load(1).unwrap_err();
        assert!(error.is_sample() && error.to_string().contains("holds 6 at x 0, y 0"), "{error}");
        assert!(few.load(0).unwrap().label.unwrap().iter().all(|&class| class == 255));
        std::fs::write(root.path().join("labels/train/b.png"), "no picture").unwrap();
        assert_eq!(classes("", Split::Val).unwrap(), 5, "what cannot be read is not counted");
    }

    #[test]
    fn pictures_and_labels_are_paired_by_name_and_converted() {
        let root = small();
        save(&root, "imgs/val/x.png", GrayImage::from_pixel(4, 3, Luma([9])));
        image(&root, "val/w.png"); // by position, every label would now be its neighbour's
        let val = open_at(&root, "", Split::Val).unwrap();
        let ids: Vec<&str> = (0..val.len()).map(|i| val.id(i)).collect();
        assert_eq!(ids, ["x", "y"]);
        assert_eq!(val.problems()[0].reason, "has no label labels/val/w.png");
        assert!(val.load(0).unwrap().image.iter().all(|&value| value == 9));
        assert_eq!(val.load(1).unwrap().label.unwrap()[[0, 0]], 4);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let root = small();
        let error = |options: &str| {
            let error = open_at(&root, options, Split::Val).err().unwrap();
            assert!(error.is_usage(), "{error}");
            error.to_string()
        };
        assert_eq!(error("?clases=3"), "unknown directory option \"clases\"; known are classes");
        for wrong in ["0", "256", "many", ""] {
            let said = error(&format!("?classes={wrong}"));
            assert!(said.contains(&format!("from 1 to 255, got \"{wrong}\"")), "{said}");
        }
        label(&root, "val/x.png", 255);
        label(&root, "val/y.png", 255);
        assert!(error("").contains("write directory:ROOT?classes=N"));
        assert_eq!(open_at(&root, "?classes=2", Split::Val).unwrap().len(), 2);
        std::fs::remove_dir_all(root.path().join("imgs")).unwrap();
        let said = open_at(&root, "?classes=2", Split::All).err().unwrap().to_string();
        assert!(said.contains("expected imgs/train, imgs/val or imgs/test"), "{said}");
    }
}
