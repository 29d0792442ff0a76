//! `featlab cache project`: what is probed on projected caches is what is probed through the reducer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use featcache::{Cache, Store};
use serde_json::Value;

use crate::fixture::{self, Scratch, expect, featlab};

const BACKBONE: &str = "embedded:scenes-micro";
const SCENES: &str = "scenes:train=10,val=5,size=64";

fn json(command: &mut Command, code: i32) -> Value {
    let (stdout, _) = expect(command.arg("--json"), code);
    serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON")
}

fn extract(split: &str, out: &Path, more: &[&str]) {
    let mut command = featlab();
    command.args(["extract", "--dataset", SCENES, "--backbone", BACKBONE, "--res", "64", "--split", split]);
    expect(command.args(["--shard-rows", "3", "--out"]).arg(out).args(more), 0);
}

fn reduce(method: &str, cache: &Path, out: &Path, more: &[&str]) {
    let mut command = featlab();
    command.args(["reduce", method, "--cache"]).arg(cache).arg("--out").arg(out).args(more);
    expect(&mut command, 0);
}

fn project(cache: &Path, reducer: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = featlab();
    command.args(["cache", "project"]).arg(cache).arg("--reducer").arg(reducer);
    command.arg("--out").arg(out).args(more);
    command
}

fn probe(train: &Path, val: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = fixture::probe(train, val, out);
    command.args(["--steps", "40", "--batch-size", "4", "--seeds", "0,1"]).args(more);
    command
}

/// mIoU by probe and seed.
fn scores(out: &Path) -> BTreeMap<String, f64> {
    let csv = fs::read_to_string(out.join("results.csv")).unwrap();
    let rows = csv.lines().skip(1).map(|row| row.split(',').collect::<Vec<_>>());
    rows.map(|row| (format!("{} {} {}", row[5], row[6], row[7]), row[11].parse().unwrap())).collect()
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// Features of drawn scenes, training and validation, and a PCA of the former.
fn setting(scratch: &Scratch, more: &[&str]) -> (PathBuf, PathBuf, PathBuf) {
    let (train, val, pca) = (scratch.path("train"), scratch.path("val"), scratch.path("pca.safetensors"));
    extract("train", &train, more);
    extract("val", &val, more);
    reduce("pca", &train, &pca, &[]);
    (train, val, pca)
}

#[test]
fn probes_on_projected_caches_score_as_through_the_reducer() {
    let scratch = Scratch::new();
    let (train, val, pca) = setting(&scratch, &["--dtype", "f32"]);
    let umap = scratch.path("umap.safetensors");
    reduce("umap", &train, &umap, &["--dims", "4", "--rows", "150", "--epochs", "30"]);
    for (reducer, dim) in [(&pca, "12"), (&umap, "4")] {
        let name = reducer.file_stem().unwrap().to_str().unwrap();
        let at = |what: &str| scratch.path(&format!("{name}-{what}"));
        let small = [(&train, at("train")), (&val, at("val"))].map(|(from, to)| {
            let (stdout, _) = expect(&mut project(from, reducer, &to, &["--dims", dim]), 0);
            assert!(stdout.contains(&format!("{name}, 192 → {dim} dimensions")), "{stdout}");
            expect(featlab().args(["cache", "verify"]).arg(&to), 0);
            to
        });
        let fly = ["--reducer", reducer.to_str().unwrap(), "--dims", dim];
        expect(&mut probe(&train, &val, &at("fly"), &fly), 0);
        expect(&mut probe(&small[0], &small[1], &at("stored"), &[]), 0);
        let (fly, stored) = (scores(&at("fly")), scores(&at("stored")));
        assert_eq!(fly.len(), 4);
        let csv = fs::read_to_string(at("stored").join("results.csv")).unwrap();
        assert!(csv.lines().skip(1).all(|row| row.split(',').nth(4) == Some(name)), "{csv}");
        for (cell, miou) in &fly {
            let off = (miou - stored[cell]).abs();
            println!(
                "{name} {cell}: {:.3} % through the reducer, {:.3} % stored",
                100.0 * miou,
                100.0 * stored[cell]
            );
            assert!(off < 0.002, "{name} {cell}: {miou} through the reducer, {} stored", stored[cell]);
        }
        // Features of two kinds do not belong together.
        let (_, stderr) = expect(&mut probe(&small[0], &val, &at("mixed"), &[]), 4);
        assert!(stderr.contains("different features"), "{stderr}");
    }
}

#[test]
fn what_an_image_has_besides_tokens_stays() {
    let scratch = Scratch::new();
    let (train, _, pca) = setting(&scratch, &["--images", "--crop", "five"]);
    let out = scratch.path("small");
    let made = json(&mut project(&train, &pca, &out, &["--dims", "6", "--dtype", "bf16"]), 0);
    assert_eq!((&made["rows"], &made["dim"], &made["computed"]), (&50.into(), &6.into(), &10.into()));
    let open = |path: &Path| Cache::open(Store::open(path.to_str().unwrap()).unwrap()).unwrap();
    let (source, small) = (open(&train), open(&out));
    let (from, to) = (source.manifest(), small.manifest());
    assert_ne!(from.cache_id, to.cache_id);
    assert_eq!((&from.classes, &from.skipped, from.samples), (&to.classes, &to.skipped, to.samples));
    assert_eq!(from.provenance["--dataset"], to.provenance["--dataset"]);
    assert_eq!(to.provenance["projected_from"], from.cache_id);
    assert!((to.layout.has_label, to.layout.has_image, to.layout.has_cls) == (true, true, false));
    assert!(to.key.facet.starts_with("token > f16 pca 6 "), "{}", to.key.facet);
    for index in 0..from.shards.len() {
        let read = |cache: &Cache| cache.read_shard(index, &featcache::ReadOptions::default()).unwrap();
        for (a, b) in read(&source).records().iter().zip(read(&small).records()) {
            assert_eq!((a.image_id(), a.crop()), (b.image_id(), b.crop()));
            assert!(a.label() == b.label() && a.image() == b.image());
        }
    }

    // Every other form and back again holds the same; a reducer of projected features goes on from there.
    let list = scratch.path("list");
    expect(featlab().args(["cache", "convert", "--layout", "list"]).arg(&out).arg("--out").arg(&list), 0);
    assert_eq!(open(&list).manifest().cache_id, to.cache_id);
    let (second, twice) = (scratch.path("second.safetensors"), scratch.path("twice"));
    reduce("pca", &out, &second, &["--dims", "3"]);
    expect(&mut project(&out, &second, &twice, &[]), 0);
    assert_eq!(open(&twice).manifest().key.projections().unwrap().len(), 2);
    let (info, _) = expect(featlab().args(["cache", "info"]).arg(&twice), 0);
    assert!(info.contains("tokens     [64, 3] bf16"), "{info}");
}

#[test]
fn a_projection_resumes_and_overwrites_nothing() {
    let scratch = Scratch::new();
    let (train, _, pca) = setting(&scratch, &["--dtype", "f32"]);
    let out = scratch.path("small");
    let words = ["--dims", "5"];
    expect(&mut project(&train, &pca, &out, &words), 0);
    let whole = files(&out);
    assert_eq!(whole.len(), 2 + 4, "plan, manifest and shards");
    assert_eq!(json(&mut project(&train, &pca, &out, &words), 0)["computed"], 0);

    // Killed before the last two shards.
    for file in ["manifest.json", "shard-00002.parquet", "shard-00003.parquet"] {
        fs::remove_file(out.join(file)).unwrap();
    }
    let mut again = project(&train, &pca, &out, &words);
    let (_, stderr) = expect(again.env("RAYON_NUM_THREADS", "1"), 0);
    assert!(stderr.contains("2 of 4 shards are there"), "{stderr}");
    assert_eq!(files(&out), whole);

    // Damaged, and mended.
    let mut bytes = whole[2].1.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&whole[2].0, bytes).unwrap();
    let (stdout, _) = expect(featlab().args(["cache", "verify"]).arg(&out), 4);
    assert!(stdout.contains("--repair` projects them again"), "{stdout}");
    let (_, stderr) = expect(featlab().args(["cache", "repair"]).arg(&out), 2);
    assert!(stderr.contains("featlab cache project"), "{stderr}");
    expect(&mut project(&train, &pca, &out, &["--dims", "5", "--repair"]), 0);
    assert_eq!(files(&out), whole);

    let (_, stderr) = expect(&mut project(&train, &pca, &out, &["--dims", "6"]), 4);
    assert!(stderr.contains("facet: asked for \"token > f32 pca 6 "), "{stderr}");
    assert_eq!(files(&out), whole);
    expect(&mut project(&train, &pca, &out, &["--dims", "6", "--overwrite"]), 0);
    assert_ne!(files(&out), whole);

    let before = files(&train);
    let (_, stderr) = expect(&mut project(&train, &pca, &train, &["--overwrite"]), 2);
    assert!(stderr.contains("name another place"), "{stderr}");
    expect(&mut project(&train, &pca, &train, &[]), 4);
    assert_eq!(files(&train), before);
}

