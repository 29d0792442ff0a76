//! Checkpoints as they are found in the wild: wrapped, renamed, damaged, hostile.
//!
//! Sound files are made from the golden one (`tests/golden/backbone`) by repacking its tensors; the rest by breaking
//! it. Whatever a file holds, loading ends in a model or in an error that names the file and what is wrong with it,
//! and never runs anything.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` may panic too")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use backbone::{Error, Layer, LoadOptions, Loaded, Origin, load};
use candle_core::{DType, Device, Tensor};

type Tensors = HashMap<String, Tensor>;

/// Two heads: no family has eight dimensions.
fn options() -> LoadOptions {
    LoadOptions { num_heads: Some(2), ..LoadOptions::default() }
}

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/backbone").join(file)
}

/// The golden weights under DINO's names.
fn state_dict() -> Tensors {
    candle_core::pickle::read_all(golden("weights.pth")).unwrap().into_iter().collect()
}

/// Writes tensors as `FOLDER/NAME.safetensors` and loads that.
fn load_tensors(tensors: &Tensors) -> backbone::Result<Loaded> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    candle_core::safetensors::save(tensors, &path).unwrap();
    load(path.to_str().unwrap(), &options())
}

fn load_bytes(bytes: &[u8]) -> backbone::Result<Loaded> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pth");
    std::fs::write(&path, bytes).unwrap();
    load(path.to_str().unwrap(), &options())
}

/// Tokens of one image, as numbers.
fn tokens(loaded: &Loaded) -> Vec<f32> {
    let pixels: Vec<f32> = (0..3 * 24 * 32).map(|i| (i as f32 * 0.37).sin()).collect();
    let image = Tensor::from_vec(pixels, (1, 3, 24, 32), &Device::Cpu).unwrap();
    let features = loaded.backbone.forward_features(&image, Layer::default()).unwrap();
    features.patches.flatten_all().unwrap().to_vec1().unwrap()
}

/// The error of a damaged file: of the integrity kind, and with all of these words.
fn refused(result: backbone::Result<Loaded>, words: &[&str]) {
    let error = result.err().unwrap();
    assert!(error.is_integrity() && !error.is_usage(), "{error}");
    words.iter().for_each(|word| assert!(error.to_string().contains(word), "\"{word}\" is not in: {error}"));
}

