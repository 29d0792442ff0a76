//! Agreement with PyTorch: tokens, layers, facets, attention and position tables.
//!
//! The same assertions run over our own numbers (`tests/golden/backbone`, with the scripts that made them) and over every
//! case `01_dino_vit*` and `02_hf_vit*` of the reference folder `$FEATLAB_GOLDEN`, where there is one. Names of tensors
//! say what was computed, `NAME.HxW`; a tensor `NAME.HxW.f64` is the better reference for `NAME.HxW` and replaces it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test file: helpers outside `#[test]` panic and print too"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use backbone::{Backbone, Facet, Layer, LoadOptions, interpolate_pos, load};
use candle_core::{DType, Device, IndexOp, Tensor};
use serde_json::Value;

type Tensors = HashMap<String, Tensor>;

/// `max|y - reference| <= rel_to_max * max|reference| + abs_floor`.
struct Tolerance {
    rel_to_max: f64,
    abs_floor: f64,
}

impl Tolerance {
    fn of(case: &Value) -> Self {
        Self {
            rel_to_max: case["tolerance"]["rel_to_max"].as_f64().unwrap(),
            abs_floor: case["tolerance"]["abs_floor"].as_f64().unwrap_or(1e-7),
        }
    }

    /// Returns how far off `y` is, relative to the largest number.
    fn check(&self, name: &str, y: &Tensor, reference: &Tensor) -> f64 {
        assert_eq!(y.dims(), reference.dims(), "{name}");
        let flat =
            |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (y, reference) = (flat(y), flat(reference));
        let max = reference.iter().fold(0f64, |max, v| max.max(v.abs()));
        let off = y.iter().zip(&reference).fold(0f64, |off, (a, b)| off.max((a - b).abs()));
        assert!(off <= self.rel_to_max * max + self.abs_floor, "{name}: {off:e} off at a maximum of {max}");
        off / max
    }
}

/// All tests of this file once more, in a process for every other level of the kernels that this machine has.
#[test]
fn at_every_level() {
    let others = kernels::Level::available().into_iter().filter(|&level| level != kernels::Level::current());
    for level in others {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--skip", "at_every_level"])
            .env(kernels::LEVEL_VARIABLE, level.name())
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("4 passed"), "{}: {printed}", level.name());
    }
}

#[test]
fn own_numbers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/backbone");
    let expected = read(&folder.join("expected.safetensors"));
    // PyTorch's own single precision is up to 2.6e-6 away from these numbers (attention; 1e-6 for all the rest).
    let tolerance = Tolerance { rel_to_max: 1e-5, abs_floor: 1e-7 };
    let mut checked = 0;
    for (file, num_heads) in [("weights.pth", Some(2)), ("weights_legacy.pth", Some(2)), ("hf", None)] {
        let backbone = open(&folder.join(file), num_heads);
        checked += check_outputs(&*backbone, &expected, &expected, &tolerance).0;
    }
    // Of both sizes: tokens, keys, all layers, and three facets and the attention of two blocks.
    assert_eq!(checked, 3 * 2 * (3 + 2 * 4));
    assert_eq!(check_positions(&read(&folder.join("hf/model.safetensors")), &expected, &tolerance), 2);
}

/// Every layout of DINOv2 and DINOv3 against the case that it belongs to, and what the architecture says of it.
#[test]
fn later_models() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/backbone");
    let tolerance = Tolerance { rel_to_max: 1e-5, abs_floor: 1e-7 };
    for (family, weights, case, architecture) in [
        ("dinov2", "plain.pth", "plain", "dinov2_d8_depth2_heads2_patch14"),
        ("dinov2", "plain_hf", "plain_hf", "dinov2_d8_depth2_heads2_patch14_resized"),
        ("dinov2", "reg.pth", "reg", "dinov2_reg2_d8_depth2_heads2_patch14"),
        ("dinov2", "reg_hf", "reg", "dinov2_reg2_d8_depth2_heads2_patch14"),
        ("dinov2", "reg_timm.pth", "reg", "dinov2_reg2_d8_depth2_heads2_patch14"),
        ("dinov3", "original.pth", "original", "dinov3_reg2_d24_depth2_heads2_patch4"),
        ("dinov3", "hf", "hf", "dinov3_reg2_d24_depth2_heads2_patch4"),
        ("dinov3", "timm.pth", "hf", "dinov3_reg2_d24_depth2_heads2_patch4"),
    ] {
        let folder = root.join(family);
        let images = read(&folder.join("images.safetensors"));
        let expected = read(&folder.join(format!("{case}.expected.safetensors")));
        // No family has so few dimensions; the folders state their heads, and the original DINOv3 by its periods.
        let stated = weights.ends_with("hf") || weights == "original.pth";
        let backbone = open(&folder.join(weights), (!stated).then_some(2));
        assert_eq!(backbone.spec().architecture, architecture);
        assert_eq!(backbone.spec().registers, if case.starts_with("plain") { 0 } else { 2 });
        let (checked, off) = check_outputs(&*backbone, &images, &expected, &tolerance);
        // Of every size: tokens, all tokens of all blocks, three facets and two blocks' attention.
        assert_eq!(checked, images.len() * (1 + 1 + 3 + 2), "{weights}");
        println!("{family}/{weights}: {checked} tensors agree, {off:.1e} off at most");
    }
}

