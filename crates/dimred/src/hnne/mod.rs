//! h-NNE: principal components, rearranged cluster by cluster along a hierarchy of first neighbours (Sarfraz et al., 2022).
//!
//! **Its authors allow no commercial use of re-implementations of h-NNE, and this is one**: see [`HNNE_NOTICE`].
//!
//! From the coarsest level of [`finch`] down, the parts of a cluster (finer clusters, at last rows) are placed around its anchor:
//! `anchor + radius · (point − centre) / (largest ‖point − centre‖)`, with the points' principal components, the
//! centre their plain mean, and a radius of 0.4 of the distance to the nearest other anchor, so that clusters cannot
//! overlap. A new row goes to the cluster of the finest level whose mean is nearest, and is placed there in the same way. The
//! original's additional spreading of angles for 3 dimensions and fewer is left out. It does not nest: one fit serves one `k`.

mod finch;

use std::collections::BTreeMap;

use kernels::{Level as Simd, RowMap};
use ndarray::{Array1, Array2, ArrayView2};

use crate::affine::{Projection, standardised};
use crate::metric::Metric;
use crate::neighbours::{NeighbourSet, check_finite};
use crate::pca::PcaParams;
use crate::scaler::Scaler;
use crate::umap::scaled;
use crate::{Error, Result};
use finch::{Level, levels, means};

/// What its users must know.
pub const HNNE_NOTICE: &str = "h-NNE: its authors allow no commercial use of re-implementations of their method, and this is one; \
use it for research only, or ask them";

/// Share of the distance to the nearest other anchor that a cluster may fill.
const RADIUS: f64 = 0.4;
/// Levels of fewer clusters are left out.
const FEWEST_CLUSTERS: usize = 3;

/// An unfitted h-NNE.
#[derive(Debug, Clone, PartialEq)]
pub struct HnneParams {
    /// `k`, the target dimension.
    pub n_components: usize,
    /// How rows are compared.
    pub metric: Metric,
    /// What is done to columns first.
    pub scaler: Scaler,
}

impl Default for HnneParams {
    fn default() -> Self {
        Self { n_components: 2, metric: Metric::Cosine, scaler: Scaler::Train }
    }
}

/// A fitted h-NNE: principal components and the clusters of the finest level.
#[derive(Debug, Clone, PartialEq)]
pub struct Hnne {
    pub(crate) params: HnneParams,
    /// `[d]`, zeros without scaling.
    pub(crate) mean: Array1<f64>,
    /// `[d]`, ones without scaling.
    pub(crate) scale: Array1<f64>,
    /// Mean of the scaled rows, `[d]`.
    pub(crate) centre: Array1<f64>,
    /// Principal components of the scaled rows, `[k, d]`.
    pub(crate) components: Array2<f64>,
    /// Mean scaled rows of the clusters, `[m, d]`.
    pub(crate) centroids: Array2<f32>,
    /// Of each cluster, what principal components are multiplied with, `[m]`.
    pub(crate) gains: Array1<f64>,
    /// Of each cluster, what is added then, `[m, k]`.
    pub(crate) offsets: Array2<f64>,
    set: NeighbourSet,
    map: RowMap,
}

/// What comes of a fit besides the map.
#[derive(Debug, Clone, PartialEq)]
pub struct HnneFit {
    /// The map for new rows.
    pub hnne: Hnne,
    /// The places of the rows of the fit, `[n, k]`.
    pub embedding: Array2<f32>,
    /// Cluster of each row, `[n, levels]`, finest level first.
    pub partitions: Array2<u32>,
}

impl HnneParams {
    /// Fits on rows `[n, d]`, at a cost of `n²` products of width `d`.
    ///
    /// # Errors
    /// [`Error::TooFewRows`], [`Error::NonFinite`], or [`Error::Dimension`] for more components than rows or columns.
    pub fn fit(&self, rows: ArrayView2<'_, f32>) -> Result<HnneFit> {
        check_finite(rows)?;
        if rows.nrows() < 2 {
            return Err(Error::TooFewRows(rows.nrows() as u64));
        }
        let (mean, scale) = self.scaler.statistics(rows)?;
        let rows = scaled(rows, mean.view(), scale.view()); // [n, d]
        let plain = PcaParams { scaler: Scaler::None, ..PcaParams::default() };
        let pca = plain.fit_rows(rows.view())?.truncated(self.n_components)?;
        let (centre, components) = (pca.mean().clone(), pca.components().clone());
        let map = preliminary(&centre, &components);
        let flat = project(&map, rows.view()); // [n, k]
        let mut levels = levels(rows.view(), self.metric)?;
        let kept = levels.iter().take_while(|level| level.count >= FEWEST_CLUSTERS).count();
        levels.truncate(kept.max(1));
        let (embedding, gains, offsets) = arrange(&flat, &levels);
        let centroids = means(rows.view(), &levels[0]);
        let set = NeighbourSet::new(centroids.view(), self.metric)?;
        let partitions =
            Array2::from_shape_fn((rows.nrows(), levels.len()), |(i, level)| levels[level].cluster[i] as u32);
        let params = self.clone();
        let hnne = Hnne { params, mean, scale, centre, components, centroids, gains, offsets, set, map };
        Ok(HnneFit { hnne, embedding: embedding.mapv(|x| x as f32), partitions })
    }
}

