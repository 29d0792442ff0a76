//! The data sets in the layouts of their authors: what is missing or damaged is said, and the rest goes on.
//!
//! Miniatures of each are drawn by `stand_in`, and then spoiled.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` panic too")]

use std::fs;
use std::path::Path;

use dataset::stand_in::{StandIn, cityscapes, cocostuff, potsdam, voc};
use dataset::{Crop, Dataset, Error, Split, Transform, open};
use image::{GrayImage, ImageFormat, Luma};
use ndarray::s;
use tempfile::TempDir;

const SMALL: StandIn = StandIn { train: 3, val: 2, size: 24, seed: 0 };

fn drawn(write: fn(&Path, &StandIn) -> std::io::Result<()>) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &SMALL).unwrap();
    root
}

fn open_at(name: &str, root: &TempDir, split: Split) -> Result<Box<dyn Dataset>, Error> {
    open(&format!("{name}:{}", root.path().display()), split)
}

fn ids(dataset: &dyn Dataset) -> Vec<&str> {
    (0..dataset.len()).map(|i| dataset.id(i)).collect()
}

fn problems(dataset: &dyn Dataset) -> Vec<String> {
    dataset.problems().iter().map(|problem| format!("{} {}", problem.id, problem.reason)).collect()
}

fn save_grey(root: &TempDir, file: &str, (w, h): (u32, u32), value: impl Fn(u32, u32) -> u8) {
    let picture = GrayImage::from_fn(w, h, |x, y| Luma([value(x, y)]));
    picture.save_with_format(root.path().join(file), ImageFormat::Png).unwrap();
}

/// An error of opening that is the user's to mend, and its words.
fn refusal(name: &str, root: &TempDir, split: Split) -> String {
    let error = open_at(name, root, split).err().unwrap();
    assert!(error.is_usage(), "{error}");
    error.to_string()
}

#[test]
fn cocostuff_goes_by_its_lists_and_their_order() {
    let root = drawn(cocostuff);
    let list = root.path().join("curated/train2017/Coco164kFull_Stuff_Coarse.txt");
    fs::write(&list, "000000000002\n000000000000\n000000000077\n000000000002\n").unwrap();
    let train = open_at("cocostuff27", &root, Split::Train).unwrap();
    assert_eq!((train.name(), ids(&*train)), ("cocostuff27", vec!["000000000002", "000000000000"]));
    let said = problems(&*train);
    assert_eq!(said.len(), 2);
    assert!(said[0].ends_with("lists 000000000002 more than once"), "{said:?}");
    assert!(
        said[1].starts_with("images/train2017/000000000077.jpg is listed in curated/train2017/"),
        "{said:?}"
    );
    let classes = train.classes().unwrap();
    assert_eq!(classes.names.len(), 27);
    assert_eq!(
        [2, 3, 14, 15].map(|i| &classes.names[i][..]),
        ["food-things", "furniture-things", "food-stuff", "furniture-stuff"]
    );
    assert_eq!(classes.palette[1], [128, 0, 0]);

    fs::remove_file(&list).unwrap();
    let said = refusal("cocostuff27", &root, Split::Train);
    assert!(said.contains("Coco164kFull_Stuff_Coarse.txt: there is no such file"), "{said}");
    assert_eq!(open_at("cocostuff27", &root, Split::All).unwrap().len(), 2, "val is all that there is");
    fs::remove_dir_all(root.path().join("annotations/val2017")).unwrap();
    let said = refusal("cocostuff27", &root, Split::Val);
    assert!(said.contains("there is no folder") && said.contains("annotations/val2017"), "{said}");
    assert!(refusal("cocostuff27", &root, Split::Test).contains("known are train, val, train+val, all"));
}

#[test]
fn fine_classes_become_coarse_ones_and_unknown_values_are_ignored() {
    let root = drawn(cocostuff);
    // Every value there is, 24 lines of 32.
    save_grey(&root, "annotations/val2017/000000000003.png", (32, 24), |x, y| (y * 32 + x) as u8);
    let label = open_at("cocostuff27", &root, Split::Val).unwrap().load(0).unwrap().label.unwrap();
    let flat: Vec<u8> = label.iter().copied().collect();
    assert_eq!(
        [0, 1, 8, 9, 14, 15, 72, 100, 101, 105, 113, 181].map(|fine| flat[fine]),
        [9, 11, 11, 8, 8, 7, 0, 13, 12, 23, 13, 24]
    );
    assert!(flat[182..256].iter().all(|&class| class == 255));
}

