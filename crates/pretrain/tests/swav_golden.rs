//! Agreement with SwAV's own program: Sinkhorn–Knopp in both published forms, and the loss with and without a queue.
//!
//! Runs over every case `11_swav_*` of the reference folder `$FEATLAB_GOLDEN`, where there is one. A tensor `NAME.f64` is the
//! better reference for `NAME`. The small numbers of the specification are checked everywhere.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test file: helpers outside `#[test]` are tests too"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pretrain::{
    FeatureQueue, Layout, Projector, ProjectorConfig, Sinkhorn, SinkhornBuffers, SinkhornForm, SwappedShape,
    nearest_centroids, spherical_kmeans, swapped_loss,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

type Tensors = BTreeMap<String, Vec<f64>>;

fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            Dtype::F32 => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect(),
            other => panic!("{name} has dtype {other:?}"),
        };
        (name.to_owned(), values)
    });
    tensors.collect()
}

fn floats(tensors: &Tensors, name: &str) -> Vec<f32> {
    tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}")).iter().map(|&x| x as f32).collect()
}

fn wanted<'a>(tensors: &'a Tensors, name: &str) -> &'a [f64] {
    tensors.get(&format!("{name}.f64")).or_else(|| tensors.get(name)).unwrap_or_else(|| panic!("no {name}"))
}

fn close(got: &[f32], want: &[f64], relative: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let limit = relative * want.iter().fold(0.0, |top: f64, x| top.max(x.abs())) + 1e-7;
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*got) - want).abs();
        assert!(
            off <= limit,
            "{what}: entry {i} is {got}, expected {want}, off by {off:e}, allowed {limit:e}"
        );
    }
}

/// Folder, `case.json`, inputs, expected.
fn cases(prefix: &str) -> Vec<(String, Value, Tensors, Tensors)> {
    let root = match std::env::var_os("FEATLAB_GOLDEN") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"),
    };
    let Ok(entries) = std::fs::read_dir(&root) else {
        println!("skipped: no reference folder at {}", root.display());
        return Vec::new();
    };
    let folders = entries.map(|entry| entry.unwrap().path());
    let folders: Vec<_> =
        folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix)).collect();
    assert!(!folders.is_empty(), "no case {prefix}* in {}", root.display());
    let case = |folder: PathBuf| {
        let json = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
        let tensors = |name: &str| read(&folder.join(name));
        (folder.display().to_string(), json, tensors("input.safetensors"), tensors("expected.safetensors"))
    };
    folders.into_iter().map(case).collect()
}

fn assign(sinkhorn: Sinkhorn, scores: &[f32], k: usize) -> Vec<f32> {
    let (mut buffers, mut out) = (SinkhornBuffers::default(), Vec::new());
    assert!(sinkhorn.assign(scores, k, scores.len() / k, &mut buffers, &mut out));
    out
}

#[test]
fn reference_assignments() {
    for (name, json, input, expected) in cases("11_swav_sinkhorn") {
        let k = usize::try_from(json["inputs"]["scores"][1][1].as_u64().unwrap()).unwrap();
        let tolerance = json["tolerance"]["rel_to_max"].as_f64().unwrap();
        let hot = json["tolerance"]["old_hot"]["rel_to_max"].as_f64().unwrap();
        let mut compared = 0;
        for key in expected.keys().filter(|key| !key.ends_with(".f64")) {
            let (form, rest) = key.split_once('.').unwrap();
            let (epsilon, iterations) = rest.rsplit_once('.').unwrap();
            let plain = Sinkhorn {
                epsilon: epsilon.parse().unwrap(),
                iterations: iterations.parse().unwrap(),
                ..Sinkhorn::default()
            };
            let old = Sinkhorn { form: SinkhornForm::Marginals, shoot_infs: true, ..plain };
            let log = Sinkhorn { form: SinkhornForm::Log, ..plain };
            let (scores, limit, forms) = match form {
                "new" => ("scores", tolerance, vec![plain, Sinkhorn { subtract_max: true, ..plain }, log]),
                "old" => ("scores", tolerance, vec![old, Sinkhorn { shoot_infs: false, ..old }]),
                _ => ("scores_hot", hot, vec![old]),
            };
            for form in forms {
                let got = assign(form, &floats(&input, scores), k);
                close(&got, wanted(&expected, key), limit, &format!("{key} of {name}, {form:?}"));
                compared += 1;
            }
        }
        assert!(compared > 30, "{compared}");
    }
}

