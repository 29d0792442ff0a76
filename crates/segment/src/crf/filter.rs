//! A Gaussian sum over all pixels for every class: shared out to the vertices of a lattice, blurred there, and read back.
//!
//! Classes go in blocks of a cache line, so that a block of all vertices stays near. Vertices collect from pixels
//! and pixels from vertices, each sum in one place and one order: the same bits for any number of threads.

use rayon::prelude::*;

use super::lattice::Lattice;
use super::{BLOCK, Field, PIXELS};

/// Numbers of a block of classes for every vertex, and a last row of zeros for vertices that do not exist.
type Rows = Vec<[f32; BLOCK]>;

/// Keeps a sum that is divided by from zero.
const TINY: f32 = 1e-20;

/// A kernel `w k̃` on the pixels of a picture.
pub(super) struct Filter {
    corners: usize,
    vertices: usize,
    /// Per vertex, where its pixels begin in `collected`: `[vertices + 1]`.
    starts: Vec<u32>,
    /// Pixels of every vertex and what it takes of them.
    collected: Vec<(u32, f32)>,
    /// Vertices of every pixel and what it takes of them: `[n, corners]`.
    read: Vec<(u32, f32)>,
    neighbours: Vec<Vec<[u32; 2]>>,
    /// Two blocks of classes that blurring goes to and fro between.
    rows: [Rows; 2],
}

impl Filter {
    pub(super) fn new(lattice: Lattice, weight: f32) -> Self {
        let Lattice { corners, vertices, shares, neighbours } = lattice;
        let mut starts = vec![0_u32; vertices + 1];
        for &(vertex, _) in &shares {
            starts[vertex as usize + 1] += 1;
        }
        for i in 0..vertices {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut collected = vec![(0, 0.0); shares.len()];
        for (i, &(vertex, share)) in shares.iter().enumerate() {
            let slot = &mut next[vertex as usize];
            collected[*slot as usize] = ((i / corners) as u32, share);
            *slot += 1;
        }
        // What blurring adds to a lone vertex in every direction is taken off again.
        let scale = 1.0 / (1.0 + 0.5_f32.powi(corners as i32 - 1));
        let read = shares.iter().map(|&(vertex, share)| (vertex, share * scale)).collect();
        let rows = [(); 2].map(|()| vec![[0.0; BLOCK]; vertices + 1]);
        let mut filter = Self { corners, vertices, starts, collected, read, neighbours, rows };
        filter.normalise(weight);
        filter
    }

    /// Puts the symmetric normalisation and the weight into what vertices and pixels take.
    fn normalise(&mut self, weight: f32) {
        let pixels = self.read.len() / self.corners;
        let ones = Field { classes: 1, width: BLOCK, values: vec![1.0; pixels * BLOCK] };
        let mut sums = Field { classes: 1, width: BLOCK, values: vec![0.0; pixels * BLOCK] };
        self.add(&ones, &mut sums);
        let scale: Vec<f32> =
            sums.values.iter().step_by(BLOCK).map(|sum| 1.0 / (sum + TINY).sqrt()).collect();
        for (pixel, share) in &mut self.collected {
            *share *= scale[*pixel as usize];
        }
        for (i, (_, share)) in self.read.iter_mut().enumerate() {
            *share *= scale[i / self.corners] * weight;
        }
    }

    /// Adds `w k̃(q)` to `next`.
    pub(super) fn add(&mut self, q: &Field, next: &mut Field) {
        let [mut rows, mut spare] = std::mem::take(&mut self.rows);
        for block in 0..q.width / BLOCK {
            self.collect(q, block, &mut rows);
            for neighbours in &self.neighbours {
                blur(&rows, neighbours, &mut spare);
                std::mem::swap(&mut rows, &mut spare);
            }
            self.read_back(&rows, block, next);
        }
        self.rows = [rows, spare];
    }

    fn collect(&self, q: &Field, block: usize, rows: &mut Rows) {
        rows[..self.vertices].par_chunks_mut(PIXELS).enumerate().for_each(|(part, rows)| {
            kernels::simd(
                #[inline(always)]
                || {
                    let starts = &self.starts[part * PIXELS..];
                    for (row, bounds) in rows.iter_mut().zip(starts.windows(2)) {
                        let mut sum = [0.0; BLOCK];
                        for &(pixel, share) in &self.collected[bounds[0] as usize..bounds[1] as usize] {
                            let from = q.block(pixel as usize, block);
                            for lane in 0..BLOCK {
                                sum[lane] += share * from[lane];
                            }
                        }
                        *row = sum;
                    }
                },
            );
        });
    }

    fn read_back(&self, rows: &Rows, block: usize, next: &mut Field) {
        let width = next.width;
        let read = self.read.par_chunks(PIXELS * self.corners);
        next.values.par_chunks_mut(PIXELS * width).zip(read).for_each(|(next, read)| {
            kernels::simd(
                #[inline(always)]
                || {
                    for (to, read) in next.chunks_exact_mut(width).zip(read.chunks_exact(self.corners)) {
                        let mut sum = [0.0; BLOCK];
                        for &(vertex, share) in read {
                            let row = &rows[vertex as usize];
                            for lane in 0..BLOCK {
                                sum[lane] += share * row[lane];
                            }
                        }
                        let to: &mut [f32; BLOCK] =
                            to[block * BLOCK..].first_chunk_mut().expect("a whole block");
                        for lane in 0..BLOCK {
                            to[lane] += sum[lane];
                        }
                    }
                },
            );
        });
    }
}

/// Half of either neighbour is added to every vertex.
fn blur(rows: &Rows, neighbours: &[[u32; 2]], to: &mut Rows) {
    to[..neighbours.len()].par_chunks_mut(PIXELS).enumerate().for_each(|(part, to)| {
        kernels::simd(
            #[inline(always)]
            || {
                let own = &rows[part * PIXELS..];
                for ((to, own), &[before, after]) in to.iter_mut().zip(own).zip(&neighbours[part * PIXELS..])
                {
                    let (before, after) = (&rows[before as usize], &rows[after as usize]);
                    for lane in 0..BLOCK {
                        to[lane] = own[lane] + 0.5 * (before[lane] + after[lane]);
                    }
                }
            },
        );
    });
}
