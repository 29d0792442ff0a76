//! The dense CRF: agreement with `pydensecrf`, and laws.
//!
//! The same assertions run over our own numbers (`tests/golden/segment`, with the script that made them) and over every case
//! `06_*` of the reference folder `$FEATLAB_GOLDEN`, where there is one.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test that cannot go on panics; one that skips says so

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3, ArrayView1, ArrayView3, Axis, Zip, s};
use resample::{Align, Mode, Taps, resize};
use safetensors::SafeTensors;
use segment::{DenseCrf, Error};

#[test]
fn own_numbers() {
    let (file, image, probabilities) = own();
    let wide = DenseCrf {
        iterations: 3,
        smoothness: 2.0,
        smoothness_xy: 5.0,
        appearance: 7.0,
        appearance_xy: 30.0,
        appearance_rgb: 13.0,
    };
    for (name, crf) in [
        ("stego", DenseCrf::default()),
        ("one_step", DenseCrf { iterations: 1, ..DenseCrf::default() }),
        ("wide", wide),
        (
            "smoothness",
            DenseCrf { iterations: 5, smoothness_xy: 2.5, appearance: 0.0, ..DenseCrf::default() },
        ),
        (
            "appearance",
            DenseCrf {
                iterations: 5,
                smoothness: 0.0,
                appearance: 10.0,
                appearance_xy: 80.0,
                appearance_rgb: 13.0,
                ..DenseCrf::default()
            },
        ),
    ] {
        let off =
            Off::between(&crf.marginals(image.view(), probabilities.view()).unwrap(), &file.floats(name));
        assert!(off.most < 1e-4 && off.mean < 1e-6 && off.same > 0.999, "{name}: {off:?}");
    }
}

/// Mean field with the exact sums over all pairs, in `f64`: what the lattice approximates.
#[test]
fn the_lattice_is_near_the_exact_sums() {
    let (_, image, probabilities) = own();
    let (image, probabilities) =
        (image.slice(s![8..24, 10..30, ..]), probabilities.slice(s![..5, 8..24, 10..30]));
    let mut probabilities = probabilities.to_owned();
    probabilities.lanes_mut(Axis(0)).into_iter().for_each(|mut pixel| pixel /= pixel.sum());
    let crf = DenseCrf {
        iterations: 3,
        smoothness_xy: 2.0,
        appearance_xy: 20.0,
        appearance_rgb: 30.0,
        ..DenseCrf::default()
    };
    let off = Off::between(
        &crf.marginals(image, probabilities.view()).unwrap(),
        &exact(&crf, image, &probabilities),
    );
    assert!(off.mean < 0.02 && off.same > 0.97, "{off:?}");
}

fn exact(crf: &DenseCrf, image: ArrayView3<'_, u8>, probabilities: &Array3<f32>) -> Array3<f32> {
    let (k, h, w) = probabilities.dim();
    let feature = |i: usize, xy: f32, rgb: Option<f32>| {
        let place = [i % w, i / w].map(|x| x as f64 / f64::from(xy));
        let colour = |rgb| (0..3).map(move |c| f64::from(image[[i / w, i % w, c]]) / f64::from(rgb));
        place.into_iter().chain(rgb.into_iter().flat_map(colour)).collect::<Vec<f64>>()
    };
    let kernel = |xy: f32, rgb: Option<f32>, weight: f32| {
        let features: Vec<_> = (0..h * w).map(|i| feature(i, xy, rgb)).collect();
        let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let raw =
            Array2::from_shape_fn((h * w, h * w), |(i, j)| (-apart(&features[i], &features[j]) / 2.0).exp());
        let norm = raw.sum_axis(Axis(1)).mapv(|sum| sum.powf(-0.5));
        Array2::from_shape_fn(raw.dim(), |(i, j)| f64::from(weight) * norm[i] * norm[j] * raw[[i, j]])
    };
    let kernel = kernel(crf.smoothness_xy, None, crf.smoothness)
        + kernel(crf.appearance_xy, Some(crf.appearance_rgb), crf.appearance);
    let likely = probabilities.mapv(|p| f64::from(p.clamp(1e-5, 1.0)).ln());
    let likely = likely.into_shape_with_order((k, h * w)).unwrap();
    let softmax = |mut scores: Array2<f64>| {
        for mut pixel in scores.columns_mut() {
            pixel.mapv_inplace(f64::exp);
            pixel /= pixel.sum();
        }
        scores
    };
    let mut q = softmax(likely.clone());
    for _ in 0..crf.iterations {
        q = softmax(&likely + &q.dot(&kernel));
    }
    q.mapv(|q| q as f32).into_shape_with_order((k, h, w)).unwrap()
}

