//! Bad input: each kind ends with one clear line on stderr and the exit code that `featlab --help` states.

use std::fs;

use crate::fixture::{BACKBONE, Scratch, expect, extract, featlab, probe, sweep_file, write_pair};

/// The last line must name every word.
fn names(stderr: &str, words: &[&str]) {
    let line =
        stderr.lines().filter(|l| l.starts_with("error: ") || l.starts_with("warning: ")).collect::<Vec<_>>();
    assert!(!line.is_empty(), "no error or warning line in:\n{stderr}");
    for word in words {
        assert!(line.iter().any(|l| l.contains(word)), "\"{word}\" is not named in:\n{stderr}");
    }
    let errors = line.iter().filter(|l| l.starts_with("error: ")).count();
    assert!(errors <= 1, "more than one error line:\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_missing_folder() {
    let scratch = Scratch::new();
    let (_, stderr) = expect(&mut extract("folder:does/not/exist", &scratch.path("out")), 2);
    names(&stderr, &["does/not/exist"]);
    let (_, stderr) = expect(&mut extract("camvid:does/not/exist", &scratch.path("out")), 2);
    names(&stderr, &["does/not/exist"]);
}

#[test]
fn an_empty_folder() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("empty")).unwrap();
    let (_, stderr) =
        expect(&mut extract(&format!("folder:{}", scratch.path("empty").display()), &scratch.path("out")), 2);
    names(&stderr, &["empty"]);
}

#[test]
fn a_label_without_image_and_an_image_without_label() {
    let scratch = Scratch::new();
    let root = scratch.camvid(3, 1);
    fs::remove_file(root.join("images/train/frame_01.png")).unwrap();
    fs::remove_file(root.join("labels/train/frame_02.png")).unwrap();
    let mut command = extract(&format!("camvid:{}", root.display()), &scratch.path("out"));
    let (stdout, stderr) = expect(command.args(["--split", "train", "--json"]), 3);
    names(&stderr, &["frame_01", "frame_02"]);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((value["rows"].as_u64(), value["skipped"].as_u64()), (Some(1), Some(2)), "{stdout}");
}

#[test]
fn an_unreadable_jpeg_is_skipped_and_listed_again_on_the_second_run() {
    let scratch = Scratch::new();
    let folder = scratch.path("photos");
    fs::create_dir(&folder).unwrap();
    let picture = image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([x as u8, y as u8, 9]));
    picture.save(folder.join("good.jpg")).unwrap();
    let bytes = fs::read(folder.join("good.jpg")).unwrap();
    fs::write(folder.join("cut.jpg"), &bytes[..bytes.len() / 3]).unwrap();
    fs::write(folder.join("text.jpg"), b"not a picture").unwrap();
    let dataset = format!("folder:{}", folder.display());
    for _ in 0..2 {
        let (_, stderr) = expect(&mut extract(&dataset, &scratch.path("out")), 3);
        names(&stderr, &["cut", "text"]);
    }
}

#[test]
fn sixteen_bit_and_rgb_labels() {
    let scratch = Scratch::new();
    let root = scratch.camvid(3, 1);
    let wide = image::ImageBuffer::from_fn(64, 48, |_, _| image::Luma([300u16]));
    wide.save(root.join("labels/train/frame_00.png")).unwrap();
    image::RgbImage::new(64, 48).save(root.join("labels/train/frame_01.png")).unwrap();
    let mut command = extract(&format!("camvid:{}", root.display()), &scratch.path("out"));
    let (_, stderr) = expect(command.args(["--split", "train"]), 3);
    names(&stderr, &["frame_00", "16", "frame_01", "8-bit"]);
}

#[test]
fn a_class_index_out_of_range() {
    let scratch = Scratch::new();
    let root = scratch.camvid(2, 1);
    image::GrayImage::from_pixel(64, 48, image::Luma([77]))
        .save(root.join("labels/train/frame_01.png"))
        .unwrap();
    let mut command = extract(&format!("camvid:{}", root.display()), &scratch.path("out"));
    let (_, stderr) = expect(command.args(["--split", "train"]), 3);
    names(&stderr, &["frame_01", "77"]);
}

