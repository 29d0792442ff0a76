//! Project: a cache through a reducer into another cache, a shard at a time.
//!
//! Of the tokens `[t, d]` of one column, `[t, k]` stay; names, crops, labels, pictures, classes, skipped images and the cut into
//! shards are those of the source. Class tokens are left out: reducers are fitted on patches, and a row has one width. An image is
//! projected by itself, so that its numbers depend neither on shards nor on threads.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use dimred::{Map, Projection as _};
use featcache::{
    Cache, Dtype, FeatureKey, Form, GoldenActivation, Layout, Opened, PlannedShard, Projected, ReadOptions,
    Record, Row, Store, Writer, WriterOptions,
};
use rayon::prelude::*;

use super::reducer_file::ReducerFile;
use crate::Context;
use crate::exit::{integrity, usage};

/// What to write.
pub(crate) struct Job<'a> {
    /// The features, with the column that is projected as their tokens.
    pub(crate) source: &'a Cache,
    pub(crate) reducer: &'a ReducerFile,
    /// `k`.
    pub(crate) dim: usize,
    pub(crate) dtype: Dtype,
    pub(crate) form: Form,
    pub(crate) overwrite: bool,
    pub(crate) repair: bool,
}

/// The projected cache, and how many images this run projected.
pub(crate) struct Outcome {
    pub(crate) cache: Cache,
    pub(crate) computed: usize,
}

impl Job<'_> {
    /// Writes what `target` lacks, and commits.
    ///
    /// # Errors
    /// If there is no such map, or one that depends on which rows it is given together; if something else is there; if
    /// nothing can be read or written; on interruption (shards that are there stay).
    pub(crate) fn run(&self, target: Store, context: &Context) -> Result<Outcome> {
        let place = target.display().to_owned();
        let writer = match self.open(target, false)? {
            Opened::Complete(cache) => return Ok(Outcome { cache, computed: 0 }),
            Opened::Resume(writer) => writer,
        };
        let missing = writer.missing();
        let there = writer.total_shards() - missing.len();
        if there > 0 {
            context
                .reporter
                .say(format!("resuming {place}: {there} of {} shards are there", writer.total_shards()));
        }
        let images: usize = missing.iter().map(|shard| shard.samples.len()).sum();
        let progress = context.reporter.start("project", images as u64, "images");
        for planned in &missing {
            self.shard(planned, &writer, context).with_context(|| format!("cache {place}"))?;
            progress.tick(planned.samples.len() as u64);
        }
        drop(progress);
        let cache =
            writer.commit(GoldenActivation::absent()).with_context(|| format!("committing cache {place}"))?;
        Ok(Outcome { cache, computed: images })
    }

    /// Projects and writes one shard.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub(crate) fn shard(&self, planned: &PlannedShard, writer: &Writer, context: &Context) -> Result<()> {
        let map = &self.map()?;
        let info = self.source.manifest().shards.get(planned.index);
        if info.is_none_or(|info| info.samples != planned.samples) {
            return Err(integrity(format!(
                "it was begun with another cut of the samples than that of {}: {:?} in shard {}; --overwrite begins anew",
                self.source.store().display(),
                planned.samples,
                planned.index
            )));
        }
        let options = ReadOptions { columns: Some(self.columns()), ..ReadOptions::default() };
        let shard = self.source.read_shard(planned.index, &options)?;
        let skipped = shard.skipped().to_vec();
        let records = shard.into_records().into_par_iter().map(|record| -> Result<Record> {
            context.interrupt.check()?;
            Ok(writer.record(&row(&record, map)?)?)
        });
        let records = records.collect::<Result<Vec<_>>>()?;
        writer.write_records(planned, records, skipped)?;
        Ok(())
    }

    fn map(&self) -> Result<Map> {
        let map = self.reducer.reducer.at(self.dim).map_err(|e| usage(format!("--dims: {e}")))?;
        if map.is_batch_scaled() {
            return Err(usage(
                "this reducer standardises every batch by itself (scaler batch), so that its numbers depend on the batch and \
                 cannot be stored; fit one with --scaler train, or use it on the fly: featlab probe --reducer",
            ));
        }
        Ok(map)
    }

    /// Begins, joins or finds the cache; `join` as in [`WriterOptions`].
    ///
    /// # Errors
    /// As [`Job::run`].
    pub(crate) fn open(&self, target: Store, join: bool) -> Result<Opened> {
        self.map()?;
        if self.overwrite {
            self.keep_the_source(&target)?;
        }
        let manifest = self.source.manifest();
        let options = WriterOptions {
            shard_rows: manifest.shards.first().map(|info| info.samples.len()),
            overwrite: self.overwrite,
            repair: self.repair,
            form: Some(self.form),
            provenance: self.provenance(),
            classes: manifest.classes.clone(),
            golden: None,
            join,
        };
        let place = target.display().to_owned();
        Writer::open(target, self.key(), self.layout(), manifest.samples, options)
            .with_context(|| format!("opening cache {place}"))
    }

    /// Refuses to overwrite the cache that is read, by whatever name it goes.
    ///
    /// # Errors
    /// A usage error if it is that.
    pub(crate) fn keep_the_source(&self, target: &Store) -> Result<()> {
        let source = &self.source.manifest().key;
        if featcache::key_at(target).is_ok_and(|key| key == *source) {
            return Err(usage(format!(
                "{} holds the features that are to be projected; name another place",
                target.display()
            )));
        }
        Ok(())
    }

    fn key(&self) -> FeatureKey {
        let source = &self.source.manifest().key;
        let by = Projected {
            from: source.dtype,
            method: self.reducer.reducer.method().to_owned(),
            dim: self.dim,
            reducer: self.reducer.sha256.clone(),
        };
        source.projected(self.source.reading(), &by, self.dtype)
    }

    fn layout(&self) -> Layout {
        Layout { dim: self.dim, has_cls: false, more: Vec::new(), ..self.source.layout().clone() }
    }

    /// What is read of the source.
    fn columns(&self) -> Vec<String> {
        let layout = self.source.layout();
        let mut columns = vec![self.source.column().to_owned()];
        let pixels = [("label", layout.has_label), ("image", layout.has_image)];
        columns.extend(pixels.into_iter().filter(|(_, there)| *there).map(|(name, _)| name.to_owned()));
        columns
    }

    /// What the source says of itself, and what became of it.
    fn provenance(&self) -> BTreeMap<String, String> {
        let mut provenance = self.source.manifest().provenance.clone();
        let (method, from) = (self.reducer.reducer.method(), self.source.layout().dim);
        let said = format!("{method} to {} of {from} dimensions", self.dim);
        let notes = provenance.get("notes").into_iter().cloned().chain([format!("projected by {said}")]);
        let notes = notes.collect::<Vec<_>>().join("; ");
        provenance.insert("notes".into(), notes);
        provenance.insert("projected_from".into(), self.source.feature_id());
        provenance.insert("reducer".into(), format!("{said}, file {}", self.reducer.sha256));
        provenance
    }
}

/// One image, projected.
fn row(record: &Record, map: &Map) -> Result<Row> {
    let tokens = map.transform(record.tokens_f32().view()); // [t, k]
    Ok(Row {
        image_id: record.image_id().to_owned(),
        crop: record.crop(),
        tokens: tokens.with_context(|| format!("image {}", record.image_id()))?,
        cls: None,
        label: record.label().map(|label| label.to_owned()),
        image: record.image().map(|image| image.to_owned()),
        more: Vec::new(),
    })
}
