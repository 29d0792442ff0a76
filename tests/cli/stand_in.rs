//! The studies' three sweeps, whole, on drawn data sets in the layouts of CocoStuff, Cityscapes and Potsdam.
//!
//! The files are those that a user runs; `--set` puts a micro backbone with random weights and few steps in their place.

use std::path::{Path, PathBuf};

use dataset::stand_in::{StandIn, all};

use crate::fixture::{BACKBONE, Scratch, expect, extract, featlab};

fn drawn(scratch: &Scratch) -> PathBuf {
    let root = scratch.path("stand-in");
    all(&root, &StandIn { train: 5, val: 3, size: 48, seed: 0 }).expect("pictures are written");
    root
}

/// A study at a size that takes seconds.
fn study(name: &str, root: &Path, out: &Path) -> std::process::Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../experiments/stego-studies")
        .join(name)
        .join("sweep.toml");
    let mut command = featlab();
    command.arg("sweep").arg(file).arg("--out").arg(out);
    let settings = [
        format!("dataset.root={}", root.display()),
        format!("features.backbone={BACKBONE}"),
        "features.train_res=32".into(),
        "features.val_res=48".into(),
        "reduce.dims=[3, 192, \"full\"]".into(),
        "stego.max_steps=3".into(),
        "stego.batch_size=3".into(),
        "stego.num_neighbors=2".into(),
        "stego.feature_samples=4".into(),
        "probe.steps=8".into(),
        "probe.batch_size=4".into(),
        "eval.bootstrap=20".into(),
        "eval.gallery=1".into(),
    ];
    for setting in settings {
        command.arg("--set").arg(setting);
    }
    command
}

#[test]
fn every_study_runs_whole_on_the_stand_in() {
    let scratch = Scratch::new();
    let root = drawn(&scratch);
    for (name, folder, dataset, preset) in [
        ("cocostuff27", "cocostuff", "cocostuff27", "cocostuff27-vit-base"),
        ("cityscapes", "cityscapes", "cityscapes27", "cityscapes-vit-base"),
        ("potsdam", "potsdam", "potsdam3", "potsdam-vit-small"),
    ] {
        let out = scratch.path(name);
        expect(&mut study(name, &root.join(folder), &out), 0);
        let results = std::fs::read_to_string(out.join("results.csv")).expect("a table of results");
        let rows: Vec<&str> = results.lines().skip(1).collect();
        // Features as they are, plain and refined; a head for each dimension that is written out, a nested one for both, and two methods at
        // two dimensions, of which the last is full; two probes each.
        assert_eq!(rows.len(), 2 * (1 + 2 + 2 + 2 * 2) + 2, "{results}");
        assert!(rows.iter().all(|row| row.starts_with(&format!("{dataset},val,"))), "{results}");
        for method in ["none", "pca", "rp", "stego", "stego-nested"] {
            assert!(rows.iter().any(|row| row.contains(&format!(",{method},"))), "{method}: {results}");
        }
        assert!(out.join("report.html").is_file());
        let config = std::fs::read_to_string(out.join("config.toml")).expect("what was run");
        assert!(config.contains(&format!("preset = \"{preset}\"")), "{config}");
    }
}

#[test]
fn the_published_layouts_are_data_sets_of_the_command_line() {
    let scratch = Scratch::new();
    let root = drawn(&scratch);
    let at = |name: &str, folder: &str| format!("{name}:{}", root.join(folder).display());
    let run = |spec: &str, split: &str, out: &str, code| {
        expect(extract(spec, &scratch.path(out)).args(["--split", split]), code).1
    };
    run(&at("cityscapes27", "cityscapes"), "val", "city", 0);
    let label = root.join("cityscapes/gtFine/train/drawn/drawn_000002_000019_gtFine_labelIds.png");
    std::fs::remove_file(label).expect("a label");
    let said = run(&at("cityscapes27", "cityscapes"), "train", "less", 3);
    assert!(said.contains("has no label gtFine/train/drawn/drawn_000002"), "{said}");
    let said = run(&at("cocostuff27", "cocostuff"), "test", "none", 2);
    assert!(said.contains("known are train, val, train+val, all"), "{said}");
    let said = run(&at("potsdam3", "cityscapes"), "val", "none", 2);
    assert!(said.contains("labelled_test.txt: there is no such file"), "{said}");
}
