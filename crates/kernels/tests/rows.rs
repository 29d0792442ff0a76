//! The layers on rows against their definitions in double precision, there and back: odd sizes, NaN, and the same bits for
//! any number of threads.

mod normal;

use kernels::{
    AttentionShape, attention, attention_backward, gelu, gelu_backward, layer_norm, layer_norm_backward,
};
use normal::normal;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const EPS: f32 = 1e-6;

fn random(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn assert_close(got: &[f32], want: &[f64], within: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(1e-30_f64, |most, x| most.max(x.abs()));
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() <= within * most, "{what}: {got} is not {want} at {i}");
    }
}

/// A norm with what goes in and what comes back.
struct NormCase {
    d: usize,
    x: Vec<f32>,
    dy: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// `y`, `dx`, `dweight`, `dbias`.
type NormResults<T> = [Vec<T>; 4];

impl NormCase {
    fn random(rng: &mut ChaCha8Rng, rows: usize, d: usize) -> Self {
        let [x, dy] = [(); 2].map(|()| random(rng, rows * d));
        let [weight, bias] = [(); 2].map(|()| random(rng, d));
        Self { d, x, dy, weight, bias }
    }

    /// The gradients come on top of ones.
    fn run(&self) -> NormResults<f32> {
        let Self { d, x, dy, weight, bias } = self;
        let mut stats = vec![[f32::NAN; 2]; x.len() / d];
        let mut y = vec![f32::NAN; x.len()];
        layer_norm(x, weight, bias, EPS, &mut y, &mut stats);
        let (mut dx, mut dweight, mut dbias) = (vec![1.0; x.len()], vec![1.0; *d], vec![1.0; *d]);
        layer_norm_backward(dy, x, &stats, weight, (&mut dweight, &mut dbias), &mut dx);
        [y, dx, dweight, dbias]
    }

    fn exact(&self) -> NormResults<f64> {
        let d = self.d;
        let (mut y, mut dx) = (Vec::new(), Vec::new());
        let (mut dweight, mut dbias) = (vec![1.0; d], vec![1.0; d]);
        for (x, dy) in self.x.chunks_exact(d).zip(self.dy.chunks_exact(d)) {
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / d as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / d as f64;
            let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
            let unit: Vec<f64> = x.iter().map(|&x| (f64::from(x) - mean) * scale).collect();
            let g: Vec<f64> =
                dy.iter().zip(&self.weight).map(|(&a, &b)| f64::from(a) * f64::from(b)).collect();
            let along = g.iter().sum::<f64>() / d as f64;
            let across = g.iter().zip(&unit).map(|(g, unit)| g * unit).sum::<f64>() / d as f64;
            for i in 0..d {
                y.push(unit[i] * f64::from(self.weight[i]) + f64::from(self.bias[i]));
                dx.push(1.0 + scale * (g[i] - along - unit[i] * across));
                dweight[i] += f64::from(dy[i]) * unit[i];
                dbias[i] += f64::from(dy[i]);
            }
        }
        [y, dx, dweight, dbias]
    }
}

#[test]
fn norms_of_all_shapes_there_and_back() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (rows, d) in [(1, 2), (3, 5), (4, 16), (7, 17), (50, 37), (33, 384), (700, 100), (5, 20_000)] {
        let case = NormCase::random(&mut rng, rows, d);
        let names = ["y", "dx", "dweight", "dbias"];
        for ((got, want), name) in case.run().iter().zip(case.exact()).zip(names) {
            assert_close(got, &want, 2e-5, &format!("{name} of {rows} x {d}"));
        }
    }
}

#[test]
fn the_gradient_of_a_norm_is_the_slope() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (rows, d) = (3, 21);
    let mut case = NormCase::random(&mut rng, rows, d);
    let [_, dx, ..] = case.run();
    let dy = case.dy.clone();
    for (i, dx) in dx.iter().enumerate() {
        let x = case.x[i];
        let mut loss = |h: f32| {
            case.x[i] = x + h;
            let [y, ..] = case.exact();
            (y.iter().zip(&dy).map(|(y, &dy)| y * f64::from(dy)).sum::<f64>(), f64::from(case.x[i]))
        };
        let ((above, high), (below, low)) = (loss(1e-3), loss(-1e-3));
        case.x[i] = x;
        let slope = (above - below) / (high - low);
        assert!((f64::from(dx - 1.0) - slope).abs() < 2e-5, "{i}: {dx} {slope}");
    }
}

