//! Time and memory of DINO's training step on random views; the peer of `benches/peers/dino_step.py`.
//!
//! Run: `cargo run --release -p featlab-pretrain --example dino_step -- [arch] [global] [local] [locals] [batch] [K] [hidden]
//! [bottleneck] [steps]`. Threads: `RAYON_NUM_THREADS`. Prints the median step, images/s, and resident memory after 5 steps
//! and at the end.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program that prints

use std::time::Instant;

use ndarray::Array3;
use pretrain::{
    BackboneConfig, Dino, DinoConfig, HeadConfig, OptimizerConfig, TrainConfig, Views, ViewsConfig,
};
use rand::{Rng, SeedableRng};

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| given.get(i).map_or(default, |text| text.parse().unwrap());
    let arch = given.first().map_or("vit_micro_patch8", String::as_str).to_owned();
    let (global, local, locals, batch) = (number(1, 64), number(2, 32), number(3, 4), number(4, 32));
    let (out_dim, hidden_dim, bottleneck_dim, steps) =
        (number(5, 1024), number(6, 512), number(7, 128), number(8, 20));
    let config = DinoConfig {
        backbone: BackboneConfig { arch, drop_path: 0.0, ..BackboneConfig::default() },
        head: HeadConfig { out_dim, hidden_dim, bottleneck_dim, ..HeadConfig::default() },
        views: ViewsConfig { global_size: global, local_size: local, locals, ..ViewsConfig::default() },
        optimizer: OptimizerConfig { warmup_epochs: 0, freeze_last_layer: 0, ..OptimizerConfig::default() },
        train: TrainConfig { epochs: steps + 3, batch_size: batch, ..TrainConfig::default() },
        ..DinoConfig::default()
    };
    let mut dino = Dino::new(config, batch).unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let mut view =
        |side: usize| Array3::from_shape_simple_fn((3, side, side), || rng.random_range(-2.0_f32..2.0));
    let views: Vec<Views> = (0..batch)
        .map(|_| (0..2 + locals).map(|v| view(if v < 2 { global } else { local })).collect())
        .collect();
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for step in 0..steps + 3 {
        let started = Instant::now();
        dino.step(&views).unwrap();
        times.push(started.elapsed().as_secs_f64());
        if step == 4 || step == steps + 2 {
            memory.push(resident_mib());
        }
    }
    times.drain(..3);
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!(
        "featlab, {} threads: {:.0} ms per step, {:.1} images/s; resident MiB after 5 and {} steps: {memory:.1?}",
        rayon::current_num_threads(),
        1000.0 * median,
        batch as f64 / median,
        steps + 3
    );
}

/// Resident memory of this process, MiB; 0 where `/proc` does not tell.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
