//! `featlab segment`: a model from a cache, its scores, label maps of pictures of any size, and checkpoints of the original.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::fixture::{Scratch, expect, extract, featlab};

/// A cache of drawn street pictures, and a small STEGO trained on it.
fn trained(scratch: &Scratch) -> (PathBuf, PathBuf, Value) {
    let root = scratch.camvid(6, 3);
    let dataset = format!("camvid:{}", root.display());
    let (train, val) = (scratch.path("train"), scratch.path("val"));
    expect(extract(&dataset, &train).args(["--split", "train"]), 0);
    expect(extract(&dataset, &val).args(["--split", "val"]), 0);
    let model = scratch.path("model");
    let (said, _) = expect(segment("train").args(train_settings(&train, &val)).arg("--out").arg(&model), 0);
    (root, model, serde_json::from_str(&said).unwrap())
}

fn train_settings(train: &Path, val: &Path) -> Vec<String> {
    let fixed = [
        "--json",
        "--dims",
        "5",
        "--set",
        "max_steps=12",
        "--set",
        "batch_size=4",
        "--set",
        "num_neighbors=3",
    ];
    let mut all: Vec<String> = fixed.map(String::from).into();
    all.extend([
        "--cache-train".into(),
        train.display().to_string(),
        "--cache-val".into(),
        val.display().to_string(),
    ]);
    all
}

fn segment(command: &str) -> Command {
    let mut program = featlab();
    program.args(["segment", command]);
    program
}

/// Pictures of several sizes, one in a folder below, and one that is none.
fn photos(scratch: &Scratch) -> PathBuf {
    let folder = scratch.path("photos");
    for (name, (w, h)) in [("wide", (150, 40)), ("small", (7, 9)), ("deep/tall", (31, 97))] {
        let picture =
            RgbImage::from_fn(w, h, |x, y| Rgb([(x * 5) as u8, (y * 3) as u8, (x * y % 251) as u8]));
        let path = folder.join(format!("{name}.png"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture.save(path).unwrap();
    }
    fs::write(folder.join("broken.jpg"), b"no picture").unwrap();
    folder
}

/// The bytes of an indexed PNG and its size.
fn labels(path: &Path) -> ((u32, u32), Vec<u8>) {
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap())).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut bytes).unwrap();
    let info = reader.info();
    assert_eq!(info.color_type, png::ColorType::Indexed, "{}", path.display());
    ((info.width, info.height), bytes)
}

