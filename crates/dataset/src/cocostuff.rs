//! `cocostuff27:ROOT`: COCO-Stuff (Caesar, Uijlings and Ferrari 2018) in 27 classes, on the curated images of PiCIE and STEGO.
//!
//! ```text
//! curated/train2017/Coco164kFull_Stuff_Coarse.txt      the ids of split train, one a line
//! curated/val2017/Coco164kFull_Stuff_Coarse_7.txt      and of split val
//! images/{train2017,val2017}/ID.jpg
//! annotations/{train2017,val2017}/ID.png               182 fine classes from 0; 255 for none
//! ```
//!
//! `ROOT` is that folder, or the one that holds it as `cocostuff`. Fine classes are joined to 12 of things and 15 of stuff; food and
//! furniture are among both, and say which by their names.

use crate::label_file::IGNORE;
use crate::native::{Form, Layout, Pair, Pairs, base, listed_ids, pascal, unknown_split};
use crate::source::Source;
use crate::{ClassTable, Kind, Result, Split};

pub(crate) const NAME: &str = "cocostuff27";

pub(crate) static LAYOUT: Layout =
    Layout { name: NAME, classes, coarse: coarse(), form: Form::Pictures, list };

/// Names of the classes and the fine classes, first and last of each run, that they are made of.
pub(crate) const CLASSES: [(&str, &[(u8, u8)]); 27] = [
    ("electronic", &[(71, 76)]),
    ("appliance", &[(77, 82)]),
    ("food-things", &[(51, 60)]),
    ("furniture-things", &[(61, 70)]),
    ("indoor", &[(83, 90)]),
    ("kitchen", &[(43, 50)]),
    ("accessory", &[(25, 32)]),
    ("animal", &[(15, 24)]),
    ("outdoor", &[(9, 14)]),
    ("person", &[(0, 0)]),
    ("sports", &[(33, 42)]),
    ("vehicle", &[(1, 8)]),
    ("ceiling", &[(101, 102)]),
    ("floor", &[(100, 100), (113, 117)]),
    ("food-stuff", &[(120, 121), (152, 152), (169, 169)]),
    (
        "furniture-stuff",
        &[
            (97, 97),
            (106, 107),
            (109, 109),
            (111, 111),
            (122, 122),
            (129, 129),
            (132, 132),
            (155, 155),
            (160, 160),
            (164, 164),
        ],
    ),
    ("rawmaterial", &[(99, 99), (131, 131), (138, 138), (142, 142)]),
    (
        "textile",
        &[(91, 92), (103, 104), (108, 108), (130, 130), (136, 136), (140, 140), (151, 151), (166, 167)],
    ),
    ("wall", &[(170, 176)]),
    ("window", &[(179, 180)]),
    ("building", &[(94, 95), (127, 127), (150, 150), (157, 157), (165, 165)]),
    (
        "ground",
        &[
            (110, 110),
            (124, 125),
            (135, 135),
            (139, 139),
            (143, 144),
            (146, 146),
            (148, 148),
            (153, 153),
            (158, 158),
        ],
    ),
    (
        "plant",
        &[
            (93, 93),
            (96, 96),
            (118, 118),
            (123, 123),
            (128, 128),
            (133, 133),
            (141, 141),
            (162, 162),
            (168, 168),
        ],
    ),
    ("sky", &[(105, 105), (156, 156)]),
    ("solid", &[(126, 126), (134, 134), (149, 149), (159, 159), (161, 161), (181, 181)]),
    ("structural", &[(98, 98), (112, 112), (137, 137), (145, 145), (163, 163)]),
    ("water", &[(119, 119), (147, 147), (154, 154), (177, 178)]),
];

const fn coarse() -> [u8; 256] {
    let mut coarse = [IGNORE; 256];
    let mut class = 0;
    while class < CLASSES.len() {
        let runs = CLASSES[class].1;
        let mut run = 0;
        while run < runs.len() {
            let mut fine = runs[run].0 as usize;
            while fine <= runs[run].1 as usize {
                coarse[fine] = class as u8;
                fine += 1;
            }
            run += 1;
        }
        class += 1;
    }
    coarse
}

fn classes() -> ClassTable {
    let names = CLASSES.iter().map(|(name, _)| (*name).to_owned()).collect();
    ClassTable { names, palette: (0..CLASSES.len()).map(pascal).collect() }
}

/// The folder of a split and its list.
pub(crate) fn place(split: Split) -> Option<(&'static str, &'static str)> {
    match split {
        Split::Train => Some(("train2017", "Coco164kFull_Stuff_Coarse.txt")),
        Split::Val => Some(("val2017", "Coco164kFull_Stuff_Coarse_7.txt")),
        Split::Test | Split::All => None,
    }
}

fn list(source: &Source, split: Split) -> Result<Pairs> {
    let base = base(source, "curated", "cocostuff")?;
    let mut pairs = Pairs::default();
    let splits = match split {
        Split::All => vec![Split::Train, Split::Val],
        split => vec![split],
    };
    for (i, &part) in splits.iter().enumerate() {
        let (folder, list) = place(part).ok_or_else(|| unknown_split(NAME, part))?;
        let list = format!("{base}curated/{folder}/{list}");
        // All splits are those that there are; one there must be.
        let may_lack = split == Split::All && (i == 0 || !pairs.pairs.is_empty());
        if may_lack && source.files.kind(&list)? == Kind::Absent {
            continue;
        }
        add(
            source,
            &mut pairs,
            part,
            &list,
            &format!("{base}images/{folder}"),
            &format!("{base}annotations/{folder}"),
        )?;
    }
    Ok(pairs)
}

fn add(
    source: &Source,
    pairs: &mut Pairs,
    split: Split,
    list: &str,
    images: &str,
    labels: &str,
) -> Result<()> {
    let ids = listed_ids(source, list, pairs)?;
    let mut image_of = pairs.files(source, images, "jpg")?;
    let mut label_of = pairs.files(source, labels, "png")?;
    for id in ids {
        let (image, label) = (format!("{images}/{id}.jpg"), format!("{labels}/{id}.png"));
        match (image_of.remove(&image), label_of.remove(&label)) {
            (Some(image), Some(label)) => pairs.pairs.push(Pair { id, split, image, label: Some(label) }),
            (Some(_), None) => pairs.refuse(image, format!("has no label {label}")),
            (None, _) => pairs.refuse(image, format!("is listed in {list} and is not there")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fine_class_is_in_one_coarse_class() {
        let fine: usize =
            CLASSES.iter().flat_map(|(_, runs)| *runs).map(|(a, b)| usize::from(b - a) + 1).sum();
        assert_eq!(fine, 182);
        let table = LAYOUT.coarse;
        assert!(
            table[..182].iter().all(|&class| class < 27) && table[182..].iter().all(|&class| class == 255)
        );
        // Person, bicycle, book; apple, table and their kind of stuff; wood and zebra.
        assert_eq!(
            [0, 1, 83, 52, 66, 120, 164, 181, 23].map(|fine| table[fine]),
            [9, 11, 4, 2, 3, 14, 15, 24, 7]
        );
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = CLASSES.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 27);
    }
}
