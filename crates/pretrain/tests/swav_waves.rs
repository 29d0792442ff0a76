//! Do SwAV and DeepCluster-v2 learn? On images that are told apart by their shapes alone, in seconds: features find the class that
//! nobody told them, the loss leaves ln K, and without anything to tell images apart the run says that it is stuck.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` are tests too")]

mod waves_data;

use ndarray::Array2;
use pretrain::{
    Activations, BackboneConfig, Batch, Branch, ClusterOptimizerConfig, DataShape, DeepClusterConfig,
    DeepClusterLossConfig, OptimizerKind, ProjectorConfig, Recipe, SwavConfig, SwavLossConfig, TrainConfig,
    Training, Trunk, Views, ViewsConfig,
};
use rand::Rng;
use waves_data::{BATCH, Image, SIDE, TRAIN, pixels, rng, sets, views};

const PROTOTYPES: usize = 32;

fn backbone() -> BackboneConfig {
    BackboneConfig {
        arch: "vit_micro_patch8".into(),
        embed_dim: Some(48),
        depth: Some(2),
        num_heads: Some(2),
        patch_size: Some(4),
        table_size: SIDE,
        drop_path: 0.0,
        init_std: 0.1,
        ..BackboneConfig::default()
    }
}

fn shared(seed: u64, epochs: usize) -> (ProjectorConfig, ViewsConfig, ClusterOptimizerConfig, TrainConfig) {
    (
        ProjectorConfig { hidden_dim: 64, out_dim: 16, prototypes: PROTOTYPES },
        ViewsConfig { global_size: SIDE, local_size: 12, locals: 2, ..ViewsConfig::default() },
        ClusterOptimizerConfig {
            kind: OptimizerKind::Adamw,
            lr: 1e-3,
            final_lr: 1e-5,
            weight_decay: 0.04,
            ..ClusterOptimizerConfig::default()
        },
        TrainConfig { epochs, batch_size: BATCH, seed, ..TrainConfig::default() },
    )
}

fn swav(seed: u64) -> SwavConfig {
    let (head, views, optimizer, train) = shared(seed, 30);
    let loss = SwavLossConfig {
        epsilon: 0.03,
        queue_length: 256,
        queue_start_epoch: 10,
        freeze_prototypes_steps: 32,
        ..SwavLossConfig::default()
    };
    SwavConfig { backbone: backbone(), head, views, loss, optimizer, train }
}

fn deepcluster(seed: u64) -> DeepClusterConfig {
    let (head, views, optimizer, train) = shared(seed, 30);
    let loss = DeepClusterLossConfig::default();
    DeepClusterConfig { backbone: backbone(), head, views, loss, optimizer, train }
}

/// Features of a run's backbone.
fn features(training: &dyn Training, trunk: &Trunk, images: &[Image]) -> Array2<f32> {
    let Trunk::Vit(vit) = trunk else { unreachable!("the toy is a transformer") };
    let (mut kept, mut out) = (Activations::default(), Vec::new());
    let no_drop = |_| [Branch::new(), Branch::new()];
    let exported = training.exported();
    vit.forward(exported.parts[0].1, &pixels(images), (SIDE, SIDE), no_drop, &mut kept, &mut out);
    Array2::from_shape_vec((images.len(), 48), out).unwrap()
}

/// What a run came to: k-NN before and after, mean loss of the last 100 steps, mean of its first number (SwAV: entropy of
/// assignments; DeepCluster: clusters in use), warnings.
struct Outcome {
    knn: [f64; 2],
    loss: f64,
    sign: f64,
    warnings: Vec<String>,
}