#[test]
fn a_label_of_another_size() {
    let scratch = Scratch::new();
    let root = scratch.camvid(2, 1);
    image::GrayImage::new(10, 10).save(root.join("labels/train/frame_01.png")).unwrap();
    let mut command = extract(&format!("camvid:{}", root.display()), &scratch.path("out"));
    let (_, stderr) = expect(command.args(["--split", "train"]), 3);
    names(&stderr, &["frame_01", "64", "10"]);
}

/// A safetensors file with the given tensors, all of shape `[n]`.
fn safetensors_file(path: &std::path::Path, tensors: &[(&str, Vec<usize>, f32)]) {
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, shape, value)| {
            // Not constant: layer norm of equal numbers is mostly rounding.
            let values = (0..shape.iter().product::<usize>()).map(|i| value * ((i * 37 % 19) as f32 - 8.0));
            let bytes = values.flat_map(f32::to_le_bytes).collect();
            ((*name).to_owned(), shape.clone(), bytes)
        })
        .collect();
    let views: Vec<_> = data
        .iter()
        .map(|(n, s, b)| {
            (n, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, s.clone(), b).unwrap())
        })
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Every tensor of a ViT with d = 64, one block, patch 8 and a 2 × 2 grid.
fn tiny_vit(value: f32) -> Vec<(&'static str, Vec<usize>, f32)> {
    let d = 64;
    vec![
        ("cls_token", vec![1, 1, d], value),
        ("pos_embed", vec![1, 5, d], value),
        ("patch_embed.proj.weight", vec![d, 3, 8, 8], value),
        ("patch_embed.proj.bias", vec![d], value),
        ("blocks.0.norm1.weight", vec![d], value),
        ("blocks.0.norm1.bias", vec![d], value),
        ("blocks.0.attn.qkv.weight", vec![3 * d, d], value),
        ("blocks.0.attn.qkv.bias", vec![3 * d], value),
        ("blocks.0.attn.proj.weight", vec![d, d], value),
        ("blocks.0.attn.proj.bias", vec![d], value),
        ("blocks.0.norm2.weight", vec![d], value),
        ("blocks.0.norm2.bias", vec![d], value),
        ("blocks.0.mlp.fc1.weight", vec![4 * d, d], value),
        ("blocks.0.mlp.fc1.bias", vec![4 * d], value),
        ("blocks.0.mlp.fc2.weight", vec![d, 4 * d], value),
        ("blocks.0.mlp.fc2.bias", vec![d], value),
        ("norm.weight", vec![d], value),
        ("norm.bias", vec![d], value),
    ]
}

fn extract_with(
    backbone: &std::path::Path,
    scratch: &Scratch,
    root: &std::path::Path,
) -> std::process::Command {
    let mut command = featlab();
    let dataset = format!("folder:{}", root.join("images").display());
    command
        .args(["extract", "--dataset", &dataset, "--res", "32", "--num-heads", "4", "--backbone"])
        .arg(backbone);
    command.arg("--out").arg(scratch.path("out"));
    command
}

#[test]
fn a_wrong_checkpoint() {
    let scratch = Scratch::new();
    let root = scratch.camvid(1, 1);
    let file = scratch.path("weights.safetensors");

    let mut tensors = tiny_vit(0.01);
    safetensors_file(&file, &tensors);
    expect(&mut extract_with(&file, &scratch, &root), 0);

    tensors[8].1 = vec![64, 63];
    tensors.remove(3);
    tensors.push(("blocks.0.extra", vec![2], 0.0));
    safetensors_file(&file, &tensors);
    let (_, stderr) = expect(&mut extract_with(&file, &scratch, &root), 4);
    names(&stderr, &["blocks.0.attn.proj.weight", "63", "patch_embed.proj.bias", "blocks.0.extra"]);

    fs::write(scratch.path("weights.pth"), b"PK\x03\x04 and then nothing").unwrap();
    let (_, stderr) = expect(&mut extract_with(&scratch.path("weights.pth"), &scratch, &root), 4);
    names(&stderr, &["weights.pth"]);
}

#[test]
fn another_checkpoint_under_the_same_cache() {
    let scratch = Scratch::new();
    let root = scratch.camvid(1, 1);
    let file = scratch.path("weights.safetensors");
    safetensors_file(&file, &tiny_vit(0.01));
    expect(&mut extract_with(&file, &scratch, &root), 0);
    safetensors_file(&file, &tiny_vit(0.02));
    let (_, stderr) = expect(&mut extract_with(&file, &scratch, &root), 4);
    names(&stderr, &["checkpoint_sha256"]);
}

