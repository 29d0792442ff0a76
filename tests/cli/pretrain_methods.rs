//! `featlab pretrain swav`, `deepcluster` and `automix`: what DINO's runs promise, all methods do.

use std::path::Path;
use std::process::Command;

use crate::fixture::{Scratch, bytes, expect, featlab, signalled};

/// Data, monitor and length that all runs have: 48 tiles, 12 steps an epoch.
const AROUND: &str = r#"
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
[train]
epochs = 3
batch_size = 4
"#;

const VIT: &str = r#"
[backbone]
arch = "vit_micro_patch8"
embed_dim = 24
depth = 3
num_heads = 3
table_size = 48
init_std = 0.1
"#;

const RESNET: &str = r#"
[backbone]
arch = "resnet18_w4_cifar"
drop_path = 0.0
"#;

const CLUSTER: &str = r#"
[head]
hidden_dim = 16
out_dim = 8
prototypes = 12
[views]
global_size = 24
global_scale = [0.4, 1.0]
local_size = 16
local_scale = [0.2, 0.5]
locals = 2
[optimizer]
kind = "adamw"
lr = 1e-3
final_lr = 1e-4
"#;

const SWAV: &str = "[loss]\nqueue_length = 12\nqueue_start_epoch = 1\nfreeze_prototypes_steps = 5\n";

const AUTOMIX: &str = r#"
[views]
size = 24
[optimizer]
warmup_epochs = 0
"#;

/// Word, settings, the entry of `checkpoint.pth` that holds the backbone.
fn methods() -> Vec<(&'static str, String)> {
    vec![
        ("swav", [AROUND, VIT, CLUSTER, SWAV].concat()),
        ("swav", [AROUND, RESNET, CLUSTER, SWAV].concat()),
        ("deepcluster", [AROUND, VIT, CLUSTER].concat()),
        ("automix", [AROUND, VIT, AUTOMIX].concat()),
        ("automix", [AROUND, RESNET, AUTOMIX].concat()),
    ]
}

fn pretrain(scratch: &Scratch, method: &str, settings: &str, out: &Path) -> Command {
    let file = scratch.path("tiny.toml");
    std::fs::write(&file, settings).unwrap();
    let mut command = featlab();
    command.args(["pretrain", method, "--device", "cpu"]).arg(file).arg("--out").arg(out);
    command
}

