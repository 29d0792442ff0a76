//! Time of SwAV's training step on random views; the peer of `benches/peers/swav_step.py`.
//!
//! Run: `cargo run --release -p featlab-pretrain --example swav_step -- [arch] [global] [local] [locals] [batch] [K] [hidden] [out]
//! [queue] [steps]`. `arch` is a transformer's or a ResNet's (`resnet18_w16_cifar`). Threads: `RAYON_NUM_THREADS`. Prints the
//! median step and images/s.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program that prints

use std::time::Instant;

use ndarray::Array3;
use pretrain::{
    BackboneConfig, ClusterOptimizerConfig, ProjectorConfig, Swav, SwavConfig, SwavLossConfig, TrainConfig,
    Views, ViewsConfig,
};
use rand::{Rng, SeedableRng};

fn main() {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| given.get(i).map_or(default, |text| text.parse().unwrap());
    let arch = given.first().map_or("vit_micro_patch8", String::as_str).to_owned();
    let (global, local, locals, batch) = (number(1, 64), number(2, 32), number(3, 4), number(4, 32));
    let (prototypes, hidden_dim, out_dim, queue, steps) =
        (number(5, 300), number(6, 512), number(7, 128), number(8, 0), number(9, 20));
    let config = SwavConfig {
        backbone: BackboneConfig { arch, drop_path: 0.0, ..BackboneConfig::default() },
        head: ProjectorConfig { hidden_dim, out_dim, prototypes },
        views: ViewsConfig { global_size: global, local_size: local, locals, ..ViewsConfig::default() },
        loss: SwavLossConfig {
            queue_length: queue,
            queue_start_epoch: 0,
            freeze_prototypes_steps: 0,
            ..SwavLossConfig::default()
        },
        optimizer: ClusterOptimizerConfig { lr: 0.01, ..ClusterOptimizerConfig::default() },
        train: TrainConfig { epochs: steps + 3, batch_size: batch, ..TrainConfig::default() },
    };
    let mut swav = Swav::new(config, batch).unwrap();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let mut view =
        |side: usize| Array3::from_shape_simple_fn((3, side, side), || rng.random_range(-2.0_f32..2.0));
    let views: Vec<Views> = (0..batch)
        .map(|_| (0..2 + locals).map(|v| view(if v < 2 { global } else { local })).collect())
        .collect();
    let mut times = Vec::new();
    for _ in 0..steps + 3 {
        let started = Instant::now();
        swav.step(&views).unwrap();
        times.push(started.elapsed().as_secs_f64());
    }
    times.drain(..3);
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!(
        "featlab, {} threads: {:.0} ms per step, {:.1} images/s",
        rayon::current_num_threads(),
        1000.0 * median,
        batch as f64 / median
    );
}
