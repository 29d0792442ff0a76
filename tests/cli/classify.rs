//! `featlab classify`: from a folder of classes to accuracies, and what it says about folders that are none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{BACKBONE, Scratch, expect, featlab};

/// A class folder of flat pictures: each class a colour of its own, with a little grain.
fn class_folder(scratch: &Scratch, classes: &[(&str, [u8; 3])], train: u32, val: u32) -> PathBuf {
    let root = scratch.path("classes");
    for (split, count) in [("train", train), ("val", val)] {
        for (name, colour) in classes {
            let folder = root.join(split).join(name);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..count {
                picture(&folder.join(format!("{i:02}.png")), *colour, i + 100 * u32::from(split == "val"));
            }
        }
    }
    root
}

fn picture(path: &Path, colour: [u8; 3], seed: u32) {
    let pixel = |x: u32, y: u32| colour.map(|c| c.saturating_add(((x * 7 + y * 13 + seed * 29) % 32) as u8));
    image::RgbImage::from_fn(40, 36, |x, y| image::Rgb(pixel(x, y))).save(path).unwrap();
}

const COLOURS: [(&str, [u8; 3]); 3] =
    [("blue", [10, 20, 200]), ("green", [20, 200, 10]), ("red", [200, 10, 20])];

fn classify(data: &Path, out: &Path) -> Command {
    classify_with(data, out, &["--res", "32", "--k", "1,3"])
}

fn classify_with(data: &Path, out: &Path, options: &[&str]) -> Command {
    let mut command = featlab();
    command.arg("classify").arg("--data").arg(data).args(["--backbone", BACKBONE]).args(options);
    command.args(["--epochs", "5", "--batch-size", "4", "--lr", "1"]).arg("--out").arg(out);
    command
}

fn rows(stdout: &str) -> Vec<serde_json::Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn colours_are_told_apart_and_results_are_kept() {
    let scratch = Scratch::new();
    let (data, out) = (class_folder(&scratch, &COLOURS, 4, 2), scratch.path("out"));
    let (stdout, _) = expect(classify(&data, &out).arg("--json"), 0);
    let first = rows(&stdout);
    let probes: Vec<_> =
        first.iter().map(|row| (row["probe"].as_str().unwrap(), row["k"].as_u64())).collect();
    assert_eq!(probes, [("knn", Some(1)), ("knn", Some(3)), ("linear", None)]);
    for row in &first {
        assert_eq!((row["train_images"].as_u64(), row["val_images"].as_u64()), (Some(12), Some(6)), "{row}");
        assert!(row["top1"].as_f64().unwrap() > 0.8 && row["top5"].as_f64() >= row["top1"].as_f64(), "{row}");
    }
    let log = fs::read_to_string(out.join("log.jsonl")).unwrap();
    let log = rows(&log);
    assert_eq!((log.len(), log[4]["epoch"].as_u64()), (5, Some(4)));
    assert!(log[4]["train_lr"].as_f64() < log[0]["train_lr"].as_f64());
    assert!(log[4]["test_acc5"].is_null(), "there are three classes");
    assert_eq!(fs::read_to_string(out.join("results.csv")).unwrap().lines().count(), 1 + 3);
    assert!(out.join("linear.safetensors").exists());

    // The same again computes nothing; other settings are refused, or use the features again.
    let (stdout, stderr) = expect(classify(&data, &out).arg("--json"), 0);
    assert_eq!(rows(&stdout), first);
    assert!(stderr.contains("nothing to compute"), "{stderr}");
    let (_, stderr) = expect(classify(&data, &out).args(["--seed", "1"]), 2);
    assert!(stderr.contains("--overwrite"), "{stderr}");
    let (stdout, stderr) = expect(classify(&data, &out).args(["--seed", "1", "--overwrite"]), 0);
    assert!(stderr.contains("features of 12 images are there"), "{stderr}");
    assert!(
        stdout.contains("3-NN classifier result: Top1: ") && stdout.contains("linear classifier"),
        "{stdout}"
    );
}

