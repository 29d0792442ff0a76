//! Every probe, method and score that a sweep knows, in one sweep: rows, weights, comparisons, geometry; and STEGO's heads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::fixture::{Scratch, expect, extract, featlab, sweep_file};

/// Settings of a sweep with everything in it.
const EVERYTHING: [&str; 8] = [
    "probe.probes=[\"linear\", \"cluster\", \"knn\", \"ridge\", \"kmeans\"]",
    "probe.seeds=[0, 1]",
    "probe.kmeans_restarts=2",
    "reduce.methods=[\"none\", \"pca\", \"rp\", \"umap\"]",
    "reduce.dims=[3, \"full\"]",
    "eval.boundary_iou=true",
    "eval.crf=[\"none\", \"pca\"]",
    "how.shard_rows=3",
];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A record's name and what is to be the same wherever it was computed.
fn runs(out: &Path) -> BTreeMap<String, (Value, Vec<u8>)> {
    let study = json(&out.join("study.json"));
    let run = |run: &Value| {
        let mut run = run.clone();
        run.as_object_mut().unwrap().remove("wall_s");
        let name = ["method", "dim", "probe", "seed", "crf"].map(|key| run[key].to_string()).join(" ");
        let weights = out.join("runs").join(format!("{}.safetensors", run["key"].as_str().unwrap()));
        (name, (run, fs::read(weights).unwrap_or_default()))
    };
    study["runs"].as_array().unwrap().iter().map(run).collect()
}

#[test]
fn every_probe_method_and_score_whatever_the_threads() {
    let scratch = Scratch::new();
    let file = sweep_file(&scratch, &scratch.camvid(7, 3));
    let sweep = |out: &Path, threads: &str| {
        let mut command = featlab();
        command.arg("sweep").arg(&file).arg("--out").arg(out).env("RAYON_NUM_THREADS", threads);
        for setting in EVERYTHING {
            command.arg("--set").arg(setting);
        }
        expect(&mut command, 0)
    };
    let (one, two) = (scratch.path("one"), scratch.path("two"));
    sweep(&one, "1");
    sweep(&two, "2");
    let found = runs(&one);
    assert_eq!(found, runs(&two));

    // none; PCA and RP of 3 and all dimensions; UMAP of 3. The ridge probe of what knows no seed stands once.
    let count = |of: &dyn Fn(&Value) -> bool| found.values().filter(|(run, _)| of(run)).count();
    for probe in ["linear", "cluster", "knn", "kmeans"] {
        assert_eq!(
            count(&|run| run["probe"] == probe && run["crf"] == false),
            2 * (1 + 2 + 2 + 1),
            "{probe}"
        );
    }
    assert_eq!(count(&|run| run["probe"] == "ridge"), 1 + 2 + 2 * 2 + 2);
    assert_eq!(count(&|run| run["crf"] == true), 2 * 2 * (1 + 2));
    for (name, (run, weights)) in &found {
        assert!(run["miou"].as_f64().unwrap() > 0.0 && run["boundary_iou"].is_number(), "{name}");
        let of_weights = run["probe"] != "knn" && run["crf"] == false;
        assert_eq!(!weights.is_empty(), of_weights, "{name}");
        let steps = if ["linear", "cluster"].contains(&run["probe"].as_str().unwrap()) { 20 } else { 0 };
        assert_eq!(run["steps"], steps, "{name}");
        let unsupervised = ["cluster", "kmeans"].contains(&run["probe"].as_str().unwrap());
        assert_eq!(run["majority"].is_object(), unsupervised, "{name}");
    }

    let study = json(&one.join("study.json"));
    let pairs = study["comparisons"].as_array().unwrap();
    let has = |first: &str, second: &str| {
        pairs.iter().any(|pair| pair["first"] == first && pair["second"] == second && pair["p"].is_number())
    };
    assert!(has("pca, 3", "rp, 3") && has("rp, 3", "umap, 3") && has("pca, 3", "none, 192"), "{pairs:#?}");
    assert!(has("none + crf, 192", "none, 192"), "{pairs:#?}");
    assert!(study["geometry"]["intrinsic_dim"][0][1].as_f64().unwrap() > 0.5, "{}", study["geometry"]);
    assert_eq!(study["interval"], "jackknife");

    let (_, log) = sweep(&one, "2");
    assert!(log.contains("nothing to compute"), "{log}");
    assert_eq!(json(&one.join("study.json"))["comparisons"], study["comparisons"]);
}

#[test]
fn a_refined_row_is_added_to_what_is_there() {
    let scratch = Scratch::new();
    let file = sweep_file(&scratch, &scratch.camvid(5, 2));
    let sweep = |settings: &[&str]| {
        let mut command = featlab();
        command.arg("sweep").arg(&file).arg("--out").arg(scratch.path("out"));
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        expect(&mut command, 0).1
    };
    sweep(&["reduce.methods=[\"none\"]"]);
    let log = sweep(&["reduce.methods=[\"none\"]", "eval.crf=[\"none\"]"]);
    assert!(log.contains("computed features of 0 images and 2 probes"), "{log}");
    assert_eq!(runs(&scratch.path("out")).len(), 4);
}

