//! The kill matrix: an extraction is stopped at each of its operations on the store, in every way there is, and begun again.
//!
//! Stopped by a store that fails (before, or after the operation took place), cuts short, loses or delays (`faulty.rs`), and by SIGKILL of
//! a process of its own (`sigkill.rs`). Afterwards the files must be the same byte for byte, and at most one shard have been computed twice.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper that fails is a failed test, and says what was tried"
)]

mod bulk;
mod faulty;
#[path = "../fixture/mod.rs"]
mod fixture;
mod matrix;
mod parts;
mod program;
mod reorder;
mod sigkill;
mod stalled;
mod tasks;
mod work;
