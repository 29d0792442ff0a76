//! The same commands on a cluster (`--cluster URL`, cargo feature `cluster`).
//!
//! A command becomes jobs whose units executors do ([`worker`]): each file beside this one has one kind of job, the driver's half
//! and the executor's half together. What comes back is put together in the order of the units, by the code that one machine
//! uses, so that the results have the same bits. Executors read and write the same stores as the driver, which itself reads manifests;
//! of a sweep also the catalogue of its data sets, and for the gallery the scored features.

mod job;
mod moments;
pub(crate) mod paths;
mod study;
mod verify;
mod worker;
mod writing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use cluster::{Driver, DriverOptions, Error, Report, Status, Units, Watch};
use serde::Serialize;

use job::Job;
pub(crate) use study::{Cells, CellsOf};
pub(crate) use worker::UnitWorker;
pub(crate) use writing::WritingJob;

use crate::Context;
use crate::exit::{integrity, usage};
use crate::progress::{Progress, duration};

/// Version of the program as a cluster compares it: whoever differs may compute other bits, or not understand a job. The number is raised
/// with every change of jobs or bits; kernels that round products are told from those that fuse them.
pub(crate) fn version() -> String {
    let kernels = match kernels::Level::current().name() {
        "portable" => "portable kernels",
        _ => "fused kernels",
    };
    format!("{} (cluster 2, {kernels})", env!("CARGO_PKG_VERSION"))
}

/// How often a unit is tried.
const ATTEMPTS: u32 = 4;
/// How long a scheduler that stops answering is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a task may be on its way: plans of up to 256 MiB, several at once, over slow networks.
const HANDOVER: Duration = Duration::from_secs(60);
/// How long one is waited for at the start.
const WAIT: Duration = Duration::from_secs(10);

/// A cluster that this command gives its work to.
pub(crate) struct Cluster<'a> {
    driver: Driver,
    context: &'a Context,
    /// Unlike any other command's: what executors keep open belongs to one command.
    run: String,
}

/// The token of `FEATLAB_CLUSTER_TOKEN`.
///
/// # Errors
/// If it has characters that cannot be sent.
pub(crate) fn token() -> Result<Option<String>> {
    let token = std::env::var("FEATLAB_CLUSTER_TOKEN").ok().filter(|token| !token.is_empty());
    match &token {
        Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(usage("FEATLAB_CLUSTER_TOKEN must be of visible ASCII characters, without spaces"))
        }
        _ => Ok(token),
    }
}

static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

/// The folder for temporary files of an executor.
pub(crate) fn set_scratch(folder: PathBuf) {
    let _ = SCRATCH.set(folder);
}

/// A new name below that folder.
fn scratch(what: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let below = SCRATCH.get().cloned().unwrap_or_else(std::env::temp_dir);
    below.join(format!("{what}-{}-{number}", std::process::id()))
}

/// A driver of the cluster at `url`.
///
/// # Errors
/// If there is none, or it is another version.
pub(crate) fn connect(url: &str, wait: Duration) -> Result<Driver> {
    let options = DriverOptions {
        token: token()?,
        version: version(),
        attempts: ATTEMPTS,
        patience: PATIENCE,
        handover: HANDOVER,
    };
    Driver::connect(url, options, wait).map_err(|error| failed(error, None))
}

impl<'a> Cluster<'a> {
    /// The cluster of `--cluster`, if one was named.
    ///
    /// # Errors
    /// If it cannot be reached, or is another version.
    pub(crate) fn of(context: &'a Context) -> Result<Option<Self>> {
        let Some(url) = &context.cluster else { return Ok(None) };
        let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = format!("{}-{}", std::process::id(), moment.as_nanos());
        Ok(Some(Self { driver: connect(url, WAIT)?, context, run }))
    }

    pub(crate) fn context(&self) -> &Context {
        self.context
    }

