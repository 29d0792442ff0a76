//! Laws of AutoMix: each loss reaches exactly the parameters that it should, the momentum encoder moves by averaging alone, masks
//! follow λ, slopes are slopes, and the same bits on any number of threads.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` are tests too")]

use ndarray::Array3;
use pretrain::{
    AutoMix, AutoMixConfig, AutoMixState, BackboneConfig, Layout, MixConfig, MixLossConfig,
    MixOptimizerConfig, MixPolicy, MomentumConfig, OptimizerKind, Readout, Report, SingleViewConfig,
    StartConfig, TrainConfig, Training, Views, save_backbone,
};

const IMAGES: usize = 6;
const CLASSES: usize = 4;
const LABELS: [u32; IMAGES] = [0, 1, 2, 3, 1, 0];

/// d 12, three blocks, 16 pixels in patches of 4, 3 epochs of 2 steps; weights of the losses one, mix, generate, mask.
fn config(policy: MixPolicy, weights: [f64; 4]) -> AutoMixConfig {
    AutoMixConfig {
        backbone: BackboneConfig {
            arch: "vit_micro_patch8".into(),
            embed_dim: Some(12),
            depth: Some(3),
            num_heads: Some(2),
            patch_size: Some(4),
            table_size: 16,
            drop_path: 0.2,
            init_std: 0.2,
            readout: Readout::Class,
        },
        start: StartConfig::default(),
        views: SingleViewConfig { size: 16, ..SingleViewConfig::default() },
        mix: MixConfig { policy, init_std: 0.3, lambda_margin: 0.0, ..MixConfig::default() },
        loss: MixLossConfig {
            one: weights[0],
            mix: weights[1],
            generate: weights[2],
            mask: weights[3],
            mask_epsilon: 0.0,
            switch_off: 0.0,
            ..MixLossConfig::default()
        },
        momentum: MomentumConfig { base: 0.9, end: 1.0, scope: 0.5 },
        optimizer: MixOptimizerConfig {
            kind: OptimizerKind::Sgd,
            lr: 0.05,
            mix_lr: 0.05,
            warmup_epochs: 0,
            clip_grad: 0.0,
            ..MixOptimizerConfig::default()
        },
        train: TrainConfig { epochs: 3, batch_size: IMAGES, seed: 1, ..TrainConfig::default() },
    }
}

fn wave(n: usize, phase: f32) -> impl Iterator<Item = f32> {
    (0..n).map(move |i| (i as f32 * 0.83 + phase).sin() + (i as f32 * 0.11 + 2.0 * phase).cos())
}

fn batch(phase: f32) -> Vec<Views> {
    let view = |image: usize| {
        let values = wave(3 * 16 * 16, phase + 1.7 * image as f32).collect();
        vec![Array3::from_shape_vec((3, 16, 16), values).unwrap()]
    };
    (0..IMAGES).map(view).collect()
}

/// A run whose momentum encoder is not its encoder.
fn start(config: &AutoMixConfig) -> AutoMix {
    let mut run = AutoMix::new(config.clone(), 2 * IMAGES, CLASSES).unwrap();
    run.state.query.iter_mut().zip(wave(usize::MAX, 0.5)).for_each(|(p, w)| *p += 0.02 * w);
    run
}

fn step(run: &mut AutoMix, phase: f32) -> Report {
    run.step(&batch(phase), &LABELS).unwrap()
}

/// Names of tensors with a gradient that is not zero throughout, cut to what tells the parts apart.
fn reached(layout: &Layout, grads: &[f32]) -> Vec<&'static str> {
    let parts = ["backbone.", "head_one.", "head_mix."];
    let touched = |part: &&&str| {
        let mut own = layout.tensors().iter().filter(|tensor| tensor.name.starts_with(**part));
        own.any(|tensor| tensor.slot.of(grads).iter().any(|&g| g != 0.0))
    };
    parts.iter().filter(touched).copied().collect()
}

/// The table of the file head, loss by loss: everything that is not named is zero to the bit.
#[test]
fn each_loss_reaches_what_it_should_and_nothing_else() {
    for (weights, encoder, block) in [
        ([1.0, 0.0, 0.0, 0.0], &["backbone.", "head_one."][..], false),
        ([0.0, 1.0, 0.0, 0.0], &["backbone.", "head_mix."], false),
        ([0.0, 0.0, 1.0, 0.0], &[], true),
        ([0.0, 0.0, 0.0, 1.0], &[], true),
        ([1.0, 1.0, 1.0, 0.1], &["backbone.", "head_one.", "head_mix."], true),
    ] {
        let mut run = start(&config(MixPolicy::AutoMix, weights));
        step(&mut run, 0.0);
        assert_eq!(reached(run.layout(), run.grads()), encoder, "{weights:?}");
        assert_eq!(run.block_grads().iter().any(|&g| g != 0.0), block, "{weights:?}");
    }
}

