//! The fuzzy graph: who is near whom, with weights in `(0, 1]`.
//!
//! A row's neighbours at distances `d` weigh `exp(−max(0, d − ρ)/σ)`, with `ρ` the distance of its nearest (that is not a
//! duplicate) and `σ` such that the weights sum to `log₂ k`: every row has a metric of its own. The graph joins the two
//! opinions on a pair as a fuzzy union, `u + v − uv`.

use ndarray::ArrayView1;

use crate::neighbours::Neighbours;

/// Halvings of the search for `σ`.
const HALVINGS: usize = 64;
/// The sum of weights is as wanted within this.
const CLOSE: f64 = 1e-5;
/// The least `σ`, as a share of the mean distance.
const LEAST_SHARE: f64 = 1e-3;

/// A sparse matrix `[n, n]`, by rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Graph {
    /// Of row `i`: `starts[i]..starts[i + 1]`.
    starts: Vec<usize>,
    columns: Vec<u32>,
    weights: Vec<f32>,
}

/// `ρ` and `σ` of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bandwidth {
    nearest: f64,
    sigma: f64,
}

/// Finds the bandwidth of a row with `distances` to its neighbours, ascending; `wanted` is what the weights sum to.
fn bandwidth(distances: &[f64], nearest: f64, wanted: f64, mean_of_all: f64) -> Bandwidth {
    let sum = |sigma: f64| -> f64 {
        distances.iter().map(|&d| if d > nearest { (-(d - nearest) / sigma).exp() } else { 1.0 }).sum()
    };
    let (mut low, mut high, mut sigma) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..HALVINGS {
        let off = sum(sigma) - wanted;
        if off.abs() < CLOSE {
            break;
        }
        if off > 0.0 {
            high = sigma;
        } else {
            low = sigma;
        }
        sigma = if high.is_finite() { (low + high) / 2.0 } else { sigma * 2.0 };
    }
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    let least = LEAST_SHARE * if nearest > 0.0 { mean } else { mean_of_all };
    Bandwidth { nearest, sigma: sigma.max(least) }
}

fn weight(distance: f64, bandwidth: Bandwidth) -> f32 {
    let beyond = distance - bandwidth.nearest;
    if beyond <= 0.0 || bandwidth.sigma == 0.0 { 1.0 } else { (-beyond / bandwidth.sigma).exp() as f32 }
}

/// Weights of a new row's neighbours, `[k]`. It has no place among the old ones yet, so `ρ` is 0.
///
/// * `mean_of_all`: mean distance of the rows that were fitted on.
pub(crate) fn weights_of_new(distances: ArrayView1<'_, f64>, mean_of_all: f64) -> Vec<f32> {
    let distances: Vec<f64> = distances.to_vec();
    let wanted = (distances.len() as f64).log2();
    let found = bandwidth(&distances, 0.0, wanted, mean_of_all);
    distances.iter().map(|&d| weight(d, found)).collect()
}

impl Graph {
    /// The graph of rows whose nearest *other* rows are given, `[n, k − 1]`: the row itself is the `k`-th.
    pub(crate) fn new(neighbours: &Neighbours) -> Self {
        let (n, others) = neighbours.indices.dim();
        let wanted = ((others + 1) as f64).log2();
        let mean_of_all = mean(neighbours);
        let mut pairs: Vec<(u32, u32, f32, f32)> = Vec::with_capacity(2 * n * others);
        for (i, (indices, distances)) in
            neighbours.indices.rows().into_iter().zip(neighbours.distances.rows()).enumerate()
        {
            let distances = distances.to_vec();
            let nearest = distances.iter().copied().find(|&d| d > 0.0).unwrap_or(0.0);
            let found = bandwidth(&distances, nearest, wanted, mean_of_all);
            for (&j, &d) in indices.iter().zip(&distances) {
                let weight = weight(d, found);
                pairs.push((i as u32, j, weight, 0.0)); // my opinion
                pairs.push((j, i as u32, 0.0, weight)); // yours, from the other side
            }
        }
        pairs.sort_unstable_by_key(|&(i, j, ..)| (i, j));
        let (mut starts, mut columns, mut weights) = (vec![0], Vec::new(), Vec::new());
        let mut at = 0;
        for i in 0..n as u32 {
            while at < pairs.len() && pairs[at].0 == i {
                let j = pairs[at].1;
                let (mut u, mut v) = (0.0_f32, 0.0_f32);
                while at < pairs.len() && (pairs[at].0, pairs[at].1) == (i, j) {
                    (u, v) = (u.max(pairs[at].2), v.max(pairs[at].3));
                    at += 1;
                }
                columns.push(j);
                let (most, least) = (u.max(v), u.min(v));
                weights.push(most + least * (1.0 - most)); // u + v − uv, and 1 where one of them is
            }
            starts.push(columns.len());
        }
        Self { starts, columns, weights }
    }

