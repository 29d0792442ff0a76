//! Does DINO learn? On images that are told apart by their shapes alone, in seconds: features of the teacher find the class that
//! nobody told them, and without centring or sharpening the run collapses as the paper says.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` are tests too")]

mod waves_data;

use ndarray::Array2;
use pretrain::{
    Activations, BackboneConfig, Branch, Dino, DinoConfig, HeadConfig, LossConfig, OptimizerConfig, Signs,
    TeacherConfig, TrainConfig, Views, ViewsConfig,
};
use rand::Rng;
use waves_data::{BATCH, Image, SIDE, TRAIN, pixels, rng, sets, views};

fn config(seed: u64) -> DinoConfig {
    DinoConfig {
        backbone: BackboneConfig {
            arch: "vit_micro_patch8".into(),
            embed_dim: Some(48),
            depth: Some(2),
            num_heads: Some(2),
            patch_size: Some(4),
            table_size: SIDE,
            drop_path: 0.0,
            init_std: 0.1,
            ..BackboneConfig::default()
        },
        head: HeadConfig { out_dim: 64, hidden_dim: 128, bottleneck_dim: 32, ..HeadConfig::default() },
        views: ViewsConfig { global_size: SIDE, local_size: 12, locals: 2, ..ViewsConfig::default() },
        loss: LossConfig::default(),
        teacher: TeacherConfig { momentum: 0.99, warmup_temp: 0.03, temp: 0.03, warmup_temp_epochs: 0 },
        optimizer: OptimizerConfig {
            lr: 4e-3, // 1e-3 at a batch of 64
            warmup_epochs: 6,
            ..OptimizerConfig::default()
        },
        train: TrainConfig { epochs: 60, batch_size: BATCH, seed, ..TrainConfig::default() },
    }
}

/// What a run came to.
struct Outcome {
    knn_before: f64,
    knn_after: f64,
    /// Means over the last 200 steps.
    loss: f64,
    signs: Signs,
}

/// k-NN accuracy of the teacher's class tokens.
fn knn(dino: &Dino, train: &(Vec<Image>, Vec<u32>), test: &(Vec<Image>, Vec<u32>)) -> f64 {
    let features = |images: &[Image]| {
        let pixels = pixels(images);
        let (mut kept, mut out) = (Activations::default(), Vec::new());
        let no_drop = |_| [Branch::new(), Branch::new()];
        dino.network().vit.forward(&dino.state.teacher, &pixels, (SIDE, SIDE), no_drop, &mut kept, &mut out);
        Array2::from_shape_vec((images.len(), 48), out).unwrap()
    };
    waves_data::knn(features(&train.0), features(&test.0), [&train.1, &test.1])
}

fn run(config: DinoConfig, steps: usize) -> Outcome {
    let mut rng = rng(config.train.seed);
    let [train, test] = sets(&mut rng);
    let mut dino = Dino::new(config, TRAIN).unwrap();
    let knn_before = knn(&dino, &train, &test);
    let mut reports = Vec::new();
    for _ in 0..steps {
        let batch: Vec<Views> = (0..BATCH)
            .map(|_| {
                let image = &train.0[rng.random_range(0..TRAIN)];
                views(&mut rng, image, 12)
            })
            .collect();
        reports.push(dino.step(&batch).unwrap());
    }
    let last = &reports[steps - 200..];
    let mean = |of: fn(&Signs) -> f64| last.iter().map(|r| of(&r.signs)).sum::<f64>() / 200.0;
    Outcome {
        knn_before,
        knn_after: knn(&dino, &train, &test),
        loss: last.iter().map(|report| report.loss).sum::<f64>() / 200.0,
        signs: Signs {
            teacher_entropy: mean(|s| s.teacher_entropy),
            marginal_entropy: mean(|s| s.marginal_entropy),
            information: mean(|s| s.information),
            ..last[0].signs
        },
    }
}

#[test]
fn classes_are_found_that_nobody_told() {
    let Outcome { knn_before, knn_after, loss, signs } = run(config(0), 960);
    println!("k-NN {knn_before:.3} to {knn_after:.3}, loss {loss:.3}, information {:.3}", signs.information);
    assert!(knn_before < 0.8 && knn_after > 0.85, "k-NN {knn_before} to {knn_after}");
    assert!(signs.information > 1.0 && loss < 0.75 * 64f64.ln(), "loss {loss}, {signs:?}");
}

#[test]
fn without_centring_one_output_dominates_and_without_sharpening_all_are_equal() {
    let mut config_one = config(0);
    config_one.loss.center_momentum = 1.0;
    let one = run(config_one, 500).signs;
    let ln_k = 64f64.ln();
    assert!(one.teacher_entropy < ln_k / 3.0 && one.marginal_entropy < ln_k / 3.0, "{one:?}");
    let mut config_uniform = config(0);
    (config_uniform.teacher.warmup_temp, config_uniform.teacher.temp) = (1.0, 1.0);
    let uniform = run(config_uniform, 500);
    assert!((uniform.loss - ln_k).abs() < 0.01 && uniform.signs.information < 0.01, "{}", uniform.loss);
}
