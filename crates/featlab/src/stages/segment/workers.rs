//! Workers that take pictures one by one.
//!
//! Each has one picture at a time from its file to its result, so that memory holds one a worker. They are threads of their own and not
//! tasks of a pool, where a task that waits for others would begin further pictures meanwhile.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;

use crate::Context;

/// Does `work(0)` to `work(n - 1)`; results in order.
///
/// * `each_alone`: a thread has its picture for itself; otherwise one worker gives its pictures all threads.
///
/// # Errors
/// What any worker failed with first, or on interruption; no work is begun after that.
pub(super) fn in_turn<T: Send>(
    n: usize,
    each_alone: bool,
    (what, context): (&str, &Context),
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = Mutex::new(Vec::with_capacity(n));
    let progress = context.reporter.start(what, n as u64, "pictures");
    let take = || -> Result<()> {
        while !failed.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            context.interrupt.check()?;
            let result = if each_alone { kernels::one_thread(|| work(i))? } else { work(i)? };
            results.lock().expect("no worker panics while it holds the lock").push((i, result));
            progress.tick(1);
        }
        Ok(())
    };
    let guarded = || take().inspect_err(|_| failed.store(true, Ordering::Relaxed));
    let workers = if each_alone { rayon::current_num_threads().min(n) } else { 1 };
    let ended: Vec<Result<()>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(guarded)).collect();
        handles.into_iter().map(|handle| handle.join().expect("a worker does not panic")).collect()
    });
    drop(progress);
    ended.into_iter().collect::<Result<Vec<()>>>()?;
    let mut results = results.into_inner().expect("no worker panicked");
    results.sort_unstable_by_key(|(i, _)| *i);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// Whether every thread can have a picture for itself: on a CPU, if there are enough of them.
pub(super) fn each_alone(pictures: usize, on_cpu: bool) -> bool {
    on_cpu && pictures >= rayon::current_num_threads()
}
