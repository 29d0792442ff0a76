//! The sums that least squares needs, over rows `[n, d]` with class masses `[n, c]`: one pass for every ridge probe there is.
//!
//! A row `x` with masses `m` weighs `w = Σ m` and has the target `y = m / w` (a soft class histogram; one-hot where it shows
//! one class). Kept are `W = Σ w`, the weighted mean of `[x, y]` and its scatter `Σ w ([x, y] − mean)([x, y] − mean)ᵀ`, in 64
//! bits. Blocks are centred by their own means and joined by Chan's formula, so that no offset cancels digits away.
//!
//! What follows from the scatter `S` without seeing a row again: the sums of any *affine image* `z = (x − a) M` are
//! `Mᵀ S M`; those of its first `k` columns are a leading block; and the squared error of any linear probe on these rows is
//! a number ([`Gram::squared_error`]). Hence one pass in feature space serves all reducers, dimensions and penalties.
//!
//! The bits depend on the order of calls and on where they cut the rows, not on the number of threads.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, Slice, concatenate, s};
use rayon::prelude::*;

use crate::error::{expect_range, expect_shape};
use crate::labelled_rows::check_finite;
use crate::patch_labels::check_masses;
use crate::{Error, LinearProbe, Result};

/// Rows centred together.
const BLOCK: usize = 1024;
/// Side of a tile of the scatter; tiles below the diagonal are mirrored instead of computed.
const TILE: usize = 96;

/// Weighted second moments of rows and their targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Gram {
    dim: usize,
    rows: u64,
    mass: f64,
    /// `[d + c]`, of features and targets.
    mean: Array1<f64>,
    /// `[d + c, d + c]`; tiles on and above the diagonal are kept up to date.
    scatter: Array2<f64>,
}

impl Gram {
    /// Sums of no rows, for `d` features and `c` classes.
    #[must_use]
    pub fn new(dim: usize, classes: usize) -> Self {
        let both = dim + classes;
        Self { dim, rows: 0, mass: 0.0, mean: Array1::zeros(both), scatter: Array2::zeros((both, both)) }
    }

    /// Adds rows. A row without mass adds nothing; what its features are does not matter then, so long as they are finite.
    ///
    /// * `rows`: `[n, d]`.
    /// * `masses`: `[n, c]`, as [`patch_histograms`](crate::patch_histograms) gives them; scale a column to weigh a class.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) and [`Error::Range`](crate::Error::Range) for what does not fit or is not
    /// finite. Then nothing was added.
    pub fn add(&mut self, rows: ArrayView2<'_, f32>, masses: ArrayView2<'_, f32>) -> Result<()> {
        expect_shape("rows", &[rows.nrows(), self.dim], rows.shape())?;
        check_masses(masses, rows.nrows(), self.classes())?;
        check_finite("rows", rows)?;
        let labelled: Vec<usize> = (0..rows.nrows()).filter(|&i| masses.row(i).sum() > 0.0).collect();
        for block in labelled.chunks(BLOCK) {
            self.add_block(rows, masses, block);
        }
        Ok(())
    }

    /// Adds the rows numbered in `block`, all of which have mass.
    fn add_block(&mut self, rows: ArrayView2<'_, f32>, masses: ArrayView2<'_, f32>, block: &[usize]) {
        let weights: Array1<f64> = block.iter().map(|&i| masses.row(i).mapv(f64::from).sum()).collect(); // [n]
        let mass = weights.sum();
        let mut both = Array2::zeros((block.len(), self.mean.len())); // [n, d + c]
        for ((mut to, &i), &weight) in both.outer_iter_mut().zip(block).zip(&weights) {
            let (mut features, mut targets) = to.view_mut().split_at(Axis(0), self.dim);
            features.zip_mut_with(&rows.row(i), |to, &x| *to = f64::from(x));
            targets.zip_mut_with(&masses.row(i), |to, &m| *to = f64::from(m) / weight);
        }
        let mean = weights.dot(&both) / mass;
        for (mut row, &weight) in both.outer_iter_mut().zip(&weights) {
            let root = weight.sqrt();
            row.zip_mut_with(&mean, |x, &mean| *x = (*x - mean) * root);
        }
        self.combine(block.len() as u64, mass, &mean, |(i, j)| {
            both.slice(s![.., i]).t().dot(&both.slice(s![.., j]))
        });
    }

