//! A probe's weights are the same bits however it was trained: alone or beside two hundred others, on any number of threads, from
//! Parquet, Arrow or a bucket, interrupted or not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use loopback::S3;

use crate::fixture::{self, Scratch, expect, extract, featlab};

/// `featlab probe` on two caches.
fn probe(train: &Path, val: &Path, out: &Path, words: &[&str]) -> Command {
    let mut command = fixture::probe(train, val, out);
    command.args(["--steps", "12", "--batch-size", "4"]).args(words);
    command
}

/// The weights of every run: what the probe is (method, dimensions, kind, seed), and its tensors' bytes.
fn weights(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(out.join("runs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            let name = ["method", "dim", "probe", "seed"].map(|key| record[key].to_string()).join(" ");
            let bytes = fs::read(path.with_extension("safetensors")).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            all.insert(name, bytes[8 + header..].to_vec());
        }
    }
    all
}

/// Two caches of a drawn CamVid, and a reducer of the first one.
fn caches(scratch: &Scratch) -> (PathBuf, PathBuf, PathBuf) {
    let dataset = format!("camvid:{}", scratch.camvid(7, 2).display());
    let (train, val, reducer) = (scratch.path("train"), scratch.path("val"), scratch.path("pca.safetensors"));
    expect(extract(&dataset, &train).args(["--split", "train", "--shard-rows", "3"]), 0);
    expect(extract(&dataset, &val).args(["--split", "val"]), 0);
    let mut reduce = featlab();
    reduce.args(["reduce", "pca", "--cache"]).arg(&train).arg("--out").arg(&reducer);
    expect(&mut reduce, 0);
    (train, val, reducer)
}

#[test]
fn weights_do_not_depend_on_company_threads_form_or_place() {
    let scratch = Scratch::new();
    let (train, val, reducer) = caches(&scratch);
    let with_reducer = |words: &str| -> Vec<String> {
        let mut all = vec!["--reducer".to_owned(), reducer.to_str().unwrap().to_owned()];
        all.extend(words.split(' ').map(str::to_owned));
        all
    };
    let run = |name: &str, (train, val): (&Path, &Path), words: &str, threads: &str| {
        let (out, words) = (scratch.path(name), with_reducer(words));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        expect(probe(train, val, &out, &words).env("RAYON_NUM_THREADS", threads), 0);
        weights(&out)
    };
    let many: Vec<String> = (0..25).map(|seed| seed.to_string()).collect();
    let bank = run("bank", (&train, &val), &format!("--dims 3,6,8,12 --seeds {}", many.join(",")), "2");
    assert_eq!(bank.len(), 200);

    let alone = run("alone", (&train, &val), "--dims 6 --seeds 7 --probe linear", "2");
    let single = run("single", (&train, &val), "--dims 6 --seeds 7 --probe cluster --memory 1B", "1");
    for (name, bytes) in alone.iter().chain(&single) {
        assert_eq!(bank.get(name), Some(bytes), "{name}");
    }
    for threads in ["1", "8"] {
        let some = run(&format!("threads-{threads}"), (&train, &val), "--dims 3,12 --seeds 0,24", threads);
        assert!(
            some.len() == 8 && some.iter().all(|(name, bytes)| bank.get(name) == Some(bytes)),
            "{threads}"
        );
    }

    let arrow = [&train, &val].map(|cache| {
        let to = cache.with_extension("arrow");
        let mut convert = featlab();
        convert.args(["cache", "convert", "--layout", "arrow"]).arg(cache).arg("--out").arg(&to);
        expect(&mut convert, 0);
        to
    });
    let from_arrow = run("arrow", (&arrow[0], &arrow[1]), "--dims 3,12 --seeds 0,24", "2");
    assert!(from_arrow.iter().all(|(name, bytes)| bank.get(name) == Some(bytes)), "from Arrow");

    let root = scratch.path("s3");
    fs::create_dir_all(root.join("bucket")).unwrap();
    let server = S3::start(&root).unwrap();
    for (cache, name) in [(&train, "train"), (&val, "val")] {
        let to = root.join("bucket").join(name);
        fs::create_dir_all(&to).unwrap();
        for file in fs::read_dir(cache).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    let (out, words) = (scratch.path("from-s3"), with_reducer("--dims 3,12 --seeds 0,24"));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = probe(Path::new("s3://bucket/train"), Path::new("s3://bucket/val"), &out, &words);
    expect(command.envs(server.environment()), 0);
    assert!(weights(&out).iter().all(|(name, bytes)| bank.get(name) == Some(bytes)), "from a bucket");
}