fn run<R: Recipe>(
    config: &R,
    trunk: &Trunk,
    views: impl Fn(&mut rand_chacha::ChaCha8Rng, &Image) -> Views,
) -> Outcome {
    let mut rng = rng(config.train().seed);
    let [train, test] = sets(&mut rng);
    let shape = DataShape { images: TRAIN, classes: 0 };
    let mut training = config.start(&shape, &candle_core::Device::Cpu).unwrap();
    let knn = |training: &dyn Training| {
        let of = |images: &[Image]| features(training, trunk, images);
        waves_data::knn(of(&train.0), of(&test.0), [&train.1, &test.1])
    };
    let before = knn(&*training);
    let (mut reports, mut warnings) = (Vec::new(), Vec::new());
    for _ in 0..config.train().epochs {
        let mut order: Vec<usize> = (0..TRAIN).collect();
        use rand::seq::SliceRandom;
        order.shuffle(&mut rng);
        let salt: u64 = rng.random();
        let see = |places: &[usize]| -> Vec<Views> {
            let seen = |&place: &usize| views(&mut waves_data::rng(salt ^ place as u64), &train.0[place]);
            places.iter().map(seen).collect()
        };
        training.begin_epoch(&order, &mut |places| Ok(see(places))).unwrap();
        for places in order.chunks_exact(BATCH) {
            let batch = Batch { views: &see(places), images: places, classes: &[] };
            let report = training.step(batch).unwrap();
            warnings.extend(training.warning(&report));
            reports.push(report);
        }
    }
    let last = &reports[reports.len() - 100..];
    let mean = |of: fn(&pretrain::Report) -> f64| last.iter().map(of).sum::<f64>() / 100.0;
    Outcome { knn: [before, knn(&*training)], loss: mean(|r| r.loss), sign: mean(|r| r.values[0]), warnings }
}

#[test]
fn classes_are_found_that_nobody_told() {
    let (config, ln_k) = (swav(0), (PROTOTYPES as f64).ln());
    let trunk = pretrain::Swav::new(config.clone(), TRAIN).unwrap().network().trunk.clone();
    let Outcome { knn, loss, sign, warnings } = run(&config, &trunk, |rng, image| views(rng, image, 12));
    println!("SwAV: k-NN {:.3} to {:.3}, loss {loss:.3}, entropy {sign:.3}", knn[0], knn[1]);
    assert!(knn[0] < 0.8 && knn[1] > 0.85 && loss < 0.8 * ln_k && warnings.is_empty(), "{warnings:?}");
}

#[test]
fn and_by_clusters_of_the_epoch_before() {
    let (config, ln_k) = (deepcluster(0), (PROTOTYPES as f64).ln());
    let trunk = pretrain::Swav::new(swav(0), TRAIN).unwrap().network().trunk.clone();
    let Outcome { knn, loss, sign, warnings } = run(&config, &trunk, |rng, image| views(rng, image, 12));
    println!(
        "DeepCluster-v2: k-NN {:.3} to {:.3}, loss {loss:.3}, clusters in use {sign:.1}",
        knn[0], knn[1]
    );
    assert!(
        knn[1] > 0.85 && knn[1] > knn[0] + 0.1 && loss < 0.8 * ln_k && warnings.is_empty(),
        "{warnings:?}"
    );
}

/// Views of nothing but noise: all that can be predicted is that assignments are even.
#[test]
fn a_run_that_is_stuck_says_so() {
    let mut config = swav(0);
    config.train.epochs = 16;
    config.loss.epsilon = 0.3;
    let trunk = pretrain::Swav::new(config.clone(), TRAIN).unwrap().network().trunk.clone();
    let noise = |rng: &mut rand_chacha::ChaCha8Rng, image: &Image| {
        let mut seen = views(rng, image, 12);
        seen.iter_mut().for_each(|view| view.mapv_inplace(|_| waves_data::normal(rng)));
        seen
    };
    let Outcome { loss, warnings, .. } = run(&config, &trunk, noise);
    assert!((loss - (PROTOTYPES as f64).ln()).abs() < 0.1, "{loss}");
    assert!(
        warnings.iter().any(|warning| warning.contains("ln K") || warning.contains("collapse")),
        "{warnings:?}"
    );
}
