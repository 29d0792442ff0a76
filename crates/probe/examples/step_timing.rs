//! Time of one training step of each probe, on random data in memory.
//!
//! `cargo run --release -p featlab-probe --example step_timing -- [batch] [grid] [size] [classes] [dim]`; the defaults
//! are a batch of 16 images of 224 pixels with 28 × 28 tokens, 11 classes and 384 dimensions. The same step in PyTorch:
//! `benches/peers/probe_step.py`, with the same arguments. Prints the median of 30 steps in milliseconds.

#![expect(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::time::Instant;

use ndarray::{Array, Array1, Array3};
use probe::{Adam, ClusterProbe, LinearProbe, masked_cross_entropy_upsampled};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

fn main() -> probe::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse().expect("arguments are numbers"));
    let [batch, grid, size, classes, dim] =
        [16, 28, 224, 11, 384].map(|default| arguments.next().unwrap_or(default));
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut uniform = || rng.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0;
    let tokens = Array3::from_shape_simple_fn((batch, grid * grid, dim), &mut uniform);
    let logits = Array3::from_shape_simple_fn((batch, grid * grid, classes), || 3.0 * uniform());
    let weight = Array::from_shape_simple_fn((classes, dim), || 0.05 * uniform());
    // Regions, as real labels have them, of which one in eight is ignored.
    let labels =
        Array3::from_shape_fn((batch, size, size), |(b, y, x)| match (b + y / 20 * 7 + x / 30 * 3) % 8 {
            0 => 255,
            _ => ((b + y / 20 + x / 30) % classes) as u8,
        });
    let mut linear = LinearProbe { weight: weight.clone(), bias: Array1::zeros(classes) };
    let mut cluster = ClusterProbe { centres: weight };
    let mut adam = [Adam::new(5e-3, classes * dim), Adam::new(5e-3, classes), Adam::new(5e-3, classes * dim)];
    let threads = rayon::current_num_threads();
    println!("batch {batch}, grid {grid}, size {size}, classes {classes}, dim {dim}, threads {threads}");
    report("cross-entropy and its gradient in the logits", || {
        masked_cross_entropy_upsampled(logits.view(), (grid, grid), labels.view()).map(drop)
    })?;
    report("linear probe", || {
        let gradient = linear.gradient(tokens.view(), (grid, grid), labels.view())?;
        adam[0].step(
            linear.weight.as_slice_mut().expect("made here"),
            gradient.weight.as_slice().expect("made here"),
        );
        adam[1].step(
            linear.bias.as_slice_mut().expect("made here"),
            gradient.bias.as_slice().expect("made here"),
        );
        Ok(())
    })?;
    report("cluster probe", || {
        let gradient = cluster.gradient(tokens.view(), None)?;
        let centres = cluster.centres.as_slice_mut().expect("made here");
        adam[2].step(centres, gradient.centres.as_slice().expect("made here"));
        Ok(())
    })
}

fn report(what: &str, mut step: impl FnMut() -> probe::Result<()>) -> probe::Result<()> {
    let mut times = Vec::new();
    for _ in 0..33 {
        let started = Instant::now();
        step()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let measured = &mut times[3..]; // the first ones warm up
    measured.sort_unstable_by(f64::total_cmp);
    println!("{:8.2} ms  {what}", measured[measured.len() / 2]);
    Ok(())
}
