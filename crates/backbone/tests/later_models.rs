//! DINOv2 and DINOv3: what registers, layer scales, masks and rotations do, and which files are refused.
//!
//! Sound files are the golden ones (`tests/golden/backbone`), which `golden.rs` compares with other implementations; the rest
//! is made of them by renaming, scaling and breaking tensors.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` may panic too")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use backbone::{Error, Facet, Layer, LoadOptions, Loaded, load};
use candle_core::{DType, Device, IndexOp, Tensor};

type Tensors = HashMap<String, Tensor>;

/// One file of every model: folder, file, patch size and registers. All have two blocks and two heads.
const MODELS: [(&str, &str, usize, usize); 3] =
    [("dinov2", "plain.pth", 14, 0), ("dinov2", "reg.pth", 14, 2), ("dinov3", "original.pth", 4, 2)];

fn options() -> LoadOptions {
    LoadOptions { num_heads: Some(2), ..LoadOptions::default() }
}

fn golden(family: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/backbone").join(family).join(file)
}

fn state_dict(family: &str, file: &str) -> Tensors {
    candle_core::pickle::read_all(golden(family, file)).unwrap().into_iter().collect()
}

fn load_golden(family: &str, file: &str) -> Loaded {
    load(golden(family, file).to_str().unwrap(), &options()).unwrap()
}

/// Writes tensors to a file of their own and loads that.
fn load_tensors(tensors: &Tensors) -> backbone::Result<Loaded> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    candle_core::safetensors::save(tensors, &path).unwrap();
    load(path.to_str().unwrap(), &options())
}

/// Images without symmetries, `[1, 3, gh * p, gw * p]`.
fn images((gh, gw): (usize, usize), p: usize) -> Tensor {
    let pixels: Vec<f32> = (0..3 * gh * gw * p * p).map(|i| (i as f32 * 0.37).sin()).collect();
    Tensor::from_vec(pixels, (1, 3, gh * p, gw * p), &Device::Cpu).unwrap()
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |far, (a, b)| far.max((a - b).abs()))
}

/// Patch tokens of a grid.
fn patches(loaded: &Loaded, grid: (usize, usize)) -> Vec<f32> {
    let images = images(grid, loaded.backbone.spec().patch_size);
    flat(&loaded.backbone.forward_features(&images, Layer::default()).unwrap().patches)
}

/// The error of a damaged file: of the integrity kind, and with all of these words.
fn refused(result: backbone::Result<Loaded>, words: &[&str]) {
    let error = result.err().unwrap();
    assert!(error.is_integrity() && !error.is_usage(), "{error}");
    words.iter().for_each(|word| assert!(error.to_string().contains(word), "\"{word}\" is not in: {error}"));
}

#[test]
fn registers_are_tokens_and_no_patches() {
    for (family, file, p, r) in MODELS {
        let backbone = load_golden(family, file).backbone;
        let images = images((2, 5), p);
        let features = backbone.forward_features(&images, Layer::default()).unwrap();
        let all = backbone.last_blocks(&images, 1).unwrap().swap_remove(0); // [1, n, d]
        let d = backbone.spec().embed_dim;
        assert_eq!((features.grid, features.patches.dims()), ((2, 5), &[1, 10, d][..]));
        assert_eq!(all.dims(), [1, 1 + r + 10, d]);
        assert_eq!(flat(&features.cls), flat(&all.i((.., 0)).unwrap()));
        assert_eq!(flat(&features.patches), flat(&all.i((.., 1 + r..)).unwrap()));
        for facet in [Facet::Query, Facet::Key, Facet::Value] {
            let vectors = backbone.forward_features(&images, Layer { block: 0, facet }).unwrap();
            assert_eq!((vectors.patches.dims(), vectors.cls.dims()), (&[1, 10, d][..], &[1, d][..]));
        }
        let attention = backbone.attention(&images, -1).unwrap();
        assert_eq!(attention.dims(), [1, 2, 11 + r, 11 + r]);
        assert!(flat(&attention.sum(3).unwrap()).iter().all(|sum| (sum - 1.0).abs() < 1e-5));
    }
}

#[test]
fn images_and_blocks_are_checked() {
    for (family, file, p, _) in MODELS {
        let backbone = load_golden(family, file).backbone;
        for bad in [[1, 3, p, p + 1], [1, 3, 2 * p - 1, p], [1, 1, p, p], [1, 3, 0, p]] {
            let error = backbone.forward_features(&zeros(&bad), Layer::default()).unwrap_err();
            assert!(matches!(error, Error::Images { patch_size, .. } if patch_size == p), "{error}");
        }
        let one = zeros(&[1, 3, p, p]);
        assert_eq!(backbone.forward_features(&one, Layer::default()).unwrap().grid, (1, 1));
        assert!(backbone.attention(&one, 2).unwrap_err().is_usage());
        assert!(backbone.last_blocks(&one, 3).unwrap_err().is_usage());
        assert!(backbone.last_blocks(&one, 0).unwrap().is_empty());
    }
}

