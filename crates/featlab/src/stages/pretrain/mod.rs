//! A pretraining run in a folder: images in, checkpoints, metrics and a backbone out.
//!
//! ```text
//! config.toml                 the resolved configuration
//! state.safetensors           where the run stands; it resumes from here, on the CPU to the same bits
//! metrics.csv, .parquet       a row per step
//! monitor.csv                 a row per look at the labelled set
//! mixed.png                   images, their partners, masks and mixtures at the last look (methods that mix)
//! events.out.tfevents.…       the same for TensorBoard
//! checkpoint.pth              the original's layout, of the last state; checkpointNNNN.pth of epochs 0, 20, 40 …
//! backbone.safetensors        the backbone (DINO: the teacher's) with its provenance: what `extract --backbone` takes
//! ```
//!
//! `.lock` is held by the process that trains. Steps are a function of the state and of seeded streams, so stopping anywhere costs at most the steps since the last
//! state, which an interrupt writes first.

mod export;
mod metrics;
mod monitor;
mod pictures;

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use candle_core::Device;
use dataset::Dataset;
use pretrain::{
    Batch, DataShape, Images, Notes, Recipe, Report, RunIdentity, Tiles, Training, load_state, save_state,
    write_torch,
};
use serde::Serialize;

use crate::Context;
use crate::exit::{Status, usage};
use crate::pretrain_config::{DataConfig, PretrainConfig};
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
    /// What the loss of a network that knows nothing is called, and what it is.
    #[serde(skip)]
    pub(crate) uniform: &'static str,
    pub(crate) ln_k: f64,
    /// The step from which on the loss is below `ln K`, to the end.
    pub(crate) below_ln_k_since: Option<usize>,
    /// Mean loss of the first and of the last steps (up to 50).
    pub(crate) loss_first: f64,
    pub(crate) loss_last: f64,
    /// k-NN accuracy of patch features before and after.
    pub(crate) knn_before: Option<f64>,
    pub(crate) knn_after: Option<f64>,
    /// Share of the monitor's images whose class each head names at the end; methods without classes have no heads.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) accuracies: BTreeMap<&'static str, f64>,
    pub(crate) backbone: PathBuf,
    pub(crate) skipped: usize,
    pub(crate) seconds: f64,
}

/// Trains, or goes on training, in `out`.
///
/// # Errors
/// Usage errors for a configuration that cannot be, integrity errors for a folder of another run, and an interruption,
/// after the state was written.
pub(crate) fn run<R: Recipe>(
    config: &PretrainConfig<R>,
    out: &Path,
    device: &Device,
    context: &Context,
) -> Result<(Finished, Status)> {
    let started = Instant::now();
    let dataset = open(&config.data)?;
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
    let images = match config.method.is_supervised() {
        true => {
            images.labelled_only()?.share_of_each_class(config.data.label_share, config.method.train().seed)
        }
        false => images,
    };
    let shape = DataShape { images: images.len(), classes: images.class_names().len() };
    let training = config.method.start(&shape, device)?;
    let identity = RunIdentity::new(&config.method, images.fingerprint()?, images.len())?;
    let mut run = Run::open(config, out, training, identity, context)?;
    run.train(&images)?;
    let finished = run.finish(&images, problems.len(), started.elapsed().as_secs_f64())?;
    Ok((finished, if problems.is_empty() { Status::Done } else { Status::Skipped }))
}

fn open(data: &DataConfig) -> Result<Box<dyn Dataset>> {
    let split = data.split.parse().map_err(|e: dataset::Error| usage(e.to_string()))?;
    let parts = data.datasets.iter().map(|spec| sources::open(spec, split));
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
struct Run<'a, R> {
    config: &'a PretrainConfig<R>,
    out: &'a Path,
    training: Box<dyn Training>,
    identity: RunIdentity,
    metrics: Metrics,
    monitor: Option<Monitor>,
    /// Held while this process trains.
    _lock: File,
    context: &'a Context,
}

