//! Small drawn data sets in the layouts of CocoStuff, Cityscapes, Potsdam, Pascal VOC and of people's own, for whoever has not (yet) got the real ones.
//!
//! Pictures and labels are those of [`scenes`](crate::scenes), written as the real data sets are: names, folders, lists, file formats and
//! stored label values. A study's whole line can so be run anywhere, and its files be read by other programs. The numbers that come
//! out say nothing of the real data.
//!
//! ```
//! use dataset::stand_in::{StandIn, cityscapes};
//!
//! let root = tempfile::tempdir()?;
//! cityscapes(root.path(), &StandIn { train: 2, val: 1, size: 32, ..StandIn::default() })?;
//! let spec = format!("cityscapes27:{}", root.path().display());
//! let drawn = dataset::open(&spec, dataset::Split::All).expect("it is a data set");
//! assert_eq!((drawn.len(), drawn.classes().map_or(0, |classes| classes.names.len())), (3, 27));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::fs;
use std::io::{self, Cursor};
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use ndarray::{Array2, Array3, s};

use crate::label_file::IGNORE;
use crate::native::pascal;
use crate::scenes::{Scene, render};
use crate::{Split, cityscapes, cocostuff, mat, potsdam, voc};

/// How much is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandIn {
    /// Images of split train.
    pub train: u32,
    /// Images of split val.
    pub val: u32,
    /// Shorter side in pixels; at least 8.
    pub size: usize,
    /// Which scenes.
    pub seed: u64,
}

impl Default for StandIn {
    fn default() -> Self {
        Self { train: 24, val: 12, size: 160, seed: 0 }
    }
}

/// In scenes' order of classes: the value that each is stored as.
const OF_COCO: [u8; 11] = [156, 127, 148, 139, 168, 123, 177, 112, 2, 0, 9];
const OF_CITYSCAPES: [u8; 11] = [23, 11, 7, 8, 21, 22, 4, 13, 26, 24, 17];
const OF_POTSDAM: [u8; 11] = [5, 1, 0, 0, 3, 2, 5, 5, 4, 5, 5];
const OF_VOC: [u8; 11] = [0, 0, 0, 0, 0, 0, 0, 0, 7, 15, 0];

/// Writes `ROOT/cocostuff`, `ROOT/cityscapes`, `ROOT/potsdam`, `ROOT/VOC2012` and `ROOT/directory`.
///
/// # Errors
/// If a file cannot be written, or the size is below 8.
pub fn all(root: &Path, what: &StandIn) -> io::Result<()> {
    cocostuff(&root.join("cocostuff"), what)?;
    cityscapes(&root.join("cityscapes"), what)?;
    potsdam(&root.join("potsdam"), what)?;
    voc(&root.join("VOC2012"), what)?;
    directory(&root.join("directory"), what)
}

/// Writes a data set for `cocostuff27:ROOT` (and for 15 and 3 classes): JPEG files of 3 to 4, a corner of every label without a class.
///
/// # Errors
/// If a file cannot be written, or the size is below 8.
pub fn cocostuff(root: &Path, what: &StandIn) -> io::Result<()> {
    let size = (what.size, what.size * 4 / 3);
    for split in [Split::Train, Split::Val] {
        let (folder, lists) = cocostuff::place(split).ok_or_else(|| io::Error::other("no such split"))?;
        let mut ids = String::new();
        for number in what.numbers(split) {
            let id = format!("{number:012}");
            let Scene { image, label } = what.scene(number, size)?;
            let mut values = label.mapv(|class| OF_COCO[usize::from(class)]);
            values.slice_mut(s![..what.size / 8, ..what.size / 8]).fill(IGNORE);
            save(root, &format!("images/{folder}/{id}.jpg"), &picture(image, ImageFormat::Jpeg)?)?;
            save(root, &format!("annotations/{folder}/{id}.png"), &grey(values)?)?;
            ids += &format!("{id}\n");
        }
        for list in lists {
            save(root, &format!("curated/{folder}/{list}"), ids.as_bytes())?;
        }
    }
    Ok(())
}

/// Writes a data set for `cityscapes27:ROOT`: PNG files of 1 to 2. Water is void.
///
/// # Errors
/// If a file cannot be written, or the size is below 8.
pub fn cityscapes(root: &Path, what: &StandIn) -> io::Result<()> {
    let size = (what.size, what.size * 2);
    for split in [Split::Train, Split::Val] {
        for number in what.numbers(split) {
            let Scene { image, label } = what.scene(number, size)?;
            let stem = format!("{split}/drawn/drawn_{number:06}_000019");
            let (image, values) = (picture(image, ImageFormat::Png)?, values(&label, &OF_CITYSCAPES)?);
            save(root, &format!("leftImg8bit/{stem}{}", cityscapes::IMAGE), &image)?;
            save(root, &format!("gtFine/{stem}{}", cityscapes::LABEL), &values)?;
        }
    }
    Ok(())
}