#[test]
fn reference_dino() {
    for folder in reference_folders("01_dino_vit") {
        let case = case(&folder);
        let (input, expected) =
            (read(&folder.join("input.safetensors")), read(&folder.join("expected.safetensors")));
        let mut checked = 0;
        for file in weights_files(&folder) {
            let backbone = open(&file, None);
            let spec = backbone.spec();
            for (key, found) in [
                ("embed_dim", spec.embed_dim),
                ("depth", spec.depth),
                ("num_heads", spec.num_heads),
                ("patch_size", spec.patch_size),
            ] {
                assert_eq!(case["params"][key].as_u64(), Some(found as u64), "{key} of {}", file.display());
            }
            // Rounded weights are for the loader alone: the outputs belong to the unrounded ones.
            if !file.to_string_lossy().contains("_f16") {
                checked += check_outputs(&*backbone, &input, &expected, &Tolerance::of(&case)).0;
            }
        }
        let plain = folder.join("weights.safetensors");
        if plain.exists() {
            checked += check_positions(&read(&plain), &expected, &Tolerance::of(&case));
        }
        assert!(checked > 0, "nothing to check in {}", folder.display());
        println!("{}: {checked} tensors agree", folder.display());
    }
}

/// At its own grid the Hugging Face model is DINO's; elsewhere it resizes positions in another way.
#[test]
fn reference_hugging_face() {
    for folder in reference_folders("02_hf_vit") {
        let partner = folder.file_name().unwrap().to_string_lossy().replacen("02_hf_vit", "01_dino_vit", 1);
        let own = folder.join("input.safetensors");
        let partner = folder.with_file_name(partner).join("input.safetensors");
        let (input, expected) =
            (read(if own.exists() { &own } else { &partner }), read(&folder.join("expected.safetensors")));
        let config: Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        let side = config["image_size"].as_u64().unwrap();
        let size = format!("{side}x{side}");
        let backbone = open(&folder, None);
        assert_eq!(config["num_attention_heads"].as_u64(), Some(backbone.spec().num_heads as u64));
        let tokens = tokens(&*backbone, &input[&format!("img.{size}")], Layer::default());
        Tolerance::of(&case(&folder)).check(&size, &tokens, &expected[&format!("last_hidden.{size}")]);
        println!("{}: {size} agrees", folder.display());
    }
}

/// Compares everything that is expected of the images `img.HxW`; returns how many tensors were, and how far off at most.
fn check_outputs(
    backbone: &dyn Backbone,
    input: &Tensors,
    expected: &Tensors,
    tolerance: &Tolerance,
) -> (usize, f64) {
    let (mut checked, mut off) = (0, 0f64);
    for (name, images) in input.iter().filter(|(name, _)| name.starts_with("img.")) {
        let size = name.strip_prefix("img.").unwrap();
        for (what, y) in outputs(backbone, images, size, expected) {
            let reference =
                expected.get(&format!("{what}.{size}.f64")).unwrap_or(&expected[&format!("{what}.{size}")]);
            off = off.max(tolerance.check(&format!("{what}.{size}"), &y, reference));
            checked += 1;
        }
    }
    (checked, off)
}

