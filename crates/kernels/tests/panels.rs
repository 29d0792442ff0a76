//! The layers on panels against their definitions in double precision, at every level of this machine: odd sizes,
//! NaN and infinity, and the same bits for any number of threads and any batch.

mod normal;

use kernels::{
    Epilogue, Level, PackedLinear, PanelShape, one_thread, panel_attention, panel_layer_norm, panel_rope,
};
use normal::normal;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn random(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn shape(level: Level, images: usize, tokens: usize, dim: usize) -> PanelShape {
    PanelShape { level, images, tokens, dim }
}

/// Rows to panels; the lanes behind the last token hold NaN, which nobody may read.
fn pack(shape: PanelShape, rows: &[f32]) -> Vec<f32> {
    let (mut panels, mut marked) = (vec![0.0; shape.len()], vec![0.0; shape.len()]);
    shape.pack(rows, &mut panels);
    shape.pack(&vec![1.0; rows.len()], &mut marked);
    panels.iter().zip(marked).map(|(&x, there)| if there == 1.0 { x } else { f32::NAN }).collect()
}

fn unpack(shape: PanelShape, panels: &[f32]) -> Vec<f32> {
    let mut rows = vec![f32::NAN; shape.images * shape.tokens * shape.dim];
    shape.unpack(panels, &mut rows);
    rows
}

fn assert_close(got: &[f32], want: &[f64], within: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(1e-30_f64, |most, x| most.max(x.abs()));
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(got) - want).abs() <= within * most, "{what}: {got} is not {want} at {i}");
    }
}

struct Layer {
    from: usize,
    to: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Layer {
    fn random(rng: &mut ChaCha8Rng, from: usize, to: usize) -> Self {
        Self { from, to, weight: random(rng, from * to), bias: random(rng, to) }
    }

    fn packed(&self, level: Level) -> PackedLinear {
        PackedLinear::new(level, &self.weight, Some(&self.bias), self.from, self.to)
    }

    fn exact(&self, rows: &[f32]) -> Vec<f64> {
        let row = |x: &[f32]| {
            let output = |o: usize| {
                let weights = &self.weight[o * self.from..][..self.from];
                let sum: f64 = x.iter().zip(weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                sum + f64::from(self.bias[o])
            };
            (0..self.to).map(output).collect::<Vec<_>>()
        };
        rows.chunks_exact(self.from).flat_map(row).collect()
    }
}

#[test]
fn linear_layers_of_all_shapes_and_what_follows_them() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for level in Level::available() {
        for tokens in [1, 2, 15, 16, 17, 31, 32, 33, 97, 150] {
            let (images, from, to) =
                (rng.random_range(1..4), rng.random_range(1..90), rng.random_range(1..90));
            let what = format!("{} {images} x {tokens} x {from} -> {to}", level.name());
            let layer = Layer::random(&mut rng, from, to);
            let (x_shape, y_shape) = (shape(level, images, tokens, from), shape(level, images, tokens, to));
            let rows = random(&mut rng, images * tokens * from);
            let residual = random(&mut rng, images * tokens * to);
            let (x, residual_panels) = (pack(x_shape, &rows), pack(y_shape, &residual));
            let packed = layer.packed(level);
            let run = |epilogue| {
                let mut y = vec![f32::NAN; y_shape.len()];
                packed.forward(&x, x_shape, epilogue, &mut y);
                unpack(y_shape, &y)
            };
            let exact = layer.exact(&rows);
            assert_close(&run(Epilogue::Plain), &exact, 2e-6, &what);
            let gelu: Vec<f64> = exact.iter().map(|x| x * normal(*x)).collect();
            assert_close(&run(Epilogue::Gelu), &gelu, 2e-6, &what);
            let added: Vec<f64> = exact.iter().zip(&residual).map(|(x, r)| x + f64::from(*r)).collect();
            assert_close(&run(Epilogue::Add(&residual_panels)), &added, 2e-6, &what);
        }
    }
}

#[test]
fn a_layer_without_bias_has_zeros() {
    for level in Level::available() {
        let (x_shape, y_shape) = (shape(level, 1, 3, 2), shape(level, 1, 3, 5));
        let layer = PackedLinear::new(level, &[0.0; 10], None, 2, 5);
        let mut y = vec![f32::NAN; y_shape.len()];
        layer.forward(&pack(x_shape, &[1.0; 6]), x_shape, Epilogue::Plain, &mut y);
        assert_eq!(unpack(y_shape, &y), [0.0; 15]);
    }
}

#[test]
fn gelu_is_exact_to_single_precision_from_end_to_end() {
    let points: Vec<f32> = (-1200..1200).map(|i| i as f32 * 0.01).chain([1e4, -1e4, 1e30, -1e30]).collect();
    for level in Level::available() {
        let shape = shape(level, 1, points.len(), 1);
        let identity = PackedLinear::new(level, &[1.0], None, 1, 1);
        let mut y = vec![f32::NAN; shape.len()];
        identity.forward(&pack(shape, &points), shape, Epilogue::Gelu, &mut y);
        for (&x, y) in points.iter().zip(unpack(shape, &y)) {
            let exact = f64::from(x) * normal(f64::from(x));
            // In the tail the exponent's rounding counts, and nothing below the least power is told apart from it.
            let within = if x > -4.0 { 1e-6 } else { 2e-5 } * exact.abs() + 1e-36;
            assert!((f64::from(y) - exact).abs() <= within, "{}: gelu({x}) = {y}, not {exact}", level.name());
        }
    }
}

/// `softmax(q kᵀ / √hd) v` of one image, `[n, 3 d] -> [n, d]`.
fn exact_attention(qkv: &[f32], n: usize, heads: usize, hd: usize) -> Vec<f64> {
    let d = heads * hd;
    let at = |token: usize, part: usize, i: usize| f64::from(qkv[token * 3 * d + part * d + i]);
    let mut out = vec![0.0; n * d];
    for head in 0..heads {
        let dims = head * hd..(head + 1) * hd;
        for query in 0..n {
            let score = |key: usize| {
                dims.clone().map(|i| at(query, 0, i) * at(key, 1, i)).sum::<f64>() / (hd as f64).sqrt()
            };
            let scores: Vec<f64> = (0..n).map(score).collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            for i in dims.clone() {
                out[query * d + i] = (0..n).map(|key| weights[key] * at(key, 2, i)).sum::<f64>() / total;
            }
        }
    }
    out
}

fn attend(shape: PanelShape, heads: usize, rows: &[f32]) -> Vec<f32> {
    let to = shape.with_dim(shape.dim / 3);
    let mut out = vec![f32::NAN; to.len()];
    panel_attention(&pack(shape, rows), shape, heads, &mut out);
    unpack(to, &out)
}

#[test]
fn attention_of_all_shapes() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for level in Level::available() {
        let sizes = [(1, 1, 1), (2, 3, 5), (16, 2, 8), (17, 1, 18), (33, 2, 64), (61, 3, 12), (300, 1, 24)];
        for (tokens, heads, hd) in sizes {
            let shape = shape(level, 2, tokens, 3 * heads * hd);
            // Scores of some size, so that the softmax is not flat.
            let rows: Vec<f32> = random(&mut rng, 2 * tokens * shape.dim).iter().map(|x| x * 4.0).collect();
            let exact: Vec<f64> = rows
                .chunks_exact(tokens * shape.dim)
                .flat_map(|qkv| exact_attention(qkv, tokens, heads, hd))
                .collect();
            let what = format!("{} {tokens} tokens, {heads} heads of {hd}", level.name());
            assert_close(&attend(shape, heads, &rows), &exact, 5e-6, &what);
        }
    }
}

