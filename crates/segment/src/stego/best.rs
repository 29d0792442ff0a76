//! The nearest images so far of every image of a block.
//!
//! What is better is a question of similarity and, among equals, of the lower index, so that the result does not depend on the order in which
//! candidates come.

use kernels::{LANES, simd};

/// One image as another one sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) similarity: f32,
    pub(super) index: u32,
}

impl Candidate {
    fn is_before(self, other: Self) -> bool {
        self.similarity > other.similarity
            || (self.similarity == other.similarity && self.index < other.index)
    }
}

/// The best candidates so far of the images of a block.
pub(super) struct Best {
    k: usize,
    /// Of every image, the nearest first.
    pub(super) rows: Vec<Vec<Candidate>>,
    /// Of every image, what a candidate must reach.
    pub(super) least: Vec<f32>,
}

impl Best {
    pub(super) fn new(images: usize, k: usize) -> Self {
        Self { k, rows: vec![Vec::with_capacity(k + 1); images], least: vec![f32::NEG_INFINITY; images] }
    }

    /// Candidates of image `i` are row `i` of a tile; the first of them is image `first`.
    pub(super) fn see_rows(&mut self, tile: &[f32], width: usize, first: usize) {
        simd(
            #[inline(always)]
            || {
                for (i, row) in tile.chunks_exact(width).enumerate() {
                    for (c, chunk) in row.chunks(LANES).enumerate() {
                        if any_reaches(chunk, &[self.least[i]; LANES]) {
                            for (lane, &similarity) in chunk.iter().enumerate() {
                                if similarity >= self.least[i] {
                                    self.see(i, similarity, first + c * LANES + lane);
                                }
                            }
                        }
                    }
                }
            },
        );
    }

    /// Candidates of image `j` are column `j` of a tile.
    pub(super) fn see_columns(&mut self, tile: &[f32], width: usize, first: usize) {
        simd(
            #[inline(always)]
            || {
                for (i, row) in tile.chunks_exact(width).enumerate() {
                    for (c, chunk) in row.chunks(LANES).enumerate() {
                        if any_reaches(chunk, &self.least[c * LANES..]) {
                            for (lane, &similarity) in chunk.iter().enumerate() {
                                if similarity >= self.least[c * LANES + lane] {
                                    self.see(c * LANES + lane, similarity, first + i);
                                }
                            }
                        }
                    }
                }
            },
        );
    }

    /// A candidate that reaches the least.
    #[inline(never)]
    pub(super) fn see(&mut self, image: usize, similarity: f32, index: usize) {
        if similarity < self.least[image] {
            return;
        }
        let candidate = Candidate { similarity, index: index as u32 };
        let row = &mut self.rows[image];
        if row.len() == self.k {
            if !candidate.is_before(row[self.k - 1]) {
                return;
            }
            row.pop();
        }
        let at = row.partition_point(|other| other.is_before(candidate));
        row.insert(at, candidate);
        if row.len() == self.k {
            self.least[image] = row[self.k - 1].similarity;
        }
    }
}

/// Whether a number reaches its limit.
#[inline(always)]
pub(super) fn any_reaches(chunk: &[f32], least: &[f32]) -> bool {
    let mut found = false;
    for (x, least) in chunk.iter().zip(least) {
        found |= x >= least;
    }
    found
}
