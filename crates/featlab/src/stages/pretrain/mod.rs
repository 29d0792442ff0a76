//! A pretraining run in a folder: images in, checkpoints, metrics and a backbone out.
//!
//! ```text
//! config.toml                 the resolved configuration
//! state.safetensors           where the run stands; it resumes from here, on the CPU to the same bits
//! metrics.csv, .parquet       a row per step
//! monitor.csv                 a row per look at the labelled set
//! events.out.tfevents.…       the same for TensorBoard
//! checkpoint.pth              the original's layout, of the last state; checkpointNNNN.pth of epochs 0, 20, 40 …
//! backbone.safetensors        the teacher's backbone with its provenance: what `extract --backbone` takes
//! ```
//!
//! `.lock` is held by the process that trains. Steps are a function of the state and of seeded streams, so stopping anywhere costs at most the steps since the last
//! state, which an interrupt writes first.

mod export;
mod metrics;
mod monitor;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use candle_core::Device;
use dataset::Dataset;
use pretrain::{Dino, Images, RunIdentity, StepReport, Tiles, Watch, load_state, save_state};
use serde::Serialize;

use crate::Context;
use crate::exit::{Status, usage};
use crate::pretrain_config::PretrainConfig;
use crate::progress::duration;
use crate::sources;
use crate::toml_file::TomlFile as _;
use metrics::Metrics;
use monitor::{Look, Monitor};

/// The state's file.
const STATE: &str = "state.safetensors";

/// What a finished run has to say.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finished {
    pub(crate) out: PathBuf,
    pub(crate) seed: u64,
    pub(crate) images: usize,
    pub(crate) steps: usize,
    pub(crate) parameters: usize,
    /// `ln K`: the loss of uniform outputs.
    pub(crate) ln_k: f64,
    /// The step from which on the loss is below `ln K`, to the end.
    pub(crate) below_ln_k_since: Option<usize>,
    /// Mean loss of the first and of the last steps (up to 50).
    pub(crate) loss_first: f64,
    pub(crate) loss_last: f64,
    /// k-NN accuracy of patch features before and after.
    pub(crate) knn_before: Option<f64>,
    pub(crate) knn_after: Option<f64>,
    pub(crate) backbone: PathBuf,
    pub(crate) skipped: usize,
    pub(crate) seconds: f64,
}

/// Trains, or goes on training, in `out`.
///
/// # Errors
/// Usage errors for a configuration that cannot be, integrity errors for a folder of another run, and an interruption,
/// after the state was written.
pub(crate) fn run(
    config: &PretrainConfig,
    out: &Path,
    device: &Device,
    context: &Context,
) -> Result<(Finished, Status)> {
    let started = Instant::now();
    let dataset = open(config)?;
    let progress = context.reporter.start("decode", dataset.len() as u64, "pictures");
    let tiles = Tiles { grid: config.data.tiles, size: config.data.tile_size };
    let memory = config.data.memory_mib.saturating_mul(1 << 20);
    let (images, problems) = Images::load(&*dataset, tiles, memory, || {
        progress.tick(1);
        context.interrupt.check()
    })?;
    drop(progress);
    let problems: Vec<_> = dataset.problems().iter().cloned().chain(problems).collect();
    for problem in &problems {
        context.reporter.warn(format!("skipped {}: {}", problem.id, problem.reason));
    }
    let dino = match device {
        Device::Cpu => Dino::new(config.dino(), images.len())?,
        device => Dino::on_device(config.dino(), images.len(), device)?,
    };
    let identity = RunIdentity { config: config.dino(), data: images.fingerprint()?, images: images.len() };
    let mut run = Run::open(config, out, dino, identity, context)?;
    run.train(&images)?;
    let finished = run.finish(&images, problems.len(), started.elapsed().as_secs_f64())?;
    Ok((finished, if problems.is_empty() { Status::Done } else { Status::Skipped }))
}

