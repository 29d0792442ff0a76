//! MLflow: the plain folders of its file store, one experiment per study and one run per record.
//!
//! ```text
//! mlruns/<experiment>/meta.yaml
//! mlruns/<experiment>/<run>/{meta.yaml, metrics/NAME, params/NAME, tags/NAME, artifacts/}
//! ```
//!
//! A metric's file has lines `milliseconds value step`, a parameter's the value. Ids are hashes of the study's name and the
//! record's key: a second export writes the same files again, and another study's runs stand beside them. Folders carry the
//! absolute place of their artifacts, as MLflow's own do; nothing is stored there.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use sha2::{Digest, Sha256};

use super::super::aggregate::label_of;
use super::{metrics, plain};
use crate::records::write_atomically;
use crate::study::{RunRecord, Study};

/// Writes the runs below `root/mlruns` and returns that folder.
///
/// # Errors
/// If a file cannot be written; the message names it.
pub(crate) fn mlflow(study: &Study, root: &Path, at: SystemTime) -> Result<PathBuf> {
    let store = root.join("mlruns");
    let place = std::path::absolute(&store).with_context(|| format!("finding {}", store.display()))?;
    let millis = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let experiment = experiment_id(&study.name);
    let folder = store.join(&experiment);
    let meta = [
        ("artifact_location", text(&uri(&place.join(&experiment)))),
        ("creation_time", millis.to_string()),
        ("experiment_id", text(&experiment)),
        ("last_update_time", millis.to_string()),
        ("lifecycle_stage", "active".to_owned()),
        ("name", text(&study.name)),
    ];
    write_atomically(&folder.join("meta.yaml"), yaml(&meta).as_bytes())?;
    for run in &study.runs {
        let id = hex(&[&study.name, &run.key])[..32].to_owned();
        let name = format!("{} {} {} seed {}", label_of(run, study), run.dim, run.probe, run.seed);
        let start = millis.saturating_sub((1000.0 * run.wall_s.max(0.0)) as u128); // NaN becomes 0
        let meta = [
            ("artifact_uri", text(&uri(&place.join(&experiment).join(&id).join("artifacts")))),
            ("end_time", millis.to_string()),
            ("entry_point_name", text("")),
            ("experiment_id", text(&experiment)),
            ("lifecycle_stage", "active".to_owned()),
            ("run_id", text(&id)),
            ("run_name", text(&name)),
            ("run_uuid", text(&id)),
            ("source_name", text("")),
            ("source_type", "4".to_owned()), // local
            ("source_version", text("")),
            ("start_time", start.to_string()),
            ("status", "3".to_owned()), // finished
            ("tags", "[]".to_owned()),
            ("user_id", text("")),
        ];
        let folder = folder.join(&id);
        let file = |kind: &str, name: &str, content: &str| {
            write_atomically(&folder.join(kind).join(name), content.as_bytes())
        };
        for (name, value) in metrics(run) {
            file("metrics", name, &format!("{millis} {value} 0\n"))?;
        }
        for class in &run.per_class {
            let Some(iou) = class.iou.filter(|iou| iou.is_finite()) else { continue };
            file("metrics", &format!("iou_{}", plain(&class.name)), &format!("{millis} {iou} 0\n"))?;
        }
        for (name, value) in parameters(run) {
            file("params", name, &value)?;
        }
        file("tags", "mlflow.runName", &name)?;
        file("tags", "featlab.version", &study.version)?;
        file("artifacts", ".keep", "")?;
        write_atomically(&folder.join("meta.yaml"), yaml(&meta).as_bytes())?;
    }
    Ok(store)
}

fn parameters(run: &RunRecord) -> Vec<(&'static str, String)> {
    vec![
        ("dataset", run.dataset.clone()),
        ("split", run.split.clone()),
        ("backbone", run.backbone.clone()),
        ("cache_id", run.cache_id.clone()),
        ("train_cache_id", run.train_cache_id.clone()),
        ("method", run.method.clone()),
        ("dim", run.dim.to_string()),
        ("probe", run.probe.clone()),
        ("seed", run.seed.to_string()),
        ("protocol", run.protocol.clone()),
        ("crf", run.crf.to_string()),
        ("steps", run.steps.to_string()),
        ("key", run.key.clone()),
    ]
}

/// Eighteen digits, as MLflow's own ids have.
fn experiment_id(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let number = digest.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    format!("{:018}", 100_000_000_000_000_000 + number % 900_000_000_000_000_000)
}

fn hex(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\0").as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn uri(path: &Path) -> String {
    let escaped: String = path.to_string_lossy().replace('%', "%25").replace(' ', "%20").replace('#', "%23");
    format!("file://{escaped}")
}

fn yaml(fields: &[(&str, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

/// A YAML string: in single quotes nothing but the quote itself means anything.
fn text(value: &str) -> String {
    let one_line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("'{}'", one_line.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::super::sample;
    use super::*;

    #[test]
    fn a_folder_per_run_and_a_second_export_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut study = sample::full_study();
        study.runs.truncate(5);
        let store = mlflow(&study, folder.path(), UNIX_EPOCH).unwrap();
        let experiment = store.join(experiment_id(&study.name));
        let runs = || fs::read_dir(&experiment).unwrap().flatten().filter(|e| e.path().is_dir()).count();
        assert_eq!(runs(), study.runs.len());
        let id = &hex(&[&study.name, &study.runs[0].key])[..32];
        let read = |name: &str| fs::read_to_string(experiment.join(id).join(name)).unwrap();
        assert_eq!(read("metrics/miou"), format!("0 {} 0\n", study.runs[0].miou));
        assert_eq!((read("params/dim"), read("params/method")), ("3".to_owned(), "pca".to_owned()));
        assert!(read("metrics/iou_sign _ symbol").starts_with("0 0."));
        assert!(read("meta.yaml").contains("run_name: 'pca 3 linear seed 0'\n"));
        mlflow(&study, folder.path(), UNIX_EPOCH).unwrap();
        assert_eq!(runs(), study.runs.len());
    }

    #[test]
    fn text_is_one_yaml_string() {
        assert_eq!(text("it's: #1\nx"), "'it''s: #1 x'");
        assert_eq!(experiment_id("a").len(), 18);
        assert_ne!(experiment_id("a"), experiment_id("b"));
    }

    #[test]
    fn odd_studies_are_written() {
        for (what, mut study) in sample::odd_studies() {
            study.runs.truncate(2); // dozens of files each
            let folder = tempfile::tempdir().unwrap();
            assert!(mlflow(&study, folder.path(), UNIX_EPOCH).is_ok(), "{what}");
        }
    }
}