#[test]
fn what_cannot_be_projected_is_refused() {
    let scratch = Scratch::new();
    let (train, _, pca) = setting(&scratch, &["--facet", "token,key"]);
    let out = scratch.path("small");
    let batch = scratch.path("batch.safetensors");
    reduce("pca", &train, &batch, &["--scaler", "batch"]);
    let refused = |reducer: &Path, more: &[&str], code: i32, said: &str| {
        let (_, stderr) = expect(&mut project(&train, reducer, &out, more), code);
        assert!(stderr.contains(said), "{stderr}");
        assert!(!out.exists(), "{said}: something was written");
    };
    refused(&batch, &[], 2, "standardises every batch by itself");
    refused(&pca, &["--dims", "193"], 2, "--dims");
    refused(&pca, &["--dims", "0"], 2, "--dims");
    refused(&pca, &["--dtype", "f64"], 2, "expected f32, f16, bf16 or int8");
    refused(&scratch.path("none.safetensors"), &[], 2, "cannot read reducer");
    refused(&pca, &["--column", "key_9"], 2, "it has tokens, key_");
    // A reducer of the column `tokens` is not one of keys.
    let column = Cache::open(Store::open(train.to_str().unwrap()).unwrap()).unwrap().layout().more[0].clone();
    refused(&pca, &["--column", &column], 4, "was fitted on features");

    let keys = scratch.path("keys.safetensors");
    reduce("rp", &train, &keys, &["--column", &column]);
    expect(&mut project(&train, &keys, &out, &["--column", &column, "--dims", "4", "--dtype", "int8"]), 0);
    let (_, stderr) = expect(&mut project(&out, &pca, &scratch.path("again"), &[]), 4);
    assert!(stderr.contains("takes 192 dimensions, but the features have 4"), "{stderr}");
    // No backbone computes what is stored there, whatever its golden activation.
    let (_, stderr) = expect(featlab().args(["cache", "verify", "--backbone", BACKBONE]).arg(&out), 2);
    assert!(stderr.contains("no backbone computes them"), "{stderr}");
    let full = scratch.path("full");
    expect(&mut project(&train, &pca, &full, &[]), 0);
    let (_, stderr) = expect(&mut project(&full, &pca, &scratch.path("again"), &[]), 4);
    assert!(stderr.contains("was fitted on features"), "{stderr}");
}
