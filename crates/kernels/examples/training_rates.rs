//! Milliseconds and GFLOP/s of the layers of a training step on rows, there and back, beside the matrix product that they are
//! measured by.
//!
//! `cargo run --release -p featlab-kernels --example training_rates`; `RAYON_NUM_THREADS` counts.
#![allow(clippy::print_stdout)] // an example that prints its figures

use std::time::Instant;

use kernels::{
    AttentionShape, LinearGrads, Matrix, MatrixMut, Threads, attention, attention_backward, gelu,
    gelu_backward, gemm, layer_norm, layer_norm_backward, linear, linear_backward,
};

fn wave(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// Prints the best of several runs.
fn show(what: &str, flop: usize, mut f: impl FnMut()) {
    let run = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    let seconds = (0..15).map(run).fold(f64::MAX, f64::min);
    println!("  {what:<24} {:8.3} ms {:6.0} GFLOP/s", seconds * 1e3, flop as f64 / seconds / 1e9);
}

fn main() {
    println!("{} threads", rayon::current_num_threads());
    let n = 1536;
    let (a, b, mut c) = (wave(n * n), wave(n * n), vec![0.0; n * n]);
    show("gemm", 2 * n * n * n, || {
        let (a, b) = (Matrix::new(&a, n, n), Matrix::new(&b, n, n));
        gemm(MatrixMut::new(&mut c, n, n), 0.0, 1.0, a, b, Threads::All);
    });
    // (images, tokens, d) of a part of the batch: global and local views.
    for (name, images, tokens, d) in [
        ("micro, global", 30, 65, 192),
        ("micro, local", 60, 17, 192),
        ("ViT-S/16, global", 8, 197, 384),
        ("ViT-S/16, local", 32, 37, 384),
    ] {
        println!("{name}: {images} images of {tokens} tokens, d {d}");
        layers(images, tokens, d);
    }
}

fn layers(images: usize, tokens: usize, d: usize) {
    let rows = images * tokens;
    for (from, to) in [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)] {
        let (x, weight, bias, dy) = (wave(rows * from), wave(from * to), wave(to), wave(rows * to));
        let (mut y, mut dx) = (vec![0.0; rows * to], vec![0.0; rows * from]);
        let (mut dw, mut db) = (vec![0.0; from * to], vec![0.0; to]);
        let flop = 2 * rows * from * to;
        show(&format!("linear {from} -> {to}"), flop, || linear(&x, &weight, Some(&bias), from, &mut y));
        show("backward", 2 * flop, || {
            let grads = LinearGrads { weight: &mut dw, bias: Some(&mut db) };
            linear_backward(&dy, &x, &weight, from, grads, Some(&mut dx));
        });
    }
    let shape = AttentionShape { tokens, heads: d / 64, head_dim: 64 };
    let (qkv, dout) = (wave(3 * rows * d), wave(rows * d));
    let (mut out, mut dqkv) = (vec![0.0; rows * d], vec![0.0; 3 * rows * d]);
    let flop = 4 * rows * tokens * d;
    show("attention", flop, || attention(&qkv, shape, &mut out));
    show("backward", flop / 2 * 5, || attention_backward(&dout, &qkv, shape, &mut dqkv));
    let (mut stats, mut dw, mut db) = (vec![[0.0; 2]; rows], vec![0.0; d], vec![0.0; d]);
    show("layer norm", 0, || layer_norm(&dout, &qkv[..d], &qkv[..d], 1e-6, &mut out, &mut stats));
    show("backward", 0, || {
        layer_norm_backward(&dout, &dout, &stats, &qkv[..d], (&mut dw, &mut db), &mut out);
    });
    let (x, mut y) = (wave(4 * rows * d), vec![0.0; 4 * rows * d]);
    show("gelu", 0, || gelu(&x, &mut y));
    show("backward", 0, || gelu_backward(&x, &mut y));
}
