//! Extract: a data set through a backbone into a feature cache.
//!
//! The sample list is cut into shards by the cache's plan; what is missing goes through the [`pipeline`]: images are decoded, forwarded
//! and written at the same time, forwarded one image (or crop) at a time on a CPU and in batches on a GPU. The numbers depend neither on
//! what else is in a batch nor on the thread count. Inputs that cannot be read become tombstones with the reason; everything else that fails
//! ends the run.

mod clock;
mod forward;
mod pipeline;

pub(crate) use forward::Forward;
use forward::Tokens;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use dataset::{Dataset, View};
use featcache::{
    Cache, Classes, Dtype, FORMAT_VERSION, FeatureKey, Form, GoldenActivation, Layout, Opened, PlannedShard,
    Reading, Row, Store, Tombstone, Writer, WriterOptions,
};

use crate::Context;
use crate::exit::usage;

/// What became of an input: something, or the reason why nothing.
type Sampled<T> = std::result::Result<T, Tombstone>;

/// What to compute: everything that ends up in the cache's key, and where it goes.
pub(crate) struct Job<'a> {
    pub(crate) dataset: &'a dyn Dataset,
    pub(crate) split: String,
    pub(crate) forward: Forward<'a>,
    /// Whether the pictures are stored as well.
    pub(crate) images: bool,
    /// How the cache is asked for, in the words of the command line: what another command needs to do the same.
    pub(crate) recipe: BTreeMap<String, String>,
    pub(crate) dtype: Dtype,
    pub(crate) shard_rows: Option<usize>,
    pub(crate) form: Option<Form>,
    pub(crate) task: Task,
    pub(crate) overwrite: bool,
    /// Look for damage in a finished cache, and mend it.
    pub(crate) repair: bool,
}

/// Which shards of the plan this process computes: those with `index % of == this`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) this: usize,
    pub(crate) of: usize,
}

impl Task {
    /// All shards.
    pub(crate) const ALL: Self = Self { this: 0, of: 1 };

    /// Reads `i/n` with `i < n`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((this, of)) if this < of => Ok(Self { this, of }),
            _ => Err(usage(format!("--task takes I/N with 0 <= I < N, got \"{text}\""))),
        }
    }
}

/// How an extraction ended.
pub(crate) enum Outcome {
    /// The cache is complete; `computed` images were computed by this run.
    Complete { cache: Cache, computed: usize },
    /// Other tasks still have shards to write; whoever writes the last one commits.
    Waiting { computed: usize, missing: usize },
}

