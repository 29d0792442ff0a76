//! `featlab pretrain dino`: a folder of pictures in, a backbone that `extract` takes out, and nothing lost on the way.

use std::path::Path;
use std::process::Command;

use crate::fixture::{Scratch, bytes, expect, featlab, signalled};

/// A run of seconds: d 24, patches of 8, 3 epochs of 12 steps.
const TINY: &str = r#"
name = "tiny"
[data]
datasets = ["scenes:train=12,val=1,size=40,seed=3"]
split = "train"
tiles = 2
tile_size = 0.6
[monitor]
dataset = "scenes:train=4,val=4,size=48"
res = 48
k = 5
[save]
keep_every_epochs = 2
[backbone]
arch = "vit_micro_patch8"
embed_dim = 24
depth = 2
table_size = 48
[head]
out_dim = 32
hidden_dim = 32
bottleneck_dim = 16
[views]
global_size = 24
local_size = 16
locals = 2
[optimizer]
warmup_epochs = 1
[train]
epochs = 3
batch_size = 4
"#;

/// On the CPU, whose bits are the same each time, also where the build has other devices.
fn pretrain(scratch: &Scratch, out: &Path) -> Command {
    pretrain_on("cpu", scratch, out)
}

fn pretrain_on(device: &str, scratch: &Scratch, out: &Path) -> Command {
    let file = scratch.path("tiny.toml");
    std::fs::write(&file, TINY).unwrap();
    let mut command = featlab();
    command.args(["pretrain", "dino", "--device", device]).arg(file).arg("--out").arg(out);
    command
}

/// The table without its last column, which is a speed.
fn losses(folder: &Path) -> Vec<String> {
    let text = String::from_utf8(bytes(folder, "metrics.csv")).unwrap();
    text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect()
}

