//! Laws of SwAV that hold for any numbers: slopes, what is frozen, the queue, the same bits on any number of threads.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` are tests too")]

use ndarray::Array3;
use pretrain::{
    BackboneConfig, ClusterOptimizerConfig, OptimizerKind, ProjectorConfig, Readout, Swav, SwavConfig,
    SwavLossConfig, TrainConfig, Views, ViewsConfig,
};

const IMAGES: usize = 4;

/// d 12, two blocks, 5 views of 4 images, 4 epochs of 2 steps.
fn config(readout: Readout, hidden_dim: usize) -> SwavConfig {
    SwavConfig {
        backbone: BackboneConfig {
            arch: "vit_micro_patch8".into(),
            embed_dim: Some(12),
            depth: Some(2),
            num_heads: Some(2),
            patch_size: Some(4),
            table_size: 16,
            drop_path: 0.3,
            init_std: 0.2,
            readout,
        },
        head: ProjectorConfig { hidden_dim, out_dim: 6, prototypes: 5 },
        views: ViewsConfig { global_size: 16, local_size: 8, locals: 3, ..ViewsConfig::default() },
        loss: SwavLossConfig {
            epsilon: 0.3,
            temperature: 0.3,
            queue_length: 0,
            freeze_prototypes_steps: 0,
            ..SwavLossConfig::default()
        },
        optimizer: ClusterOptimizerConfig { lr: 0.1, ..ClusterOptimizerConfig::default() },
        train: TrainConfig { epochs: 4, batch_size: IMAGES, seed: 1, ..TrainConfig::default() },
    }
}

fn wave(n: usize, phase: f32) -> impl Iterator<Item = f32> {
    (0..n).map(move |i| (i as f32 * 0.83 + phase).sin() + (i as f32 * 0.11 + 2.0 * phase).cos())
}

fn batch(phase: f32) -> Vec<Views> {
    let view = |image: usize, view: usize| {
        let side = if view < 2 { 16 } else { 8 };
        let values = wave(3 * side * side, phase + image as f32 + 10.0 * view as f32).collect();
        Array3::from_shape_vec((3, side, side), values).unwrap()
    };
    (0..IMAGES).map(|image| (0..5).map(|v| view(image, v)).collect()).collect()
}

fn start(config: &SwavConfig) -> Swav {
    Swav::new(config.clone(), 2 * IMAGES).unwrap()
}

/// The loss is a function of the scores with assignments held fixed, which differences do not do. So ε is large enough
/// that assignments are uniform but for rounding, whatever the scores.
#[test]
fn gradients_are_slopes_of_the_loss_with_fixed_assignments() {
    for (readout, hidden) in [(Readout::Class, 8), (Readout::Mean, 0)] {
        let mut config = config(readout, hidden);
        config.loss.epsilon = 1e6;
        let mut swav = start(&config);
        swav.state.params.iter_mut().zip(wave(usize::MAX, 0.5)).for_each(|(p, w)| *p += 0.02 * w);
        swav.network().projector.clone().normalize_prototypes(&mut swav.state.params);
        let from = swav.state.params.clone();
        swav.step(&batch(0.0)).unwrap();
        let (grads, layout) = (swav.grads().to_vec(), swav.network().layout.clone());
        for tensor in layout.tensors() {
            let gradient = tensor.slot.of(&grads);
            let mut direction: Vec<f32> = wave(gradient.len(), 0.9).collect();
            if tensor.name.starts_with("prototypes") {
                // Prototypes are brought to length 1 before they are used: only moves along the sphere count.
                for (v, c) in direction.chunks_exact_mut(6).zip(tensor.slot.of(&from).chunks_exact(6)) {
                    let along: f32 = v.iter().zip(c).map(|(v, c)| v * c).sum();
                    v.iter_mut().zip(c).for_each(|(v, c)| *v -= along * c);
                }
            }
            let length = direction.iter().map(|x| x * x).sum::<f32>().sqrt();
            direction.iter_mut().for_each(|x| *x /= length);
            let step = 4e-3;
            let loss = |sign: f32| {
                let mut swav = start(&config);
                swav.state.params = from.clone();
                let part = tensor.slot.of_mut(&mut swav.state.params);
                part.iter_mut().zip(&direction).for_each(|(p, d)| *p += sign * step * d);
                swav.step(&batch(0.0)).unwrap().loss
            };
            let slope = (loss(1.0) - loss(-1.0)) / f64::from(2.0 * step);
            let product: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
            let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            assert!(
                (slope - product).abs() < 8e-3 * norm + 8e-4,
                "{} {readout:?}: {slope} {product}",
                tensor.name
            );
        }
    }
}

