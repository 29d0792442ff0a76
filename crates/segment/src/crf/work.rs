//! With how many threads: all of the pool for one picture, or one of them for each of many pictures.
//!
//! What is computed does not depend on it; parts are cut by the picture alone.

use rayon::prelude::*;

/// Who works on a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// The calling thread.
    One,
    /// All threads of the pool.
    All,
}

/// Does every part.
pub(super) fn each<T: Send>(work: Work, parts: Vec<T>, f: impl Fn(T) + Sync + Send) {
    match work {
        Work::One => parts.into_iter().for_each(f),
        Work::All => parts.into_par_iter().for_each(f),
    }
}

/// Does both.
pub(super) fn both<A: Send, B: Send>(
    work: Work,
    a: impl FnOnce() -> A + Send,
    b: impl FnOnce() -> B + Send,
) -> (A, B) {
    match work {
        Work::One => (a(), b()),
        Work::All => rayon::join(a, b),
    }
}
