//! The same job on many machines: numbered *units* of work on Ballista's scheduler and executors.
//!
//! ```text
//! driver ──plan: one partition per unit──▶ scheduler ◀──polls── executors ──▶ Worker::run(job, unit)
//!    ▲                                                             │
//!    └───────────────── a report per unit (Arrow Flight) ──────────┘
//! ```
//!
//! A job is a text that a `Worker` understands; a unit is a number that it can be asked for. The engine sees an ordinary plan, a
//! projection of one function over a table of unit numbers, so that placing, heartbeats, lost executors and repeated tasks are its
//! business. What this crate adds is what a job of hours needs on top: a unit's error comes back as a result instead of failing
//! the stage, reports that were lost with their executor are asked for again, a restarted scheduler is waited for, and all of
//! that happens a bounded number of times (`Driver`).
//!
//! Reports come back in any order and are handed on by unit number; what they mean is the worker's business. Nothing here knows
//! of features, reducers or probes. Without the feature `engine` the crate is empty.
#![cfg(feature = "engine")]

mod driver;
mod error;
mod executor;
mod plan;
mod pulse;
mod report;
mod round;
mod scheduler;
mod status;
mod token;
mod unit_function;
mod worker;

pub use {
    driver::{Driver, DriverOptions, Units, Watch},
    error::{Error, Result},
    executor::{ExecutorOptions, run_executor},
    report::{Report, UnitFailure},
    scheduler::{SchedulerOptions, run_scheduler},
    status::{ExecutorStatus, JobStatus, Status},
    worker::Worker,
};
