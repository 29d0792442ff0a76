//! STEGO's losses and training: slopes against difference quotients, degenerate inputs, and laws of a training.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use std::borrow::Cow;

use ndarray::{Array, Array2, Array3, Array4, ArrayView2, Axis, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use segment::stego::{
    Augmented, CorrespondenceParams, CorrespondenceSide, CrfLoss, Decoder, Error, FetchError, HeadKind,
    Ladder, Negatives, PairOrder, Points, StegoConfig, TokenSet, Trainer, aligned_points, alignment_gradient,
};

const GRID: (usize, usize) = (3, 4);

fn wave(shape: (usize, usize, usize), salt: usize) -> Array3<f32> {
    Array::from_shape_fn(shape, |(i, t, c)| ((i * 31 + t * 7 + c * 3 + t * c * 5 + salt * 13) as f32).sin())
}

fn points(b: usize, n: usize, salt: usize) -> Vec<Points> {
    let at = |i: usize| ((i * 37 + salt * 11) as f32 * 0.71).sin();
    let image = |i: usize| (0..n).map(|p| [at(i * 50 + 2 * p), at(i * 50 + 2 * p + 1)]).collect::<Vec<_>>();
    (0..b).map(|i| Points::new(&image(i), GRID).unwrap()).collect()
}

/// Compares every entry of a slope with a difference quotient of `loss` around `x`.
fn is_slope(what: &str, x: &Array3<f32>, slope: &Array3<f32>, loss: impl Fn(&Array3<f32>) -> f64) {
    let most = slope.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!(most > 0.0, "{what} has a slope");
    for (index, &slope) in slope.indexed_iter() {
        let [up, down] = [4e-3, -4e-3].map(|shift| {
            let mut moved = x.clone();
            moved[index] += shift;
            (moved[index], loss(&moved))
        });
        let measured = (up.1 - down.1) / f64::from(up.0 - down.0);
        let off = (measured - f64::from(slope)).abs();
        assert!(off < 0.02 * f64::from(most) + 1e-6, "{what} {index:?}: {measured} for {slope}");
    }
}

#[test]
fn correspondence_slopes_of_every_variant_and_of_ladders() {
    let (b, k) = (3, 7);
    let (features, features_pos) = (wave((b, 12, 6), 0), wave((b, 12, 6), 1));
    let (codes, codes_pos) = (wave((b, 12, k), 2), wave((b, 12, k), 3));
    let (first, second) = (points(b, 5, 0), points(b, 5, 1));
    let negatives = vec![vec![1, 2, 0], vec![2, 0, 0]];
    for bits in 0..8 {
        for ladder in [vec![], vec![1, 3, 7], vec![2, 4]] {
            let params = CorrespondenceParams {
                pointwise: bits & 1 != 0,
                zero_clamp: bits & 2 != 0,
                stabalize: bits & 4 != 0,
                ladder: ladder.clone(),
                ..CorrespondenceParams::default()
            };
            let run = |codes: &Array3<f32>, codes_pos: &Array3<f32>| {
                let images =
                    CorrespondenceSide { features: features.view(), codes: codes.view(), points: &first };
                let neighbours = CorrespondenceSide {
                    features: features_pos.view(),
                    codes: codes_pos.view(),
                    points: &second,
                };
                params.gradient(images, neighbours, &negatives).unwrap()
            };
            let out = run(&codes, &codes_pos);
            assert_eq!(out.value.rungs.len(), ladder.len().max(1));
            assert!((out.value.rungs.iter().sum::<f64>() - out.value.total).abs() < 1e-12);
            // A clamp's corners make some quotients straddle two slopes: the many entries without clamps are enough to see
            // the rest.
            if bits & 6 == 0 {
                is_slope("codes", &codes, &out.grad_codes, |codes| run(codes, &codes_pos).value.total);
                let slope = &out.grad_codes_pos;
                is_slope("codes_pos", &codes_pos, slope, |pos| run(&codes, pos).value.total);
            } else {
                mostly_slope(&codes, &out.grad_codes, |codes| run(codes, &codes_pos).value.total);
            }
            if let Some(&last) = ladder.last() {
                assert!(out.grad_codes.slice(s![.., .., last..]).iter().all(|&slope| slope == 0.0));
            }
        }
    }
}

/// Nine in ten difference quotients agree.
fn mostly_slope(x: &Array3<f32>, slope: &Array3<f32>, loss: impl Fn(&Array3<f32>) -> f64) {
    let most = slope.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let agrees = |(index, &slope): ((usize, usize, usize), &f32)| {
        let [up, down] = [1e-3, -1e-3].map(|shift| {
            let mut moved = x.clone();
            moved[index] += shift;
            (moved[index], loss(&moved))
        });
        let measured = (up.1 - down.1) / f64::from(up.0 - down.0);
        (measured - f64::from(slope)).abs() < 0.03 * f64::from(most)
    };
    let agreeing = slope.indexed_iter().filter(|&entry| agrees(entry)).count();
    assert!(agreeing * 10 >= slope.len() * 9, "{agreeing} of {}", slope.len());
}

#[test]
fn a_ladder_is_the_sum_of_the_losses_of_its_prefixes() {
    let (b, k) = (2, 9);
    let (features, codes) = (wave((b, 12, 6), 0), wave((b, 12, k), 2));
    let points = [points(b, 6, 0), points(b, 6, 1)];
    let run = |codes: &Array3<f32>, ladder: &[usize]| {
        let params = CorrespondenceParams { ladder: ladder.to_vec(), ..CorrespondenceParams::default() };
        let side = |points| CorrespondenceSide { features: features.view(), codes: codes.view(), points };
        params.gradient(side(&points[0]), side(&points[1]), &[vec![1, 0]]).unwrap()
    };
    let all = run(&codes, Ladder::doubling(k).unwrap().rungs());
    let mut slope = Array3::<f32>::zeros(codes.dim());
    for (rung, &prefix) in Ladder::doubling(k).unwrap().rungs().iter().enumerate() {
        let alone = run(&codes.slice(s![.., .., ..prefix]).to_owned(), &[]);
        assert!((alone.value.total - all.value.rungs[rung]).abs() < 1e-7);
        let mut part = slope.slice_mut(s![.., .., ..prefix]);
        part += &alone.grad_codes;
    }
    assert!((slope - &all.grad_codes).iter().all(|off| off.abs() < 1e-7));
}

#[test]
fn degenerate_inputs_of_the_correspondence_loss() {
    let (b, k) = (2, 4);
    let at = [points(b, 4, 0), points(b, 4, 1)];
    let run = |features: &Array3<f32>, codes: &Array3<f32>, negatives: &[Vec<usize>]| {
        let side = |points| CorrespondenceSide { features: features.view(), codes: codes.view(), points };
        CorrespondenceParams::default().gradient(side(&at[0]), side(&at[1]), negatives)
    };
    let (features, codes) = (wave((b, 12, 5), 0), wave((b, 12, k), 1));
    let negatives = vec![vec![1, 0]];
    for constant in [Array3::zeros((b, 12, 5)), Array3::ones((b, 12, 5))] {
        assert!(run(&constant, &codes, &negatives).unwrap().value.total.is_finite());
    }
    let zero = run(&features, &Array3::zeros((b, 12, k)), &negatives).unwrap();
    assert_eq!(zero.value.total, 0.0);
    assert!(zero.grad_codes.iter().all(|slope| slope.is_finite()));
    assert_eq!(run(&features, &codes, &[]).unwrap().value.losses.negative, 0.0);
    for broken in [f32::NAN, f32::INFINITY] {
        let (mut bad_features, mut bad_codes) = (features.clone(), codes.clone());
        bad_features.fill(broken);
        bad_codes.fill(broken);
        assert!(matches!(run(&bad_features, &codes, &negatives), Err(Error::NotFinite { .. })));
        assert!(matches!(run(&features, &bad_codes, &negatives), Err(Error::NotFinite { .. })));
    }
    assert!(matches!(run(&features, &codes, &[vec![2, 0]]), Err(Error::Range { .. })));
    assert!(matches!(run(&features, &codes, &[vec![1]]), Err(Error::Shape { .. })));
    assert!(run(&features, &wave((b, 11, k), 1), &negatives).is_err());
    let none = Array3::<f32>::zeros((0, 12, 4));
    let side = || CorrespondenceSide { features: none.view(), codes: none.view(), points: &[] };
    assert!(CorrespondenceParams::default().gradient(side(), side(), &[]).is_err());
}

#[test]
fn crf_slopes_and_definition() {
    let images =
        Array4::from_shape_fn((2, 3, 9, 11), |(i, c, y, x)| ((i + c * 5 + y * 3 + x * x) as f32).sin() * 0.3);
    let codes = wave((2, 12, 4), 0);
    let crf = CrfLoss {
        side: 6,
        crf_samples: 90,
        alpha: 3.0,
        gamma: 2.0,
        beta: 0.4,
        shift: 0.1,
        ..CrfLoss::default()
    };
    let pixels = crf.draw(&mut ChaCha8Rng::seed_from_u64(1));
    let run = |codes: &Array3<f32>| crf.gradient(images.view(), codes.view(), GRID, &pixels).unwrap();
    let out = run(&codes);
    is_slope("codes", &codes, &out.grad_codes, |codes| run(codes).loss);
    // By the definition, from resized maps.
    let at = |size| Points::pixels(&pixels, (6, 6), size).unwrap();
    let mut want = 0.0;
    for i in 0..2 {
        let image = images.index_axis(Axis(0), i).into_shape_with_order((3, 99)).unwrap();
        let colours = at((9, 11)).sample(image.t()).unwrap();
        let mut unit = at(GRID).sample(codes.index_axis(Axis(0), i)).unwrap();
        unit.outer_iter_mut().for_each(|mut row| row /= row.dot(&row).sqrt());
        for (a, p) in pixels.iter().enumerate() {
            for (c, q) in pixels.iter().enumerate() {
                let apart = (p.0 as f64 - q.0 as f64).powi(2) + (p.1 as f64 - q.1 as f64).powi(2);
                let unlike = (&colours.row(a) - &colours.row(c)).mapv(|x| f64::from(x).powi(2)).sum();
                let kernel = 10.0 * (-apart / 6.0 - unlike / 0.8).exp() + 3.0 * (-apart / 4.0).exp() - 0.1;
                want -= kernel * f64::from(unit.row(a).dot(&unit.row(c))) / (2.0 * 90.0 * 90.0);
            }
        }
    }
    assert!((out.loss - want).abs() < 1e-5 * want.abs(), "{} for {want}", out.loss);
    let mut broken = codes.clone();
    broken.fill(f32::NAN);
    let refused = crf.gradient(images.view(), broken.view(), GRID, &pixels);
    assert!(matches!(refused, Err(Error::NotFinite { .. })));
    assert!(run(&Array3::zeros((2, 12, 4))).grad_codes.iter().all(|slope| slope.is_finite()));
    assert!(crf.gradient(images.view(), codes.view(), GRID, &[]).is_err());
    assert!(crf.gradient(images.view(), codes.view(), GRID, &[(6, 0)]).is_err());
}

#[test]
fn alignment_finds_where_tokens_came_from() {
    let (codes, aug) = (wave((2, 12, 4), 0), wave((2, 12, 4), 1));
    let at = points(2, 12, 3);
    let run =
        |codes: &Array3<f32>, aug: &Array3<f32>| alignment_gradient(codes.view(), aug.view(), &at).unwrap();
    let out = run(&codes, &aug);
    is_slope("codes", &codes, &out.grad_codes, |codes| run(codes, &aug).loss);
    is_slope("augmented", &aug, &out.grad_codes_aug, |aug| run(&codes, aug).loss);
    // Coordinates of a mirrored image: its code mirrored is the code that it should have.
    let line = |i: usize, n: usize| 2.0 * i as f32 / (n - 1) as f32 - 1.0;
    let mirrored =
        Array3::from_shape_fn((3, 4, 2), |(i, j, axis)| if axis == 0 { line(i, 3) } else { -line(j, 4) });
    let places = aligned_points(mirrored.view(), GRID).unwrap();
    let maps = codes.to_shape((2, 3, 4, 4)).unwrap();
    let turned = maps.slice(s![.., .., ..;-1, ..]).as_standard_layout().into_owned();
    let turned = turned.into_shape_with_order((2, 12, 4)).unwrap();
    let found = alignment_gradient(codes.view(), turned.view(), &[places.clone(), places]).unwrap();
    assert!((found.loss + 1.0).abs() < 1e-6, "{}", found.loss);
    assert!(aligned_points(Array3::zeros((0, 4, 2)).view(), GRID).is_err());
    assert!(alignment_gradient(codes.view(), aug.view(), &at[..1]).is_err());
    assert!(alignment_gradient(Array3::from_elem((2, 12, 4), f32::NAN).view(), aug.view(), &at).is_err());
}

#[test]
fn reconstruction_slopes() {
    let (features, codes) = (wave((1, 12, 5), 0), wave((1, 12, 3), 1));
    let features = features.index_axis(Axis(0), 0);
    let decoder = Decoder::new(5, 3, 4);
    let run = |codes: &Array3<f32>| decoder.gradient(features, codes.index_axis(Axis(0), 0)).unwrap();
    let out = run(&codes);
    let slope = out.grad_codes.clone().insert_axis(Axis(0));
    is_slope("codes", &codes, &slope, |codes| run(codes).loss);
    assert_eq!(out.grad_parameters.len(), decoder.parameters().len());
    assert!(decoder.gradient(features, Array2::zeros((12, 4)).view()).is_err());
    assert!(decoder.gradient(features, Array2::from_elem((12, 3), f32::NAN).view()).is_err());
}

/// Images of a few regions, each with a direction of its own.
struct Regions {
    tokens: Vec<Vec<f32>>,
    labels: Option<Array3<u8>>,
}

const DIM: usize = 10;

impl Regions {
    fn new(n: usize, labelled: bool) -> Self {
        let class = |i: usize, t: usize| (i + t / 8) % 3;
        let number = |i: usize, t: usize, c: usize| {
            f32::from(u8::from(c % 3 == class(i, t))) + 0.4 * ((i * 97 + t * 13 + c * 7) as f32).sin()
        };
        let image = |i| (0..16 * DIM).map(|at| number(i, at / DIM, at % DIM)).collect();
        let labels = Array3::from_shape_fn((n, 8, 8), |(i, y, x)| match (y, x) {
            (0, 0) => 255,
            _ => class(i, y / 2 * 4) as u8,
        });
        Self { tokens: (0..n).map(image).collect(), labels: labelled.then_some(labels) }
    }
}

impl TokenSet for Regions {
    fn grid(&self) -> (usize, usize) {
        (4, 4)
    }

    fn embed_dim(&self) -> usize {
        DIM
    }

    fn tokens(&self, image: usize) -> Result<Cow<'_, [f32]>, FetchError> {
        self.tokens
            .get(image)
            .map(|tokens| Cow::Borrowed(tokens.as_slice()))
            .ok_or_else(|| "no such image".into())
    }

    fn picture(&self, image: usize) -> Result<Array3<f32>, FetchError> {
        Ok(Array3::from_shape_fn((3, 12, 16), |(c, y, x)| ((c + y * x + image * 7) as f32 * 0.3).sin()))
    }

    fn augmented(&self, image: usize, seed: u64) -> Result<Augmented, FetchError> {
        let shift = (seed % 100) as f32 / 500.0;
        let tokens = self.tokens(image)?.iter().map(|x| x + (x * 9.0 + shift).sin() * 0.3).collect();
        let coordinates = Array3::from_shape_fn((6, 8, 2), |(y, x, axis)| {
            let at = if axis == 0 { y as f32 / 5.0 } else { x as f32 / 7.0 };
            (2.0 * at - 1.0) * 0.8 + shift
        });
        Ok(Augmented { tokens, coordinates })
    }

    fn label(&self, image: usize) -> Option<ArrayView2<'_, u8>> {
        self.labels.as_ref().map(|labels| labels.index_axis(Axis(0), image))
    }
}

