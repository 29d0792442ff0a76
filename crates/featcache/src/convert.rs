//! The same features in another form, or in another place.
//!
//! Shard by shard, in the plan of the source; key, cache id, golden activation and every bit of every number stay. It is
//! written like any cache: a conversion that was interrupted goes on, and nothing is there before it is whole.

use std::ops::ControlFlow;

use crate::store::Store;
use crate::{Cache, Error, Form, Opened, Progress, ReadOptions, Result, Writer, WriterOptions};

/// Writes `source` to `target` in `form`; `None` if `progress`, which is called after each shard, asked to stop.
///
/// # Errors
/// As those of [`Cache::read_shard`] and of [`Writer`].
pub fn convert(
    source: &Cache,
    target: Store,
    form: Form,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Cache>> {
    let manifest = source.manifest();
    let shards = &manifest.shards;
    let options = WriterOptions {
        shard_rows: shards.first().map(|info| info.samples.len()),
        form: Some(form),
        provenance: manifest.provenance.clone(),
        classes: manifest.classes.clone(),
        golden: Some(manifest.golden.clone()),
        ..WriterOptions::default()
    };
    let (key, layout) = (manifest.key.clone(), manifest.layout.clone());
    let writer = match Writer::open(target, key, layout, manifest.samples, options)? {
        Opened::Complete(cache) => return Ok(Some(cache)),
        Opened::Resume(writer) => writer,
    };
    let missing = writer.missing();
    let mut done = Progress {
        shards: shards.len() - missing.len().min(shards.len()),
        total_shards: shards.len(),
        bytes: 0,
    };
    for planned in missing {
        let info = shards.get(planned.index).filter(|info| info.samples == planned.samples);
        let Some(info) = info else {
            return Err(Error::PlanMismatch {
                location: source.store().display().to_owned(),
                what: "number of samples per shard",
                asked: format!("{:?} in shard {}", planned.samples, planned.index),
                found: "another cut of the same samples".into(),
            });
        };
        let shard = source.read_shard(planned.index, &ReadOptions::default())?;
        let skipped = shard.skipped().to_vec();
        writer.write_records(&planned, shard.into_records(), skipped)?;
        done = Progress { shards: done.shards + 1, bytes: done.bytes + info.bytes, ..done };
        if progress(done).is_break() {
            return Ok(None);
        }
    }
    writer.commit(manifest.golden.clone()).map(Some)
}
