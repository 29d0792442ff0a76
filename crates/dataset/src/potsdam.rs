//! `potsdam3:ROOT`: the tiles of ISPRS Potsdam in three classes, as STEGO's authors cut and stored them.
//!
//! ```text
//! labelled_train.txt, labelled_test.txt                 the tiles of splits train and val, one a line
//! unlabelled_train.txt, all.txt                         of splits unlabelled and all
//! imgs/TILE.mat                                         an array img [h, w, 3 or more] of bytes; of its channels the first three
//! gt/TILE.mat                                           an array gt [h, w] of six classes
//! ```
//!
//! `ROOT` is that folder, or the one that holds it as `potsdam`. Of a tile without `gt` all pixels are ignored, as in the original: most of
//! `all.txt` and `unlabelled_train.txt` has none, and in the other two lists it is a problem besides. Values that are no class are ignored (in the original
//! they count as roads).

use crate::label_file::IGNORE;
use crate::native::{Form, Layout, Pair, Pairs, base, listed_ids, pascal, unknown_split};
use crate::source::Source;
use crate::{ClassTable, Kind, Result, Split};

pub(crate) const NAME: &str = "potsdam3";

pub(crate) static LAYOUT: Layout = Layout { name: NAME, classes, coarse: coarse(), form: Form::Matlab, list };

/// Names of the classes and the two fine ones that each is made of.
pub(crate) const CLASSES: [(&str, [u8; 2]); 3] =
    [("roads and cars", [0, 4]), ("buildings and clutter", [1, 5]), ("trees and vegetation", [2, 3])];

const fn coarse() -> [u8; 256] {
    let mut coarse = [IGNORE; 256];
    let mut class = 0;
    while class < CLASSES.len() {
        let [a, b] = CLASSES[class].1;
        coarse[a as usize] = class as u8;
        coarse[b as usize] = class as u8;
        class += 1;
    }
    coarse
}

fn classes() -> ClassTable {
    let names = CLASSES.iter().map(|(name, _)| (*name).to_owned()).collect();
    ClassTable { names, palette: (0..CLASSES.len()).map(pascal).collect() }
}

/// The list of a split.
pub(crate) fn place(split: Split) -> Option<&'static str> {
    match split {
        Split::Train => Some("labelled_train.txt"),
        Split::Val => Some("labelled_test.txt"),
        Split::Unlabelled => Some("unlabelled_train.txt"),
        Split::All => Some("all.txt"),
        Split::Test | Split::TrainVal => None,
    }
}

fn list(source: &Source, split: Split) -> Result<Pairs> {
    let base = base(source, "imgs", "potsdam")?;
    let mut pairs = Pairs::default();
    let known = "train, val, train+val, unlabelled, all";
    let list = format!("{base}{}", place(split).ok_or_else(|| unknown_split(NAME, split, known))?);
    let (images, labels) = (format!("{base}imgs"), format!("{base}gt"));
    let ids = listed_ids(source, &list, &mut pairs)?;
    let mut image_of = pairs.files(source, &images, "mat")?;
    let mut label_of = match source.files.kind(&labels)? {
        Kind::Absent => Default::default(),
        _ => pairs.files(source, &labels, "mat")?,
    };
    for id in ids {
        let (image, label) = (format!("{images}/{id}.mat"), format!("{labels}/{id}.mat"));
        let Some(file) = image_of.remove(&image) else {
            pairs.refuse(image, format!("is listed in {list} and is not there"));
            continue;
        };
        let has = label_of.remove(&label);
        if has.is_none() && matches!(split, Split::Train | Split::Val) {
            pairs.refuse(image, format!("has no label {label}; all its pixels are ignored"));
        }
        pairs.pairs.push(Pair { id, split, image: file, label: has });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_classes_become_three() {
        let table = LAYOUT.coarse;
        assert_eq!(table[..6], [0, 1, 2, 2, 0, 1]);
        assert!(table[6..].iter().all(|&class| class == 255));
    }
}
