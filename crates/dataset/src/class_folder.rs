//! Pictures sorted into classes by folder: `ROOT/<split>/CLASS/…`, or `ROOT/CLASS/…` where there are no splits.
//!
//! One class per picture, not per pixel. Classes are numbered in the order of their names, pictures come sorted by class,
//! then folder, then name, at any depth: the order of torchvision's `ImageFolder`. The classes are those of all that is opened, so that a class
//! without pictures in one split keeps its number there; it is also a [`Problem`].

use std::collections::BTreeSet;
use std::path::Path;

use crate::dataset::check_index;
use crate::fingerprint::{Fingerprint, Once};
use crate::image_file::{EXTENSIONS, read_image};
use crate::source::Source;
use crate::{ClassTable, Dataset, Error, Listed, Listing, Problem, Result, Sample, Split};

const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

/// A data set whose pictures have one class each; its samples carry no label maps.
pub struct ClassFolder {
    source: Source,
    classes: Vec<String>,
    pictures: Vec<Picture>,
    problems: Vec<Problem>,
    fingerprint: Once,
}

/// A picture, by its path below the root.
struct Picture {
    id: String,
    file: Listed,
    class: u32,
}

impl ClassFolder {
    pub(crate) const NAME: &'static str = "classes";

    /// Lists `split` of the folder `root`; decodes nothing. Folders elsewhere: [`OpenOptions::open_classes`](crate::OpenOptions::open_classes).
    ///
    /// Folders `train`, `val` and `test` in `root` are splits, and then nothing else in it counts. [`Split::All`] is all
    /// of them in that order, or `ROOT/CLASS` where there are none. The classes are those of all splits. An id is
    /// the path below `root` (below the split, if one is opened) without extension; if two pictures differ in nothing else,
    /// all ids keep their extensions.
    ///
    /// # Errors
    /// With [`Error::is_usage`] if there is no such folder or split, no class folder, or no picture.
    pub fn open(root: &Path, split: Split) -> Result<Self> {
        Self::from(Source::local(root), split)
    }

    pub(crate) fn from(source: Source, split: Split) -> Result<Self> {
        source.check()?;
        let mut all = vec![];
        for split in SPLITS.map(|split| split.to_string()) {
            if source.is_folder(&split)? {
                all.push(split);
            }
        }
        let (parts, wanted) = match split {
            Split::All if all.is_empty() => (vec![String::new()], vec![String::new()]),
            Split::All => (all.clone(), all),
            Split::TrainVal => (all, [Split::Train, Split::Val].map(|split| split.to_string()).to_vec()),
            split => (all, vec![split.to_string()]),
        };
        if let Some(missing) = wanted.iter().find(|part| !parts.contains(part)) {
            return Err(no_split(&source, missing, &source.folders("")?));
        }
        let mut classes = BTreeSet::new();
        for part in &parts {
            classes.extend(source.folders(part)?);
        }
        if classes.is_empty() {
            let detail = "expected a folder per class, and found none".into();
            return Err(Error::Empty { path: source.place(""), detail });
        }
        let classes = classes.into_iter().collect();
        let (pictures, problems, fingerprint) = (vec![], vec![], Once::default());
        let mut this = Self { source, classes, pictures, problems, fingerprint };
        for part in &wanted {
            this.add(part)?;
        }
        if this.pictures.is_empty() {
            let detail = format!("looked for {} in {}", EXTENSIONS.join(", "), this.classes.join(", "));
            return Err(Error::Empty { path: this.source.place(""), detail });
        }
        this.set_ids(&wanted);
        Ok(this)
    }

    /// Class of picture `i`: an index into [`ClassFolder::class_names`].
    ///
    /// # Panics
    /// If `i >= len()`.
    #[must_use]
    pub fn class(&self, i: usize) -> u32 {
        self.pictures[i].class
    }

    /// Names of the classes, sorted.
    #[must_use]
    pub fn class_names(&self) -> &[String] {
        &self.classes
    }

