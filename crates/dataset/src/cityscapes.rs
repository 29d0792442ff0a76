//! `cityscapes27:ROOT`: Cityscapes (Cordts et al. 2016), fine annotation, in the 27 classes that are not void.
//!
//! ```text
//! leftImg8bit/{train,val}/CITY/STEM_leftImg8bit.png
//! gtFine/{train,val}/CITY/STEM_gtFine_labelIds.png      classes 7 to 33, which become 0 to 26; all others are ignored
//! ```
//!
//! `ROOT` is that folder, or the one that holds it as `cityscapes`. Images are sorted by path, and called `CITY/STEM`.

use crate::label_file::IGNORE;
use crate::native::{Form, Layout, Pair, Pairs, base, unknown_split};
use crate::source::Source;
use crate::{ClassTable, Result, Split};

pub(crate) const NAME: &str = "cityscapes27";

pub(crate) static LAYOUT: Layout =
    Layout { name: NAME, classes, coarse: coarse(), form: Form::Pictures, list };

/// Stored value of class 0.
pub(crate) const FIRST: u8 = 7;
pub(crate) const IMAGE: &str = "_leftImg8bit.png";
pub(crate) const LABEL: &str = "_gtFine_labelIds.png";

/// Names and colours of the data set's authors.
const CLASSES: [(&str, [u8; 3]); 27] = [
    ("road", [128, 64, 128]),
    ("sidewalk", [244, 35, 232]),
    ("parking", [250, 170, 160]),
    ("rail track", [230, 150, 140]),
    ("building", [70, 70, 70]),
    ("wall", [102, 102, 156]),
    ("fence", [190, 153, 153]),
    ("guard rail", [180, 165, 180]),
    ("bridge", [150, 100, 100]),
    ("tunnel", [150, 120, 90]),
    ("pole", [153, 153, 153]),
    ("polegroup", [153, 153, 153]),
    ("traffic light", [250, 170, 30]),
    ("traffic sign", [220, 220, 0]),
    ("vegetation", [107, 142, 35]),
    ("terrain", [152, 251, 152]),
    ("sky", [70, 130, 180]),
    ("person", [220, 20, 60]),
    ("rider", [255, 0, 0]),
    ("car", [0, 0, 142]),
    ("truck", [0, 0, 70]),
    ("bus", [0, 60, 100]),
    ("caravan", [0, 0, 90]),
    ("trailer", [0, 0, 110]),
    ("train", [0, 80, 100]),
    ("motorcycle", [0, 0, 230]),
    ("bicycle", [119, 11, 32]),
];

const fn coarse() -> [u8; 256] {
    let mut coarse = [IGNORE; 256];
    let mut class = 0;
    while class < CLASSES.len() {
        coarse[class + FIRST as usize] = class as u8;
        class += 1;
    }
    coarse
}

fn classes() -> ClassTable {
    ClassTable::new(&CLASSES)
}

fn list(source: &Source, split: Split) -> Result<Pairs> {
    let base = base(source, "leftImg8bit", "cityscapes")?;
    let mut pairs = Pairs::default();
    match split {
        Split::Train | Split::Val => add(source, &mut pairs, split, &base)?,
        Split::Test | Split::TrainVal | Split::Unlabelled => {
            return Err(unknown_split(NAME, split, "train, val, train+val, all"));
        }
        Split::All => {
            let mut there = Vec::new();
            for split in [Split::Train, Split::Val] {
                if source.is_folder(&format!("{base}leftImg8bit/{split}"))? {
                    there.push(split);
                }
            }
            if there.is_empty() {
                there.push(Split::Train); // whose absence is then said
            }
            for split in there {
                add(source, &mut pairs, split, &base)?;
            }
        }
    }
    Ok(pairs)
}

fn add(source: &Source, pairs: &mut Pairs, split: Split, base: &str) -> Result<()> {
    let (images, labels) = (format!("{base}leftImg8bit/{split}"), format!("{base}gtFine/{split}"));
    let image_of = pairs.files(source, &images, "png")?;
    let mut label_of = pairs.files(source, &labels, "png")?;
    label_of.retain(|path, _| path.ends_with(LABEL)); // colours and instances lie there too
    for (path, image) in image_of {
        let Some(stem) = path.strip_suffix(IMAGE) else {
            pairs.refuse(path, format!("is not called STEM{IMAGE}"));
            continue;
        };
        let id = stem[images.len() + 1..].to_owned();
        let label = format!("{labels}/{id}{LABEL}");
        match label_of.remove(&label) {
            Some(label) => pairs.pairs.push(Pair { id, split, image, label: Some(label) }),
            None => pairs.refuse(path, format!("has no label {label}")),
        }
    }
    for label in label_of.into_keys() {
        let id = &label[labels.len() + 1..label.len() - LABEL.len()];
        let image = format!("{images}/{id}{IMAGE}");
        pairs.refuse(label, format!("has no image {image}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn void_is_ignored_and_the_rest_moves_down() {
        let table = LAYOUT.coarse;
        assert!(table[..7].iter().chain(&table[34..]).all(|&class| class == 255));
        assert_eq!([7, 8, 11, 24, 33].map(|id| table[id]), [0, 1, 4, 17, 26]);
        assert_eq!(classes().names[17], "person");
    }
}
