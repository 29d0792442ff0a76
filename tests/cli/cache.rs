//! `featlab cache`, and the key: what changes the numbers makes another cache, what does not never computes anything again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use loopback::S3;
use serde_json::Value;

use crate::fixture::{BACKBONE, Scratch, expect, extract, featlab, probe, shards};

fn cache(words: &[&str]) -> Command {
    let mut command = featlab();
    command.arg("cache").args(words);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// What `--json` printed last.
fn json(command: &mut Command, code: i32) -> Value {
    let (stdout, _) = expect(command.arg("--json"), code);
    serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON")
}

/// All files of a cache, by name.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Replaces the last of each option that occurs twice, which clap would refuse.
fn extract_with(dataset: &str, out: &Path, changed: &[&str]) -> Command {
    let mut options =
        vec![("--dataset", dataset.to_owned()), ("--backbone", BACKBONE.into()), ("--res", "32".into())];
    let mut flags = Vec::new();
    let mut words = changed.iter();
    while let Some(&word) = words.next() {
        if word == "--flip-average" {
            flags.push(word);
            continue;
        }
        options.retain(|(name, _)| *name != word);
        options.push((word, (*words.next().expect("a value")).to_owned()));
    }
    let mut command = featlab();
    command.arg("extract").arg("--out").arg(out).args(flags);
    for (name, value) in options {
        command.arg(format!("{name}={value}"));
    }
    command
}

#[test]
fn every_element_of_the_key_makes_another_cache_and_nothing_else_does() {
    let scratch = Scratch::new();
    let root = scratch.camvid(6, 2);
    let dataset = format!("camvid:{}", root.display());
    let out = scratch.path("cache");
    let made = json(&mut extract_with(&dataset, &out, &[]), 0);
    let id = made["cache_id"].as_str().unwrap().to_owned();
    let before = files(&out);

    let other = scratch.path("other-heads");
    fs::create_dir(&other).unwrap();
    let changes: [(&str, &[&str]); 16] = [
        ("split", &["--split", "train"]),
        ("crop", &["--crop", "none"]),
        ("crop", &["--crop", "five"]),
        ("crop_ratio", &["--crop-ratio", "0.6"]),
        ("res", &["--res", "40"]),
        ("resize", &["--resize", "bilinear"]),
        ("antialias", &["--resize", "bicubic"]),
        ("checkpoint_sha256", &["--backbone", "random:vit_micro_patch8:1"]),
        ("architecture", &["--backbone", "random:vit_tiny_patch16:0"]),
        ("architecture", &["--precision", "f16"]),
        ("layer", &["--layer", "1"]),
        ("facet", &["--facet", "key"]),
        ("more", &["--facet", "token,key"]),
        ("dtype", &["--dtype", "int8"]),
        ("dtype", &["--dtype", "f32"]),
        ("flip_average", &["--flip-average"]),
    ];
    for (element, options) in changes {
        // Into the same place: refused, with the name of what differs; elsewhere: another id.
        let (_, stderr) = expect(&mut extract_with(&dataset, &out, options), 4);
        assert!(stderr.contains(&format!("{element}: asked for")), "{options:?}: {stderr}");
        let mut explain = cache(&["info", text(&out), "--explain"]);
        let ask = extract_with(&dataset, &out, options);
        explain.args(ask.get_args().skip(3));
        let explained = json(&mut explain, 4);
        assert!(explained["differ"].as_array().unwrap().contains(&Value::from(element)), "{explained}");
        assert_eq!(explained["found"]["cache_id"], Value::from(id.as_str()));
        assert_ne!(explained["asked"]["cache_id"], Value::from(id.as_str()));
    }
    assert_eq!(files(&out), before, "nothing was touched");

    // The data set: another name, another image, another label, one more image; an edit that keeps length and time of change.
    let folder = format!("folder:{}", root.display());
    let (_, stderr) = expect(&mut extract_with(&folder, &out, &[]), 4);
    assert!(stderr.contains("dataset: asked for \"folder\", found \"camvid\""), "{stderr}");
    let edited = |name: &str, edit: &dyn Fn(&Path)| {
        let root = scratch.path(name);
        copy(&scratch.path("CamVid"), &root);
        let dataset = format!("camvid:{}", root.display());
        let moved = json(&mut extract_with(&dataset, &out, &[]), 0);
        assert_eq!(moved["computed"], Value::from(0), "the same pictures elsewhere are the same data set");
        edit(&root);
        let (_, stderr) = expect(&mut extract_with(&dataset, &out, &[]), 4);
        assert!(stderr.contains("dataset_fingerprint"), "{name}: {stderr}");
    };
    let flip = |path: PathBuf| {
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    edited("image", &|root| flip(root.join("images/train/frame_03.png")));
    edited("label", &|root| flip(root.join("labels/train/frame_00.png")));
    edited("renamed", &|root| {
        fs::rename(root.join("images/val/frame_01.png"), root.join("images/val/frame_09.png")).unwrap();
        fs::rename(root.join("labels/val/frame_01.png"), root.join("labels/val/frame_09.png")).unwrap();
    });
    edited("fewer", &|root| fs::remove_file(root.join("images/val/frame_00.png")).unwrap());

    // Neither threads, nor batches, nor shards, nor device, nor tasks, nor the words in which a place is named.
    for (options, threads) in [
        (&["--shard-rows", "1"][..], "1"),
        (&["--shard-rows", "100"], "2"),
        (&["--device", "cpu"], "7"),
        (&["--batch", "3"], "2"),
        (&["--task", "0/1"], "2"),
        (&["--layout", "binary"], "2"),
    ] {
        let again = json(extract_with(&dataset, &out, options).env("RAYON_NUM_THREADS", threads), 0);
        assert_eq!(
            (&again["computed"], &again["cache_id"]),
            (&Value::from(0), &Value::from(id.as_str())),
            "{options:?}"
        );
        // And from nothing: the same id, and the same numbers (shards of other sizes are other files).
        let anew = scratch.path("anew");
        let made = json(extract_with(&dataset, &anew, options).env("RAYON_NUM_THREADS", threads), 0);
        assert_eq!(made["cache_id"], Value::from(id.as_str()), "{options:?}");
        if !options.contains(&"--shard-rows") {
            assert_eq!(shards(&anew), shards(&out), "{options:?}");
        }
        fs::remove_dir_all(anew).unwrap();
    }
    assert_eq!(files(&out), before);
    let explained = json(
        cache(&["info", text(&out), "--explain"]).args(extract_with(&dataset, &out, &[]).get_args().skip(3)),
        0,
    );
    assert_eq!(explained["differ"], Value::Array(vec![]));
}

/// A folder with all that is in it; times of change are those of the originals, as `cp -p` does.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            let time = entry.metadata().unwrap().modified().unwrap();
            fs::File::options().append(true).open(&target).unwrap().set_modified(time).unwrap();
        }
    }
}

