//! `voc:ROOT`: Pascal VOC 2012 (Everingham et al. 2012), segmentation, in 20 classes and the background.
//!
//! ```text
//! ImageSets/Segmentation/{train,val,trainval,test}.txt  the ids of a split, one a line
//! JPEGImages/ID.jpg
//! SegmentationClass/ID.png                              palette indices: 0 background, 1 to 20 classes, 255 the border of an object
//! ```
//!
//! `ROOT` is that folder, or one that holds it as `VOC2012` or `VOCdevkit/VOC2012`. The border is ignored; background is a class, as in the
//! challenge. Split `all` is `trainval.txt`. Of `test`, whose labels the authors keep, all pixels are ignored.

use crate::label_file::IGNORE;
use crate::native::{Form, Layout, Pair, Pairs, base, listed_ids, pascal, unknown_split};
use crate::source::Source;
use crate::{ClassTable, Kind, Result, Split};

pub(crate) const NAME: &str = "voc";

pub(crate) static LAYOUT: Layout =
    Layout { name: NAME, classes, coarse: coarse(), form: Form::Pictures, list };

pub(crate) const LISTS: &str = "ImageSets/Segmentation";
pub(crate) const IMAGES: &str = "JPEGImages";
pub(crate) const LABELS: &str = "SegmentationClass";

/// In the order of their indices, which is that of their names.
pub(crate) const CLASSES: [&str; 21] = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];

const fn coarse() -> [u8; 256] {
    let mut coarse = [IGNORE; 256];
    let mut class = 0;
    while class < CLASSES.len() {
        coarse[class] = class as u8;
        class += 1;
    }
    coarse
}

fn classes() -> ClassTable {
    let names = CLASSES.iter().map(|name| (*name).to_owned()).collect();
    ClassTable { names, palette: (0..CLASSES.len()).map(pascal).collect() }
}

/// The list of a split.
pub(crate) fn place(split: Split) -> Option<&'static str> {
    match split {
        Split::Train => Some("train.txt"),
        Split::Val => Some("val.txt"),
        Split::Test => Some("test.txt"),
        Split::All => Some("trainval.txt"),
        Split::TrainVal | Split::Unlabelled => None,
    }
}

fn list(source: &Source, split: Split) -> Result<Pairs> {
    let mut root = base(source, LISTS, "VOC2012")?;
    if root.is_empty() {
        root = base(source, LISTS, "VOCdevkit/VOC2012")?;
    }
    let known = "train, val, test, train+val, all";
    let list = place(split).ok_or_else(|| unknown_split(NAME, split, known))?;
    let list = format!("{root}{LISTS}/{list}");
    let mut pairs = Pairs::default();
    let ids = listed_ids(source, &list, &mut pairs)?;
    let (images, labels) = (format!("{root}{IMAGES}"), format!("{root}{LABELS}"));
    let mut image_of = pairs.files(source, &images, "jpg")?;
    let may_lack = split == Split::Test && source.files.kind(&labels)? == Kind::Absent;
    let mut label_of = if may_lack { Default::default() } else { pairs.files(source, &labels, "png")? };
    for id in ids {
        let (image, label) = (format!("{images}/{id}.jpg"), format!("{labels}/{id}.png"));
        match (image_of.remove(&image), label_of.remove(&label)) {
            (None, _) => pairs.refuse(image, format!("is listed in {list} and is not there")),
            (Some(_), None) if split != Split::Test => pairs.refuse(image, format!("has no label {label}")),
            (Some(image), label) => pairs.pairs.push(Pair { id, split, image, label }),
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_values_are_classes_and_the_border_is_none() {
        assert!((0..21).all(|value| LAYOUT.coarse[value] == value as u8));
        assert!(LAYOUT.coarse[21..].iter().all(|&class| class == 255));
        let table = classes();
        assert_eq!((&table.names[15][..], table.palette[15]), ("person", [192, 128, 128]));
        assert!(table.names[1..].is_sorted());
    }
}