#[test]
fn label_maps_have_the_size_of_their_pictures_whatever_the_threads() {
    let scratch = Scratch::new();
    let (_, model, said) = trained(&scratch);
    let probes: Vec<&str> =
        said["probes"].as_array().unwrap().iter().map(|p| p["probe"].as_str().unwrap()).collect();
    assert_eq!((said["method"].as_str(), probes), (Some("stego"), vec!["linear", "cluster"]));
    let photos = photos(&scratch);
    let predict = |out: &Path, threads: &str, more: &[&str], code: i32| {
        let mut command = segment("predict");
        command.arg(&photos).args(["--json", "--res", "32", "--model"]).arg(&model).arg("--out").arg(out);
        expect(command.args(more).env("RAYON_NUM_THREADS", threads), code)
    };
    let (one, two) = (scratch.path("one"), scratch.path("two"));
    let all = ["--crf", "--flip-average", "--write", "labels,overlay,probabilities"];
    let (said, log) = predict(&one, "1", &all, 3);
    assert!(log.contains("skipped broken"), "{log}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((said["written"].as_u64(), said["skipped"].as_u64()), (Some(3), Some(1)));
    assert!(said["images_per_s"].as_f64().unwrap() > 0.0);
    predict(&two, "5", &all, 3);
    for (name, size) in [("wide", (150, 40)), ("small", (7, 9)), ("deep/tall", (31, 97))] {
        for probe in ["linear", "cluster"] {
            let file = format!("{probe}/{name}.png");
            let ((w, h), bytes) = labels(&one.join(&file));
            assert_eq!((w, h), size, "{file}");
            assert!(bytes.iter().all(|&label| label < 11 || label == 255), "{file}");
            assert_eq!(labels(&two.join(&file)).1, bytes, "{file}");
            let overlay = image::open(one.join(format!("{probe}-overlay/{name}.png"))).unwrap();
            assert_eq!((overlay.width(), overlay.height()), size);
            let probabilities = format!("{probe}-probabilities/{name}.safetensors");
            assert_eq!(
                fs::read(one.join(&probabilities)).unwrap(),
                fs::read(two.join(&probabilities)).unwrap()
            );
        }
        let legend: Value =
            serde_json::from_slice(&fs::read(one.join("cluster-classes.json")).unwrap()).unwrap();
        assert_eq!(legend.as_array().unwrap().len(), 11);
    }

    // What is there stays; what is lost comes back; other options need another folder.
    fs::remove_file(one.join("linear/small.png")).unwrap();
    let (said, _) = predict(&one, "2", &all, 3);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((said["written"].as_u64(), said["kept"].as_u64()), (Some(1), Some(2)));
    let (_, log) = predict(&one, "2", &["--raw"], 2);
    assert!(log.contains("other options"), "{log}");
    // Overwritten by one picture alone, the folder holds no map of the others with the old options.
    let mut alone = segment("predict");
    alone.arg(photos.join("small.png")).args(["--raw", "--overwrite", "--res", "32", "--model"]).arg(&model);
    expect(alone.arg("--out").arg(&two), 0);
    assert!(two.join("linear/small.png").exists() && !two.join("linear/wide.png").exists());
    // The original's square: what lies beside it was not looked at.
    let center = scratch.path("center");
    predict(&center, "2", &["--view", "center", "--probe", "linear"], 3);
    let ((w, _), bytes) = labels(&center.join("linear/wide.png"));
    let seen: Vec<usize> = (0..150).filter(|x| bytes[20 * w as usize + x] != 255).collect();
    assert_eq!((seen[0], seen.len()), (55, 40));
    assert!(!center.join("cluster").exists());
}

#[test]
fn scores_are_those_of_the_cache_and_clusters_keep_their_names() {
    let scratch = Scratch::new();
    let (root, model, trained) = trained(&scratch);
    let dataset = format!("camvid:{}", root.display());
    let eval = |model: &Path, more: &[&str], code: i32| {
        let mut command = segment("eval");
        command
            .args(["--json", "--dataset", &dataset, "--view", "center", "--res", "32", "--model"])
            .arg(model);
        expect(command.args(more), code)
    };
    let (said, _) = eval(&model, &[], 0);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["pictures"], 3);
    // The cache has 16 bits; the pictures are seen in 32.
    for (at, probe) in said["probes"].as_array().unwrap().iter().enumerate() {
        let (cached, seen) =
            (trained["probes"][at]["miou"].as_f64().unwrap(), probe["miou"].as_f64().unwrap());
        assert!((cached - seen).abs() < 0.01, "{probe} {cached}");
    }
    let (again, _) = eval(&model, &["--naming", "model"], 0);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert!(
        (again["probes"][1]["miou"].as_f64().unwrap() - said["probes"][1]["miou"].as_f64().unwrap()).abs()
            < 0.02
    );
    // Whole pictures, with CRF and flip, and the model saved with the names that its clusters got.
    let saved = scratch.path("saved");
    let saved_text = saved.display().to_string();
    let (whole, _) = expect(
        segment("eval")
            .args([
                "--dataset",
                &dataset,
                "--res",
                "32",
                "--crf",
                "--flip-average",
                "--boundary-iou",
                "--save",
                &saved_text,
            ])
            .arg("--model")
            .arg(&model),
        0,
    );
    assert!(whole.contains("slide view of 32 pixels, flip average, CRF"), "{whole}");
    let (_, log) = eval(&saved, &["--save", &saved_text], 2);
    assert!(log.contains("holds a model"), "{log}");
    eval(&scratch.path("nothing"), &[], 2);
    let (_, log) = eval(&model, &["--backbone", "random:vit_micro_patch8:1"], 4);
    assert!(log.contains("give --backbone"), "{log}");
    let odd =
        segment("eval").args(["--dataset", &dataset, "--res", "33", "--model"]).arg(&model).output().unwrap();
    let log = String::from_utf8_lossy(&odd.stderr).into_owned();
    assert!(odd.status.code() == Some(2) && log.contains("multiple of the patch of 8"), "{log}");
}

