//! Which ridge penalty for which number of features, out of a list.
//!
//! All of them are solved, one factorisation per penalty; what differs is the error that is made small. Generalised
//! cross-validation needs the sums alone, but takes rows to be independent, as does leaving out one row: patches of one
//! image are not, and both then choose too small a penalty. Sums of other images, or of several parts of the training
//! images each held out in turn, tell what is wanted, and cost no more than sums that are kept apart.

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::error::expect_range;
use crate::{Error, Gram, LinearProbe, Result, Ridge};

/// What a penalty is chosen by: each has an error to make small, always of squares.
#[derive(Debug, Clone, Copy)]
pub enum Selection<'a> {
    /// Generalised cross-validation, from the sums alone.
    Gcv,
    /// Exact leave-one-out over the rows of the sums, in memory: `rows` `[n, d]`, `masses` `[n, c]`.
    LeaveOneOut {
        /// `[n, d]`.
        rows: ArrayView2<'a, f32>,
        /// `[n, c]`.
        masses: ArrayView2<'a, f32>,
    },
    /// The error on other rows.
    Validation(&'a Gram),
    /// Cross-validation over parts of the training rows, each with its own sums: let an image, or a film, be in one part.
    Folds(&'a [Gram]),
}

/// Penalties to try and numbers of features to fit.
#[derive(Debug, Clone, PartialEq)]
pub struct RidgeParams {
    /// Values of `λ`, in any order; one needs no choice.
    pub lambdas: Vec<f64>,
    /// Values of `k`, in any order.
    pub dims: Vec<usize>,
}

/// The best penalty for one number of features.
#[derive(Debug, Clone, PartialEq)]
pub struct RidgeFit {
    /// `k`.
    pub dim: usize,
    /// The chosen `λ`.
    pub lambda: f64,
    /// The error of every `λ`, in the order of [`RidgeParams::lambdas`].
    pub errors: Vec<f64>,
    /// Of the first `k` features.
    pub probe: LinearProbe,
}

impl RidgeFit {
    /// The probe for tokens that are `scale` times the features of the sums: prefixes of a random projection to `m`
    /// dimensions, whose sums were taken at full width, have `scale = √(m / k)`.
    #[must_use]
    pub fn scaled_probe(&self, scale: f32) -> LinearProbe {
        LinearProbe { weight: &self.probe.weight / scale, bias: self.probe.bias.clone() }
    }
}

impl Default for RidgeParams {
    /// Eleven penalties from 1e-6 to 1e4 by tens; no dimensions.
    fn default() -> Self {
        Self { lambdas: (-6..=4).map(|power| 10f64.powi(power)).collect(), dims: Vec::new() }
    }
}

impl RidgeParams {
    /// The probes of all dimensions, in the order of [`RidgeParams::dims`]. Of equally good penalties the larger one is
    /// taken.
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) without rows, penalties, or folds with rows,
    /// [`Error::Range`](crate::Error::Range) and [`Error::Shape`](crate::Error::Shape) for what does not fit.
    ///
    /// ```
    /// use ndarray::array;
    /// use probe::{Gram, Probe, RidgeParams, Selection};
    ///
    /// let rows = array![[0.0, 1.0], [0.1, 0.0], [0.9, 1.0], [1.0, 0.0]]; // the first feature tells the class
    /// let masses = array![[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]];
    /// let mut gram = Gram::new(2, 2);
    /// gram.add(rows.view(), masses.view())?;
    /// let params = RidgeParams { lambdas: vec![0.01, 1.0], dims: vec![1, 2] };
    /// let fits = params.fit(&gram, Selection::Gcv)?;
    /// let scores = fits[0].probe.scores(array![[0.2], [0.8]].view());
    /// assert!(scores[[0, 0]] > scores[[0, 1]] && scores[[1, 0]] < scores[[1, 1]]);
    /// # Ok::<(), probe::Error>(())
    /// ```
    pub fn fit(&self, gram: &Gram, selection: Selection<'_>) -> Result<Vec<RidgeFit>> {
        if self.lambdas.is_empty() {
            return Err(Error::Empty("list of ridge penalties"));
        }
        let expected = format!("1 to {}, the number of features", gram.dim());
        let fits = |&k: &usize| expect_range((1..=gram.dim()).contains(&k), "dimension", &expected, k);
        self.dims.iter().try_for_each(fits)?;
        let solved = self.solve(gram)?;
        let errors = self.errors(&solved, selection)?; // [λ][k]
        let best = |at: usize| {
            let order = |&a: &usize, &b: &usize| {
                errors[a][at].total_cmp(&errors[b][at]).then(self.lambdas[b].total_cmp(&self.lambdas[a]))
            };
            (0..self.lambdas.len()).min_by(order).unwrap_or_default()
        };
        let fit = |(at, &dim): (usize, &usize)| RidgeFit {
            dim,
            lambda: self.lambdas[best(at)],
            errors: errors.iter().map(|errors| errors[at]).collect(),
            probe: solved[best(at)].probe(dim),
        };
        Ok(self.dims.iter().enumerate().map(fit).collect())
    }

    /// One factorisation per penalty.
    fn solve(&self, gram: &Gram) -> Result<Vec<Ridge>> {
        self.lambdas.par_iter().map(|&lambda| Ridge::new(gram, lambda)).collect()
    }

    /// The error of every penalty at every dimension.
    fn errors(&self, solved: &[Ridge], selection: Selection<'_>) -> Result<Vec<Vec<f64>>> {
        let each = |ridge: &Ridge, of: &dyn Fn(&Ridge, usize) -> Result<f64>| {
            self.dims.iter().map(|&k| of(ridge, k)).collect::<Result<Vec<f64>>>()
        };
        match selection {
            Selection::Gcv => solved.iter().map(|ridge| each(ridge, &|ridge, k| Ok(ridge.gcv(k)))).collect(),
            Selection::Validation(gram) => {
                gram.check()?;
                let error = |ridge: &Ridge, k| gram.squared_error(&ridge.probe(k));
                solved.iter().map(|ridge| each(ridge, &error)).collect()
            }
            Selection::LeaveOneOut { rows, masses } => {
                let errors = |ridge: &Ridge| {
                    let sums = ridge.leave_one_out(rows, masses)?;
                    each(ridge, &|ridge, k| Ok(sums[k - 1] / ridge.mass))
                };
                solved.iter().map(errors).collect()
            }
            Selection::Folds(folds) => self.over_folds(folds),
        }
    }

    /// Every fold predicted by the fit of the others.
    fn over_folds(&self, folds: &[Gram]) -> Result<Vec<Vec<f64>>> {
        let folds: Vec<&Gram> = folds.iter().filter(|fold| fold.rows() > 0).collect();
        if folds.len() < 2 {
            return Err(Error::Empty("list of two folds with labelled rows"));
        }
        let mass: f64 = folds.iter().map(|fold| fold.mass()).sum();
        let mut errors = vec![vec![0.0; self.dims.len()]; self.lambdas.len()];
        for (held, fold) in folds.iter().enumerate() {
            let mut others = Gram::new(fold.dim(), fold.classes());
            (folds.iter().enumerate().filter(|&(i, _)| i != held)).for_each(|(_, other)| others.merge(other));
            for (errors, ridge) in errors.iter_mut().zip(self.solve(&others)?) {
                for (error, &k) in errors.iter_mut().zip(&self.dims) {
                    *error += fold.squared_error(&ridge.probe(k))? * fold.mass() / mass;
                }
            }
        }
        Ok(errors)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, Axis, s};

    use super::*;
    use crate::Probe;
    use crate::gram::tests::{data, gram};

    #[test]
    fn every_selection_avoids_fitting_noise() {
        // Few rows, many useless features: no penalty at all fits noise.
        let (mut rows, _) = data(60, 24, 2, 4);
        let masses =
            Array2::from_shape_fn((60, 2), |(i, j)| f32::from(u8::from((i % 2 == j) != (i % 5 == 1))));
        rows.column_mut(0).iter_mut().enumerate().for_each(|(i, x)| *x = 5.0 * (i % 2) as f32 + 0.2 * *x);
        let part = |keep: &dyn Fn(usize) -> bool| {
            let at: Vec<usize> = (0..60).filter(|&i| keep(i)).collect();
            gram(&rows.select(Axis(0), &at), &masses.select(Axis(0), &at))
        };
        let (train, other) = (part(&|i| i < 44), part(&|i| i >= 44));
        let folds: Vec<Gram> = (0..4).map(|f| part(&|i| i < 44 && i / 2 % 4 == f)).collect();
        let (some_rows, some_masses) = (rows.slice(s![..44, ..]), masses.slice(s![..44, ..]));
        let params = RidgeParams { lambdas: vec![0.0, 1e-2, 1.0, 1e6], dims: vec![24, 1] };
        let all = [
            Selection::Gcv,
            Selection::LeaveOneOut { rows: some_rows, masses: some_masses },
            Selection::Validation(&other),
            Selection::Folds(&folds),
        ];
        for selection in all {
            let fits = params.fit(&train, selection).unwrap();
            assert_eq!((fits[0].dim, fits[1].dim), (24, 1));
            assert!([1e-2, 1.0].contains(&fits[0].lambda), "{selection:?} chose {}", fits[0].lambda);
            let chosen = other.squared_error(&fits[0].probe).unwrap();
            let none = other.squared_error(&Ridge::new(&train, 0.0).unwrap().probe(24)).unwrap();
            assert!(chosen < 0.8 * none, "{chosen} and {none}");
        }
    }

    #[test]
    fn a_scaled_probe_sees_scaled_tokens_as_before() {
        let (rows, masses) = data(80, 4, 3, 6);
        let params = RidgeParams { lambdas: vec![0.1], dims: vec![3] };
        let fit = &params.fit(&gram(&rows, &masses), Selection::Gcv).unwrap()[0];
        let tokens = rows.slice(s![.., ..3]);
        let (a, b) =
            (fit.probe.scores(tokens), fit.scaled_probe(4.0).scores(tokens.mapv(|x| 4.0 * x).view()));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn of_equal_errors_the_larger_penalty_is_taken() {
        // Targets that do not vary: every penalty is right.
        let (rows, _) = data(50, 3, 1, 7);
        let params = RidgeParams { lambdas: vec![0.1, 10.0, 1.0], dims: vec![2] };
        let fits = params.fit(&gram(&rows, &Array2::ones((50, 1))), Selection::Gcv).unwrap();
        assert_eq!((fits[0].lambda, fits[0].errors.len()), (10.0, 3));
    }

    #[test]
    fn misfits_are_refused() {
        let (rows, masses) = data(30, 3, 2, 5);
        let gram = gram(&rows, &masses);
        let fit = |lambdas: &[f64], dims: &[usize]| {
            RidgeParams { lambdas: lambdas.to_vec(), dims: dims.to_vec() }
                .fit(&gram, Selection::Gcv)
                .map(drop)
        };
        assert!(matches!(fit(&[], &[1]), Err(Error::Empty(_))));
        assert!(matches!(fit(&[0.1], &[4]), Err(Error::Range { what: "dimension", .. })));
        let params = RidgeParams { lambdas: vec![0.1], dims: vec![1] };
        assert!(matches!(
            params.fit(&gram, Selection::Folds(std::slice::from_ref(&gram))),
            Err(Error::Empty(_))
        ));
    }
}