#[test]
fn converted_scanned_and_back_again() {
    let scratch = Scratch::new();
    let dataset = format!("camvid:{}", scratch.camvid(5, 0).display());
    let out = scratch.path("cache");
    expect(
        extract(&dataset, &out).args([
            "--shard-rows",
            "2",
            "--facet",
            "token,key",
            "--images",
            "--dtype",
            "int8",
        ]),
        0,
    );
    for form in ["packed", "list", "arrow"] {
        let there = scratch.path(form);
        let (stdout, _) =
            expect(&mut cache(&["convert", text(&out), "--layout", form, "--out", text(&there)]), 0);
        assert!(stdout.contains(&format!("5 rows as {form}")), "{stdout}");
        expect(&mut cache(&["verify", text(&there), "--backbone", BACKBONE]), 0);
        let back = scratch.path(&format!("{form}-back"));
        expect(&mut cache(&["convert", text(&there), "--layout", "binary", "--out", text(&back)]), 0);
        assert_eq!(files(&back), files(&out), "{form}");
        let scanned = json(&mut cache(&["scan", text(&there), "--shuffle"]), 0);
        assert_eq!(scanned["rows"], Value::from(5));
        // The same extraction finds it, in whatever form it is.
        let mut again = extract(&dataset, &there);
        let again = json(again.args(["--facet", "token,key", "--images", "--dtype", "int8"]), 0);
        assert_eq!(again["computed"], Value::from(0));
    }
    let labels = json(&mut cache(&["scan", text(&out), "--columns", "label"]), 0);
    assert_eq!(labels["bytes"], Value::from(5 * 32 * 32));
    let (_, stderr) = expect(&mut cache(&["scan", text(&out), "--columns", "lable"]), 2);
    assert!(stderr.contains("which has tokens, tokens_scale, key_3"), "{stderr}");
    let (_, stderr) = expect(&mut cache(&["convert", text(&out), "--layout", "zip", "--out", "x"]), 2);
    assert!(stderr.contains("expected binary, packed, list or arrow"), "{stderr}");
    let (_, stderr) = expect(
        &mut cache(&["convert", text(&out), "--layout", "arrow", "--out", text(&scratch.path("list"))]),
        4,
    );
    assert!(stderr.contains("asked for arrow, found list"), "{stderr}");
    let (info, _) = expect(&mut cache(&["info", text(&scratch.path("arrow"))]), 0);
    assert!(info.contains("form       arrow") && info.contains("tokens, key_3, cls, label, image"), "{info}");
    let (_, stderr) =
        expect(&mut cache(&["verify", text(&out), "--backbone", "random:vit_micro_patch8:1"]), 4);
    assert!(stderr.contains("its features are those of checkpoint"), "{stderr}");
}

