//! Counts of many units side by side, `[n, q]`, so that sums of them with many sets of weights are one matrix product.
//!
//! A unit is what is drawn as a whole: an image, or a group of images. Scores are functions of *summed* counts, so all
//! that resampling does is to weigh units by how often they were drawn: 1000 resamples of 2000 images of 27 classes are
//! a product of `[1000, 2000]` and `[2000, 729]`. Counts are whole numbers below 2⁵³, and so the sums in 64-bit floats
//! are exact.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

use crate::error::expect_shape;
use crate::{ConfusionMatrix, Result};

/// One row per unit.
pub(crate) struct CountTable {
    shape: (usize, usize), // [c, m]
    rows: Array2<f64>,     // [n, c·m]
}

impl CountTable {
    /// # Panics
    /// If the matrices differ in shape.
    pub(crate) fn new(units: &[ConfusionMatrix]) -> Self {
        let shape = units.first().map_or((0, 0), |unit| unit.counts().dim());
        let mut rows = Array2::zeros((units.len(), shape.0 * shape.1));
        for (mut row, unit) in rows.outer_iter_mut().zip(units) {
            assert_eq!(unit.counts().dim(), shape, "matrices of different shape");
            row.iter_mut().zip(&unit.counts()).for_each(|(to, &count)| *to = count as f64);
        }
        Self { shape, rows }
    }

    /// Number of units `n`.
    pub(crate) fn len(&self) -> usize {
        self.rows.nrows()
    }

    /// The sum of all units.
    pub(crate) fn sum(&self) -> ConfusionMatrix {
        self.matrix(self.rows.sum_axis(Axis(0)).iter())
    }

    /// Sums with whole-numbered weights, `[r, n]`; one matrix per row of them.
    pub(crate) fn weighted(&self, weights: ArrayView2<'_, f64>) -> Vec<ConfusionMatrix> {
        weights.dot(&self.rows).outer_iter().map(|row| self.matrix(row.iter())).collect()
    }

    /// The sums of all units but one, for every one in turn.
    pub(crate) fn all_but_one(&self) -> impl Iterator<Item = ConfusionMatrix> {
        let sum = self.rows.sum_axis(Axis(0));
        self.rows.outer_iter().map(move |row| self.matrix((&sum - &row).iter()))
    }

    /// The sums where units with weight 1 are taken from here and those with weight 0 from `other`, and the sums where it is
    /// the other way round; weights `[r, n]`.
    pub(crate) fn exchanged(
        &self,
        other: &Self,
        weights: ArrayView2<'_, f64>,
    ) -> Vec<(ConfusionMatrix, ConfusionMatrix)> {
        let base = other.rows.sum_axis(Axis(0));
        let both = &base + &self.rows.sum_axis(Axis(0));
        let moved = weights.dot(&(&self.rows - &other.rows)) + &base; // [r, q]
        let pair =
            |sums: ArrayView1<'_, f64>| (self.matrix(sums.iter()), self.matrix((&both - &sums).iter()));
        moved.outer_iter().map(pair).collect()
    }

    fn matrix<'a>(&self, counts: impl Iterator<Item = &'a f64>) -> ConfusionMatrix {
        let counts: Vec<u64> = counts.map(|&count| count as u64).collect();
        ConfusionMatrix::from_counts(
            Array2::from_shape_vec(self.shape, counts).expect("as many as there were"),
        )
    }
}

/// Sums of the counts of groups of images, in the order in which the groups first occur: units for
/// [`bootstrap`](crate::bootstrap) and the paired tests where images of a group are not independent (frames of one
/// film, crops of one picture, tiles of one map).
///
/// Groups are what must be many then: a study of 5 films has 5 units, however long they are.
///
/// * `per_image`: `[n]`; `groups`: `[n]`, any numbers, equal within a group.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for another number of groups than images.
///
/// # Panics
/// If the matrices differ in shape.
///
/// ```
/// let images = [1, 2, 4].map(|n| probe::ConfusionMatrix::from_counts(ndarray::array![[n]]));
/// let films = probe::group_sums(&images, &[7, 3, 7])?;
/// assert_eq!(films.iter().map(|film| film.counts().sum()).collect::<Vec<_>>(), [5, 2]);
/// # Ok::<(), probe::Error>(())
/// ```
pub fn group_sums(per_image: &[ConfusionMatrix], groups: &[usize]) -> Result<Vec<ConfusionMatrix>> {
    expect_shape("groups", &[per_image.len()], &[groups.len()])?;
    let mut place = std::collections::HashMap::new();
    let mut sums: Vec<ConfusionMatrix> = Vec::new();
    for (image, group) in per_image.iter().zip(groups) {
        match place.get(group) {
            Some(&at) => ConfusionMatrix::merge(&mut sums[at], image),
            None => {
                place.insert(group, sums.len());
                sums.push(image.clone());
            }
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn units() -> Vec<ConfusionMatrix> {
        (0..5).map(|i| ConfusionMatrix::from_counts(array![[i, 2 * i, 1], [7, i * i, 0]])).collect()
    }

    #[test]
    fn weights_multiply_and_leaving_out_subtracts() {
        let (units, table) = (units(), CountTable::new(&units()));
        assert_eq!((table.len(), table.sum().counts().sum()), (5, 5 * 8 + 3 * 10 + 30));
        let weighted = table.weighted(array![[0.0, 2.0, 0.0, 1.0, 0.0], [1.0; 5]].view());
        let expected = &units[1].counts() + &units[1].counts() + units[3].counts();
        assert_eq!(weighted[0].counts(), expected);
        assert_eq!(weighted[1], table.sum());
        for (i, rest) in table.all_but_one().enumerate() {
            assert_eq!(&rest.counts() + &units[i].counts(), table.sum().counts());
        }
    }

    #[test]
    fn what_one_side_gets_the_other_loses() {
        let (units, mut others) = (units(), units());
        others.reverse();
        let (a, b) = (CountTable::new(&units), CountTable::new(&others));
        let (mine, theirs) = a.exchanged(&b, array![[1.0, 0.0, 0.0, 1.0, 1.0]].view()).remove(0);
        let picked = [&units[0], &others[1], &others[2], &units[3], &units[4]];
        let expected = picked.iter().fold(Array2::<u64>::zeros((2, 3)), |sum, unit| sum + unit.counts());
        assert_eq!(mine.counts(), expected);
        assert_eq!(&mine.counts() + &theirs.counts(), &a.sum().counts() + &b.sum().counts());
    }

    #[test]
    fn groups_need_not_be_neighbours_and_must_be_given_for_all() {
        let units = units();
        let sums = group_sums(&units, &[9, 0, 9, 0, 4]).unwrap();
        assert_eq!(sums.len(), 3);
        assert_eq!(sums[0].counts(), &units[0].counts() + &units[2].counts());
        assert_eq!(sums[2], units[4]);
        assert!(group_sums(&units, &[0]).is_err());
        assert!(group_sums(&[], &[]).unwrap().is_empty());
        assert_eq!(CountTable::new(&[]).len(), 0);
    }
}
