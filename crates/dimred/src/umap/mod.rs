//! UMAP: a layout in `k` dimensions whose near pairs are those of the rows (McInnes, Healy and Melville, 2018).
//!
//! Exact nearest neighbours → fuzzy [`graph`] → [`spectral`] beginning → [`layout`] by stochastic gradients. A new row starts at
//! the weighted mean of its neighbours' places and is then moved among the fixed points. It is no linear map and does not
//! nest: one fit serves one `k`. Distances in the layout mean little beyond who is near; the original's authors warn
//! of densities and of large distances. The cost of a fit grows with `n²`: sample some 10⁴ rows.

mod curve;
mod graph;
mod layout;
mod spectral;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use crate::affine::{Projection, standardised};
use crate::metric::Metric;
use crate::moments::Moments;
use crate::neighbours::{NeighbourSet, check_finite};
use crate::pca::PcaParams;
use crate::scaler::Scaler;
use crate::{Error, Result};
use curve::Curve;
use graph::Graph;
use layout::{Optimisation, pulls};

/// The layout begins in a box of this size.
const BOX: f64 = 10.0;
/// Standard deviation of the noise that tells points apart which begin in one place.
const NOISE: f64 = 1e-4;
/// Up to so many rows, 500 epochs are the default, else 200.
const FEW_ROWS: usize = 10_000;

/// An unfitted UMAP; the defaults are stego-studies' and umap-learn's.
#[derive(Debug, Clone, PartialEq)]
pub struct UmapParams {
    /// `k`, the target dimension.
    pub n_components: usize,
    /// Neighbours that make a row's surroundings, itself among them; at least 2.
    pub n_neighbors: usize,
    /// How close points may lie in the layout, from 0 to `spread`.
    pub min_dist: f64,
    /// The scale of the layout.
    pub spread: f64,
    /// How rows are compared.
    pub metric: Metric,
    /// What is done to columns first.
    pub scaler: Scaler,
    /// Passes over the edges; 500 up to 10 000 rows and 200 beyond if not given.
    pub n_epochs: Option<usize>,
    /// Passes over the edges of a new row.
    pub transform_epochs: usize,
    /// Random points that a point is pushed off for each pull.
    pub negative_sample_rate: usize,
    /// Length of the first steps.
    pub learning_rate: f32,
    /// Weight of the pushes.
    pub repulsion_strength: f32,
    /// Seed of the beginning, the pushes and the noise.
    pub seed: u64,
}

impl Default for UmapParams {
    fn default() -> Self {
        Self {
            n_components: 2,
            n_neighbors: 15,
            min_dist: 0.1,
            spread: 1.0,
            metric: Metric::Cosine,
            scaler: Scaler::Train,
            n_epochs: None,
            transform_epochs: 100,
            negative_sample_rate: 5,
            learning_rate: 1.0,
            repulsion_strength: 1.0,
            seed: 0,
        }
    }
}

/// A fitted UMAP: the rows of the fit with their places.
#[derive(Debug, Clone, PartialEq)]
pub struct Umap {
    pub(crate) params: UmapParams,
    /// `[d]`, zeros without scaling.
    pub(crate) mean: Array1<f64>,
    /// `[d]`, ones without scaling.
    pub(crate) scale: Array1<f64>,
    /// The scaled rows of the fit, `[n, d]`.
    pub(crate) rows: Array2<f32>,
    /// Their places, `[n, k]`.
    pub(crate) embedding: Array2<f32>,
    /// Mean distance to the neighbours of the fit.
    pub(crate) mean_distance: f64,
    curve: Curve,
    set: NeighbourSet,
}