    /// Adds the pictures of one split, which `""` says is the root itself.
    fn add(&mut self, part: &str) -> Result<()> {
        for (class, name) in (0..).zip(self.classes.clone()) {
            let folder = if part.is_empty() { name } else { format!("{part}/{name}") };
            let is_there = self.source.is_folder(&folder)?;
            let mut listing =
                if is_there { self.source.list(&folder, EXTENSIONS)? } else { Listing::default() };
            if listing.files.is_empty() {
                let reason = if is_there { "holds no picture" } else { "is not there" };
                self.problems.push(Problem { id: folder, reason: reason.into() });
            }
            listing.files.sort_by(|a, b| place(&a.path).cmp(&place(&b.path)));
            self.problems.extend(listing.problems);
            let picture = |file| Picture { id: String::new(), file, class };
            self.pictures.extend(listing.files.into_iter().map(picture));
        }
        Ok(())
    }

    fn set_ids(&mut self, parts: &[String]) {
        let prefix = match parts {
            [part] if !part.is_empty() => part.len() + 1,
            _ => 0,
        };
        let stems: BTreeSet<&str> = self.pictures.iter().map(|picture| picture.file.stem()).collect();
        let unique = stems.len() == self.pictures.len();
        for Picture { id, file, .. } in &mut self.pictures {
            *id = if unique { file.stem() } else { &file.path }[prefix..].to_owned();
        }
    }
}

