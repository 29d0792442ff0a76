//! Laws of DINO that hold for any numbers: slopes, invariances, what is frozen, what follows what.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` are tests too")]

use ndarray::Array3;
use pretrain::{
    BackboneConfig, Center, Dino, DinoConfig, Error, HeadConfig, LossShape, OptimizerConfig, Readout,
    TeacherConfig, TrainConfig, Views, ViewsConfig, student_loss, teacher_targets,
};

/// d 12, two blocks, 5 views of 3 images, 2 epochs of 2 steps; the last layer is frozen in the first epoch.
fn config(readout: Readout) -> DinoConfig {
    DinoConfig {
        backbone: BackboneConfig {
            arch: "vit_micro_patch8".into(),
            embed_dim: Some(12),
            depth: Some(2),
            num_heads: Some(2),
            patch_size: Some(4),
            table_size: 16,
            drop_path: 0.4,
            init_std: 0.2,
            readout,
        },
        head: HeadConfig { out_dim: 24, hidden_dim: 16, bottleneck_dim: 8, ..HeadConfig::default() },
        views: ViewsConfig { global_size: 16, local_size: 8, locals: 3, ..ViewsConfig::default() },
        teacher: TeacherConfig { momentum: 0.9, ..TeacherConfig::default() },
        optimizer: OptimizerConfig {
            lr: 0.5,
            warmup_epochs: 0,
            clip_grad: 0.0,
            ..OptimizerConfig::default()
        },
        train: TrainConfig {
            epochs: 2,
            batch_size: 3,
            micro_batch: Some(2),
            seed: 1,
            ..TrainConfig::default()
        },
        ..DinoConfig::default()
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
    (0..3).map(|image| (0..5).map(|v| view(image, v)).collect()).collect()
}

/// The loss of a run's first step, from these parameters of the student.
fn loss_at(config: &DinoConfig, student: &[f32]) -> f64 {
    let mut dino = Dino::new(config.clone(), 6).unwrap();
    dino.state.student = student.to_vec();
    dino.step(&batch(0.0)).unwrap().loss
}

/// For every tensor, the slope along its gradient is the gradient's length, and along another direction the inner product;
/// with stochastic depth in force, and trained magnitudes.
#[test]
fn gradients_are_slopes() {
    for readout in [Readout::Class, Readout::Mean] {
        let mut config = config(readout);
        config.head.norm_last_layer = false;
        let mut dino = Dino::new(config.clone(), 6).unwrap();
        // Away from the teacher, and with the biases that a fresh network does not have.
        dino.state.student.iter_mut().zip(wave(usize::MAX, 0.5)).for_each(|(p, w)| *p += 0.02 * w);
        let start = dino.state.student.clone();
        dino.step(&batch(0.0)).unwrap();
        let grads = dino.grads().to_vec();
        for tensor in dino.layout().tensors() {
            let gradient = tensor.slot.of(&grads);
            let length = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            let along: Vec<f32> =
                gradient.iter().map(|&g| (f64::from(g) / length.max(1e-12)) as f32).collect();
            let other: Vec<f32> =
                wave(gradient.len(), 0.9).map(|w| w / (gradient.len() as f32).sqrt()).collect();
            for direction in [along, other] {
                let step = 4e-3;
                let moved = |sign: f32| {
                    let mut student = start.clone();
                    let part = tensor.slot.of_mut(&mut student);
                    part.iter_mut().zip(&direction).for_each(|(p, d)| *p += sign * step * d);
                    loss_at(&config, &student)
                };
                let slope = (moved(1.0) - moved(-1.0)) / f64::from(2.0 * step);
                let product: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
                let limit = 5e-3 * length + 5e-4;
                assert!((slope - product).abs() < limit, "{} {readout:?}: {slope} {product}", tensor.name);
            }
        }
    }
}

#[test]
fn the_teacher_starts_as_the_student_has_no_gradient_and_follows() {
    let mut dino = Dino::new(config(Readout::Class), 6).unwrap();
    assert_eq!(dino.state.student, dino.state.teacher);
    let mut expected = dino.state.teacher.clone();
    for step in 0..4 {
        let momentum = dino.step(&batch(step as f32)).unwrap().momentum as f32;
        let student = &dino.state.student;
        expected.iter_mut().zip(student).for_each(|(t, s)| *t = momentum * *t + (1.0 - momentum) * s);
        let off = expected.iter().zip(&dino.state.teacher).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "{off}");
    }
    assert_ne!(dino.state.student, dino.state.teacher);
}

#[test]
fn the_last_layer_is_still_while_frozen_and_magnitudes_always() {
    let mut dino = Dino::new(config(Readout::Class), 6).unwrap();
    let tensor = |dino: &Dino, name: &str| {
        let spec = dino.layout().tensors().iter().find(|tensor| tensor.name.ends_with(name)).unwrap().clone();
        spec.slot.of(&dino.state.student).to_vec()
    };
    let (v, g) = (tensor(&dino, "weight_v"), tensor(&dino, "weight_g"));
    for step in 0..4 {
        dino.step(&batch(step as f32)).unwrap();
        assert_eq!(tensor(&dino, "weight_v") == v, step < 2, "step {step}");
        assert_eq!(tensor(&dino, "weight_g"), g);
    }
    assert!(g.iter().all(|&g| g == 1.0));
}

