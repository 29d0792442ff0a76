//! Where an extraction's time goes, and how that compares with what the machine can do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use candle_core::{DType, Device};

use crate::machine;

/// Seconds from which on the rate of a run means something.
const LONG: f64 = 1.0;

/// Time (in nanoseconds, added up over the threads of a stage) and what was done in it.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    pub(super) decoding: AtomicU64,
    /// Forward workers that wait for an image.
    pub(super) starved: AtomicU64,
    pub(super) forwarding: AtomicU64,
    /// Forward workers that wait for room to put a shard.
    pub(super) blocked: AtomicU64,
    pub(super) writing: AtomicU64,
    /// Views that went through the backbone.
    pub(super) views: AtomicU64,
    written_bytes: AtomicU64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            started: Instant::now(),
            decoding: AtomicU64::new(0),
            starved: AtomicU64::new(0),
            forwarding: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            writing: AtomicU64::new(0),
            views: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
        }
    }

    /// Adds the time since `start`.
    pub(super) fn add(slot: &AtomicU64, start: Instant) {
        slot.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// For the progress display.
    pub(super) fn note(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        format!("{:.1} MB/s · bottleneck: {}", self.written_per_second(seconds), self.bottleneck().0)
    }

    /// What is said at the end.
    ///
    /// * `work`: floating-point operations of a view.
    /// * `on`: where and in which type the work was done.
    pub(super) fn summary(&self, workers: usize, images: usize, work: f64, on: (&Device, DType)) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        let busy = |slot: &AtomicU64| slot.load(Ordering::Relaxed) as f64 / 1e9 / seconds;
        let (name, share) = self.bottleneck();
        format!(
            "{:.2} images/s, {}, {:.1} MB/s written; bottleneck: {name}, {:.0} % of the time \
             (threads at work on average: decoding {:.2}, forward {:.2} of {workers}, writing {:.2})",
            images as f64 / seconds,
            rate(work * self.views.load(Ordering::Relaxed) as f64, seconds, on),
            self.written_per_second(seconds),
            share * 100.0,
            busy(&self.decoding),
            busy(&self.forwarding),
            busy(&self.writing),
        )
    }

    /// What the forward workers spend most of their time with, and how much of it.
    fn bottleneck(&self) -> (&'static str, f64) {
        let seconds = |slot: &AtomicU64| slot.load(Ordering::Relaxed) as f64 / 1e9;
        let shares = [
            ("forward passes", seconds(&self.forwarding)),
            ("reading images", seconds(&self.starved)),
            ("writing", seconds(&self.blocked)),
        ];
        let all: f64 = shares.iter().map(|(_, seconds)| seconds).sum();
        let (name, most) = shares.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
        (name, most / all.max(1e-9))
    }

    fn written_per_second(&self, seconds: f64) -> f64 {
        self.written_bytes.load(Ordering::Relaxed) as f64 / 1e6 / seconds.max(1e-9)
    }
}

/// The rate of forward passes, beside that of a matrix product if the run was long enough to tell.
fn rate(work: f64, seconds: f64, (device, dtype): (&Device, DType)) -> String {
    let reached = work / seconds / 1e9;
    let peak = if seconds < LONG { None } else { machine::matrix_rate(device, dtype, true).ok() };
    match peak {
        None => format!("{reached:.0} GFLOP/s"),
        Some(peak) => {
            let share = 100.0 * reached / peak;
            format!("{reached:.0} GFLOP/s ({share:.0} % of the {peak:.0} of a matrix product)")
        }
    }
}
