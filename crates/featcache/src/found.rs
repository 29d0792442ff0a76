//! Where the rows of a cache are: which shard, and where in its file.
//!
//! The manifest says how many rows each shard has; the rest is in the shards' footers, which are read when a row is asked for and kept
//! while there is room. A footer is some hundred bytes per row.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Manifest;
use crate::directory::Directory;
use crate::schema::ShardHead;

/// Footers kept at a time.
const KEPT: usize = 4096;

/// What is known of the shards besides the manifest.
#[derive(Debug)]
pub(crate) struct Found {
    /// Number of rows before each shard, and of all at the end.
    starts: Vec<usize>,
    footers: Mutex<HashMap<usize, Arc<Footer>>>,
}

/// A shard's footer.
#[derive(Debug)]
pub(crate) struct Footer {
    pub(crate) head: ShardHead,
    pub(crate) directory: Directory,
}

impl Found {
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let mut starts = vec![0];
        starts.extend(manifest.shards.iter().scan(0, |rows, shard| {
            *rows += shard.rows;
            Some(*rows)
        }));
        Self { starts, footers: Mutex::default() }
    }

    /// The shard that holds row `row` of the cache, and which of its rows that is.
    pub(crate) fn place(&self, row: usize) -> (usize, usize) {
        let shard = self.starts.partition_point(|&start| start <= row) - 1;
        (shard, row - self.starts[shard])
    }

    /// The number of rows before shard `index`.
    pub(crate) fn start(&self, index: usize) -> usize {
        self.starts[index]
    }

    pub(crate) fn footer(&self, index: usize) -> Option<Arc<Footer>> {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    pub(crate) fn keep(&self, index: usize, footer: Arc<Footer>) {
        let mut footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        if footers.len() >= KEPT {
            footers.clear();
        }
        footers.insert(index, footer);
    }
}
