//! Time of one training step of STEGO (head, correspondence loss, both probes, three Adams), and of exact neighbours, on random data in
//! memory.
//!
//! `cargo run --release -p featlab-segment --example stego_step -- [batch] [images] [rungs] [directions]`; the defaults are a batch of 16 images with
//! 28 × 28 tokens of 384 numbers, codes of 70, 27 classes, labels of 224 pixels, and neighbours among 6000 images; with `rungs` other than
//! 0 codes are trained as a ladder. The same in PyTorch: `benches/peers/stego_step.py`, which runs this program in turn.
//! Prints medians in milliseconds.

#![expect(clippy::print_stdout, reason = "a program whose output is its purpose")]

use std::borrow::Cow;
use std::time::Instant;

use ndarray::{Array2, Array3, ArrayView2, ArrayViewMut1, Axis};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use segment::stego::{FetchError, Ladder, StegoConfig, TokenSet, Trainer, nearest_neighbours};

const GRID: usize = 28;
const SIZE: usize = 224;
const DIM: usize = 384;

struct InMemory {
    tokens: Vec<Vec<f32>>,
    labels: Array3<u8>,
}

impl TokenSet for InMemory {
    fn grid(&self) -> (usize, usize) {
        (GRID, GRID)
    }

    fn embed_dim(&self) -> usize {
        DIM
    }

    fn tokens(&self, image: usize) -> Result<Cow<'_, [f32]>, FetchError> {
        Ok(Cow::Borrowed(&self.tokens[image]))
    }

    fn label(&self, image: usize) -> Option<ArrayView2<'_, u8>> {
        Some(self.labels.index_axis(Axis(0), image))
    }
}

fn main() -> segment::stego::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default| arguments.next().map_or(default, |word| word.parse().expect("a number is expected"));
    let [batch, images, rungs] = [16, 6000, 0].map(&mut number);
    let mut config = StegoConfig { batch_size: batch, ..StegoConfig::default() };
    if rungs > 0 {
        config.correspondence.ladder = Ladder::doubling(config.dim)?.rungs().to_vec();
    }
    let classes = config.n_classes;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    // Regions, as real labels have them, of which one in eight is ignored.
    let labels =
        Array3::from_shape_fn((2 * batch, SIZE, SIZE), |(b, y, x)| match (b + y / 20 * 7 + x / 30 * 3) % 8 {
            0 => 255,
            _ => ((b + y / 20 + x / 30) % classes) as u8,
        });
    let mut image = || (0..GRID * GRID * DIM).map(|_| rng.random_range(-1.0..1.0)).collect();
    let set = InMemory { tokens: (0..2 * batch).map(|_| image()).collect(), labels };
    let pairs: Vec<_> = (0..batch).map(|i| (i, batch + i)).collect();
    let mut trainer = Trainer::new(config, DIM)?;
    println!("batch {batch}, threads {}", rayon::current_num_threads());
    trainer.advance(&set, &pairs)?;
    report("step", 7, || trainer.advance(&set, &pairs).map(drop))?;

    let directions = match std::env::args().nth(4) {
        Some(file) => real(&file),
        None => drawn(images, &mut rng),
    };
    report("neighbours", 3, || nearest_neighbours(directions.view(), 30).map(drop))
}

/// Random directions, which lie near nothing.
fn drawn(images: usize, rng: &mut ChaCha8Rng) -> Array2<f32> {
    let mut directions = Array2::from_shape_simple_fn((images, DIM), || StandardNormal.sample(&mut *rng));
    directions.outer_iter_mut().for_each(|mut row: ArrayViewMut1<'_, f32>| row /= row.dot(&row).sqrt());
    directions
}

/// Directions from a file: their number and width as `u64`, then the numbers as `f32`, little-endian.
fn real(file: &str) -> Array2<f32> {
    let bytes = std::fs::read(file).expect("the file of directions can be read");
    let (head, numbers) = bytes.split_at(16);
    let side = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes")) as usize;
    let numbers = numbers.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Array2::from_shape_vec((side(0), side(8)), numbers).expect("as many numbers as it says")
}

fn report(
    what: &str,
    times: usize,
    mut f: impl FnMut() -> segment::stego::Result<()>,
) -> segment::stego::Result<()> {
    let mut all = Vec::new();
    for _ in 0..times {
        let started = Instant::now();
        f()?;
        all.push(started.elapsed().as_secs_f64() * 1e3);
    }
    all.sort_unstable_by(f64::total_cmp);
    println!("{:8.2} ms  {what}", all[all.len() / 2]);
    Ok(())
}