#[test]
fn probes_on_a_reducer_and_training_without_labels() {
    let scratch = Scratch::new();
    let root = scratch.camvid(6, 2);
    let cache = scratch.path("cache");
    expect(&mut extract(&format!("camvid:{}", root.display()), &cache), 0);
    let pca = scratch.path("pca.safetensors");
    expect(featlab().args(["reduce", "pca", "--cache"]).arg(&cache).arg("--out").arg(&pca), 0);
    let model = scratch.path("model");
    let mut train = segment("train");
    train
        .args(["--dims", "4", "--set", "max_steps=10", "--reducer"])
        .arg(&pca)
        .arg("--cache-train")
        .arg(&cache);
    let (said, _) = expect(train.arg("--out").arg(&model), 0);
    assert!(said.contains("pca, 4 dimensions") && said.contains("cluster"), "{said}");
    let (_, log) = expect(segment("export").arg("--model").arg(&model).args(["--out", "x.ckpt"]), 2);
    assert!(log.contains("codes come from pca"), "{log}");

    let plain = scratch.path("plain");
    expect(&mut extract(&format!("folder:{}", root.join("images/train").display()), &plain), 0);
    let unlabelled = scratch.path("unlabelled");
    let mut train = segment("train");
    train.args([
        "--json",
        "--dims",
        "4",
        "--set",
        "max_steps=5",
        "--set",
        "num_neighbors=2",
        "--clusters",
        "7",
    ]);
    let (said, _) = expect(train.arg("--cache-train").arg(&plain).arg("--out").arg(&unlabelled), 0);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["probes"], Value::Array(vec![]));
    let out = scratch.path("out");
    let mut predict = segment("predict");
    predict.arg(root.join("images/val/frame_00.png")).args(["--res", "32", "--model"]).arg(&unlabelled);
    expect(predict.arg("--out").arg(&out), 0);
    assert!(labels(&out.join("cluster/frame_00.png")).1.iter().all(|&label| label < 7));
    assert!(!out.join("linear").exists());
}