#[test]
fn nan_weights() {
    let scratch = Scratch::new();
    let root = scratch.camvid(1, 1);
    let file = scratch.path("weights.safetensors");
    let mut tensors = tiny_vit(0.01);
    tensors[12].2 = f32::NAN;
    safetensors_file(&file, &tensors);
    let (_, stderr) = expect(&mut extract_with(&file, &scratch, &root), 4);
    names(&stderr, &["blocks.0.mlp.fc1.weight"]);
}

#[test]
fn a_missing_checkpoint_and_an_absent_model() {
    let scratch = Scratch::new();
    let root = scratch.camvid(1, 1);
    let (_, stderr) = expect(&mut extract_with(&scratch.path("nowhere.pth"), &scratch, &root), 2);
    names(&stderr, &["nowhere.pth"]);
    let mut command = extract_with(std::path::Path::new("dino_vits8"), &scratch, &root);
    let (_, stderr) = expect(command.env("HF_HOME", scratch.path("hub")), 2);
    names(&stderr, &["facebook/dino-vits8", "model.safetensors", "hub"]);
}

#[test]
fn a_resolution_that_is_not_a_multiple_of_the_patch() {
    let scratch = Scratch::new();
    let root = scratch.camvid(1, 1);
    let mut command = featlab();
    let dataset = format!("camvid:{}", root.display());
    command.args(["extract", "--dataset", &dataset, "--backbone", BACKBONE, "--res", "225", "--out"]);
    let (_, stderr) = expect(command.arg(scratch.path("out")), 2);
    names(&stderr, &["225", "8", "224", "232"]);
    assert!(!scratch.path("out").exists());
}

#[test]
fn an_unknown_config_key() {
    let scratch = Scratch::new();
    let root = scratch.camvid(1, 1);
    let file = sweep_file(&scratch, &root);
    let mut command = featlab();
    command.arg("sweep").arg(&file).args(["--set", "probe.stpes=3", "--out"]).arg(scratch.path("out"));
    let (_, stderr) = expect(&mut command, 2);
    names(&stderr, &["stpes"]);
    fs::write(&file, "name = 'x'\nbogus = 1\n").unwrap();
    let (_, stderr) = expect(featlab().arg("sweep").arg(&file), 2);
    names(&stderr, &["bogus", "sweep.toml"]);
}

#[test]
fn an_output_that_cannot_be_written() {
    let scratch = Scratch::new();
    let root = scratch.camvid(1, 1);
    // A file where a folder must be: refused for every user, root included.
    fs::write(scratch.path("blocked"), b"").unwrap();
    let out = scratch.path("blocked/cache");
    let (_, stderr) = expect(&mut extract(&format!("camvid:{}", root.display()), &out), 1);
    names(&stderr, &["blocked"]);
    let file = sweep_file(&scratch, &root);
    let (_, stderr) = expect(featlab().arg("sweep").arg(file).arg("--out").arg(&out), 1);
    names(&stderr, &["blocked"]);
}

#[test]
fn unknown_names_list_the_known_ones() {
    let scratch = Scratch::new();
    let root = scratch.camvid(1, 1);
    let dataset = format!("camvid:{}", root.display());
    for (option, value, known) in [
        ("--facet", "keys", "query"),
        ("--resize", "lanczos", "bicubic"),
        ("--dtype", "f8", "bf16"),
        ("--crop", "seven", "five"),
        ("--split", "dev", "train"),
        ("--device", "tpu", "cuda"),
        ("--precision", "half", "bf16"),
    ] {
        let mut command = extract(&dataset, &scratch.path("out"));
        let (_, stderr) = expect(command.args([option, value]), 2);
        names(&stderr, &[value, known]);
    }
    let (_, stderr) = expect(&mut extract("imagenet:x", &scratch.path("out")), 2);
    names(&stderr, &["imagenet", "camvid"]);
    let mut command = featlab();
    command.args(["extract", "--dataset", &dataset, "--backbone", "random:vit_huge", "--out"]);
    let (_, stderr) = expect(command.arg(scratch.path("out")), 2);
    names(&stderr, &["vit_huge", "vit_small_patch8"]);
}

#[test]
fn probes_without_labels() {
    let scratch = Scratch::new();
    let root = scratch.camvid(2, 1);
    let out = scratch.path("unlabelled");
    expect(&mut extract(&format!("folder:{}", root.join("images").display()), &out), 0);
    let (_, stderr) = expect(&mut probe(&out, &out, &scratch.path("runs")), 2);
    names(&stderr, &["no labels"]);
}