/// Writes a data set for `potsdam3:ROOT`: square tiles of four channels, of which `all.txt` also has some without labels.
///
/// # Errors
/// If a file cannot be written, or the size is below 8.
pub fn potsdam(root: &Path, what: &StandIn) -> io::Result<()> {
    let size = (what.size, what.size);
    let unlabelled = what.train + what.val..what.train + what.val + what.val.div_ceil(2);
    let mut all = String::new();
    for (split, numbers) in [
        (Some(Split::Train), what.numbers(Split::Train)),
        (Some(Split::Val), what.numbers(Split::Val)),
        (None, unlabelled),
    ] {
        let mut ids = String::new();
        for number in numbers {
            let Scene { image, label } = what.scene(number, size)?;
            // Infrared, which nobody reads, is green once more.
            let tile =
                Array3::from_shape_fn((what.size, what.size, 4), |(y, x, c)| image[[y, x, [0, 1, 2, 1][c]]]);
            save(root, &format!("imgs/{number}.mat"), &mat::write("img", tile.into_dyn().view()))?;
            if split.is_some() {
                let values = label.mapv(|class| OF_POTSDAM[usize::from(class)]).into_dyn();
                save(root, &format!("gt/{number}.mat"), &mat::write("gt", values.view()))?;
            }
            ids += &format!("{number}\n");
        }
        let list = split.and_then(potsdam::place).unwrap_or("unlabelled_train.txt");
        save(root, list, ids.as_bytes())?;
        all += &ids;
    }
    save(root, "all.txt", all.as_bytes())
}

/// Writes a data set for `voc:ROOT`: JPEG files of 3 to 4, palette PNG files with a border around what is no background.
///
/// # Errors
/// If a file cannot be written, or the size is below 8.
pub fn voc(root: &Path, what: &StandIn) -> io::Result<()> {
    let size = (what.size, what.size * 4 / 3);
    let mut lists = [Split::Train, Split::Val, Split::All].map(|split| (split, String::new()));
    for part in [Split::Train, Split::Val] {
        for number in what.numbers(part) {
            let id = format!("drawn_{number:06}");
            let Scene { image, label } = what.scene(number, size)?;
            let values = bordered(&label.mapv(|class| OF_VOC[usize::from(class)]));
            save(root, &format!("{}/{id}.jpg", voc::IMAGES), &picture(image, ImageFormat::Jpeg)?)?;
            save(root, &format!("{}/{id}.png", voc::LABELS), &indexed(&values)?)?;
            for (_, ids) in lists.iter_mut().filter(|(split, _)| [part, Split::All].contains(split)) {
                *ids += &format!("{id}\n");
            }
        }
    }
    for (split, ids) in lists {
        let list = voc::place(split).ok_or_else(|| io::Error::other("no such split"))?;
        save(root, &format!("{}/{list}", voc::LISTS), ids.as_bytes())?;
    }
    Ok(())
}

/// Writes a data set for `directory:ROOT`: PNG files of 3 to 4, of which those of split val have labels, in scenes' classes.
///
/// # Errors
/// If a file cannot be written, or the size is below 8.
pub fn directory(root: &Path, what: &StandIn) -> io::Result<()> {
    for split in [Split::Train, Split::Val] {
        for number in what.numbers(split) {
            let Scene { image, label } = what.scene(number, (what.size, what.size * 4 / 3))?;
            save(root, &format!("imgs/{split}/{number}.png"), &picture(image, ImageFormat::Png)?)?;
            if split == Split::Val {
                save(root, &format!("labels/{split}/{number}.png"), &grey(label)?)?;
            }
        }
    }
    Ok(())
}

/// The last pixel before another class, to the right or below, belongs to none.
fn bordered(values: &Array2<u8>) -> Array2<u8> {
    Array2::from_shape_fn(values.dim(), |(y, x)| {
        let own = values[[y, x]];
        let others = [values.get((y, x + 1)), values.get((y + 1, x))];
        if others.into_iter().flatten().any(|&other| other != own) { IGNORE } else { own }
    })
}

/// A palette PNG in the colours of Pascal VOC.
fn indexed(values: &Array2<u8>) -> io::Result<Vec<u8>> {
    let (mut file, (h, w)) = (Vec::new(), values.dim());
    let mut encoder = png::Encoder::new(&mut file, w as u32, h as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette((0..256).flat_map(pascal).collect::<Vec<u8>>());
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(&values.iter().copied().collect::<Vec<u8>>()).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(file)
}

impl StandIn {
    fn numbers(&self, split: Split) -> std::ops::Range<u32> {
        match split {
            Split::Train => 0..self.train,
            _ => self.train..self.train + self.val,
        }
    }

    fn scene(&self, number: u32, size: (usize, usize)) -> io::Result<Scene> {
        if self.size < 8 {
            return Err(io::Error::other(format!(
                "pictures have at least 8 pixels a side, got {}",
                self.size
            )));
        }
        Ok(render(self.seed, number.into(), size))
    }
}

fn save(root: &Path, file: &str, bytes: &[u8]) -> io::Result<()> {
    let path = root.join(file);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes)
}

