//! Features: a cache's rows, read once for everything that a study does with them.
//!
//! Tokens stay in their stored form (two bytes a number for f16; a local shard is mapped, not copied). What is fitted and
//! trained on them comes from here: moments from all rows, probes from those with a label, through [`Sources`](super::sources::Sources).

use anyhow::{Context as _, Result};
use dimred::{ImageMoments, Moments};
use featcache::{Cache, ReadOptions, Record, StreamOptions};
use ndarray::{Array2, ArrayView2};

use crate::Context;
use crate::exit::usage;

/// All rows of one cache.
pub(crate) struct Features {
    cache: Cache,
    rows: Vec<Record>,
    /// The rows that have a label, in cache order.
    labelled: Vec<usize>,
}

impl Features {
    /// Reads and checks every row.
    ///
    /// # Errors
    /// If a shard is damaged, or no row has a label.
    pub(crate) fn load(cache: Cache, what: &str, context: &Context) -> Result<Self> {
        if !cache.layout().has_label {
            return Err(usage(format!("{what}: this cache has no labels; probes need them")));
        }
        let columns = vec![cache.column().to_owned(), "label".to_owned()];
        let rows = read(&cache, columns, what, context)?;
        let labelled: Vec<usize> = (0..rows.len()).filter(|&i| rows[i].label().is_some()).collect();
        if labelled.is_empty() {
            return Err(usage(format!("{what}: no image of this cache has a label; probes need labels")));
        }
        Ok(Self { cache, rows, labelled })
    }

    /// Reads and checks every row's tokens; all rows count as images, and there are no labels to ask for.
    ///
    /// # Errors
    /// If a shard is damaged.
    pub(crate) fn load_tokens(cache: Cache, what: &str, context: &Context) -> Result<Self> {
        let rows = read(&cache, vec![cache.column().to_owned()], what, context)?;
        Ok(Self { labelled: (0..rows.len()).collect(), cache, rows })
    }

    /// Reads and checks every row, with its label if it has one; all rows count as images.
    ///
    /// # Errors
    /// If a shard is damaged.
    pub(crate) fn load_all(cache: Cache, what: &str, context: &Context) -> Result<Self> {
        let label = cache.layout().has_label.then(|| "label".to_owned());
        let columns = std::iter::once(cache.column().to_owned()).chain(label).collect();
        let rows = read(&cache, columns, what, context)?;
        Ok(Self { labelled: (0..rows.len()).collect(), cache, rows })
    }

    /// The cache that was read.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Labelled images.
    pub(crate) fn len(&self) -> usize {
        self.labelled.len()
    }

    /// Bytes of tokens and labels that were read.
    pub(crate) fn bytes(&self) -> u64 {
        let layout = self.cache.layout();
        let (gh, gw) = layout.grid;
        let tokens = gh * gw * layout.dim * self.cache.manifest().key.dtype.size_bytes();
        let labels = layout.label_size.0 * layout.label_size.1;
        (self.rows.len() * tokens + self.labelled.len() * labels) as u64
    }

    fn row(&self, i: usize) -> &Record {
        &self.rows[self.labelled[i]]
    }

    /// Id of labelled image `i`.
    pub(crate) fn image_id(&self, i: usize) -> &str {
        self.row(i).image_id()
    }

    /// Width `d` of the features.
    pub(crate) fn dim(&self) -> usize {
        self.cache.layout().dim
    }

    /// Tokens `[t, d]` of labelled image `i`.
    pub(crate) fn tokens(&self, i: usize) -> Array2<f32> {
        self.row(i).tokens_f32()
    }

    /// Label map `[h, w]` of labelled image `i`.
    pub(crate) fn label(&self, i: usize) -> ArrayView2<'_, u8> {
        self.row(i).label().expect("only labelled rows are listed")
    }

    /// Label map `[h, w]` of image `i`, if it was read and there is one.
    pub(crate) fn label_if_any(&self, i: usize) -> Option<ArrayView2<'_, u8>> {
        self.row(i).label()
    }

    /// Mean and scatter of the tokens of all rows, in cache order: what a pass over the cache gives.
    ///
    /// # Errors
    /// If a token is not finite; interruption.
    pub(crate) fn moments(&self, context: &Context) -> Result<Moments> {
        let mut moments = ImageMoments::new(self.dim());
        let progress = context.reporter.start("moments", self.rows.len() as u64, "images");
        for record in &self.rows {
            context.interrupt.check()?;
            let image = || format!("image {}", record.image_id());
            moments.add(record.tokens_f32().view()).with_context(image)?;
            progress.tick(1);
        }
        Ok(moments.finish())
    }
}

/// All rows of a cache with some of their columns.
fn read(cache: &Cache, columns: Vec<String>, what: &str, context: &Context) -> Result<Vec<Record>> {
    let progress = context.reporter.start(&format!("read {what}"), cache.rows() as u64, "images");
    let read = ReadOptions { columns: Some(columns), ..ReadOptions::default() };
    let mut rows = Vec::with_capacity(cache.rows());
    for record in cache.stream(&StreamOptions { read, ..StreamOptions::default() })? {
        context.interrupt.check()?;
        rows.push(record.with_context(|| format!("reading {what}"))?);
        progress.tick(1);
    }
    Ok(rows)
}
