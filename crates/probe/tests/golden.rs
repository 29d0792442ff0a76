//! Agreement with PyTorch (losses, gradients, Adam), SciPy (matching) and scikit-learn (scores).
//!
//! The same assertions run over our own numbers (`tests/golden/probe`, with the script that made them) and over
//! every case `04_probes_*` and `05_metrics_*` of the reference folder `$FEATLAB_GOLDEN`, where there is one. What
//! varies between cases is read from their `case.json` and their shapes. A tensor `NAME.f64` is the better reference
//! for `NAME` and replaces it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test file: helpers outside `#[test]` are tests too"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3, ArrayD, ArrayView3, Axis, Ix1, Ix2, Ix4};
use probe::{
    Adam, ClusterProbe, ConfusionMatrix, LinearProbe, Probe, hungarian, masked_cross_entropy_upsampled,
    upsample_argmax,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Tensors by name, as `f64`.
type Tensors = BTreeMap<String, ArrayD<f64>>;

/// One folder: what to compute from what, and how near it must come.
struct Case {
    folder: PathBuf,
    json: Value,
    input: Tensors,
    expected: Tensors,
}

#[test]
fn own_probes() {
    check_probes(&Case::load(&own().join("probes")));
}

#[test]
fn own_metrics() {
    for name in ["metrics_plain", "metrics_absent", "metrics_extra", "metrics_linear"] {
        check_metrics(&Case::load(&own().join(name)));
    }
}

#[test]
fn assignments_are_those_of_scipy_ties_included() {
    let tensors = load(&own().join("assignments.safetensors"));
    let shapes: Vec<&str> = tensors.keys().filter_map(|name| name.strip_suffix(".counts")).collect();
    assert_eq!(shapes.len(), 6);
    for shape in shapes {
        let all = tensors[&format!("{shape}.counts")].outer_iter();
        for (i, (counts, expected)) in
            all.zip(tensors[&format!("{shape}.class_of_cluster")].outer_iter()).enumerate()
        {
            let counts = counts.into_dimensionality::<Ix2>().unwrap().mapv(|v| v as u64);
            let class_of_cluster = hungarian(&ConfusionMatrix::from_counts(counts)).class_of_cluster;
            let expected: Vec<_> = expected.iter().map(|&class| usize::try_from(class as i64).ok()).collect();
            assert_eq!(class_of_cluster, expected, "{shape}, matrix {i}");
        }
    }
}

#[test]
fn reference_probes() {
    reference_cases("04_probes_").iter().for_each(check_probes);
}

#[test]
fn reference_metrics() {
    reference_cases("05_metrics_").iter().for_each(check_metrics);
}

// Probes

fn check_probes(case: &Case) {
    let probe = LinearProbe { weight: matrix(&case.input["weight"]), bias: vector(&case.input["bias"]) };
    let clusters = ClusterProbe { centres: matrix(&case.input["clusters"]) };
    assert_eq!(Some(probe.outputs() as u64), case.json["params"]["n_classes"].as_u64());
    let (tokens, grid) = tokens(&case.input["code0"]);
    let labels = labels(&case.input["label0"]);
    let rel = case.tolerance("/rel_to_max");
    check_cluster_loss(case, &clusters, &tokens, grid, rel);
    check_linear_loss(case, &probe, &tokens, grid, labels.view(), rel);
    check_adam(case, probe, clusters);
}

fn check_cluster_loss(
    case: &Case,
    probe: &ClusterProbe,
    tokens: &Array3<f32>,
    grid: (usize, usize),
    rel: f64,
) {
    let (b, t, k) = tokens.dim();
    let rows = tokens.view().into_shape_with_order((b * t, k)).unwrap();
    for (name, alpha) in [("alpha_none", None), ("alpha_2", Some(2.0))] {
        let out = probe.loss(rows, alpha).unwrap();
        case.close(&format!("cluster.{name}.loss"), &scalar(out.loss), rel);
        case.close(&format!("cluster.{name}.probs"), &image_maps(out.probabilities, b, grid), rel);
        case.close(&format!("cluster.{name}.grad_clusters"), &f64s(out.grad_centres), rel);
        case.close(&format!("cluster.{name}.grad_x"), &image_maps(out.grad_tokens, b, grid), rel);
        let training = probe.gradient(tokens.view(), alpha).unwrap();
        case.close(&format!("cluster.{name}.loss"), &scalar(training.loss), rel);
        case.close(&format!("cluster.{name}.grad_clusters"), &f64s(training.centres), rel);
    }
    let log_probs = probe.log_probs(rows, 3.0).unwrap();
    case.close("cluster.log_probs_alpha_3", &image_maps(log_probs, b, grid), rel);
}

fn check_linear_loss(
    case: &Case,
    probe: &LinearProbe,
    tokens: &Array3<f32>,
    grid: (usize, usize),
    labels: ArrayView3<'_, u8>,
    rel: f64,
) {
    let (b, t, k) = tokens.dim();
    let rows = tokens.view().into_shape_with_order((b * t, k)).unwrap();
    let logits = probe.scores(rows).into_shape_with_order((b, t, probe.outputs())).unwrap();
    let out = masked_cross_entropy_upsampled(logits.view(), grid, labels).unwrap();
    case.close("linear.loss", &scalar(out.loss.unwrap()), rel);
    let grad_logits = out.grad_logits.into_shape_with_order((b * t, probe.outputs())).unwrap();
    case.close("linear.grad_x", &image_maps(grad_logits.dot(&probe.weight), b, grid), rel);
    let out = probe.gradient(tokens.view(), grid, labels).unwrap();
    case.close("linear.loss", &scalar(out.loss.unwrap()), rel);
    case.close("linear.grad_weight", &f64s(out.weight), rel);
    case.close("linear.grad_bias", &f64s(out.bias), rel);
    // Upsampled logits exist nowhere here but in their argmax.
    let up = case.expected["linear.logits_up_first"].index_axis(Axis(0), 0).to_owned(); // [c, h, w]
    let best = up
        .map_axis(Axis(0), |scores| (0..scores.len()).rev().max_by(|&i, &j| scores[i].total_cmp(&scores[j])));
    let (h, w) = (up.shape()[1], up.shape()[2]);
    let first = upsample_argmax(logits.index_axis(Axis(0), 0), grid, (h, w));
    let best = best.into_dimensionality::<Ix2>().unwrap().mapv(|class| class.unwrap() as f64);
    assert_agreement("linear.logits_up_first", first.mapv(f64::from).iter(), best.iter(), case);
}

fn check_adam(case: &Case, mut probe: LinearProbe, mut clusters: ClusterProbe) {
    let rate = case.json["params"]["lr"].as_f64().unwrap() as f32;
    let mut adam = [probe.weight.len(), probe.bias.len(), clusters.centres.len()].map(|n| Adam::new(rate, n));
    let (after_one, after_ten) =
        (case.tolerance("/rel_to_max"), case.tolerance("/after_10_steps/rel_to_max"));
    let mut losses = Array2::zeros((10, 2));
    for step in 0..10 {
        let (tokens, grid) = tokens(&case.input[&format!("code{}", step % 2)]);
        let labels = labels(&case.input[&format!("label{}", step % 2)]);
        let linear = probe.gradient(tokens.view(), grid, labels.view()).unwrap();
        let cluster = clusters.gradient(tokens.view(), None).unwrap();
        losses[[step, 0]] = linear.loss.unwrap();
        losses[[step, 1]] = cluster.loss;
        adam[0].step(probe.weight.as_slice_mut().unwrap(), linear.weight.as_slice().unwrap());
        adam[1].step(probe.bias.as_slice_mut().unwrap(), linear.bias.as_slice().unwrap());
        adam[2].step(clusters.centres.as_slice_mut().unwrap(), cluster.centres.as_slice().unwrap());
        if step == 0 || step == 9 {
            let rel = if step == 0 { after_one } else { after_ten };
            case.close(&format!("adam.step{}.weight", step + 1), &f64s(probe.weight.clone()), rel);
            case.close(&format!("adam.step{}.bias", step + 1), &f64s(probe.bias.clone()), rel);
            case.close(&format!("adam.step{}.clusters", step + 1), &f64s(clusters.centres.clone()), rel);
        }
    }
    case.close("adam.losses", &losses.into_dyn(), after_ten);
    check_predictions(case, &probe, "val.linear_pred");
    check_predictions(case, &clusters, "val.cluster_pred");
}

/// Predictions of the probe as it is after the last step.
fn check_predictions(case: &Case, probe: &dyn Probe, name: &str) {
    let (tokens, grid) = tokens(&case.input["code0"]);
    let expected = &case.expected[name]; // [b, h, w]
    let size = (expected.shape()[1], expected.shape()[2]);
    let maps = tokens.outer_iter().map(|tokens| upsample_argmax(probe.scores(tokens).view(), grid, size));
    let predicted: Vec<f64> = maps.flat_map(|map| map.into_iter().map(f64::from)).collect();
    assert_agreement(name, predicted.iter(), expected.iter(), case);
}

fn assert_agreement<'a>(
    name: &str,
    predicted: impl ExactSizeIterator<Item = &'a f64>,
    expected: impl ExactSizeIterator<Item = &'a f64>,
    case: &Case,
) {
    let rule = case.json["tolerance"]["val_pred"].as_str().unwrap();
    let limit: f64 = rule.strip_prefix("agreement >= ").unwrap().parse().unwrap();
    let n = expected.len();
    assert_eq!(predicted.len(), n, "{name}");
    let same = predicted.zip(expected).filter(|(a, b)| a == b).count();
    assert!(same as f64 >= limit * n as f64, "{name} of {}: {same} of {n} agree", case.folder.display());
}