fn config() -> StegoConfig {
    StegoConfig {
        dim: 6,
        n_classes: 3,
        lr: 5e-3,
        batch_size: 4,
        correspondence: CorrespondenceParams {
            feature_samples: 4,
            neg_samples: 2,
            ..CorrespondenceParams::default()
        },
        ..StegoConfig::default()
    }
}

fn pairs(n: usize, step: usize) -> Vec<(usize, usize)> {
    let ring = Array2::from_shape_fn((n, 3), |(i, rank)| ((i + 3 * rank) % n) as u32);
    PairOrder::new(ring.view(), 4, 2, 7).unwrap().batch(step)
}

fn train(config: &StegoConfig, set: &Regions, steps: usize) -> Trainer {
    let mut trainer = Trainer::new(config.clone(), DIM).unwrap();
    for step in 0..steps {
        trainer.advance(set, &pairs(9, step)).unwrap();
    }
    trainer
}

/// The whole way, dropout and left-out tokens included: after the first step the mean of gradients is a tenth of the gradient.
#[test]
fn a_step_follows_the_slope_of_its_loss() {
    let set = Regions::new(9, true);
    for (kind, ladder, weights) in [
        (HeadKind::Linear, vec![], [0.0, 0.0, 0.0]),
        (HeadKind::Nonlinear, vec![2, 6], [0.0, 0.0, 0.0]),
        (HeadKind::Nonlinear, vec![], [0.3, 0.0, 0.0]),
        (HeadKind::Nonlinear, vec![], [0.0, 0.4, 0.0]),
        (HeadKind::Linear, vec![3, 6], [0.2, 0.1, 0.05]),
    ] {
        let [rec_weight, aug_alignment_weight, crf_weight] = weights;
        let mut config =
            StegoConfig { projection_type: kind, rec_weight, aug_alignment_weight, crf_weight, ..config() };
        config.crf.crf_samples = 20;
        config.correspondence.ladder = ladder;
        config.correspondence.zero_clamp = false;
        let start = Trainer::new(config.clone(), DIM).unwrap().state().clone();
        let step = |state| {
            let mut trainer = Trainer::new(config.clone(), DIM).unwrap();
            trainer.restore(state).unwrap();
            let report = trainer.advance(&set, &pairs(9, 0)).unwrap();
            let terms = [report.reconstruction, report.alignment, report.crf];
            let weighted =
                terms.iter().zip(weights).map(|(term, weight)| f64::from(weight) * term.unwrap_or(0.0));
            assert!(terms.iter().zip(weights).all(|(term, weight)| term.is_some() == (weight > 0.0)));
            (report.correspondence.total + weighted.sum::<f64>(), trainer.state().clone())
        };
        let after = step(start.clone()).1;
        let most = after.head.mean.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let quotient = |at: &dyn Fn(&mut segment::stego::TrainerState) -> &mut f32| {
            let [up, down] = [4e-3, -4e-3].map(|shift| {
                let mut state = start.clone();
                *at(&mut state) += shift;
                step(state).0
            });
            (up - down) / 8e-3
        };
        for i in (0..start.head.parameters.len()).step_by(3) {
            let measured = quotient(&|state| &mut state.head.parameters[i]);
            let slope = f64::from(after.head.mean[i]) * 10.0;
            assert!(
                (measured - slope).abs() < 0.05 * f64::from(most) * 10.0,
                "{kind:?} {i}: {measured}, {slope}"
            );
        }
        if let Some(decoder) = &after.decoder {
            for i in 0..decoder.parameters.len() {
                let measured = quotient(&|state| &mut state.decoder.as_mut().unwrap().parameters[i]);
                assert!((measured - f64::from(decoder.mean[i]) * 10.0).abs() < 1e-3, "decoder {i}");
            }
        }
    }
}

