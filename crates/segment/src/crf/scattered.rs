//! A Gaussian sum over pixels that lie anywhere: shared out to the vertices of a lattice, blurred there, and read back.
//!
//! One plane of classes at a time, by one thread, so that pixels can simply be added to their vertices and chains be
//! blurred in place.

use super::lattice::{END, Lattice};
use super::row::{Quarter, Row};

/// Keeps a sum that is divided by from zero.
pub(super) const TINY: f32 = 1e-20;

/// A kernel `w k̃` on the pixels of a picture.
pub(super) struct Scattered {
    corners: usize,
    vertices: usize,
    /// Vertices of every pixel and its share in them, normalised: `[n, corners]`.
    shares: Vec<(u32, f32)>,
    chains: Vec<Vec<u32>>,
    /// What is read back is multiplied by this.
    scale: f32,
}

impl Scattered {
    pub(super) fn new(lattice: Lattice, weight: f32) -> Self {
        let Lattice { corners, vertices, shares, chains } = lattice;
        // What blurring adds to a lone vertex in every direction is taken off again.
        let scale = 1.0 / (1.0 + 0.5_f32.powi(corners as i32 - 1));
        let mut this = Self { corners, vertices, shares, chains, scale };
        this.normalise();
        this.scale *= weight;
        this
    }

    /// Puts the symmetric normalisation into the shares.
    fn normalise(&mut self) {
        let pixels = self.shares.len() / self.corners;
        let mut rows = Vec::new();
        self.collect(&vec![Quarter::all(1.0); pixels], &mut rows);
        for pixel in 0..pixels {
            let mut sum = Quarter::all(0.0);
            self.read(pixel, &rows, &mut sum);
            let scale = 1.0 / (sum.lanes()[0] + TINY).sqrt();
            self.shares[pixel * self.corners..][..self.corners].iter_mut().for_each(|(_, s)| *s *= scale);
        }
    }

    /// Blurred sums at the vertices of what pixels have.
    ///
    /// * `q`: a row per pixel.
    /// * `rows`: becomes a row per vertex, whatever it was.
    pub(super) fn collect<R: Row>(&self, q: &[R], rows: &mut Vec<R>) {
        rows.clear();
        rows.resize(self.vertices, R::all(0.0));
        kernels::simd(
            #[inline(always)]
            || {
                for (q, shares) in q.iter().zip(self.shares.chunks_exact(self.corners)) {
                    for &(vertex, share) in shares {
                        rows[vertex as usize].add(share, q);
                    }
                }
                for chains in &self.chains {
                    blur(rows, chains);
                }
            },
        );
    }

    /// Adds `w k̃` at a pixel.
    #[inline(always)]
    pub(super) fn read<R: Row>(&self, pixel: usize, rows: &[R], to: &mut R) {
        let mut sum = R::all(0.0);
        for &(vertex, share) in &self.shares[pixel * self.corners..][..self.corners] {
            sum.add(share, &rows[vertex as usize]);
        }
        to.add(self.scale, &sum);
    }
}

/// Half of either neighbour is added to every vertex of a chain.
#[inline(always)]
fn blur<R: Row>(rows: &mut [R], chains: &[u32]) {
    /// Links that a row is asked for before its turn.
    const AHEAD: usize = 12;
    let Some(&first) = chains.first() else { return };
    let (mut before, mut own) = (R::all(0.0), rows[(first & !END) as usize]);
    for (i, &link) in chains.iter().enumerate() {
        // Without branches: how long a chain is cannot be foreseen.
        if let Some(ahead) = chains.get(i + AHEAD) {
            kernels::prefetch_read(&rows[(ahead & !END) as usize..][..1]);
        }
        let goes_on = (link >> 31).wrapping_sub(1);
        let next = rows[(chains.get(i + 1).unwrap_or(&link) & !END) as usize];
        rows[(link & !END) as usize] = own.blurred(&before, &next.and(goes_on));
        before = own.and(goes_on);
        own = next;
    }
}
