//! Which class each cluster stands for: the one-to-one assignment that counts most pixels as right.
//!
//! The method is the Hungarian one in the form of shortest augmenting paths (Jonker and Volgenant, 1987;
//! Crouse, 2016, for rectangles). It takes the rows of the smaller side one by one. A row is given a column by the
//! cheapest alternating path to a free column, where costs are reduced by prices that keep all finished rows
//! optimal.
//!
//! The optimum is often not unique: a class without pixels goes equally well with any cluster. Which one it gets
//! changes no mean IoU of the classes that occur, but it is seen in tables, so the choice is fixed, and is that of
//! SciPy's `linear_sum_assignment`: among equally near columns a free one first, else the one that comes first in the
//! list of open columns, which starts in descending order and has each closed column replaced by its last entry.

use ndarray::ArrayView2;

use crate::ConfusionMatrix;

/// A one-to-one assignment of clusters and classes; with unequal numbers, some have no partner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// `[m]`: the class of every cluster.
    pub class_of_cluster: Vec<Option<usize>>,
    /// `[c]`: the cluster of every class.
    pub cluster_of_class: Vec<Option<usize>>,
}

/// The assignment of clusters to classes with the largest number of pixels counted right.
///
/// * `counts`: `[c, m]`, row = class, column = cluster; any `c` and `m`.
///
/// ```
/// let counts = probe::ConfusionMatrix::from_counts(ndarray::array![[1, 9, 2], [8, 7, 0]]);
/// let assignment = probe::hungarian(&counts);
/// assert_eq!(assignment.class_of_cluster, [Some(1), Some(0), None]);
/// assert_eq!(counts.matched(&assignment).counts().diag().sum(), 17);
/// ```
pub fn hungarian(counts: &ConfusionMatrix) -> Assignment {
    let cost = counts.counts().mapv(|pixels| -i64::try_from(pixels).expect("fewer than 2^63 pixels"));
    let (c, m) = cost.dim();
    let mut class_of_cluster = vec![None; m];
    // Clusters are the rows unless there are more of them than classes.
    if m <= c {
        for (cluster, class) in cheapest(cost.t()).into_iter().enumerate() {
            class_of_cluster[cluster] = Some(class);
        }
    } else {
        for (class, cluster) in cheapest(cost.view()).into_iter().enumerate() {
            class_of_cluster[cluster] = Some(class);
        }
    }
    Assignment::from_clusters(&class_of_cluster, c)
}

impl Assignment {
    /// Fills in the side of the classes.
    pub(crate) fn from_clusters(class_of_cluster: &[Option<usize>], classes: usize) -> Self {
        let mut cluster_of_class = vec![None; classes];
        for (cluster, class) in class_of_cluster.iter().enumerate() {
            if let Some(class) = *class {
                cluster_of_class[class] = Some(cluster);
            }
        }
        Self { class_of_cluster: class_of_cluster.to_vec(), cluster_of_class }
    }
}

/// The column of every row, each column at most once, with the least total cost; no more rows than columns.
fn cheapest(cost: ArrayView2<'_, i64>) -> Vec<usize> {
    let mut matching = Matching::new(cost);
    (0..cost.nrows()).for_each(|row| matching.place(row));
    let columns = matching.column_of_row.into_iter();
    columns.map(|column| column.expect("every row was placed")).collect()
}

/// An optimal matching of the rows placed so far.
struct Matching<'a> {
    cost: ArrayView2<'a, i64>,
    row_price: Vec<i64>,
    column_price: Vec<i64>,
    column_of_row: Vec<Option<usize>>,
    row_of_column: Vec<Option<usize>>,
}

/// The tree of cheapest alternating paths from one row.
struct Search {
    distance: Vec<i64>, // of every column, i64::MAX where not reached
    parent: Vec<usize>, // row from which a column was reached
    closed: Vec<usize>, // columns whose distance is final, without the end
    end: usize,         // free column at the end of the cheapest path
}

impl<'a> Matching<'a> {
    fn new(cost: ArrayView2<'a, i64>) -> Self {
        let (rows, columns) = cost.dim();
        Self {
            cost,
            row_price: vec![0; rows],
            column_price: vec![0; columns],
            column_of_row: vec![None; rows],
            row_of_column: vec![None; columns],
        }
    }

