//! Against Pillow and torchvision: numbers of our own (`tests/golden/dataset`, made by `make.py` there) and, where the
//! reference folder is at hand (`$FEATLAB_GOLDEN`, default `../shared/golden` beside the workspace), all its cases `12_*`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test file: helpers outside `#[test]` panic and print too"
)]

use std::fs;
use std::path::{Path, PathBuf};

use dataset::{Crop, CropBox, Resize, Sample, Split, Transform, five_crop_boxes};
use ndarray::{Array2, Array3, s};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const FILTERS: [Resize; 3] = [Resize::Nearest, Resize::Bilinear, Resize::Bicubic];

/// A safetensors file, whole.
struct Tensors(Vec<u8>);

impl Tensors {
    fn read(path: &Path) -> Self {
        Self(fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    fn ours(name: &str) -> Self {
        Self::read(&workspace().join("tests/golden/dataset").join(format!("{name}.safetensors")))
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.file().names().iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        names
    }

    fn bytes(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let file = self.file();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype(), Dtype::U8, "{name}");
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    fn image(&self, name: &str) -> Array3<u8> {
        let (shape, bytes) = self.bytes(name);
        Array3::from_shape_vec((shape[0], shape[1], shape[2]), bytes).unwrap()
    }

    fn label(&self, name: &str) -> Array2<u8> {
        let (shape, bytes) = self.bytes(name);
        Array2::from_shape_vec((shape[0], shape[1]), bytes).unwrap()
    }

    fn floats(&self, name: &str) -> Array3<f32> {
        let file = self.file();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let shape = tensor.shape();
        Array3::from_shape_vec((shape[0], shape[1], shape[2]), values.collect()).unwrap()
    }

    /// Whole numbers, as rows of the last axis.
    fn rows(&self, name: &str) -> Vec<Vec<usize>> {
        let file = self.file();
        let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let value = |bytes: &[u8]| match tensor.dtype() {
            Dtype::I64 => i64::from_le_bytes(bytes.try_into().unwrap()),
            Dtype::I32 => i64::from(i32::from_le_bytes(bytes.try_into().unwrap())),
            other => panic!("{name} is {other:?}"),
        };
        let width = if tensor.dtype() == Dtype::I64 { 8 } else { 4 };
        let values: Vec<_> = tensor.data().chunks_exact(width).map(|b| value(b) as usize).collect();
        values.chunks(*tensor.shape().last().unwrap()).map(<[usize]>::to_vec).collect()
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folders of the reference cases whose name starts with `prefix`; says so if there are none.
fn cases(prefix: &str) -> Vec<PathBuf> {
    let root = std::env::var_os("FEATLAB_GOLDEN").map_or(workspace().join("../shared/golden"), PathBuf::from);
    let entries = fs::read_dir(&root).map(|entries| entries.flatten().map(|e| e.path()).collect::<Vec<_>>());
    let mut cases = entries.unwrap_or_default();
    cases.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    cases.sort();
    if cases.is_empty() {
        println!("skipped: no reference folder at {} with cases {prefix}*", root.display());
    }
    cases
}

fn about(case: &Path) -> Value {
    serde_json::from_slice(&fs::read(case.join("case.json")).unwrap()).unwrap()
}

fn expected(case: &Path) -> Tensors {
    Tensors::read(&case.join("expected.safetensors"))
}

/// The numbers in a sentence, in order.
fn numbers(text: &str) -> Vec<f64> {
    text.split(|c: char| !(c.is_ascii_digit() || c == '.')).filter_map(|word| word.parse().ok()).collect()
}

fn sample(image: Array3<u8>, label: Option<Array2<u8>>) -> Sample {
    Sample { id: "golden".into(), image, label }
}

fn transform(res: usize, crop: Crop, resize: Resize) -> Transform {
    Transform { res, crop, resize, ..Transform::default() }
}

fn furthest(a: &Array3<u8>, b: &Array3<u8>) -> u8 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

fn close(got: &Array3<f32>, want: &Array3<f32>, atol: f64, what: &str) {
    assert_eq!(got.dim(), want.dim(), "{what}");
    let worst = got.iter().zip(want).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    assert!(worst <= atol, "{what}: off by {worst}");
}

/// Two samples that tell their place: each pixel holds its column, or its row, in base 256.
fn coordinates(w: usize, h: usize) -> [Sample; 2] {
    let plane = |of: fn(usize, usize) -> usize| {
        let image = Array3::from_shape_fn((h, w, 3), |(y, x, c)| (of(y, x) >> (8 * c)) as u8);
        sample(image, None)
    };
    [plane(|_, x| x), plane(|y, _| y)]
}

fn place(pixels: &Array3<u8>, y: usize, x: usize) -> usize {
    usize::from(pixels[[y, x, 0]]) + 256 * usize::from(pixels[[y, x, 1]])
}

#[test]
fn resizing_and_cropping_equal_torchvision() {
    let golden = Tensors::ours("transforms");
    let mut compared = 0;
    for name in golden.names() {
        let words: Vec<&str> = name.split('.').collect();
        let [kind, filter, res, size] = words[..] else { continue };
        let crop = if kind == "center" { Crop::Center } else { Crop::None };
        let resize: Resize = filter.parse().unwrap();
        let input = sample(golden.image(&format!("image.{size}")), None);
        let got = transform(res.parse().unwrap(), crop, resize).image_u8(&input).unwrap();
        assert_eq!(furthest(&got, &golden.image(&name)), 0, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 30);
}

#[test]
fn labels_and_normalised_images_equal_torchvision() {
    let golden = Tensors::ours("transforms");
    let mut compared = 0;
    for name in golden.names() {
        let words: Vec<&str> = name.split('.').collect();
        let [kind @ ("label" | "norm"), res, size] = words[..] else { continue };
        let label = golden.label(&format!("label.{size}"));
        let input = sample(golden.image(&format!("image.{size}")), Some(label));
        // The images' filter is not the labels' business.
        let resize = if kind == "label" { Resize::Bicubic } else { Resize::Nearest };
        let view = transform(res.parse().unwrap(), Crop::Center, resize).apply(0, &input).unwrap().remove(0);
        match kind {
            "label" => assert_eq!(view.label.unwrap(), golden.label(&name), "{name}"),
            _ => close(&view.image, &golden.floats(&name), 1e-6, &name),
        }
        compared += 1;
    }
    assert_eq!(compared, 10);
}

#[test]
fn nearest_takes_the_pixels_that_pillow_takes() {
    let golden = Tensors::ours("crops");
    let mut compared = 0;
    for name in golden.names() {
        let words: Vec<&str> = name.split('.').collect();
        let ["nearest", n, m] = words[..] else { continue };
        let (n, m): (usize, usize) = (n.parse().unwrap(), m.parse().unwrap());
        let [columns, _] = coordinates(n, 1);
        let got = transform(m, Crop::None, Resize::Nearest).image_u8(&columns).unwrap();
        let got: Vec<_> = (0..m).map(|x| place(&got, 0, x)).collect();
        assert_eq!(got, golden.rows(&name)[0], "{name}");
        compared += 1;
    }
    assert!(compared >= 25);
}

#[test]
fn crops_are_where_torchvision_and_python_put_them() {
    let golden = Tensors::ours("crops");
    for row in golden.rows("five") {
        check_five(row[0], row[1], row[2] as f64 / 100.0, &row[3..]);
    }
    for row in golden.rows("random") {
        let [index, w, h, percent, crop, x, y, cw, ch] = row[..] else { panic!("9 columns") };
        let random =
            Transform { crop_ratio: percent as f64 / 100.0, ..transform(5, Crop::Random, Resize::Nearest) };
        let alone = transform(5, Crop::Center, Resize::Nearest);
        for whole in coordinates(w, h) {
            let part = sample(whole.image.slice(s![y..y + ch, x..x + cw, ..]).to_owned(), None);
            let got = random.apply(index as u64, &whole).unwrap().remove(crop);
            let want = alone.apply(0, &part).unwrap().remove(0);
            assert_eq!(got.image, want.image, "sample {index} of {w} x {h}, {percent} %, crop {crop}");
        }
    }
}

/// `row`: crop, x, y, w, h.
fn check_five(w: usize, h: usize, ratio: f64, row: &[usize]) {
    let part = CropBox { x: row[1], y: row[2], w: row[3], h: row[4] };
    assert_eq!(five_crop_boxes(w, h, ratio)[row[0]], part, "{w} x {h}, {ratio}, crop {}", row[0]);
}

/// What the crate makes of the bytes of a picture file.
fn decode(name: &str, bytes: &[u8]) -> dataset::Result<Sample> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    dataset::open(folder.path().to_str().unwrap(), Split::All)?.load(0)
}

#[test]
fn pictures_are_read_as_pillow_reads_them() {
    let golden = Tensors::ours("files");
    for name in [
        "picture.jpg",
        "progressive.jpg",
        "grey.jpg",
        "turned.jpg",
        "picture.png",
        "alpha.png",
        "palette.png",
    ] {
        let got = decode(name, &golden.bytes(name).1).unwrap().image;
        let want = golden.image(&format!("{name}.pixels"));
        // JPEG decoders round differently.
        let allowed = if name.ends_with("jpg") { 4 } else { 0 };
        assert!(furthest(&got, &want) <= allowed, "{name}: {}", furthest(&got, &want));
    }
}

#[test]
fn labels_are_read_as_pillow_reads_them() {
    let golden = Tensors::ours("files");
    let (h, w) = (20, 30);
    let load = |name: &str| {
        let root = tempfile::tempdir().unwrap();
        for folder in ["images/train", "labels/train"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        image::RgbImage::new(w, h).save(root.path().join("images/train/x.png")).unwrap();
        fs::write(root.path().join("labels/train/x.png"), golden.bytes(name).1).unwrap();
        dataset::open(&format!("camvid:{}", root.path().display()), Split::Train).unwrap().load(0)
    };
    for name in ["label.grey.png", "label.palette.png", "label.packed.png"] {
        assert_eq!(load(name).unwrap().label.unwrap(), golden.label(&format!("{name}.pixels")), "{name}");
    }
    for (name, found) in [("rgb", "8-bit RGB"), ("wide", "16-bit grey"), ("alpha", "8-bit grey-alpha")] {
        let error = load(&format!("refused.{name}.png")).unwrap_err();
        assert!(error.is_sample() && error.to_string().contains(found), "{error}");
    }
}

#[test]
fn reference_five_crop() {
    for case in cases("12_five_crop") {
        for row in expected(&case).rows("boxes") {
            check_five(row[0], row[1], row[2] as f64 / 10.0, &row[3..]);
        }
    }
}

#[test]
fn reference_nearest_geometry() {
    for case in cases("12_nearest_geometry") {
        for row in expected(&case).rows("rows") {
            let [w, h, res, ref want @ ..] = row[..] else { panic!("at least 3 columns") };
            let [columns, rows] = coordinates(w, h)
                .map(|sample| transform(res, Crop::Center, Resize::Nearest).image_u8(&sample).unwrap());
            let got = [0, res - 1, res / 2].map(|i| [place(&rows, i, i), place(&columns, i, i)]);
            assert_eq!(got.as_flattened(), want, "{w} x {h} to {res}");
        }
    }
}

#[test]
fn reference_transforms() {
    for case in cases("12_transforms") {
        let (about, golden) = (about(&case), expected(&case));
        let input = Tensors::read(&case.join("input.safetensors"));
        let input = sample(input.image("image_u8"), Some(input.label("label_u8")));
        for name in golden.names() {
            check_transform(&about, &golden, &input, &name);
        }
        check_jpeg(&about, &input);
    }
}

fn check_transform(about: &Value, golden: &Tensors, input: &Sample, name: &str) {
    let words: Vec<&str> = name.split('.').collect();
    let res = || words[words.len() - 1].parse().unwrap();
    let label = || input.label.as_ref().unwrap();
    match words[..] {
        ["alt", "image_u8", filter, _] => {
            let resize = FILTERS.into_iter().find(|known| known.to_string() == filter).unwrap();
            let got = transform(res(), Crop::Center, resize).image_u8(input).unwrap();
            let allowed = numbers(about["tolerance"]["alt_u8"].as_str().unwrap())[0];
            let off = furthest(&got, &golden.image(name));
            println!("{name}: off by {off}");
            assert!(f64::from(off) <= allowed, "{name}: off by {off}");
        }
        ["ref", "image_u8", _] => {
            let got = transform(res(), Crop::Center, Resize::Nearest).image_u8(input).unwrap();
            assert_eq!(got, golden.image(name), "{name}");
        }
        ["ref", "image_norm", _] => {
            let vector =
                |name: &str| -> [f32; 3] { serde_json::from_value(about["params"][name].clone()).unwrap() };
            let base = transform(res(), Crop::Center, Resize::Nearest);
            let transform = Transform { mean: vector("mean"), std: vector("std"), ..base };
            let atol = about["tolerance"]["norm"]["atol"].as_f64().unwrap();
            close(&transform.apply(0, input).unwrap()[0].image, &golden.floats(name), atol, name);
        }
        ["label", _] => {
            let view = transform(res(), Crop::Center, Resize::Nearest).apply(0, input).unwrap().remove(0);
            assert_eq!(view.label.unwrap(), golden.label(name), "{name}");
        }
        ["five_crop_label", crop] => {
            let want = golden.label(name);
            // The case states no ratio; its crops' own size does.
            let ratio = want.dim().0 as f64 / label().dim().0 as f64;
            let (h, w) = label().dim();
            let CropBox { x, y, w, h } = five_crop_boxes(w, h, ratio)[crop.parse::<usize>().unwrap()];
            assert_eq!(label().slice(s![y..y + h, x..x + w]), want, "{name}");
        }
        _ => panic!("{name}: what is this?"),
    }
}

fn camvid() -> Option<PathBuf> {
    let root = std::env::var_os("FEATLAB_DATA").map_or(workspace().join("../shared/data"), PathBuf::from);
    let root = root.join("camvid");
    if root.is_dir() {
        return Some(root);
    }
    println!("skipped: no CamVid at {}", root.display());
    None
}

/// Our decoder against the pixels that Pillow read from the same file.
fn check_jpeg(about: &Value, input: &Sample) {
    let Some(root) = camvid() else { return };
    let file = root.join(about["params"]["source"].as_str().unwrap());
    let got = decode("x.jpg", &fs::read(&file).unwrap()).unwrap().image;
    let [max, mean] = numbers(about["tolerance"]["jpeg_decode"].as_str().unwrap())[..] else {
        panic!("expected a largest and a mean difference")
    };
    let sum: f64 = got.iter().zip(&input.image).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    let (off, average) = (furthest(&got, &input.image), sum / got.len() as f64);
    println!("{}: off by {off}, {average} on average", file.display());
    assert!(f64::from(off) <= max, "{}: off by {off}", file.display());
    assert!(average < mean, "{}: {average} on average", file.display());
}

#[test]
fn camvid_opens_as_its_readme_says() {
    let Some(root) = camvid() else { return };
    let spec = format!("camvid:{}", root.display());
    for (split, len, labelled) in
        [(Split::Train, 367, true), (Split::Val, 101, true), (Split::Test, 233, false)]
    {
        let camvid = dataset::open(&spec, split).unwrap();
        assert_eq!((camvid.len(), camvid.problems().len()), (len, 0));
        assert_eq!(camvid.classes().map(|table| table.names.len()), labelled.then_some(11));
        let sample = camvid.load(len / 2).unwrap();
        assert_eq!(sample.image.dim(), (360, 480, 3));
        assert_eq!(sample.label.map(|label| label.dim()), labelled.then_some((360, 480)));
    }
    assert_eq!(dataset::open(&spec, Split::All).unwrap().len(), 701);
}