#[test]
fn scores_far_apart_and_far_from_zero() {
    for level in Level::available() {
        // One number per head: the score of (query, key) is q · k.
        let shape = shape(level, 1, 3, 3);
        let rows = [1.0, 1e4, 1.0, 1.0, 2e4, 2.0, -1.0, -2e4, 3.0]; // (q, k, v) of three tokens
        let got = attend(shape, 1, &rows);
        assert!(got.iter().zip([2.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
    }
}

#[test]
fn norms_far_from_zero_and_of_all_widths() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for level in Level::available() {
        for (tokens, d) in [(1, 1), (5, 3), (40, 37), (33, 384)] {
            let shape = shape(level, 2, tokens, d);
            let mut rows = random(&mut rng, 2 * tokens * d);
            rows.iter_mut().enumerate().for_each(|(i, x)| *x += 100.0 * (i / d % 5) as f32);
            let (weight, bias) = (random(&mut rng, d), random(&mut rng, d));
            let mut y = vec![f32::NAN; shape.len()];
            panel_layer_norm(&pack(shape, &rows), shape, (&weight, &bias), 1e-6, &mut y);
            let exact = rows.chunks_exact(d).flat_map(|row| {
                let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / d as f64;
                let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / d as f64;
                let unit = move |x: f32| (f64::from(x) - mean) / (variance + 1e-6).sqrt();
                row.iter()
                    .zip(&weight)
                    .zip(&bias)
                    .map(move |((&x, &w), &b)| unit(x) * f64::from(w) + f64::from(b))
                    .collect::<Vec<_>>()
            });
            let exact: Vec<f64> = exact.collect();
            // A number near 400 has a unit in the last place of 3e-5.
            let within = if d == 1 { 0.2 } else { 2e-4 };
            assert_close(&unpack(shape, &y), &exact, within, &format!("{} {tokens} x {d}", level.name()));
        }
    }
}

#[test]
fn rotations_are_those_of_pairs() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (tokens, heads, half) = (37, 2, 3);
    let d = heads * 2 * half;
    let angles: Vec<f32> = (0..tokens * half).map(|i| i as f32 * 0.11).collect();
    for level in Level::available() {
        let shape = shape(level, 2, tokens, 3 * d);
        let rows = random(&mut rng, 2 * tokens * 3 * d);
        let tables = PanelShape { images: 1, ..shape }.with_dim(half);
        let table = |f: fn(f32) -> f32| pack(tables, &angles.iter().map(|&a| f(a)).collect::<Vec<_>>());
        let mut panels = pack(shape, &rows);
        panel_rope(&mut panels, shape, heads, &table(f32::cos), &table(f32::sin));
        let mut exact: Vec<f64> = rows.iter().map(|&x| f64::from(x)).collect();
        for (i, row) in exact.chunks_exact_mut(3 * d).enumerate() {
            for head in row[..2 * d].chunks_exact_mut(2 * half) {
                for k in 0..half {
                    let (sin, cos) = f64::from(angles[i % tokens * half + k]).sin_cos();
                    let (x, y) = (head[k], head[half + k]);
                    (head[k], head[half + k]) = (x * cos - y * sin, y * cos + x * sin);
                }
            }
        }
        assert_close(&unpack(shape, &panels), &exact, 1e-6, level.name());
    }
}

#[test]
fn nan_and_infinity_reach_what_depends_on_them_and_nothing_else() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (tokens, from, to, heads, hd) = (35, 20, 18, 2, 9);
    for level in Level::available() {
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let layer = Layer::random(&mut rng, from, to);
            let (x_shape, y_shape) = (shape(level, 2, tokens, from), shape(level, 2, tokens, to));
            let mut rows = random(&mut rng, 2 * tokens * from);
            let sick = tokens + 3; // a token of the second image
            rows[sick * from + 7] = poison;
            for epilogue in [Epilogue::Plain, Epilogue::Gelu] {
                let mut y = vec![0.0; y_shape.len()];
                layer.packed(level).forward(&pack(x_shape, &rows), x_shape, epilogue, &mut y);
                for (token, row) in unpack(y_shape, &y).chunks_exact(to).enumerate() {
                    let finite = row.iter().filter(|y| y.is_finite()).count();
                    // GELU turns a large negative number to zero, but not minus infinity.
                    assert_eq!(finite, if token == sick { 0 } else { to }, "{} {poison}", level.name());
                }
            }
            let mut y = vec![0.0; x_shape.len()];
            panel_layer_norm(&pack(x_shape, &rows), x_shape, (&[1.0; 20], &[0.0; 20]), 1e-6, &mut y);
            for (token, row) in unpack(x_shape, &y).chunks_exact(from).enumerate() {
                assert_eq!(row.iter().all(|y| y.is_finite()), token != sick);
            }
        }
        let shape = shape(level, 2, tokens, 3 * heads * hd);
        let clean = random(&mut rng, 2 * tokens * shape.dim);
        // Of a token of the second image and its second head: the query, the key, the value.
        for part in 0..3 {
            let mut rows = clean.clone();
            rows[(tokens + 3) * shape.dim + part * heads * hd + hd + 2] = f32::NAN;
            let (healthy, got) = (attend(shape, heads, &clean), attend(shape, heads, &rows));
            for (i, (got, healthy)) in got.iter().zip(healthy).enumerate() {
                let (token, dim) = (i / (heads * hd), i % (heads * hd));
                let reached = match part {
                    0 => token == tokens + 3 && dim >= hd,
                    1 => token >= tokens && dim >= hd,
                    _ => token >= tokens && dim == hd + 2,
                };
                assert_eq!(got.is_nan(), reached, "{} part {part}, token {token}, {dim}", level.name());
                assert!(reached || *got == healthy);
            }
        }
    }
}