    /// Does units of a job; what each returned, by unit. `unit` is their plural, for people.
    ///
    /// # Errors
    /// As [`Cluster::each_unit`].
    pub(crate) fn units(
        &self,
        names: (&str, &'static str),
        job: &Job,
        units: &[u64],
    ) -> Result<BTreeMap<u64, Vec<u8>>> {
        let mut all = BTreeMap::new();
        self.each_unit(names, job, units, |unit, payload| {
            all.insert(unit, payload);
            Ok(())
        })?;
        Ok(all)
    }

    /// Does units of a job, and hands on what each returned when it is there.
    ///
    /// # Errors
    /// If a unit cannot be done, with the exit code that it asks for; the first error of `each`.
    pub(crate) fn each_unit(
        &self,
        (what, unit): (&str, &'static str),
        job: &Job,
        units: &[u64],
        mut each: impl FnMut(u64, Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        if units.is_empty() {
            return Ok(());
        }
        let watcher = Watcher {
            context: self.context,
            progress: self.context.reporter.start(what, units.len() as u64, unit),
            done: Mutex::new(0),
        };
        let started = Instant::now();
        let job = serde_json::to_string(&(&self.run, job))?;
        let mut shares = Shares::default();
        let ended = self.driver.run(&Units { job: &job, units }, &watcher, |report| {
            shares.add(&report);
            each(report.unit, report.payload).map_err(Stopped::Ours)
        });
        drop(watcher);
        match ended {
            Ok(()) => {}
            Err(Stopped::Ours(error)) => return Err(error),
            Err(Stopped::Cluster(error)) => return Err(failed(error, Some(self.context))),
        }
        if units.len() > 1 {
            self.context.reporter.say(shares.summary(what, unit, started.elapsed().as_secs_f64()));
        }
        Ok(())
    }

    /// Does one unit that returns JSON.
    ///
    /// # Errors
    /// As [`Cluster::units`].
    pub(crate) fn one<T: serde::de::DeserializeOwned>(&self, what: &str, job: &Job) -> Result<T> {
        let answers = self.units((what, "units"), job, &[0])?;
        let answer = answers.into_values().next().unwrap_or_default();
        Ok(serde_json::from_slice(&answer)?)
    }
}

/// What a unit returns, where that is a structure.
pub(crate) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// Why a run stopped.
enum Stopped {
    Cluster(Error),
    Ours(anyhow::Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Cluster(error)
    }
}

/// Who did how much.
#[derive(Default)]
struct Shares {
    /// Units and seconds by executor.
    each: BTreeMap<String, (usize, f64)>,
    longest: f64,
}

impl Shares {
    fn add(&mut self, report: &Report) {
        let share = self.each.entry(report.executor.clone()).or_default();
        *share = (share.0 + 1, share.1 + report.seconds);
        self.longest = self.longest.max(report.seconds);
    }

    /// In words, with what the whole waited for.
    fn summary(&self, what: &str, unit: &str, wall: f64) -> String {
        let busy: f64 = self.each.values().map(|(_, seconds)| seconds).sum();
        let bound = if self.longest > 0.7 * wall {
            "bounded by the longest of them"
        } else if busy < 0.6 * wall * self.each.len() as f64 {
            "executors waited for work"
        } else {
            "bounded by the work itself"
        };
        let share = |(name, (count, seconds)): (&String, &(usize, f64))| {
            let rate = *count as f64 / seconds.max(1e-9);
            format!("{name} {count} in {} ({rate:.2}/s)", duration(*seconds))
        };
        let count: usize = self.each.values().map(|(count, _)| count).sum();
        let each: Vec<String> = self.each.iter().map(share).collect();
        format!("{what}: {count} {unit} in {}, {bound}; {}", duration(wall), each.join(", "))
    }
}

/// The engine's error as one of this program's.
fn failed(error: Error, context: Option<&Context>) -> anyhow::Error {
    match error {
        Error::Cancelled => match context.map(|context| context.interrupt.check()) {
            Some(Err(interrupted)) => interrupted,
            _ => error.into(),
        },
        Error::Unit { code: 2, .. } => usage(error.to_string()),
        Error::Unit { code: 4, .. } | Error::Version { .. } => integrity(error.to_string()),
        other => other.into(),
    }
}

struct Watcher<'a> {
    context: &'a Context,
    progress: Progress,
    done: Mutex<usize>,
}

impl Watch for Watcher<'_> {
    fn cancelled(&self) -> bool {
        self.context.interrupt.requested()
    }

    fn note(&self, line: String) {
        self.context.reporter.warn(line);
    }

    fn progress(&self, done: usize, status: Option<&Status>) {
        let Ok(mut before) = self.done.lock() else { return };
        let more = done.saturating_sub(*before);
        *before = done.max(*before);
        self.progress.tick_with(more as u64, || match status {
            Some(status) => {
                let busy = status.executors.iter().filter(|executor| executor.running > 0).count();
                format!("{busy} of {} executors at work", status.executors.len())
            }
            None => String::new(),
        });
    }
}
