//! Labelled segmentation folders: `images/<split>/` beside `labels/<split>/`, paired by stem.
//!
//! A data set of this layout is one row of [`TABLES`]: its name, its classes, the label value that means "no class"; or it is
//! somebody's own ([`directory`](crate::directory)), with classes found out when it is opened. A
//! split without a labels folder is unlabelled. In a labelled split, an image without label or a label without image is
//! a [`Problem`], and the rest goes on. Ids are stems, prefixed by the split only if two splits share one.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use crate::dataset::check_index;
use crate::fingerprint::{Fingerprint, Once};
use crate::image_file::{EXTENSIONS, read_image};
use crate::label_file::read_label;
use crate::source::Source;
use crate::{ClassTable, Dataset, Error, Kind, Listed, Problem, Result, Sample, Split};

/// What tells one labelled folder from another.
#[derive(Debug)]
pub(crate) struct Folders {
    /// Name of the data set.
    pub(crate) name: &'static str,
    /// The folder of images beside `labels`.
    pub(crate) images: &'static str,
    /// The classes of whatever is labelled.
    pub(crate) classes: ClassTable,
    /// The value of pixels without a class, besides 255.
    pub(crate) void: Option<u8>,
}

/// A known data set of this layout.
#[derive(Debug)]
pub(crate) struct Table {
    /// Name of the data set.
    pub(crate) name: &'static str,
    /// Names and colours of the classes; a label's value is the index.
    classes: &'static [(&'static str, [u8; 3])],
    /// The value of pixels without a class, besides 255.
    void: Option<u8>,
}

/// All data sets of this layout.
pub(crate) const TABLES: &[Table] = &[Table {
    // CamVid (Brostow et al. 2008) in 11 classes, in the order and colours of SegNet's edition.
    name: "camvid",
    classes: &[
        ("Sky", [128, 128, 128]),
        ("Building", [128, 0, 0]),
        ("Pole", [192, 192, 128]),
        ("Road", [128, 64, 128]),
        ("Pavement", [60, 40, 222]),
        ("Tree", [128, 128, 0]),
        ("SignSymbol", [192, 128, 128]),
        ("Fence", [64, 64, 128]),
        ("Car", [64, 0, 128]),
        ("Pedestrian", [64, 64, 0]),
        ("Bicyclist", [0, 128, 192]),
    ],
    void: Some(11),
}];

/// One or more splits of a labelled folder.
pub(crate) struct LabelledFolder {
    source: Source,
    folders: Folders,
    /// Whether a split has labels.
    is_labelled: bool,
    pairs: Vec<Pair>,
    problems: Vec<Problem>,
    fingerprint: Once,
}

/// An image and, in labelled splits, its label; paths are relative to the root.
struct Pair {
    id: String,
    split: Split,
    image: Listed,
    label: Option<Listed>,
}

impl LabelledFolder {
    pub(crate) fn open(table: &'static Table, source: Source, split: Split) -> Result<Self> {
        let Table { name, classes, void } = *table;
        let folders = Folders { name, images: "images", classes: ClassTable::new(classes), void };
        Self::of(folders, source, split)
    }

    pub(crate) fn of(folders: Folders, source: Source, split: Split) -> Result<Self> {
        source.check()?;
        let (pairs, problems, fingerprint) = (vec![], vec![], Once::default());
        let mut this = Self { source, folders, is_labelled: false, pairs, problems, fingerprint };
        for split in this.splits(split)? {
            this.add(split)?;
        }
        if this.pairs.is_empty() {
            let detail = match this.problems.first() {
                Some(first) => {
                    format!("{} problems, the first: {} {}", this.problems.len(), first.id, first.reason)
                }
                None => format!(
                    "looked for {} below {}",
                    EXTENSIONS.join(", "),
                    folder(this.folders.images, split)
                ),
            };
            return Err(Error::Empty { path: this.source.place(""), detail });
        }
        this.name_uniquely();
        Ok(this)
    }

    /// The splits that `split` stands for here.
    fn splits(&self, split: Split) -> Result<Vec<Split>> {
        match split {
            Split::All => {}
            Split::TrainVal => return Ok(vec![Split::Train, Split::Val]),
            split => return Ok(vec![split]),
        }
        let images = self.folders.images;
        let mut splits = vec![];
        for split in SPLITS {
            if self.source.is_folder(&folder(images, split))? {
                splits.push(split);
            }
        }
        if splits.is_empty() {
            let detail = format!("expected {images}/train, {images}/val or {images}/test");
            return Err(Error::Empty { path: self.source.place(""), detail });
        }
        Ok(splits)
    }