    /// `n`.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Neighbours of row `i` with their weights, by index.
    pub(crate) fn row(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let part = self.starts[i]..self.starts[i + 1];
        self.columns[part.clone()].iter().map(|&j| j as usize).zip(self.weights[part].iter().copied())
    }

    /// The largest weight.
    pub(crate) fn largest(&self) -> f32 {
        self.weights.iter().copied().fold(0.0, f32::max)
    }

    /// Whether every row can be reached from every other.
    pub(crate) fn is_connected(&self) -> bool {
        let mut seen = vec![false; self.len()];
        let mut waiting = vec![0];
        seen[0] = true;
        let mut count = 1;
        while let Some(i) = waiting.pop() {
            for (j, _) in self.row(i) {
                if !seen[j] {
                    seen[j] = true;
                    count += 1;
                    waiting.push(j);
                }
            }
        }
        count == self.len()
    }
}

/// Mean of all distances.
pub(crate) fn mean(neighbours: &Neighbours) -> f64 {
    neighbours.distances.mean().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;
    use crate::neighbours::NeighbourSet;
    use ndarray::{Array2, array};

    #[test]
    fn weights_sum_to_what_is_wanted() {
        let distances = [0.5, 0.7, 0.8, 1.5, 2.0, 2.0, 3.0];
        let found = bandwidth(&distances, 0.5, 3.0, 1.0);
        let sum: f32 = distances.iter().map(|&d| weight(d, found)).sum();
        assert!((sum - 3.0).abs() < 1e-4);
        let new = weights_of_new(array![0.5, 0.7, 0.8, 1.5].view(), 1.0);
        assert!((new.iter().sum::<f32>() - 2.0).abs() < 1e-4);
    }

    #[test]
    fn the_graph_is_symmetric_and_the_nearest_weighs_one() {
        let rows = Array2::from_shape_fn((60, 3), |(i, j)| ((i * 7 + j * 13) as f32 * 0.61).sin());
        let neighbours =
            NeighbourSet::new(rows.view(), Metric::Euclidean).unwrap().nearest_of_each(5).unwrap();
        let graph = Graph::new(&neighbours);
        assert_eq!(graph.len(), 60);
        for i in 0..60 {
            for (j, w) in graph.row(i) {
                assert!(w > 0.0 && w <= 1.0);
                assert_eq!(graph.row(j).find(|&(k, _)| k == i).unwrap().1, w);
            }
            let nearest = neighbours.indices[[i, 0]] as usize;
            assert_eq!(graph.row(i).find(|&(j, _)| j == nearest).unwrap().1, 1.0);
        }
    }

    #[test]
    fn duplicates_and_constant_rows() {
        let neighbours = NeighbourSet::new(Array2::ones((10, 2)).view(), Metric::Euclidean)
            .unwrap()
            .nearest_of_each(3)
            .unwrap();
        let graph = Graph::new(&neighbours);
        assert!((0..10).all(|i| graph.row(i).all(|(_, w)| w == 1.0)));
        assert!(weights_of_new(array![0.0, 0.0].view(), 0.0).iter().all(|&w| w == 1.0));
    }

    #[test]
    fn two_islands_are_not_connected() {
        let mut rows = Array2::from_shape_fn((20, 2), |(i, j)| (i * (1 - j)) as f32);
        let graph = |rows: &Array2<f32>| {
            let set = NeighbourSet::new(rows.view(), Metric::Euclidean).unwrap();
            Graph::new(&set.nearest_of_each(6).unwrap())
        };
        assert!(graph(&rows).is_connected());
        rows.slice_mut(ndarray::s![10.., ..]).mapv_inplace(|x| x + 100.0);
        assert!(!graph(&rows).is_connected());
    }
}
