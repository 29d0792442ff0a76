//! The program as users meet it: every test here runs the `featlab` binary.
//!
//! `bad_input` — one clear line and the right exit code; `line` — extract, reduce, probe, sweep, report on small data; `layouts` — reducers of one dimension;
//! `project` — caches through reducers; `commuted` — predictions against those of upsampled features;
//! `bank` — weights that depend on nothing but what they should; `kinds` — every probe, method and score of a sweep; `resume` — interruption and what is left of it; `golden_extract` — picture files to Parquet against reference tokens;
//! `contracts` — what holds for every command: given twice, in other spellings, refused in time;
//! `stand_in` — the studies' sweeps on drawn data sets; `stores` — caches in a bucket; `precision` — batches and half precision;
//! `segment` — models, label maps and checkpoints of the original;
//! `segment_studies` — correspondences, co-occurrence, the CRF study, own pictures without labels;
//! `report` — its page in a browser, its exports; `classify`, `attention`, `pretrain` — the commands beside the line.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test that cannot go on panics; one that skips says so

mod attention;
mod bad_input;
mod bank;
mod cache;
mod classify;
mod commuted;
mod contracts;
mod fixture;
mod golden_extract;
mod kinds;
mod layouts;
mod line;
#[path = "../../crates/probe/tests/literal/mod.rs"]
mod literal;
mod precision;
mod pretrain;
mod pretrain_methods;
mod project;
mod report;
mod resume;
mod segment;
mod segment_studies;
mod stand_in;
mod stores;