#[test]
fn training_from_pictures_with_every_term() {
    let scratch = Scratch::new();
    let dataset = format!("camvid:{}", scratch.camvid(5, 2).display());
    let val = scratch.path("val");
    expect(extract(&dataset, &val).args(["--split", "val"]), 0);
    let train = |out: &Path, threads: &str, more: &[&str], code: i32| {
        let mut command = segment("train");
        command.args([
            "--dataset",
            &dataset,
            "--backbone",
            crate::fixture::BACKBONE,
            "--res",
            "32",
            "--dims",
            "4",
        ]);
        command.args([
            "--set",
            "max_steps=4",
            "--set",
            "batch_size=4",
            "--set",
            "num_neighbors=3",
            "--cache-val",
        ]);
        expect(command.arg(&val).args(more).arg("--out").arg(out).env("RAYON_NUM_THREADS", threads), code)
    };
    let terms = ["--set", "aug_alignment_weight=0.2", "--set", "crf_weight=0.1", "--set", "rec_weight=0.1"];
    let (one, two, plain) = (scratch.path("one"), scratch.path("two"), scratch.path("plain"));
    let (said, log) = train(&one, "1", &terms, 0);
    assert!(said.contains("linear") && log.contains("alignment") && log.contains("CRF"), "{said} {log}");
    train(&two, "3", &terms, 0);
    train(&plain, "2", &[], 0);
    let read = |model: &Path, file: &str| fs::read(model.join(file)).unwrap();
    for file in ["reducer.safetensors", "probes.safetensors", "segmenter.json"] {
        assert_eq!(read(&one, file), read(&two, file), "{file}");
    }
    assert_ne!(read(&one, "reducer.safetensors"), read(&plain, "reducer.safetensors"));

    // A cache has no pictures to augment.
    let cache = scratch.path("train");
    expect(extract(&dataset, &cache).args(["--split", "train"]), 0);
    let mut command = segment("train");
    command.args([
        "--dims",
        "4",
        "--set",
        "crf_weight=0.1",
        "--set",
        "batch_size=4",
        "--set",
        "num_neighbors=3",
    ]);
    let (_, log) = expect(command.arg("--cache-train").arg(&cache).arg("--out").arg(scratch.path("none")), 2);
    assert!(log.contains("crf_weight needs pictures"), "{log}");
    let (_, log) = expect(segment("train").arg("--out").arg(scratch.path("none")), 2);
    assert!(log.contains("--cache-train"), "{log}");
}

#[test]
fn a_lightning_checkpoint_predicts_what_pytorch_does_and_comes_back() {
    let python = std::env::var("FEATLAB_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import torch, numpy, PIL"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} with torch and pillow is not present");
        return;
    }
    let scratch = Scratch::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/cli/stego_checkpoint.py");
    let (checkpoint, picture) = (scratch.path("stego.ckpt"), scratch.path("picture.png"));
    let pixels =
        RgbImage::from_fn(96, 96, |x, y| Rgb([(x * 2) as u8, ((x / 11 + y / 17) * 40) as u8, (y * 2) as u8]));
    pixels.save(&picture).unwrap();
    let wrote =
        Command::new(&python).arg(script).arg(&checkpoint).arg(&picture).arg(scratch.path("")).status();
    assert!(wrote.unwrap().success());
    let predict = |model: &Path, out: &Path| {
        let mut command = segment("predict");
        command
            .arg(&picture)
            .args(["--res", "96", "--flip-average", "--write", "labels", "--model"])
            .arg(model);
        expect(command.arg("--out").arg(out), 0);
    };
    let out = scratch.path("out");
    predict(&checkpoint, &out);
    for probe in ["linear", "cluster"] {
        let ours = labels(&out.join(format!("{probe}/picture.png"))).1;
        let theirs = fs::read(scratch.path(&format!("{probe}.bin"))).unwrap();
        let different = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
        let classes = (0..4).filter(|class| theirs.contains(class)).count();
        println!("{probe}: {different} of {} pixels differ from PyTorch's, {classes} classes", theirs.len());
        assert!(ours.len() == theirs.len() && different <= 2 && classes > 1);
    }
    // Exported and read again it is the same model; torch.load finds the original's keys.
    let exported = scratch.path("exported.ckpt");
    expect(segment("export").arg("--model").arg(&checkpoint).arg("--out").arg(&exported), 0);
    let again = scratch.path("again");
    predict(&exported, &again);
    for probe in ["linear/picture.png", "cluster/picture.png"] {
        assert_eq!(fs::read(out.join(probe)).unwrap(), fs::read(again.join(probe)).unwrap());
    }
    let keys = Command::new(&python).arg(script).arg("export").arg(&exported).output().unwrap();
    let keys = String::from_utf8(keys.stdout).unwrap();
    for key in [
        "net.model.blocks.1.mlp.fc2.weight [192, 768]",
        "net.cluster2.2.weight [6, 192, 1, 1]",
        "linear_probe.weight [4, 6, 1, 1]",
        "cluster_probe.clusters [4, 6]",
    ] {
        assert!(keys.contains(key), "{key}\n{keys}");
    }
}
