//! Agreement with PyTorch, forward and backward.
//!
//! The same assertions run over our own numbers (`tests/golden/resample`, with the script that made
//! them) and over every case `08_*` of the reference folder `$FEATLAB_GOLDEN`, where there is one.
//! Tensor names say what was computed: `MODE_acX.HxW[.grad]` is a resize and
//! `PAD_acX[.grad_x|.grad_grid]` a grid sample. A tensor `NAME.f64` is the better reference for `NAME`
//! and replaces it.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` may panic too")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{Array3, ArrayD, Axis, Ix3, Ix4, IxDyn, stack};
use resample::{Align, GridSample, Mode, Padding, Taps, resize, resize_backward};
use safetensors::{Dtype, SafeTensors};

/// Tensors by name, as `f64`.
type Tensors = BTreeMap<String, ArrayD<f64>>;

/// `max|y - reference| <= rel_to_max * max|reference| + abs_floor`.
struct Tolerance {
    rel_to_max: f64,
    abs_floor: f64,
}

#[test]
fn own_numbers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/resample");
    let tolerance = Tolerance { rel_to_max: 1e-6, abs_floor: 1e-7 };
    let tensors = load(&folder.join("resize.safetensors"));
    assert_eq!(check_resize(&tensors, &tensors, &tolerance), 6 * 8 * 2 - 1);
    let tensors = load(&folder.join("grid_sample.safetensors"));
    assert_eq!(check_grid_sample(&tensors, &tensors, &tolerance), 4 * 3);
}

#[test]
fn reference_folder() {
    let root = reference_root();
    let Ok(entries) = std::fs::read_dir(&root) else {
        println!("skipped: no reference folder at {}", root.display());
        return;
    };
    let folders = entries.map(|entry| entry.unwrap().path());
    for folder in folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("08_")) {
        let case: serde_json::Value =
            serde_json::from_reader(std::fs::File::open(folder.join("case.json")).unwrap()).unwrap();
        let tolerance = Tolerance {
            rel_to_max: case["tolerance"]["rel_to_max"].as_f64().unwrap(),
            abs_floor: case["tolerance"]["abs_floor"].as_f64().unwrap_or(1e-7),
        };
        let input = load(&folder.join("input.safetensors"));
        let expected = load(&folder.join("expected.safetensors"));
        let checked = if input.contains_key("grid") {
            check_grid_sample(&input, &expected, &tolerance)
        } else {
            check_resize(&input, &expected, &tolerance)
        };
        assert!(checked > 0, "nothing to check in {}", folder.display());
        println!("{}: {checked} tensors agree", folder.display());
    }
}

/// Compares every resize in `expected` and returns how many there were.
fn check_resize(input: &Tensors, expected: &Tensors, tolerance: &Tolerance) -> usize {
    let x = &input["x"]; // [b, c, h, w]
    let mut checked = 0;
    for name in outputs(expected) {
        let mut parts = name.split('.');
        let (kind, size, suffix) = (parts.next().unwrap(), parts.next().unwrap(), parts.next());
        let (ho, wo) = size.split_once('x').unwrap();
        let rows = taps(kind, x.shape()[2], ho.parse().unwrap());
        let cols = taps(kind, x.shape()[3], wo.parse().unwrap());
        let y = match suffix {
            None => per_image(x, |x| resize(x.view(), &rows, &cols).unwrap()),
            Some("grad") => per_image(&input[&format!("weight.{size}")], |grad| {
                resize_backward(grad.view(), &rows, &cols).unwrap()
            }),
            Some(other) => panic!("{name}: unknown suffix {other}"),
        };
        assert_close(name, &y, best(expected, name), tolerance, |_| true);
        checked += 1;
    }
    checked
}

fn taps(kind: &str, input: usize, output: usize) -> Taps {
    let given = Align::Scale((output as f64 + 0.1) / input as f64);
    let (mode, align) = match kind {
        "bilinear_ac0" => (Mode::Bilinear, Align::HalfPixel),
        "bilinear_ac1" => (Mode::Bilinear, Align::Corners),
        "bicubic_ac0" => (Mode::Bicubic, Align::HalfPixel),
        "bicubic_ac1" => (Mode::Bicubic, Align::Corners),
        "nearest" => (Mode::Nearest, Align::HalfPixel),
        "nearest_sf" => (Mode::Nearest, given),
        "sf" => (Mode::Bicubic, given),
        "aa" => return Taps::antialiased_bicubic(input, output),
        other => panic!("unknown kind of resize {other}"),
    };
    Taps::new(mode, align, input, output)
}