/// Our value for every tensor that is expected of these images.
fn outputs(
    backbone: &dyn Backbone,
    images: &Tensor,
    size: &str,
    expected: &Tensors,
) -> Vec<(String, Tensor)> {
    let spec = backbone.spec();
    let last = |facet| Layer { block: -1, facet };
    let by_head = |x: &Tensor| {
        let (b, n, d) = x.dims3().unwrap();
        x.reshape((b, n, spec.num_heads, d / spec.num_heads)).unwrap().transpose(1, 2).unwrap()
    };
    let mut all = vec![
        ("tokens".to_owned(), tokens(backbone, images, Layer::default())),
        ("k".to_owned(), by_head(&tokens(backbone, images, last(Facet::Key)))),
        ("attn".to_owned(), backbone.attention(images, -1).unwrap()),
        ("cls_attn".to_owned(), backbone.attention(images, -1).unwrap().i((.., .., 0)).unwrap()),
        ("feat_map".to_owned(), feature_map(backbone, images, Facet::Token)),
        ("kk_map".to_owned(), feature_map(backbone, images, Facet::Key)),
    ];
    let blocks = 0..spec.depth as i64;
    for block in blocks.clone() {
        for (facet, letter) in [(Facet::Query, "q"), (Facet::Key, "k"), (Facet::Value, "v")] {
            let vectors = tokens(backbone, images, Layer { block, facet });
            all.push((format!("{letter}{block}"), by_head(&vectors)));
        }
        all.push((format!("attn{block}"), backbone.attention(images, block).unwrap()));
    }
    let layers: Vec<Tensor> =
        blocks.map(|block| tokens(backbone, images, Layer { block, facet: Facet::Token })).collect();
    all.push(("layers".to_owned(), Tensor::stack(&layers, 0).unwrap()));
    let every = backbone.last_blocks(images, spec.depth).unwrap(); // with registers, if there are any
    all.push(("all".to_owned(), Tensor::stack(&every, 0).unwrap()));
    all.retain(|(what, _)| expected.contains_key(&format!("{what}.{size}")));
    all
}

/// Class and patch tokens, `[b, 1 + t, d]`.
fn tokens(backbone: &dyn Backbone, images: &Tensor, layer: Layer) -> Tensor {
    let features = backbone.forward_features(images, layer).unwrap();
    Tensor::cat(&[&features.cls.unsqueeze(1).unwrap(), &features.patches], 1).unwrap()
}

/// Patch features as a map, `[b, d, gh, gw]`.
fn feature_map(backbone: &dyn Backbone, images: &Tensor, facet: Facet) -> Tensor {
    let features = backbone.forward_features(images, Layer { block: -1, facet }).unwrap();
    let (b, _, d) = features.patches.dims3().unwrap();
    let (gh, gw) = features.grid;
    features.patches.transpose(1, 2).unwrap().reshape((b, d, gh, gw)).unwrap()
}

/// Compares the expected `pos.HxW` with the table of a state dict, in either layout; returns how many there were.
fn check_positions(weights: &Tensors, expected: &Tensors, tolerance: &Tolerance) -> usize {
    let either = |dino: &str, hf: &str| weights.get(dino).unwrap_or_else(|| &weights[hf]).clone();
    let table = either("pos_embed", "embeddings.position_embeddings").to_dtype(DType::F32).unwrap();
    let kernel = either("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight");
    let patch = kernel.dims()[2];
    let sizes = expected.iter().filter_map(|(name, reference)| {
        let (h, w) = name.strip_prefix("pos.")?.split_once('x')?;
        Some((h.parse::<usize>().ok()?, w.parse::<usize>().ok()?, reference))
    });
    let check = |(h, w, reference): (usize, usize, &Tensor)| {
        let positions = interpolate_pos(&table, (h / patch, w / patch)).unwrap();
        tolerance.check(&format!("pos.{h}x{w}"), &positions, reference);
    };
    sizes.map(check).count()
}

fn open(path: &Path, num_heads: Option<usize>) -> Box<dyn Backbone> {
    load(path.to_str().unwrap(), &LoadOptions { num_heads, ..LoadOptions::default() }).unwrap().backbone
}

fn weights_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_weights = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("weights") || name.starts_with("checkpoint")
    };
    entries.filter(is_weights).collect()
}

fn reference_folders(prefix: &str) -> Vec<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let root = std::env::var_os("FEATLAB_GOLDEN").map_or_else(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&root) else {
        println!("skipped: no reference folder at {}", root.display());
        return Vec::new();
    };
    let folders = entries.map(|entry| entry.unwrap().path());
    folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix)).collect()
}

fn case(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap()
}

fn read(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}
