//! Commuted evaluation equals the literal one: predictions from upsampled scores are those from upsampled features, pixel for
//! pixel but for ties. On random features and random probes here; on features of pictures in `tests/cli/commuted.rs`.

#![expect(clippy::print_stdout, reason = "a test that counts says what it counted")]

mod literal;

use literal::Agreement;
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, s};
use probe::{
    BankCell, BankProbe, BankScorer, BankSet, CellKind, ClusterProbe, LinearProbe, Probe, RowSet,
    upsample_argmax,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Width of the tokens; probes of fewer dimensions see the first ones.
const WIDTH: usize = 96;
const CLASSES: usize = 27;

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    StandardNormal.sample(rng)
}

/// Probes of both kinds and several dimensions, seeds and scales.
fn probes(rng: &mut ChaCha8Rng) -> Vec<(BankCell, BankProbe)> {
    let mut all = Vec::new();
    for dim in [3, 12, WIDTH] {
        for seed in 0..2 {
            let mut weights = |rows: usize| Array2::from_shape_simple_fn((rows, dim), || normal(rng));
            let linear = LinearProbe { weight: weights(CLASSES), bias: Array1::zeros(CLASSES) };
            let cluster = ClusterProbe { centres: weights(CLASSES + 5) };
            let bias = Array1::from_shape_simple_fn(CLASSES, || normal(rng));
            let scale = if seed == 0 { 1.0 } else { (WIDTH as f32 / dim as f32).sqrt() };
            let cell = |kind| BankCell { source: 0, dim, scale, kind, seed };
            all.push((cell(CellKind::Linear), BankProbe::Linear(LinearProbe { bias, ..linear })));
            all.push((cell(CellKind::Cluster(CLASSES + 5)), BankProbe::Cluster(cluster)));
        }
    }
    all
}

/// The same prediction by every way that there is.
fn every_way(
    (cell, probe): &(BankCell, BankProbe),
    tokens: ArrayView2<'_, f32>,
    grid: (usize, usize),
    size: (usize, usize),
) -> Vec<Array2<u8>> {
    let seen = tokens.slice(s![.., ..cell.dim]).mapv(|x| x * cell.scale); // [t, k]
    let scores = match probe {
        BankProbe::Linear(probe) => probe.scores(seen.view()),
        BankProbe::Cluster(probe) => probe.scores(seen.view()),
    };
    vec![upsample_argmax(scores.view(), grid, size), probe.predict(seen.view(), grid, size)]
}

#[test]
fn random_features_are_predicted_as_if_they_had_been_upsampled() {
    let mut all = Agreement::default();
    for (seed, grid, size) in [
        (0, (7, 7), (56, 56)),
        (1, (5, 9), (37, 61)),
        (2, (12, 8), (48, 64)),
        (3, (9, 9), (6, 7)),
        (4, (1, 3), (8, 8)),
    ] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let probes = probes(&mut rng);
        // Neighbours are alike and there is a common part, as in features of pictures.
        let common = Array1::from_shape_simple_fn(WIDTH, || 0.5 * normal(&mut rng));
        let tokens = Array3::from_shape_simple_fn((2, grid.0 * grid.1, WIDTH), || normal(&mut rng)) + common;
        let labels = Array3::zeros((2, size.0, size.1));
        let set = RowSet { tokens: tokens.view(), grid, labels: labels.view() };
        let cells: Vec<_> = probes.iter().map(|(cell, probe)| (*cell, probe)).collect();
        let scorer = BankScorer::new(&cells, CLASSES);
        let batch = set.batch(&[0, 1]).unwrap();
        for (i, tokens) in tokens.axis_iter(Axis(0)).enumerate() {
            let mut visited = vec![None; probes.len()];
            scorer.image(&set, &*batch, i, &mut |cell, map| visited[cell] = Some(map)).unwrap();
            for (one, visited) in probes.iter().zip(visited) {
                let mut predicted = every_way(one, tokens, grid, size);
                predicted.push(visited.unwrap());
                all.add((one.0, &one.1), tokens, grid, &predicted);
            }
        }
    }
    all.conclude("random features");
}