    /// Adds the sums of other rows, as if they had been added here after these.
    ///
    /// # Panics
    /// If the numbers of features or classes differ.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!((self.dim, self.classes()), (other.dim, other.classes()), "features and classes");
        if other.rows > 0 {
            self.combine(other.rows, other.mass, &other.mean, |(i, j)| {
                other.scatter.slice(s![i, j]).to_owned()
            });
        }
    }

    /// Chan's formula with masses for counts; `tile` gives the new rows' own scatter, tile by tile.
    fn combine(
        &mut self,
        rows: u64,
        mass: f64,
        mean: &Array1<f64>,
        tile: impl Fn((Slice, Slice)) -> Array2<f64> + Sync,
    ) {
        let total = self.mass + mass;
        let delta = mean - &self.mean; // [d + c]
        let weight = self.mass * mass / total;
        let tiles = tiles(self.mean.len());
        let computed: Vec<Array2<f64>> = tiles.par_iter().map(|&at| tile(at)).collect();
        for ((i, j), mut part) in tiles.into_iter().zip(computed) {
            let (left, right) = (delta.slice(s![i]), delta.slice(s![j]));
            for (mut row, &l) in part.rows_mut().into_iter().zip(left) {
                row.scaled_add(weight * l, &right);
            }
            let mut target = self.scatter.slice_mut(s![i, j]);
            target += &part;
        }
        self.mean.scaled_add(mass / total, &delta);
        self.mass = total;
        self.rows += rows;
    }

    /// The sums of the same rows seen through an affine map: `z = (x − mean) · matrix`.
    ///
    /// * `mean`: `[d]`; `matrix`: `[d, k]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if they do not fit.
    pub fn project(&self, mean: ArrayView1<'_, f32>, matrix: ArrayView2<'_, f32>) -> Result<Self> {
        expect_shape("mean", &[self.dim], mean.shape())?;
        expect_shape("matrix", &[self.dim, matrix.ncols()], matrix.shape())?;
        let (k, c, matrix) = (matrix.ncols(), self.classes(), matrix.mapv(f64::from));
        let shifted = &self.mean.slice(s![..self.dim]) - &mean.mapv(f64::from);
        let (features, cross) = (self.features(), self.cross());
        let mut scatter = Array2::zeros((k + c, k + c));
        scatter.slice_mut(s![k.., k..]).assign(&self.targets());
        // Column by column, and every number a dot product of its own: what a matrix product adds up in which order may depend
        // on its width, and a dimension must not depend on how many are beside it.
        let columns: Vec<Array1<f64>> =
            matrix.columns().into_iter().map(|column| column.to_owned()).collect();
        let cross: Vec<Array1<f64>> = cross.columns().into_iter().map(|column| column.to_owned()).collect();
        let rows = (0..k).into_par_iter().map(|i| {
            let through = features.dot(&columns[i]); // [d]
            let among = columns.iter().map(|other| other.dot(&through));
            among.chain(cross.iter().map(|target| target.dot(&columns[i]))).collect::<Array1<f64>>()
        });
        for (i, row) in rows.collect::<Vec<_>>().into_iter().enumerate() {
            scatter.row_mut(i).assign(&row);
            scatter.slice_mut(s![k.., i]).assign(&row.slice(s![k..]));
        }
        let shifted = columns.iter().map(|column| column.dot(&shifted)).collect::<Array1<f64>>();
        let mean = concatenate![Axis(0), shifted, self.mean.slice(s![self.dim..])];
        Ok(Self { dim: k, rows: self.rows, mass: self.mass, mean, scatter })
    }

    /// The sums of the first `k` features alone.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn leading(&self, k: usize) -> Self {
        assert!(k <= self.dim, "{k} of {} features", self.dim);
        let kept: Vec<usize> = (0..k).chain(self.dim..self.mean.len()).collect();
        let mean = self.mean.select(Axis(0), &kept);
        let scatter = self.scatter.select(Axis(0), &kept).select(Axis(1), &kept);
        Self { dim: k, rows: self.rows, mass: self.mass, mean, scatter }
    }

    /// Mean over the mass of `‖y − scores‖²`, for a probe of the first `k ≤ d` features; NaN without rows.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for another number of classes, [`Error::Range`](crate::Error::Range) for a
    /// wider probe.
    pub fn squared_error(&self, probe: &LinearProbe) -> Result<f64> {
        let k = probe.weight.ncols();
        expect_shape("weight", &[self.classes(), k], probe.weight.shape())?;
        expect_shape("bias", &[self.classes()], probe.bias.shape())?;
        expect_range(k <= self.dim, "width of the probe", &format!("at most {}", self.dim), k)?;
        let (weight, bias) = (probe.weight.mapv(f64::from), probe.bias.mapv(f64::from)); // [c, k], [c]
        let (features, cross) = (self.features(), self.cross());
        let quadratic = (&weight.dot(&features.slice(s![..k, ..k])) * &weight).sum();
        let linear = (&weight.t() * &cross.slice(s![..k, ..])).sum();
        let miss = self.target_mean() - weight.dot(&self.feature_mean().slice(s![..k])) - bias;
        Ok((self.target_scatter() - 2.0 * linear + quadratic) / self.mass + miss.dot(&miss))
    }

    /// Number of features `d`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of classes `c`.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.mean.len() - self.dim
    }

    /// Number of rows with mass.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The total mass `W`.
    #[must_use]
    pub fn mass(&self) -> f64 {
        self.mass
    }

    /// Mass of every class, `[c]`.
    #[must_use]
    pub fn class_masses(&self) -> Array1<f64> {
        &self.target_mean() * self.mass
    }

    /// Mean of the features, `[d]`.
    pub(crate) fn feature_mean(&self) -> ArrayView1<'_, f64> {
        self.mean.slice(s![..self.dim])
    }

    /// Mean of the targets, `[c]`.
    pub(crate) fn target_mean(&self) -> Array1<f64> {
        self.mean.slice(s![self.dim..]).to_owned()
    }

    /// Scatter of the features, `[d, d]`, both triangles.
    pub(crate) fn features(&self) -> Array2<f64> {
        let d = self.dim;
        Array2::from_shape_fn((d, d), |(i, j)| self.scatter[[i.min(j), i.max(j)]])
    }

    /// `Σ w (x − mean)(y − mean)ᵀ`, `[d, c]`.
    pub(crate) fn cross(&self) -> ArrayView2<'_, f64> {
        self.scatter.slice(s![..self.dim, self.dim..])
    }

    /// Scatter of the targets, `[c, c]`, both triangles.
    fn targets(&self) -> Array2<f64> {
        let (c, d) = (self.classes(), self.dim);
        Array2::from_shape_fn((c, c), |(i, j)| self.scatter[[d + i.min(j), d + i.max(j)]])
    }

    /// `Σ w ‖y − mean‖²`.
    pub(crate) fn target_scatter(&self) -> f64 {
        self.scatter.diag().slice(s![self.dim..]).sum()
    }

    /// Fails if there is nothing to fit.
    pub(crate) fn check(&self) -> Result<()> {
        if self.rows == 0 {
            return Err(Error::Empty("set of labelled rows"));
        }
        Ok(())
    }
}

