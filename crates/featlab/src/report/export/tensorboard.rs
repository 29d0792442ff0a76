//! TensorBoard: one run per (method, probe, seed) below `tensorboard/`, the dimension as its step.
//!
//! So its scalar view is Fig. 4: `miou` over dimension, a line per method. Event files carry a time; it is that of the study, given
//! by the caller, so that the same study gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use pretrain::EventWriter;

use super::super::aggregate::{distinct, label_of};
use super::{metrics, plain};
use crate::study::{RunRecord, Study};

/// Writes the event files below `root` and returns their folder. Those of an earlier export are replaced.
///
/// # Errors
/// If a file cannot be written; the message names the folder.
pub(crate) fn tensorboard(study: &Study, root: &Path, at: SystemTime) -> Result<PathBuf> {
    let folder = root.join("tensorboard");
    let line = |run: &RunRecord| (label_of(run, study), run.probe.clone(), run.seed);
    for (label, probe, seed) in distinct(study.runs.iter().map(line)) {
        let place = folder.join(plain(&label)).join(plain(&probe)).join(format!("seed-{seed}"));
        let mut runs: Vec<&RunRecord> =
            study.runs.iter().filter(|run| line(run) == (label.clone(), probe.clone(), seed)).collect();
        runs.sort_by_key(|run| run.dim);
        write(&place, &runs, at).with_context(|| format!("writing events in {}", place.display()))?;
    }
    Ok(folder)
}

fn write(folder: &Path, runs: &[&RunRecord], at: SystemTime) -> Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("events.out.tfevents.") && name.contains(".featlab.") {
            fs::remove_file(entry.path())?;
        }
    }
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let mut events = EventWriter::append_to(folder, at)?;
    for run in runs {
        events.scalars(run.dim as u64, seconds, &metrics(run))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                found.extend(files(&entry.path()));
            } else {
                found.push((entry.path(), fs::read(entry.path()).unwrap()));
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_run_per_line_and_the_same_bytes_again() {
        let folder = tempfile::tempdir().unwrap();
        let study = sample::full_study();
        let at = tensorboard(&study, folder.path(), UNIX_EPOCH).unwrap();
        let first = files(&at);
        // none, none + crf, pca, pca + crf, rp; two probes; three seeds.
        assert_eq!(first.len(), 5 * 2 * 3);
        assert!(at.join("pca _ crf/linear/seed-2").is_dir());
        tensorboard(&study, folder.path(), UNIX_EPOCH).unwrap();
        assert_eq!(files(&at), first);
    }

    #[test]
    fn odd_studies_are_written() {
        for (what, study) in sample::odd_studies() {
            let folder = tempfile::tempdir().unwrap();
            assert!(tensorboard(&study, folder.path(), UNIX_EPOCH).is_ok(), "{what}");
        }
    }
}
