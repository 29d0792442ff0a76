//! Extraction, moments, projection, conversion, checks, probes and a sweep: the same bytes as on one machine.

use std::collections::BTreeMap;
use std::path::Path;

use crate::fixture::{BACKBONE, Scratch, bytes, expect, shards, sweep_file};
use crate::processes::Cluster;

/// The commands of the line, below `s3://bucket/<to>/`; local files begin with `to`.
pub(crate) struct Line {
    pub(crate) to: String,
    dataset: String,
}

impl Line {
    /// 150 training pictures are three blocks of moments.
    pub(crate) fn new(scratch: &Scratch, to: &str) -> Self {
        Self { to: to.into(), dataset: format!("camvid:{}", scratch.camvid(150, 12).display()) }
    }

    pub(crate) fn extract<'a>(&'a self, split: &'a str, out: &'a str) -> Vec<&'a str> {
        let features = ["--backbone", BACKBONE, "--res", "32", "--shard-rows", "12"];
        let mut words = vec!["extract", "--dataset", &self.dataset, "--split", split, "--out", out];
        words.extend(features);
        words
    }

    pub(crate) fn place(&self, name: &str) -> String {
        format!("s3://bucket/{}/{name}", self.to)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}-{name}", self.to)
    }
}

/// All of the line, here or on the cluster.
fn whole(cluster: &Cluster, line: &Line, here: bool) {
    let (train, val) = (line.place("train"), line.place("val"));
    cluster.run(&line.extract("train", &train), here);
    cluster.run(&line.extract("val", &val), here);
    let pca = line.file("pca.safetensors");
    cluster.run(&["reduce", "pca", "--cache", &train, "--out", &pca], here);
    let small = line.place("small");
    cluster.run(&["cache", "project", &train, "--reducer", &pca, "--dims", "6", "--out", &small], here);
    cluster.run(&["cache", "convert", &train, "--layout", "arrow", "--out", &line.place("arrow")], here);
    let (said, _) = cluster.run(&["cache", "verify", &small], here);
    assert!(said.contains("sound, 150 rows"), "{said}");
    let out = line.file("runs");
    let mut probe =
        vec!["probe", "--cache-train", &train, "--cache-val", &val, "--reducer", &pca, "--out", &out];
    probe.extend(["--dims", "3,6,12", "--probe", "linear,cluster,knn,ridge,kmeans", "--seeds", "0,1"]);
    probe.extend(["--steps", "12", "--batch-size", "4", "--boundary-iou"]);
    cluster.run(&probe, here);
}

/// Run records without their times, and the files beside them.
pub(crate) fn records(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder.join("runs")).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        let mut contents = std::fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "json") {
            let mut record: serde_json::Value = serde_json::from_slice(&contents).unwrap();
            record.as_object_mut().unwrap().remove("wall_s");
            contents = record.to_string().into_bytes();
        }
        all.insert(name.into_string().unwrap(), contents);
    }
    all
}

/// Whether two runs of the line left the same.
pub(crate) fn assert_same(cluster: &Cluster, one: &Line, other: &Line, caches: &[&str]) {
    let at = |line: &Line, cache: &str| cluster.object(&format!("{}/{cache}", line.to));
    for cache in caches {
        let (a, b) = (at(one, cache), at(other, cache));
        assert!(a.join("manifest.json").exists());
        let names = |folder: &Path| {
            let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
            let mut files: Vec<_> = files.filter(|name| !name.to_string_lossy().starts_with('.')).collect();
            files.sort();
            files
        };
        assert_eq!(names(&a), names(&b), "{cache}");
        for name in names(&a) {
            let name = name.to_str().unwrap();
            assert!(bytes(&a, name) == bytes(&b, name), "{cache}/{name} differs");
        }
    }
}