#[test]
fn a_run_leaves_what_it_promises_and_is_not_done_twice() {
    let scratch = Scratch::new();
    let out = scratch.path("run");
    let (stdout, _) = expect(pretrain(&scratch, &out).arg("--json"), 0);
    let result: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((result["steps"].as_u64(), result["images"].as_u64()), (Some(36), Some(48)));
    let below = |line: &String| line.split(',').nth(2).unwrap().parse::<f64>().unwrap() < 32.0_f64.ln();
    let rows = &losses(&out)[1..];
    match result["below_ln_k_since"].as_u64() {
        Some(since) => {
            assert!(
                rows[since as usize..].iter().all(below) && (since == 0 || !below(&rows[since as usize - 1]))
            );
        }
        None => assert!(!below(&rows[35])),
    }
    assert!(result["knn_before"].is_f64() && result["knn_after"].is_f64(), "{result}");
    assert_eq!(losses(&out).len(), 37);
    for name in ["config.toml", "checkpoint.pth", "checkpoint0002.pth", "metrics.parquet", "monitor.csv"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let state = bytes(&out, "state.safetensors");
    let (_, stderr) = expect(&mut pretrain(&scratch, &out), 0);
    assert!(stderr.contains("resumed at step 36 of 36"), "{stderr}");
    assert_eq!(bytes(&out, "state.safetensors"), state);

    // Both forms of the teacher are backbones, and the same one.
    let options = backbone::LoadOptions { num_heads: Some(3), ..Default::default() };
    let tokens = ["backbone.safetensors", "checkpoint.pth"].map(|name| {
        let teacher = backbone::load(out.join(name).to_str().unwrap(), &options).unwrap();
        assert_eq!(teacher.readout.as_deref(), Some("class"), "{name}");
        let pixels: Vec<f32> = (0..3 * 48 * 48).map(|i| (i as f32 * 0.37).sin()).collect();
        let images =
            candle_core::Tensor::from_vec(pixels, (1, 3, 48, 48), &candle_core::Device::Cpu).unwrap();
        let tokens = teacher.backbone.last_blocks(&images, 1).unwrap().remove(0);
        tokens.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    });
    assert_eq!(tokens[0], tokens[1]);
    let caches = ["backbone.safetensors", "checkpoint.pth"].map(|name| {
        let cache = scratch.path(&format!("features-{name}"));
        let mut command = featlab();
        command.args([
            "extract",
            "--dataset",
            "scenes:train=2,val=1,size=48",
            "--res",
            "48",
            "--num-heads",
            "3",
        ]);
        command.arg("--backbone").arg(out.join(name)).arg("--out").arg(&cache);
        expect(&mut command, 0);
        crate::fixture::shards(&cache)
    });
    assert!(!caches[0].is_empty());
    assert_eq!(caches[0].len(), caches[1].len());
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    let scratch = Scratch::new();
    let whole = scratch.path("whole");
    expect(&mut long(&scratch, &whole), 0);
    for (name, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let out = scratch.path(name);
        // The first state is there after the first epoch; the signal falls somewhere behind it.
        let status = signalled(&mut long(&scratch, &out), name, &out.join("state.safetensors"));
        assert_eq!(status.code(), code, "{name}");
        let (_, stderr) = expect(&mut long(&scratch, &out), 0);
        assert!(stderr.contains("resumed at step ") && !stderr.contains("resumed at step 120 "), "{stderr}");
        for file in ["state.safetensors", "backbone.safetensors", "checkpoint.pth"] {
            assert!(bytes(&out, file) == bytes(&whole, file), "{name}: {file} differs");
        }
        assert_eq!(losses(&out), losses(&whole), "{name}");
        assert_eq!(bytes(&out, "monitor.csv"), bytes(&whole, "monitor.csv"), "{name}");
    }
}

/// Ten epochs, so that a signal after the first one finds the run at work.
fn long(scratch: &Scratch, out: &Path) -> Command {
    let mut command = pretrain(scratch, out);
    command.args(["--set", "train.epochs=10"]);
    command
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    let scratch = Scratch::new();
    let out = scratch.path("run");
    std::fs::create_dir_all(&out).unwrap();
    let lock = std::fs::File::create(out.join(".lock")).unwrap();
    lock.lock().unwrap();
    let (_, stderr) = expect(&mut pretrain(&scratch, &out), 1);
    assert!(stderr.contains("another process is training"), "{stderr}");
    drop(lock);
    expect(&mut pretrain(&scratch, &out), 0);
}

#[test]
fn what_a_device_cannot_do_is_refused() {
    let scratch = Scratch::new();
    let out = scratch.path("run");
    let refused = |command: &mut Command, words: [&str; 2]| {
        let (_, stderr) = expect(command, 2);
        assert!(words.iter().all(|word| stderr.contains(word)), "{stderr}");
    };
    let mut short = pretrain(&scratch, &out);
    refused(short.args(["--set", "train.precision=bf16"]), ["train.precision", "choose a GPU"]);
    refused(pretrain(&scratch, &out).args(["--set", "train.precision=f64"]), ["precision", "f64"]);
    refused(&mut pretrain_on("gpu", &scratch, &out), ["gpu", "expected auto, cpu, cuda:N or metal"]);
    if cfg!(not(any(feature = "cuda", feature = "metal"))) {
        refused(&mut pretrain_on("cuda:0", &scratch, &out), ["cuda:0", "device"]);
        let [auto, cpu] = ["auto", "cpu"].map(|device| {
            let out = scratch.path(device);
            expect(&mut pretrain_on(device, &scratch, &out), 0);
            bytes(&out, "state.safetensors")
        });
        assert!(auto == cpu, "without GPUs, auto is the CPU's engine");
    }
}

#[test]
fn folders_of_pictures_are_taken_and_bad_pictures_named() {
    let scratch = Scratch::new();
    let root = scratch.camvid(12, 0);
    let images = root.join("images/train");
    std::fs::write(images.join("zz-broken.jpg"), b"no picture").unwrap();
    let out = scratch.path("run");
    let mut command = pretrain(&scratch, &out);
    command.args(["--data", &format!("folder:{}", images.display()), "--set", "train.epochs=1"]);
    let (stdout, stderr) = expect(&mut command, 3);
    assert!(stderr.contains("zz-broken.jpg") && stdout.contains("48 images"), "{stdout} {stderr}");
}

#[test]
fn several_seeds_are_several_runs() {
    let scratch = Scratch::new();
    let out = scratch.path("run");
    let (stdout, _) = expect(pretrain(&scratch, &out).args(["--seeds", "0,1", "--set", "train.epochs=1"]), 0);
    assert!(stdout.contains("seed 0:") && stdout.contains("seed 1:"), "{stdout}");
    assert_ne!(
        bytes(&out.join("seed-0"), "backbone.safetensors"),
        bytes(&out.join("seed-1"), "backbone.safetensors")
    );
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let scratch = Scratch::new();
    let out = scratch.path("run");
    expect(pretrain(&scratch, &out).args(["--set", "train.epochs=1"]), 0);
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--set", "train.epochs=2"], 4, "train.epochs was 1, and is 2 now"),
        (&["--set", "train.epoch=2"], 2, "epoch"),
        (&["--set", "train.batch_size=49", "--set", "train.epochs=1"], 2, "more than the 48 images"),
        (&["--data", "scenes:train=13,val=1,size=40,seed=3", "--set", "train.epochs=1"], 4, "other images"),
        (&["--set", "views.global_size=20"], 2, "multiple of the patch size 8"),
        (&["--set", "backbone.arch=resnet50"], 2, "unknown architecture"),
        (&["--data", "folder:/nonexistent"], 2, "/nonexistent"),
        (&["--set", "monitor.dataset=nonsense", "--set", "train.epochs=1"], 2, "nonsense"),
    ];
    for (arguments, code, words) in cases {
        let (_, stderr) = expect(pretrain(&scratch, &out).args(arguments), code);
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{stderr}");
    }
    // A damaged state is refused, and --overwrite starts again.
    let state = out.join("state.safetensors");
    let mut damaged = std::fs::read(&state).unwrap();
    let middle = damaged.len() - 100;
    damaged[middle] ^= 1;
    std::fs::write(&state, damaged).unwrap();
    let (_, stderr) = expect(pretrain(&scratch, &out).args(["--set", "train.epochs=1"]), 4);
    assert!(stderr.contains("damaged"), "{stderr}");
    expect(pretrain(&scratch, &out).args(["--set", "train.epochs=1", "--overwrite"]), 0);
    // A folder of something else is left alone.
    let other = scratch.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("thesis.tex"), "x").unwrap();
    let refused = |options: &[&str]| {
        let (_, stderr) = expect(pretrain(&scratch, &other).args(options), 2);
        assert!(stderr.contains("not empty") && other.join("thesis.tex").exists(), "{stderr}");
    };
    refused(&["--overwrite"]);
    std::fs::write(other.join("config.toml"), "name = 'a sweep'").unwrap();
    refused(&[]);
    refused(&["--overwrite"]);
    assert_eq!(bytes(&other, "config.toml"), b"name = 'a sweep'");
    // In a run's folder --overwrite removes the run, and what else lies there stays.
    std::fs::write(out.join("notes.md"), "x").unwrap();
    expect(pretrain(&scratch, &out).args(["--set", "train.epochs=1", "--overwrite"]), 0);
    assert!(out.join("notes.md").exists());
    let (_, stderr) = expect(&mut pretrain(&scratch, Path::new("s3://bucket/run")), 2);
    assert!(stderr.contains("s3://"), "{stderr}");
    // Numbers that cannot go well end the run before anything is stored.
    let wild = scratch.path("wild");
    let (_, stderr) = expect(pretrain(&scratch, &wild).args(["--set", "optimizer.lr=1e30"]), 1);
    assert!(stderr.contains("training diverged"), "{stderr}");
    assert!(!wild.join("backbone.safetensors").exists());
}

