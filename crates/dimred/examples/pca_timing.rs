//! Times of PCA and of random projections of n × d float32 rows in memory.
//!
//! Run: `cargo run --release -p dimred --example pca_timing` prints the best of 3 on 200 000 × 384 random rows. With
//! `ROWS.f32 d`, rows in a file of plain little-endian numbers, it answers requests, a line each on standard input, for
//! `benches/peers/pca.py`: `pca none` or `pca train` (moments in pieces of 784 rows, as from a cache, and the decomposition),
//! `rp K`, `rp-sparse K` (the product with all rows). An answer is the seconds and a number to compare.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use dimred::{Moments, PcaParams, Projection, RandomProjectionKind, RandomProjectionParams, Scaler};
use ndarray::{Array2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut out = std::io::stdout();
    let Some(file) = arguments.next() else {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let rows = Array2::from_shape_fn((200_000, 384), |_| rng.random_range(-1.0..1.0f32)); // [n, d]
        for request in ["pca train", "pca none", "rp 64", "rp-sparse 64"] {
            let mut best = f64::INFINITY;
            for _ in 0..3 {
                best = best.min(answer(&rows, request)?.0);
            }
            writeln!(out, "{request}: {best:.3} s on {} threads", std::thread::available_parallelism()?)?;
        }
        return Ok(());
    };
    let d: usize = arguments.next().ok_or("no width")?.parse()?;
    let numbers: Vec<f32> =
        std::fs::read(file)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let rows = Array2::from_shape_vec((numbers.len() / d, d), numbers)?; // [n, d]
    for line in std::io::stdin().lock().lines() {
        let (seconds, number) = answer(&rows, &line?)?;
        writeln!(out, "{seconds} {number}")?;
    }
    Ok(())
}

/// Seconds, and a number to compare.
fn answer(rows: &Array2<f32>, request: &str) -> Result<(f64, f64), Box<dyn Error>> {
    let (what, argument) = request.split_once(' ').ok_or("expected two words")?;
    match what {
        "pca" => pca(rows, argument.parse()?),
        "rp" => project(rows, RandomProjectionKind::Gaussian, argument.parse()?),
        "rp-sparse" => project(rows, RandomProjectionKind::Sparse { density: None }, argument.parse()?),
        other => Err(format!("unknown request {other}").into()),
    }
}

/// Seconds, and the largest explained variance.
fn pca(rows: &Array2<f32>, scaler: Scaler) -> Result<(f64, f64), Box<dyn Error>> {
    let started = Instant::now();
    let mut moments = Moments::new(rows.ncols());
    for piece in rows.axis_chunks_iter(Axis(0), 784) {
        moments.add(piece)?;
    }
    let pca = PcaParams { scaler, ..PcaParams::default() }.fit_moments(&moments)?;
    Ok((started.elapsed().as_secs_f64(), pca.explained_variance()[0]))
}

/// Seconds, and the mean square of the projected rows.
fn project(rows: &Array2<f32>, kind: RandomProjectionKind, k: usize) -> Result<(f64, f64), Box<dyn Error>> {
    let params = RandomProjectionParams { kind, seed: 0, scaler: Scaler::None, max_dim: k };
    let map = params.fit(rows.ncols(), None)?.at(k)?;
    let started = Instant::now();
    let projected = map.transform(rows.view())?;
    let seconds = started.elapsed().as_secs_f64();
    Ok((seconds, projected.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / projected.len() as f64))
}