/// Prototypes alone: a head of which nothing else is used.
fn prototypes(k: usize, d: usize) -> (Layout, Projector) {
    let (mut layout, mut buffers) = (Layout::default(), Layout::default());
    let config = ProjectorConfig { hidden_dim: 0, out_dim: d, prototypes: k };
    let projector = Projector::add(&mut layout, &mut buffers, d, &config, 1);
    (layout, projector)
}

/// What one step of the loss gives.
struct Step {
    loss: f64,
    scores: Vec<f32>,
    dz: Vec<f32>,
    dtable: Vec<f32>,
    table: Vec<f32>,
    assignments: Vec<f32>,
}

/// Scores, assignments, loss and gradients of embeddings `[V · B, d]`.
fn loss_step(
    z: &[f32],
    table: &[f32],
    (images, d): (usize, usize),
    sinkhorn: Sinkhorn,
    temperature: f64,
    queue: &mut FeatureQueue,
) -> Step {
    let (k, views) = (table.len() / d, z.len() / d / images);
    let (layout, projector) = prototypes(k, d);
    let slot = projector.tables()[0];
    let mut params = vec![0.0; layout.len()];
    slot.of_mut(&mut params).copy_from_slice(table);
    projector.normalize_prototypes(&mut params);
    let mut scores = Vec::new();
    projector.scores(&params, 0, z, &mut scores);
    let kept = scores.clone();
    let mut assignments = Vec::new();
    for view in 0..2 {
        let mut all = Vec::new();
        if queue.is_full(view) {
            projector.scores(&params, 0, queue.rows(view), &mut all);
        }
        all.extend_from_slice(&scores[view * images * k..][..images * k]);
        queue.push(view, &z[view * images * d..][..images * d]);
        let (mut buffers, mut out) = (SinkhornBuffers::default(), Vec::new());
        assert!(sinkhorn.assign(&all, k, images, &mut buffers, &mut out));
        assignments.extend(out);
    }
    let shape = SwappedShape { images, views, assigned: &[0, 1], temperature };
    let loss = swapped_loss(&mut scores, &assignments, shape, &mut Vec::new());
    let (mut grads, mut dz) = (vec![0.0; layout.len()], vec![0.0; z.len()]);
    projector.scores_backward(&params, &mut grads, 0, &scores, z, &mut dz);
    let (dtable, table) = (slot.of(&grads).to_vec(), slot.of(&params).to_vec());
    Step { loss, scores: kept, dz, dtable, table, assignments }
}

#[test]
fn reference_losses() {
    for (name, json, input, expected) in cases("11_swav_loss") {
        let params = &json["params"];
        let size = |name: &str| usize::try_from(params[name].as_u64().unwrap()).unwrap();
        let number = |name: &str| params[name].as_f64().unwrap();
        let (images, d) = (size("batch"), size("feat_dim"));
        let sinkhorn = Sinkhorn {
            epsilon: number("epsilon"),
            iterations: size("sinkhorn_iterations"),
            ..Sinkhorn::default()
        };
        let mut queue = FeatureQueue::new(2, size("queue_length"), images, d);
        if input.contains_key("queue") {
            let start = floats(&input, "queue");
            // Oldest first, so that the queue lies as given.
            for view in 0..2 {
                let rows = &start[view * queue.len() * d..][..queue.len() * d];
                rows.chunks_exact(images * d).rev().for_each(|batch| queue.push(view, batch));
            }
        }
        let tolerance = json["tolerance"]["rel_to_max"].as_f64().unwrap();
        let close = |got: &[f32], what: &str| {
            close(got, wanted(&expected, what), tolerance, &format!("{what} of {name}"))
        };
        let mut table = floats(&input, "prototypes");
        let steps = (0..).take_while(|step| input.contains_key(&format!("emb.{step}"))).count();
        assert!(steps >= 2);
        for step in 0..steps {
            let z = floats(&input, &format!("emb.{step}"));
            let got = loss_step(&z, &table, (images, d), sinkhorn, number("temperature"), &mut queue);
            close(&got.scores, &format!("scores.{step}"));
            close(&[got.loss as f32], &format!("loss.{step}"));
            close(&got.dz, &format!("grad_emb.{step}"));
            close(&got.dtable, &format!("grad_proto.{step}"));
            if !queue.is_empty() {
                close(&[queue.rows(0), queue.rows(1)].concat(), &format!("queue.{step}"));
            }
            table = got.table;
        }
        close(&table, "prototypes_normed");
    }
}