#[test]
fn any_number_of_threads_and_any_batch_give_the_same_bits() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let (images, tokens, heads, hd) = (3, 203, 3, 16);
    let d = heads * hd;
    let (qkv, fc) = (Layer::random(&mut rng, d, 3 * d), Layer::random(&mut rng, d, 5 * d));
    let rows = random(&mut rng, images * tokens * d);
    for level in Level::available() {
        let run = |rows: &[f32]| {
            let x_shape = shape(level, rows.len() / tokens / d, tokens, d);
            let x = pack(x_shape, rows);
            let mut normed = vec![0.0; x.len()];
            panel_layer_norm(&x, x_shape, (&[1.5; 48], &[0.1; 48]), 1e-6, &mut normed);
            let mut projected = vec![0.0; x_shape.with_dim(3 * d).len()];
            qkv.packed(level).forward(&normed, x_shape, Epilogue::Plain, &mut projected);
            let mut heads_out = vec![0.0; x.len()];
            panel_attention(&projected, x_shape.with_dim(3 * d), heads, &mut heads_out);
            let out_shape = x_shape.with_dim(5 * d);
            let mut out = vec![0.0; out_shape.len()];
            fc.packed(level).forward(&heads_out, x_shape, Epilogue::Gelu, &mut out);
            unpack(out_shape, &out).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let expected = run(&rows);
        for threads in 1..6 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| run(&rows)) == expected, "{} {threads} threads", level.name());
        }
        assert!(one_thread(|| run(&rows)) == expected);
        let singly: Vec<u32> = rows.chunks_exact(tokens * d).flat_map(run).collect();
        assert!(singly == expected, "{} image by image", level.name());
    }
}

#[test]
fn every_machine_has_a_portable_level_and_the_first_is_not_slower() {
    let levels = Level::available();
    assert_eq!(levels.last(), Some(&Level::Portable));
    assert!(levels.contains(&Level::current()));
}