fn preliminary(centre: &Array1<f64>, components: &Array2<f64>) -> RowMap {
    let mean: Vec<f32> = centre.iter().map(|&x| x as f32).collect();
    let matrix: Vec<f32> = components.t().iter().map(|&x| x as f32).collect(); // [d, k]
    RowMap::new(Simd::current(), &mean, &matrix, components.nrows())
}

/// Principal components `[n, k]` of scaled rows.
fn project(map: &RowMap, rows: ArrayView2<'_, f32>) -> Array2<f64> {
    let mut out = Array2::zeros((rows.nrows(), map.sizes().1));
    let rows = rows.as_standard_layout();
    let contiguous = "an array in standard layout";
    map.apply(rows.as_slice().expect(contiguous), out.as_slice_mut().expect(contiguous));
    out.mapv(f64::from)
}

/// Places of all rows `[n, k]`, and gains `[m]` and offsets `[m, k]` of the finest clusters.
fn arrange(flat: &Array2<f64>, levels: &[Level]) -> (Array2<f64>, Array1<f64>, Array2<f64>) {
    let mut anchors = group_means(flat, &levels[levels.len() - 1].cluster, levels[levels.len() - 1].count);
    for (coarse, fine) in (0..levels.len()).rev().map(|l| (&levels[l], l.checked_sub(1).map(|l| &levels[l])))
    {
        // What is placed: the finer clusters, or at last the rows.
        let (points, parents) = match fine {
            Some(fine) => {
                let mut parents = vec![0; fine.count];
                fine.cluster.iter().zip(&coarse.cluster).for_each(|(&part, &whole)| parents[part] = whole);
                (group_means(flat, &fine.cluster, fine.count), parents)
            }
            None => (flat.clone(), coarse.cluster.clone()),
        };
        let centres = group_means(&points, &parents, coarse.count);
        let mut largest = vec![0.0_f64; coarse.count];
        for (point, &parent) in points.rows().into_iter().zip(&parents) {
            largest[parent] = largest[parent].max(distance(point, centres.row(parent)));
        }
        let radii = radii(&anchors, &largest);
        let gains: Array1<f64> = radii
            .iter()
            .zip(&largest)
            .map(|(radius, &far)| if far > 0.0 { radius / far } else { 1.0 })
            .collect();
        let offsets = &anchors - &(centres * gains.view().insert_axis(ndarray::Axis(1)));
        let mut places = points;
        for (mut place, &parent) in places.rows_mut().into_iter().zip(&parents) {
            place *= gains[parent];
            place += &offsets.row(parent);
        }
        if fine.is_none() {
            return (places, gains, offsets);
        }
        anchors = places;
    }
    unreachable!("the finest level has none below it")
}

fn distance(a: ndarray::ArrayView1<'_, f64>, b: ndarray::ArrayView1<'_, f64>) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

/// Plain means of the points of each group, `[groups, k]`.
fn group_means(points: &Array2<f64>, group: &[usize], groups: usize) -> Array2<f64> {
    let mut sums = Array2::zeros((groups, points.ncols()));
    let mut counts = vec![0.0_f64; groups];
    for (point, &group) in points.rows().into_iter().zip(group) {
        sums.row_mut(group).scaled_add(1.0, &point);
        counts[group] += 1.0;
    }
    for (mut sum, &count) in sums.rows_mut().into_iter().zip(&counts) {
        sum /= count.max(1.0);
    }
    sums
}

/// How far a cluster may reach around its anchor; one that is alone keeps its size.
fn radii(anchors: &Array2<f64>, largest: &[f64]) -> Vec<f64> {
    use rayon::prelude::*;
    (0..anchors.nrows())
        .into_par_iter()
        .map(|i| {
            let others = anchors.rows().into_iter().enumerate().filter(|&(j, _)| j != i);
            let nearest =
                others.map(|(_, other)| distance(anchors.row(i), other)).fold(f64::INFINITY, f64::min);
            if nearest.is_finite() { RADIUS * nearest } else { largest[i] }
        })
        .collect()
}

impl Hnne {
    /// The parameters of the fit.
    #[must_use]
    pub fn params(&self) -> &HnneParams {
        &self.params
    }

    /// Mean scaled rows of the clusters that new rows are placed in, `[m, d]`.
    #[must_use]
    pub fn centroids(&self) -> &Array2<f32> {
        &self.centroids
    }