#[test]
fn every_command_gives_the_bytes_of_one_machine() {
    let cluster = Cluster::start(4);
    let (one, many) = (Line::new(&cluster.scratch, "one"), Line::new(&cluster.scratch, "many"));
    whole(&cluster, &one, true);
    whole(&cluster, &many, false);
    assert_same(&cluster, &one, &many, &["train", "val", "small", "arrow"]);
    let here = cluster.scratch.path("");
    assert!(bytes(&here, "one-pca.safetensors") == bytes(&here, "many-pca.safetensors"));
    let (a, b) = (records(&here.join("one-runs")), records(&here.join("many-runs")));
    assert_eq!(a.len(), 3 * 2 * (5 * 2 + 4), "a record and counts each, weights of all but k-NN");
    assert!(a == b, "{:?}", a.keys().filter(|key| a.get(*key) != b.get(*key)).collect::<Vec<_>>());
    // Again: there is nothing to do, and it says so.
    let (said, _) = cluster.run(&many.extract("train", &many.place("train")), false);
    assert!(said.contains("nothing to compute"), "{said}");
    // Anew: it is emptied once the new one can be made, and made again.
    let place = many.place("train");
    let mut anew = many.extract("train", &place);
    anew.push("--overwrite");
    let mut missing = anew.clone();
    missing[2] = "folder:nowhere";
    let mut command = cluster.featlab();
    command.args(&missing).args(["--cluster", &cluster.url()]);
    expect(&mut command, 2);
    assert_same(&cluster, &one, &many, &["train"]);
    let (said, _) = cluster.run(&anew, false);
    assert!(said.contains("computed 150 images"), "{said}");
    assert_same(&cluster, &one, &many, &["train"]);
    let mut onto_itself = cluster.featlab();
    onto_itself.args([
        "cache",
        "project",
        &place,
        "--reducer",
        "many-pca.safetensors",
        "--out",
        &place,
        "--overwrite",
    ]);
    let (_, said) = expect(onto_itself.args(["--cluster", &cluster.url()]), 2);
    assert!(said.contains("name another place"), "{said}");
    assert_same(&cluster, &one, &many, &["train"]);
}

#[test]
fn several_slots_and_two_drivers_at_once_and_paths_from_here() {
    let mut cluster = Cluster::start(0);
    cluster.start_executor_with(&["--slots", "3"]);
    cluster.wait(|status| status["executors"].as_array().unwrap().len() == 1);
    let line = Line::new(&cluster.scratch, "one");
    // A relative path is what the manifest keeps, on one machine and on many.
    let here = |out: &'static str| {
        let mut words = line.extract("train", out);
        words[2] = "camvid:CamVid";
        words
    };
    cluster.run(&here("one"), true);
    let (first, second) = (cluster.begin(&here("many")), cluster.begin(&here("many")));
    first.end(0, &cluster);
    second.end(0, &cluster);
    let root = cluster.scratch.path("");
    for file in std::fs::read_dir(root.join("one")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(bytes(&root.join("one"), &name) == bytes(&root.join("many"), &name), "{name}");
    }
}

#[test]
fn a_sweep_gives_the_records_of_one_machine() {
    let cluster = Cluster::start(2);
    let root = cluster.scratch.camvid(9, 5);
    let file = sweep_file(&cluster.scratch, &root);
    let sweep = |out: &str, url: Option<&str>| {
        let mut command = cluster.featlab();
        command.args(["sweep", file.to_str().unwrap(), "--out", out]);
        command.args([
            "--set",
            "reduce.methods=[\"none\",\"pca\",\"rp\",\"stego\"]",
            "--set",
            "eval.crf=[\"pca\"]",
        ]);
        command.args([
            "--set",
            "features.val_res=32",
            "--set",
            "stego.max_steps=3",
            "--set",
            "stego.batch_size=4",
        ]);
        command.args(["--set", "stego.num_neighbors=2"]);
        command.args(url.map(|url| ["--cluster", url]).into_iter().flatten());
        expect(&mut command, 0)
    };
    sweep("one", None);
    let (_, said) = sweep("many", Some(&cluster.url()));
    assert!(said.contains(" probes, features read by executors: extract "), "{said}");
    let here = cluster.scratch.path("");
    let (a, b) = (records(&here.join("one")), records(&here.join("many")));
    assert!(
        a.len() > 20 && a == b,
        "{:?}",
        a.keys().filter(|key| a.get(*key) != b.get(*key)).collect::<Vec<_>>()
    );
    assert!(shards(&here.join("one/features")) == shards(&here.join("many/features")));
    let page = std::fs::read_to_string(here.join("many/report.html")).unwrap();
    assert!(page.contains("stego"));
}