/// Neither the encoder's gradient nor its step knows of the mix block's losses, and the other way round.
#[test]
fn the_sum_of_losses_is_each_networks_own() {
    let all = {
        let mut run = start(&config(MixPolicy::AutoMix, [1.0, 1.0, 1.0, 0.1]));
        step(&mut run, 0.0);
        run
    };
    let mut encoder = start(&config(MixPolicy::AutoMix, [1.0, 1.0, 0.0, 0.0]));
    let mut block = start(&config(MixPolicy::AutoMix, [0.0, 0.0, 1.0, 0.1]));
    step(&mut encoder, 0.0);
    step(&mut block, 0.0);
    assert_eq!((all.grads(), &all.state.query), (encoder.grads(), &encoder.state.query));
    assert_eq!((all.block_grads(), &all.state.block), (block.block_grads(), &block.state.block));
}

#[test]
fn the_momentum_encoder_moves_by_averaging_alone() {
    let mut run = start(&config(MixPolicy::AutoMix, [1.0, 1.0, 1.0, 0.1]));
    let mut expected = run.state.key.clone();
    for number in 0..6 {
        let momentum = step(&mut run, number as f32).values[8] as f32;
        let query = &run.state.query;
        expected.iter_mut().zip(query).for_each(|(k, q)| *k = momentum * *k + (1.0 - momentum) * q);
        let off = expected.iter().zip(&run.state.key).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "{off}");
    }
    // Where nothing is averaged, nothing moves.
    let mut still = config(MixPolicy::AutoMix, [1.0, 1.0, 1.0, 0.1]);
    (still.momentum.base, still.momentum.end) = (1.0, 1.0);
    let mut run = start(&still);
    let before = run.state.key.clone();
    step(&mut run, 0.0);
    assert_eq!(run.state.key, before);
}

/// Along a direction in each tensor, the loss changes as the gradient says: of the encoder by its two losses, of the mix block
/// through the momentum encoder and the mask's mean.
#[test]
fn gradients_are_slopes() {
    for (weights, in_block) in [([1.0, 0.6, 0.0, 0.0], false), ([0.0, 0.0, 1.0, 0.7], true)] {
        let mut config = config(MixPolicy::AutoMix, weights);
        config.loss.mask_anneal = pretrain::Anneal::Constant;
        let mut run = start(&config);
        let from = run.state.clone();
        step(&mut run, 0.0);
        let (layout, grads) = match in_block {
            false => (run.layout().clone(), run.grads().to_vec()),
            true => (whole(run.block_grads().len()), run.block_grads().to_vec()),
        };
        let total = |state: &AutoMixState| {
            let mut run = start(&config);
            run.state = state.clone();
            let values = step(&mut run, 0.0).values;
            (0..4).map(|i| weights[i] * values[i]).sum::<f64>()
        };
        for tensor in layout.tensors() {
            let gradient = tensor.slot.of(&grads);
            let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            let along: Vec<f32> = gradient.iter().map(|&g| (f64::from(g) / norm.max(1e-12)) as f32).collect();
            let other: Vec<f32> =
                wave(gradient.len(), 0.9).map(|w| w / (gradient.len() as f32).sqrt()).collect();
            for direction in [along, other] {
                let moved = |sign: f32| {
                    let mut state = from.clone();
                    let part = if in_block { &mut state.block } else { &mut state.query };
                    let part = tensor.slot.of_mut(part);
                    part.iter_mut().zip(&direction).for_each(|(p, d)| *p += sign * 4e-3 * d);
                    total(&state)
                };
                let slope = (moved(1.0) - moved(-1.0)) / 8e-3;
                let product: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
                assert!((slope - product).abs() < 5e-3 * norm + 1e-3, "{} {slope} {product}", tensor.name);
            }
        }
    }
}

/// One tensor of everything.
fn whole(len: usize) -> Layout {
    let mut layout = Layout::default();
    layout.add("all", &[len]);
    layout
}

/// Trained by the mask loss alone the mask's mean comes to λ, whatever λ is.
#[test]
fn the_masks_mean_follows_lambda() {
    let mut config = config(MixPolicy::AutoMix, [0.0, 0.0, 0.0, 1.0]);
    config.loss.mask_anneal = pretrain::Anneal::Constant;
    config.optimizer = MixOptimizerConfig {
        kind: OptimizerKind::Adamw,
        mix_lr: 0.02,
        mix_min_lr: 0.001,
        warmup_epochs: 0,
        weight_decay: 0.0,
        ..MixOptimizerConfig::default()
    };
    config.train.epochs = 300;
    let mut run = start(&config);
    let mut off = Vec::new();
    for number in 0..600 {
        let values = step(&mut run, (number % 7) as f32).values;
        let (lambda, mean) = (values[4], values[5]);
        off.push((1.0 - mean - lambda).abs());
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&off[..50]), mean(&off[550..]));
    assert!(first > 0.1 && last < 0.05, "off by {first} at first, by {last} in the end");
}