#[test]
fn cocostuff_of_fewer_classes_has_lists_of_its_own() {
    let root = drawn(cocostuff);
    save_grey(&root, "annotations/train2017/000000000001.png", (32, 24), |x, y| (y * 32 + x) as u8);
    let list = |name: &str| root.path().join("curated/train2017").join(name);
    fs::write(list("Coco164kFull_Stuff_Coarse_7.txt"), "000000000001\n").unwrap();
    fs::write(list("Coco164kFew_Stuff_6.txt"), "000000000001\n000000000000\n").unwrap();
    for (name, len, classes, expected) in [
        // Person, the first ceiling, sky, water, ground; none.
        ("cocostuff15", 1, 15, [255, 0, 11, 14, 9, 255]),
        ("cocostuff3", 2, 3, [255, 255, 0, 255, 2, 255]),
    ] {
        let train = open_at(name, &root, Split::Train).unwrap();
        assert_eq!((train.name(), train.len(), train.problems()), (name, len, &[][..]));
        assert_eq!(train.classes().unwrap().names.len(), classes);
        let label = train.load(0).unwrap().label.unwrap();
        let of = |fine: usize| label[[fine / 32, fine % 32]];
        assert_eq!([0, 101, 105, 178, 110, 255].map(of), expected, "{name}");
    }
    let both = open_at("cocostuff27", &root, Split::TrainVal).unwrap();
    assert_eq!(ids(&*both)[2..], ["000000000002", "000000000003", "000000000004"]);
}

#[test]
fn voc_reads_palettes_and_ignores_borders() {
    let root = drawn(voc);
    let at = |file: &str| root.path().join(file);
    save_grey(&root, "SegmentationClass/drawn_000003.png", (32, 24), |x, y| (y * 32 + x) as u8);
    let val = open_at("voc", &root, Split::Val).unwrap();
    assert_eq!((val.name(), ids(&*val)), ("voc", vec!["drawn_000003", "drawn_000004"]));
    assert_eq!(val.classes().unwrap().names.len(), 21);
    let label = val.load(0).unwrap().label.unwrap();
    let flat: Vec<u8> = label.iter().copied().collect();
    assert!(flat[..21].iter().copied().eq(0..21) && flat[21..256].iter().all(|&class| class == 255));
    let drawn = open_at("voc", &root, Split::Train).unwrap().load(0).unwrap().label.unwrap();
    let has = |class: u8| drawn.iter().any(|&value| value == class);
    assert!(has(0) && has(255) && drawn.iter().all(|&class| [0, 7, 15, 255].contains(&class)));

    fs::remove_file(at("SegmentationClass/drawn_000001.png")).unwrap();
    fs::remove_file(at("JPEGImages/drawn_000002.jpg")).unwrap();
    let train = open_at("voc", &root, Split::Train).unwrap();
    assert_eq!(ids(&*train), ["drawn_000000"]);
    assert_eq!(
        problems(&*train),
        [
            "JPEGImages/drawn_000001.jpg has no label SegmentationClass/drawn_000001.png",
            "JPEGImages/drawn_000002.jpg is listed in ImageSets/Segmentation/train.txt and is not there",
        ]
    );
    assert!(refusal("voc", &root, Split::Unlabelled).contains("known are train, val, test, train+val, all"));
    assert!(refusal("voc", &root, Split::Test).contains("test.txt: there is no such file"));
    fs::write(at("ImageSets/Segmentation/test.txt"), "drawn_000001\n").unwrap();
    let test = open_at("voc", &root, Split::Test).unwrap();
    assert!(test.problems().is_empty() && test.load(0).unwrap().label.unwrap().iter().all(|&l| l == 255));
    // As the archive unpacks: VOCdevkit/VOC2012.
    let above = tempfile::tempdir().unwrap();
    fs::create_dir(above.path().join("VOCdevkit")).unwrap();
    fs::rename(root.path(), above.path().join("VOCdevkit/VOC2012")).unwrap();
    assert_eq!(ids(&*open_at("voc", &above, Split::Val).unwrap()), ["drawn_000003", "drawn_000004"]);
    assert!(refusal("voc", &drawn_elsewhere(), Split::Val).contains("ImageSets/Segmentation/val.txt"));
}

fn drawn_elsewhere() -> TempDir {
    drawn(potsdam)
}

