//! Local files as memory, without a copy.
//!
//! A shard is immutable: it appears whole under its name and is never written to again, which is what makes mapping it
//! sound. Who truncates a mapped shard by other means kills the reader (SIGBUS), as with every mapped file.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use memmap2::MmapOptions;

/// The file as bytes, read at once instead of page by page.
///
/// # Errors
/// If it cannot be opened or mapped.
pub(crate) fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    map_whole(&file, bytes, true)
}

/// Ranges of a file, read page by page as they are looked at.
///
/// # Errors
/// If it cannot be opened or mapped, or a range is not within it.
pub(crate) fn map_ranges(path: &Path, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if ranges.iter().any(|range| range.start > range.end || range.end > bytes) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // All of it, however little is wanted: the system maps large pages where a mapping is aligned as the file is.
    let file = map_whole(&file, bytes, false)?;
    Ok(ranges.iter().map(|range| file.slice(range.start as usize..range.end as usize)).collect())
}

fn map_whole(file: &File, bytes: u64, ahead: bool) -> io::Result<Bytes> {
    if bytes == 0 {
        return Ok(Bytes::new());
    }
    let mut options = MmapOptions::new();
    if ahead {
        options.populate();
    }
    // SAFETY: shards are never changed in place (see above); the mapping is private to reading.
    #[allow(unsafe_code, reason = "mapping a file is unsafe by nature; the invariant is that of the cache")]
    let mapped = unsafe { options.map(file)? };
    Ok(Bytes::from_owner(mapped))
}
