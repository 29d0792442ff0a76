//! Large objects, uploaded in parts to a store that is far away.
//!
//! A request of hundreds of megabytes is slow and all lost when it breaks; parts go up several at a time and are repeated one by
//! one. No store creates an object *conditionally* from parts through this interface, so the parts become `name.upload-N` first, which
//! no listing shows, and that is copied to its name unless there is one already. A kill leaves `name.upload-N` behind, or parts that only the
//! store knows (buckets have a rule that drops those after some days); `gc` removes the former.
//!
//! On Google's store the copy is not conditional (object_store 0.13 mixes up its two kinds of copy): there a look just before
//! must do. Objects of at most one part, which is what shards are unless asked for otherwise, never come here.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, Result, WriteMultipart};

use crate::PutOutcome;

/// Size of a part, and from where on objects have several.
pub(crate) const PART_BYTES: usize = 64 << 20;
/// Parts under way at a time.
const PARALLEL: usize = 4;
const MARK: &str = ".upload-";

/// Uploads `bytes` and puts them at `path`; with `create`, unless something is there.
pub(crate) async fn in_parts(
    store: &dyn ObjectStore,
    path: &Path,
    bytes: Bytes,
    part_bytes: usize,
    create: bool,
) -> Result<PutOutcome> {
    let unfinished = Path::from(format!("{path}{MARK}{}", unique()));
    let upload = store.put_multipart(&unfinished).await?;
    let mut parts = WriteMultipart::new_with_chunk_size(upload, part_bytes);
    for start in (0..bytes.len()).step_by(part_bytes) {
        parts.wait_for_capacity(PARALLEL).await?;
        parts.put(bytes.slice(start..bytes.len().min(start + part_bytes)));
    }
    parts.finish().await?;
    let placed = place(store, &unfinished, path, create).await;
    // That it stays is no harm: `gc` finds it.
    if let Err(error) = store.delete(&unfinished).await {
        tracing::debug!(%error, path = %unfinished, "an upload that is no longer needed stays for gc");
    }
    placed
}

async fn place(store: &dyn ObjectStore, from: &Path, to: &Path, create: bool) -> Result<PutOutcome> {
    if !create {
        return store.copy(from, to).await.map(|()| PutOutcome::Created);
    }
    match store.head(to).await {
        Ok(_) => return Ok(PutOutcome::Existed),
        Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let copied = match store.copy_if_not_exists(from, to).await {
        Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => store.copy(from, to).await,
        other => other,
    };
    match copied {
        Ok(()) => Ok(PutOutcome::Created),
        Err(Error::AlreadyExists { .. }) => Ok(PutOutcome::Existed),
        // Who commits the cache sweeps the uploads of writers that came too late: then the object is there.
        Err(_) if store.head(to).await.is_ok() => Ok(PutOutcome::Existed),
        Err(error) => Err(error),
    }
}

/// A number that no other upload has.
fn unique() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one((std::process::id(), std::thread::current().id()))
}

pub(crate) fn is_unfinished(name: &str) -> bool {
    target(name).is_some()
}

/// What an unfinished upload would have become.
pub(crate) fn target(name: &str) -> Option<&str> {
    let (target, number) = name.rsplit_once(MARK)?;
    (!target.is_empty() && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(target)
}