/// With scales of zero a block does nothing; a scale of two is a projection twice as large.
#[test]
fn layer_scales_scale_what_a_block_adds() {
    for (family, file, p, _) in MODELS {
        let state = state_dict(family, file);
        let changed = |change: &dyn Fn(&str, &Tensor) -> Tensor| {
            let tensors = state.iter().map(|(name, t)| (name.clone(), change(name, t))).collect();
            load_tensors(&tensors).unwrap()
        };
        let still =
            changed(&|name, t| if name.contains(".ls") { t.zeros_like().unwrap() } else { t.clone() });
        let layers = still.backbone.last_blocks(&images((3, 2), p), 2).unwrap();
        assert_eq!(flat(&layers[0]), flat(&layers[1]));

        let grid = (3, 2);
        let plain = patches(&load_tensors(&state).unwrap(), grid);
        assert_ne!(flat(&layers[1].i((.., layers[1].dim(1).unwrap() - 6..)).unwrap()), plain);
        let scaled = |name: &str| name.contains("attn.proj.") || name.contains("mlp.fc2.");
        let folded = changed(&|name, t| match name {
            name if name.contains(".ls") => (t * 0.5).unwrap(),
            name if scaled(name) => (t * 2.0).unwrap(),
            _ => t.clone(),
        });
        assert!(far(&patches(&folded, grid), &plain) < 1e-5);
    }
}

/// What another layout says otherwise: Hugging Face resizes the table of a model without registers.
#[test]
fn the_layout_decides_how_positions_are_resampled() {
    let (original, hf) = (load_golden("dinov2", "plain.pth"), load_golden("dinov2", "plain_hf"));
    assert!(far(&patches(&original, (3, 3)), &patches(&hf, (3, 3))) < 1e-5);
    assert!(far(&patches(&original, (2, 5)), &patches(&hf, (2, 5))) > 1e-2);
    assert_ne!(original.backbone.spec().architecture, hf.backbone.spec().architecture);
}

#[test]
fn chunks_and_wrappers_of_a_training_do_not_matter() {
    for (family, file, _, _) in MODELS {
        let state = state_dict(family, file);
        let expected = patches(&load_tensors(&state).unwrap(), (3, 2));
        let wrapped = state.into_iter().map(|(name, t)| {
            // One block to a chunk, numbered through, under the name of the backbone in a training.
            let chunked = name.replace("blocks.0.", "blocks.0.0.").replace("blocks.1.", "blocks.1.1.");
            (format!("backbone.{chunked}"), t)
        });
        let loaded = load_tensors(&wrapped.collect()).unwrap();
        assert_eq!(patches(&loaded, (3, 2)), expected);
        assert!(loaded.note.join("").contains("mask_token"), "{:?}", loaded.note);
    }
}

#[test]
fn masks_take_the_bias_of_keys_away() {
    let state = state_dict("dinov3", "original.pth");
    let expected = patches(&load_tensors(&state).unwrap(), (3, 3));
    let mut without = state.clone();
    without.retain(|name, _| !name.ends_with("bias_mask"));
    assert!(far(&patches(&load_tensors(&without).unwrap(), (3, 3)), &expected) > 1e-2);
    let (bias, mask) = ("blocks.1.attn.qkv.bias", "blocks.1.attn.qkv.bias_mask");
    without.insert(bias.to_owned(), (&state[bias] * &state[mask]).unwrap());
    let (bias, mask) = (bias.replace('1', "0"), mask.replace('1', "0"));
    without.insert(bias.clone(), (&state[&bias] * &state[&mask]).unwrap());
    assert_eq!(patches(&load_tensors(&without).unwrap(), (3, 3)), expected);

    let mut unset = state;
    unset.insert(mask.clone(), (zeros(&[72]) / 0.0).unwrap()); // as in a model that was never initialised
    refused(load_tensors(&unset), &[&bias, "72 values"]);
    unset.insert(mask.clone(), zeros(&[71]));
    refused(load_tensors(&unset), &[&format!("surplus {mask} [71]")]);
}