#[test]
fn adjusted_and_blended_masks_have_lambdas_mean() {
    // With a margin of almost a half every mixture is a blend: what f_q learns is then Mixup's.
    let mut blended = config(MixPolicy::AutoMix, [0.0, 1.0, 0.0, 0.0]);
    blended.mix.lambda_margin = 0.499_999;
    let mut blended = start(&blended);
    let mut learned = start(&config(MixPolicy::AutoMix, [0.0, 1.0, 0.0, 0.0]));
    let (a, b) = (step(&mut blended, 0.0), step(&mut learned, 0.0));
    assert_eq!(a.values[7], b.values[7], "the same dice");
    assert_ne!(a.values[1], b.values[1]);
}

#[test]
fn every_hand_made_mix_learns_and_leaves_no_other_network() {
    use MixPolicy::{CutMix, ManifoldMix, Mixup, ResizeMix, SaliencyMix, Vanilla};
    for policy in [Vanilla, Mixup, CutMix, ManifoldMix, SaliencyMix, ResizeMix] {
        let mut run = start(&config(policy, [1.0, 1.0, 1.0, 0.1]));
        assert!(run.state.key.is_empty() && run.state.block.is_empty());
        let losses: Vec<f64> = (0..6).map(|_| step(&mut run, 0.0).loss).collect();
        assert!(losses.iter().all(|loss| loss.is_finite()), "{policy:?} {losses:?}");
        assert_eq!(reached(run.layout(), run.grads()), ["backbone.", "head_one."], "{policy:?}");
    }
}

/// Slopes with images mixed inside the network.
#[test]
fn manifold_mixes_have_slopes_too() {
    let config = config(MixPolicy::ManifoldMix, [1.0; 4]);
    let mut run = start(&config);
    let from = run.state.query.clone();
    step(&mut run, 0.0);
    for tensor in run.layout().tensors() {
        let gradient = tensor.slot.of(run.grads());
        let direction: Vec<f32> =
            wave(gradient.len(), 0.9).map(|w| w / (gradient.len() as f32).sqrt()).collect();
        let moved = |sign: f32| {
            let mut run = start(&config);
            run.state.query = from.clone();
            let part = tensor.slot.of_mut(&mut run.state.query);
            part.iter_mut().zip(&direction).for_each(|(p, d)| *p += sign * 4e-3 * d);
            step(&mut run, 0.0).loss
        };
        let slope = (moved(1.0) - moved(-1.0)) / 8e-3;
        let product: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        assert!((slope - product).abs() < 1e-2 * slope.abs() + 1e-3, "{} {slope} {product}", tensor.name);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let run = |threads: usize, policy: MixPolicy| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut run = start(&config(policy, [1.0, 1.0, 1.0, 0.1]));
        pool.install(|| (0..4).for_each(|number| drop(step(&mut run, number as f32))));
        run.state
    };
    for policy in [MixPolicy::AutoMix, MixPolicy::CutMix, MixPolicy::ManifoldMix] {
        let one = run(1, policy);
        assert!([2, 5].into_iter().all(|threads| run(threads, policy) == one));
    }
}

#[test]
fn what_cannot_be_trained_on_is_said() {
    let config = config(MixPolicy::AutoMix, [1.0; 4]);
    let say = |images: usize, classes: usize| {
        AutoMix::new(config.clone(), images, classes).unwrap_err().to_string()
    };
    assert!(say(5, 4).contains("more than the 5 images"));
    assert!(say(20, 1).contains("1 classes"));
    assert!(say(20, 0).contains("0 classes"));
}

/// What one run learned, another starts from: the backbone, and nothing of the heads.
#[test]
fn a_run_may_start_from_anothers_backbone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backbone.safetensors");
    let mut first = start(&config(MixPolicy::AutoMix, [1.0, 1.0, 1.0, 0.1]));
    step(&mut first, 0.0);
    save_backbone(&path, &first.exported(), false, &Default::default()).unwrap();
    let mut second = config(MixPolicy::Vanilla, [1.0; 4]);
    second.train.seed = 5;
    second.start.weights = Some(path.display().to_string());
    let run = AutoMix::new(second.clone(), 12, CLASSES).unwrap();
    for tensor in run.layout().tensors() {
        let own = tensor.slot.of(&run.state.query);
        let other = first.layout().tensors().iter().find(|other| other.name == tensor.name).unwrap();
        let same = own == other.slot.of(&first.state.key);
        assert_eq!(same, tensor.name.starts_with("backbone."), "{}", tensor.name);
    }
    second.backbone.embed_dim = Some(24);
    let error = AutoMix::new(second.clone(), 12, CLASSES).unwrap_err();
    assert!(error.is_integrity() && error.to_string().contains("the backbone asked for has"), "{error}");
    second.start.weights = Some(folder.path().join("none").display().to_string());
    assert!(AutoMix::new(second, 12, CLASSES).is_err());
}
