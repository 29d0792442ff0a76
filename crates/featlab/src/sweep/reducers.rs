//! The reducers of a sweep: fitted on the training cache when they are first needed, kept as files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use dimred::{Moments, Reducer, Scaler};
use featcache::Cache;

use super::Sweep;
use super::grid::is_stego;
use crate::Context;
use crate::bench::ReducerId;
use crate::exit::usage;
use crate::records::{key_of, write_atomically};
use crate::stages::features::Features;
use crate::stages::layout::{LayoutJob, LayoutMethod, Sample};
use crate::stages::{reduce, stego};

/// Reducers fitted on the training cache, kept as files below `projections/`.
pub(super) struct Reducers<'a> {
    pub(super) sweep: &'a Sweep,
    pub(super) cache: &'a Cache,
    pub(super) context: &'a Context,
}

impl Reducers<'_> {
    pub(super) fn path(&self, id: &ReducerId) -> Result<PathBuf> {
        let key = key_of(&(&self.cache.manifest().cache_id, id))?;
        Ok(self.sweep.out.join("projections").join(format!("{}-{key}.safetensors", id.method)))
    }

    /// The reducer of an id: read from its file, or fitted and written there. Features that are in memory are not read again
    /// for the moments.
    pub(super) fn get(
        &self,
        id: &ReducerId,
        features: Option<&Features>,
        moments: &mut Option<Moments>,
    ) -> Result<Reducer> {
        let path = self.path(id)?;
        if path.exists() {
            return Reducer::load(&path)
                .with_context(|| format!("reading {}; delete it to fit it again", path.display()));
        }
        let reducer = match (is_stego(&id.method), self.sweep.config.reduce.layout(&id.method)) {
            (true, _) => self.train(id, features, &path)?,
            (false, Some(method)) => self.fit_layout(id, method)?,
            (false, None) => self.fit(id, features, moments)?,
        };
        if !matches!(reducer, Reducer::Identity(_)) {
            write_atomically(&path, &reducer.to_bytes(&reduce::Job::provenance(self.cache))?)?;
        }
        Ok(reducer)
    }

    fn scaler(&self) -> Result<Scaler> {
        self.sweep.config.reduce.scaler.parse().map_err(|e| usage(format!("{e}")))
    }

    /// Whether one cannot have it from moments: it is trained on features.
    #[cfg(feature = "cluster")]
    pub(super) fn is_trained(&self, id: &ReducerId) -> bool {
        is_stego(&id.method) || self.sweep.config.reduce.layout(&id.method).is_some()
    }

    /// How a reducer of moments is fitted.
    pub(super) fn linear(&self, id: &ReducerId) -> Result<reduce::Job> {
        let max_dim = self.cache.layout().dim;
        Ok(reduce::Job { method: id.method.clone(), scaler: self.scaler()?, seed: id.seed, max_dim })
    }

    fn fit(
        &self,
        id: &ReducerId,
        features: Option<&Features>,
        moments: &mut Option<Moments>,
    ) -> Result<Reducer> {
        let job = self.linear(id)?;
        if let (true, None, Some(features)) = (job.needs_moments(), &moments, features) {
            *moments = Some(features.moments(self.context)?);
        }
        job.fit(self.cache, moments, self.context)
    }

    fn train(&self, id: &ReducerId, features: Option<&Features>, path: &Path) -> Result<Reducer> {
        let config = self.sweep.stego_config(&id.method, id.dim.unwrap_or_default(), id.seed)?;
        let features = features.context("a head is trained on features in memory")?;
        let state = path.with_extension("state");
        let device = self.sweep.device.clone();
        let job = stego::Job { config, state: (&state, &id.recipe), device };
        let set = stego::CachedTokens { features, labels: false };
        Ok(job.run((&set, features.len()), self.context)?.head)
    }

    fn fit_layout(&self, id: &ReducerId, method: LayoutMethod) -> Result<Reducer> {
        let reduce = &self.sweep.config.reduce;
        let (images, tokens) = (reduce.layout_images, reduce.layout_tokens);
        let job = LayoutJob {
            sample: Sample { images, tokens, seed: id.seed },
            dims: id.dim.context("a layout is fitted for one dimension")?,
            scaler: self.scaler()?,
            metric: reduce.metric.parse().map_err(|e| usage(format!("reduce.metric: {e}")))?,
            method,
        };
        Ok(job.fit(self.cache, self.context)?.0)
    }

    /// The fitted PCA, if the sweep has one.
    pub(super) fn pca(&self) -> Result<Option<dimred::Pca>> {
        if !self.sweep.config.reduce.methods.iter().any(|m| m == "pca") {
            return Ok(None);
        }
        match self.get(&self.sweep.reducer_id("pca", 0, 0)?, None, &mut None)? {
            Reducer::Pca(pca) => Ok(Some(pca)),
            _ => Ok(None),
        }
    }
}
