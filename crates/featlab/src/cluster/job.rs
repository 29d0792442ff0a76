//! What a driver asks executors for. Goes over the wire as JSON; both sides are one version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::study::{CellsJob, StudyJob};
use super::writing::WritingJob;

/// A job; which of its units is asked for comes with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Job {
    /// A cache is written: unit 0 of [`Step::Plan`] and [`Step::Commit`], unit `i` of [`Step::Shards`] is shard `i`.
    Write {
        /// Which one, of what.
        job: Box<WritingJob>,
        /// How far it is.
        step: Step,
    },
    /// Moments of the tokens of a cache; unit `u` is of `blocks` blocks of images, from `u · blocks` on.
    Moments {
        /// Where the cache is.
        cache: String,
        /// Which of its columns.
        column: String,
        /// A power of two.
        blocks: u64,
    },
    /// Shard `u` of a cache is checked.
    CheckShard {
        /// Where the cache is.
        cache: String,
    },
    /// What is wrong with a cache, given what was found in its shards.
    CheckCache {
        /// Where the cache is.
        cache: String,
        /// Of every shard.
        shards: Vec<featcache::ShardCheck>,
    },
    /// What belongs to nothing is removed.
    Gc {
        /// Below which place.
        place: String,
        /// Seconds.
        min_age: u64,
        /// Only say so.
        dry_run: bool,
    },
    /// Groups of probes are trained and scored; a unit is a group.
    Cells(Box<CellsJob>),
    /// Something of a study that is one unit as a whole: a reducer that is no sum over images, what is measured of features.
    Study(Box<StudyJob>),
}

/// How far a cache is that is being written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Open all that it is made of, and touch nothing.
    Check,
    /// Begin or join it.
    Plan,
    /// Write a shard, or look at it if it is there.
    Shards,
    /// Write the manifest.
    Commit(BTreeMap<u64, featcache::Done>),
}