fn tokens(file: &Path) -> Vec<f32> {
    let loaded = backbone::load(file.to_str().unwrap(), &backbone::LoadOptions::default()).unwrap();
    let pixels: Vec<f32> = (0..3 * 48 * 48).map(|i| (i as f32 * 0.37).sin()).collect();
    let images = candle_core::Tensor::from_vec(pixels, (1, 3, 48, 48), &candle_core::Device::Cpu).unwrap();
    let features = loaded.backbone.forward_features(&images, backbone::Layer::default()).unwrap();
    features.patches.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_method_leaves_a_backbone_and_is_not_done_twice() {
    for (number, (method, settings)) in methods().into_iter().enumerate() {
        let scratch = Scratch::new();
        let out = scratch.path("run");
        let (stdout, _) = expect(pretrain(&scratch, method, &settings, &out).arg("--json"), 0);
        let result: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((result["steps"].as_u64(), result["images"].as_u64()), (Some(36), Some(48)), "{method}");
        assert!(result["knn_before"].is_f64() && result["knn_after"].is_f64(), "{result}");
        let heads = result["accuracies"].as_object().map_or(0, serde_json::Map::len);
        assert_eq!(heads, if method == "automix" { 4 } else { 0 }, "{result}");
        assert_eq!(out.join("mixed.png").exists(), method == "automix");
        let rows = String::from_utf8(bytes(&out, "metrics.csv")).unwrap();
        assert!(rows.lines().count() == 37 && rows.starts_with("step,epoch,loss,"), "{method}");
        let state = bytes(&out, "state.safetensors");
        let (_, stderr) = expect(&mut pretrain(&scratch, method, &settings, &out), 0);
        assert!(stderr.contains("resumed at step 36 of 36"), "{stderr}");
        assert_eq!(bytes(&out, "state.safetensors"), state, "{method} {number}");
        // Both forms are the same backbone, and `extract` takes it.
        let both = ["backbone.safetensors", "checkpoint.pth"].map(|name| tokens(&out.join(name)));
        assert_eq!(both[0], both[1], "{method} {number}");
        let mut command = featlab();
        command.args(["extract", "--dataset", "scenes:train=2,val=1,size=48", "--res", "48", "--backbone"]);
        expect(command.arg(out.join("backbone.safetensors")).arg("--out").arg(scratch.path("features")), 0);
        // Another method does not go on in the folder.
        let other = [AROUND, VIT, "[optimizer]\nwarmup_epochs = 1\n"].concat();
        let (_, stderr) = expect(&mut pretrain(&scratch, "dino", &other, &out), 4);
        assert!(stderr.contains(&format!("trained by {method}; now dino")), "{stderr}");
    }
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bits() {
    for (method, settings) in methods() {
        let scratch = Scratch::new();
        let long = |out: &Path| {
            let mut command = pretrain(&scratch, method, &settings, out);
            command.args(["--set", "train.epochs=8"]);
            command
        };
        let whole = scratch.path("whole");
        expect(&mut long(&whole), 0);
        let out = scratch.path("interrupted");
        let status = signalled(&mut long(&out), "INT", &out.join("state.safetensors"));
        assert_eq!(status.code(), Some(130), "{method}");
        expect(&mut long(&out), 0);
        for file in ["state.safetensors", "backbone.safetensors", "checkpoint.pth", "monitor.csv"] {
            assert!(bytes(&out, file) == bytes(&whole, file), "{method}: {file} differs");
        }
    }
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let scratch = Scratch::new();
    let all = methods();
    for (method, settings, arguments, words) in [
        ("swav", &all[0].1, "loss.epsilon=0", "loss.epsilon"),
        ("swav", &all[0].1, "teacher.temp=0.1", "teacher"),
        ("swav", &all[0].1, "data.label_share=0.5", "methods that use labels"),
        ("swav", &all[1].1, "backbone.depth=3", "resnet18_w16_cifar"),
        ("deepcluster", &all[2].1, "head.prototypes=100", "more than the 48 embeddings"),
        ("automix", &all[3].1, "mix.policy=puzzlemix", "puzzlemix"),
        ("automix", &all[3].1, "mix.stage=2", "mix.stage"),
        ("automix", &all[3].1, "views.size=20", "multiple of 8"),
    ] {
        let mut command = pretrain(&scratch, method, settings, &scratch.path("run"));
        let (_, stderr) = expect(command.args(["--set", arguments]), 2);
        assert!(stderr.contains(words), "{arguments}: {stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{stderr}");
    }
    // More prototypes than samples is a warning, before anything is trained.
    let mut command = pretrain(&scratch, "swav", &all[0].1, &scratch.path("many"));
    let settings = ["head.prototypes=40", "train.epochs=1", "loss.queue_start_epoch=0"];
    let (_, stderr) = expect(command.args(settings.iter().flat_map(|setting| ["--set", *setting])), 0);
    assert!(stderr.contains("40 prototypes share 16 samples"), "{stderr}");
}

/// Classes by folder, a share of their labels, and a folder that has none.
#[test]
fn automix_learns_from_class_folders() {
    let scratch = Scratch::new();
    let root = scratch.path("pictures");
    for (class, level) in [("dark", 40_u8), ("light", 200)] {
        for split in ["train", "val"] {
            let folder = root.join(split).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for i in 0..12_u8 {
                let picture = image::RgbImage::from_fn(30, 24, |x, y| {
                    image::Rgb([
                        level.wrapping_add(i),
                        level.wrapping_add((x % 7) as u8),
                        level.wrapping_add((y % 5) as u8),
                    ])
                });
                picture.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }
    let spec = format!("classes:{}", root.display());
    let settings = [AROUND, VIT, AUTOMIX].concat();
    let run = |out: &str, more: &[&str]| {
        let mut command = pretrain(&scratch, "automix", &settings, &scratch.path(out));
        command.args(["--json", "--data", &spec, "--set", &format!("monitor.dataset={spec}")]);
        command.args(
            ["data.tiles=1", "data.tile_size=1.0", "train.epochs=12"]
                .iter()
                .chain(more)
                .flat_map(|s| ["--set", *s]),
        );
        command
    };
    let (stdout, _) = expect(&mut run("all", &["mix.policy=mixup", "mix.alpha=0.2"]), 0);
    let result: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(result["images"].as_u64(), Some(24));
    assert!(
        result["knn_after"].is_null() && result["accuracies"]["one_q"].as_f64().unwrap() > 0.9,
        "{result}"
    );
    let (stdout, _) = expect(&mut run("few", &["data.label_share=0.5"]), 0);
    let result: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(result["images"].as_u64(), Some(12));
    let mut plain = run("none", &[]);
    let (_, stderr) = expect(
        plain
            .args(["--set", &format!("data.datasets=['folder:{}']", root.display())])
            .args(["--data"])
            .arg(format!("folder:{}", root.display())),
        2,
    );
    assert!(stderr.contains("no image has a class"), "{stderr}");
}
