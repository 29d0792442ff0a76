//! Commuted evaluation equals the literal one on features of pictures, with probes that were trained on them.

use std::fs;
use std::path::{Path, PathBuf};

use featcache::{Cache, Store, StreamOptions};
use ndarray::{Array2, Array3, Axis, s, stack};
use probe::{BankCell, BankParams, BankProbe, BankScorer, BankSet, CellKind, RowSet, Schedule};

use crate::fixture::{Scratch, expect, featlab};
use crate::literal::Agreement;

/// Tokens `[n, t, d]` and labels `[n, h, w]` of a cache, and its grid.
fn features(cache: &Path) -> (Array3<f32>, Array3<u8>, (usize, usize)) {
    let cache = Cache::open(Store::open(cache.to_str().unwrap()).unwrap()).unwrap();
    let rows: Vec<_> = cache.stream(&StreamOptions::default()).unwrap().map(Result::unwrap).collect();
    let tokens: Vec<Array2<f32>> = rows.iter().map(featcache::Record::tokens_f32).collect();
    let labels: Vec<_> = rows.iter().map(|row| row.label().unwrap()).collect();
    let views: Vec<_> = tokens.iter().map(Array2::view).collect();
    (stack(Axis(0), &views).unwrap(), stack(Axis(0), &labels).unwrap(), cache.layout().grid)
}

/// Trains probes of several dimensions and seeds, and holds their predictions against the literal evaluation.
fn check(what: &str, cache: &Path, classes: usize) {
    let (tokens, labels, grid) = features(cache);
    let (n, _, width) = tokens.dim();
    let set = RowSet { tokens: tokens.view(), grid, labels: labels.view() };
    let mut cells = Vec::new();
    for dim in [3, 24, width] {
        for seed in [0, 1] {
            for kind in [CellKind::Linear, CellKind::Cluster(classes)] {
                cells.push(BankCell { source: 0, dim, scale: 1.0, kind, seed });
            }
        }
    }
    let schedule = Schedule { steps: 30, batch_size: 4, ..Schedule::default() };
    let params = BankParams { schedule, class_weights: vec![1.0; classes] };
    let trained = params.fit(&set, &cells, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    let trained: Vec<BankProbe> = trained.into_iter().map(Result::unwrap).collect();
    let pairs: Vec<_> = cells.iter().copied().zip(&trained).collect();
    let scorer = BankScorer::new(&pairs, classes);
    let indices: Vec<usize> = (0..n).collect();
    let batch = set.batch(&indices).unwrap();
    let mut all = Agreement::default();
    for i in 0..n.min(4) {
        let tokens = tokens.index_axis(Axis(0), i);
        let visit = &mut |cell: usize, map: Array2<u8>| {
            let (of, probe) = pairs[cell];
            let alone = probe.predict(tokens.slice(s![.., ..of.dim]), grid, set.label_size());
            all.add(pairs[cell], tokens, grid, &[map, alone]);
        };
        scorer.image(&set, &*batch, i, visit).unwrap();
    }
    all.conclude(what);
}

fn extract(dataset: &str, split: &str, out: &Path) {
    let mut command = featlab();
    command.args(["extract", "--dataset", dataset, "--split", split, "--backbone", "embedded:scenes-micro"]);
    expect(command.args(["--res", "96", "--dtype", "f32", "--out"]).arg(out), 0);
}

#[test]
fn drawn_scenes_are_predicted_as_if_features_had_been_upsampled() {
    let scratch = Scratch::new();
    let out = scratch.path("scenes");
    extract("scenes:train=6,val=1,size=96", "train", &out);
    check("drawn scenes", &out, 11);
}

#[test]
fn street_scenes_are_predicted_as_if_features_had_been_upsampled() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let root = std::env::var_os("FEATLAB_DATA").map_or(default, PathBuf::from).join("camvid");
    if !root.is_dir() {
        println!("skipped: no CamVid at {}", root.display());
        return;
    }
    let (scratch, few) = (Scratch::new(), ["images/val", "labels/val"]);
    let names: [Vec<PathBuf>; 2] = few.map(|folder| {
        let mut files: Vec<_> =
            fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    });
    for (folder, files) in few.iter().zip(names) {
        let to = scratch.path("CamVid").join(folder);
        fs::create_dir_all(&to).unwrap();
        // A picture from each part of the drive.
        for file in files.iter().step_by(files.len() / 4) {
            fs::copy(file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
    let out = scratch.path("streets");
    extract(&format!("camvid:{}", scratch.path("CamVid").display()), "val", &out);
    check("CamVid", &out, 11);
}
