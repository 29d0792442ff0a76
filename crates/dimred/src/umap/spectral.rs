//! The spectral embedding of a graph: eigenvectors of `D^(−1/2) W D^(−1/2)` with the largest eigenvalues but the first.
//!
//! A block of random vectors is filtered by a Chebyshev polynomial of the matrix, which lets what is wanted grow and keeps the
//! rest down, and then turned into approximate eigenvectors within the space it spans; a few rounds of this. It is where
//! a layout begins, so a few digits are enough. Everything runs in one order, whatever the number of threads.

use ndarray::{Array1, Array2, Axis, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use super::graph::Graph;
use crate::Result;
use crate::eigen::{eigen, fix_signs};

/// Vectors beyond those asked for, which make the wanted ones converge faster.
const MORE: usize = 10;
/// Rounds of filtering.
const ROUNDS: usize = 8;
/// Degree of the polynomial.
const DEGREE: usize = 12;
/// Eigenvalues of the matrix within the block that are this much smaller than the largest are directions that it does not have.
const NEGLIGIBLE: f64 = 1e-12;

/// Coordinates `[n, k]` of the rows of a connected graph, columns of length 1; `None` if the graph has too few rows.
///
/// # Errors
/// If a decomposition fails.
pub(crate) fn embed(graph: &Graph, k: usize, seed: u64) -> Result<Option<Array2<f64>>> {
    let n = graph.len();
    if n < 2 * (k + 1 + MORE) {
        return Ok(None);
    }
    let matrix = Normalised::new(graph);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut block = Array2::from_shape_fn((n, k + 1 + MORE), |_| rng.sample::<f64, _>(StandardNormal));
    let mut cut = 0.0;
    for _ in 0..ROUNDS {
        block = matrix.filter(&block, cut);
        let (values, vectors) = ritz(&matrix, &block)?;
        if vectors.ncols() < k + 1 {
            return Ok(None);
        }
        // The smallest eigenvalue found is where the unwanted ones begin.
        cut = values[values.len() - 1].clamp(-0.9, 0.999);
        block = vectors;
    }
    let mut rows = block.slice(s![.., 1..=k]).t().as_standard_layout().into_owned(); // [k, n]
    fix_signs(&mut rows);
    Ok(Some(rows.reversed_axes().as_standard_layout().into_owned()))
}

/// `D^(−1/2) W D^(−1/2)`, eigenvalues in `[−1, 1]`.
struct Normalised<'a> {
    graph: &'a Graph,
    /// `D^(−1/2)`, `[n]`.
    scale: Vec<f64>,
}

impl<'a> Normalised<'a> {
    fn new(graph: &'a Graph) -> Self {
        let degree = |i| graph.row(i).map(|(_, w)| f64::from(w)).sum::<f64>();
        let scale = (0..graph.len()).map(|i| degree(i).max(f64::MIN_POSITIVE).sqrt().recip()).collect();
        Self { graph, scale }
    }

    /// The product with `x`, `[n, m]`.
    fn times(&self, x: &Array2<f64>) -> Array2<f64> {
        let mut out = Array2::zeros(x.dim());
        out.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(i, mut out)| {
            for (j, weight) in self.graph.row(i) {
                out.scaled_add(f64::from(weight) * self.scale[i] * self.scale[j], &x.row(j));
            }
        });
        out
    }

    /// A Chebyshev polynomial that is at most 1 on `[−1, cut]` and grows beyond.
    fn filter(&self, x: &Array2<f64>, cut: f64) -> Array2<f64> {
        let (centre, half) = ((cut - 1.0) / 2.0, (cut + 1.0) / 2.0);
        let shifted = |x: &Array2<f64>, factor: f64| (self.times(x) - x * centre) * (factor / half);
        let (mut before, mut now) = (x.clone(), shifted(x, 1.0));
        for _ in 1..DEGREE {
            let next = shifted(&now, 2.0) - &before;
            (before, now) = (now, next);
        }
        now
    }
}

/// Approximate eigenvalues, largest first, and orthonormal eigenvectors `[n, ≤ m]` within the space of a block `[n, m]`.
fn ritz(matrix: &Normalised<'_>, block: &Array2<f64>) -> Result<(Array1<f64>, Array2<f64>)> {
    // Columns of one length first, so that none of them drowns in the rounding of another.
    let lengths = block.map_axis(Axis(0), |column| column.dot(&column).sqrt().max(f64::MIN_POSITIVE));
    let block = block / &lengths;
    let (sizes, directions) = eigen(&block.t().dot(&block))?;
    let kept = sizes.iter().take_while(|&&s| s > NEGLIGIBLE * sizes[0]).count();
    let mut turn = directions.slice(s![..kept, ..]).t().to_owned(); // [m, kept]
    turn /= &sizes.slice(s![..kept]).mapv(f64::sqrt);
    let basis = block.dot(&turn); // [n, kept]
    let small = basis.t().dot(&matrix.times(&basis));
    let (values, vectors) = eigen(&((&small + &small.t()) / 2.0))?;
    Ok((values, basis.dot(&vectors.t())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;
    use crate::neighbours::NeighbourSet;

    fn graph(n: usize, k: usize) -> Graph {
        let rows = Array2::from_shape_fn((n, 2), |(i, j)| match j {
            0 => (i as f32 * 0.7548777).fract() * 2.0,
            _ => (i as f32 * 0.5698403).fract(),
        });
        Graph::new(&NeighbourSet::new(rows.view(), Metric::Euclidean).unwrap().nearest_of_each(k).unwrap())
    }

    #[test]
    fn eigenvectors_of_the_matrix() {
        let graph = graph(400, 10);
        assert!(graph.is_connected());
        let matrix = Normalised::new(&graph);
        let dense = matrix.times(&Array2::eye(400));
        let (values, vectors) = eigen(&dense).unwrap();
        assert!((values[0] - 1.0).abs() < 1e-6);
        let found = embed(&graph, 5, 3).unwrap().unwrap();
        for i in 0..5 {
            let column = found.column(i);
            let rayleigh = column.dot(&dense.dot(&column));
            assert!((rayleigh - values[i + 1]).abs() < 1e-6, "{i}: {rayleigh} is not {}", values[i + 1]);
            let cosine = column.dot(&vectors.row(i + 1)).abs();
            assert!(cosine > 0.999, "{i}: {cosine}");
        }
    }

    #[test]
    fn threads_change_nothing_and_small_graphs_have_none() {
        let graph = graph(300, 8);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| embed(&graph, 3, 0).unwrap())
        };
        assert_eq!(run(1), run(3));
        assert_eq!(embed(&graph, 140, 0).unwrap(), None);
    }
}