impl<'a, R: Recipe> Run<'a, R> {
    /// Opens the folder: resumes what is there, or starts.
    fn open(
        config: &'a PretrainConfig<R>,
        out: &'a Path,
        mut training: Box<dyn Training>,
        identity: RunIdentity,
        context: &'a Context,
    ) -> Result<Self> {
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
        let lock = lock(out)?;
        let state = out.join(STATE);
        if state.exists() {
            let before = load_state(&state, &mut *training, &identity)?;
            let (step, steps, now) = (training.step_number(), training.plan().steps, training.device());
            if before != now && step < steps {
                context.reporter.warn(format!(
                    "this run was trained on {before} and goes on on {now}: it will not be the same to the bit"
                ));
            }
            context.reporter.say(format!("resumed at step {step} of {steps} from {}", state.display()));
        }
        crate::records::write_atomically(&out.join("config.toml"), config.to_toml()?.as_bytes())?;
        let metrics = Metrics::open(out, training.step_number(), training.columns())?;
        let test_view = config.method.test_view();
        let open = |monitor| Monitor::open(monitor, &config.data, test_view, context);
        let monitor = config.monitor.as_ref().map(open).transpose()?;
        Ok(Self { config, out, training, identity, metrics, monitor, _lock: lock, context })
    }

    fn train(&mut self, images: &Images<'_>) -> Result<()> {
        let plan = self.training.plan();
        let (steps, per_epoch) = (plan.steps, plan.steps_per_epoch);
        let (seed, batch) = (self.config.method.train().seed, self.config.method.train().batch_size);
        self.announce(images);
        // A run that was stopped between an epoch and its look makes up for it.
        let step = self.training.step_number();
        let done = step / per_epoch;
        if step.is_multiple_of(per_epoch) && self.wants_look(done) && !self.metrics.has_look(done) {
            self.look(done)?;
        }
        let augment = self.config.method.augment();
        let mut order = (usize::MAX, Vec::new()); // of the epoch that it was drawn for
        let progress = self.context.reporter.start("train", ((steps - step) * batch) as u64, "images");
        while self.training.step_number() < steps {
            if let Err(stop) = self.context.interrupt.check() {
                self.save()?;
                return Err(stop);
            }
            let started = Instant::now();
            let step = self.training.step_number();
            let epoch = step / per_epoch;
            if order.0 != epoch {
                order = (epoch, images.order(seed, epoch));
            }
            if step.is_multiple_of(per_epoch) {
                let mut look = |places: &[usize]| images.views(places, &augment, seed, epoch);
                self.training.begin_epoch(&order.1, &mut look)?;
            }
            let first = step % per_epoch * batch;
            let places = &order.1[first..first + batch];
            let views = match images.views(places, &augment, seed, epoch) {
                Ok(views) => views,
                Err(error) => {
                    self.save()?; // a picture that is gone now must not cost what was learned
                    return Err(error.into());
                }
            };
            let classes = images.classes(places);
            let report = match self.training.step(Batch { views: &views, images: places, classes: &classes })
            {
                Ok(report) => report,
                Err(error) => {
                    self.metrics.write()?;
                    return Err(error.into());
                }
            };
            self.metrics.push(&report, batch as f64 / started.elapsed().as_secs_f64())?;
            progress.tick(batch as u64);
            if let Some(warning) = self.training.warning(&report) {
                self.context.reporter.warn(format!("step {}: {warning}", step + 1));
            }
            if (step + 1).is_multiple_of(per_epoch) {
                self.end_of_epoch(&report)?;
            }
        }
        Ok(())
    }

    fn announce(&self, images: &Images<'_>) {
        let (plan, train) = (self.training.plan(), self.config.method.train());
        let (uniform, loss) = plan.uniform_loss;
        self.context.reporter.say(format!(
            "{}: {} parameters, {} images, {} epochs of {} steps of {} images ({} at a time), {uniform} = {loss:.3}",
            self.config.name,
            self.training.layout().len(),
            images.len(),
            train.epochs,
            plan.steps_per_epoch,
            train.batch_size,
            plan.part,
        ));
        for caution in self.training.cautions() {
            self.context.reporter.warn(caution);
        }
    }

