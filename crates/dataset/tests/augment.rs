//! The random views' operations against Pillow and torchvision, to the bit: `tests/golden/augment`, made by `make.py` there.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` panic too")]

use std::path::Path;

use dataset::augment::{
    Adjustment, ColorJitter, Draw, RandomResizedCrop, ViewConfig, adjust_brightness, adjust_contrast,
    adjust_hue, adjust_saturation, flip, gaussian_blur, grayscale, solarize,
};
use dataset::{CropBox, Resize};
use ndarray::Array3;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

type Change = fn(&mut Array3<u8>, f64);

/// Operations of one number, by the name of their cases.
const CHANGES: [(&str, Change); 8] = [
    ("brightness", adjust_brightness),
    ("contrast", adjust_contrast),
    ("saturation", adjust_saturation),
    ("hue", adjust_hue),
    ("blur", gaussian_blur),
    ("solarize", |image, threshold| solarize(image, threshold as u8)),
    ("flip", |image, _| flip(image)),
    ("grayscale", |image, _| grayscale(image)),
];

fn golden() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/augment/expected.safetensors");
    std::fs::read(path).unwrap()
}

fn image(file: &SafeTensors<'_>, name: &str) -> Array3<u8> {
    let tensor = file.tensor(name).unwrap();
    let shape: [usize; 3] = tensor.shape().try_into().unwrap();
    Array3::from_shape_vec(shape, tensor.data().to_vec()).unwrap()
}

/// The operation and number of a case like `hue.-0.1` or `flip`.
fn change(case: &str) -> Option<(Change, f64)> {
    let (name, number) = case.split_once('.').unwrap_or((case, "0"));
    let found = CHANGES.iter().find(|(known, _)| *known == name);
    found.map(|(_, change)| (*change, number.parse().unwrap()))
}

#[test]
fn every_operation_gives_the_bytes_of_the_reference() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut cases = 0;
    for name in file.names() {
        let (picture, case) = name.strip_prefix("thin.").map_or(("image", name), |case| ("thin", case));
        if let Some((change, number)) = change(case) {
            let mut got = image(&file, picture);
            change(&mut got, number);
            assert_eq!(got, image(&file, name), "{name}");
            cases += 1;
        }
    }
    assert_eq!(cases, 3 * 6 + 7 + 2 * 7 + 3 + 2);
}

#[test]
fn every_colour_becomes_that_of_the_reference() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let colours = Array3::from_shape_fn((4096, 4096, 3), |(y, x, c)| ((y << 12 | x) >> (16 - 8 * c)) as u8);
    let mut cases = 0;
    for name in file.names() {
        if let Some((change, number)) = name.strip_prefix("all.").and_then(change) {
            let mut got = colours.clone();
            change(&mut got, number);
            let digest = Sha256::digest(got.as_slice().unwrap());
            assert_eq!(digest[..], *file.tensor(name).unwrap().data(), "{name}");
            cases += 1;
        }
    }
    assert_eq!(cases, 6);
}

#[test]
fn parts_are_cut_and_resized_as_the_reference_does() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let whole = image(&file, "image");
    let mut cases = 0;
    for name in file.names() {
        let Some((filter, numbers)) = name.strip_prefix("crop.").and_then(|case| case.split_once('.')) else {
            continue;
        };
        let numbers: Vec<usize> = numbers.split('.').map(|number| number.parse().unwrap()).collect();
        let [y, x, h, w, size] = numbers[..] else { panic!("{name}") };
        let (scale, ratio) = ((0.1, 1.0), RandomResizedCrop::RATIO);
        let crop = RandomResizedCrop { size, scale, ratio, interpolation: filter.parse().unwrap() };
        assert_eq!(crop.apply(whole.view(), CropBox { x, y, w, h }), image(&file, name), "{name}");
        cases += 1;
    }
    assert_eq!(cases, 15);
}

#[test]
fn whole_views_are_chained_as_in_the_reference() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let whole = image(&file, "image");
    let jitter = ColorJitter { brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1 };
    let config = ViewConfig { jitter, ..ViewConfig::crop_and_flip(24) };
    let first = Draw {
        part: CropBox { x: 5, y: 3, w: 17, h: 20 },
        flip: true,
        jitter: vec![
            Adjustment::Saturation(1.17),
            Adjustment::Hue(-0.06),
            Adjustment::Contrast(0.71),
            Adjustment::Brightness(1.33),
        ],
        grayscale: false,
        blur: Some(0.81),
        solarize: true,
    };
    let config = ViewConfig { interpolation: Resize::Bicubic, ..config };
    assert_eq!(config.apply(whole.view(), &first), image(&file, "view.0"));
    let second = Draw {
        part: CropBox { x: 9, y: 0, w: 28, h: 29 },
        flip: false,
        jitter: vec![Adjustment::Brightness(0.64), Adjustment::Contrast(1.38), Adjustment::Hue(0.09)],
        grayscale: true,
        blur: Some(1.9),
        solarize: false,
    };
    let config = ViewConfig { interpolation: Resize::Bilinear, ..config };
    assert_eq!(config.apply(whole.view(), &second), image(&file, "view.1"));
}