    /// Gives `row` a column, moving other rows along the cheapest path to a free one.
    fn place(&mut self, row: usize) {
        let Search { distance, parent, closed, end } = self.search(row);
        let length = distance[end];
        self.row_price[row] += length;
        for column in closed {
            let owner = self.row_of_column[column].expect("only the end of a path is free");
            self.row_price[owner] += length - distance[column];
            self.column_price[column] -= length - distance[column];
        }
        let mut column = end;
        loop {
            let owner = parent[column];
            self.row_of_column[column] = Some(owner);
            let next = self.column_of_row[owner].replace(column);
            match next {
                Some(next) if owner != row => column = next,
                _ => break,
            }
        }
    }

    /// Dijkstra's search over columns, with reduced costs, until it meets a free one.
    fn search(&self, start: usize) -> Search {
        let columns = self.cost.ncols();
        let mut distance = vec![i64::MAX; columns];
        let mut parent = vec![start; columns];
        let mut open: Vec<usize> = (0..columns).rev().collect();
        let mut closed = Vec::new();
        let (mut row, mut so_far) = (start, 0);
        loop {
            let (mut at, mut nearest) = (0, i64::MAX);
            for (i, &column) in open.iter().enumerate() {
                let reduced = self.cost[[row, column]] - self.row_price[row] - self.column_price[column];
                if so_far + reduced < distance[column] {
                    distance[column] = so_far + reduced;
                    parent[column] = row;
                }
                let tied_but_free = distance[column] == nearest && self.row_of_column[column].is_none();
                if distance[column] < nearest || tied_but_free {
                    (at, nearest) = (i, distance[column]);
                }
            }
            let column = open.swap_remove(at);
            so_far = nearest;
            match self.row_of_column[column] {
                None => return Search { distance, parent, closed, end: column },
                Some(owner) => row = owner,
            }
            closed.push(column);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};
    use pathfinding::prelude::{Matrix, kuhn_munkres};
    use rand::Rng;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn assign(counts: Array2<u64>) -> Assignment {
        hungarian(&ConfusionMatrix::from_counts(counts))
    }

    fn matched_pixels(counts: &Array2<u64>, assignment: &Assignment) -> u64 {
        ConfusionMatrix::from_counts(counts.clone()).matched(assignment).counts().diag().sum()
    }

    #[test]
    fn the_total_is_the_best_there_is() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for trial in 0..300 {
            let (c, m) = (rng.random_range(1..9), rng.random_range(1..9));
            let top = if trial % 2 == 0 { 3 } else { 1_000_000 }; // many ties, or none
            let counts = Array2::from_shape_simple_fn((c, m), || rng.random_range(0..top));
            let out = assign(counts.clone());
            let total = matched_pixels(&counts, &out);
            let wide = if c <= m { counts } else { counts.reversed_axes() };
            let weights =
                wide.rows().into_iter().map(|row| row.iter().map(|&v| v as i64).collect::<Vec<_>>());
            let (best, _) = kuhn_munkres(&Matrix::from_rows(weights).unwrap());
            assert_eq!(total as i64, best, "{c} classes, {m} clusters");
            assert_eq!(out.class_of_cluster.iter().flatten().count(), c.min(m));
            for (cluster, class) in out.class_of_cluster.iter().enumerate() {
                assert!(class.is_none_or(|class| out.cluster_of_class[class] == Some(cluster)));
            }
        }
    }

    #[test]
    fn a_constant_matrix_keeps_the_order() {
        let out = assign(Array2::from_elem((4, 4), 5));
        assert_eq!(out.class_of_cluster, [0, 1, 2, 3].map(Some));
    }

    #[test]
    fn spare_clusters_and_spare_classes_stay_alone() {
        let out = assign(array![[0, 0, 7], [5, 0, 0]]);
        assert_eq!(out.class_of_cluster, [Some(1), None, Some(0)]);
        assert_eq!(out.cluster_of_class, [Some(2), Some(0)]);
        let out = assign(array![[0, 0], [9, 1], [0, 4]]);
        assert_eq!(out.cluster_of_class, [None, Some(0), Some(1)]);
        assert_eq!(assign(Array2::zeros((3, 0))).cluster_of_class, [None; 3]);
        assert_eq!(assign(Array2::zeros((0, 2))).class_of_cluster, [None; 2]);
    }
}