/// The image is as high and as wide as before when its patches are larger: places do not depend on the resolution.
#[test]
fn rotations_follow_their_periods() {
    let state = state_dict("dinov3", "original.pth");
    let expected = patches(&load_tensors(&state).unwrap(), (2, 3));
    // Periods beyond all differences of places: nothing is turned, and a permuted picture gives permuted tokens.
    let mut still = state.clone();
    still.insert("rope_embed.periods".to_owned(), (zeros(&[3]) + 1e30).unwrap());
    let still = load_tensors(&still).unwrap();
    assert!(far(&patches(&still, (2, 3)), &expected) > 1e-2);
    let swapped = |loaded: &Loaded| {
        let halves = images((1, 4), 4);
        let turned =
            Tensor::cat(&[halves.narrow(3, 8, 8).unwrap(), halves.narrow(3, 0, 8).unwrap()], 3).unwrap();
        let read = |images: &Tensor| {
            loaded.backbone.forward_features(images, Layer::default()).unwrap().patches.i(0).unwrap()
        };
        let back = Tensor::cat(&[read(&turned).i(2..).unwrap(), read(&turned).i(..2).unwrap()], 0).unwrap();
        far(&flat(&read(&halves)), &flat(&back))
    };
    assert!(swapped(&still) < 1e-5 && swapped(&load_tensors(&state).unwrap()) > 1e-2);

    let mut frozen = state;
    frozen.insert("rope_embed.periods".to_owned(), zeros(&[3]));
    refused(load_tensors(&frozen), &["rope_embed.periods", "above 0"]);

    let error = load(
        golden("dinov3", "original.pth").to_str().unwrap(),
        &LoadOptions { num_heads: Some(4), ..LoadOptions::default() },
    );
    let error = error.err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("3 periods"), "{error}");
}

#[test]
fn the_base_of_periods_is_a_configs_matter() {
    let with_theta = |theta: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(golden("dinov3", "hf/model.safetensors"), folder.path().join("model.safetensors"))
            .unwrap();
        let config = format!(r#"{{"num_attention_heads": 2, "rope_theta": {theta}}}"#);
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        load(folder.path().to_str().unwrap(), &LoadOptions::default())
    };
    let (usual, other) = (with_theta("100.0").unwrap(), with_theta("1e4").unwrap());
    assert_eq!(usual.backbone.spec().architecture, "dinov3_reg2_d24_depth2_heads2_patch4");
    assert_eq!(other.backbone.spec().architecture, "dinov3_reg2_d24_depth2_heads2_patch4_theta10000");
    assert_eq!(patches(&usual, (2, 3)), patches(&load_golden("dinov3", "hf"), (2, 3)));
    assert!(far(&patches(&usual, (2, 3)), &patches(&other, (2, 3))) > 1e-3);
    refused(with_theta("0"), &["config.json", "rope_theta is 0"]);
}

#[test]
fn wrong_tensors_are_named() {
    for (family, file, _, r) in MODELS {
        let state = state_dict(family, file);
        let d = state["norm.weight"].dims()[0];
        let with = |name: &str, t: Tensor| {
            let mut changed = state.clone();
            changed.insert(name.to_owned(), t);
            load_tensors(&changed)
        };
        let without = |name: &str| {
            let mut changed = state.clone();
            changed.remove(name).unwrap();
            load_tensors(&changed)
        };
        let model = if family == "dinov2" { "a DINOv2 of 2 blocks" } else { "a DINOv3 of 2 blocks" };
        refused(
            without("blocks.1.ls1.gamma"),
            &["x.safetensors", model, &format!("missing blocks.1.ls1.gamma [{d}]")],
        );
        refused(without("cls_token"), &["missing cls_token"]);
        refused(
            with("blocks.0.ls2.gamma", zeros(&[3])),
            &[&format!("blocks.0.ls2.gamma is [3], expected [{d}]")],
        );
        refused(with("blocks.0.ls3.gamma", zeros(&[3])), &["surplus blocks.0.ls3.gamma"]);
        refused(
            with("blocks.0.ls1.gamma", (zeros(&[d]) / 0.0).unwrap()),
            &["blocks.0.ls1.gamma", &format!("{d} values")],
        );
        if family == "dinov2" {
            refused(without("pos_embed"), &["no vision transformer"]);
            refused(with("pos_embed", zeros(&[1, 9, d])), &["pos_embed is [1, 9, 8], expected [1, 5, 8]"]);
        } else {
            refused(with("pos_embed", zeros(&[1, 10, d])), &["surplus pos_embed"]);
            // A DINOv3 may have none of them: that is another architecture.
            let none = without("storage_tokens").unwrap().backbone;
            assert_eq!(none.spec().architecture, "dinov3_reg0_d24_depth2_heads2_patch4");
        }
        if r > 0 {
            let registers = if family == "dinov2" { "register_tokens" } else { "storage_tokens" };
            refused(with(registers, zeros(&[1, r, d + 1])), &[registers, &format!("expected [1, {r}, {d}]")]);
        }
    }
}

