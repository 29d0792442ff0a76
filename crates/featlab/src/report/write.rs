//! The report on disk: every form of it, beside the study it belongs to.
//!
//! Files are replaced whole, the page last: a `report.html` that exists agrees with the tables beside it.
//! Figures of an earlier report that this one does not have are removed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::figure::{Figure, NAMES};
use super::{confusion, figures, html, markdown, per_class_parquet, results_csv, results_parquet};
use crate::records::write_atomically;
use crate::study::Study;

/// Writes `results.csv`, `results.parquet`, `per_class.parquet`, `figures/*.svg`, `report.md` and `report.html` below
/// `root` and returns the path of the page.
///
/// # Errors
/// If a file cannot be written; the message names it.
pub(crate) fn write_all(study: &Study, root: &Path) -> Result<PathBuf> {
    let page = root.join("report.html");
    write_atomically(&root.join("results.csv"), results_csv(study).as_bytes())?;
    write_atomically(&root.join("results.parquet"), &results_parquet(study)?)?;
    write_atomically(&root.join("per_class.parquet"), &per_class_parquet(study)?)?;
    let figures = figures(study);
    for Figure { file, svg, .. } in &figures {
        write_atomically(&root.join("figures").join(file), svg.as_bytes())?;
    }
    remove_others(&root.join("figures"), &figures);
    write_atomically(&root.join("report.md"), markdown(study).as_bytes())?;
    write_atomically(&page, html(study, root)?.as_bytes())?;
    Ok(page)
}

/// Removes what an earlier report drew and this one does not. A figure that cannot be removed harms nobody.
fn remove_others(folder: &Path, figures: &[Figure]) {
    let ours = |name: &str| {
        name.ends_with(".svg") && NAMES.iter().chain([&confusion::NAME]).any(|start| name.starts_with(start))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ours(&name) && figures.iter().all(|figure| figure.file != name) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn every_file_is_there_and_stale_figures_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut study = sample::study();
        let page = write_all(&study, folder.path()).unwrap();
        assert_eq!(page, folder.path().join("report.html"));
        for name in ["report.html", "report.md", "results.csv", "results.parquet", "per_class.parquet"] {
            assert!(folder.path().join(name).metadata().unwrap().len() > 0, "{name}");
        }
        let variance = folder.path().join("figures/explained-variance.svg");
        let confusion = folder.path().join("figures/confusion-linear-pca-384.svg");
        let own = folder.path().join("figures/drawn-by-hand.svg");
        fs::write(&own, "<svg/>").unwrap();
        assert!(confusion.exists());
        assert!(variance.exists() && folder.path().join("figures/miou-over-dimension.svg").exists());
        study.variance = None;
        study.runs.retain(|run| run.method != "pca");
        write_all(&study, folder.path()).unwrap();
        assert!(!variance.exists() && !confusion.exists() && own.exists());
    }

    #[test]
    fn odd_studies_are_written() {
        for (what, study) in sample::odd_studies() {
            let folder = tempfile::tempdir().unwrap();
            assert!(write_all(&study, folder.path()).is_ok(), "{what}");
        }
    }
}
