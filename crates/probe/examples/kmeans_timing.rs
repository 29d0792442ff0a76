//! Time of k-means on random mixtures in memory.
//!
//! `cargo run --release -p featlab-probe --example kmeans_timing -- [n] [d] [m] [iterations]`; the defaults are 200 000
//! rows of 384 features, 27 clusters and 20 iterations. The same in scikit-learn and faiss: `benches/peers/kmeans.py`,
//! with the same arguments. Prints the best of 3, seeding and the last pass included, and the mean squared distance
//! that was reached.

#![expect(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::time::Instant;

use ndarray::Array2;
use probe::{KMeansMetric, KMeansParams};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};

fn main() -> probe::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse().expect("arguments are numbers"));
    let [n, d, m, iterations] = [200_000, 384, 27, 20].map(|default| arguments.next().unwrap_or(default));
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let middles = Array2::<f32>::from_shape_simple_fn((3 * m, d), || StandardNormal.sample(&mut rng));
    let mut rows = Array2::<f32>::zeros((n, d));
    for mut row in rows.outer_iter_mut() {
        let middle = middles.row(rng.random_range(0..3 * m));
        row.zip_mut_with(&middle, |x, &middle| {
            let noise: f32 = StandardNormal.sample(&mut rng);
            *x = middle + 6.0 * noise; // so much that groups overlap, and no early end
        });
    }
    println!("n {n} d {d} m {m}, {iterations} iterations, {} threads", rayon::current_num_threads());
    for metric in [KMeansMetric::Euclidean, KMeansMetric::Cosine] {
        for (what, iterations) in [("seeding and one pass", 0), ("all", iterations)] {
            let params = KMeansParams { iterations, tolerance: 0.0, ..KMeansParams::new(m, metric) };
            let mut best = f64::INFINITY;
            let mut fitted = params.fit(rows.view())?;
            for _ in 0..3 {
                let started = Instant::now();
                fitted = params.fit(rows.view())?;
                best = best.min(started.elapsed().as_secs_f64());
            }
            println!(
                "{metric:?}, {what}: {best:.3} s, {} iterations, mean squared distance {:.4}",
                fitted.iterations, fitted.inertia
            );
        }
    }
    Ok(())
}
