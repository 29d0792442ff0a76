//! How a GPU computes, as far as a CPU can show it: batches, and half precision with a cache of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fixture::{BACKBONE, Scratch, expect, extract, featlab, shards};

fn cache(command: &str, at: &Path) -> Command {
    let mut featlab = featlab();
    featlab.args(["cache", command]).arg(at);
    featlab
}

/// The cache id, from `cache info`.
fn id(at: &Path) -> String {
    let (stdout, _) = expect(cache("info", at).arg("--json"), 0);
    let info: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    info["cache_id"].as_str().unwrap().to_owned()
}

#[test]
fn extract_in_batches_gives_the_same_files() {
    let scratch = Scratch::new();
    let root = scratch.camvid(11, 0);
    fs::write(root.join("images/train/frame_04.png"), b"no picture").unwrap();
    let dataset = format!("camvid:{}", root.display());
    let ways: [&[&str]; 3] =
        [&["--facet", "token,key"], &["--crop", "five"], &["--flip-average", "--images"]];
    for (way, options) in ways.into_iter().enumerate() {
        let files = |batch: &[&str], threads: &str| {
            let out = scratch.path(&format!("{way}-{}-{threads}", batch.join("")));
            let mut command = extract(&dataset, &out);
            command.args(["--device", "cpu", "--shard-rows", "4"]).args(options).args(batch);
            expect(command.env("RAYON_NUM_THREADS", threads), 3); // done, but one picture was skipped
            (shards(&out), id(&out))
        };
        let alone = files(&[], "2");
        assert_eq!(alone.0.len(), 3);
        for (batch, threads) in [("1", "1"), ("3", "1"), ("3", "2"), ("100", "2")] {
            assert!(
                files(&["--batch", batch], threads) == alone,
                "{options:?}, {batch} on {threads} threads"
            );
        }
    }
}

#[test]
fn extract_takes_no_batch_of_nothing() {
    let scratch = Scratch::new();
    let dataset = format!("camvid:{}", scratch.camvid(1, 0).display());
    let (_, stderr) = expect(extract(&dataset, &scratch.path("out")).args(["--batch", "0"]), 2);
    assert!(stderr.contains("--batch"), "{stderr}");
    assert!(!scratch.path("out").exists());
}

#[test]
fn extract_in_half_precision_is_another_cache_that_knows_what_it_is() {
    let scratch = Scratch::new();
    let dataset = format!("camvid:{}", scratch.camvid(3, 0).display());
    let made = |precision: &[&str]| {
        let out = scratch.path(&format!("cache{}", precision.join("")));
        expect(extract(&dataset, &out).args(["--device", "cpu", "--shard-rows", "2"]).args(precision), 0);
        (id(&out), out)
    };
    let [default, auto, f32, f16, bf16] = [
        &[][..],
        &["--precision", "auto"],
        &["--precision", "f32"],
        &["--precision", "f16"],
        &["--precision", "bf16"],
    ]
    .map(made);
    assert!(default.0 == auto.0 && default.0 == f32.0);
    assert!(f16.0 != f32.0 && bf16.0 != f32.0 && f16.0 != bf16.0);

    // None is taken for another one.
    let (_, stderr) = expect(&mut extract(&dataset, &f16.1), 4);
    assert!(
        stderr.contains("architecture: asked for") && stderr.contains("vit_micro_patch8_f16"),
        "{stderr}"
    );

    // A cache is verified and repaired in its own precision.
    for (_, out) in [&f32, &f16, &bf16] {
        expect(cache("verify", out).args(["--backbone", BACKBONE, "--device", "cpu"]), 0);
        let whole = shards(out);
        let (name, bytes) = &whole[1];
        fs::write(out.join(name), &bytes[..bytes.len() / 2]).unwrap();
        expect(cache("repair", out).args(["--device", "cpu"]), 0);
        assert!(shards(out) == whole, "{}", out.display());
    }
    let (_, stderr) = expect(cache("repair", &f16.1).args(["--precision", "f32"]), 4);
    assert!(stderr.contains("architecture: asked for"), "{stderr}");
}