    /// Notes for a file.
    pub(crate) fn notes(&self) -> BTreeMap<&'static str, String> {
        let params = &self.params;
        BTreeMap::from([
            ("scaler", params.scaler.to_string()),
            ("metric", params.metric.to_string()),
            ("notice", HNNE_NOTICE.to_owned()),
        ])
    }

    /// A fitted h-NNE from its parts, as they lie in a file.
    ///
    /// # Errors
    /// [`Error::Format`] if their shapes do not fit.
    pub(crate) fn from_parts(
        params: HnneParams,
        [mean, scale, centre, gains]: [Array1<f64>; 4],
        [components, offsets]: [Array2<f64>; 2],
        centroids: Array2<f32>,
    ) -> Result<Self> {
        let (k, d, m) = (params.n_components, mean.len(), centroids.nrows());
        let fits = scale.len() == d
            && centre.len() == d
            && components.dim() == (k, d)
            && centroids.ncols() == d
            && gains.len() == m
            && offsets.dim() == (m, k);
        if !fits {
            return Err(Error::Format("the tensors of an h-NNE have shapes that do not fit together".into()));
        }
        let set = NeighbourSet::new(centroids.view(), params.metric)?;
        let map = preliminary(&centre, &components);
        Ok(Self { params, mean, scale, centre, components, centroids, gains, offsets, set, map })
    }
}

impl Projection for Hnne {
    fn input_dim(&self) -> usize {
        self.mean.len()
    }

    fn output_dim(&self) -> usize {
        self.components.nrows()
    }

    /// Places new rows. A row's place does not depend on its companions, unless the scaler is [`Scaler::Batch`].
    fn transform(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        if rows.ncols() != self.input_dim() {
            return Err(Error::Width { expected: self.input_dim(), got: rows.ncols() });
        }
        check_finite(rows)?;
        let rows = match self.params.scaler {
            Scaler::Batch => standardised(rows),
            Scaler::None | Scaler::Train => scaled(rows, self.mean.view(), self.scale.view()),
        };
        if rows.nrows() == 0 {
            return Ok(Array2::zeros((0, self.output_dim())));
        }
        let mut places = project(&self.map, rows.view()); // [q, k]
        let clusters = self.set.nearest(rows.view(), 1)?.indices;
        for (mut place, &cluster) in places.rows_mut().into_iter().zip(&clusters) {
            place *= self.gains[cluster as usize];
            place += &self.offsets.row(cluster as usize);
        }
        Ok(places.mapv(|x| x as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::s;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn clouds(n: usize) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        Array2::from_shape_fn((n, 12), |(i, j)| {
            let centre = if j % 4 == i % 4 { 4.0 } else { -1.0 };
            centre + rng.random_range(-1.0..1.0f32)
        })
    }

    fn fit(rows: ArrayView2<'_, f32>, k: usize) -> HnneFit {
        HnneParams { n_components: k, ..HnneParams::default() }.fit(rows).unwrap()
    }

    #[test]
    fn rows_of_the_fit_and_new_ones_are_placed_alike() {
        let rows = clouds(200);
        let found = fit(rows.view(), 3);
        let again = found.hnne.transform(rows.view()).unwrap();
        let mut same = 0;
        for (a, b) in found.embedding.rows().into_iter().zip(again.rows()) {
            same += usize::from((&a - &b).iter().all(|x| x.abs() < 1e-4));
        }
        // Only a row that is nearer to another cluster's mean than to its own goes elsewhere.
        assert!(same > 150, "{same}");
        let one = found.hnne.transform(rows.slice(s![7..8, ..])).unwrap();
        assert_eq!(one.row(0), again.row(7));
    }

    #[test]
    fn clusters_do_not_overlap() {
        let found = fit(clouds(300).view(), 4);
        let top = found.partitions.ncols() - 1;
        let label = |i: usize| found.partitions[[i, top]];
        let of = |which: u32| (0..300).filter(move |&i| label(i) == which).collect::<Vec<_>>();
        let (a, b) = (of(0), of(1));
        let gap = |x: &[usize], y: &[usize], fold: fn(f64, f64) -> f64, from: f64| {
            x.iter().flat_map(|&i| y.iter().map(move |&j| (i, j))).fold(from, |best, (i, j)| {
                let difference = &found.embedding.row(i) - &found.embedding.row(j);
                fold(best, f64::from(difference.mapv(|x| x * x).sum()).sqrt())
            })
        };
        assert!(gap(&a, &b, f64::min, f64::INFINITY) > 0.0);
        let apart = gap(&a, &b, f64::max, 0.0);
        assert!(gap(&a, &a, f64::max, 0.0) < apart);
    }

    #[test]
    fn degenerate_rows_have_finite_places() {
        for rows in [Array2::ones((10, 4)), clouds(4), clouds(2)] {
            let found = fit(rows.view(), 2);
            assert!(found.embedding.iter().all(|x| x.is_finite()));
            assert!(found.hnne.transform(rows.view()).unwrap().iter().all(|x| x.is_finite()));
        }
        assert!(HnneParams::default().fit(clouds(1).view()).is_err());
        let wide = HnneParams { n_components: 13, ..HnneParams::default() };
        assert!(matches!(wide.fit(clouds(50).view()), Err(Error::Dimension { asked: 13, available: 12 })));
    }

    #[test]
    fn the_same_for_any_number_of_threads() {
        let rows = clouds(150);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fit(rows.view(), 3))
        };
        assert_eq!(run(1), run(3));
    }
}