/// Compares every grid sample in `expected` and returns how many there were.
fn check_grid_sample(input: &Tensors, expected: &Tensors, tolerance: &Tolerance) -> usize {
    let (x, grid, weight) = (&input["x"], &input["grid"], &input["weight"]);
    let mut checked = 0;
    for name in outputs(expected) {
        let (kind, suffix) = name.split_once('.').unwrap_or((name, ""));
        let (padding, corners) = kind.split_once("_ac").unwrap();
        let sampler = GridSample {
            padding: match padding {
                "zeros" => Padding::Zeros,
                "border" => Padding::Border,
                other => panic!("unknown padding {other}"),
            },
            align_corners: corners == "1",
        };
        let images = (0..x.shape()[0]).map(|b| {
            let (x, grid, weight) = (image(x, b), image(grid, b), image(weight, b));
            match suffix {
                "" => sampler.forward(x.view(), grid.view()).unwrap(),
                "grad_x" => sampler.backward(x.view(), grid.view(), weight.view()).unwrap().0,
                "grad_grid" => sampler.backward(x.view(), grid.view(), weight.view()).unwrap().1,
                other => panic!("{name}: unknown suffix {other}"),
            }
        });
        // The reference says where its gradient is not one-sided.
        let mask = expected.get(&format!("grad_grid_ok_ac{corners}")).filter(|_| suffix == "grad_grid");
        assert_close(name, &batch(images), best(expected, name), tolerance, |index| {
            mask.is_none_or(|mask| mask[[index[0], index[1], index[2]].as_slice()] != 0.0)
        });
        checked += 1;
    }
    checked
}

/// Names of the outputs: neither inputs (our own files hold both), nor masks, nor the `f64` twin of another.
fn outputs(tensors: &Tensors) -> impl Iterator<Item = &str> {
    let names = tensors.keys().map(String::as_str);
    names.filter(|name| {
        let input = matches!(*name, "x" | "grid" | "weight") || name.starts_with("weight.");
        !input && !name.starts_with("grad_grid_ok") && !name.ends_with(".f64")
    })
}

fn best<'a>(expected: &'a Tensors, name: &str) -> &'a ArrayD<f64> {
    expected.get(&format!("{name}.f64")).unwrap_or(&expected[name])
}

/// Image `b` of a batch, as the `f32` that the crate works on.
fn image(batch: &ArrayD<f64>, b: usize) -> Array3<f32> {
    let image = batch.index_axis(Axis(0), b).mapv(|v| v as f32);
    image.into_dimensionality::<Ix3>().unwrap()
}

fn per_image(x: &ArrayD<f64>, apply: impl Fn(Array3<f32>) -> Array3<f32>) -> ArrayD<f64> {
    batch((0..x.shape()[0]).map(|b| apply(image(x, b))))
}

fn batch(images: impl Iterator<Item = Array3<f32>>) -> ArrayD<f64> {
    let images: Vec<_> = images.collect();
    let views: Vec<_> = images.iter().map(|image| image.view()).collect();
    let batch = stack(Axis(0), &views).unwrap().into_dimensionality::<Ix4>().unwrap();
    batch.mapv(f64::from).into_dyn()
}

fn assert_close(
    name: &str,
    y: &ArrayD<f64>,
    reference: &ArrayD<f64>,
    tolerance: &Tolerance,
    compare: impl Fn(&IxDyn) -> bool,
) {
    assert_eq!(y.shape(), reference.shape(), "{name}");
    let max = reference.fold(0.0, |max: f64, v| max.max(v.abs()));
    let limit = tolerance.rel_to_max * max + tolerance.abs_floor;
    for (index, value) in y.indexed_iter().filter(|(index, _)| compare(index)) {
        let off = (value - reference[&index]).abs();
        assert!(off <= limit, "{name} at {index:?}: {value} is {off:e} off, allowed {limit:e}");
    }
}

fn reference_root() -> PathBuf {
    match std::env::var_os("FEATLAB_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"),
    }
}

fn load(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        let data = view.data();
        let values: Vec<f64> = match view.dtype() {
            Dtype::F64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect(),
            Dtype::U8 => data.iter().map(|&v| v.into()).collect(),
            other => panic!("{name} has dtype {other:?}"),
        };
        (name.to_owned(), ArrayD::from_shape_vec(view.shape(), values).unwrap())
    });
    tensors.collect()
}