    fn end_of_epoch(&mut self, last: &Report) -> Result<()> {
        let done = last.epoch + 1;
        let (save, epochs) = (&self.config.save, self.config.method.train().epochs);
        let line = self.metrics.epoch_line(last, &*self.training);
        self.context.reporter.say(format!("epoch {done}/{epochs}: {line}"));
        let keeps = save.keep_every_epochs > 0 && last.epoch.is_multiple_of(save.keep_every_epochs);
        let looks = self.wants_look(done);
        // Before the look, which takes its time and may be interrupted.
        if done.is_multiple_of(save.every_epochs) || keeps || looks || done == epochs {
            self.save()?;
        }
        if keeps {
            let name = format!("checkpoint{:04}.pth", last.epoch); // as the original counts
            self.checkpoint(&self.out.join(name))?;
        }
        if looks { self.look(done) } else { Ok(()) }
    }

    /// Whether the labelled set is looked at after `done` epochs.
    fn wants_look(&self, done: usize) -> bool {
        let last = self.config.method.train().epochs;
        self.monitor.as_ref().is_some_and(|monitor| done.is_multiple_of(monitor.every_epochs) || done == last)
    }

    /// Everything that resuming needs, and the files for others.
    fn save(&mut self) -> Result<()> {
        self.training.check_finite()?;
        self.metrics.write()?;
        self.checkpoint(&self.out.join("checkpoint.pth"))?;
        save_state(&self.out.join(STATE), &*self.training, &self.identity)?;
        Ok(())
    }

    /// Writes the layout of the method's original.
    fn checkpoint(&self, path: &Path) -> Result<()> {
        let notes = Notes {
            data: self.config.data.datasets.join(" "),
            keep_every_epochs: self.config.save.keep_every_epochs,
        };
        Ok(write_torch(path, &self.training.checkpoint(&notes))?)
    }

    /// Scores the features on the labelled set.
    fn look(&mut self, epoch: usize) -> Result<()> {
        let Some(monitor) = &self.monitor else { return Ok(()) };
        let step = self.training.step_number();
        let knn = monitor.accuracy(&*self.training, self.context)?;
        let heads = monitor.heads(&mut *self.training, self.context)?;
        let look = Look { epoch, step, knn, heads };
        if let Some(views) = monitor.first_views() {
            let samples = self.training.mixed(views);
            pictures::write(&self.out.join("mixed.png"), &samples, &self.config.method.augment())?;
        }
        self.metrics.looked(&look)?;
        self.metrics.write_looks()?;
        let percent = |(what, share): (&str, f64)| format!("{what} {:.2} %", 100.0 * share);
        let mut said: Vec<String> = look.heads.iter().map(|(head, share)| percent((head, *share))).collect();
        if !said.is_empty() {
            said = vec![format!("classes after {epoch} epochs: {}", said.join(", "))];
        }
        if let Some(knn) = look.knn {
            said.push(percent((&format!("k-NN accuracy of patches after {epoch} epochs:"), knn)));
        }
        said.into_iter().for_each(|line| self.context.reporter.say(line));
        Ok(())
    }

    fn finish(self, images: &Images<'_>, skipped: usize, seconds: f64) -> Result<Finished> {
        let backbone = self.out.join("backbone.safetensors");
        export::backbone(&backbone, &*self.training, self.config, &self.identity)?;
        let (loss_first, loss_last) = self.metrics.ends();
        let (knn_before, knn_after) = self.metrics.looks();
        let plan = self.training.plan();
        let (uniform, ln_k) = plan.uniform_loss;
        self.context.reporter.say(format!("{} in {}", self.out.display(), duration(seconds)));
        Ok(Finished {
            out: self.out.to_owned(),
            seed: self.config.method.train().seed,
            images: images.len(),
            steps: plan.steps,
            parameters: self.training.layout().len(),
            uniform,
            ln_k,
            below_ln_k_since: self.metrics.below_since(ln_k),
            loss_first,
            loss_last,
            knn_before,
            knn_after,
            accuracies: self.metrics.heads(),
            backbone,
            skipped,
            seconds,
        })
    }
}