impl UmapParams {
    /// Fits on rows `[n, d]`.
    ///
    /// # Errors
    /// [`Error::TooFewRows`], [`Error::NonFinite`], or [`Error::Invalid`] for a parameter out of its range: there must be more
    /// rows than neighbours.
    pub fn fit(&self, rows: ArrayView2<'_, f32>) -> Result<Umap> {
        self.check(rows.nrows())?;
        check_finite(rows)?;
        let curve = Curve::fit(self.spread, self.min_dist)?;
        let (mean, scale) = self.scaler.statistics(rows)?;
        let rows = scaled(rows, mean.view(), scale.view()); // [n, d]
        let set = NeighbourSet::new(rows.view(), self.metric)?;
        let neighbours = set.nearest_of_each(self.n_neighbors - 1)?;
        let graph = Graph::new(&neighbours);
        let epochs = self.n_epochs.unwrap_or(if rows.nrows() <= FEW_ROWS { 500 } else { 200 });
        let mut embedding = self.beginning(&graph, rows.view())?; // [n, k]
        let (largest, n) = (graph.largest(), rows.nrows());
        let pulls: Vec<_> = (0..n).map(|i| pulls(graph.row(i), largest, epochs)).collect();
        self.optimisation(curve, epochs).arrange(&mut embedding, pulls);
        let mean_distance = graph::mean(&neighbours);
        Ok(Umap { params: self.clone(), mean, scale, rows, embedding, mean_distance, curve, set })
    }

    fn check(&self, n: usize) -> Result<()> {
        let invalid = |what, expected, got: String| Err(Error::Invalid { what, expected, got });
        if self.n_components == 0 {
            return invalid("n_components", "at least 1", "0".into());
        }
        if self.n_neighbors < 2 || self.n_neighbors >= n {
            return invalid(
                "n_neighbors",
                "from 2 to less than the rows",
                format!("{} of {n}", self.n_neighbors),
            );
        }
        for (what, value) in
            [("learning_rate", self.learning_rate), ("repulsion_strength", self.repulsion_strength)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return invalid(what, "a number from 0", value.to_string());
            }
        }
        Ok(())
    }

    fn optimisation(&self, curve: Curve, epochs: usize) -> Optimisation {
        Optimisation {
            curve,
            epochs,
            learning_rate: self.learning_rate,
            repulsion: self.repulsion_strength,
            negatives: self.negative_sample_rate,
            seed: self.seed,
        }
    }

    /// Where the layout begins: the spectral embedding of a connected graph; else the principal components, in which
    /// parts without a connection lie apart; else chance. `[n, k]`
    fn beginning(&self, graph: &Graph, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        let (n, k) = (rows.nrows(), self.n_components);
        let spectral = if graph.is_connected() { spectral::embed(graph, k, self.seed)? } else { None };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(u64::MAX); // streams from 0 on belong to points
        let mut places = match spectral {
            Some(places) => places,
            None if k <= rows.ncols().min(n) => {
                let params = PcaParams { scaler: Scaler::None, ..PcaParams::default() };
                params.fit_rows(rows)?.at(k)?.transform(rows)?.mapv(f64::from)
            }
            None => Array2::from_shape_fn((n, k), |_| rng.sample(StandardNormal)),
        };
        let largest = places.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let factor = if largest > 0.0 { BOX / largest } else { 1.0 };
        places.mapv_inplace(|x| x * factor + NOISE * rng.sample::<f64, _>(StandardNormal));
        for mut column in places.columns_mut() {
            let (low, high) =
                column.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
            column.mapv_inplace(|x| BOX * (x - low) / (high - low));
        }
        Ok(places.mapv(|x| x as f32))
    }
}

impl Scaler {
    /// Mean and divisor of the columns of rows `[n, d]`: zeros and ones where the fit's statistics are not used.
    pub(crate) fn statistics(self, rows: ArrayView2<'_, f32>) -> Result<(Array1<f64>, Array1<f64>)> {
        if self == Self::None {
            return Ok((Array1::zeros(rows.ncols()), Array1::ones(rows.ncols())));
        }
        let mut moments = Moments::new(rows.ncols());
        moments.add(rows)?;
        Ok((moments.mean().clone(), moments.scale()?))
    }
}

