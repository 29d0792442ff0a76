//! The layout: points move by stochastic gradients until near rows are near, and others not.
//!
//! An edge pulls its ends together as often as its weight says, and each time pushes the moving end off some random points;
//! both forces are gradients of the cross-entropy between the graph's weights and the [`Curve`] of the distances in the layout.
//! All points move at once: each sees the others where they were when the epoch began, and draws from a random stream of its
//! own, so that the result does not depend on the number of threads. Since a pull moves both ends of an edge, and the
//! graph is symmetric, an end feels the pulls of the edge in both directions.

use kernels::simd;
use ndarray::{Array2, ArrayView2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::curve::Curve;

/// A coordinate of a gradient is at most this large.
const CLIP: f32 = 4.0;
/// Keeps the push of two points in one place finite.
const SOFTEN: f32 = 1e-3;
/// Points of a task.
const TASK: usize = 64;

/// What the optimisation is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Optimisation {
    pub(crate) curve: Curve,
    pub(crate) epochs: usize,
    pub(crate) learning_rate: f32,
    pub(crate) repulsion: f32,
    /// Pushes per pull.
    pub(crate) negatives: usize,
    pub(crate) seed: u64,
}

/// An edge as its moving end sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pull {
    /// Whom it pulls towards, a row of the fixed points.
    pub(crate) towards: u32,
    /// Epochs between two pulls, at least 1.
    pub(crate) every: f32,
}

/// A moving point: its edges with the epochs of their next pull, and its random stream.
struct Mover {
    pulls: Vec<(Pull, f32)>,
    rng: ChaCha8Rng,
}

/// Pulls of edges with `weights`, of which the largest anywhere is `largest`; too weak ones never come.
pub(crate) fn pulls(edges: impl Iterator<Item = (usize, f32)>, largest: f32, epochs: usize) -> Vec<Pull> {
    edges
        .filter(|&(_, weight)| weight > 0.0 && weight * epochs as f32 >= largest)
        .map(|(j, weight)| Pull { towards: j as u32, every: largest / weight })
        .collect()
}

impl Optimisation {
    /// Moves all points `[n, k]` of a layout; `pulls` are those of each point.
    pub(crate) fn arrange(&self, points: &mut Array2<f32>, pulls: Vec<Vec<Pull>>) {
        let mut movers: Vec<Mover> =
            (pulls.into_iter().enumerate()).map(|(i, pulls)| self.mover(pulls, i as u64)).collect();
        let k = points.ncols();
        let mut now = std::mem::take(points).into_raw_vec_and_offset().0;
        let mut next = now.clone();
        for epoch in 0..self.epochs {
            let alpha = self.rate(epoch);
            (next.par_chunks_mut(TASK * k).zip(movers.par_chunks_mut(TASK))).enumerate().for_each(
                |(task, (next, movers))| {
                    for (i, (point, mover)) in next.chunks_exact_mut(k).zip(movers).enumerate() {
                        // Both ends of an edge move, and each edge is there from both sides: two pulls.
                        self.move_one(point, mover, &now, epoch, alpha, 2, Some(task * TASK + i));
                    }
                },
            );
            now.copy_from_slice(&next);
        }
        *points = Array2::from_shape_vec((now.len() / k.max(1), k), now).expect("as many numbers as before");
    }

    /// Moves new points `[q, k]` among fixed ones `[n, k]`. All draw the same random numbers, so that a point's place does not
    /// depend on the points beside it.
    pub(crate) fn place(&self, new: &mut Array2<f32>, pulls: Vec<Vec<Pull>>, fixed: ArrayView2<'_, f32>) {
        let k = new.ncols();
        let fixed = fixed.to_slice().expect("points in standard layout");
        let rows = new.as_slice_mut().expect("points in standard layout");
        rows.par_chunks_exact_mut(k).zip(pulls).for_each(|(point, pulls)| {
            let mut mover = self.mover(pulls, 0);
            for epoch in 0..self.epochs {
                self.move_one(point, &mut mover, fixed, epoch, self.rate(epoch), 1, None);
            }
        });
    }