#[test]
fn stego_trains_a_head_for_each_dimension_and_a_nested_one_for_all() {
    let scratch = Scratch::new();
    let file = sweep_file(&scratch, &scratch.camvid(7, 2));
    let sweep = |out: &Path, threads: &str| {
        let mut command = featlab();
        command.arg("sweep").arg(&file).arg("--out").arg(out).env("RAYON_NUM_THREADS", threads);
        for setting in [
            "reduce.methods=[\"stego\", \"stego-nested\"]",
            "stego.max_steps=6",
            "stego.batch_size=4",
            "stego.num_neighbors=3",
            "stego.feature_samples=4",
        ] {
            command.arg("--set").arg(setting);
        }
        expect(&mut command, 0)
    };
    let (one, two) = (scratch.path("one"), scratch.path("two"));
    sweep(&one, "1");
    let (_, log) = sweep(&two, "2");
    assert!(log.contains("STEGO, 12 dimensions: 6 steps, correspondence loss"), "{log}");
    let found = runs(&one);
    assert_eq!(found, runs(&two));
    // Both at 3 and 12 dimensions; all of the features would be no reduction.
    assert_eq!(found.len(), 2 * 2 * 2);
    let files = |method: &str| {
        let all = fs::read_dir(one.join("projections")).unwrap();
        let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(&format!("{method}-")) && name.ends_with(".safetensors")).count()
    };
    assert_eq!((files("stego"), files("stego-nested")), (3, 1)); // the first name begins the second

    let cache = fs::read_dir(one.join("features")).unwrap().map(|entry| entry.unwrap().path());
    let cache = { cache }.find(|path| path.to_string_lossy().contains("train")).unwrap();
    let reducer = scratch.path("head.safetensors");
    let mut reduce = featlab();
    reduce.args([
        "reduce",
        "stego",
        "--nested",
        "3,6",
        "--set",
        "max_steps=2",
        "--set",
        "num_neighbors=2",
        "--cache",
    ]);
    let (said, _) = expect(reduce.arg(&cache).arg("--out").arg(&reducer), 0);
    assert!(said.contains("stego-nested, 192 → up to 6 dimensions"), "{said}");
    let mut reduce = featlab();
    reduce
        .args(["reduce", "stego", "--cache"])
        .arg(&cache)
        .arg("--out")
        .arg(scratch.path("none.safetensors"));
    let (_, said) = expect(&mut reduce, 2);
    assert!(said.contains("--dims K, or for --nested"), "{said}");
}

/// A checkpoint as PyTorch Lightning writes one: a head among other tensors, and an object of a class that exists nowhere else.
const LIGHTNING: &str = r#"
import sys, torch
torch.manual_seed(0)
class Settings:
    def __init__(self): self.dim, self.nested = 5, {"a": [1, 2.5]}
d, k = 192, 5
linear = torch.nn.Sequential(torch.nn.Conv2d(d, k, (1, 1)))
perceptron = torch.nn.Sequential(torch.nn.Conv2d(d, d, (1, 1)), torch.nn.ReLU(), torch.nn.Conv2d(d, k, (1, 1)))
state = {"net.cluster1." + n: v for n, v in linear.state_dict().items()}
state |= {"net.cluster2." + n: v for n, v in perceptron.state_dict().items()}
state["net.model.norm.bias"] = torch.zeros(d)
state["cluster_probe.clusters"] = torch.randn(3, k)
torch.save({"epoch": 1, "state_dict": state, "hyper_parameters": {"cfg": Settings()}, "callbacks": {Settings: 1}}, sys.argv[1])
tokens = torch.randn(1, d, 4, 6)
code = (linear(tokens) + perceptron(tokens)).detach()
for name, x in (("tokens", tokens), ("code", code)):
    open(sys.argv[2] + name, "wb").write(x.flatten(2).transpose(1, 2).contiguous().numpy().tobytes())
"#;

#[test]
fn a_lightning_checkpoint_becomes_a_reducer_that_agrees_with_pytorch() {
    use dimred::Projection as _;
    let python = std::env::var("FEATLAB_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_torch = std::process::Command::new(&python).args(["-c", "import torch, numpy"]).output();
    if !has_torch.is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} with torch is not present");
        return;
    }
    let scratch = Scratch::new();
    let (checkpoint, script) = (scratch.path("stego.ckpt"), scratch.path("write.py"));
    fs::write(&script, LIGHTNING).unwrap();
    let prefix = format!("{}/", scratch.path("").display());
    let wrote = std::process::Command::new(&python).arg(&script).arg(&checkpoint).arg(&prefix).status();
    assert!(wrote.unwrap().success());
    let cache = scratch.path("cache");
    expect(&mut extract(&format!("camvid:{}", scratch.camvid(3, 1).display()), &cache), 0);
    let out = scratch.path("head.safetensors");
    let mut reduce = featlab();
    reduce
        .args(["reduce", "stego", "--from"])
        .arg(&checkpoint)
        .arg("--cache")
        .arg(&cache)
        .arg("--out")
        .arg(&out);
    expect(&mut reduce, 0);

    let numbers = |name: &str, width: usize| {
        let bytes = fs::read(format!("{prefix}{name}")).unwrap();
        let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        ndarray::Array2::from_shape_vec((24, width), numbers).unwrap()
    };
    let reducer = dimred::Reducer::load(&out).unwrap();
    let code = reducer.at(5).unwrap().transform(numbers("tokens", 192).view()).unwrap();
    let worst = (&code - &numbers("code", 5)).iter().fold(0.0_f32, |worst, x| worst.max(x.abs()));
    println!("largest difference to PyTorch: {worst:e}");
    assert!(worst < 1e-5, "{worst}");

    fs::write(&checkpoint, b"not a checkpoint").unwrap();
    let mut reduce = featlab();
    reduce.args(["reduce", "stego", "--from"]).arg(&checkpoint).arg("--cache").arg(&cache);
    expect(reduce.arg("--out").arg(scratch.path("other.safetensors")), 4);
}
