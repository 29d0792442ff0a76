//! Decode, forward, write: three stages that work at the same time, each waiting when the next one is full.
//!
//! ```text
//! decoders ──images──▶ forward workers ──whole shards──▶ writers
//! ```
//!
//! Images may pass one another; a shard is put together in the order of its samples, so that nothing depends on who was faster. A forward
//! worker takes a batch of images, or what there is if that is less, lets them through the network, and hands their records on. On the
//! CPU a batch is one image, and there is one worker per core, each with a core of its own. A GPU has two workers: while one makes
//! records of its features and hands them on, the other one's batch is computed. Both give their work to the device's
//! one stream (see `device.rs` of `backbone`), where it is done in the order of asking; so nothing on the device needs a lock, and all that
//! is not overlapped is the copy itself, which would take a second stream and pinned memory.
//!
//! Memory is bounded by the queues: a few images (for each worker a batch and one more), and a few shards in their stored form. When a
//! signal asks to stop, or something fails, no new image is begun, and shards that are complete are still written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use dataset::View;
use featcache::{PlannedShard, Record, Writer};

use super::clock::Clock;
use super::{Job, Sampled};
use crate::Context;
use crate::progress::Progress;

/// Threads that encode and upload: two, so that one shard is encoded while the one before it is under way.
const WRITERS: usize = 2;

/// Forward workers of a GPU: one whose batch is computed, and one that is busy with the batch before.
const GPU_WORKERS: usize = 2;

/// A decoded sample: which one, of which shard in work.
struct Decoded {
    shard: usize,
    sample: usize,
    views: Sampled<Vec<View>>,
}

/// What became of a sample.
struct Outcome {
    shard: usize,
    sample: usize,
    records: Sampled<Vec<Record>>,
}

/// A shard that is being put together.
struct Gathering {
    /// One per sample.
    outcomes: Vec<Option<Sampled<Vec<Record>>>>,
    left: usize,
}

/// A shard that can be written.
struct Whole {
    shard: usize,
    outcomes: Vec<Sampled<Vec<Record>>>,
}

/// Computes and writes the shards `mine`.
///
/// # Errors
/// What any stage fails with first; on interruption, once complete shards are written.
pub(super) fn run(job: &Job<'_>, writer: &Writer, mine: &[PlannedShard], context: &Context) -> Result<()> {
    let images: usize = mine.iter().map(|shard| shard.samples.len()).sum();
    if images == 0 {
        return Ok(());
    }
    let cores = rayon::current_num_threads();
    let workers = if job.forward.device.is_cpu() { cores } else { GPU_WORKERS }.min(images);
    let line = Line {
        job,
        writer,
        mine,
        context,
        progress: context.reporter.start(&format!("extract {}", job.split), images as u64, "images"),
        order: mine
            .iter()
            .enumerate()
            .flat_map(|(at, shard)| shard.samples.clone().map(move |i| (at, i)))
            .collect(),
        next: AtomicUsize::new(0),
        stopped: AtomicBool::new(false),
        failure: Mutex::new(None),
        gathering: Mutex::default(),
        clock: Clock::start(),
    };
    let (decoded, to_forward) = sync_channel(workers * (1 + job.forward.images_of_a_batch()));
    let (whole, to_write) = sync_channel(1);
    let (to_forward, to_write) = (Mutex::new(to_forward), Mutex::new(to_write));
    std::thread::scope(|scope| {
        for _ in 0..cores.clamp(2, 16).min(images) {
            let decoded = decoded.clone();
            let line = &line;
            scope.spawn(move || line.decode(&decoded));
        }
        for _ in 0..workers {
            let whole = whole.clone();
            let (line, to_forward) = (&line, &to_forward);
            scope.spawn(move || line.forward(to_forward, &whole, cores / workers));
        }
        for _ in 0..WRITERS {
            scope.spawn(|| line.write(&to_write));
        }
        // Each stage ends when the one before it has let go of its queue.
        drop((decoded, whole));
    });
    let Line { progress, failure, clock, .. } = line;
    drop(progress);
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => {
            let summary = clock.summary(workers, images, job.forward.work()?, job.forward.computes());
            context.reporter.say(format!("extract {}: {summary}", job.split));
            Ok(())
        }
    }
}

/// What the stages share.
struct Line<'a> {
    job: &'a Job<'a>,
    writer: &'a Writer,
    mine: &'a [PlannedShard],
    context: &'a Context,
    progress: Progress,
    /// All samples: `(shard in work, sample)`.
    order: Vec<(usize, usize)>,
    /// The next of them to be decoded.
    next: AtomicUsize,
    stopped: AtomicBool,
    failure: Mutex<Option<anyhow::Error>>,
    gathering: Mutex<HashMap<usize, Gathering>>,
    clock: Clock,
}

