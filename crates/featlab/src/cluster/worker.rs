//! An executor's hands: units of jobs, by the same code that one machine runs.
//!
//! What a job needs open (data set and backbone, caches, features in memory) is kept for its next units, for some minutes at most; of studies,
//! whose features fill the memory, one at a time.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use cluster::{UnitFailure, Worker};
use featcache::Cache;

use super::study::OpenStudy;
use super::writing::Opening;
use super::{Job, moments, to_json, verify};
use crate::Context;

/// Jobs whose things are kept open.
const KEPT: usize = 3;
/// How long they are kept without being used.
const IDLE: Duration = Duration::from_secs(300);

/// Does units.
pub(crate) struct UnitWorker {
    context: Context,
    kept: Arc<Mutex<VecDeque<Kept>>>,
}

/// Something open.
struct Kept {
    key: String,
    /// Whether it fills the memory.
    heavy: bool,
    used: Instant,
    thing: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for UnitWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnitWorker").finish_non_exhaustive()
    }
}

impl Worker for UnitWorker {
    fn run(&self, job: &str, unit: u64) -> Result<Vec<u8>, UnitFailure> {
        let order = serde_json::from_str::<(String, Job)>(job).map_err(anyhow::Error::from);
        order.and_then(|(run, job)| self.unit(&run, &job, unit)).map_err(|error| {
            let code = crate::exit::code(&error);
            // What a user must change does not go better elsewhere; a store, a disk or an executor that is stopped may.
            UnitFailure { message: crate::exit::one_line(&error), code, again: code == 1 || code >= 130 }
        })
    }
}

impl UnitWorker {
    /// A worker that says nothing of its own.
    pub(crate) fn new(context: Context) -> Self {
        let kept: Arc<Mutex<VecDeque<Kept>>> = Arc::default();
        let there = Arc::downgrade(&kept);
        std::thread::spawn(move || {
            while let Some(kept) = there.upgrade() {
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|entry| entry.used.elapsed() < IDLE);
                drop(kept);
                std::thread::sleep(IDLE / 10);
            }
        });
        Self { context, kept }
    }

    /// * `run`: the command that asks; another one is given nothing that was opened for it.
    fn unit(&self, run: &str, job: &Job, unit: u64) -> Result<Vec<u8>> {
        let context = &self.context;
        match job {
            Job::Write { job, step } => {
                let key = format!("{run} write {}", serde_json::to_string(job)?);
                self.kept(key, false, || Opening::new(job, context))?.unit(step, unit, context)
            }
            Job::Moments { cache, column, blocks } => {
                let key = format!("{run} column {column} of {cache}");
                let cache = self.kept(key, false, || Ok(context.cache(cache)?.with_column(column)?))?;
                moments::unit(&cache, *blocks, unit, context)
            }
            Job::CheckShard { cache } => verify::shard(&*self.cache(run, cache)?, unit),
            Job::CheckCache { cache, shards } => verify::rest(&*self.cache(run, cache)?, shards),
            Job::Gc { place, min_age, dry_run } => {
                to_json(&crate::commands::garbage(place, Duration::from_secs(*min_age), *dry_run)?)
            }
            Job::Cells(job) => {
                let key = format!("{run} study {}", serde_json::to_string(&job.of)?);
                self.kept(key, true, || OpenStudy::new(&job.of, context))?.cells(job, unit, context)
            }
            Job::Study(job) => {
                let key = format!("{run} study {}", serde_json::to_string(&job.of)?);
                self.kept(key, true, || OpenStudy::new(&job.of, context))?.whole(job, context)
            }
        }
    }

    fn cache(&self, run: &str, place: &str) -> Result<Arc<Cache>> {
        self.kept(format!("{run} cache {place}"), false, || self.context.cache(place))
    }

    /// What is kept under `key`, opened now if it is not. Units that ask at the same time wait for one another.
    fn kept<T: Any + Send + Sync>(
        &self,
        key: String,
        heavy: bool,
        open: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|entry| entry.key == key);
        if let Some(entry) = found.and_then(|at| kept.remove(at)) {
            let thing = entry.thing.clone();
            kept.push_front(Kept { used: Instant::now(), ..entry });
            return thing.downcast().map_err(|_| anyhow!("two kinds of things under one name"));
        }
        kept.retain(|entry| !(heavy && entry.heavy));
        let thing = Arc::new(open()?);
        kept.push_front(Kept { key, heavy, used: Instant::now(), thing: thing.clone() });
        kept.truncate(KEPT);
        Ok(thing)
    }
}
