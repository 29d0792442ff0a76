//! Golden: picture files through `featlab extract` into Parquet, against the reference network's tokens.
//!
//! Runs over every folder `14_*` of the reference cases (`$FEATLAB_GOLDEN`, default `../shared/golden` beside the
//! workspace) with the weights of the case that it names; says so and passes where the folder is absent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use featcache::{Cache, ReadOptions, Store};
use ndarray::Array2;
use safetensors::SafeTensors;

use crate::fixture::{Scratch, expect, featlab};

fn golden() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    std::env::var_os("FEATLAB_GOLDEN").map_or(default, PathBuf::from)
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn read(cache: &Path) -> BTreeMap<String, (Array2<f32>, Vec<f32>)> {
    let cache = Cache::open(Store::open(&cache.to_string_lossy()).unwrap()).unwrap();
    let mut rows = BTreeMap::new();
    for i in 0..cache.manifest().shards.len() {
        let shard = cache.read_shard(i, &ReadOptions::default()).unwrap();
        for row in 0..shard.len() {
            let cls = shard.cls(row).expect("class tokens are stored").to_vec();
            rows.insert(shard.image_id(row).to_owned(), (shard.tokens_f32(row), cls));
        }
    }
    rows
}

fn close(got: impl Iterator<Item = f32>, want: &[f32], relative: f64, what: &str) {
    let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
    let got: Vec<f32> = got.collect();
    assert_eq!(got.len(), want.len(), "{what}");
    let worst = got.iter().zip(want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(
        f64::from(worst) <= relative * f64::from(largest) + 1e-7,
        "{what}: off by {worst}, largest is {largest}"
    );
}

#[test]
fn picture_files_to_parquet() {
    let root = golden();
    let cases: Vec<PathBuf> = std::fs::read_dir(&root)
        .map(|entries| entries.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    let cases: Vec<_> = cases
        .into_iter()
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("14_")))
        .collect();
    if cases.is_empty() {
        println!("skipped: no reference cases 14_* at {}", root.display());
        return;
    }
    cases.iter().for_each(|case| check(case, &root));
}

/// With and without the mirror image, and the plain case at every level of the kernels.
fn variants(dtype: &str) -> Vec<(bool, kernels::Level)> {
    let levels = kernels::Level::available();
    let others = levels[1..].iter().filter(|_| dtype == "f32").map(|&level| (false, level));
    [(false, levels[0]), (true, levels[0])].into_iter().chain(others).collect()
}

fn check(case: &Path, root: &Path) {
    let about: serde_json::Value =
        serde_json::from_slice(&std::fs::read(case.join("case.json")).unwrap()).unwrap();
    let words = about["params"]["files"].as_str().unwrap();
    let model =
        words.split(|c: char| !(c.is_alphanumeric() || c == '_')).find(|w| w.starts_with("01_")).unwrap();
    let weights = root.join(model).join("weights.safetensors");
    let bytes = std::fs::read(case.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let tolerance = |name: &str| about["tolerance"][name].as_f64().unwrap();
    let scratch = Scratch::new();
    for res in about["params"]["res"].as_array().unwrap() {
        for (dtype, relative) in [("f32", tolerance("rel_to_max")), ("f16", tolerance("rel_to_max_f16"))] {
            for (flip, level) in variants(dtype) {
                let out = scratch.path(&format!("{res}-{dtype}-{flip}-{}", level.name()));
                let mut command = featlab();
                command.env(kernels::LEVEL_VARIABLE, level.name());
                command.args(["extract", "--dataset", &format!("folder:{}", case.join("images").display())]);
                command.args(["--res", &res.to_string(), "--dtype", dtype, "--backbone"]).arg(&weights);
                command.arg("--out").arg(&out);
                if flip {
                    command.arg("--flip-average");
                }
                expect(&mut command, 0);
                let rows = read(&out);
                assert!(!rows.is_empty());
                for (id, (tokens, cls)) in rows {
                    let stem = Path::new(&id).file_stem().unwrap().to_string_lossy().into_owned();
                    let kind = if flip { "flip" } else { "tokens" };
                    let name = format!("{kind}.{res}.{stem}");
                    close(
                        tokens.into_iter(),
                        &floats(&expected, &name),
                        relative,
                        &format!("{name} {dtype}"),
                    );
                    if !flip {
                        let name = format!("cls.{res}.{stem}");
                        close(
                            cls.into_iter(),
                            &floats(&expected, &name),
                            relative,
                            &format!("{name} {dtype}"),
                        );
                    }
                }
            }
        }
    }
}
