//! CRF study: codes of pixels under the CRF loss alone, with pictures of them from time to time.
//!
//! A study is short and deterministic, so that it keeps no state: interrupted, it starts again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use dimred::{PcaParams, Projection as _, Scaler};
use ndarray::Array3;
use segment::crf_study::{CodeKind, CrfStudy, StudyRun, StudyStep};
use segment::{outlined, percentile_ranges, rgb_from_components};

use crate::Context;
use crate::records::write_atomically;
use crate::stages::gallery::png;

/// Colour of the borders between regions.
const BORDER: [u8; 3] = [255, 255, 0];

/// What is studied.
pub(crate) struct Job<'a> {
    pub(crate) study: CrfStudy,
    /// Pictures `[h, w, 3]` by name.
    pub(crate) pictures: &'a [(String, Array3<u8>)],
    pub(crate) steps: usize,
    pub(crate) every: usize,
    pub(crate) out: &'a Path,
}

/// Whether a study writes files of such a name.
pub(crate) fn is_own(name: &str) -> bool {
    let step = || name.strip_suffix(".png").and_then(|stem| Some(stem.rsplit_once("-step")?.1));
    name == "steps.csv"
        || step().is_some_and(|step| step.len() >= 5 && step.bytes().all(|b| b.is_ascii_digit()))
}

impl Job<'_> {
    /// Makes all steps; gives the last one, and the pictures that were written.
    ///
    /// # Errors
    /// If the study cannot be, a loss is no number, a file cannot be written, or on interruption.
    pub(crate) fn run(&self, context: &Context) -> Result<(StudyStep, Vec<PathBuf>)> {
        let views: Vec<_> = self.pictures.iter().map(|(_, picture)| picture.view()).collect();
        let mut run = StudyRun::new(self.study.clone(), &views)?;
        let progress = context.reporter.start("CRF study", self.steps as u64, "steps");
        let mut csv = String::from("step,loss,crf,global_entropy,local_entropy\n");
        let (mut last, mut written) = (None, Vec::new());
        for step in 1..=self.steps {
            context.interrupt.check()?;
            let found = run.advance()?;
            let entropy = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
            let (global, local) = (entropy(found.global_entropy), entropy(found.local_entropy));
            writeln!(csv, "{step},{},{},{global},{local}", found.loss, found.crf)?;
            last = Some(found);
            if step % self.every == 0 || step == self.steps {
                written.extend(self.draw(&run)?);
            }
            progress.tick(1);
        }
        write_atomically(&self.out.join("steps.csv"), csv.as_bytes())?;
        Ok((last.context("there is no step")?, written))
    }

    fn draw(&self, run: &StudyRun) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        for (number, (name, picture)) in self.pictures.iter().enumerate() {
            let drawn = match self.study.code {
                CodeKind::Discrete => outlined(picture.view(), run.regions(number).view(), BORDER)?,
                CodeKind::Continuous => components(run, number)?,
            };
            let path = self.out.join(format!("{name}-step{:05}.png", run.steps()));
            write_atomically(&path, &png(drawn)?)?;
            written.push(path);
        }
        Ok(written)
    }
}

/// The first three principal components of a picture's codes as colours; grey where there are fewer.
fn components(run: &StudyRun, number: usize) -> Result<Array3<u8>> {
    let (codes, (h, w)) = run.codes(number);
    let pca = PcaParams { scaler: Scaler::None, ..PcaParams::default() }.fit_rows(codes.view())?;
    let k = pca.n_components().min(3);
    let found = pca.at(k)?.transform(codes.view())?;
    let mut rows = ndarray::Array2::zeros((h * w, 3));
    rows.slice_mut(ndarray::s![.., ..k]).assign(&found);
    let ranges = percentile_ranges(rows.view())?;
    Ok(rgb_from_components(rows.into_shape_with_order((h, w, 3))?.view(), (h, w), &ranges)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_are_known_by_their_names() {
        for own in ["steps.csv", "a-step00500.png", "deep_b-step1-step100000.png"] {
            assert!(is_own(own), "{own}");
        }
        for other in ["mine.png", "a-step5.png", "a-step00500.jpg", "-stepaaaaa.png"] {
            assert!(!is_own(other), "{other}");
        }
    }
}
