//! Time of one training step of each probe, and of a bank of them, on random data in memory.
//!
//! `cargo run --release -p featlab-probe --example step_timing -- [batch] [grid] [size] [classes] [dim]`; the defaults
//! are a batch of 16 images of 224 pixels with 28 × 28 tokens, 11 classes and 384 dimensions. The bank is a study of 8 dimensions,
//! two projections (each of which is 3 for 3 seeds), both probes and 3 seeds. The same steps in PyTorch:
//! `benches/peers/probe_step.py`, with the same arguments. Prints the median of 30 steps in milliseconds.

#![expect(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::borrow::Cow;
use std::time::Instant;

use ndarray::{Array3, ArrayView2, Axis};
use probe::{Bank, BankBatch, BankCell, BankParams, BankSet, CellKind, FetchError, Schedule};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Images whose projections are in memory, as those of a sweep are after its first epoch.
struct Projected {
    grid: usize,
    dim: usize,
    panels: Vec<Vec<Vec<f32>>>, // of every source, of every image
    labels: Array3<u8>,
}

impl BankSet for Projected {
    fn len(&self) -> usize {
        self.labels.dim().0
    }

    fn grid(&self) -> (usize, usize) {
        (self.grid, self.grid)
    }

    fn label_size(&self) -> (usize, usize) {
        (self.labels.dim().1, self.labels.dim().2)
    }

    fn dims(&self) -> Vec<usize> {
        vec![self.dim; self.panels.len()]
    }

    fn batch<'a>(&'a self, indices: &'a [usize]) -> Result<Box<dyn BankBatch + 'a>, FetchError> {
        Ok(Box::new(Batch { set: self, indices }))
    }

    fn label(&self, i: usize) -> ArrayView2<'_, u8> {
        self.labels.index_axis(Axis(0), i)
    }
}

struct Batch<'a> {
    set: &'a Projected,
    indices: &'a [usize],
}

impl BankBatch for Batch<'_> {
    fn tokens(&self, source: usize, place: usize) -> Result<Cow<'_, [f32]>, FetchError> {
        Ok(Cow::Borrowed(&self.set.panels[source][self.indices[place]]))
    }
}

fn main() -> probe::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse().expect("arguments are numbers"));
    let [batch, grid, size, classes, dim] =
        [16, 28, 224, 11, 384].map(|default| arguments.next().unwrap_or(default));
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut uniform = || rng.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0;
    // Regions, as real labels have them, of which one in eight is ignored.
    let labels =
        Array3::from_shape_fn((batch, size, size), |(b, y, x)| match (b + y / 20 * 7 + x / 30 * 3) % 8 {
            0 => 255,
            _ => ((b + y / 20 + x / 30) % classes) as u8,
        });
    let mut set = Projected { grid, dim, panels: Vec::new(), labels };
    let len = set.shape(dim).len();
    set.panels =
        (0..4).map(|_| (0..batch).map(|_| (0..len).map(|_| uniform()).collect()).collect()).collect();
    let threads = rayon::current_num_threads();
    println!("batch {batch}, grid {grid}, size {size}, classes {classes}, dim {dim}, threads {threads}");
    let cell = |kind| BankCell { source: 0, dim, scale: 1.0, kind, seed: 0 };
    let (linear, cluster) = (CellKind::Linear, CellKind::Cluster(classes));
    report("linear probe", &set, &[cell(linear)], (batch, classes))?;
    report("cluster probe", &set, &[cell(cluster)], (batch, classes))?;
    report("both", &set, &[cell(linear), cell(cluster)], (batch, classes))?;
    let mut bank = Vec::new();
    for dim in [3, 6, 12, 24, 48, 96, 192, 384].map(|k| k.min(dim)) {
        for seed in 0..3 {
            for kind in [linear, cluster] {
                bank.push(BankCell { source: 0, dim, scale: 1.0, kind, seed });
                bank.push(BankCell { source: 1 + seed as usize, dim, scale: 1.0, kind, seed });
            }
        }
    }
    let one_seed: Vec<_> = bank.iter().copied().filter(|cell| cell.seed == 0).collect();
    report(&format!("bank of {}", one_seed.len()), &set, &one_seed, (batch, classes))?;
    report(&format!("bank of {}", bank.len()), &set, &bank, (batch, classes))
}

fn report(
    what: &str,
    set: &Projected,
    cells: &[BankCell],
    (batch_size, classes): (usize, usize),
) -> probe::Result<()> {
    let schedule = Schedule { batch_size, ..Schedule::default() };
    let mut bank = Bank::new(BankParams { schedule, class_weights: vec![1.0; classes] }, set, cells)?;
    let mut times = Vec::new();
    for _ in 0..33 {
        let started = Instant::now();
        bank.advance()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    let measured = &mut times[3..]; // the first ones warm up, and prepare the labels
    measured.sort_unstable_by(f64::total_cmp);
    println!("{:8.2} ms  {what}", measured[measured.len() / 2]);
    Ok(())
}
