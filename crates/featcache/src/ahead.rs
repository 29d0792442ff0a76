//! Work done ahead of its consumer: by several threads, in order, a bounded number of pieces at a time.
//!
//! Piece `i` is `work(i)`; whatever thread computes it, the consumer gets the pieces by number. A piece is begun only
//! when fewer than `ahead` are waiting or in work, so that memory is bounded however slow the consumer is.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// An iterator over `work(0), work(1) … work(count - 1)`.
pub(crate) struct Ahead<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<T> {
    count: usize,
    ahead: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// The next piece to be begun.
    begun: usize,
    /// The next piece to be handed over.
    wanted: usize,
    done: BTreeMap<usize, std::thread::Result<T>>,
    stopped: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Ahead<T> {
    /// Begins the work on `threads` threads.
    pub(crate) fn new(
        count: usize,
        threads: usize,
        ahead: usize,
        work: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> Self {
        let state = State { begun: 0, wanted: 0, done: BTreeMap::new(), stopped: false };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { count, ahead: ahead.max(1), state, changed });
        let work = Arc::new(work);
        let run = |_| {
            let (shared, work) = (shared.clone(), work.clone());
            std::thread::spawn(move || shared.work_through(&*work))
        };
        let threads = (0..threads.clamp(1, count.max(1))).map(run).collect();
        Self { shared, threads }
    }
}

impl<T> Shared<T> {
    fn work_through(&self, work: &dyn Fn(usize) -> T) {
        while let Some(piece) = self.begin() {
            let result = catch_unwind(AssertUnwindSafe(|| work(piece)));
            self.lock().done.insert(piece, result);
            self.changed.notify_all();
        }
    }

    /// The next piece, as soon as there is room for it.
    fn begin(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.stopped || state.begun == self.count {
                return None;
            }
            if state.begun < state.wanted + self.ahead {
                state.begun += 1;
                return Some(state.begun - 1);
            }
            state = self.wait(state);
        }
    }
}

impl<T> Iterator for Ahead<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let mut state = self.shared.lock();
        if state.wanted == self.shared.count {
            return None;
        }
        loop {
            let wanted = state.wanted;
            if let Some(result) = state.done.remove(&wanted) {
                state.wanted += 1;
                drop(state);
                self.shared.changed.notify_all();
                return Some(result.unwrap_or_else(|panic| resume_unwind(panic)));
            }
            state = self.shared.wait(state);
        }
    }
}

/// Pieces that are in work are finished, the others never begun.
impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn in_order_from_any_number_of_threads_and_never_too_far_ahead() {
        for threads in [1, 2, 7] {
            let begun = Arc::new(AtomicUsize::new(0));
            let counter = begun.clone();
            let pieces = Ahead::new(50, threads, 4, move |i| {
                counter.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros((i * 7919 % 13) as u64 * 20));
                i
            });
            for (expected, piece) in pieces.enumerate() {
                assert_eq!(piece, expected);
                assert!(begun.load(Ordering::SeqCst) <= expected + 1 + 4, "at {expected}");
            }
            assert_eq!(begun.load(Ordering::SeqCst), 50);
        }
        assert_eq!(Ahead::new(0, 3, 2, |i| i).count(), 0);
    }

    #[test]
    fn one_that_is_dropped_early_stops() {
        let mut pieces = Ahead::new(usize::MAX, 3, 2, |i| i);
        assert_eq!(pieces.next(), Some(0));
        drop(pieces);
    }

    #[test]
    #[should_panic(expected = "piece 3")]
    fn a_panic_reaches_the_consumer() {
        Ahead::new(9, 2, 2, |i| assert!(i != 3, "piece 3")).count();
    }
}