#[test]
fn cityscapes_pairs_by_name_in_every_city() {
    let root = drawn(cityscapes);
    let at = |file: &str| root.path().join(file);
    fs::create_dir_all(at("leftImg8bit/train/alba")).unwrap();
    fs::create_dir_all(at("gtFine/train/alba")).unwrap();
    fs::rename(
        at("leftImg8bit/train/drawn/drawn_000002_000019_leftImg8bit.png"),
        at("leftImg8bit/train/alba/alba_1_2_leftImg8bit.png"),
    )
    .unwrap();
    save_grey(&root, "gtFine/train/alba/alba_1_2_gtFine_labelIds.png", (48, 24), |x, _| x as u8);
    save_grey(&root, "gtFine/train/alba/alba_1_2_gtFine_color.png", (48, 24), |_, _| 0); // not looked at
    fs::remove_file(at("gtFine/train/drawn/drawn_000001_000019_gtFine_labelIds.png")).unwrap();
    fs::copy(at("leftImg8bit/train/alba/alba_1_2_leftImg8bit.png"), at("leftImg8bit/train/alba/x.png"))
        .unwrap();
    let train = open_at("cityscapes27", &root, Split::Train).unwrap();
    assert_eq!(ids(&*train), ["alba/alba_1_2", "drawn/drawn_000000_000019"]);
    assert_eq!(
        problems(&*train),
        [
            "leftImg8bit/train/alba/x.png is not called STEM_leftImg8bit.png",
            "leftImg8bit/train/drawn/drawn_000001_000019_leftImg8bit.png has no label \
         gtFine/train/drawn/drawn_000001_000019_gtFine_labelIds.png",
            "gtFine/train/drawn/drawn_000002_000019_gtFine_labelIds.png has no image \
         leftImg8bit/train/drawn/drawn_000002_000019_leftImg8bit.png",
        ]
    );
    let sample = train.load(0).unwrap();
    let label = sample.label.clone().unwrap();
    assert!(label.slice(s![0, ..7]).iter().all(|&class| class == 255));
    assert!(label.slice(s![0, 7..34]).iter().copied().eq(0..27));
    assert!(label.slice(s![0, 34..]).iter().all(|&class| class == 255));
    // Only the central square of a frame is looked at.
    let view =
        &Transform { res: 24, crop: Crop::Center, ..Transform::default() }.apply(0, &sample).unwrap()[0];
    assert_eq!(view.label.as_ref().unwrap(), label.slice(s![.., 12..36]));

    save_grey(&root, "gtFine/train/alba/alba_1_2_gtFine_labelIds.png", (24, 24), |_, _| 7);
    let error = open_at("cityscapes27", &root, Split::Train).unwrap().load(0).unwrap_err();
    assert!(
        error.is_sample() && error.to_string().contains("is 24 x 24 pixels, its image is 48 x 24"),
        "{error}"
    );
    fs::remove_dir_all(at("gtFine")).unwrap();
    let said = refusal("cityscapes27", &root, Split::Val);
    assert!(said.contains("there is no folder") && said.contains("gtFine/val"), "{said}");
    fs::remove_dir_all(at("leftImg8bit")).unwrap();
    assert!(refusal("cityscapes27", &root, Split::All).contains("leftImg8bit/train"));
}

#[test]
fn potsdam_reads_matlab_files_and_ignores_tiles_without_labels() {
    let root = drawn(potsdam);
    let at = |file: &str| root.path().join(file);
    let all = open_at("potsdam3", &root, Split::All).unwrap();
    assert_eq!((ids(&*all), all.problems()), (vec!["0", "1", "2", "3", "4", "5"], &[][..]));
    assert!(all.load(5).unwrap().label.unwrap().iter().all(|&class| class == 255));
    assert!(all.load(0).unwrap().label.unwrap().iter().any(|&class| class < 3));
    let unlabelled = open_at("potsdam3", &root, Split::Unlabelled).unwrap();
    assert_eq!((ids(&*unlabelled), unlabelled.problems()), (vec!["5"], &[][..]));
    assert!(unlabelled.load(0).unwrap().label.unwrap().iter().all(|&class| class == 255));
    assert_eq!(ids(&*open_at("potsdam3", &root, Split::TrainVal).unwrap()), ["0", "1", "2", "3", "4"]);
    assert!(
        refusal("potsdam3", &root, Split::Test).contains("known are train, val, train+val, unlabelled, all")
    );

    fs::remove_file(at("gt/3.mat")).unwrap();
    let val = open_at("potsdam3", &root, Split::Val).unwrap();
    assert_eq!(ids(&*val), ["3", "4"]);
    assert_eq!(problems(&*val), ["imgs/3.mat has no label gt/3.mat; all its pixels are ignored"]);
    assert!(val.load(0).unwrap().label.unwrap().iter().all(|&class| class == 255));

    fs::copy(at("gt/0.mat"), at("imgs/4.mat")).unwrap();
    fs::write(at("gt/0.mat"), b"MATLAB 7.3 MAT-file, Platform: GLNXA64").unwrap();
    let error = val.load(1).unwrap_err();
    assert!(error.is_sample() && error.to_string().contains("no array \"img\"; found gt"), "{error}");
    let error = all.load(0).unwrap_err();
    assert!(error.is_sample() && error.to_string().contains("version 7.3"), "{error}");
    fs::remove_file(at("labelled_test.txt")).unwrap();
    assert!(refusal("potsdam3", &root, Split::Val).contains("labelled_test.txt: there is no such file"));
    fs::remove_dir_all(at("imgs")).unwrap();
    assert!(refusal("potsdam3", &root, Split::Train).contains("imgs"));
}

/// Whoever changes a label changes the data set; whoever moves it does not.
#[test]
fn fingerprints_are_those_of_lists_images_and_labels() {
    let prints = |root: &TempDir| open_at("cocostuff27", root, Split::Val).unwrap().fingerprint().unwrap();
    let (one, other) = (drawn(cocostuff), drawn(cocostuff));
    assert_eq!(prints(&one), prints(&other));
    let before = prints(&one);
    save_grey(&one, "annotations/val2017/000000000003.png", (32, 24), |_, _| 7);
    assert_ne!(prints(&one), before);
    let list = other.path().join("curated/val2017/Coco164kFull_Stuff_Coarse_7.txt");
    fs::write(list, "000000000004\n000000000003\n").unwrap();
    assert_ne!(prints(&other), before);
}
