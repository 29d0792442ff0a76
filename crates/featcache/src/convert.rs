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
    let shards = &source.manifest().shards;
    let writer = match conversion(source, target, form, false)? {
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
        convert_shard(source, &writer, planned.index)?;
        let bytes = shards.get(planned.index).map_or(0, |info| info.bytes);
        done = Progress { shards: done.shards + 1, bytes: done.bytes + bytes, ..done };
        if progress(done).is_break() {
            return Ok(None);
        }
    }
    writer.commit(source.manifest().golden.clone()).map(Some)
}

/// Begins or joins a conversion; `join` as in [`WriterOptions`].
///
/// # Errors
/// As those of [`Writer::open`].
pub fn conversion(source: &Cache, target: Store, form: Form, join: bool) -> Result<Opened> {
    let manifest = source.manifest();
    let options = WriterOptions {
        shard_rows: manifest.shards.first().map(|info| info.samples.len()),
        form: Some(form),
        provenance: manifest.provenance.clone(),
        classes: manifest.classes.clone(),
        golden: Some(manifest.golden.clone()),
        join,
        ..WriterOptions::default()
    };
    Writer::open(target, manifest.key.clone(), manifest.layout.clone(), manifest.samples, options)
}

/// Converts one shard.
///
/// # Errors
/// [`Error::PlanMismatch`] if the target was cut otherwise, else as those of [`Cache::read_shard`] and [`Writer`].
pub fn convert_shard(source: &Cache, writer: &Writer, index: usize) -> Result<()> {
    let planned = writer.planned(index);
    let info = source.manifest().shards.get(index);
    if info.is_none_or(|info| info.samples != planned.samples) {
        return Err(Error::PlanMismatch {
            location: source.store().display().to_owned(),
            what: "number of samples per shard",
            asked: format!("{:?} in shard {index}", planned.samples),
            found: "another cut of the same samples".into(),
        });
    }
    let shard = source.read_shard(index, &ReadOptions::default())?;
    let skipped = shard.skipped().to_vec();
    writer.write_records(&planned, shard.into_records(), skipped)?;
    Ok(())
}
