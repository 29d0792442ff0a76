//! Local files as memory, without a copy.
//!
//! A shard is immutable: it appears whole under its name and is never written to again, which is what makes mapping it
//! sound. Who truncates a mapped shard by other means kills the reader (SIGBUS), as with every mapped file.

use std::fs::File;
use std::io;
use std::path::Path;

use bytes::Bytes;
use memmap2::MmapOptions;

/// The file as bytes; `ahead` reads all of it at once instead of page by page.
///
/// # Errors
/// If it cannot be opened or mapped.
pub(crate) fn map(path: &Path, ahead: bool) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    let mut options = MmapOptions::new();
    if ahead {
        options.populate();
    }
    // SAFETY: shards are never changed in place (see above); the mapping is private to reading.
    #[allow(unsafe_code, reason = "mapping a file is unsafe by nature; the invariant is that of the cache")]
    let mapped = unsafe { options.map(&file)? };
    Ok(Bytes::from_owner(mapped))
}