// Metrics

fn check_metrics(case: &Case) {
    let number = |key: &str| case.json["params"][key].as_u64().unwrap() as usize;
    let (c, m) = (number("n_classes"), number("n_classes") + number("extra_clusters"));
    let mut counts = ConfusionMatrix::new(c, m);
    let (targets, preds) = (&case.input["targets"], &case.input["preds"]); // [updates, b, h, w]
    for (targets, preds) in targets.outer_iter().zip(preds.outer_iter()) {
        let (targets, preds) = (labels(&targets.to_owned()), labels(&preds.to_owned()));
        for (truth, predicted) in targets.outer_iter().zip(preds.outer_iter()) {
            counts.add(truth, predicted).unwrap();
        }
    }
    case.exact("stats_all", &transposed(&counts));
    // The published rule: what was predicted as an extra cluster is not counted.
    let mut kept = counts.counts().to_owned();
    kept.slice_mut(ndarray::s![.., c..]).fill(0);
    let counts = ConfusionMatrix::from_counts(kept);
    case.exact("stats", &transposed(&counts));
    let mut result = counts.clone();
    if case.json["params"]["hungarian"].as_bool().unwrap() {
        let assignment = hungarian(&counts);
        let classes =
            assignment.class_of_cluster.iter().map(|class| class.map_or(-1.0, |class| class as f64));
        case.exact("map_clusters", &ArrayD::from_shape_vec(vec![m], classes.collect()).unwrap());
        let pairs =
            assignment.class_of_cluster.iter().enumerate().filter_map(|(n, class)| Some((n, (*class)?)));
        let (clusters, classes): (Vec<f64>, Vec<f64>) =
            pairs.map(|(n, class)| (n as f64, class as f64)).unzip();
        case.exact("assign_cluster", &ndarray::Array1::from(clusters).into_dyn());
        case.exact("assign_class", &ndarray::Array1::from(classes).into_dyn());
        result = counts.matched(&assignment);
        let matched = result.counts().diag().sum() as f64;
        case.exact("assigned_total", &ndarray::arr1(&[matched]).into_dyn());
    }
    // The original adds an empty class for the clusters that have none; here they only have a column.
    let mut histogram = transposed(&result).into_dimensionality::<Ix2>().unwrap();
    for _ in c..histogram.nrows() {
        histogram.push_column(ndarray::Array1::zeros(histogram.nrows()).view()).unwrap();
    }
    case.exact("histogram", &histogram.into_dyn());
    check_scores(case, &result);
}