#[test]
fn a_column_is_as_good_as_a_cache_of_its_own() {
    let scratch = Scratch::new();
    let dataset = format!("camvid:{}", scratch.camvid(4, 2).display());
    let both = |split: &str, options: &[&str]| {
        let out = scratch.path(&format!("{split}-{}", options.join("")));
        expect(extract(&dataset, &out).args(["--split", split]).args(options), 0);
        out
    };
    let together = ["train", "val"].map(|split| both(split, &["--facet", "token,key"]));
    let alone = ["train", "val"].map(|split| both(split, &["--facet", "key"]));
    let scores = |caches: &[PathBuf; 2], column: &str, name: &str| {
        let pca = scratch.path(&format!("{name}.safetensors"));
        let mut reduce = featlab();
        reduce.args(["reduce", "pca", "--column", column, "--cache"]).arg(&caches[0]).arg("--out").arg(&pca);
        expect(&mut reduce, 0);
        let out = scratch.path(name);
        let mut probe = probe(&caches[0], &caches[1], &out);
        probe.args(["--column", column, "--dims", "3,12", "--steps", "10", "--batch-size", "2"]);
        expect(probe.arg("--reducer").arg(&pca), 0);
        let csv = fs::read_to_string(out.join("results.csv")).unwrap();
        let columns = |line: &str| {
            line.split(',')
                .enumerate()
                .filter(|(i, _)| *i != 3 && *i != 15)
                .map(|(_, c)| c.to_owned())
                .collect::<Vec<_>>()
        };
        csv.lines().map(columns).collect::<Vec<_>>()
    };
    assert_eq!(scores(&together, "key_3", "together"), scores(&alone, "tokens", "alone"));
    // A reducer of one column does not fit another.
    let mut probe = probe(&together[0], &together[1], &scratch.path("x"));
    let (_, stderr) = expect(probe.arg("--reducer").arg(scratch.path("together.safetensors")), 4);
    assert!(stderr.contains("facet") || stderr.contains("key"), "{stderr}");
    let mut reduce = featlab();
    reduce.args(["reduce", "pca", "--column", "key_7", "--cache"]).arg(&together[0]);
    reduce.arg("--out").arg(scratch.path("x.safetensors"));
    let (_, stderr) = expect(&mut reduce, 2);
    assert!(stderr.contains("it has tokens, key_3"), "{stderr}");
}

#[test]
fn repair_knows_from_the_cache_what_to_compute() {
    let scratch = Scratch::new();
    let root = scratch.camvid(6, 0);
    let dataset = format!("camvid:{}", root.display());
    let out = scratch.path("cache");
    expect(
        extract(&dataset, &out).args(["--shard-rows", "2", "--layer", "-1,1", "--images", "--flip-average"]),
        0,
    );
    let expected = files(&out);
    let damage = |file: &str| {
        let mut bytes = fs::read(out.join(file)).unwrap();
        let at = bytes.len() / 3;
        bytes[at] ^= 64;
        fs::write(out.join(file), bytes).unwrap();
    };
    damage("shard-00001.parquet");
    let (_, stderr) = expect(&mut cache(&["verify", text(&out)]), 4);
    assert!(stderr.contains("shard-00001.parquet"), "{stderr}");
    let (stdout, _) = expect(&mut cache(&["repair", text(&out)]), 0);
    assert!(stdout.contains("computed 2 images"), "{stdout}");
    assert_eq!(files(&out), expected);
    let (stdout, _) = expect(&mut cache(&["repair", text(&out)]), 0);
    assert!(stdout.contains("nothing to compute"), "{stdout}");
    // The data set has moved; the manifest, which says where it was, is damaged as well.
    let moved = scratch.path("moved");
    fs::rename(&root, &moved).unwrap();
    damage("shard-00000.parquet");
    let (_, stderr) = expect(&mut cache(&["repair", text(&out)]), 2);
    assert!(stderr.contains("CamVid"), "{stderr}");
    damage("manifest.json");
    let (_, stderr) = expect(&mut cache(&["repair", text(&out)]), 2);
    assert!(stderr.contains("--dataset"), "{stderr}");
    let elsewhere = format!("camvid:{}", moved.display());
    let repaired = ["repair", text(&out), "--dataset", &elsewhere, "--backbone", BACKBONE];
    let (stdout, _) = expect(&mut cache(&repaired), 0);
    assert!(stdout.contains("computed 2 images"), "{stdout}");
    let but_manifest = |files: Vec<(PathBuf, Vec<u8>)>| -> Vec<_> {
        files.into_iter().filter(|(name, _)| name != Path::new("manifest.json")).collect()
    };
    assert_eq!(but_manifest(files(&out)), but_manifest(expected));
}