#[test]
fn training_lowers_the_losses() {
    let set = Regions::new(9, true);
    let mut trainer = Trainer::new(config(), DIM).unwrap();
    let reports: Vec<_> = (0..300).map(|step| trainer.advance(&set, &pairs(9, step)).unwrap()).collect();
    let mean = |range: std::ops::Range<usize>, of: &dyn Fn(usize) -> f64| {
        range.clone().map(of).sum::<f64>() / range.len() as f64
    };
    for (name, of) in [
        ("correspondence", &(|i: usize| reports[i].correspondence.total) as &dyn Fn(usize) -> f64),
        ("linear", &|i| reports[i].linear.unwrap()),
        ("cluster", &|i| reports[i].cluster),
    ] {
        let (before, after) = (mean(0..20, of), mean(280..300, of));
        assert!(after < before - 0.01, "{name}: {before} to {after}");
    }
    assert_eq!(reports[299].step, 300);
    assert_eq!(trainer.head().shape().code_dim, 6);
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let set = Regions::new(9, true);
    let mut config = StegoConfig { rec_weight: 0.2, ..config() };
    config.correspondence.ladder = vec![3, 6];
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(&config, &set, 6).state().clone())
    };
    let one = run(1);
    assert!(run(2) == one && run(5) == one);
    let other = StegoConfig { seed: 1, ..config.clone() };
    assert!(train(&other, &set, 6).state().head != one.head);
}

