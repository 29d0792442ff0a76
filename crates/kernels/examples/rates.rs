//! GFLOP/s of the layers of a ViT-S/8 at 224 px, beside the matrix product that they are measured by.
//!
//! `cargo run --release -p featlab-kernels --example rates`; `RAYON_NUM_THREADS` and `FEATLAB_SIMD` count.
#![allow(clippy::print_stdout)] // an example that prints its figures

use std::time::Instant;

use kernels::{
    Epilogue, Level, Matrix, MatrixMut, PackedLinear, PanelShape, Threads, gemm, panel_attention,
    panel_layer_norm,
};

fn wave(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// The best of several runs, in seconds.
fn best(mut f: impl FnMut()) -> f64 {
    (0..9)
        .map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::MAX, f64::min)
}

fn main() {
    let level = Level::current();
    println!("{} on {} threads", level.name(), rayon::current_num_threads());
    let n = 2048;
    let (a, b, mut c) = (wave(n * n), wave(n * n), vec![0.0; n * n]);
    let seconds = best(|| {
        gemm(
            MatrixMut::new(&mut c, n, n),
            0.0,
            1.0,
            Matrix::new(&a, n, n),
            Matrix::new(&b, n, n),
            Threads::All,
        );
    });
    println!("gemm {n}³: {:.0}", 2.0 * (n as f64).powi(3) / seconds / 1e9);
    for tokens in [785, 1601] {
        for (from, to, epilogue) in [
            (384, 1152, 0),
            (384, 384, 2),
            (384, 1536, 1),
            (384, 1536, 0),
            (1536, 384, 2),
            (768, 2304, 0),
            (768, 3072, 0),
            (3072, 768, 0),
        ] {
            let shape = PanelShape { level, images: 1, tokens, dim: from };
            let out_shape = shape.with_dim(to);
            let layer = PackedLinear::new(level, &wave(from * to), Some(&wave(to)), from, to);
            let (x, residual, mut y) = (wave(shape.len()), wave(out_shape.len()), vec![0.0; out_shape.len()]);
            let seconds = best(|| {
                let epilogue = [Epilogue::Plain, Epilogue::Gelu, Epilogue::Add(&residual)][epilogue];
                layer.forward(&x, shape, epilogue, &mut y);
            });
            println!(
                "linear {tokens} x {from} -> {to} {}: {:.0}",
                ["", "gelu", "add"][epilogue],
                2.0 * (tokens * from * to) as f64 / seconds / 1e9
            );
        }
        for (heads, hd) in [(6, 64), (12, 64)] {
            let d = heads * hd;
            let shape = PanelShape { level, images: 1, tokens, dim: 3 * d };
            let (x, mut y) = (wave(shape.len()), vec![0.0; shape.with_dim(d).len()]);
            let seconds = best(|| panel_attention(&x, shape, heads, &mut y));
            println!(
                "attention {tokens} x {heads} x {hd}: {:.0}",
                4.0 * (tokens * tokens * d) as f64 / seconds / 1e9
            );
        }
        let shape = PanelShape { level, images: 1, tokens, dim: 384 };
        let (x, mut y) = (wave(shape.len()), vec![0.0; shape.len()]);
        let seconds = best(|| panel_layer_norm(&x, shape, (&x[..384], &x[..384]), 1e-6, &mut y));
        println!("layer norm {tokens} x 384: {:.1} us", seconds * 1e6);
    }
}