    fn add(&mut self, split: Split) -> Result<()> {
        let images = self.by_stem(self.folders.images, split, EXTENSIONS)?;
        let labels = folder("labels", split);
        if self.source.files.kind(&labels)? == Kind::Absent {
            self.pairs.extend(images.into_iter().map(|(id, image)| Pair { id, split, image, label: None }));
            return Ok(());
        }
        let mut labels_of = self.by_stem("labels", split, &["png"])?;
        self.is_labelled = true;
        for (id, image) in images {
            match labels_of.remove(&id) {
                Some(label) => self.pairs.push(Pair { id, split, image, label: Some(label) }),
                None => self.refuse(image, format!("has no label {labels}/{id}.png")),
            }
        }
        for (id, label) in labels_of {
            self.refuse(label, format!("has no image {}/{id}", folder(self.folders.images, split)));
        }
        Ok(())
    }

    /// The files of a folder by stem; of files that share one, the first.
    fn by_stem(&mut self, kind: &str, split: Split, extensions: &[&str]) -> Result<BTreeMap<String, Listed>> {
        let folder = folder(kind, split);
        let listing = self.source.list(&folder, extensions)?;
        self.problems.extend(listing.problems);
        let mut files = BTreeMap::<String, Listed>::new();
        for file in listing.files {
            let stem = file.stem()[folder.len() + 1..].to_owned();
            match files.get(&stem) {
                Some(first) => {
                    let reason = format!("has the same stem as {}, which is used", first.path);
                    self.refuse(file, reason);
                }
                None => {
                    files.insert(stem, file);
                }
            }
        }
        Ok(files)
    }

    fn refuse(&mut self, file: Listed, reason: String) {
        self.problems.push(Problem { id: file.path, reason });
    }

    fn name_uniquely(&mut self) {
        let ids: BTreeSet<&str> = self.pairs.iter().map(|pair| pair.id.as_str()).collect();
        if ids.len() < self.pairs.len() {
            self.pairs.iter_mut().for_each(|pair| pair.id = format!("{}/{}", pair.split, pair.id));
        }
    }

    fn label(&self, file: &Listed, image: (usize, usize)) -> Result<ndarray::Array2<u8>> {
        let label = read_label(&self.source, file, self.folders.classes.names.len(), self.folders.void)?;
        if label.dim() != image {
            let path = self.source.place(&file.path);
            return Err(Error::LabelSize { path, label: label.dim(), image });
        }
        Ok(label)
    }
}

/// The splits that [`Split::All`] stands for, if they are there.
pub(crate) const SPLITS: [Split; 3] = [Split::Train, Split::Val, Split::Test];

/// The folder of a split's images or labels.
pub(crate) fn folder(kind: &str, split: Split) -> String {
    match split {
        Split::All => kind.to_owned(),
        split => format!("{kind}/{split}"),
    }
}

impl Dataset for LabelledFolder {
    fn name(&self) -> &str {
        self.folders.name
    }

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn id(&self, i: usize) -> &str {
        &self.pairs[i].id
    }

    fn load(&self, i: usize) -> Result<Sample> {
        check_index(i, self.len())?;
        let pair = &self.pairs[i];
        let image = read_image(&self.source, &pair.image)?;
        let (h, w, _) = image.dim();
        let label = pair.label.as_ref().map(|file| self.label(file, (h, w))).transpose()?;
        Ok(Sample { id: pair.id.clone(), image, label })
    }

    fn classes(&self) -> Option<&ClassTable> {
        self.is_labelled.then_some(&self.folders.classes)
    }

    fn fingerprint(&self) -> Result<String> {
        self.fingerprint.get(|| {
            let files = self.pairs.iter().flat_map(|pair| iter::once(&pair.image).chain(&pair.label));
            let contents = self.source.contents(&files.collect::<Vec<_>>())?;
            let Folders { name, classes, void, .. } = &self.folders;
            let hash = Fingerprint::new(name).number(void.unwrap_or(u8::MAX).into());
            let hash = hash.number(self.pairs.len() as u64);
            let hash = classes.names.iter().fold(hash, |hash, name| hash.text(name));
            let labelled = |hash: Fingerprint, pair: &Pair| hash.number(pair.label.is_some().into());
            Ok(self.pairs.iter().fold(hash, labelled).files(&contents).hex())
        })
    }

    fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, RgbImage};
    use tempfile::TempDir;

    use super::*;
    use crate::contract::{self, save};

    fn image(root: &TempDir, file: &str) {
        save(root, &format!("images/{file}"), RgbImage::from_pixel(4, 3, Rgb([1, 2, 3])));
    }

    fn label(root: &TempDir, file: &str, value: u8) {
        save(root, &format!("labels/{file}"), GrayImage::from_pixel(4, 3, Luma([value])));
    }

    fn open(root: &TempDir, split: Split) -> Result<LabelledFolder> {
        LabelledFolder::open(&TABLES[0], Source::local(root.path()), split)
    }

    fn ids(dataset: &LabelledFolder) -> Vec<&str> {
        (0..dataset.len()).map(|i| dataset.id(i)).collect()
    }

    /// train: b, a/c labelled; val: d labelled 11 (void); test: unlabelled.
    fn small() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (stem, value) in [("train/b", 3), ("train/a/c", 10), ("val/d", 11)] {
            image(&root, &format!("{stem}.png"));
            label(&root, &format!("{stem}.png"), value);
        }
        image(&root, "test/e.bmp");
        root
    }

    #[test]
    fn every_split_keeps_the_contract() {
        let root = small();
        for (split, expected) in [
            (Split::Train, vec!["a/c", "b"]),
            (Split::Val, vec!["d"]),
            (Split::Test, vec!["e"]),
            (Split::All, vec!["a/c", "b", "d", "e"]),
        ] {
            let dataset = open(&root, split).unwrap();
            contract::check(&dataset);
            assert_eq!(ids(&dataset), expected);
            assert_eq!(dataset.problems(), []);
            assert_eq!(dataset.classes().is_some(), split != Split::Test);
        }
        let value = |split, i: usize| open(&root, split).unwrap().load(i).unwrap().label.map(|l| l[[0, 0]]);
        assert_eq!(value(Split::Train, 0), Some(10));
        assert_eq!(value(Split::Val, 0), Some(255));
        assert_eq!(value(Split::Test, 0), None);
    }

    #[test]
    fn ids_carry_the_split_only_where_two_splits_share_a_stem() {
        let root = small();
        image(&root, "val/b.png");
        label(&root, "val/b.png", 0);
        assert_eq!(
            ids(&open(&root, Split::All).unwrap()),
            ["train/a/c", "train/b", "val/b", "val/d", "test/e"]
        );
        assert_eq!(ids(&open(&root, Split::Val).unwrap()), ["b", "d"]);
    }

    #[test]
    fn what_has_no_partner_is_a_problem_and_the_rest_goes_on() {
        let root = small();
        image(&root, "train/alone.png");
        label(&root, "train/lost.png", 0);
        image(&root, "train/b.bmp");
        let dataset = open(&root, Split::Train).unwrap();
        assert_eq!(ids(&dataset), ["a/c", "b"]);
        let problems: Vec<_> = dataset.problems().iter().map(|p| format!("{} {}", p.id, p.reason)).collect();
        assert_eq!(
            problems,
            [
                "images/train/b.png has the same stem as images/train/b.bmp, which is used",
                "images/train/alone.png has no label labels/train/alone.png",
                "labels/train/lost.png has no image images/train/lost",
            ]
        );
    }

    #[test]
    fn a_label_of_another_size_is_a_sample_error() {
        let root = small();
        save(&root, "labels/train/b.png", GrayImage::new(9, 8));
        let error = open(&root, Split::Train).unwrap().load(1).unwrap_err();
        assert!(error.is_sample());
        assert!(error.to_string().contains("b.png is 9 x 8 pixels, its image is 4 x 3"), "{error}");
    }

    #[test]
    fn nothing_to_use_is_a_usage_error_that_says_what_was_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let error = |split| open(&root, split).err().unwrap();
        assert!(error(Split::All).to_string().contains("expected images/train"));
        assert!(error(Split::Val).is_usage() && error(Split::Val).to_string().contains("val"));
        image(&root, "train/x.png");
        std::fs::create_dir_all(root.path().join("labels/train")).unwrap();
        let error = open(&root, Split::Train).err().unwrap();
        assert!(error.is_usage());
        assert!(
            error.to_string().contains("1 problems, the first: images/train/x.png has no label"),
            "{error}"
        );
    }

    #[test]
    fn the_fingerprint_covers_labels_and_split() {
        let root = small();
        let of = |split| open(&root, split).unwrap().fingerprint().unwrap();
        let (train, val) = (of(Split::Train), of(Split::Val));
        assert_ne!(train, val);
        std::fs::write(root.path().join("labels/val/d.png"), "shorter").unwrap();
        assert_ne!(of(Split::Val), val);
        assert_eq!(of(Split::Train), train);
    }
}