/// `S(shape; off)` of the specification with rows of length 1.
fn unit_rows(n: usize, d: usize, off: f64) -> Vec<f32> {
    let values: Vec<f64> = (0..n * d).map(|i| (i as f64 + off).sin()).collect();
    let row = |row: &[f64]| {
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter().map(|x| (x / length) as f32).collect::<Vec<_>>()
    };
    values.chunks_exact(d).flat_map(row).collect()
}

/// Specification 4.6: six embeddings, four prototypes, three views of two images.
#[test]
fn the_loss_of_the_specification_with_and_without_a_queue() {
    let (z, table) = (unit_rows(6, 5, 2.0), unit_rows(4, 5, 40.0));
    let sinkhorn = Sinkhorn { epsilon: 0.25, ..Sinkhorn::default() };
    let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let near = |got: f64, want: f64| assert!((got - want).abs() < 2e-5 * want, "{got} {want}");
    let mut queue = FeatureQueue::new(2, 0, 2, 5);
    let plain = loss_step(&z, &table, (2, 5), sinkhorn, 0.1, &mut queue);
    near(plain.loss, 10.041_632_814_9);
    near(norm(&plain.dtable), 5.431_718_890_5);
    near(norm(&plain.dz), 4.624_753_393_4);
    close(&plain.assignments[..4], &[0.518_251, 0.198_749, 0.016_562, 0.266_438], 1e-5, "q of view 0");
    let mut queue = FeatureQueue::new(2, 4, 2, 5);
    let rows = unit_rows(8, 5, 60.0);
    for view in 0..2 {
        queue.push(view, &rows[view * 20 + 10..][..10]);
        queue.push(view, &rows[view * 20..][..10]);
    }
    near(loss_step(&z, &table, (2, 5), sinkhorn, 0.1, &mut queue).loss, 12.995_726_625_4);
}

/// Scikit-learn's assignments and means, brought to length 1 between rounds (`tests/golden/pretrain/kmeans.py`).
#[test]
fn the_rounds_of_spherical_k_means_are_scikit_learns() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/pretrain/kmeans.safetensors");
    let tensors = read(&path);
    let rows = floats(&tensors, "rows");
    let labels = |name: &str| -> Vec<u32> { floats(&tensors, name).iter().map(|&x| x as u32).collect() };
    let start = floats(&tensors, "start");
    assert_eq!(nearest_centroids(&rows, &start, 8, &mut Vec::new()), labels("labels_before.1"));
    for rounds in [1, 10] {
        let mut centroids = start.clone();
        let nearest = spherical_kmeans(&rows, &mut centroids, 8, rounds);
        assert_eq!(nearest, labels(&format!("labels.{rounds}")), "{rounds} rounds");
        close(&centroids, wanted(&tensors, &format!("centroids.{rounds}")), 1e-5, "centroids");
        if rounds == 1 {
            let kept = centroids[32..40].iter().zip(&start[32..40]).all(|(a, b)| (a - b).abs() < 1e-6);
            assert!(kept, "an empty cluster keeps its centroid");
        }
    }
}