#[test]
fn the_same_numbers_on_one_thread_with_pooled_tokens() {
    let scratch = Scratch::new();
    let data = class_folder(&scratch, &COLOURS, 3, 2);
    let run = |threads: &str, out: &str| {
        let mut command = classify(&data, &scratch.path(out));
        command.args(["--n-last-blocks", "1", "--avgpool", "--json"]).env("RAYON_NUM_THREADS", threads);
        let (stdout, _) = expect(&mut command, 0);
        (stdout, fs::read(scratch.path(out).join("linear.safetensors")).unwrap())
    };
    assert_eq!(run("1", "one"), run("4", "four"));
}

#[test]
fn too_many_neighbours_are_all_that_there_are() {
    let scratch = Scratch::new();
    let (data, out) = (class_folder(&scratch, &COLOURS, 2, 1), scratch.path("out"));
    let options = ["--res", "32", "--probe", "knn", "--k", "5,20,200", "--json"];
    let (stdout, stderr) = expect(&mut classify_with(&data, &out, &options), 0);
    let ks: Vec<_> = rows(&stdout).iter().map(|row| row["k"].as_u64().unwrap()).collect();
    assert_eq!(ks, [5, 6]);
    assert!(stderr.contains("warning: --k 200: there are only 6 training images"), "{stderr}");
}

#[test]
fn an_unreadable_image_is_skipped_and_listed() {
    let scratch = Scratch::new();
    let (data, out) = (class_folder(&scratch, &COLOURS, 3, 2), scratch.path("out"));
    fs::write(data.join("train/red/01.png"), b"not a picture").unwrap();
    for _ in 0..2 {
        let (stdout, stderr) = expect(classify(&data, &out).args(["--probe", "knn", "--json"]), 3);
        assert_eq!(rows(&stdout)[0]["train_images"].as_u64(), Some(8));
        assert!(stderr.contains("warning: skipped train/red/01: "), "{stderr}");
    }
}

#[test]
fn a_class_that_was_never_trained_is_named_and_never_right() {
    let scratch = Scratch::new();
    let (data, out) = (class_folder(&scratch, &COLOURS, 2, 1), scratch.path("out"));
    fs::create_dir_all(data.join("val/yellow")).unwrap();
    picture(&data.join("val/yellow/x.png"), [200, 200, 0], 0);
    let (stdout, stderr) = expect(classify(&data, &out).arg("--json"), 3);
    assert!(stderr.contains("warning: ") && stderr.contains("train/yellow"), "{stderr}");
    for row in rows(&stdout) {
        assert_eq!((row["classes"].as_u64(), row["val_images"].as_u64()), (Some(4), Some(4)));
        assert!(row["top1"].as_f64().unwrap() <= 0.75, "{row}");
    }
}

#[test]
fn bad_folders_and_options_are_usage_errors() {
    let scratch = Scratch::new();
    let out = scratch.path("out");
    let refused = |command: &mut Command, words: &[&str]| {
        let (_, stderr) = expect(command, 2);
        let line = stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} in {line}");
    };
    refused(&mut classify(Path::new("does/not/exist"), &out), &["does/not/exist"]);
    let flat = scratch.path("flat");
    for split in ["train", "val"] {
        fs::create_dir_all(flat.join(split)).unwrap();
        picture(&flat.join(split).join("x.png"), [9, 9, 9], 0);
    }
    refused(&mut classify(&flat, &out), &["flat"]);
    let data = class_folder(&scratch, &COLOURS, 1, 1);
    refused(classify(&data, &out).args(["--probe", "svm"]), &["svm", "knn", "linear"]);
    refused(&mut classify_with(&data, &out, &["--res", "33"]), &["33", "32", "40"]);
    refused(classify(&data, &out).args(["--n-last-blocks", "99"]), &["99"]);
    refused(classify(&data, &out).args(["--temperature", "0"]), &["--temperature"]);
    refused(&mut classify_with(&data, &out, &["--res", "32", "--k", "0"]), &["--k"]);
    assert!(!out.exists());
}