#[test]
fn what_goes_on_from_a_state_makes_the_same_steps_and_resets_probes_when_it_is_time() {
    let set = Regions::new(9, true);
    let config = StegoConfig { reset_probe_steps: Some(5), ..config() };
    let whole = train(&config, &set, 8);
    let half = train(&config, &set, 3);
    let mut second = Trainer::new(config.clone(), DIM).unwrap();
    second.restore(half.state().clone()).unwrap();
    for step in 3..8 {
        second.advance(&set, &pairs(9, step)).unwrap();
    }
    assert_eq!(second.state(), whole.state());
    assert_eq!(
        (whole.state().linear.steps, whole.state().cluster.steps, whole.state().head.steps),
        (3, 3, 8)
    );
    let mut other = Trainer::new(StegoConfig { dim: 5, ..config }, DIM).unwrap();
    assert!(other.restore(whole.state().clone()).is_err());
}

#[test]
fn labels_move_the_linear_probe_alone() {
    let (with, without) = (Regions::new(9, true), Regions::new(9, false));
    let (a, b) = (train(&config(), &with, 4), train(&config(), &without, 4));
    assert_eq!((&a.state().head, &a.state().cluster), (&b.state().head, &b.state().cluster));
    assert_eq!(b.state().linear.steps, 0);
    assert_ne!(a.state().linear, b.state().linear);
    let mut ignored = Regions::new(9, true);
    ignored.labels.as_mut().unwrap().fill(255);
    let mut trainer = Trainer::new(config(), DIM).unwrap();
    assert_eq!(trainer.advance(&ignored, &pairs(9, 0)).unwrap().linear, None);
}

