//! How long a job takes on a cluster, simulated from what its units cost.
//!
//! ```text
//! cargo run --release -p featlab-cluster --example plan_simulation
//! ```
//!
//! The model is the engine's: an executor that is free asks for a unit within 50 ms, works on it for its mean time give or take 20 %
//! (drawn from a seed), and the driver fetches reports while executors work, as fast as its own bandwidth lets it. Stores are as fast as the
//! bandwidth of an executor lets them be. The table of ARCHITECTURE.md is what this prints.

#![allow(clippy::print_stdout)] // it is a table

/// A kind of unit and how many there are.
struct Stage {
    name: &'static str,
    units: usize,
    /// Processor time of a unit on the executor's threads, in seconds of wall time.
    seconds: f64,
    read_mb: f64,
    written_mb: f64,
    requests: f64,
    /// What the driver fetches of each.
    report_mb: f64,
}

/// What an executor moves to and from the store, and the driver from executors, in MB/s.
const BANDWIDTH: f64 = 250.0;
/// Longest that a free executor waits before it asks.
const POLL: f64 = 0.05;
/// From asking to the first unit, and from the last report to the answer.
const OVERHEAD: f64 = 0.5;

/// Numbers in `[0, 1)`, the same each time.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Wall time of a stage, and the share of it that executors were at work.
fn simulate(stage: &Stage, executors: usize) -> (f64, f64) {
    let mut draws = Draws(1);
    let mut free = vec![0.0f64; executors];
    let mut busy = 0.0;
    for _ in 0..stage.units {
        let first = (0..executors).min_by(|&a, &b| free[a].total_cmp(&free[b])).unwrap_or(0);
        let moving = (stage.read_mb + stage.written_mb) / BANDWIDTH;
        let work = stage.seconds * (0.8 + 0.4 * draws.next()) + moving;
        free[first] += POLL * draws.next() + work;
        busy += work;
    }
    let ended = free.iter().copied().fold(0.0, f64::max);
    let wall = OVERHEAD + ended.max(stage.units as f64 * stage.report_mb / BANDWIDTH);
    (wall, busy / (wall * executors as f64))
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

fn main() {
    // CocoStuff train and val, five crops, ViT-B/8 at 224 px: 248 000 rows of 784 × 768 numbers in f16, 27 a shard.
    let (rows, row_mb, dim) = (248_000.0, 784.0 * 768.0 * 2.0 / 1e6, 768.0f64);
    let labels_mb = 224.0 * 224.0 / 1e6;
    let shard_rows = 27.0f64;
    let shards = (rows / shard_rows).ceil() as usize;
    let group = 64.0 * 16.0; // 3875 blocks of 64 rows in at most 256 units: 16 blocks each
    // Seconds of two threads of the machine in BENCHMARKS.md: arguments replace them.
    let given: Vec<f64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let per_row = |at: usize, otherwise: f64| given.get(at).copied().unwrap_or(otherwise);
    let stages = [
        Stage {
            name: "extract",
            units: shards,
            seconds: per_row(0, 0.36) * shard_rows,
            read_mb: shard_rows / 5.0 * 0.16,
            written_mb: shard_rows * (row_mb + labels_mb),
            requests: shard_rows / 5.0 * 2.0 + 9.0,
            report_mb: 0.0005,
        },
        Stage {
            name: "moments",
            units: (rows / group).ceil() as usize,
            seconds: per_row(1, 0.013) * group,
            read_mb: group * row_mb,
            written_mb: 0.0,
            requests: group / 8.0 + 2.0,
            report_mb: (dim * dim / 2.0 + dim * 25.0) * 8.0 / 1e6,
        },
        Stage {
            name: "project to 90",
            units: shards,
            seconds: per_row(2, 0.016) * shard_rows,
            read_mb: shard_rows * (row_mb + labels_mb),
            written_mb: shard_rows * (row_mb * 90.0 / dim + labels_mb),
            requests: 6.0,
            report_mb: 0.0005,
        },
        Stage {
            name: "verify",
            units: shards,
            seconds: per_row(3, 0.002) * shard_rows,
            read_mb: shard_rows * (row_mb + labels_mb),
            written_mb: 0.0,
            requests: 2.0,
            report_mb: 0.001,
        },
    ];
    println!("| stage | units | one executor | 64 executors | at work | requests | read | written |");
    println!("|---|---|---|---|---|---|---|---|");
    for stage in &stages {
        let ((one, _), (many, share)) = (simulate(stage, 1), simulate(stage, 64));
        let units = stage.units as f64;
        println!(
            "| {} | {} | {} | {} | {:.0} % | {:.0} 000 | {:.0} GB | {:.0} GB |",
            stage.name,
            stage.units,
            duration(one),
            duration(many),
            100.0 * share,
            (units * stage.requests / 1e3).ceil(),
            units * stage.read_mb / 1e3,
            units * stage.written_mb / 1e3
        );
    }
}