#[test]
fn directions_of_the_last_layer_have_no_gradient_along_themselves() {
    let mut dino = Dino::new(config(Readout::Class), 6).unwrap();
    let student = dino.state.student.clone();
    dino.step(&batch(0.0)).unwrap();
    let spec = dino.layout().tensors().iter().find(|tensor| tensor.name.ends_with("weight_v")).unwrap();
    let (v, dv) = (spec.slot.of(&student), spec.slot.of(dino.grads()));
    for (v, dv) in v.chunks_exact(8).zip(dv.chunks_exact(8)) {
        let dot: f32 = v.iter().zip(dv).map(|(v, dv)| v * dv).sum();
        let scale = dv.iter().map(|d| d.abs()).fold(0.0, f32::max);
        assert!(dot.abs() <= 1e-5 * scale.max(1e-3), "{dot}");
    }
}

#[test]
fn clipped_gradients_are_no_longer_than_the_limit() {
    let mut config = config(Readout::Class);
    config.optimizer.clip_grad = 0.01;
    let mut dino = Dino::new(config, 6).unwrap();
    dino.step(&batch(0.0)).unwrap();
    for tensor in dino.layout().tensors() {
        let length = tensor.slot.of(dino.grads()).iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        assert!(length <= 0.01 + 1e-7, "{}: {length}", tensor.name);
    }
}

const SHAPE: LossShape = LossShape { images: 2, views: 4, batch: 2, temperature: 0.1 };

fn loss(student: &[f32], teacher: &[f32], center: &[f32]) -> (f64, Vec<f32>) {
    let (mut student, mut teacher) = (student.to_vec(), teacher.to_vec());
    teacher_targets(&mut teacher, center, 0.04, &mut Vec::new());
    (student_loss(&mut student, &teacher, SHAPE, &mut Vec::new()), student)
}

#[test]
fn shifts_that_must_not_matter() {
    let (student, teacher): (Vec<f32>, Vec<f32>) = (wave(8 * 9, 0.3).collect(), wave(4 * 9, 1.3).collect());
    let center: Vec<f32> = wave(9, 2.0).map(|x| 0.1 * x).collect();
    let (before, gradient) = loss(&student, &teacher, &center);
    let shift: Vec<f32> = wave(9, 4.0).collect();
    let shifted: Vec<f32> =
        teacher.chunks_exact(9).flat_map(|row| row.iter().zip(&shift).map(|(t, s)| t + s)).collect();
    let moved: Vec<f32> = center.iter().zip(&shift).map(|(c, s)| c + s).collect();
    assert!((loss(&student, &shifted, &moved).0 - before).abs() < 1e-4);
    let lifted: Vec<f32> = student.iter().enumerate().map(|(i, s)| s + (i / 9) as f32).collect();
    let (after, same) = loss(&lifted, &teacher, &center);
    assert!((after - before).abs() < 1e-4);
    assert!(gradient.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-4));
    assert!(gradient.chunks_exact(9).all(|row| row.iter().sum::<f32>().abs() < 1e-4));
}

#[test]
fn uniform_targets_and_equal_logits_cost_the_logarithm_of_k() {
    let (value, _) = loss(&[0.7; 8 * 9], &[0.2; 4 * 9], &[0.0; 9]);
    assert!((value - 9f64.ln()).abs() < 1e-6, "{value}");
}

/// Every pair of different views counts once: with all rows of a view equal the loss is the mean over `2 (V - 1)` terms.
#[test]
fn a_global_view_does_not_predict_itself() {
    let k = 9;
    let student: Vec<f32> = wave(8 * k, 0.3).collect();
    let teacher: Vec<f32> = wave(4 * k, 1.3).collect();
    let soft = |row: &[f32], t: f64| {
        let e: Vec<f64> = row.iter().map(|&x| (f64::from(x) / t).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.into_iter().map(|e| e / sum).collect::<Vec<f64>>()
    };
    let (mut total, mut terms) = (0.0, 0);
    for q in 0..2 {
        for v in (0..4).filter(|&v| v != q) {
            terms += 1;
            for image in 0..2 {
                let p = soft(&teacher[(q * 2 + image) * k..][..k], 0.04);
                let s = soft(&student[(v * 2 + image) * k..][..k], 0.1);
                total -= p.iter().zip(&s).map(|(p, s)| p * s.ln()).sum::<f64>() / 2.0;
            }
        }
    }
    let (value, _) = loss(&student, &teacher, &[0.0; 9]);
    assert_eq!(terms, 6);
    assert!((value - total / 6.0).abs() < 1e-4 * total, "{value} {}", total / 6.0);
}

#[test]
fn the_centre_moves_after_the_loss_by_a_tenth_of_the_mean() {
    let mut center = Center::new(3, 0.9);
    center.observe(&[1.0, 2.0, 3.0]);
    center.observe(&[3.0, 2.0, -3.0, 2.0, 2.0, 3.0]);
    assert_eq!(center.values, [0.0; 3]);
    center.update();
    for (got, want) in center.values.iter().zip([0.2, 0.2, 0.1]) {
        assert!((got - want).abs() < 1e-6, "{got} {want}");
    }
}

#[test]
fn flat_images_stay_finite_and_broken_ones_stop_the_run() {
    let flat = |value: f32| -> Vec<Views> {
        let side = |v: usize| if v < 2 { 16 } else { 8 };
        (0..3).map(|_| (0..5).map(|v| Array3::from_elem((3, side(v), side(v)), value)).collect()).collect()
    };
    let mut dino = Dino::new(config(Readout::Class), 6).unwrap();
    assert!(dino.step(&flat(0.0)).unwrap().loss.is_finite());
    assert!(dino.state.student.iter().all(|p| p.is_finite()));
    let before = (dino.state.student.clone(), dino.state.step);
    assert!(matches!(dino.step(&flat(f32::NAN)), Err(Error::Diverged { step: 1, .. })));
    assert_eq!((dino.state.student.clone(), dino.state.step), before);
}

#[test]
fn fewer_images_than_a_batch_are_refused() {
    assert!(Dino::new(config(Readout::Class), 2).unwrap_err().is_usage());
}
