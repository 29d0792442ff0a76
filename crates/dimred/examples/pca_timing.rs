//! Time of a full PCA (standardise, all components) of n × d float32 rows, streamed in pieces of 784 rows as from a cache.
//!
//! Run: `cargo run --release -p dimred --example pca_timing [n] [d]` (default 200000 384). Peer: `benches/peers/pca.py`.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use dimred::{Moments, PcaParams};
use ndarray::{Array2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let n = arguments.next().transpose()?.unwrap_or(200_000);
    let d = arguments.next().transpose()?.unwrap_or(384);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let rows = Array2::from_shape_fn((n, d), |_| rng.random_range(-1.0..1.0f32)); // [n, d]
    let mut seconds = Vec::new();
    let mut check = 0.0;
    for _ in 0..3 {
        let started = Instant::now();
        let mut moments = Moments::new(d);
        for piece in rows.axis_chunks_iter(Axis(0), 784) {
            moments.add(piece)?;
        }
        let pca = PcaParams::default().fit_moments(&moments)?;
        seconds.push(started.elapsed().as_secs_f64());
        check = pca.explained_variance()[0];
    }
    let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let threads = std::thread::available_parallelism()?;
    writeln!(
        std::io::stdout(),
        "n {n} d {d}: {best:.3} s (best of 3, {threads} threads), largest variance {check:.4}"
    )?;
    Ok(())
}
