//! FINCH: a hierarchy of clusters from first neighbours alone (Sarfraz, Sharma and Stiefelhagen, 2019).
//!
//! Join every row with its nearest other row; what hangs together is a cluster. Do the same with the means of the clusters, and so
//! on. No number of clusters, no threshold. A level is an assignment of the rows; each level joins clusters of the one before.

use ndarray::{Array2, ArrayView2};

use crate::Result;
use crate::metric::Metric;
use crate::neighbours::NeighbourSet;

/// One level of the hierarchy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Level {
    /// Cluster of each row, `[n]`, numbered in the order of their first rows.
    pub(crate) cluster: Vec<usize>,
    /// Number of clusters.
    pub(crate) count: usize,
}

/// The levels for rows `[n, d]`, finest first, until there is one cluster or a step joins no more than one pair.
///
/// # Errors
/// As [`NeighbourSet::new`].
pub(crate) fn levels(rows: ArrayView2<'_, f32>, metric: Metric) -> Result<Vec<Level>> {
    let n = rows.nrows();
    let mut levels = vec![join(rows, (0..n).collect(), metric)?];
    loop {
        let last = &levels[levels.len() - 1];
        if last.count < 2 {
            return Ok(levels);
        }
        let means = means(rows, last);
        let next = join(means.view(), last.cluster.clone(), metric)?;
        if last.count - next.count <= 1 && next.count > 1 {
            return Ok(levels);
        }
        levels.push(next);
    }
}

/// Joins each point with its nearest; `cluster` says which point stands for a row.
fn join(points: ArrayView2<'_, f32>, cluster: Vec<usize>, metric: Metric) -> Result<Level> {
    let n = points.nrows();
    if n < 2 {
        return Ok(Level { cluster, count: n });
    }
    let nearest = NeighbourSet::new(points, metric)?.nearest_of_each(1)?.indices;
    let mut parent: Vec<usize> = (0..n).collect();
    for (i, &j) in nearest.iter().enumerate() {
        let (a, b) = (root(&mut parent, i), root(&mut parent, j as usize));
        parent[a.max(b)] = a.min(b);
    }
    // The root of a part is its first point, so parts are numbered as they come.
    let (mut number, mut count) = (vec![0; n], 0);
    for i in 0..n {
        let root = root(&mut parent, i);
        number[i] = if root == i { count } else { number[root] };
        count += usize::from(root == i);
    }
    Ok(Level { cluster: cluster.into_iter().map(|point| number[point]).collect(), count })
}

/// The first point of what hangs together with `i`.
fn root(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}

/// Means of the rows of each cluster, `[m, d]`, summed in 64 bits.
pub(crate) fn means(rows: ArrayView2<'_, f32>, level: &Level) -> Array2<f32> {
    let mut sums = Array2::<f64>::zeros((level.count, rows.ncols()));
    let mut counts = vec![0_u32; level.count];
    for (row, &cluster) in rows.rows().into_iter().zip(&level.cluster) {
        sums.row_mut(cluster).zip_mut_with(&row, |sum, &x| *sum += f64::from(x));
        counts[cluster] += 1;
    }
    for (mut sum, &count) in sums.rows_mut().into_iter().zip(&counts) {
        sum /= f64::from(count.max(1));
    }
    sums.mapv(|x| x as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn pairs_on_a_line_then_pairs_of_pairs() {
        let rows = array![[0.0_f32], [1.0], [10.0], [11.0], [100.0], [101.0], [110.0], [111.0]];
        let found = levels(rows.view(), Metric::Euclidean).unwrap();
        let clusters: Vec<_> = found.iter().map(|level| level.cluster.clone()).collect();
        assert_eq!(clusters, [vec![0, 0, 1, 1, 2, 2, 3, 3], vec![0, 0, 0, 0, 1, 1, 1, 1], vec![0; 8],]);
        assert_eq!(means(rows.view(), &found[1]), array![[5.5], [105.5]]);
    }

    #[test]
    fn levels_nest_and_shrink() {
        let rows = Array2::from_shape_fn((500, 6), |(i, j)| ((i * i + 31 * j) as f32 * 0.137).sin());
        let found = levels(rows.view(), Metric::Cosine).unwrap();
        for pair in found.windows(2) {
            assert!(pair[1].count < pair[0].count);
            let mut above = vec![None; pair[0].count];
            for (&below, &up) in pair[0].cluster.iter().zip(&pair[1].cluster) {
                assert_eq!(*above[below].get_or_insert(up), up);
            }
        }
    }

    #[test]
    fn one_row_and_equal_rows() {
        assert_eq!(levels(array![[1.0_f32]].view(), Metric::Cosine).unwrap()[0].count, 1);
        let equal = levels(Array2::ones((9, 2)).view(), Metric::Cosine).unwrap();
        assert_eq!(equal.len(), 1);
        assert_eq!(equal[0].count, 1);
    }
}