#[test]
fn gated_perceptrons_are_refused() {
    for (family, file, gated) in [
        ("dinov2", "plain.pth", "blocks.0.mlp.w12.weight"),
        ("dinov2", "reg.pth", "blocks.1.mlp.w3.bias"),
        ("dinov3", "original.pth", "blocks.0.mlp.w1.weight"),
        ("dinov3", "timm.pth", "blocks.0.mlp.fc1_g.weight"),
    ] {
        let mut state = state_dict(family, file);
        state.insert(gated.to_owned(), zeros(&[16, 8]));
        refused(load_tensors(&state), &["SwiGLU", gated]);
    }
    for (folder, gated) in [
        ("dinov2/plain_hf", "encoder.layer.0.mlp.weights_in.weight"),
        ("dinov3/hf", "layer.0.mlp.gate_proj.weight"),
    ] {
        let file = golden(folder, "model.safetensors");
        let mut state = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
        state.insert(gated.to_owned(), zeros(&[16, 8]));
        refused(load_tensors(&state), &["SwiGLU", "blocks.0.mlp."]);
    }
    // timm packs both halves into one map.
    let mut packed = state_dict("dinov2", "reg_timm.pth");
    packed.insert("blocks.0.mlp.fc1.weight".to_owned(), zeros(&[32, 8]));
    refused(load_tensors(&packed), &["SwiGLU", "blocks.0.mlp.fc1.weight"]);
}

/// Samples of a file's bytes damaged in turn: an error or a model, but no panic.
#[test]
fn damaged_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pth");
    for (family, file) in [
        ("dinov2", "reg_hf/model.safetensors"),
        ("dinov2", "reg_timm.pth"),
        ("dinov3", "hf/model.safetensors"),
    ] {
        let sound = std::fs::read(golden(family, file)).unwrap();
        for at in (0..4096).step_by(7).chain((4096..sound.len()).step_by(997)) {
            let mut bytes = sound.clone();
            bytes[at] ^= 0xff;
            std::fs::write(&path, &bytes).unwrap();
            if let Err(error) = load(path.to_str().unwrap(), &options()) {
                assert!(error.is_integrity(), "byte {at} of {file}: {error}");
            }
        }
    }
}

#[test]
fn random_models_of_every_kind_run() {
    for (name, p, r) in [
        ("dinov2_micro_patch14", 14, 0),
        ("dinov2_reg4_micro_patch14", 14, 4),
        ("dinov3_micro_patch16", 16, 4),
    ] {
        let loaded = load(&format!("random:{name}:1"), &LoadOptions::default()).unwrap();
        let spec = loaded.backbone.spec();
        assert_eq!((&spec.architecture[..], spec.patch_size, spec.registers), (name, p, r));
        assert_eq!((spec.embed_dim, spec.feature_dim(Layer::default())), (192, 192));
        let one = patches(&loaded, (2, 3));
        assert!(one.len() == 6 * 192 && one.iter().all(|v| v.is_finite()));
        let again = load(&format!("random:{name}:1"), &LoadOptions::default()).unwrap();
        assert_eq!((patches(&again, (2, 3)), &again.fingerprint), (one.clone(), &loaded.fingerprint));
        assert_ne!(patches(&load(&format!("random:{name}"), &LoadOptions::default()).unwrap(), (2, 3)), one);
        let heads = |num_heads| LoadOptions { num_heads: Some(num_heads), ..LoadOptions::default() };
        let other = load(&format!("random:{name}:1"), &heads(6)).unwrap();
        assert!(other.backbone.spec().architecture.contains("heads6"));
        assert!(load(&format!("random:{name}:1"), &heads(5)).err().unwrap().is_usage());
    }
    // 192 dimensions of 32 heads are 6 each: no whole number of turned pairs for rows and columns.
    let odd = LoadOptions { num_heads: Some(32), ..LoadOptions::default() };
    assert!(load("random:dinov2_micro_patch14", &odd).is_ok());
    assert!(matches!(
        load("random:dinov3_micro_patch16", &odd),
        Err(Error::RotatedHeads { head_dim: 6, .. })
    ));
}

#[test]
fn a_grid_that_comes_back_gives_the_same_numbers() {
    for name in ["dinov2_micro_patch14", "dinov3_micro_patch16"] {
        let load = || load(&format!("random:{name}"), &LoadOptions::default()).unwrap();
        let loaded = load();
        for grid in [(2, 3), (3, 2), (2, 3), (1, 4), (3, 2)] {
            assert_eq!(patches(&loaded, grid), patches(&load(), grid), "{name} {grid:?}");
        }
    }
}