/// `(x − mean) / scale`.
pub(crate) fn scaled(
    rows: ArrayView2<'_, f32>,
    mean: ArrayView1<'_, f64>,
    scale: ArrayView1<'_, f64>,
) -> Array2<f32> {
    let mut out = rows.as_standard_layout().into_owned();
    out.axis_iter_mut(Axis(0)).into_par_iter().for_each(|mut row| {
        for ((x, &m), &s) in row.iter_mut().zip(&mean).zip(&scale) {
            *x = ((f64::from(*x) - m) / s) as f32;
        }
    });
    out
}

impl Umap {
    /// A fitted UMAP from its parts, as they lie in a file.
    ///
    /// # Errors
    /// [`Error::Format`] if their shapes or parameters do not fit.
    pub(crate) fn from_parts(
        params: UmapParams,
        (mean, scale): (Array1<f64>, Array1<f64>),
        (rows, embedding): (Array2<f32>, Array2<f32>),
        mean_distance: f64,
    ) -> Result<Self> {
        let fits = rows.nrows() == embedding.nrows()
            && rows.ncols() == mean.len()
            && scale.len() == mean.len()
            && embedding.ncols() == params.n_components;
        if !fits {
            return Err(Error::Format(
                "rows, places and scaling of a UMAP have other shapes than its parameters".into(),
            ));
        }
        params.check(rows.nrows())?;
        let curve = Curve::fit(params.spread, params.min_dist)?;
        let set = NeighbourSet::new(rows.view(), params.metric)?;
        Ok(Self { params, mean, scale, rows, embedding, mean_distance, curve, set })
    }

    /// The parameters of the fit.
    #[must_use]
    pub fn params(&self) -> &UmapParams {
        &self.params
    }

    /// Where the rows of the fit lie, `[n, k]`.
    #[must_use]
    pub fn embedding(&self) -> &Array2<f32> {
        &self.embedding
    }
}

impl Projection for Umap {
    fn input_dim(&self) -> usize {
        self.mean.len()
    }

    fn output_dim(&self) -> usize {
        self.embedding.ncols()
    }

    /// Places new rows among those of the fit. A row's place does not depend on its companions, unless the scaler is
    /// [`Scaler::Batch`].
    fn transform(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        if rows.ncols() != self.input_dim() {
            return Err(Error::Width { expected: self.input_dim(), got: rows.ncols() });
        }
        check_finite(rows)?;
        let rows = match self.params.scaler {
            Scaler::Batch => standardised(rows),
            Scaler::None | Scaler::Train => scaled(rows, self.mean.view(), self.scale.view()),
        };
        let mut places = Array2::zeros((rows.nrows(), self.output_dim())); // [q, k]
        if rows.nrows() == 0 {
            return Ok(places);
        }
        let found = self.set.nearest(rows.view(), self.params.n_neighbors)?;
        let weights: Vec<Vec<f32>> = (found.distances.axis_iter(Axis(0)).into_par_iter())
            .map(|distances| graph::weights_of_new(distances, self.mean_distance))
            .collect();
        for ((mut place, indices), weights) in
            places.rows_mut().into_iter().zip(found.indices.rows()).zip(&weights)
        {
            let total: f32 = weights.iter().sum();
            for (&j, &weight) in indices.iter().zip(weights) {
                place.scaled_add(weight / total, &self.embedding.row(j as usize));
            }
        }
        let epochs = self.params.transform_epochs;
        let pulls = (found.indices.rows().into_iter().zip(&weights))
            .map(|(indices, weights)| {
                let edges = indices.iter().map(|&j| j as usize).zip(weights.iter().copied());
                // The weight of a neighbour in the same place is the most there is, for every row alike.
                pulls(edges, 1.0, epochs)
            })
            .collect();
        let mut optimisation = self.params.optimisation(self.curve, epochs);
        optimisation.learning_rate /= 4.0; // the surroundings are right already
        optimisation.place(&mut places, pulls, self.embedding.view());
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::s;

    /// Three clouds in 12 dimensions.
    fn clouds(n: usize) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        Array2::from_shape_fn((n, 12), |(i, j)| {
            let centre = if j % 3 == i % 3 { 4.0 } else { -1.0 };
            centre + rng.sample::<f32, _>(StandardNormal)
        })
    }

