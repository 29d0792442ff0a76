//! A cluster as users run it: a scheduler and executors as processes of their own, caches in an S3 server on this machine.
//!
//! `same_bits` — every command gives on a cluster what it gives on one machine; `trouble` — executors killed and stopped at work, a scheduler
//! that starts again, full disks, wrong tokens; `sql` — questions to caches.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test that cannot go on panics; one that skips says so

#[path = "../cli/fixture.rs"]
#[allow(dead_code)]
mod fixture;
mod processes;
mod same_bits;
mod sql;
mod trouble;