fn check_scores(case: &Case, counts: &ConfusionMatrix) {
    let atol = case.tolerance("/floats/atol");
    let near = |name: &str, i: usize, value: Option<f64>| {
        let (value, expected) = (value.map_or(f64::NAN, |value| 100.0 * value), case.expected[name][[i]]);
        let same = (value - expected).abs() <= atol || value.is_nan() && expected.is_nan();
        assert!(same, "{name} of {}, class {i}: {value}, expected {expected}", case.folder.display());
    };
    let scores = counts.scores();
    near("accuracy_pct", 0, Some(scores.accuracy));
    near("miou_pct", 0, Some(scores.mean_iou));
    for class in 0..counts.classes() {
        near("iou_pct", class, scores.per_class_iou[class]);
        // The reference has the two names the other way round.
        near("recall_pct", class, scores.precision[class]);
        near("precision_pct", class, scores.recall[class]);
    }
    let beyond = case.expected["iou_pct"].iter().skip(counts.classes());
    assert!(beyond.into_iter().all(|iou| iou.is_nan()), "the class of unmatched clusters has a score");
}

fn transposed(counts: &ConfusionMatrix) -> ArrayD<f64> {
    counts.counts().t().mapv(|count| count as f64).into_dyn()
}

// Conversions

/// A feature map `[b, k, gh, gw]` as tokens `[b, t, k]`, and its grid.
fn tokens(code: &ArrayD<f64>) -> (Array3<f32>, (usize, usize)) {
    let code = code.view().into_dimensionality::<Ix4>().unwrap();
    let (b, k, gh, gw) = code.dim();
    let tokens = Array3::from_shape_fn((b, gh * gw, k), |(b, t, k)| code[[b, k, t / gw, t % gw]] as f32);
    (tokens, (gh, gw))
}