impl Line<'_> {
    /// Stops the line: no new image is begun. Every stage goes on taking what the one before it hands over, so that none
    /// waits for ever.
    fn stop(&self, error: anyhow::Error) {
        self.stopped.store(true, Ordering::SeqCst);
        lock(&self.failure).get_or_insert(error);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    fn decode(&self, decoded: &SyncSender<Decoded>) {
        while !self.is_stopped() {
            let Some(&(shard, sample)) = self.order.get(self.next.fetch_add(1, Ordering::SeqCst)) else {
                break;
            };
            let start = Instant::now();
            let views = self.context.interrupt.check().and_then(|()| self.job.views(sample));
            Clock::add(&self.clock.decoding, start);
            match views {
                Ok(views) => {
                    decoded.send(Decoded { shard, sample, views }).expect("the receiver outlives the line")
                }
                Err(error) => self.stop(error),
            }
        }
    }

    /// Forwards images on `threads` threads of its own.
    fn forward(&self, images: &Mutex<Receiver<Decoded>>, whole: &SyncSender<Whole>, threads: usize) {
        let pool = match rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build() {
            Ok(pool) => Some(pool),
            Err(error) => {
                self.stop(error.into());
                None
            }
        };
        loop {
            let start = Instant::now();
            let batch = self.next_batch(images);
            if batch.is_empty() {
                break;
            }
            Clock::add(&self.clock.starved, start);
            let Some(pool) = pool.as_ref().filter(|_| !self.is_stopped()) else { continue };
            let start = Instant::now();
            let outcomes = pool.install(|| self.outcomes(batch));
            Clock::add(&self.clock.forwarding, start);
            match outcomes {
                Ok(outcomes) => outcomes.into_iter().for_each(|outcome| self.hand_over(outcome, whole)),
                Err(error) => self.stop(error),
            }
        }
    }

    /// Samples with enough views for a batch, or those that are there: waits for one, and no longer. None when no more will come.
    fn next_batch(&self, images: &Mutex<Receiver<Decoded>>) -> Vec<Decoded> {
        let images = lock(images);
        let mut missing = self.job.forward.images_of_a_batch();
        let mut batch = Vec::new();
        let mut next = images.recv().ok();
        while let Some(decoded) = next {
            missing = missing.saturating_sub(decoded.views.as_ref().map_or(1, Vec::len));
            batch.push(decoded);
            next = if missing > 0 { images.try_recv().ok() } else { None };
        }
        batch
    }

    fn hand_over(&self, Outcome { shard, sample, records }: Outcome, whole: &SyncSender<Whole>) {
        self.progress.tick_with(1, || self.clock.note());
        let start = Instant::now();
        if let Some(complete) = self.gather(shard, sample, records) {
            whole.send(complete).expect("the receiver outlives the line");
        }
        Clock::add(&self.clock.blocked, start);
    }

    /// What becomes of the samples of a batch, in their order.
    fn outcomes(&self, batch: Vec<Decoded>) -> Result<Vec<Outcome>> {
        self.context.interrupt.check()?;
        let views = batch.iter().filter_map(|decoded| decoded.views.as_ref().ok()).flatten();
        let images: Vec<_> = views.map(|view| view.image.view()).collect();
        self.clock.views.fetch_add(images.len() as u64, Ordering::Relaxed);
        let mut features = self.job.forward.all(&images)?.into_iter();
        let mut record = |sample: usize, view: View| -> Result<Record> {
            let layers = features.next().context("every view has features")?;
            Ok(self.writer.record(&self.job.row(sample, view, layers)?)?)
        };
        let outcome = |Decoded { shard, sample, views }| {
            let records = match views {
                Ok(views) => Ok(views.into_iter().map(|view| record(sample, view)).collect::<Result<_>>()?),
                Err(tombstone) => Err(tombstone),
            };
            Ok(Outcome { shard, sample, records })
        };
        batch.into_iter().map(outcome).collect()
    }

    /// Puts an outcome in its place; returns the shard when it was the last.
    fn gather(&self, shard: usize, sample: usize, outcome: Sampled<Vec<Record>>) -> Option<Whole> {
        let samples = self.mine[shard].samples.clone();
        let mut all = lock(&self.gathering);
        let one = all.entry(shard).or_insert_with(|| Gathering {
            outcomes: samples.clone().map(|_| None).collect(),
            left: samples.len(),
        });
        one.outcomes[sample - samples.start] = Some(outcome);
        one.left -= 1;
        if one.left > 0 {
            return None;
        }
        let Gathering { outcomes, .. } = all.remove(&shard)?;
        Some(Whole { shard, outcomes: outcomes.into_iter().flatten().collect() })
    }

    /// Writes shards, also when the line has been stopped: they are complete.
    fn write(&self, shards: &Mutex<Receiver<Whole>>) {
        let mut works = true;
        loop {
            let Ok(Whole { shard, outcomes }) = lock(shards).recv() else { break };
            let start = Instant::now();
            if works && let Err(error) = self.write_one(&self.mine[shard], outcomes) {
                self.stop(error);
                works = false;
            }
            Clock::add(&self.clock.writing, start);
        }
    }

    fn write_one(&self, planned: &PlannedShard, outcomes: Vec<Sampled<Vec<Record>>>) -> Result<()> {
        let (mut records, mut skipped) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Ok(more) => records.extend(more),
                Err(tombstone) => skipped.push(tombstone),
            }
        }
        let info = (self.writer.write_records(planned, records, skipped))
            .with_context(|| format!("writing shard {}", planned.index))?;
        self.clock.wrote(info.bytes);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