#[test]
fn marginals_are_probabilities_whatever_the_order_of_classes_and_the_number_of_threads() {
    let (_, image, probabilities) = own();
    let q = DenseCrf::default().marginals(image.view(), probabilities.view()).unwrap();
    assert!(q.iter().all(|q| (0.0..=1.0).contains(q)));
    assert!(q.sum_axis(Axis(0)).iter().all(|sum| (sum - 1.0).abs() < 1e-5));
    let turned = DenseCrf::default().marginals(image.view(), probabilities.slice(s![..;-1, .., ..])).unwrap();
    assert!(Off::between(&turned.slice(s![..;-1, .., ..]).to_owned(), &q).most < 1e-5);
    for threads in [1, 2, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(
            pool.install(|| DenseCrf::default().marginals(image.view(), probabilities.view())).unwrap(),
            q
        );
    }
}

#[test]
fn many_pictures_at_once_are_each_what_they_are_alone() {
    let (_, image, probabilities) = own();
    let crf = DenseCrf { iterations: 3, ..DenseCrf::default() };
    let part = |x: usize| {
        (image.slice(s![.., x.., ..]).to_owned(), probabilities.slice(s![..18 - x, .., x..]).to_owned())
    };
    let pictures: Vec<_> = (0..5).map(part).collect();
    let views: Vec<_> = pictures.iter().map(|(image, p)| (image.view(), p.view())).collect();
    let together = crf.marginals_of(&views).unwrap();
    for ((image, p), q) in views.iter().zip(&together) {
        assert_eq!(crf.marginals(*image, *p).unwrap(), q);
    }
    assert!(crf.marginals_of(&[]).unwrap().is_empty());
    let wrong = [views[0], (views[1].0, views[0].1)];
    assert!(matches!(crf.marginals_of(&wrong), Err(Error::Shape { .. })));
}

/// What is not a number spreads along the lattice and is not hidden; a picture of one colour is one simplex after another.
#[test]
fn a_pixel_without_numbers_and_a_picture_of_one_colour() {
    let (_, image, mut probabilities) = own();
    let flat = Array3::from_elem(image.dim(), 128);
    let q = DenseCrf::default().marginals(flat.view(), probabilities.view()).unwrap();
    assert!(q.sum_axis(Axis(0)).iter().all(|sum| (sum - 1.0).abs() < 1e-5));
    probabilities[[0, 3, 4]] = f32::NAN;
    let q = DenseCrf::default().marginals(image.view(), probabilities.view()).unwrap();
    assert!(q.slice(s![.., 3, 4]).iter().all(|q| q.is_nan()));
}

#[test]
fn without_kernels_or_steps_nothing_changes_and_what_does_not_fit_is_refused() {
    let (_, image, probabilities) = own();
    let (image, probabilities) = (image.view(), probabilities.view());
    for crf in [
        DenseCrf { smoothness: 0.0, appearance: 0.0, ..DenseCrf::default() },
        DenseCrf { iterations: 0, ..DenseCrf::default() },
    ] {
        let off = Off::between(&crf.marginals(image, probabilities).unwrap(), &probabilities.to_owned());
        assert!(off.most < 2e-4, "{off:?}"); // classes below the smallest probability are raised to it
    }
    let one_pixel =
        DenseCrf::default().marginals(image.slice(s![..1, ..1, ..]), probabilities.slice(s![.., ..1, ..1]));
    assert!((one_pixel.unwrap().sum() - 1.0).abs() < 1e-5);
    assert!(matches!(
        DenseCrf::default().marginals(image.slice(s![1.., .., ..]), probabilities),
        Err(Error::Shape { .. })
    ));
    assert!(matches!(
        DenseCrf::default().marginals(image, probabilities.slice(s![..0, .., ..])),
        Err(Error::Empty(_))
    ));
    let flat = DenseCrf { appearance_rgb: 0.0, ..DenseCrf::default() };
    assert!(matches!(flat.marginals(image, probabilities), Err(Error::NotPositive { .. })));
    let fine = DenseCrf { smoothness_xy: 0.001, ..DenseCrf::default() };
    assert!(matches!(fine.marginals(image, probabilities), Err(Error::TooFine { .. })));
}

/// The committed file, its picture and its probabilities.
fn own() -> (Tensors, Array3<u8>, Array3<f32>) {
    let file =
        Tensors::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/segment"), "crf");
    let (image, probabilities) = (file.bytes("image"), file.floats("probabilities"));
    (file, image, probabilities)
}