#[test]
fn prototypes_have_length_one_at_every_step_and_stand_still_while_frozen() {
    let mut config = config(Readout::Class, 8);
    config.loss.freeze_prototypes_steps = 3;
    let mut swav = start(&config);
    let table = |swav: &Swav| swav.network().projector.tables()[0].of(&swav.state.params).to_vec();
    let mut before = Vec::new();
    for step in 0..6 {
        let report = swav.step(&batch(step as f32)).unwrap();
        let (error, rank) = (report.values[2], report.values[3]);
        assert!(error < 1e-6, "rows off by {error}");
        assert!(rank >= 1.0);
        let now = table(&swav);
        if step > 0 {
            let moved = now.iter().zip(&before).map(|(a, b): (&f32, &f32)| (a - b).abs()).fold(0.0, f32::max);
            // While frozen nothing but bringing them to length 1 again, which rounds.
            assert!(if step < 3 { moved < 1e-6 } else { moved > 1e-6 }, "step {step}: {moved}");
        }
        before = now;
    }
    assert!(swav.grads().iter().all(|g| g.is_finite()));
}

#[test]
fn assignments_are_shares_and_the_queue_is_used_once_full_and_without_the_batch() {
    let mut config = config(Readout::Class, 8);
    (config.loss.queue_length, config.loss.queue_start_epoch) = (2 * IMAGES + 1, 1);
    let mut swav = start(&config);
    assert_eq!(swav.state.queue.len(), 2 * IMAGES);
    let mut without = start(&SwavConfig {
        loss: SwavLossConfig { queue_length: 0, ..config.loss.clone() },
        ..config.clone()
    });
    // Epoch 0 (steps 0, 1): not there yet. Steps 2, 3: filling. From step 4 on: in use.
    for step in 0..6 {
        let (with, plain) =
            (swav.step(&batch(step as f32)).unwrap(), without.step(&batch(step as f32)).unwrap());
        let used = swav.assignments() != without.assignments();
        assert_eq!(used, step >= 4, "step {step}");
        assert_eq!(with.loss == plain.loss, step < 4, "step {step}");
        for row in swav.assignments().chunks_exact(5) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert_eq!(swav.state.queue.is_full(0), step >= 3);
        assert_eq!(swav.state.queue.rows(0).iter().all(|&x| x == 0.0), step < 2);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let run = |threads: usize, kind: OptimizerKind| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut config = config(Readout::Mean, 8);
        config.loss.queue_length = IMAGES;
        config.loss.queue_start_epoch = 0;
        config.optimizer.kind = kind;
        let mut swav = start(&config);
        pool.install(|| (0..6).for_each(|step| drop(swav.step(&batch(step as f32)).unwrap())));
        swav.state
    };
    for kind in [OptimizerKind::Larc, OptimizerKind::Adamw] {
        let one = run(1, kind);
        assert!([2, 5].into_iter().all(|threads| run(threads, kind) == one));
    }
}

#[test]
fn equal_images_have_even_assignments_and_a_loss_near_ln_k() {
    let mut config = config(Readout::Class, 0);
    config.backbone.drop_path = 0.0;
    let mut swav = start(&config);
    let one = |side: usize| Array3::from_elem((3, side, side), 0.5);
    let same: Vec<Views> = vec![vec![one(16), one(16), one(8), one(8), one(8)]; IMAGES];
    swav.step(&same).unwrap();
    assert!(swav.assignments().iter().all(|&q| (q - 0.2).abs() < 1e-5), "{:?}", swav.assignments());
}
