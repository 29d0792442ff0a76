//! The reducers of a sweep: fitted on the training cache when they are first needed, kept as files.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use dimred::{Moments, Reducer, Scaler};
use featcache::Cache;

use super::Sweep;
use crate::Context;
use crate::bench::ReducerId;
use crate::exit::usage;
use crate::records::{key_of, write_atomically};
use crate::stages::features::Features;
use crate::stages::reduce;

/// Reducers fitted on the training cache, kept as files below `projections/`.
pub(super) struct Reducers<'a> {
    pub(super) sweep: &'a Sweep,
    pub(super) cache: &'a Cache,
    pub(super) context: &'a Context,
}

impl Reducers<'_> {
    fn path(&self, id: &ReducerId) -> Result<PathBuf> {
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
        let scaler: Scaler = self.sweep.config.reduce.scaler.parse().map_err(|e| usage(format!("{e}")))?;
        let seed = self.seed(id);
        let max_dim = self.cache.layout().dim;
        let job = reduce::Job { method: id.method.clone(), scaler, seed, max_dim };
        if let (true, None, Some(features)) = (job.needs_moments(), &moments, features) {
            *moments = Some(features.moments(self.context)?);
        }
        let reducer = job.fit(self.cache, moments, self.context)?;
        if !matches!(reducer, Reducer::Identity(_)) {
            write_atomically(&path, &reducer.to_bytes(&reduce::Job::provenance(self.cache))?)?;
        }
        Ok(reducer)
    }

    fn seed(&self, id: &ReducerId) -> u64 {
        let seeds = &self.sweep.config.probe.seeds;
        let seed = seeds.iter().find(|&&seed| self.sweep.reducer_id(&id.method, seed) == *id);
        self.sweep.config.reduce.seed + seed.copied().unwrap_or_default()
    }

    /// The fitted PCA, if the sweep has one.
    pub(super) fn pca(&self) -> Result<Option<dimred::Pca>> {
        if !self.sweep.config.reduce.methods.iter().any(|m| m == "pca") {
            return Ok(None);
        }
        match self.get(&self.sweep.reducer_id("pca", 0), None, &mut None)? {
            Reducer::Pca(pca) => Ok(Some(pca)),
            _ => Ok(None),
        }
    }
}