fn open(config: &PretrainConfig) -> Result<Box<dyn Dataset>> {
    let split = config.data.split.parse().map_err(|e: dataset::Error| usage(e.to_string()))?;
    let parts = config.data.datasets.iter().map(|spec| sources::open(spec, split));
    let mut parts = parts.collect::<Result<Vec<_>>>()?;
    if parts.len() == 1 {
        return Ok(parts.remove(0));
    }
    Ok(Box::new(dataset::concat(parts)?))
}

/// Takes the folder for this process.
fn lock(out: &Path) -> Result<File> {
    let path = out.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!(
                "another process is training in {}; wait for it or name another --out",
                out.display()
            )
        }
        // Not every file system has locks; the run's files are replaced whole in any case.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// A run in its folder.
struct Run<'a> {
    config: &'a PretrainConfig,
    out: &'a Path,
    dino: Dino,
    identity: RunIdentity,
    metrics: Metrics,
    monitor: Option<Monitor>,
    /// Held while this process trains.
    _lock: File,
    context: &'a Context,
}

impl<'a> Run<'a> {
    /// Opens the folder: resumes what is there, or starts.
    fn open(
        config: &'a PretrainConfig,
        out: &'a Path,
        mut dino: Dino,
        identity: RunIdentity,
        context: &'a Context,
    ) -> Result<Self> {
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        let lock = lock(out)?;
        let state = out.join(STATE);
        if state.exists() {
            let before = load_state(&state, &mut dino, &identity)?;
            let (step, now) = (dino.state.step, dino.device());
            if before != now && step < dino.steps() {
                context.reporter.warn(format!(
                    "this run was trained on {before} and goes on on {now}: it will not be the same to the bit"
                ));
            }
            context.reporter.say(format!(
                "resumed at step {step} of {} from {}",
                dino.steps(),
                state.display()
            ));
        }
        crate::records::write_atomically(&out.join("config.toml"), config.to_toml()?.as_bytes())?;
        let metrics = Metrics::open(out, dino.state.step)?;
        let monitor = config.monitor.as_ref().map(|monitor| Monitor::open(monitor, context)).transpose()?;
        Ok(Self { config, out, dino, identity, metrics, monitor, _lock: lock, context })
    }

    fn train(&mut self, images: &Images<'_>) -> Result<()> {
        let (steps, per_epoch) = (self.dino.steps(), self.dino.steps_per_epoch());
        let (seed, batch) = (self.config.train.seed, self.config.train.batch_size);
        self.announce(images);
        // A run that was stopped between an epoch and its look makes up for it.
        let done = self.dino.state.step / per_epoch;
        if self.dino.state.step.is_multiple_of(per_epoch)
            && self.wants_look(done)
            && !self.metrics.has_look(done)
        {
            self.look(done)?;
        }
        let crops = self.config.views.multi_crop();
        let warm = per_epoch * self.config.optimizer.warmup_epochs.max(1);
        let mut watch = Watch::default();
        let mut order = (usize::MAX, Vec::new()); // of the epoch that it was drawn for
        let progress =
            self.context.reporter.start("train", ((steps - self.dino.state.step) * batch) as u64, "images");
        while self.dino.state.step < steps {
            if let Err(stop) = self.context.interrupt.check() {
                self.save()?;
                return Err(stop);
            }
            let started = Instant::now();
            let step = self.dino.state.step;
            let epoch = step / per_epoch;
            if order.0 != epoch {
                order = (epoch, images.order(seed, epoch));
            }
            let first = step % per_epoch * batch;
            let views = match images.views(&order.1[first..first + batch], &crops, seed, epoch) {
                Ok(views) => views,
                Err(error) => {
                    self.save()?; // a picture that is gone now must not cost what was learned
                    return Err(error.into());
                }
            };
            let report = match self.dino.step(&views) {
                Ok(report) => report,
                Err(error) => {
                    self.metrics.write()?;
                    return Err(error.into());
                }
            };
            self.metrics.push(&report, batch as f64 / started.elapsed().as_secs_f64())?;
            progress.tick(batch as u64);
            if let Some(collapse) = watch.observe(&report.signs, self.config.head.out_dim, step >= warm) {
                self.context.reporter.warn(format!("step {}: {collapse}", step + 1));
            }
            if self.dino.state.step.is_multiple_of(per_epoch) {
                self.end_of_epoch(&report)?;
            }
        }
        Ok(())
    }

