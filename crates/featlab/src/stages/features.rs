//! Features: a labelled cache read into memory once, and its projection to `k` dimensions.
//!
//! Tokens stay in their stored form (two bytes a number for f16) until a [`Projected`] view of them is made, which is
//! what probes train on: `[n, t, k]` in f32. The memory needed is therefore that of the shards plus `n·t·k·4` bytes.

use anyhow::{Context as _, Result};
use dimred::{Map, Projection};
use featcache::{Cache, ReadOptions, Record, StreamOptions};
use ndarray::{Array2, Array3, ArrayView2, Axis};
use probe::{Batch, TrainSet};
use rayon::prelude::*;

use crate::Context;
use crate::exit::usage;

/// All rows of one cache.
pub(crate) struct Features {
    cache: Cache,
    /// Every image that has a label, in cache order.
    labelled: Vec<Record>,
}

impl Features {
    /// Reads and checks every row.
    ///
    /// # Errors
    /// If a shard is damaged, or no row has a label.
    pub(crate) fn load(cache: Cache, what: &str, context: &Context) -> Result<Self> {
        let progress = context.reporter.start(&format!("read {what}"), cache.rows() as u64, "images");
        let mut labelled = Vec::new();
        if !cache.layout().has_label {
            return Err(usage(format!("{what}: this cache has no labels; probes need them")));
        }
        let columns = Some(vec![cache.column().to_owned(), "label".to_owned()]);
        let read = ReadOptions { columns, ..ReadOptions::default() };
        for record in cache.stream(&StreamOptions { read, ..StreamOptions::default() })? {
            context.interrupt.check()?;
            let record = record.with_context(|| format!("reading {what}"))?;
            progress.tick(1);
            if record.label().is_some() {
                labelled.push(record);
            }
        }
        if labelled.is_empty() {
            return Err(usage(format!("{what}: no image of this cache has a label; probes need labels")));
        }
        Ok(Self { cache, labelled })
    }

    /// The cache that was read.
    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Labelled images.
    pub(crate) fn len(&self) -> usize {
        self.labelled.len()
    }

    /// Id of labelled image `i`.
    pub(crate) fn image_id(&self, i: usize) -> &str {
        self.labelled[i].image_id()
    }

    /// Width `d` of the features.
    pub(crate) fn dim(&self) -> usize {
        self.cache.layout().dim
    }

    /// Tokens `[t, d]` of labelled image `i`.
    pub(crate) fn tokens(&self, i: usize) -> Array2<f32> {
        self.labelled[i].tokens_f32()
    }

    /// Label map `[h, w]` of labelled image `i`.
    pub(crate) fn label(&self, i: usize) -> ArrayView2<'_, u8> {
        self.labelled[i].label().expect("only labelled rows are listed")
    }

    /// The features in `k` dimensions; `None` keeps all of them as they are.
    pub(crate) fn project(&self, map: Option<&Map>) -> Result<Projected<'_>> {
        let tokens = match map {
            Some(map) if map.is_batch_scaled() => Tokens::OnTheFly(map.clone()),
            _ => Tokens::Ready(self.project_all(map)?),
        };
        Ok(Projected { features: self, tokens })
    }

    fn project_all(&self, map: Option<&Map>) -> Result<Array3<f32>> {
        let (gh, gw) = self.cache.layout().grid;
        let k = map.map_or(self.dim(), Projection::output_dim);
        let mut all = Array3::<f32>::zeros((self.len(), gh * gw, k)); // [n, t, k]
        (all.outer_iter_mut().into_par_iter().enumerate()).try_for_each(|(i, mut out)| -> Result<()> {
            let tokens = self.tokens(i);
            match map {
                Some(map) => out.assign(&map.transform(tokens.view())?),
                None => out.assign(&tokens),
            }
            Ok(())
        })?;
        Ok(all)
    }
}

/// Features in `k` dimensions, as probes see them.
pub(crate) struct Projected<'a> {
    features: &'a Features,
    tokens: Tokens,
}

enum Tokens {
    /// `[n, t, k]`, computed once.
    Ready(Array3<f32>),
    /// Standardised by the batch they are drawn in (`scaler = "batch"`), so they cannot be computed ahead.
    OnTheFly(Map),
}

impl Projected<'_> {
    /// Label maps and tokens `[b, t, k]` of images `from..to`, for scoring in order.
    pub(crate) fn consecutive(&self, from: usize, to: usize) -> Result<Array3<f32>> {
        match &self.tokens {
            Tokens::Ready(all) => Ok(all.slice(ndarray::s![from..to, .., ..]).to_owned()),
            Tokens::OnTheFly(map) => self.batch_scaled(map, &(from..to).collect::<Vec<_>>()),
        }
    }

    /// Id of the image that row `i` shows.
    pub(crate) fn image_id(&self, i: usize) -> &str {
        self.features.image_id(i)
    }

    /// Label map `[h, w]` of image `i`.
    pub(crate) fn label(&self, i: usize) -> ArrayView2<'_, u8> {
        self.features.label(i)
    }

    fn batch_scaled(&self, map: &Map, indices: &[usize]) -> Result<Array3<f32>> {
        let images: Vec<Array2<f32>> = indices.par_iter().map(|&i| self.features.tokens(i)).collect();
        let views: Vec<_> = images.iter().map(Array2::view).collect();
        let rows = ndarray::concatenate(Axis(0), &views)?; // [b·t, d]
        let projected = map.transform(rows.view())?; // [b·t, k]
        let (t, k) = (images[0].nrows(), projected.ncols());
        Ok(projected.into_shape_with_order((indices.len(), t, k))?) // [b, t, k]
    }
}

impl TrainSet for Projected<'_> {
    fn len(&self) -> usize {
        self.features.len()
    }

    fn dim(&self) -> usize {
        match &self.tokens {
            Tokens::Ready(all) => all.dim().2,
            Tokens::OnTheFly(map) => map.output_dim(),
        }
    }

    fn grid(&self) -> (usize, usize) {
        self.features.cache.layout().grid
    }

    fn label_size(&self) -> (usize, usize) {
        self.features.cache.layout().label_size
    }

    fn fetch(&self, indices: &[usize]) -> Result<Batch, Box<dyn std::error::Error + Send + Sync>> {
        let tokens = match &self.tokens {
            Tokens::Ready(all) => all.select(Axis(0), indices),
            Tokens::OnTheFly(map) => self.batch_scaled(map, indices)?,
        };
        let (h, w) = self.label_size();
        let mut labels = Array3::<u8>::zeros((indices.len(), h, w)); // [b, h, w]
        for (mut out, &i) in labels.outer_iter_mut().zip(indices) {
            out.assign(&self.label(i));
        }
        Ok(Batch { tokens, labels })
    }
}