impl Job<'_> {
    /// The key of the features that this job computes.
    ///
    /// # Errors
    /// If the network has not got one of the layers.
    pub(crate) fn key(&self) -> Result<FeatureKey> {
        let spec = self.forward.backbone.backbone.spec();
        let main = self.forward.layers.first().copied().unwrap_or_default();
        Ok(FeatureKey {
            format_version: FORMAT_VERSION,
            dataset: self.dataset.name().to_owned(),
            dataset_fingerprint: self.dataset.fingerprint()?,
            split: self.split.clone(),
            crop: self.forward.transform.crop.to_string(),
            crop_ratio: self.forward.transform.crop_ratio,
            res: self.forward.transform.res as u32,
            resize: self.forward.transform.resize.to_string(),
            antialias: self.forward.transform.resize != dataset::Resize::Nearest,
            mean: self.forward.transform.mean,
            std: self.forward.transform.std,
            checkpoint_sha256: self.forward.backbone.fingerprint.clone(),
            architecture: spec.architecture.clone(),
            layer: main.block,
            facet: main.facet.to_string(),
            dtype: self.dtype,
            flip_average: self.forward.flip_average,
            more: self.more()?,
        })
    }

    /// The further columns.
    fn more(&self) -> Result<Vec<Reading>> {
        let spec = self.forward.backbone.backbone.spec();
        let mut seen: Vec<(usize, String)> = Vec::new();
        for layer in &self.forward.layers {
            let place = (spec.block_index(layer.block)?, layer.facet.to_string());
            if seen.contains(&place) {
                return Err(usage(format!(
                    "block {} and facet {} are asked for twice",
                    layer.block, layer.facet
                )));
            }
            seen.push(place);
        }
        Ok(seen.into_iter().skip(1).map(|(block, facet)| Reading { facet, layer: block as i64 }).collect())
    }

    /// Shapes and columns of the rows that this job writes.
    ///
    /// # Errors
    /// As [`Job::key`].
    pub(crate) fn layout(&self) -> Result<Layout> {
        let spec = self.forward.backbone.backbone.spec();
        let layer = self.forward.layers.first().copied().unwrap_or_default();
        let side = self.forward.transform.res / spec.stride(layer);
        Ok(Layout {
            grid: (side, side),
            dim: spec.feature_dim(layer),
            label_size: (self.forward.transform.res, self.forward.transform.res),
            has_cls: true,
            has_label: self.dataset.classes().is_some(),
            has_image: self.images,
            more: self.more()?.iter().map(Reading::column).collect(),
        })
    }

    /// Fails if nothing can be computed like this.
    ///
    /// # Errors
    /// A usage error: the resolution is no multiple of the patch, maps differ in size, or there are no images.
    pub(crate) fn check(&self) -> Result<()> {
        let (res, patch) = (self.forward.transform.res, self.forward.backbone.backbone.spec().patch_size);
        if res == 0 || res % patch != 0 {
            let below = (res / patch * patch).max(patch);
            return Err(usage(format!(
                "resolution {res} is not a multiple of the backbone's patch size {patch}; the nearest are {below} and {}",
                below + patch
            )));
        }
        let spec = self.forward.backbone.backbone.spec();
        let shape = |layer: &backbone::Layer| (spec.feature_dim(*layer), spec.stride(*layer));
        if self.forward.layers.windows(2).any(|pair| shape(&pair[0]) != shape(&pair[1])) {
            return Err(usage(
                "stages of a convolutional network have maps of different sizes, and a row has room for one: extract them into \
                 caches of their own",
            ));
        }
        if self.dataset.is_empty() {
            return Err(usage(format!(
                "data set {} has no images in split {}",
                self.dataset.name(),
                self.split
            )));
        }
        Ok(())
    }

    /// Computes what the cache under `store` lacks, and commits it when nothing is missing any more.
    ///
    /// # Errors
    /// If the cache there has another key, if the backbone does not reproduce the cache's golden activation, if nothing
    /// can be read or written, or on interruption (finished shards stay).
    pub(crate) fn run(&self, store: Store, context: &Context) -> Result<Outcome> {
        let place = store.display().to_owned();
        let golden = self.forward.golden()?;
        let writer = match self.open(store, &golden, false)? {
            Opened::Complete(cache) => return Ok(Outcome::Complete { cache, computed: 0 }),
            Opened::Resume(writer) => writer,
        };
        let missing = writer.missing();
        let mine: Vec<_> =
            missing.iter().filter(|shard| shard.index % self.task.of == self.task.this).cloned().collect();
        let images = mine.iter().map(|shard| shard.samples.len()).sum::<usize>();
        if missing.len() < writer.total_shards() {
            context.reporter.say(format!(
                "resuming {place}: {} of {} shards are there",
                writer.total_shards() - missing.len(),
                writer.total_shards()
            ));
        }
        self.shards(&writer, &mine, context).with_context(|| format!("cache {place}"))?;
        match writer.missing().len() {
            0 => {
                let cache = writer.commit(golden).with_context(|| format!("committing cache {place}"))?;
                Ok(Outcome::Complete { cache, computed: images })
            }
            missing => Ok(Outcome::Waiting { computed: images, missing }),
        }
    }

    /// Begins, joins or finds the cache under `store`; `join` as in [`WriterOptions`].
    ///
    /// # Errors
    /// As [`Job::run`].
    pub(crate) fn open(&self, store: Store, golden: &GoldenActivation, join: bool) -> Result<Opened> {
        self.check()?;
        let place = store.display().to_owned();
        let options = WriterOptions {
            shard_rows: self.shard_rows,
            overwrite: self.overwrite,
            repair: self.repair,
            form: self.form,
            provenance: self.provenance(),
            classes: (self.dataset.classes())
                .map(|table| Classes { names: table.names.clone(), palette: table.palette.clone() }),
            golden: Some(golden.clone()),
            join,
        };
        Writer::open(store, self.key()?, self.layout()?, self.dataset.len(), options)
            .with_context(|| format!("opening cache {place}"))
    }

    /// Computes and writes some shards.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub(crate) fn shards(&self, writer: &Writer, shards: &[PlannedShard], context: &Context) -> Result<()> {
        pipeline::run(self, writer, shards, context)
    }

    fn provenance(&self) -> BTreeMap<String, String> {
        let entries = [
            ("backbone", self.forward.backbone.name.clone()),
            ("dataset", self.dataset.name().to_owned()),
            ("split", self.split.clone()),
            ("notes", self.forward.backbone.note.join("; ")),
        ];
        let entries = entries.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v));
        entries.chain(self.recipe.clone()).collect()
    }

    /// Seconds that a thread takes to decode and transform a sample, measured on the first one.
    ///
    /// # Errors
    /// If it cannot be asked for.
    pub(crate) fn decoding(&self) -> Result<f64> {
        let start = std::time::Instant::now();
        if !self.dataset.is_empty() {
            let _ = self.views(0)?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Decodes and transforms one sample; an unreadable one becomes a tombstone.
    fn views(&self, i: usize) -> Result<Sampled<Vec<View>>> {
        match self.dataset.load(i).and_then(|sample| self.forward.transform.apply(i as u64, &sample)) {
            Ok(views) => Ok(Ok(views)),
            Err(error) if error.is_sample() => {
                Ok(Err(Tombstone { image_id: self.dataset.id(i).to_owned(), reason: error.to_string() }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The row of one view of sample `i`, of its layers.
    fn row(&self, i: usize, view: View, layers: Vec<Tokens>) -> Result<Row> {
        let mut layers = layers.into_iter();
        let (tokens, cls) = layers.next().context("no layer was asked for")?;
        Ok(Row {
            image_id: self.dataset.id(i).to_owned(),
            crop: view.crop,
            tokens,
            cls: Some(cls),
            label: view.label,
            image: self.images.then(|| self.forward.pixels(view.image.view())),
            more: layers.map(|(tokens, _)| tokens).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_read_strictly() {
        assert_eq!(Task::parse("1/4").unwrap(), Task { this: 1, of: 4 });
        for bad in ["4/4", "0/0", "1", "a/b", "-1/2"] {
            assert_eq!(crate::exit::code(&Task::parse(bad).unwrap_err()), 2, "{bad}");
        }
    }
}