#[test]
fn prefixes_and_heads_do_not_matter() {
    let plain = load_tensors(&state_dict()).unwrap();
    assert!(plain.note.is_empty());
    for prefix in ["module.", "backbone.", "module.backbone.", "net.model.", "module.net.model.backbone."] {
        let mut wrapped: Tensors =
            state_dict().into_iter().map(|(name, t)| (format!("{prefix}{name}"), t)).collect();
        wrapped.insert("head.mlp.0.weight".to_owned(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
        let loaded = load_tensors(&wrapped).unwrap();
        assert_eq!(tokens(&loaded), tokens(&plain), "{prefix}");
        assert!(loaded.note.join("").contains("head.mlp.0.weight"), "{:?}", loaded.note);
        assert_ne!(loaded.fingerprint, plain.fingerprint);
    }
}

#[test]
fn all_containers_hold_the_same_weights() {
    let expected = tokens(&load_tensors(&state_dict()).unwrap());
    for file in ["weights.pth", "weights_legacy.pth", "hf", "hf/model.safetensors"] {
        let path = golden(file);
        let loaded = load(path.to_str().unwrap(), &options()).unwrap();
        assert_eq!(tokens(&loaded), expected, "{file}");
        assert_eq!(loaded.fingerprint.len(), 64);
        assert!(matches!(&loaded.origin, Origin::File(found) if found.starts_with(&path)));
    }
}

#[test]
fn rounded_weights_are_widened() {
    let exact = tokens(&load_tensors(&state_dict()).unwrap());
    for (dtype, tolerance) in [(DType::F64, 0.0), (DType::F16, 0.05), (DType::BF16, 0.3)] {
        let rounded = state_dict().into_iter().map(|(name, t)| (name, t.to_dtype(dtype).unwrap())).collect();
        let tokens = tokens(&load_tensors(&rounded).unwrap());
        let off = tokens.iter().zip(&exact).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
        assert!(off <= tolerance && (off > 0.0 || dtype == DType::F64), "{dtype:?}: {off}");
    }
}

#[test]
fn wrong_tensors_are_named() {
    let mut missing = state_dict();
    missing.remove("norm.bias");
    refused(load_tensors(&missing), &["x.safetensors", "missing norm.bias [8]"]);

    let mut surplus = state_dict();
    surplus.insert("blocks.1.ls1.gamma".to_owned(), Tensor::zeros(8, DType::F32, &Device::Cpu).unwrap());
    refused(load_tensors(&surplus), &["surplus blocks.1.ls1.gamma [8]"]);

    let mut misshapen = state_dict();
    misshapen.insert("pos_embed".to_owned(), Tensor::zeros((1, 8, 8), DType::F32, &Device::Cpu).unwrap());
    misshapen.insert("norm.weight".to_owned(), Tensor::zeros(7, DType::F32, &Device::Cpu).unwrap());
    refused(
        load_tensors(&misshapen),
        &["pos_embed is [1, 8, 8], expected [1, 5, 8]", "norm.weight is [7], expected [8]"],
    );

    let other = [("conv1.weight".to_owned(), Tensor::zeros(8, DType::F32, &Device::Cpu).unwrap())].into();
    refused(load_tensors(&other), &["no vision transformer", "conv1.weight"]);
    refused(load_tensors(&Tensors::new()), &["no tensors"]);
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut weights = state_dict();
        let values = Tensor::from_vec(vec![0.0, bad, 0.0, bad, 0.0, 0.0, 0.0, 0.0], 8, &Device::Cpu).unwrap();
        weights.insert("blocks.1.norm2.bias".to_owned(), values);
        refused(load_tensors(&weights), &["blocks.1.norm2.bias", "2 values"]);
    }
    let integers = state_dict().into_iter().map(|(name, t)| (name, t.to_dtype(DType::U8).unwrap())).collect();
    refused(load_tensors(&integers), &["U8"]);
}

#[test]
fn truncated_files_are_refused() {
    for file in ["weights.pth", "weights_legacy.pth", "hf/model.safetensors"] {
        let bytes = std::fs::read(golden(file)).unwrap();
        for keep in [0, 1, 8, 100, 1000, bytes.len() / 2, bytes.len() - 1] {
            refused(load_bytes(&bytes[..keep]), &["x.pth"]);
        }
    }
}

/// Every byte of a small file damaged in turn: an error or a model, but no panic. A zip archive has checksums for all
/// that it holds, so that there the weights are the true ones where it loads.
#[test]
fn damaged_bytes_never_panic() {
    let expected = tokens(&load_tensors(&state_dict()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    for (file, step) in [("weights.pth", 97), ("weights_legacy.pth", 89), ("hf/model.safetensors", 101)] {
        let sound = std::fs::read(golden(file)).unwrap();
        // All of the first kilobyte, where the structure is, and samples of the rest.
        for at in (0..1024).step_by(3).chain((1024..sound.len()).step_by(step)) {
            let mut bytes = sound.clone();
            bytes[at] ^= 0xff;
            let path = folder.path().join("x.pth");
            std::fs::write(&path, &bytes).unwrap();
            let result = load(path.to_str().unwrap(), &options());
            match result {
                Ok(loaded) if file == "weights.pth" => assert_eq!(tokens(&loaded), expected, "byte {at}"),
                Ok(_) => {}
                Err(error) => assert!(error.is_integrity(), "byte {at} of {file}: {error}"),
            }
        }
    }
}

#[test]
fn other_files_are_refused() {
    refused(load_bytes(&[0x5a; 4096]), &["neither a zip archive"]);
    refused(load_bytes(b"\x80\x02}."), &["neither a zip archive"]);
    refused(load_bytes(b"PK\x03\x04 and then nothing"), &["zip"]);
    refused(load_bytes(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat()), &["safetensors"]);
}

#[test]
fn foreign_classes_are_carried_along_and_never_called() {
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("was_run");
    let text = |s: &str| [&b"X"[..], &(s.len() as u32).to_le_bytes(), s.as_bytes()].concat();
    // An object of an unknown class with a state, and a call of os.system, as entries of the checkpoint.
    let command = format!("touch {}", witness.display());
    let foreign =
        [b"comegaconf.dictconfig\nDictConfig\n)\x81}".to_vec(), text("a"), b"K\x01sb".to_vec()].concat();
    let call = [b"cposix\nsystem\n".to_vec(), text(&command), b"\x85R".to_vec()].concat();
    let entries = [text("cfg"), foreign, b"s".to_vec(), text("evil"), call, b"s".to_vec()].concat();

    let sound = std::fs::read(golden("weights_legacy.pth")).unwrap();
    let object = legacy_object(&sound);
    let patched =
        [&sound[..object], &b"\x80\x02}"[..], &entries, &text("model"), &sound[object + 2..]].concat();
    // The state dict, which was the whole object, now is the entry "model" of ours: its STOP becomes SETITEM, STOP.
    let stop = object + pickle_length(&sound[object..]) - 1 + (patched.len() - sound.len());
    let patched = [&patched[..stop], b"s.", &patched[stop + 1..]].concat();
    let loaded = load_bytes(&patched).unwrap();
    assert_eq!(tokens(&loaded), tokens(&load_bytes(&sound).unwrap()));
    assert!(loaded.note.join("").contains("\"model\""), "{:?}", loaded.note);

    let alone = [&sound[..object], &b"\x80\x02}"[..], &entries, b".\x80\x02]."].concat();
    refused(load_bytes(&alone), &["no tensors"]);
    assert!(!witness.exists(), "a pickle was executed");
}

/// Where the fourth pickle of the old container starts, which is the object: after the magic number, protocol, sizes.
fn legacy_object(bytes: &[u8]) -> usize {
    (0..3).fold(0, |at, _| at + pickle_length(&bytes[at..]))
}

/// Length of a pickle that torch wrote, told by the next one's start (protocol 2) after its STOP.
fn pickle_length(bytes: &[u8]) -> usize {
    1 + bytes.windows(3).position(|w| w == b".\x80\x02").unwrap()
}

#[test]
fn missing_files_and_heads_are_the_users_matter() {
    let usage = |name: &str| {
        let error = load(name, &LoadOptions::default()).err().unwrap();
        assert!(error.is_usage() && !error.is_integrity(), "{name}: {error}");
        error.to_string()
    };
    let folder = tempfile::tempdir().unwrap();
    assert!(usage(folder.path().to_str().unwrap()).contains("model.safetensors"));
    assert!(usage(folder.path().join("no.pth").to_str().unwrap()).contains("does not exist"));
    assert!(usage(golden("weights.pth").to_str().unwrap()).contains("--num-heads"));
    usage("no such model");
}

#[test]
fn a_folder_whose_config_is_another_models_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden("hf/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"hidden_size": 384, "num_attention_heads": 6}"#)
        .unwrap();
    refused(
        load(folder.path().to_str().unwrap(), &LoadOptions::default()),
        &["config.json", "hidden_size is 384"],
    );
}

#[test]
fn the_epsilon_of_a_config_reaches_the_norms() {
    let with_eps = |eps: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(golden("hf/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let config = format!(r#"{{"num_attention_heads": 2, "layer_norm_eps": {eps}}}"#);
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        load(folder.path().to_str().unwrap(), &LoadOptions::default()).unwrap()
    };
    let (usual, large) = (with_eps("1e-6"), with_eps("1e10"));
    assert_eq!(tokens(&usual), tokens(&load_tensors(&state_dict()).unwrap()));
    assert_ne!(usual.backbone.spec().architecture, large.backbone.spec().architecture);
    // With so large an epsilon nothing is left of a token but the last norm's bias.
    let bias = state_dict()["norm.bias"].to_vec1::<f32>().unwrap();
    let off = tokens(&large).iter().zip(bias.iter().cycle()).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
    assert!(off < 1e-3, "{off}");
}

#[test]
fn images_and_blocks_are_checked() {
    let loaded = load("random:vit_micro_patch8", &LoadOptions::default()).unwrap();
    let shape = |shape: &[usize]| {
        let images = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        loaded.backbone.forward_features(&images, Layer::default()).err()
    };
    assert!(shape(&[1, 3, 16, 24]).is_none());
    for bad in [&[1, 3, 16, 20][..], &[1, 3, 12, 16], &[1, 1, 16, 16], &[3, 16, 16], &[1, 3, 0, 8]] {
        assert!(matches!(shape(bad), Some(Error::Images { patch_size: 8, .. })), "{bad:?}");
    }
    let images = Tensor::zeros((1, 3, 16, 16), DType::F32, &Device::Cpu).unwrap();
    assert!(loaded.backbone.attention(&images, 4).unwrap_err().is_usage());
}

#[test]
fn the_weights_inside_are_found_from_anywhere_and_trained() {
    let loaded = load("embedded:scenes-micro", &LoadOptions::default()).unwrap();
    assert_eq!(loaded.origin, Origin::Embedded);
    assert_eq!((loaded.backbone.spec().embed_dim, loaded.backbone.spec().num_heads), (192, 3));
    let random = load("random:vit_micro_patch8:0", &LoadOptions::default()).unwrap();
    assert_eq!(loaded.backbone.spec().architecture, random.backbone.spec().architecture);
    assert_ne!(loaded.fingerprint, random.fingerprint);
    assert!(loaded.note.is_empty(), "{:?}", loaded.note);
    let other_heads = LoadOptions { num_heads: Some(5), ..LoadOptions::default() };
    assert!(load("embedded:scenes-micro", &other_heads).is_err(), "192 dimensions have no five heads");
}
