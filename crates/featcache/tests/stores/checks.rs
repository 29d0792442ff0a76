//! Counts what was compared, and says on which store a comparison failed.

use std::fmt::Debug;
use std::time::Instant;

pub(crate) struct Checks {
    store: &'static str,
    count: usize,
    begun: Instant,
}

impl Checks {
    pub(crate) fn new(store: &'static str) -> Self {
        Self { store, count: 0, begun: Instant::now() }
    }

    pub(crate) fn store(&self) -> &'static str {
        self.store
    }

    #[track_caller]
    pub(crate) fn same<A: PartialEq<B> + Debug, B: Debug>(&mut self, what: &str, found: A, expected: B) {
        assert_eq!(found, expected, "{}: {what}", self.store);
        self.count += 1;
    }

    /// For what is too large to print.
    #[track_caller]
    pub(crate) fn holds(&mut self, what: &str, holds: bool) {
        assert!(holds, "{}: {what}", self.store);
        self.count += 1;
    }

    pub(crate) fn summary(&self) -> String {
        format!("{}: {} checks in {:.1} s", self.store, self.count, self.begun.elapsed().as_secs_f32())
    }
}
