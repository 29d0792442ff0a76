//! `cocostuff27:ROOT`: COCO-Stuff (Caesar, Uijlings and Ferrari 2018) in 27 classes, on the curated images of PiCIE and STEGO.
//!
//! ```text
//! curated/train2017/Coco164kFull_Stuff_Coarse.txt      the ids of split train, one a line
//! curated/val2017/Coco164kFull_Stuff_Coarse_7.txt      and of split val
//! curated/{train2017,val2017}/…                        of both splits of cocostuff15: Coco164kFull_Stuff_Coarse_7.txt,
//!                                                      of cocostuff3: Coco164kFew_Stuff_6.txt
//! images/{train2017,val2017}/ID.jpg
//! annotations/{train2017,val2017}/ID.png               182 fine classes from 0; 255 for none
//! ```
//!
//! `ROOT` is that folder, or the one that holds it as `cocostuff`. Fine classes are joined to 12 of things and 15 of stuff; food and
//! furniture are among both, and say which by their names. `cocostuff15` is the stuff alone, in the same order; `cocostuff3` is sky, plants and
//! ground (the classes and the order of IIC). Everything else is ignored there.

use crate::label_file::IGNORE;
use crate::native::{Form, Layout, Pair, Pairs, base, listed_ids, pascal, unknown_split};
use crate::source::Source;
use crate::{ClassTable, Kind, Result, Split};

/// Two splits by their lists.
type Lists = [&'static str; 2];

const LISTS: Lists = ["Coco164kFull_Stuff_Coarse.txt", "Coco164kFull_Stuff_Coarse_7.txt"];
const LISTS_15: Lists = [LISTS[1]; 2];
const LISTS_3: Lists = ["Coco164kFew_Stuff_6.txt"; 2];

pub(crate) static LAYOUT: Layout = Layout {
    name: "cocostuff27",
    classes: || named(&ALL),
    coarse: coarse(),
    form: Form::Pictures,
    list: |source, split| list(source, split, "cocostuff27", LISTS),
};

pub(crate) static LAYOUT_15: Layout = Layout {
    name: "cocostuff15",
    classes: || named(&STUFF),
    coarse: coarse_of(&STUFF),
    form: Form::Pictures,
    list: |source, split| list(source, split, "cocostuff15", LISTS_15),
};

pub(crate) static LAYOUT_3: Layout = Layout {
    name: "cocostuff3",
    classes: || named(&FEW),
    coarse: coarse_of(&FEW),
    form: Form::Pictures,
    list: |source, split| list(source, split, "cocostuff3", LISTS_3),
};

/// All of [`CLASSES`].
const ALL: [usize; 27] = first(0);
/// Those of stuff: 12 to 26.
const STUFF: [usize; 15] = first(12);
/// Sky, plant, ground.
const FEW: [usize; 3] = [23, 22, 21];

const fn first<const N: usize>(start: usize) -> [usize; N] {
    let mut classes = [0; N];
    let mut i = 0;
    while i < N {
        classes[i] = start + i;
        i += 1;
    }
    classes
}

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

/// Class `i` is number `chosen[i]` of the 27; all others are ignored.
const fn coarse_of(chosen: &[usize]) -> [u8; 256] {
    let all = coarse();
    let mut few = [IGNORE; 256];
    let mut fine = 0;
    while fine < 256 {
        let mut class = 0;
        while class < chosen.len() {
            if all[fine] as usize == chosen[class] {
                few[fine] = class as u8;
            }
            class += 1;
        }
        fine += 1;
    }
    few
}

/// Names may leave out what only tells them from others: among stuff there is one food.
fn named(chosen: &[usize]) -> ClassTable {
    let names: Vec<&str> = chosen.iter().map(|&class| CLASSES[class].0).collect();
    let plain = |name: &str| name.trim_end_matches("-things").trim_end_matches("-stuff").to_owned();
    let is_unique = |name: &str| names.iter().filter(|other| plain(other) == plain(name)).count() == 1;
    let name = |name: &&str| if is_unique(name) { plain(name) } else { (*name).to_owned() };
    ClassTable { names: names.iter().map(name).collect(), palette: (0..chosen.len()).map(pascal).collect() }
}

/// The folder of a split, and every list in it: of 27, 15 and 3 classes.
pub(crate) fn place(split: Split) -> Option<(&'static str, [&'static str; 3])> {
    let of = |i: usize| [LISTS[i], LISTS_15[i], LISTS_3[i]];
    match split {
        Split::Train => Some(("train2017", of(0))),
        Split::Val => Some(("val2017", of(1))),
        Split::Test | Split::TrainVal | Split::Unlabelled | Split::All => None,
    }
}

fn list(source: &Source, split: Split, name: &str, lists: Lists) -> Result<Pairs> {
    let base = base(source, "curated", "cocostuff")?;
    let mut pairs = Pairs::default();
    let splits = match split {
        Split::All => vec![Split::Train, Split::Val],
        split => vec![split],
    };
    for (i, &part) in splits.iter().enumerate() {
        let unknown = || unknown_split(name, part, "train, val, train+val, all");
        let (folder, _) = place(part).ok_or_else(unknown)?;
        let list = format!("{base}curated/{folder}/{}", lists[usize::from(part == Split::Val)]);
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
    fn names_are_unique_and_as_short_as_that_allows() {
        for layout in [&LAYOUT, &LAYOUT_15, &LAYOUT_3] {
            let table = (layout.classes)();
            let names: std::collections::BTreeSet<_> = table.names.iter().collect();
            assert_eq!(names.len(), table.palette.len(), "{}", layout.name);
        }
        let names = |layout: &Layout| (layout.classes)().names;
        assert_eq!(names(&LAYOUT)[2..4], ["food-things", "furniture-things"]);
        assert_eq!(names(&LAYOUT_15)[..4], ["ceiling", "floor", "food", "furniture"]);
        assert_eq!(names(&LAYOUT_3), ["sky", "plant", "ground"]);
    }

    /// The rules of the original: 15 is `coarse - 12`, 3 is `{23: 0, 22: 1, 21: 2}`, and the rest is ignored.
    #[test]
    fn fewer_classes_are_those_of_27_renumbered() {
        for fine in 0..256 {
            let class = LAYOUT.coarse[fine];
            let stuff = if (12..27).contains(&class) { class - 12 } else { 255 };
            let few = [23, 22, 21].iter().position(|&c| c == class).map_or(255, |i| i as u8);
            assert_eq!((LAYOUT_15.coarse[fine], LAYOUT_3.coarse[fine]), (stuff, few), "{fine}");
        }
    }
}
