//! `featlab segment correspond`, `co-occurrence`, `crf-study`; own pictures without labels all the way to a trained head.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Rgb, RgbImage};
use serde_json::Value;

use crate::fixture::{BACKBONE, Scratch, expect, extract, featlab, probe};

fn segment(command: &str) -> Command {
    let mut program = featlab();
    program.args(["segment", command]);
    program
}

/// A picture whose left half is red and right half blue, with a grain that the seed decides.
fn halves(path: &Path, seed: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |x: u32, y: u32| {
        let grain = ((x * 31 + y * 17 + seed * 7) % 13) as u8;
        if x < 32 { Rgb([210 + grain, 30, 40 + grain]) } else { Rgb([20, 40 + grain, 220]) }
    };
    RgbImage::from_fn(64, 48, pixel).save(path).unwrap();
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = (fs::read_dir(folder).unwrap().flatten())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn json(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap()
}

#[test]
fn points_are_looked_for_in_every_picture() {
    let scratch = Scratch::new();
    let (a, b, out) = (scratch.path("a.png"), scratch.path("b.png"), scratch.path("out"));
    halves(&a, 0);
    halves(&b, 1);
    let run = |extra: &[&str], code| {
        let mut command = segment("correspond");
        command.args([&a, &b]).args(["--backbone", BACKBONE, "--res", "44", "--crop", "none", "--out"]);
        expect(command.arg(&out).args(extra), code)
    };
    let (said, _) = run(&["--json"], 0);
    assert_eq!(json(&said)["written"], 4);
    let expected = ["correspond.json", "map-0.png", "map-1.png", "panels.png", "queries.png"];
    assert_eq!(files(&out), expected);
    // 44 pixels are five patches of 8 and a rest; three panels and two gaps.
    assert_eq!(image::image_dimensions(out.join("map-1.png")).unwrap(), (40, 40));
    assert_eq!(image::image_dimensions(out.join("panels.png")).unwrap(), (3 * 40 + 2 * 8, 40));
    let before = fs::read(out.join("panels.png")).unwrap();
    run(&[], 0);
    assert_eq!(fs::read(out.join("panels.png")).unwrap(), before);

    let (_, said) = run(&["--points=-0.5,0"], 2);
    assert!(said.contains("--overwrite"), "{said}");
    let film =
        ["--film", "--points=-0.7,0", "--points=0.7,0", "--hold", "2", "--between", "3", "--overwrite"];
    fs::write(out.join("mine.png"), "mine").unwrap();
    let (said, _) = run(&film, 0);
    assert!(said.contains("ffmpeg"), "{said}");
    assert_eq!(files(&out).iter().filter(|name| name.starts_with("frame-")).count(), 7);
    let frame = |i: usize| fs::read(out.join(format!("frame-{i:04}.png"))).unwrap();
    assert!(frame(0) == frame(1) && frame(1) != frame(2) && frame(5) == frame(6));
    run(&["--overwrite"], 0);
    assert!(files(&out).iter().all(|name| !name.starts_with("frame-")) && out.join("mine.png").is_file());

    for (extra, word) in [
        (&["--points", "2,0"][..], "from -1 to 1"),
        (&["--hold", "3"], "--film"),
        (&["--reducer", "none.safetensors"], "cannot read reducer"),
    ] {
        let (_, said) = run(extra, 2);
        assert!(said.contains(word), "{extra:?}: {said}");
    }
    let mut five = segment("correspond");
    five.arg(&a).args(["--backbone", BACKBONE, "--crop", "five", "--out"]).arg(&out);
    let (_, said) = expect(&mut five, 2);
    assert!(said.contains("center or none"), "{said}");
    let mut missing = segment("correspond");
    missing.arg(scratch.path("c.png")).args(["--backbone", BACKBONE, "--out"]).arg(&out);
    let (_, said) = expect(&mut missing, 2);
    assert!(said.contains("cannot open") && said.contains("c.png"), "{said}");
}

#[test]
fn codes_of_a_reducer_correspond_and_co_occur() {
    let scratch = Scratch::new();
    let root = scratch.camvid(4, 3);
    let (cache, reducer) = (scratch.path("val"), scratch.path("pca.safetensors"));
    let dataset = format!("camvid:{}", root.display());
    expect(extract(&dataset, &cache).args(["--split", "val", "--images"]), 0);
    expect(featlab().args(["reduce", "pca", "--cache"]).arg(&cache).arg("--out").arg(&reducer), 0);

    let picture = root.join("images/val/frame_00.png");
    let draw = |out: &str, extra: &[&str]| {
        let mut command = segment("correspond");
        command.arg(&picture).args(["--backbone", BACKBONE, "--res", "48", "--out"]).arg(scratch.path(out));
        command.arg("--reducer").arg(&reducer).args(extra);
        command
    };
    expect(&mut draw("codes", &["--dims", "5"]), 0);
    let (_, said) = expect(&mut draw("codes-500", &["--dims", "500"]), 2);
    assert!(said.contains("500"), "{said}");
    let mut other = draw("other", &[]);
    let (_, said) = expect(other.args(["--backbone", "random:vit_micro_patch8:1"]).arg("--overwrite"), 2);
    assert!(!said.is_empty());

    let run = |out: &str, extra: &[&str], threads: &str| {
        let mut command = segment("co-occurrence");
        command.arg("--cache").arg(&cache).arg("--reducer").arg(&reducer).args([
            "--dims",
            "6",
            "--samples",
            "6",
        ]);
        command
            .env("RAYON_NUM_THREADS", threads)
            .args(["--json", "--out"])
            .arg(scratch.path(out))
            .args(extra);
        command
    };
    let (said, _) = expect(&mut run("one", &[], "1"), 0);
    let found = json(&said);
    let names: Vec<&str> =
        found["scores"].as_array().unwrap().iter().map(|score| score["score"].as_str().unwrap()).collect();
    assert_eq!(names, ["features", "pca, 6 d", "CRF kernel"]);
    assert_eq!(found["images"], 3);
    for score in found["scores"].as_array().unwrap() {
        let (pairs, average) =
            (score["pairs"].as_u64().unwrap(), score["average_precision"].as_f64().unwrap());
        let chance = score["matches"].as_f64().unwrap() / pairs as f64;
        assert!(pairs <= 3 * 36 * 36 && average > 0.8 * chance && average <= 1.0, "{score}");
    }
    let read = |out: &str, file: &str| fs::read(scratch.path(out).join(file)).unwrap();
    expect(&mut run("two", &[], "2"), 0);
    for file in ["curves.csv", "curves.svg"] {
        assert_eq!(read("one", file), read("two", file), "{file}");
    }
    assert!(String::from_utf8(read("one", "curves.svg")).unwrap().contains("AP="));
    let (said, _) = expect(&mut run("class", &["--void", "class"], "2"), 0);
    assert!(json(&said)["scores"][0]["pairs"].as_u64() == Some(3 * 36 * 36), "{said}");
    let (said, _) = expect(&mut run("few", &["--images", "1", "--seed", "4"], "2"), 0);
    assert_eq!(json(&said)["images"], 1);
    let (_, said) = expect(&mut run("none", &["--images", "0"], "2"), 2);
    assert!(said.contains("--images must be at least 1"), "{said}");
}

#[test]
fn the_crf_loss_alone_parts_colours() {
    let scratch = Scratch::new();
    let (folder, out) = (scratch.path("photos"), scratch.path("out"));
    (0..3).for_each(|i| halves(&folder.join(format!("{i}.png")), i));
    fs::write(folder.join("9.jpg"), "no picture").unwrap();
    let run = |extra: &[&str], code| {
        let mut command = segment("crf-study");
        command.arg(&folder).args(["--steps", "60", "--every", "40", "--scale", "0.25", "--out"]).arg(&out);
        expect(
            command.args(["--set", "dim=3", "--set", "lr=0.05", "--set", "crf.crf_samples=100"]).args(extra),
            code,
        )
    };
    let (said, _) = run(&["--json", "--pictures", "2"], 0);
    let found = json(&said);
    assert_eq!((found["last"]["step"].as_u64(), found["pictures"].as_array().unwrap().len()), (Some(60), 4));
    assert_eq!(
        files(&out),
        [
            "0-step00040.png",
            "0-step00060.png",
            "1-step00040.png",
            "1-step00060.png",
            "crf-study.json",
            "steps.csv"
        ]
    );
    assert_eq!(image::image_dimensions(out.join("0-step00060.png")).unwrap(), (16, 12));
    let csv = fs::read_to_string(out.join("steps.csv")).unwrap();
    let loss = |line: &str| line.split(',').nth(1).unwrap().parse::<f64>().unwrap();
    let lines: Vec<&str> = csv.lines().skip(1).collect();
    assert_eq!(lines.len(), 60);
    assert!(loss(lines[59]) < loss(lines[0]), "{} {}", lines[0], lines[59]);

    let (_, said) = run(&[], 2);
    assert!(said.contains("--overwrite"), "{said}");
    let discrete =
        ["--overwrite", "--set", "code=discrete", "--set", "colours=lab", "--set", "global_ent_weight=1"];
    let (said, warned) = run(&discrete, 3);
    assert!(said.contains("entropy") && warned.contains("skipped 9"), "{said} {warned}");
    assert_eq!(files(&out).iter().filter(|name| name.ends_with(".png")).count(), 6);
    for (extra, word) in [
        (&["--set", "colour=lab"][..], "unknown field `colour`"),
        (&["--set", "code=fuzzy"], "discrete"),
        (&["--pictures", "0"], "--pictures must be at least 1"),
    ] {
        let (_, said) = run(extra, 2);
        assert!(said.contains(word), "{extra:?}: {said}");
    }
}

#[test]
fn a_study_without_pictures_or_of_no_size_is_refused() {
    let scratch = Scratch::new();
    let picture = scratch.path("a.png");
    halves(&picture, 0);
    let refused = |input: &Path, extra: &[&str]| {
        let mut command = segment("crf-study");
        expect(command.arg(input).args(extra).arg("--out").arg(scratch.path("out")), 2).1
    };
    assert!(refused(&picture, &["--scale", "0"]).contains("above 0"));
    assert!(refused(&picture, &["--set", "local_ent_weight=1"]).contains("continuous"));
    assert!(refused(&scratch.path("none"), &[]).contains("cannot open"));
}

/// Own pictures: without labels to a head, and not to a probe; with labels in one split to scores there.
#[test]
fn own_pictures_need_no_labels_for_a_head() {
    let scratch = Scratch::new();
    let root: PathBuf = scratch.path("own");
    for i in 0..6 {
        halves(&root.join(format!("imgs/train/deep/{i}.png")), i);
        halves(&root.join(format!("imgs/val/{i}.png")), 10 + i);
    }
    let label = |split: &str| {
        for i in 0..6 {
            let path = root.join(format!("labels/{split}/{i}.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let side = |x: u32, y: u32| image::Luma([if y < 4 { 255 } else { u8::from(x >= 32) }]);
            image::GrayImage::from_fn(64, 48, side).save(path).unwrap();
        }
    };
    label("val");
    let spec = format!("directory:{}", root.display());
    let (train, val) = (scratch.path("train"), scratch.path("val"));
    expect(extract(&spec, &train).args(["--split", "train"]), 0);
    expect(extract(&spec, &val).args(["--split", "val"]), 0);
    let (said, _) = expect(featlab().args(["cache", "info", "--json"]).arg(&val), 0);
    assert!(said.contains("class 1") && !said.contains("class 2"), "{said}");
    let reduce = |method: &str, extra: &[&str]| {
        let out = scratch.path(&format!("{method}.safetensors"));
        expect(
            featlab().args(["reduce", method, "--cache"]).arg(&train).args(extra).arg("--out").arg(out),
            0,
        );
    };
    reduce("pca", &[]);
    reduce(
        "stego",
        &["--dims", "4", "--set", "max_steps=3", "--set", "batch_size=3", "--set", "num_neighbors=2"],
    );
    let probe = |train: &Path, code| {
        let mut command = probe(train, &val, &scratch.path("runs"));
        command.args(["--probe", "linear", "--steps", "5", "--batch-size", "3", "--reducer"]);
        expect(command.arg(scratch.path("stego.safetensors")), code)
    };
    let (_, said) = probe(&train, 2);
    assert!(said.contains("no labels") && said.contains("probes need them"), "{said}");
    probe(&val, 0);
    let unlabelled =
        segment("co-occurrence").arg("--cache").arg(&train).arg("--out").arg(&root).output().unwrap();
    assert_eq!(unlabelled.status.code(), Some(2));
    let (_, said) = expect(&mut extract("directory:", &val), 2);
    assert!(said.contains("write directory:ROOT[?classes=N]"), "{said}");
}