    fn announce(&self, images: &Images<'_>) {
        let (dino, config) = (&self.dino, self.config);
        self.context.reporter.say(format!(
            "{}: {} parameters, {} images, {} epochs of {} steps of {} images ({} at a time), ln K = {:.3}",
            config.name,
            dino.layout().len(),
            images.len(),
            config.train.epochs,
            dino.steps_per_epoch(),
            config.train.batch_size,
            dino.part(),
            (config.head.out_dim as f64).ln()
        ));
    }

    fn end_of_epoch(&mut self, last: &StepReport) -> Result<()> {
        let done = last.epoch + 1;
        let (save, epochs) = (&self.config.save, self.config.train.epochs);
        let line = self.metrics.epoch_line(last);
        self.context.reporter.say(format!("epoch {done}/{epochs}: {line}"));
        let keeps = save.keep_every_epochs > 0 && last.epoch.is_multiple_of(save.keep_every_epochs);
        let looks = self.wants_look(done);
        // Before the look, which takes its time and may be interrupted.
        if done.is_multiple_of(save.every_epochs) || keeps || looks || done == epochs {
            self.save()?;
        }
        if keeps {
            let name = format!("checkpoint{:04}.pth", last.epoch); // as the original counts
            export::official(&self.out.join(name), &self.dino, self.config)?;
        }
        if looks { self.look(done) } else { Ok(()) }
    }

    /// Whether the labelled set is looked at after `done` epochs.
    fn wants_look(&self, done: usize) -> bool {
        let last = self.config.train.epochs;
        self.monitor.as_ref().is_some_and(|monitor| done.is_multiple_of(monitor.every_epochs) || done == last)
    }

    /// Everything that resuming needs, and the files for others.
    fn save(&mut self) -> Result<()> {
        self.dino.check_finite()?;
        self.metrics.write()?;
        export::official(&self.out.join("checkpoint.pth"), &self.dino, self.config)?;
        save_state(&self.out.join(STATE), &self.dino, &self.identity)?;
        Ok(())
    }

    /// Scores the teacher's features on the labelled set.
    fn look(&mut self, epoch: usize) -> Result<()> {
        let Some(monitor) = &self.monitor else { return Ok(()) };
        let accuracy = monitor.accuracy(&self.dino, self.context)?;
        let look = Look { epoch, step: self.dino.state.step, knn: accuracy };
        self.metrics.looked(&look)?;
        self.metrics.write_looks()?;
        self.context
            .reporter
            .say(format!("k-NN accuracy of patches after {epoch} epochs: {:.2} %", 100.0 * accuracy));
        Ok(())
    }

    fn finish(self, images: &Images<'_>, skipped: usize, seconds: f64) -> Result<Finished> {
        let backbone = self.out.join("backbone.safetensors");
        export::backbone(&backbone, &self.dino, self.config, &self.identity)?;
        let (loss_first, loss_last) = self.metrics.ends();
        let (knn_before, knn_after) = self.metrics.looks();
        let ln_k = (self.config.head.out_dim as f64).ln();
        self.context.reporter.say(format!("{} in {}", self.out.display(), duration(seconds)));
        Ok(Finished {
            out: self.out.to_owned(),
            seed: self.config.train.seed,
            images: images.len(),
            steps: self.dino.steps(),
            parameters: self.dino.layout().len(),
            ln_k,
            below_ln_k_since: self.metrics.below_since(ln_k),
            loss_first,
            loss_last,
            knn_before,
            knn_after,
            backbone,
            skipped,
            seconds,
        })
    }
}
