//! Predict: pictures in, label maps of their size out, a file each.
//!
//! ```text
//! OUT/linear/ID.png, OUT/cluster/ID.png                        labels as bytes with a palette; 255 = not looked at, or no class
//! OUT/linear-overlay/ID.png, …                                 colours over the picture
//! OUT/linear-probabilities/ID.safetensors, …                   probabilities [k, h, w], at the size that the network (or the CRF) saw
//! ```
//!
//! What is there is not made again.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dataset::{Dataset, Sample};
use ndarray::Array2;
use probe::BankProbe;
use segment::{Palette, colourise, overlay};
use tensorfile::Tensor;

use super::indexed_png::indexed_png;
use super::segmenter::{Seen, Segmenter, UNSEEN};
use super::workers;
use crate::Context;
use crate::records::write_atomically;
use crate::stages::gallery::png;
use crate::stages::picture_file;

/// Opacity of colours over a picture.
const ALPHA: f32 = 0.6;

/// A picture that is asked about.
pub(crate) struct Picture<'a> {
    /// Name of its files, without their extension; `/` makes folders.
    pub(crate) name: String,
    pub(crate) source: Source<'a>,
}

/// Where a picture is.
pub(crate) enum Source<'a> {
    File(PathBuf),
    Sample(&'a dyn Dataset, usize),
}

impl Source<'_> {
    fn load(&self) -> Result<Sample> {
        match self {
            Self::File(path) => Ok(picture_file::read(path)?.0),
            Self::Sample(dataset, i) => Ok(dataset.load(*i)?),
        }
    }

    /// Whether a picture that cannot be loaded is to blame alone, and not the store that it is in.
    fn is_picture(&self, error: &anyhow::Error) -> bool {
        match self {
            Self::File(_) => true,
            Self::Sample(..) => error.downcast_ref::<dataset::Error>().is_some_and(dataset::Error::is_sample),
        }
    }
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Labels,
    Overlay,
    Probabilities,
}

impl Kind {
    const ALL: [(&'static str, Self); 3] =
        [("labels", Self::Labels), ("overlay", Self::Overlay), ("probabilities", Self::Probabilities)];

    /// A kind by its word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(name, _)| *name == word).map(|(_, kind)| kind)
    }

    /// The folders of a probe's files.
    pub(crate) fn folders(probe: &str) -> [String; 3] {
        Self::ALL.map(|(_, kind)| kind.folder(probe))
    }

    fn folder(self, probe: &str) -> String {
        match self {
            Self::Labels => probe.to_owned(),
            Self::Overlay => format!("{probe}-overlay"),
            Self::Probabilities => format!("{probe}-probabilities"),
        }
    }

    fn file(self, probe: &str, name: &str) -> String {
        let ending = if self == Self::Probabilities { "safetensors" } else { "png" };
        format!("{}/{name}.{ending}", self.folder(probe))
    }
}

/// What is to be predicted.
pub(crate) struct Job<'a> {
    pub(crate) segmenter: &'a Segmenter<'a>,
    pub(crate) probes: &'a [(&'static str, BankProbe)],
    pub(crate) kinds: &'a [Kind],
    /// Clusters by number, not by the classes that they are called after.
    pub(crate) raw: bool,
    pub(crate) on_cpu: bool,
    pub(crate) out: &'a Path,
    pub(crate) overwrite: bool,
}

/// What a run did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Pictures segmented by this run.
    pub(crate) written: usize,
    /// Pictures whose files were all there.
    pub(crate) kept: usize,
    /// Pictures that cannot be read, with the reason.
    pub(crate) skipped: Vec<(String, String)>,
    /// Seconds of all workers: reading, network, labels (with the CRF), writing.
    pub(crate) seconds: [f64; 4],
    /// Seconds on the clock.
    pub(crate) wall_s: f64,
}

