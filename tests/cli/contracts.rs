//! What a user relies on without thinking of it: a command given twice, places in other spellings, tasks of an array, and errors
//! before the work instead of after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::{Scratch, expect, extract, featlab, probe, sweep_file};

/// Features of six and of three pictures.
fn caches(scratch: &Scratch) -> (PathBuf, PathBuf) {
    let (train, val, _) = caches_of(scratch);
    (train, val)
}

/// The same, and the data set that they are of.
fn caches_of(scratch: &Scratch) -> (PathBuf, PathBuf, String) {
    let dataset = format!("camvid:{}", scratch.camvid(6, 3).display());
    let (train, val) = (scratch.path("train"), scratch.path("val"));
    expect(extract(&dataset, &train).args(["--split", "train"]), 0);
    expect(extract(&dataset, &val).args(["--split", "val"]), 0);
    (train, val, dataset)
}

fn reduce(method: &str, cache: &Path, out: &str, more: &[&str]) -> Command {
    let mut command = featlab();
    command.args(["reduce", method, "--cache"]).arg(cache).args(["--out", out]).args(more);
    command
}

#[test]
fn a_reducer_given_again_is_found_and_another_one_refused() {
    let scratch = Scratch::new();
    let (train, _) = caches(&scratch);
    for (method, more) in
        [("pca", &[][..]), ("umap", &["--dims", "2", "--rows", "60", "--epochs", "5", "--n-neighbors", "5"])]
    {
        let file = scratch.path(&format!("{method} file.safetensors"));
        let out = format!("file://{}", file.display().to_string().replace(' ', "%20"));
        let (first, _) = expect(&mut reduce(method, &train, &out, more), 0);
        let bytes = fs::read(&file).unwrap();
        let (again, said) = expect(&mut reduce(method, &train, &out, more), 0);
        assert!(first == again && said.contains("nothing to compute"), "{first}{again}{said}");
        let other = [more, &["--seed", "1"]].concat();
        let (_, said) = expect(&mut reduce(method, &train, &out, &other), 2);
        assert!(said.contains("exists") && said.contains("--overwrite"), "{said}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
}

#[cfg(not(feature = "hnne"))]
#[test]
fn hnne_says_how_it_is_built_and_what_its_authors_ask_for() {
    let scratch = Scratch::new();
    let (train, _) = caches(&scratch);
    let out = scratch.path("h.safetensors").display().to_string();
    let (_, said) = expect(&mut reduce("hnne", &train, &out, &["--dims", "3"]), 2);
    assert!(said.contains("--features hnne") && said.contains("no commercial use"), "{said}");
}

#[test]
fn tasks_of_a_slurm_array_share_the_shards() {
    let scratch = Scratch::new();
    let dataset = format!("camvid:{}", scratch.camvid(6, 1).display());
    let out = scratch.path("cache");
    let task = |id: &str, more: &[(&str, &str)]| {
        let mut command = extract(&dataset, &out);
        command.args(["--split", "train", "--shard-rows", "1"]).env("SLURM_ARRAY_TASK_ID", id);
        command.env("SLURM_ARRAY_TASK_COUNT", "3").envs(more.iter().copied());
        expect(&mut command, 0)
    };
    let spread = [("SLURM_ARRAY_TASK_MIN", "10"), ("SLURM_ARRAY_TASK_STEP", "5")];
    let (said, _) = task("0", &[]);
    assert!(said.contains("computed 2 images; 4 shards are left"), "{said}");
    let (said, _) = task("15", &spread);
    assert!(said.contains("computed 2 images; 2 shards are left"), "{said}");
    let (said, noted) = task("13", &spread);
    assert!(noted.contains("is none of 0 to 2") && said.contains("computed 2 images"), "{said}{noted}");
}

#[test]
fn probes_without_a_result_are_listed_and_are_no_success() {
    let scratch = Scratch::new();
    let (train, val) = caches(&scratch);
    let mut command = probe(&train, &val, &scratch.path("probe"));
    let (_, said) =
        expect(command.args(["--steps", "30", "--batch-size", "4", "--learning-rate", "1e38"]), 1);
    assert!(said.contains("no result for") && said.contains("diverged"), "{said}");
}

#[test]
fn a_model_is_scored_on_the_features_that_it_was_trained_on() {
    let scratch = Scratch::new();
    let (train, val, dataset) = caches_of(&scratch);
    let other = scratch.path("other");
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
    expect(command.args(["--split", "val", "--out"]).arg(&other), 0);
    let segment = |train: &Path, val: &Path, code: i32| {
        let mut command = featlab();
        command.args(["segment", "train", "--dims", "4", "--set", "max_steps=2", "--out"]);
        command.arg(scratch.path("model")).arg("--cache-train").arg(train).arg("--cache-val").arg(val);
        expect(&mut command, code).1
    };
    let said = segment(&train, &other, 4);
    assert!(said.contains("other weights, or another block"), "{said}");
    let (file, small) = (scratch.path("pca.safetensors"), scratch.path("small"));
    expect(&mut reduce("pca", &train, &file.display().to_string(), &[]), 0);
    let mut command = featlab();
    command.args(["cache", "project"]).arg(&train).arg("--reducer").arg(&file).args(["--dims", "8", "--out"]);
    expect(command.arg(&small), 0);
    let said = segment(&small, &val, 2);
    assert!(said.contains("were projected") && said.contains("--reducer"), "{said}");
    assert!(!scratch.path("model").join("segmenter.json").exists());
}

#[test]
fn a_dry_run_refuses_what_the_run_would() {
    let scratch = Scratch::new();
    let file = sweep_file(&scratch, &scratch.camvid(4, 2));
    for set in ["features.val_res=33", "stego.lr=-1"] {
        for dry in [&["--dry-run"][..], &[]] {
            let mut command = featlab();
            command
                .arg("sweep")
                .arg(&file)
                .args(["--set", set])
                .args(dry)
                .arg("--out")
                .arg(scratch.path("out"));
            let (_, said) = expect(&mut command, 2);
            assert!(said.contains("33") || said.contains("stego: "), "{said}");
        }
    }
    assert!(!scratch.path("out").join("features").exists(), "nothing was extracted before that");
}

#[test]
fn doctor_asks_a_store_and_tells_no_secret() {
    let scratch = Scratch::new();
    let (train, _) = caches(&scratch);
    let mut command = featlab();
    command.args(["doctor", "--no-measure", "--store"]).arg(&train).env("AWS_SECRET_ACCESS_KEY", "hush");
    let (said, _) = expect(&mut command, 0);
    assert!(said.contains("it holds a cache") && said.contains("AWS_SECRET_ACCESS_KEY set"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}
