//! The order of a shuffled stream: a permutation of all rows that reads like a scan.
//!
//! Rows are cut into blocks of about 8 MiB, the blocks are permuted, and the rows of every window of blocks (128 MiB) are permuted
//! among each other. Every row comes exactly once. The order depends on seed, epoch, the number of rows and their width in the layout;
//! not on shards, files, threads or where the cache lies. Two rows of one block stay within one window.

use std::ops::Range;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BLOCK_BYTES: usize = 8 << 20;
const WINDOW_BYTES: usize = 128 << 20;

/// A permutation of the rows `0 .. rows`.
pub(crate) struct Permutation {
    rows: usize,
    block_rows: usize,
    window_blocks: usize,
    /// Permuted.
    blocks: Vec<usize>,
    rng: ChaCha8Rng,
}

impl Permutation {
    pub(crate) fn new(rows: usize, row_bytes: usize, seed: u64, epoch: u64) -> Self {
        let block_rows = (BLOCK_BYTES / row_bytes.max(1)).max(1);
        let window_blocks = (WINDOW_BYTES / (block_rows * row_bytes.max(1))).max(1);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(epoch);
        let mut blocks: Vec<usize> = (0..rows.div_ceil(block_rows)).collect();
        shuffle(&mut blocks, &mut rng);
        Self { rows, block_rows, window_blocks, blocks, rng }
    }

    /// The blocks in the order in which they are read, as ranges of rows.
    pub(crate) fn blocks(&self) -> Vec<Range<usize>> {
        let range = |block: &usize| block * self.block_rows..self.rows.min((block + 1) * self.block_rows);
        self.blocks.iter().map(range).collect()
    }

    /// Blocks in a window.
    pub(crate) fn window_blocks(&self) -> usize {
        self.window_blocks
    }

    /// Permutes the rows of the next window.
    pub(crate) fn shuffle_window<T>(&mut self, rows: &mut [T]) {
        shuffle(rows, &mut self.rng);
    }
}

/// The order in which a stream that is shuffled with this seed visits the rows: for who wants to know before reading.
///
/// `row_bytes` is [`Layout::row_bytes`](crate::Layout::row_bytes).
#[must_use]
pub fn shuffled(rows: usize, row_bytes: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut permutation = Permutation::new(rows, row_bytes, seed, epoch);
    let blocks = permutation.blocks();
    let mut order = Vec::with_capacity(rows);
    for window in blocks.chunks(permutation.window_blocks()) {
        let start = order.len();
        order.extend(window.iter().cloned().flatten());
        permutation.shuffle_window(&mut order[start..]);
    }
    order
}

/// Fisher and Yates. Written out, so that the order is this crate's promise and not a library's.
fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        let j = (u128::from(rng.next_u64()) * (i as u128 + 1)) >> 64; // in 0..=i
        items.swap(i, j as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_once_whatever_the_sizes() {
        for (rows, row_bytes) in [(0, 1), (1, 1), (7, 5 << 20), (1000, 100_000), (100_000, 1000)] {
            let mut order = shuffled(rows, row_bytes, 3, 0);
            assert_eq!(order.len(), rows);
            order.sort_unstable();
            assert!(order.into_iter().eq(0..rows));
        }
    }

    #[test]
    fn seeds_and_epochs_give_other_orders_and_the_same_one_the_same() {
        let order = |seed, epoch| shuffled(500, 600_000, seed, epoch);
        assert_eq!(order(1, 2), order(1, 2));
        assert_ne!(order(1, 2), order(1, 3));
        assert_ne!(order(1, 2), order(2, 2));
        assert_eq!(shuffled(8, 8 << 20, 0, 0), [1, 3, 2, 6, 0, 7, 4, 5], "the order is part of the format");
    }

    /// Neighbours in the cache end up far apart: the mean distance of a uniform permutation is a third of the rows.
    #[test]
    fn neighbours_are_parted() {
        let rows = 4000;
        let order = shuffled(rows, 600_000, 0, 0);
        let mut place = vec![0usize; rows];
        order.iter().enumerate().for_each(|(at, &row)| place[row] = at);
        let apart: usize = place.windows(2).map(|pair| pair[0].abs_diff(pair[1])).sum();
        let moved: usize = place.iter().enumerate().map(|(row, &at)| row.abs_diff(at)).sum();
        assert!(apart / rows > 150, "mean distance of neighbours: {}", apart / rows);
        assert!((1100..1600).contains(&(moved / rows)), "mean distance from home: {}", moved / rows);
    }
}