/// Folder and name of a path.
fn place(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn no_split(source: &Source, split: &str, there: &[String]) -> Error {
    let detail = match there {
        [] => format!("expected a folder {split} in it, and found no folder"),
        there => format!("expected a folder {split} in it, and found {}", some(there)),
    };
    Error::Empty { path: source.place(""), detail }
}

/// The first few names.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 8;
    match names.len() {
        n if n > SHOWN => format!("{}, and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => names.join(", "),
    }
}

impl Dataset for ClassFolder {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn id(&self, i: usize) -> &str {
        &self.pictures[i].id
    }

    fn load(&self, i: usize) -> Result<Sample> {
        check_index(i, self.len())?;
        let picture = &self.pictures[i];
        let image = read_image(&self.source, &picture.file)?;
        Ok(Sample { id: picture.id.clone(), image, label: None })
    }

    /// None: there are no label maps; see [`ClassFolder::class_names`].
    fn classes(&self) -> Option<&ClassTable> {
        None
    }

    fn class_of(&self, i: usize) -> Option<u32> {
        Some(self.class(i))
    }

    fn class_names(&self) -> Vec<String> {
        self.classes.clone()
    }

    fn fingerprint(&self) -> Result<String> {
        self.fingerprint.get(|| {
            let files: Vec<&Listed> = self.pictures.iter().map(|picture| &picture.file).collect();
            let contents = self.source.contents(&files)?;
            let hash = Fingerprint::new(Self::NAME).number(self.classes.len() as u64);
            let hash = self.classes.iter().fold(hash, |hash, name| hash.text(name));
            let hash = hash.number(self.pictures.len() as u64);
            let class = |hash: Fingerprint, picture: &Picture| hash.number(picture.class.into());
            Ok(self.pictures.iter().fold(hash, class).files(&contents).hex())
        })
    }

    fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::contract;

    fn pictures(files: &[&str]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::RgbImage::from_pixel(4, 3, image::Rgb([1, 2, 3])).save(path).unwrap();
        }
        root
    }

    fn small() -> TempDir {
        pictures(&[
            "train/dog/b.png",
            "train/dog/deep/a.png",
            "train/ant/z.bmp",
            "val/dog/b.png",
            "val/cat/q.png",
        ])
    }

    fn rows(dataset: &ClassFolder) -> Vec<(&str, &str)> {
        let row = |i| (dataset.id(i), dataset.class_names()[dataset.class(i) as usize].as_str());
        (0..dataset.len()).map(row).collect()
    }

    fn problems(dataset: &ClassFolder) -> Vec<String> {
        dataset.problems().iter().map(|p| format!("{} {}", p.id, p.reason)).collect()
    }

    fn error(root: &TempDir, split: Split) -> String {
        let error = ClassFolder::open(root.path(), split).err().unwrap();
        assert!(error.is_usage(), "{error}");
        error.to_string()
    }

    #[test]
    fn every_split_keeps_the_contract() {
        let root = small();
        for (split, expected) in [
            (Split::Train, vec![("ant/z", "ant"), ("dog/b", "dog"), ("dog/deep/a", "dog")]),
            (Split::Val, vec![("cat/q", "cat"), ("dog/b", "dog")]),
            (
                Split::All,
                vec![
                    ("train/ant/z", "ant"),
                    ("train/dog/b", "dog"),
                    ("train/dog/deep/a", "dog"),
                    ("val/cat/q", "cat"),
                    ("val/dog/b", "dog"),
                ],
            ),
        ] {
            let dataset = ClassFolder::open(root.path(), split).unwrap();
            contract::check(&dataset);
            assert_eq!(rows(&dataset), expected);
            assert_eq!(dataset.class_names(), ["ant", "cat", "dog"], "numbers are the same in every split");
        }
    }

    #[test]
    fn without_splits_the_classes_lie_in_the_root() {
        let root = pictures(&["b/x.png", "a/x.png", "a/x.bmp"]);
        std::fs::write(root.path().join("README.md"), "").unwrap();
        let dataset = ClassFolder::open(root.path(), Split::All).unwrap();
        contract::check(&dataset);
        assert_eq!(rows(&dataset), [("a/x.bmp", "a"), ("a/x.png", "a"), ("b/x.png", "b")]);
    }

    #[test]
    fn files_of_a_folder_come_before_those_of_folders_in_it() {
        let root = pictures(&["a/deep/x.png", "a/z.png", "a/deep-1/y.png", "a/deep/er/w.png"]);
        let dataset = ClassFolder::open(root.path(), Split::All).unwrap();
        let ids: Vec<&str> = rows(&dataset).into_iter().map(|(id, _)| id).collect();
        // The order of torchvision 0.29's ImageFolder.
        assert_eq!(ids, ["a/z", "a/deep/x", "a/deep-1/y", "a/deep/er/w"]);
    }

    #[test]
    fn a_class_without_pictures_is_a_problem() {
        let root = small();
        std::fs::create_dir(root.path().join("train/cat")).unwrap();
        let open = |split| ClassFolder::open(root.path(), split).unwrap();
        assert_eq!(problems(&open(Split::Train)), ["train/cat holds no picture"]);
        assert_eq!(problems(&open(Split::Val)), ["val/ant is not there"]);
    }

    #[test]
    fn what_is_missing_is_said_with_what_is_there() {
        assert!(error(&small(), Split::Test).contains("expected a folder test in it, and found train, val"));
        let flat = pictures(&["a.png"]);
        assert!(error(&flat, Split::All).contains("expected a folder per class"));
        assert!(error(&flat, Split::Train).contains("expected a folder train in it, and found no folder"));
        let many: Vec<String> = (0..10).map(|n| format!("class{n}/a.png")).collect();
        let many = pictures(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(error(&many, Split::Val).ends_with("class7, and 2 more"));
        let empty = tempfile::tempdir().unwrap();
        std::fs::create_dir(empty.path().join("a")).unwrap();
        assert!(error(&empty, Split::All).contains("looked for bmp"));
        let error = ClassFolder::open(&empty.path().join("nowhere"), Split::All).err().unwrap();
        assert!(matches!(error, Error::NotFound { .. }));
    }

    #[test]
    fn the_fingerprint_covers_classes_and_files() {
        let root = small();
        let of = |split| ClassFolder::open(root.path(), split).unwrap().fingerprint().unwrap();
        let (train, val) = (of(Split::Train), of(Split::Val));
        assert_ne!(train, val);
        std::fs::write(root.path().join("val/dog/b.png"), "shorter").unwrap();
        assert_eq!(of(Split::Train), train);
        assert_ne!(of(Split::Val), val);
        std::fs::create_dir(root.path().join("train/bee")).unwrap();
        assert_ne!(of(Split::Train), train);
    }
}