    fn mover(&self, pulls: Vec<Pull>, stream: u64) -> Mover {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream);
        Mover { pulls: pulls.into_iter().map(|pull| (pull, pull.every)).collect(), rng }
    }

    /// Falls to 0 linearly.
    fn rate(&self, epoch: usize) -> f32 {
        self.learning_rate * (1.0 - epoch as f32 / self.epochs as f32)
    }

    /// One epoch of one point.
    #[expect(clippy::too_many_arguments, reason = "the innermost step, called from two loops")]
    fn move_one(
        &self,
        point: &mut [f32],
        mover: &mut Mover,
        others: &[f32],
        epoch: usize,
        alpha: f32,
        times: usize,
        own: Option<usize>,
    ) {
        let k = point.len();
        let n = others.len() / k;
        let (a, b) = (self.curve.a as f32, self.curve.b as f32);
        simd(
            #[inline(always)]
            || {
                for (pull, due) in &mut mover.pulls {
                    if *due > epoch as f32 + 1.0 {
                        continue;
                    }
                    *due += pull.every;
                    let other = &others[pull.towards as usize * k..][..k];
                    for _ in 0..times {
                        let square = squared_distance(point, other);
                        if square > 0.0 {
                            let power = square.powf(b);
                            let factor = -2.0 * a * b * (power / square) / (1.0 + a * power);
                            step(point, other, factor, alpha);
                        }
                    }
                    for _ in 0..self.negatives {
                        let random = mover.rng.random_range(0..n as u32) as usize;
                        if own == Some(random) {
                            continue;
                        }
                        let other = &others[random * k..][..k];
                        let square = squared_distance(point, other);
                        if square > 0.0 {
                            let factor =
                                2.0 * self.repulsion * b / ((SOFTEN + square) * (1.0 + a * square.powf(b)));
                            step(point, other, factor, alpha);
                        }
                    }
                }
            },
        );
    }
}

/// `‖a − b‖²`, in lanes that are added in a fixed order.
#[inline(always)]
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0_f32; LANES];
    let whole = a.len() - a.len() % LANES;
    for (a, b) in a[..whole].chunks_exact(LANES).zip(b[..whole].chunks_exact(LANES)) {
        for lane in 0..LANES {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }
    for (lane, (a, b)) in a[whole..].iter().zip(&b[whole..]).enumerate() {
        sums[lane] += (a - b) * (a - b);
    }
    sums.iter().sum()
}

/// `point += alpha · clip(factor · (point − other))`.
#[inline(always)]
fn step(point: &mut [f32], other: &[f32], factor: f32, alpha: f32) {
    for (x, &y) in point.iter_mut().zip(other) {
        *x += alpha * (factor * (*x - y)).clamp(-CLIP, CLIP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    fn optimisation(epochs: usize) -> Optimisation {
        let curve = Curve::fit(1.0, 0.1).unwrap();
        Optimisation { curve, epochs, learning_rate: 1.0, repulsion: 1.0, negatives: 0, seed: 0 }
    }

    #[test]
    fn an_edge_pulls_its_ends_together() {
        let mut points = array![[0.0_f32, 0.0], [3.0, 4.0]];
        let pull = |towards| vec![Pull { towards, every: 1.0 }];
        optimisation(200).arrange(&mut points, vec![pull(1), pull(0)]);
        let distance = (&points.row(0) - &points.row(1)).mapv(|x| x * x).sum().sqrt();
        assert!(distance < 0.5, "{distance}");
    }

    #[test]
    fn without_edges_nothing_moves() {
        let mut points = array![[0.0_f32, 0.0], [3.0, 4.0]];
        let before = points.clone();
        Optimisation { negatives: 5, ..optimisation(10) }.arrange(&mut points, vec![vec![], vec![]]);
        assert_eq!(points, before);
    }

    #[test]
    fn weak_edges_pull_less_often_and_the_weakest_never() {
        let edges = [(0, 1.0_f32), (1, 0.25), (2, 0.001)];
        let found = pulls(edges.into_iter(), 1.0, 100);
        assert_eq!(found.iter().map(|p| (p.towards, p.every)).collect::<Vec<_>>(), [(0, 1.0), (1, 4.0)]);
    }

    #[test]
    fn lanes_sum_all_coordinates() {
        for k in [1, 7, 8, 9, 30] {
            let (a, b): (Vec<f32>, Vec<f32>) = ((0..k).map(|i| i as f32).collect(), vec![1.0; k]);
            let want: f32 = a.iter().map(|a| (a - 1.0) * (a - 1.0)).sum();
            assert_eq!(squared_distance(&a, &b), want);
        }
    }
}