#[test]
fn what_cannot_be_trained_is_refused_and_changes_nothing() {
    let set = Regions::new(9, true);
    let mut trainer = Trainer::new(config(), DIM).unwrap();
    let before = trainer.state().clone();
    assert!(matches!(trainer.advance(&set, &[(0, 1)]), Err(Error::Range { .. })));
    assert!(matches!(trainer.advance(&set, &[]), Err(Error::Range { .. })));
    assert!(matches!(trainer.advance(&set, &[(0, 1), (1, 9)]), Err(Error::Fetch { step: 1, .. })));
    let mut broken = Regions::new(9, true);
    broken.tokens[2].fill(f32::NAN);
    assert!(matches!(trainer.advance(&broken, &[(0, 1), (2, 3)]), Err(Error::NotFinite { .. })));
    broken.tokens[2].truncate(7);
    assert!(matches!(trainer.advance(&broken, &[(0, 1), (2, 3)]), Err(Error::Shape { .. })));
    assert_eq!(trainer.state(), &before);
    // As published, a single image is its own negative.
    let mut config = config();
    config.correspondence.negatives = Negatives::Published;
    Trainer::new(config, DIM).unwrap().advance(&set, &[(0, 1)]).unwrap();
    assert!(Trainer::new(StegoConfig { dim: 0, ..StegoConfig::default() }, DIM).is_err());
    assert!(Trainer::new(StegoConfig::default(), 0).is_err());
}