#[test]
fn nan_reaches_what_depends_on_it_and_nothing_else() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (rows, d, sick) = (40, 37, 11);
    let healthy = |values: &[f32]| values.iter().map(|x| !x.is_nan()).collect::<Vec<_>>();
    let rows_but_sick: Vec<bool> = (0..rows * d).map(|i| i / d != sick).collect();

    let mut case = NormCase::random(&mut rng, rows, d);
    case.x[sick * d + 35] = f32::NAN;
    let [y, dx, dweight, dbias] = case.run();
    assert!(healthy(&y) == rows_but_sick && healthy(&dx) == rows_but_sick);
    assert!(dweight.iter().all(|x| x.is_nan()) && dbias.iter().all(|x| !x.is_nan()));

    let mut case = NormCase::random(&mut rng, rows, d);
    case.dy[sick * d + 35] = f32::NAN;
    let [y, dx, dweight, dbias] = case.run();
    assert!(y.iter().all(|y| !y.is_nan()) && healthy(&dx) == rows_but_sick);
    assert!(
        [dweight, dbias].iter().all(|sums| sums.iter().enumerate().all(|(i, x)| x.is_nan() == (i == 35)))
    );

    let mut x = random(&mut rng, 100);
    x[50] = f32::NAN;
    let (mut y, mut dy) = (vec![0.0; 100], vec![1.0; 100]);
    gelu(&x, &mut y);
    gelu_backward(&x, &mut dy);
    assert!([y, dy].iter().all(|values| healthy(values) == healthy(&x)));

    // The value of a token, in the first head: one number of all tokens. Its query: a head of that token.
    let shape = AttentionShape { tokens: 21, heads: 2, head_dim: 5 };
    let (n, d) = (shape.tokens, shape.dim());
    for (part, reached) in [(2, 2..3), (0, 0..5)] {
        let mut qkv = random(&mut rng, 2 * n * 3 * d);
        qkv[(n + 3) * 3 * d + part * d + 2] = f32::NAN; // in the second image
        let mut out = vec![0.0; 2 * n * d];
        attention(&qkv, shape, &mut out);
        for (i, x) in out.iter().enumerate() {
            let token = if part == 0 { i / d == n + 3 } else { i / d >= n };
            assert_eq!(x.is_nan(), token && reached.contains(&(i % d)), "part {part}, number {i}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let case = NormCase::random(&mut rng, 903, 100);
    let shape = AttentionShape { tokens: 43, heads: 3, head_dim: 20 };
    let (qkv, dout) = (random(&mut rng, 5 * 43 * 180), random(&mut rng, 5 * 43 * 60));
    let run = || {
        let mut results = case.run().to_vec();
        let (mut y, mut dy) = (vec![0.0; case.x.len()], case.dy.clone());
        gelu(&case.x, &mut y);
        gelu_backward(&case.x, &mut dy);
        let (mut out, mut dqkv) = (vec![0.0; dout.len()], vec![0.0; qkv.len()]);
        attention(&qkv, shape, &mut out);
        attention_backward(&dout, &qkv, shape, &mut dqkv);
        results.extend([y, dy, out, dqkv]);
        results
    };
    let expected = run();
    for threads in [1, 2, 3, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(run) == expected, "{threads} threads");
    }
}

#[test]
fn gelu_is_exact_to_single_precision_in_both_tails() {
    let worst = |range: std::ops::Range<i32>| {
        let x: Vec<f32> = range.map(|i| (i as f32 + 0.5) * 1e-4).collect();
        let mut y = vec![f32::NAN; x.len()];
        gelu(&x, &mut y);
        x.iter().zip(&y).fold(0.0, |worst: f64, (&x, &y)| {
            let exact = f64::from(x) * normal(f64::from(x));
            worst.max(((f64::from(y) - exact) / exact).abs())
        })
    };
    // In the tail the exponent's rounding counts: x²/2 = 72 has a unit of 8e-6.
    let (far, near) = (worst(-120_000..120_000), worst(-30_000..30_000));
    assert!(far < 1e-5 && near < 1e-6, "{far} {near}");
}

#[test]
fn the_gradient_of_gelu_is_the_slope() {
    let x: Vec<f32> = (-60..60).map(|i| i as f32 * 0.1 + 0.05).collect();
    let mut dy = vec![2.0; x.len()];
    gelu_backward(&x, &mut dy);
    for (&x, &got) in x.iter().zip(&dy) {
        let (x, h) = (f64::from(x), 1e-5);
        let f = |x: f64| x * normal(x);
        let slope = 2.0 * (f(x + h) - f(x - h)) / (2.0 * h);
        assert!((f64::from(got) - slope).abs() < 1e-6, "{x} {got} {slope}");
    }
}