#[test]
fn a_damaged_or_foreign_reducer_and_an_empty_schedule() {
    let scratch = Scratch::new();
    let root = scratch.camvid(3, 1);
    let cache = scratch.path("cache");
    expect(extract(&format!("camvid:{}", root.display()), &cache).args(["--split", "train"]), 0);
    let probe = |arguments: &[&str]| {
        let mut command = probe(&cache, &cache, &scratch.path("runs"));
        command.args(arguments);
        command
    };
    fs::write(scratch.path("cut.safetensors"), b"12345678{").unwrap();
    let file = scratch.path("cut.safetensors").display().to_string();
    let (_, stderr) = expect(&mut probe(&["--reducer", &file]), 4);
    names(&stderr, &["cut.safetensors", "not a reducer"]);
    let (_, stderr) = expect(&mut probe(&["--steps", "0"]), 2);
    names(&stderr, &["steps"]);
    let (_, stderr) = expect(&mut probe(&["--batch-size", "0"]), 2);
    names(&stderr, &["batch_size"]);
}

#[test]
fn caches_and_reducers_that_do_not_belong_together() {
    let scratch = Scratch::new();
    let root = scratch.camvid(3, 1);
    let dataset = format!("camvid:{}", root.display());
    let (ours, scenes, other) = (scratch.path("ours"), scratch.path("scenes"), scratch.path("other"));
    expect(extract(&dataset, &ours).args(["--split", "train"]), 0);
    expect(&mut extract("scenes:train=2,val=2,size=48", &scenes), 0);
    let mut command = featlab();
    command.args([
        "extract",
        "--dataset",
        &dataset,
        "--backbone",
        "random:vit_micro_patch8:1",
        "--res",
        "32",
    ]);
    expect(command.arg("--out").arg(&other), 0);
    let reducer = scratch.path("pca.safetensors");
    expect(featlab().args(["reduce", "pca", "--cache"]).arg(&ours).arg("--out").arg(&reducer), 0);
    let probe = |train: &std::path::Path, val: &std::path::Path| {
        let mut command = probe(train, val, &scratch.path("runs"));
        command.args(["--steps", "2"]);
        command
    };
    let (_, stderr) = expect(&mut probe(&ours, &scenes), 4);
    names(&stderr, &["different classes", "Sky", "building"]);
    let (_, stderr) = expect(&mut probe(&ours, &other), 4);
    names(&stderr, &["different features"]);
    let (_, stderr) = expect(probe(&other, &other).args(["--dims", "3", "--reducer"]).arg(&reducer), 4);
    names(&stderr, &["was fitted on"]);
    expect(probe(&ours, &ours).args(["--seeds", "0,0", "--dims", "3,3", "--reducer"]).arg(&reducer), 0);
    let csv = fs::read_to_string(scratch.path("runs/results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 2, "one row for each probe, however often it was asked for:\n{csv}");
    let mut command = featlab();
    command.args(["reduce", "pca", "--out", "s3://bucket/x", "--cache"]).arg(&ours);
    let (_, stderr) = expect(&mut command, 2);
    names(&stderr, &["s3://"]);
}

#[test]
fn a_damaged_cache_is_found_and_not_read() {
    let scratch = Scratch::new();
    let root = scratch.camvid(3, 1);
    let out = scratch.path("cache");
    write_pair(&root, "train", "more", 9);
    expect(extract(&format!("camvid:{}", root.display()), &out).args(["--shard-rows", "2"]), 0);
    fs::write(out.join("notes.txt"), b"mine").unwrap(); // not ours, no damage
    expect(featlab().args(["cache", "verify"]).arg(&out), 0);
    let shard = out.join("shard-00001.parquet");
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let (_, stderr) = expect(featlab().args(["cache", "verify"]).arg(&out), 4);
    names(&stderr, &["shard-00001.parquet"]);
    let mut command = featlab();
    command.args(["reduce", "pca", "--cache"]).arg(&out).arg("--out").arg(scratch.path("pca.safetensors"));
    let (_, stderr) = expect(&mut command, 4);
    names(&stderr, &["shard-00001.parquet"]);
    assert!(!scratch.path("pca.safetensors").exists());
}