impl Job<'_> {
    /// Segments what is missing.
    ///
    /// # Errors
    /// If a file cannot be written or a store fails, or on interruption; what was finished stays.
    pub(crate) fn run(&self, pictures: &[Picture<'_>], context: &Context) -> Result<Done> {
        let missing = |picture: &&Picture<'_>| self.overwrite || !self.is_there(picture);
        let todo: Vec<&Picture<'_>> = pictures.iter().filter(missing).collect();
        let start = Instant::now();
        let alone = workers::each_alone(todo.len(), self.on_cpu);
        let outcomes = workers::in_turn(todo.len(), alone, ("segment", context), |i| self.picture(todo[i]))?;
        let mut done = Done { kept: pictures.len() - todo.len(), ..Done::default() };
        for (picture, outcome) in todo.into_iter().zip(outcomes) {
            match outcome {
                Ok(seconds) => {
                    done.written += 1;
                    done.seconds.iter_mut().zip(seconds).for_each(|(sum, more)| *sum += more);
                }
                Err(reason) => done.skipped.push((picture.name.clone(), reason)),
            }
        }
        done.wall_s = start.elapsed().as_secs_f64();
        Ok(done)
    }

    fn is_there(&self, picture: &Picture<'_>) -> bool {
        self.files(picture).all(|(_, _, path)| path.exists())
    }

    /// All files of a picture.
    fn files<'a>(
        &'a self,
        picture: &'a Picture<'_>,
    ) -> impl Iterator<Item = (&'a (&'static str, BankProbe), Kind, PathBuf)> {
        self.probes.iter().flat_map(move |probe| {
            let place = move |&kind: &Kind| (probe, kind, self.out.join(kind.file(probe.0, &picture.name)));
            self.kinds.iter().map(place)
        })
    }

    /// Segments one picture: the seconds it took, or why it cannot be read.
    fn picture(&self, picture: &Picture<'_>) -> Result<std::result::Result<[f64; 4], String>> {
        let mut clock = Lap(Instant::now());
        let sample = match picture.source.load() {
            Ok(sample) => sample,
            Err(error) if picture.source.is_picture(&error) => {
                return Ok(Err(crate::exit::one_line(&error)));
            }
            Err(error) => return Err(error),
        };
        let mut seconds = [clock.lap(), 0.0, 0.0, 0.0];
        let seen = match self.segmenter.look(&sample) {
            Ok(seen) => seen,
            Err(error) => return Ok(Err(crate::exit::one_line(&error))),
        };
        seconds[1] = clock.lap();
        for (name, probe) in self.probes {
            let palette = self.segmenter.model().palette(name, self.raw);
            let labels = self.wanted_labels(probe, &seen)?;
            seconds[2] += clock.lap();
            for &kind in self.kinds {
                let bytes = self.bytes(kind, (probe, &palette), (&sample, &seen), labels.as_ref())?;
                seconds[2] += clock.lap();
                write_atomically(&self.out.join(kind.file(name, &picture.name)), &bytes)?;
                seconds[3] += clock.lap();
            }
        }
        Ok(Ok(seconds))
    }

    /// The label map `[h, w]` of the whole picture, if a file needs it.
    fn wanted_labels(&self, probe: &BankProbe, seen: &Seen) -> Result<Option<Array2<u8>>> {
        if self.kinds.iter().all(|kind| *kind == Kind::Probabilities) {
            return Ok(None);
        }
        let labels = self.segmenter.label_map(probe, seen)?;
        Ok(Some(if self.raw { labels } else { self.segmenter.named(probe, labels) }))
    }

    fn bytes(
        &self,
        kind: Kind,
        (probe, palette): (&BankProbe, &Palette),
        (sample, seen): (&Sample, &Seen),
        labels: Option<&Array2<u8>>,
    ) -> Result<Vec<u8>> {
        let labels = || labels.context("labels were computed");
        match kind {
            Kind::Labels => indexed_png(labels()?.view(), palette),
            Kind::Overlay => {
                let colours = colourise(labels()?.view(), palette, UNSEEN)?;
                png(overlay(sample.image.view(), colours.view(), ALPHA)?)
            }
            Kind::Probabilities => {
                let probabilities = self.segmenter.probabilities(probe, seen)?;
                let tensor = Tensor::f32("probabilities", probabilities.shape(), &probabilities);
                Ok(tensorfile::to_bytes(&[tensor], &tensorfile::Metadata::new())?)
            }
        }
    }
}

/// A clock that starts again whenever it is read.
struct Lap(Instant);

impl Lap {
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let passed: Duration = now - std::mem::replace(&mut self.0, now);
        passed.as_secs_f64()
    }
}
