//! Many clusters for one class: every cluster is named after the class that most of its pixels have.
//!
//! The [`hungarian`](crate::hungarian) assignment gives each class one cluster and leaves the others without a class.
//! With more clusters than classes that says little about the rest; the majority names all of them, and never counts
//! fewer pixels right. It can leave classes without a cluster, whose IoU is then 0. [`Coverage`] says what either of
//! them leaves out. With many clusters the majority approaches a labelling of its own (purity is 1 for one cluster per
//! pixel): compare equal numbers only.

use ndarray::{Array2, Axis};

use crate::{Assignment, ConfusionMatrix};

/// The class that has most pixels in every cluster, `[m]`; of equal ones the lowest, `None` for a cluster without pixels.
///
/// ```
/// let counts = probe::ConfusionMatrix::from_counts(ndarray::array![[5, 0, 2, 0], [1, 3, 9, 0]]);
/// let classes = probe::majority(&counts);
/// assert_eq!(classes, [Some(0), Some(1), Some(1), None]);
/// assert_eq!(counts.merged(&classes).counts(), ndarray::array![[5, 2, 0], [1, 12, 0]]);
/// ```
#[must_use]
pub fn majority(counts: &ConfusionMatrix) -> Vec<Option<usize>> {
    let largest = |column: ndarray::ArrayView1<'_, u64>| {
        let best = column.iter().enumerate().rev().max_by_key(|&(_, &pixels)| pixels);
        best.filter(|&(_, &pixels)| pixels > 0).map(|(class, _)| class)
    };
    counts.counts().axis_iter(Axis(1)).map(largest).collect()
}

/// What a naming of clusters leaves out.
#[derive(Debug, Clone, PartialEq)]
pub struct Coverage {
    /// `[c]`: how many clusters are named after each class.
    pub clusters_of_class: Vec<usize>,
    /// Classes with pixels that no cluster is named after.
    pub missed_classes: Vec<usize>,
    /// Clusters without a class.
    pub unmatched_clusters: Vec<usize>,
    /// Share of the counted pixels that lie in clusters without a class; NaN if none was counted.
    pub unmatched_share: f64,
}

impl Coverage {
    /// Of a naming, `[m]`, by either method, on counts `[c, m]`.
    ///
    /// # Panics
    /// If the naming is of another number of clusters or names other classes.
    #[must_use]
    pub fn new(counts: &ConfusionMatrix, class_of_cluster: &[Option<usize>]) -> Self {
        assert_eq!(class_of_cluster.len(), counts.outputs(), "a naming of all clusters");
        let pixels = counts.counts();
        let mut clusters_of_class = vec![0; counts.classes()];
        class_of_cluster.iter().flatten().for_each(|&class| clusters_of_class[class] += 1);
        let occurs = |&class: &usize| pixels.row(class).sum() > 0;
        let missed = (0..counts.classes()).filter(|&class| clusters_of_class[class] == 0).filter(occurs);
        let unmatched: Vec<usize> =
            (0..counts.outputs()).filter(|&m| class_of_cluster[m].is_none()).collect();
        let outside: u64 = unmatched.iter().map(|&m| pixels.column(m).sum()).sum();
        Self {
            missed_classes: missed.collect(),
            clusters_of_class,
            unmatched_share: outside as f64 / pixels.sum() as f64,
            unmatched_clusters: unmatched,
        }
    }
}

impl Assignment {
    /// What the assignment leaves out, see [`Coverage::new`].
    ///
    /// # Panics
    /// If it is of another number of classes or clusters.
    #[must_use]
    pub fn coverage(&self, counts: &ConfusionMatrix) -> Coverage {
        Coverage::new(counts, &self.class_of_cluster)
    }
}

impl ConfusionMatrix {
    /// The counts with every cluster renamed to its class, several to one where they share it: `[c, c]`, and one more column
    /// with the clusters that have no class, if there are any.
    ///
    /// * `class_of_cluster`: `[m]`, from [`majority`] or an [`Assignment`] (then this is [`ConfusionMatrix::matched`]).
    ///
    /// # Panics
    /// If the naming is of another number of clusters or names other classes.
    #[must_use]
    pub fn merged(&self, class_of_cluster: &[Option<usize>]) -> Self {
        assert_eq!(class_of_cluster.len(), self.outputs(), "a naming of all clusters");
        let (c, unmatched) = (self.classes(), class_of_cluster.iter().any(Option::is_none));
        let mut counts = Array2::zeros((c, c + usize::from(unmatched)));
        for (from, class) in self.counts().axis_iter(Axis(1)).zip(class_of_cluster) {
            let mut to = counts.column_mut(class.unwrap_or(c));
            to += &from;
        }
        Self::from_counts(counts)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::Rng;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::hungarian;

    #[test]
    fn the_majority_is_never_behind_the_best_assignment() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for _ in 0..200 {
            let (c, m) = (rng.random_range(1..6), rng.random_range(1..9));
            let counts = Array2::from_shape_simple_fn((c, m), || rng.random_range(0..9));
            let counts = ConfusionMatrix::from_counts(counts);
            let right = |counts: ConfusionMatrix| counts.counts().diag().sum();
            let assignment = hungarian(&counts);
            assert!(right(counts.merged(&majority(&counts))) >= right(counts.matched(&assignment)));
            assert_eq!(counts.merged(&assignment.class_of_cluster), counts.matched(&assignment));
        }
    }

    #[test]
    fn clusters_that_are_the_classes_are_named_so_by_both() {
        let counts = ConfusionMatrix::from_counts(array![[1, 8, 0], [0, 0, 7], [9, 1, 0]]);
        assert_eq!(majority(&counts), hungarian(&counts).class_of_cluster);
    }

    #[test]
    fn coverage_says_what_is_left_out() {
        // Class 1 is missed by the majority; class 2 does not occur and so cannot be.
        let counts = ConfusionMatrix::from_counts(array![[6, 4, 3, 0], [1, 1, 2, 0], [0, 0, 0, 0]]);
        let many = Coverage::new(&counts, &majority(&counts));
        assert_eq!((many.clusters_of_class, many.missed_classes), (vec![3, 0, 0], vec![1]));
        assert_eq!((many.unmatched_clusters, many.unmatched_share), (vec![3], 0.0));
        let assignment = Assignment::from_clusters(&[Some(0), None, Some(1), None], 3);
        let one = assignment.coverage(&counts);
        assert_eq!((one.clusters_of_class, one.missed_classes), (vec![1, 1, 0], vec![]));
        assert_eq!((one.unmatched_clusters, one.unmatched_share), (vec![1, 3], 5.0 / 17.0));
        let none = Coverage::new(&ConfusionMatrix::new(2, 1), &[None]);
        assert!(none.unmatched_share.is_nan() && none.missed_classes.is_empty());
    }

    #[test]
    fn ties_go_to_the_lower_class() {
        assert_eq!(
            majority(&ConfusionMatrix::from_counts(array![[2, 0], [2, 3], [1, 3]])),
            [Some(0), Some(1)]
        );
    }
}