/// Tiles on and above the diagonal of a square of `side`.
fn tiles(side: usize) -> Vec<(Slice, Slice)> {
    let slice = |i: usize| Slice::from(i..(i + TILE).min(side));
    let starts = (0..side).step_by(TILE);
    starts.flat_map(|i| (i..side).step_by(TILE).map(move |j| (slice(i), slice(j)))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use ndarray::array;
    use rand::Rng;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    /// Rows with a common offset and soft targets, some of them unlabelled.
    pub(crate) fn data(n: usize, d: usize, c: usize, seed: u64) -> (Array2<f32>, Array2<f32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = || rng.random_range(-1.0..1.0_f32);
        let mixing = Array2::from_shape_simple_fn((d, d), &mut uniform);
        let rows = Array2::from_shape_simple_fn((n, d), &mut uniform).dot(&mixing) + 3.0; // [n, d]
        let masses = Array2::from_shape_fn((n, c), |(i, j)| {
            let pull = rows[[i, j % d]] - 3.0 + uniform();
            if i % 7 == 3 { 0.0 } else { (pull > 0.0) as u8 as f32 * 0.25 * (1 + i % 3) as f32 }
        });
        (rows, masses)
    }

    pub(crate) fn gram(rows: &Array2<f32>, masses: &Array2<f32>) -> Gram {
        let mut gram = Gram::new(rows.ncols(), masses.ncols());
        gram.add(rows.view(), masses.view()).unwrap();
        gram
    }

    fn close(a: &Array2<f64>, b: &Array2<f64>) {
        let largest = b.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        let worst = a.iter().zip(b).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs()));
        assert!(worst <= 1e-12 * largest, "{worst} of {largest}");
    }

    #[test]
    fn sums_are_those_of_the_definition() {
        let (rows, masses) = data(2100, 5, 3, 0);
        let gram = gram(&rows, &masses);
        let (x, m) = (rows.mapv(f64::from), masses.mapv(f64::from));
        let weights = m.sum_axis(Axis(1));
        let mass = weights.sum();
        let mean = weights.dot(&x) / mass;
        let centred = &x - &mean;
        let weighted = &centred * &weights.view().insert_axis(Axis(1));
        close(&gram.features(), &centred.t().dot(&weighted));
        close(&gram.cross().to_owned(), &centred.t().dot(&m));
        assert!((gram.mass() - mass).abs() < 1e-9 * mass);
        assert!((gram.class_masses() - m.sum_axis(Axis(0))).iter().all(|d| d.abs() < 1e-9));
        assert_eq!(gram.rows(), weights.iter().filter(|&&w| w > 0.0).count() as u64);
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let (rows, masses) = data(700, 4, 3, 1);
        let part = |range: std::ops::Range<usize>| {
            gram(&rows.slice(s![range.clone(), ..]).to_owned(), &masses.slice(s![range, ..]).to_owned())
        };
        let mut sum = Gram::new(4, 3);
        [part(0..100), part(100..101), part(101..700), Gram::new(4, 3)].iter().for_each(|p| sum.merge(p));
        let whole = gram(&rows, &masses);
        close(&sum.features(), &whole.features());
        close(&sum.cross().to_owned(), &whole.cross().to_owned());
        assert_eq!(sum.rows(), whole.rows());
    }

    #[test]
    fn a_projection_of_the_sums_is_the_sum_of_projections() {
        let (rows, masses) = data(500, 6, 3, 2);
        let mean = array![3.0, 2.5, 3.0, 0.0, 1.0, -1.0];
        let matrix = Array2::from_shape_fn((6, 4), |(i, j)| ((i * 4 + j) as f32).sin());
        let seen = (&rows.mapv(f64::from) - &mean.mapv(f64::from)).dot(&matrix.mapv(f64::from));
        let direct = gram(&seen.mapv(|x| x as f32), &masses);
        let projected = gram(&rows, &masses).project(mean.view(), matrix.view()).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-4 * (1.0 + b.abs());
        assert!(projected.features().iter().zip(&direct.features()).all(|(&a, &b)| near(a, b)));
        assert!(projected.cross().iter().zip(direct.cross()).all(|(&a, &b)| near(a, b)));
        assert!(projected.mean.iter().zip(&direct.mean).all(|(&a, &b)| near(a, b)));
        assert_eq!(projected.target_scatter(), gram(&rows, &masses).target_scatter());
    }

    #[test]
    fn a_dimension_of_a_projection_does_not_depend_on_those_beside_it() {
        let (rows, masses) = data(60, 40, 3, 5);
        let gram = gram(&rows, &masses);
        let (matrix, mean) = (data(40, 13, 1, 6).0, Array1::zeros(40));
        let wide = gram.project(mean.view(), matrix.view()).unwrap();
        for k in [1, 3, 6, 8] {
            let narrow = gram.project(mean.view(), matrix.slice(s![.., ..k])).unwrap();
            assert_eq!(narrow.features(), wide.features().slice(s![..k, ..k]), "{k} of 13");
            assert_eq!(narrow.cross(), wide.cross().slice(s![..k, ..]), "{k} of 13");
            let leading = wide.leading(k);
            assert_eq!(
                (narrow.features(), leading.cross().to_owned(), leading.feature_mean().to_owned()),
                (leading.features(), narrow.cross().to_owned(), narrow.feature_mean().to_owned())
            );
            assert_eq!(narrow.feature_mean(), wide.feature_mean().slice(s![..k]), "{k} of 13");
        }
    }

    #[test]
    fn the_error_of_a_probe_is_read_off_the_sums() {
        let (rows, masses) = data(300, 5, 3, 3);
        let weight = Array2::from_shape_fn((3, 4), |(i, j)| 0.1 * ((i * 4 + j) as f32).cos());
        let probe = LinearProbe { weight, bias: array![0.3, -0.2, 0.1] };
        let (mut sum, mut mass) = (0.0, 0.0);
        for (x, m) in rows.outer_iter().zip(masses.outer_iter()).filter(|(_, m)| m.sum() > 0.0) {
            let (w, m) = (f64::from(m.sum()), m.mapv(f64::from));
            let scores = probe.weight.dot(&x.slice(s![..4])) + &probe.bias;
            let miss = &m / w - scores.mapv(f64::from);
            sum += w * miss.dot(&miss);
            mass += w;
        }
        let read = gram(&rows, &masses).squared_error(&probe).unwrap();
        assert!((read - sum / mass).abs() < 1e-6, "{read} for {}", sum / mass);
    }

    #[test]
    fn offsets_cost_no_digits_and_threads_change_no_bits() {
        let (rows, masses) = data(2000, 130, 4, 4);
        let far = rows.mapv(|x| (f64::from(x) * 1024.0).round() as f32); // whole numbers, so that both sums are exact
        let shifted = far.mapv(|x| x + 1e6);
        let (near, off) = (gram(&far, &masses), gram(&shifted, &masses));
        let scale = near.features()[[0, 0]];
        assert!(near.features().iter().zip(&off.features()).all(|(a, b)| (a - b).abs() < 1e-9 * scale));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| gram(&rows, &masses))
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn misfits_are_refused_and_nothing_is_added() {
        let (mut rows, masses) = data(20, 3, 2, 5);
        let mut sums = Gram::new(3, 2);
        assert!(matches!(sums.check(), Err(Error::Empty(_))));
        assert!(sums.add(rows.slice(s![.., ..2]), masses.view()).is_err());
        assert!(sums.add(rows.view(), masses.slice(s![.., ..1])).is_err());
        assert!(sums.project(array![0.0].view(), Array2::zeros((3, 1)).view()).is_err());
        rows[[4, 1]] = f32::NAN;
        assert!(sums.add(rows.view(), masses.view()).is_err());
        assert_eq!(sums, Gram::new(3, 2));
    }
}