#[test]
fn reference_folder() {
    let root = std::env::var_os("FEATLAB_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&root) else {
        println!("skipped: no reference folder at {}", root.display());
        return;
    };
    let folders = entries.map(|entry| entry.unwrap().path());
    for folder in folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("06_")) {
        check(&folder);
    }
}

fn check(folder: &Path) {
    let case: serde_json::Value =
        serde_json::from_reader(std::fs::File::open(folder.join("case.json")).unwrap()).unwrap();
    let (params, tolerance) = (&case["params"], &case["tolerance"]["same_lattice"]);
    let number = |name: &str| params[name].as_f64().unwrap() as f32;
    let crf = DenseCrf {
        iterations: params["max_iter"].as_u64().unwrap() as usize,
        smoothness: number("pos_w"),
        smoothness_xy: number("pos_xy_std"),
        appearance: number("bi_w"),
        appearance_xy: number("bi_xy_std"),
        appearance_rgb: number("bi_rgb_std"),
    };
    let (input, expected) = (Tensors::read(folder, "input"), Tensors::read(folder, "expected"));
    let (image, scores) = (expected.bytes("image_used"), input.floats("logits"));
    let probabilities = probabilities(scores.view(), (image.dim().0, image.dim().1));
    for (name, crf) in [
        ("Q", crf),
        ("Q_iter1", DenseCrf { iterations: 1, ..crf }),
        ("Q_gauss10", DenseCrf { appearance: 0.0, ..crf }),
        ("Q_bilateral10", DenseCrf { smoothness: 0.0, ..crf }),
    ] {
        if !expected.has(name) {
            continue;
        }
        let got = crf.marginals(image.view(), probabilities.view()).unwrap();
        let off = Off::between(&got, &expected.floats(name));
        println!("{} {name}: {off:?}", folder.display());
        let limit = |name: &str| tolerance[name].as_f64().unwrap();
        assert!(off.mean <= limit("Q_mean_abs") && off.most <= limit("Q_max_abs"), "{off:?}");
        assert!(off.same >= limit("argmax_agreement"), "{off:?}");
    }
}

/// How far marginals are from others.
#[derive(Debug)]
struct Off {
    mean: f64,
    most: f64,
    /// Share of pixels with the same likeliest class.
    same: f64,
}

impl Off {
    fn between(a: &Array3<f32>, b: &Array3<f32>) -> Self {
        let (mut most, mut sum) = (0.0_f64, 0.0);
        Zip::from(a).and(b).for_each(|a, b| {
            let off = f64::from((a - b).abs());
            most = most.max(off);
            sum += off;
        });
        let (best, other) = (likeliest(a), likeliest(b));
        let same = best.iter().zip(&other).filter(|(a, b)| a == b).count() as f64 / best.len() as f64;
        Self { mean: sum / a.len() as f64, most, same }
    }
}

fn likeliest(q: &Array3<f32>) -> Vec<usize> {
    let top = |pixel: ArrayView1<'_, f32>| (0..pixel.len()).max_by(|&i, &j| pixel[i].total_cmp(&pixel[j]));
    q.lanes(Axis(0)).into_iter().map(|pixel| top(pixel).unwrap()).collect()
}

/// Scores at low resolution as probabilities of pixels.
fn probabilities(scores: ArrayView3<'_, f32>, (h, w): (usize, usize)) -> Array3<f32> {
    let (_, gh, gw) = scores.dim();
    let taps = |from, to| Taps::new(Mode::Bilinear, Align::HalfPixel, from, to);
    let mut scores = resize(scores, &taps(gh, h), &taps(gw, w)).unwrap();
    for mut pixel in scores.lanes_mut(Axis(0)) {
        let top = pixel.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        pixel.mapv_inplace(|x| (x - top).exp());
        let sum = pixel.sum();
        pixel /= sum;
    }
    scores
}

/// A file of tensors.
struct Tensors(Vec<u8>);

impl Tensors {
    fn read(folder: &Path, name: &str) -> Self {
        Self(std::fs::read(folder.join(name).with_extension("safetensors")).unwrap())
    }

    fn open(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        self.open().names().contains(&name)
    }

    fn shape(&self, name: &str) -> (usize, usize, usize) {
        let [a, b, c] = self.open().tensor(name).unwrap().shape().try_into().unwrap();
        (a, b, c)
    }

    fn bytes(&self, name: &str) -> Array3<u8> {
        Array3::from_shape_vec(self.shape(name), self.open().tensor(name).unwrap().data().to_vec()).unwrap()
    }

    fn floats(&self, name: &str) -> Array3<f32> {
        let file = self.open();
        let numbers =
            file.tensor(name).unwrap().data().as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes);
        Array3::from_shape_vec(self.shape(name), numbers.collect()).unwrap()
    }
}
