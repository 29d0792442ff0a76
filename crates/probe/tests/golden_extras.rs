//! Agreement of ridge probes and k-means with scikit-learn, and of boundary bands with SciPy's erosion, on the numbers
//! of `tests/golden/probe_extras` (with the script that made them).

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` are tests too")]

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{Array1, Array2, ArrayD, Ix2, s};
use probe::{BoundaryParams, Gram, KMeansMetric, KMeansParams, Ridge};
use safetensors::{Dtype, SafeTensors};

fn load(name: &str) -> BTreeMap<String, ArrayD<f64>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/probe_extras").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        let data = view.data();
        let values: Vec<f64> = match view.dtype() {
            Dtype::F64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
            Dtype::U8 => data.iter().map(|&v| v.into()).collect(),
            other => panic!("{name} has dtype {other:?}"),
        };
        (name.to_owned(), ArrayD::from_shape_vec(view.shape(), values).unwrap())
    });
    tensors.collect()
}

fn matrix(values: &ArrayD<f64>) -> Array2<f32> {
    values.mapv(|x| x as f32).into_dimensionality::<Ix2>().unwrap()
}

#[test]
fn ridge_is_that_of_scikit_learn() {
    let case = load("ridge.safetensors");
    let (rows, masses) = (matrix(&case["rows"]), matrix(&case["masses"]));
    let (d, c) = (rows.ncols(), masses.ncols());
    let mut gram = Gram::new(d, c);
    gram.add(rows.view(), masses.view()).unwrap();
    // The case gives penalties as they are added to the sums; ours are in units of the mean diagonal entry.
    let total = scatter_trace(&rows, &masses);
    for (a, alpha) in case["alphas"].iter().enumerate() {
        let ridge = Ridge::new(&gram, alpha * d as f64 / total).unwrap();
        let left_out = ridge.leave_one_out(rows.view(), masses.view()).unwrap() / gram.mass();
        for k in 1..=d {
            let probe = ridge.probe(k);
            let near = |got: f32, expected: f64| {
                assert!(
                    (f64::from(got) - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                    "{got} for {expected}"
                );
            };
            for i in 0..c {
                (0..k).for_each(|j| near(probe.weight[[i, j]], case["weight"][[a, k - 1, i, j]]));
                near(probe.bias[i], case["bias"][[a, k - 1, i]]);
            }
            let (got, expected) = (left_out[k - 1], case["left_out"][[a, k - 1]]);
            assert!((got - expected).abs() < 1e-7 * expected, "alpha {alpha}, k {k}: {got} for {expected}");
        }
    }
}

/// Sum of the diagonal of the weighted scatter, by its definition.
fn scatter_trace(rows: &Array2<f32>, masses: &Array2<f32>) -> f64 {
    let weights: Array1<f64> = masses.outer_iter().map(|m| m.mapv(f64::from).sum()).collect();
    let x = rows.mapv(f64::from);
    let mean = weights.dot(&x) / weights.sum();
    x.outer_iter().zip(&weights).map(|(x, w)| w * (&x - &mean).mapv(|x| x * x).sum()).sum()
}

#[test]
fn kmeans_finds_what_scikit_learn_finds() {
    let case = load("kmeans.safetensors");
    let rows = matrix(&case["rows"]);
    let m = case["clusters"][[0]] as usize;
    let params =
        KMeansParams { restarts: 50, tolerance: 0.0, ..KMeansParams::new(m, KMeansMetric::Euclidean) };
    let fitted = params.fit(rows.view()).unwrap();
    let (got, expected) = (fitted.inertia * rows.nrows() as f64, case["inertia"][[0]]);
    assert!((got - expected).abs() < 1e-5 * expected, "{got} for {expected}");
}

#[test]
fn bands_are_those_of_an_erosion() {
    let case = load("boundary.safetensors");
    let c = case["classes"][[0]] as usize;
    let maps = |name: &str| case[name].mapv(|label| label as u8);
    let (truth, predicted) = (maps("truth"), maps("predicted"));
    for (i, (truth, predicted)) in truth.outer_iter().zip(predicted.outer_iter()).enumerate() {
        let (truth, predicted) =
            (truth.into_dimensionality::<Ix2>().unwrap(), predicted.into_dimensionality::<Ix2>().unwrap());
        for (j, &width) in case["widths"].iter().enumerate() {
            let counts = BoundaryParams { classes: c, width }.count(truth, predicted).unwrap();
            let counts = counts.counts();
            for class in 0..c {
                let got = [counts[[class, class]], counts.row(class).sum(), counts.column(class).sum()];
                let expected = case["counts"].slice(s![i, j, class, ..]).mapv(|count| count as u64);
                assert_eq!(&got[..], expected.as_slice().unwrap(), "image {i}, width {width}, class {class}");
            }
        }
    }
}
