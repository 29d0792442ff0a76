//! All rows of a cache, one after the other: in order or shuffled, read ahead by several threads.
//!
//! In order, shards are read whole; a shuffled stream, or one of few columns, reads blocks of rows. Memory is bounded by
//! what is read ahead, whatever the size of the cache: about `ahead_bytes`, and a window of 128 MiB if shuffled.

use std::collections::VecDeque;
use std::ops::Range;

use crate::ahead::Ahead;
use crate::order::Permutation;
use crate::{Cache, Error, ReadOptions, Record, Result};

/// Read ahead, unless the caller says how much.
const AHEAD_BYTES: usize = 128 << 20;
/// Rows of a part that are read together.
const PIECE_ROWS: usize = 8;
/// Requests at a time to a store that is far away: enough to hide its latency.
const REMOTE_THREADS: usize = 8;

/// In which order rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they are stored.
    #[default]
    Stored,
    /// A permutation of all rows ([`shuffled`](crate::shuffled)): the same for the same seed and epoch, for any number of threads,
    /// shards and any form.
    Shuffled {
        /// Seed.
        seed: u64,
        /// Which pass over the cache.
        epoch: u64,
    },
}

/// How to stream; the default is right for most.
#[derive(Debug, Clone, Default)]
pub struct StreamOptions {
    /// In which order.
    pub order: Order,
    /// Checks and columns.
    pub read: ReadOptions,
    /// Threads that read; 0 takes as many as there are cores, for stores that are far away at least 8.
    pub threads: usize,
    /// Bytes read ahead; 0 takes 128 MiB.
    pub ahead_bytes: usize,
    /// Only these rows, as they are stored: one process's part of a cache.
    pub rows: Option<Range<usize>>,
}

/// An iterator over rows. The first error ends it.
pub struct Stream {
    pieces: Ahead<Result<Vec<Record>>>,
    ready: VecDeque<Record>,
    shuffle: Option<Permutation>,
    failed: bool,
    rows_left: usize,
}

impl Cache {
    /// Every row once.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for columns that are not there. The items are errors as those of [`Cache::read_shard`].
    pub fn stream(&self, options: &StreamOptions) -> Result<Stream> {
        let selected = self.select(options.read.columns.as_deref())?;
        let verify = options.read.verify;
        let row_bytes = self.layout().row_bytes(self.manifest().key.dtype);
        let threads = match options.threads {
            0 if self.store().is_far() => cores().max(REMOTE_THREADS),
            0 => cores(),
            threads => threads,
        };
        let ahead = if options.ahead_bytes == 0 { AHEAD_BYTES } else { options.ahead_bytes };
        let cache = self.clone();
        if let Some(rows) = &options.rows {
            return self.part(rows.clone(), selected, verify, (threads, ahead / (PIECE_ROWS * row_bytes)));
        }
        let (shuffle, pieces) = match options.order {
            Order::Stored => {
                let shards = &self.manifest().shards;
                let shard_rows = shards.iter().map(|info| info.rows).max().unwrap_or(1).max(1);
                let ahead = (ahead / (shard_rows * row_bytes)).max(threads);
                let read = options.read.clone();
                let pieces = Ahead::new(shards.len(), threads, ahead, move |index| {
                    Ok(cache.read_shard(index, &read)?.into_records())
                });
                (None, pieces)
            }
            Order::Shuffled { seed, epoch } => {
                let permutation = Permutation::new(self.rows(), row_bytes, seed, epoch);
                let blocks = permutation.blocks();
                let block_rows = blocks.iter().map(ExactSizeIterator::len).max().unwrap_or(1);
                let ahead = (ahead / (block_rows * row_bytes)).max(threads);
                let pieces = Ahead::new(blocks.len(), threads, ahead, move |block| {
                    cache.block(blocks[block].clone(), &selected, verify)
                });
                (Some(permutation), pieces)
            }
        };
        let rows_left = self.rows();
        Ok(Stream { pieces, ready: VecDeque::new(), shuffle, failed: false, rows_left })
    }

    /// Some of the rows, as they are stored.
    fn part(
        &self,
        rows: Range<usize>,
        selected: Vec<bool>,
        verify: bool,
        (threads, ahead): (usize, usize),
    ) -> Result<Stream> {
        if rows.start > rows.end || rows.end > self.rows() {
            let reason = format!("are {rows:?}, the cache has {}", self.rows());
            return Err(Error::InvalidOption { option: "rows", reason });
        }
        let (cache, rows_left) = (self.clone(), rows.len());
        let pieces = Ahead::new(rows_left.div_ceil(PIECE_ROWS), threads, ahead.max(threads), move |index| {
            let first = rows.start + index * PIECE_ROWS;
            cache.block(first..(first + PIECE_ROWS).min(rows.end), &selected, verify)
        });
        Ok(Stream { pieces, ready: VecDeque::new(), shuffle: None, failed: false, rows_left })
    }

    /// Consecutive rows, from as many shards as they lie in.
    fn block(&self, rows: Range<usize>, selected: &[bool], verify: bool) -> Result<Vec<Record>> {
        let mut records = Vec::with_capacity(rows.len());
        let mut next = rows.start;
        while next < rows.end {
            let (shard, first) = self.found().place(next);
            let there = self.manifest().shards[shard].rows - first;
            let count = there.min(rows.end - next);
            let wanted: Vec<usize> = (first..first + count).collect();
            records.extend(self.rows_of(shard, &wanted, selected, verify)?);
            next += count;
        }
        Ok(records)
    }
}

impl Stream {
    /// Reads the next shard, or the next window of blocks.
    fn refill(&mut self) -> Result<()> {
        let Some(shuffle) = &mut self.shuffle else {
            if let Some(piece) = self.pieces.next() {
                self.ready.extend(piece?);
            }
            return Ok(());
        };
        let mut window = Vec::new();
        for piece in self.pieces.by_ref().take(shuffle.window_blocks()) {
            window.extend(piece?);
        }
        shuffle.shuffle_window(&mut window);
        self.ready.extend(window);
        Ok(())
    }
}

impl Iterator for Stream {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        while self.ready.is_empty() && self.rows_left > 0 && !self.failed {
            if let Err(error) = self.refill() {
                self.failed = true;
                return Some(Err(error));
            }
        }
        let record = self.ready.pop_front()?;
        self.rows_left -= 1;
        Some(Ok(record))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.rows_left))
    }
}

fn cores() -> usize {
    rayon::current_num_threads()
}