/// Rows `[b·t, k]` as feature maps `[b, k, gh, gw]`.
fn image_maps(rows: Array2<f32>, b: usize, (gh, gw): (usize, usize)) -> ArrayD<f64> {
    let k = rows.ncols();
    let maps = rows.into_shape_with_order((b, gh, gw, k)).unwrap();
    maps.permuted_axes([0, 3, 1, 2]).mapv(f64::from).into_dyn()
}

/// Integer labels as bytes, negative ones as 255.
fn labels(labels: &ArrayD<f64>) -> Array3<u8> {
    let bytes = labels.mapv(|label| if label < 0.0 { 255 } else { u8::try_from(label as u64).unwrap() });
    bytes.into_dimensionality().unwrap()
}

/// `[r, c]` or `[r, c, 1, 1]`.
fn matrix(values: &ArrayD<f64>) -> Array2<f32> {
    let shape = (values.shape()[0], values.shape()[1]);
    Array2::from_shape_vec(shape, values.iter().map(|&v| v as f32).collect()).unwrap()
}

fn vector(values: &ArrayD<f64>) -> ndarray::Array1<f32> {
    values.mapv(|v| v as f32).into_dimensionality::<Ix1>().unwrap()
}

fn f64s<D: ndarray::Dimension>(values: ndarray::Array<f32, D>) -> ArrayD<f64> {
    values.mapv(f64::from).into_dyn()
}

fn scalar(value: f64) -> ArrayD<f64> {
    ndarray::arr0(value).into_dyn()
}

// Cases

impl Case {
    fn load(folder: &Path) -> Self {
        let json = std::fs::read(folder.join("case.json")).unwrap();
        Self {
            folder: folder.to_owned(),
            json: serde_json::from_slice(&json).unwrap(),
            input: load(&folder.join("input.safetensors")),
            expected: load(&folder.join("expected.safetensors")),
        }
    }

    fn tolerance(&self, pointer: &str) -> f64 {
        self.json["tolerance"].pointer(pointer).unwrap().as_f64().unwrap()
    }

    /// `max|y - reference| <= rel · max|reference| + abs_floor`, where the shapes may differ by axes of length 1.
    fn close(&self, name: &str, y: &ArrayD<f64>, rel: f64) {
        let reference = self.expected.get(&format!("{name}.f64")).unwrap_or(&self.expected[name]);
        assert_eq!(y.len(), reference.len(), "{name}");
        let floor = self.json["tolerance"]["abs_floor"].as_f64().unwrap_or(1e-7);
        let limit = rel * reference.fold(0.0, |max: f64, v| max.max(v.abs())) + floor;
        for (i, (value, expected)) in y.iter().zip(reference).enumerate() {
            let off = (value - expected).abs();
            assert!(
                off <= limit,
                "{name} of {}: entry {i} is {off:e} off, allowed {limit:e}",
                self.folder.display()
            );
        }
    }

    fn exact(&self, name: &str, y: &ArrayD<f64>) {
        assert_eq!(y, &self.expected[name], "{name} of {}", self.folder.display());
    }
}

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/probe")
}

fn reference_cases(prefix: &str) -> Vec<Case> {
    let root = match std::env::var_os("FEATLAB_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"),
    };
    let Ok(entries) = std::fs::read_dir(&root) else {
        println!("skipped: no reference folder at {}", root.display());
        return Vec::new();
    };
    let folders = entries.map(|entry| entry.unwrap().path());
    let matching = folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix));
    matching.map(|folder| Case::load(&folder)).collect()
}

fn load(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
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