#[test]
fn without_centring_or_sharpening_the_collapse_is_named() {
    let scratch = Scratch::new();
    let settings =
        ["train.epochs=35", "optimizer.warmup_epochs=0", "optimizer.lr=0.05", "save.every_epochs=100"];
    for (name, own, words) in [
        ("uniform", ["teacher.temp=1.0", "teacher.warmup_temp=1.0"], "collapse to uniform outputs"),
        ("one", ["loss.center_momentum=1.0", "teacher.momentum=0.9"], "collapse to one dimension"),
    ] {
        let mut command = pretrain(&scratch, &scratch.path(name));
        for setting in settings.iter().chain(&own) {
            command.args(["--set", setting]);
        }
        let (_, stderr) = expect(&mut command, 0);
        assert!(stderr.contains(words), "{name}: {stderr}");
    }
}

/// PyTorch's word for it: its classes take the checkpoint strictly and compute featlab's tokens. Where `$FEATLAB_PYTHON`
/// (default python3) has torch and safetensors; with timm, its vision transformer is asked too.
#[test]
fn pytorch_takes_the_checkpoint_and_gives_the_same_tokens() {
    let python = std::env::var("FEATLAB_PYTHON").unwrap_or_else(|_| "python3".into());
    let probe = Command::new(&python).args(["-c", "import torch, safetensors"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: {python} with torch and safetensors is not present");
        return;
    }
    let scratch = Scratch::new();
    for (name, setting) in [("plain", "head.use_bn=false"), ("batch-norm", "head.use_bn=true")] {
        let out = scratch.path(name);
        expect(pretrain(&scratch, &out).args(["--set", setting, "--set", "train.epochs=1"]), 0);
        let checkpoint = out.join("checkpoint.pth");
        let options = backbone::LoadOptions { num_heads: Some(3), ..Default::default() };
        let teacher = backbone::load(checkpoint.to_str().unwrap(), &options).unwrap().backbone;
        for side in [48, 64] {
            let pixels: Vec<f32> = (0..2 * 3 * side * side).map(|i| (i as f32 * 0.37).sin() * 2.0).collect();
            let images =
                candle_core::Tensor::from_slice(&pixels, (2, 3, side, side), &candle_core::Device::Cpu)
                    .unwrap();
            let tokens = teacher.last_blocks(&images, 1).unwrap().remove(0);
            let values = tokens.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let tensors = [
                tensorfile::Tensor::f32("images", images.dims(), &pixels),
                tensorfile::Tensor::f32("tokens", tokens.dims(), &values),
            ];
            let file = out.join("tokens.safetensors");
            std::fs::write(&file, tensorfile::to_bytes(&tensors, &Default::default()).unwrap()).unwrap();
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/interop/dino_checkpoint.py");
            let run = Command::new(&python)
                .arg(script)
                .arg(&checkpoint)
                .arg("--tokens")
                .arg(&file)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
            assert!(said.contains("tokens: [2, ") && said.ends_with("ok\n"), "{said}");
            print!("{name}, {side} px\n{said}");
        }
    }
}