#[test]
fn images_and_caches_in_buckets_with_a_copy_at_hand() {
    let scratch = Scratch::new();
    let bucket = scratch.path("s3/bucket");
    fs::create_dir_all(&bucket).unwrap();
    let server = S3::start(&scratch.path("s3")).unwrap();
    let root = scratch.camvid(6, 2);
    copy(&root, &bucket.join("data/CamVid"));
    let with = |command: &mut Command| json(command.envs(server.environment()), 0);

    let local = scratch.path("local");
    let here = with(extract(&format!("camvid:{}", root.display()), &local).args(["--shard-rows", "2"]));
    let there = with(
        extract("camvid:s3://bucket/data/CamVid", Path::new("s3://bucket/features"))
            .args(["--shard-rows", "2"]),
    );
    assert_eq!(here["cache_id"], there["cache_id"], "the same pictures, wherever they lie");
    assert_eq!(shards(&bucket.join("features")), shards(&local));
    let again = with(
        extract("camvid:s3://bucket/data/CamVid", Path::new("s3://bucket/features"))
            .args(["--shard-rows", "2"]),
    );
    assert_eq!(again["computed"], Value::from(0));
    let gone = extract("camvid:s3://bucket/nothing", Path::new("s3://bucket/x"))
        .envs(server.environment())
        .output()
        .unwrap();
    assert_eq!(gone.status.code(), Some(2), "{}", String::from_utf8_lossy(&gone.stderr));

    let total: u64 = shards(&local).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let copies = scratch.path("copies");
    let scan = |limit: &str| {
        let mut command =
            cache(&["scan", "s3://bucket/features", "--shuffle", "--local-copy", text(&copies)]);
        with(command.args(["--local-copy-limit", limit]))["fetched_bytes"].as_u64().unwrap()
    };
    assert_eq!(scan("1GB"), total, "each shard once");
    assert_eq!(scan("1GB"), 0, "and never again");
    fs::remove_dir_all(&copies).unwrap();
    scan("20kB");
    let kept: u64 =
        fs::read_dir(&copies).map_or(0, |all| all.map(|e| e.unwrap().metadata().unwrap().len()).sum());
    assert!(kept <= 20_000, "{kept}");
    let (_, stderr) =
        expect(cache(&["scan", text(&local), "--local-copy", "x"]).args(["--local-copy-limit", "much"]), 2);
    assert!(stderr.contains("50GB"), "{stderr}");
}

#[test]
fn four_tasks_of_which_one_is_killed_make_one_cache() {
    let scratch = Scratch::new();
    let dataset = format!("camvid:{}", scratch.camvid(40, 0).display());
    let (whole, out) = (scratch.path("whole"), scratch.path("tasks"));
    expect(extract(&dataset, &whole).args(["--shard-rows", "1"]), 0);
    let task = |i: usize| {
        let mut command = extract(&dataset, &out);
        command.args(["--shard-rows", "1", "--task", &format!("{i}/4")]);
        command
    };
    let spawn = |i| {
        task(i).stdout(Stdio::null()).stderr(Stdio::null()).env("RAYON_NUM_THREADS", "1").spawn().unwrap()
    };
    let mut tasks: Vec<_> = (0..4).map(spawn).collect();
    let own = |folder: &Path| {
        (0..40).step_by(4).filter(|i| folder.join(format!("shard-{i:05}.parquet")).exists()).count()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while own(&out) < 2 && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let mut killed = tasks.remove(0);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = own(&out);
    for mut task in tasks {
        assert!(task.wait().unwrap().success());
    }
    assert!((2..10).contains(&left), "{left} of its 10 shards were there when it was killed");
    assert!(!out.join("manifest.json").exists(), "ten shards are missing");
    let (_, stderr) = expect(&mut cache(&["verify", text(&out)]), 4);
    assert!(stderr.contains("incomplete"), "{stderr}");
    let (stdout, _) = expect(&mut task(0), 0);
    assert!(stdout.contains(&format!("computed {} images", 10 - left)), "{stdout}");
    assert_eq!(shards(&out), shards(&whole));
    expect(&mut cache(&["verify", text(&out)]), 0);
    let (stdout, _) = expect(&mut task(3), 0);
    assert!(stdout.contains("nothing to compute"), "{stdout}");
}
