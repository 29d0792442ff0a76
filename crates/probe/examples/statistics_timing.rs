//! Time of what is done once per study: intervals over images, and ridge probes of all dimensions and penalties.
//!
//! `cargo run --release -p featlab-probe --example statistics_timing -- [images] [classes] [rows] [dim]`; the defaults
//! are 2000 images of 27 classes, 1000 resamples, and 200 000 rows of 384 features. Prints the best of 5 in
//! milliseconds.

#![expect(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::time::Instant;

use ndarray::{Array1, Array2};
use probe::{ConfusionMatrix, Gram, Method, Resampling, RidgeParams, Selection};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

fn main() -> probe::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse().expect("arguments are numbers"));
    let [images, classes, rows, dim] =
        [2000, 27, 200_000, 384].map(|default| arguments.next().unwrap_or(default));
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut uniform = || rng.next_u32() as f32 / u32::MAX as f32;
    let mut method = || -> Vec<ConfusionMatrix> {
        let image = |_| {
            let counts = Array2::from_shape_fn((classes, classes), |(i, j)| {
                let pixels = 400.0 * uniform() * if i == j { 5.0 } else { 1.0 };
                if uniform() < 0.3 { pixels as u64 } else { 0 }
            });
            ConfusionMatrix::from_counts(counts)
        };
        (0..images).map(image).collect()
    };
    let (a, b) = (method(), method());
    println!("{images} images, {classes} classes, 1000 resamples, {} threads", rayon::current_num_threads());
    let mean_iou = |counts: &ConfusionMatrix| counts.scores().mean_iou;
    for method in [Method::Percentile, Method::Bca, Method::Jackknife] {
        let resampling = Resampling { method, ..Resampling::default() };
        report(&format!("interval, {method:?}"), || {
            resampling.interval(&a, mean_iou);
            Ok(())
        })?;
    }
    report("comparison of two methods", || Resampling::default().compare(&a, &b, mean_iou).map(drop))?;

    let x = Array2::from_shape_simple_fn((rows, dim), &mut uniform);
    let masses = Array2::from_shape_fn((rows, classes), |(i, j)| f32::from(u8::from(i % classes == j)));
    let matrix = Array2::from_shape_simple_fn((dim, dim), &mut uniform);
    println!("{rows} rows, {dim} features, {classes} classes");
    let mut gram = Gram::new(dim, classes);
    report("sums of all rows", || {
        gram = Gram::new(dim, classes);
        gram.add(x.view(), masses.view())
    })?;
    report("sums of a projection to as many", || {
        gram.project(Array1::zeros(dim).view(), matrix.view()).map(drop)
    })?;
    let dims = [3, 6, 12, 24, 48, 96, 192, 384].into_iter().filter(|&k| k <= dim).collect();
    let params = RidgeParams { dims, ..RidgeParams::default() };
    report("probes of 8 dimensions, the best of 11 penalties each", || {
        params.fit(&gram, Selection::Gcv).map(drop)
    })
}

fn report(what: &str, mut work: impl FnMut() -> probe::Result<()>) -> probe::Result<()> {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let started = Instant::now();
        work()?;
        best = best.min(started.elapsed().as_secs_f64() * 1e3);
    }
    println!("{best:8.1} ms  {what}");
    Ok(())
}
