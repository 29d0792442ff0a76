//! The line on small data: extract, reduce, probe, sweep and report, and what must not change their numbers.

use std::fs;
use std::path::Path;

use crate::fixture::{BACKBONE, Scratch, expect, extract, featlab, probe, shards, sweep_file};

fn sweep(file: &Path, out: &Path) -> std::process::Command {
    let mut command = featlab();
    command.arg("sweep").arg(file).arg("--out").arg(out);
    command
}

/// The results table without the one column that is a time.
fn results(out: &Path) -> Vec<String> {
    let csv = fs::read_to_string(out.join("results.csv")).expect("results.csv");
    csv.lines().map(|line| line.rsplit_once(',').expect("columns").0.to_owned()).collect()
}

#[test]
fn a_sweep_writes_everything_and_a_second_one_computes_nothing() {
    let scratch = Scratch::new();
    let root = scratch.camvid(6, 3);
    let (file, out) = (sweep_file(&scratch, &root), scratch.path("out"));
    let (table, said) = expect(&mut sweep(&file, &out), 0);
    assert!(table.contains("report.html"), "{table}");
    assert!(said.contains("14 probes, one pass, ") && said.contains(" s, train probes "), "{said}");

    let header = "dataset,split,backbone,cache_id,method,dim,probe,seed,protocol,crf,steps,miou,accuracy,miou_lo,miou_hi";
    let first = results(&out);
    assert_eq!(first[0], header);
    assert_eq!(first.len(), 1 + (1 + 2 * 3) * 2, "baseline and 2 methods × 3 dims, 2 probes each");
    for name in ["report.html", "results.parquet", "per_class.parquet", "config.toml", "study.json"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(
        html.contains("data:image/png;base64,") && html.contains("<svg") && html.contains("random weights")
    );

    let (_, stderr) = expect(&mut sweep(&file, &out), 0);
    assert!(stderr.contains("nothing to compute"), "{stderr}");
    assert_eq!(results(&out), first);

    let (plan, _) = expect(sweep(&file, &out).arg("--dry-run"), 0);
    assert!(plan.contains("0 of 14 probes to compute"), "{plan}");
    let (plan, _) = expect(sweep(&file, &out).args(["--dry-run", "--set", "probe.steps=21"]), 0);
    assert!(plan.contains("14 of 14 probes to compute"), "{plan}");

    let (markdown, _) = expect(featlab().arg("report").arg(&out).args(["--format", "md"]), 0);
    assert!(markdown.contains("pca"), "{markdown}");
}

#[test]
fn a_dry_run_estimates_what_is_missing_and_nothing_else() {
    let scratch = Scratch::new();
    let root = scratch.camvid(6, 3);
    let (file, out) = (sweep_file(&scratch, &root), scratch.path("out"));
    let compared = ["--set", "features.compare=['random:vit_micro_patch8:1']"];
    let plan = |more: &[&str]| -> serde_json::Value {
        let (stdout, _) =
            expect(sweep(&file, &out).args(["--dry-run", "--json"]).args(compared).args(more), 0);
        serde_json::from_str(&stdout).unwrap()
    };
    let number =
        |value: &serde_json::Value| value.as_f64().unwrap_or_else(|| panic!("a number, not {value}"));
    let times = ["extract_seconds", "train_seconds", "score_seconds", "seconds"];
    let missing = plan(&[]);
    assert!(!out.exists(), "a dry run writes nothing");
    let (caches, estimate) = (missing["caches"].as_array().unwrap(), &missing["estimate"]);
    assert_eq!((caches.len(), missing["cells"].as_array().unwrap().len()), (4, 14 + 2));
    for (cache, cost) in caches.iter().zip(estimate["caches"].as_array().unwrap()) {
        assert_eq!((&cost["cache_id"], &cost["images"]), (&cache[1], &cache[2]));
        let rows = number(&cost["images"]);
        // At 32 and 48 px, in half precision: tokens, class token, label.
        let [side, patches] = if cache[0] == "train" { [32.0, 16.0] } else { [48.0, 36.0] };
        assert_eq!(number(&cost["bytes"]), rows * ((patches + 1.0) * 192.0 * 2.0 + side * side), "{cost}");
        assert!(number(&cost["gflop_per_image"]) > 0.0 && number(&cost["seconds"]) > 0.0, "{cost}");
    }
    assert!(times.iter().all(|name| number(&estimate[name]) > 0.0), "{estimate}");
    let parts: f64 = times[..3].iter().map(|name| number(&estimate[name])).sum();
    assert!((parts - number(&estimate["seconds"])).abs() < 1e-9, "{estimate}");
    assert!(estimate["rests_on"].as_str().unwrap().contains("measured now"), "{estimate}");
    let (text, _) = expect(sweep(&file, &out).arg("--dry-run"), 0);
    assert!(text.contains("GFLOP an image") && text.contains(" in all\nthe estimate rests on: "), "{text}");

    expect(sweep(&file, &out).args(compared), 0);
    let there = plan(&[]);
    let zero = |name: &str, cost: &serde_json::Value| number(&cost[name]) == 0.0;
    assert!(times.iter().all(|name| zero(name, &there["estimate"])), "{there}");
    for cost in there["estimate"]["caches"].as_array().unwrap() {
        assert!(
            ["images", "gflop_per_image", "bytes", "seconds"].iter().all(|name| zero(name, cost)),
            "{cost}"
        );
    }
    let probes = plan(&["--set", "probe.steps=21"]);
    assert!(zero("extract_seconds", &probes["estimate"]) && !zero("train_seconds", &probes["estimate"]));
    let (text, _) = expect(sweep(&file, &out).arg("--dry-run"), 0);
    assert!(!text.contains("estimate"), "{text}");
}

#[test]
fn results_do_not_depend_on_threads_or_shards() {
    let scratch = Scratch::new();
    let root = scratch.camvid(6, 3);
    let file = sweep_file(&scratch, &root);
    let mut all = Vec::new();
    for (threads, rows) in [("1", "2"), ("2", "2"), ("3", "5")] {
        let out = scratch.path(&format!("out-{threads}-{rows}"));
        let mut command = sweep(&file, &out);
        command.env("RAYON_NUM_THREADS", threads).args(["--set", &format!("how.shard_rows={rows}")]);
        expect(&mut command, 0);
        let projections: Vec<_> = fs::read_dir(out.join("projections"))
            .unwrap()
            .map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .collect();
        all.push((
            results(&out),
            projections.concat().len(),
            fs::read(out.join("results.csv")).map(|_| ()).is_ok(),
        ));
        if rows == "2" {
            all.last_mut().unwrap().1 += shards(&out.join("features")).len();
        }
    }
    assert_eq!(all[0].0, all[1].0, "threads changed a number");
    assert_eq!(all[0].0, all[2].0, "shard size changed a number");
    let by_threads = ["out-1-2", "out-2-2"].map(|name| shards(&scratch.path(name).join("features")));
    assert_eq!(by_threads[0], by_threads[1], "threads changed a shard's bytes");
}

#[test]
fn tasks_share_the_work_and_the_last_one_commits() {
    let scratch = Scratch::new();
    let root = scratch.camvid(7, 2);
    let dataset = format!("camvid:{}", root.display());
    let (whole, parts) = (scratch.path("whole"), scratch.path("parts"));
    expect(extract(&dataset, &whole).args(["--shard-rows", "2"]), 0);
    for task in ["1/3", "0/3"] {
        let (stdout, _) = expect(extract(&dataset, &parts).args(["--shard-rows", "2", "--task", task]), 0);
        assert!(stdout.contains("left to other tasks"), "{stdout}");
        assert!(!parts.join("manifest.json").exists());
    }
    expect(extract(&dataset, &parts).args(["--shard-rows", "2", "--task", "2/3"]), 0);
    assert!(parts.join("manifest.json").exists());
    assert_eq!(shards(&whole), shards(&parts));
}

#[test]
fn reduce_and_probe_agree_with_the_sweep() {
    let scratch = Scratch::new();
    let root = scratch.camvid(6, 3);
    let (file, out) = (sweep_file(&scratch, &root), scratch.path("sweep"));
    expect(&mut sweep(&file, &out), 0);

    let dataset = format!("camvid:{}", root.display());
    let (train, val) = (scratch.path("train"), scratch.path("val"));
    expect(extract(&dataset, &train).args(["--split", "train"]), 0);
    let mut command = featlab();
    command.args([
        "extract",
        "--dataset",
        &dataset,
        "--backbone",
        BACKBONE,
        "--res",
        "48",
        "--split",
        "val",
        "--out",
    ]);
    expect(command.arg(&val), 0);
    let reducer = scratch.path("pca.safetensors");
    let mut command = featlab();
    command.args(["reduce", "pca", "--cache"]).arg(&train).arg("--out").arg(&reducer);
    expect(&mut command, 0);
    expect(&mut command, 0); // it is there
    let mut command = probe(&train, &val, &scratch.path("probe"));
    command.args(["--dims", "3,12", "--steps", "20", "--batch-size", "4", "--reducer"]);
    expect(command.arg(&reducer), 0);

    let scores = |out: &Path| -> Vec<(String, String)> {
        let rows = results(out);
        (rows.iter().skip(1).map(|row| row.split(',').map(String::from).collect::<Vec<_>>()))
            .filter(|c| c[4] == "pca" && (c[5] == "3" || c[5] == "12"))
            .map(|c| (format!("{}-{}", c[5], c[6]), c[11].clone()))
            .collect()
    };
    assert_eq!(scores(&out), scores(&scratch.path("probe")));
    assert_eq!(scores(&out).len(), 4);
}

#[test]
fn caches_are_listed_and_described() {
    let scratch = Scratch::new();
    let root = scratch.camvid(2, 1);
    expect(&mut extract(&format!("camvid:{}", root.display()), &scratch.path("caches/one")), 0);
    let (stdout, _) = expect(featlab().args(["cache", "ls"]).arg(scratch.path("caches")), 0);
    assert!(stdout.contains("one") && stdout.contains("camvid"), "{stdout}");
    let (stdout, _) = expect(featlab().args(["--json", "cache", "info"]).arg(scratch.path("caches/one")), 0);
    let info: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(info["rows"], 3);
    assert_eq!(info["key"]["res"], 32);
}

#[test]
fn the_doctor_says_what_is_there_and_measures_it() {
    let scratch = Scratch::new();
    let doctor = || {
        let mut command = featlab();
        command.arg("doctor");
        command
    };
    std::fs::create_dir_all(scratch.path("disk")).unwrap();
    let (stdout, _) = expect(doctor().arg("--json").arg("--folder").arg(scratch.path("disk")), 0);
    let facts: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let fact = |name: &str| facts[name].as_str().unwrap_or_else(|| panic!("{name} in {stdout}"));
    for (name, unit) in [
        ("instruction sets", ""),
        ("local store", "writes and reads"),
        ("matrix rate", "GFLOP/s"),
        ("memory rate", "GB/s"),
        ("disk rate", "MB/s read"),
        ("forward passes", "% of that"),
        ("images/s expected", "vit_base_patch8 at 320 px"),
    ] {
        assert!(fact(name).contains(unit), "{name}: {}", fact(name));
    }
    assert_eq!(std::fs::read_dir(scratch.path("disk")).unwrap().count(), 0, "the measured file is gone");

    let (stdout, _) = expect(doctor().arg("--folder").arg(scratch.path("absent")), 0);
    assert!(stdout.contains("not measured: "), "{stdout}");
    let (stdout, _) = expect(doctor().arg("--no-measure").env("FEATLAB_SIMD", "portable"), 0);
    assert!(stdout.contains("portable (of ") && !stdout.contains("GFLOP/s"), "{stdout}");
    let (_, stderr) = expect(doctor().env("FEATLAB_SIMD", "mmx"), 2);
    assert!(stderr.contains("FEATLAB_SIMD=mmx") && stderr.contains("portable"), "{stderr}");
}

#[test]
fn extraction_ends_with_its_rate_and_what_held_it_up() {
    let scratch = Scratch::new();
    let root = scratch.camvid(2, 1);
    let mut command = extract(&format!("camvid:{}", root.display()), &scratch.path("out"));
    let (_, stderr) = expect(command.args(["--split", "train"]), 0);
    let last = stderr.lines().find(|line| line.contains("GFLOP/s")).unwrap_or_else(|| panic!("{stderr}"));
    assert!(last.contains("images/s") && last.contains("bottleneck: "), "{last}");
}

#[test]
fn five_crops_give_five_rows() {
    let scratch = Scratch::new();
    let root = scratch.camvid(2, 1);
    let mut command = extract(&format!("camvid:{}", root.display()), &scratch.path("out"));
    let (stdout, _) = expect(command.args(["--crop", "five", "--split", "train", "--json"]), 0);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(value["rows"], 10);
}