fn picture(image: Array3<u8>, format: ImageFormat) -> io::Result<Vec<u8>> {
    let (h, w, _) = image.dim();
    let (bytes, _) = image.into_raw_vec_and_offset();
    encoded(RgbImage::from_raw(w as u32, h as u32, bytes).map(DynamicImage::from), format)
}

fn values(label: &Array2<u8>, table: &[u8]) -> io::Result<Vec<u8>> {
    grey(label.mapv(|class| table[usize::from(class)]))
}

fn grey(values: Array2<u8>) -> io::Result<Vec<u8>> {
    let (h, w) = values.dim();
    let (bytes, _) = values.into_raw_vec_and_offset();
    encoded(GrayImage::from_raw(w as u32, h as u32, bytes).map(DynamicImage::from), ImageFormat::Png)
}

fn encoded(picture: Option<DynamicImage>, format: ImageFormat) -> io::Result<Vec<u8>> {
    let picture = picture.ok_or_else(|| io::Error::other("a picture whose pixels do not fit its size"))?;
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).map_err(io::Error::other)?;
    Ok(file.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenes::CLASSES;
    use crate::{contract, open};

    /// Every class of the scenes is a class of the same meaning.
    #[test]
    fn stored_values_mean_what_was_drawn() {
        let names = |layout: &crate::native::Layout, values: &[u8]| -> Vec<String> {
            let names = (layout.classes)().names;
            let name = |&value: &u8| names.get(usize::from(layout.coarse[usize::from(value)])).cloned();
            values.iter().map(|value| name(value).unwrap_or_default()).collect()
        };
        assert_eq!(CLASSES.map(|(name, _)| name)[..3], ["sky", "building", "road"]);
        assert_eq!(
            names(&cocostuff::LAYOUT, &OF_COCO),
            [
                "sky",
                "building",
                "ground",
                "ground",
                "plant",
                "plant",
                "water",
                "structural",
                "vehicle",
                "person",
                "outdoor"
            ]
        );
        assert_eq!(
            names(&cityscapes::LAYOUT, &OF_CITYSCAPES),
            [
                "sky",
                "building",
                "road",
                "sidewalk",
                "vegetation",
                "terrain",
                "",
                "fence",
                "car",
                "person",
                "pole"
            ]
        );
        assert_eq!(names(&voc::LAYOUT, &OF_VOC)[7..], ["background", "car", "person", "background"]);
        assert_eq!(
            names(&potsdam::LAYOUT, &OF_POTSDAM)[1..6],
            [
                "buildings and clutter",
                "roads and cars",
                "roads and cars",
                "trees and vegetation",
                "trees and vegetation"
            ]
        );
    }

    #[test]
    fn what_is_drawn_is_a_data_set_with_every_split() {
        let root = tempfile::tempdir().unwrap();
        let what = StandIn { train: 3, val: 2, size: 24, seed: 1 };
        all(root.path(), &what).unwrap();
        for (name, folder, size, everything) in [
            ("cocostuff27", "cocostuff", (24, 32), 5),
            ("cocostuff15", "cocostuff", (24, 32), 5),
            ("cocostuff3", "cocostuff", (24, 32), 5),
            ("voc", "VOC2012", (24, 32), 5),
            ("cityscapes27", "cityscapes", (24, 48), 5),
            ("potsdam3", "potsdam", (24, 24), 6),
        ] {
            // The folder itself, or the one that holds all three.
            for path in [root.path().join(folder), root.path().to_owned()] {
                let spec = format!("{name}:{}", path.display());
                for (split, len) in
                    [(Split::Train, 3), (Split::Val, 2), (Split::TrainVal, 5), (Split::All, everything)]
                {
                    let dataset = open(&spec, split).unwrap();
                    assert_eq!((dataset.len(), dataset.problems()), (len, &[][..]), "{spec} {split}");
                    contract::check(&*dataset);
                    let sample = dataset.load(0).unwrap();
                    assert_eq!((sample.image.dim().0, sample.image.dim().1), size);
                }
                assert!(open(&spec, Split::Test).err().unwrap().is_usage());
            }
        }
    }

    #[test]
    fn pictures_are_those_of_the_scenes() {
        let root = tempfile::tempdir().unwrap();
        let what = StandIn { train: 1, val: 1, size: 16, seed: 4 };
        potsdam(root.path(), &what).unwrap();
        let tile = open(&format!("potsdam3:{}", root.path().display()), Split::Val).unwrap().load(0).unwrap();
        let scene = render(4, 1, (16, 16));
        assert_eq!(tile.image, scene.image);
        let class = |&class: &u8| potsdam::LAYOUT.coarse[usize::from(OF_POTSDAM[usize::from(class)])];
        assert!(tile.label.unwrap().iter().copied().eq(scene.label.iter().map(class)));
        let small = StandIn { size: 4, ..what };
        assert!(all(root.path(), &small).unwrap_err().to_string().contains("got 4"));
    }
}