    fn params(k: usize) -> UmapParams {
        UmapParams { n_components: k, n_epochs: Some(100), transform_epochs: 30, ..UmapParams::default() }
    }

    /// Share of points whose nearest other point is of the same cloud.
    fn together(points: &Array2<f32>) -> f64 {
        let set = NeighbourSet::new(points.view(), Metric::Euclidean).unwrap();
        let nearest = set.nearest_of_each(1).unwrap().indices;
        let same = nearest.iter().enumerate().filter(|&(i, &j)| i % 3 == j as usize % 3);
        same.count() as f64 / points.nrows() as f64
    }

    #[test]
    fn clouds_stay_together_and_new_rows_join_theirs() {
        let rows = clouds(300);
        for k in [1, 2, 9] {
            let umap = params(k).fit(rows.slice(s![..240, ..])).unwrap();
            assert_eq!(umap.embedding().dim(), (240, k));
            assert!(together(umap.embedding()) > 0.98, "{k}");
            let new = umap.transform(rows.slice(s![240.., ..])).unwrap();
            let all = ndarray::concatenate![Axis(0), *umap.embedding(), new];
            assert!(together(&all) > 0.98, "{k}");
        }
    }

    #[test]
    fn the_same_for_any_number_of_threads_and_another_for_another_seed() {
        let rows = clouds(150);
        let run = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| UmapParams { seed, ..params(3) }.fit(rows.view()).unwrap())
        };
        assert_eq!(run(1, 0), run(3, 0));
        assert_ne!(run(1, 0).embedding(), run(1, 1).embedding());
    }

    #[test]
    fn a_new_row_does_not_depend_on_its_companions() {
        let rows = clouds(200);
        let umap = params(2).fit(rows.slice(s![..150, ..])).unwrap();
        let all = umap.transform(rows.slice(s![150.., ..])).unwrap();
        for i in [0, 17, 49] {
            let one = umap.transform(rows.slice(s![150 + i..=150 + i, ..])).unwrap();
            assert_eq!(one.row(0), all.row(i));
        }
        assert_eq!(umap.transform(rows.slice(s![..0, ..])).unwrap().dim(), (0, 2));
    }

    #[test]
    fn degenerate_rows_have_finite_places() {
        for rows in [Array2::ones((30, 4)), {
            let mut rows = clouds(60);
            let copy = rows.slice(s![..30, ..]).to_owned();
            rows.slice_mut(s![30.., ..]).assign(&copy);
            rows.column_mut(3).fill(2.0);
            rows
        }] {
            let umap = params(2).fit(rows.view()).unwrap();
            assert!(umap.embedding().iter().all(|x| x.is_finite()));
            assert!(umap.transform(rows.view()).unwrap().iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn impossible_fits_are_errors() {
        let rows = clouds(20);
        assert!(UmapParams { n_neighbors: 20, ..params(2) }.fit(rows.view()).is_err());
        assert!(UmapParams { n_neighbors: 1, ..params(2) }.fit(rows.view()).is_err());
        assert!(UmapParams { min_dist: 2.0, ..params(2) }.fit(rows.view()).is_err());
        assert!(params(0).fit(rows.view()).is_err());
        assert!(params(2).fit(Array2::from_elem((20, 2), f32::NAN).view()).is_err());
        let umap = params(2).fit(rows.view()).unwrap();
        assert!(matches!(
            umap.transform(rows.slice(s![.., ..3])),
            Err(Error::Width { expected: 12, got: 3 })
        ));
    }
}
