//! Reduce: a feature cache to a reducer file that serves every target dimension.
//!
//! One streaming pass gives mean and covariance; PCA is their eigen-decomposition, a random projection needs them only
//! for its column scaling. Images enter the sums in cache order, by a tree that depends on their number alone
//! ([`ImageMoments`]), so the fit depends neither on shard size nor on how many processes share the pass.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result};
use dimred::{
    Identity, ImageMoments, Moments, PcaParams, RandomProjectionKind, RandomProjectionParams, Reducer, Scaler,
};
use featcache::{Cache, ReadOptions, StreamOptions};

use crate::Context;
use crate::exit::usage;

/// What to fit.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// `none`, `pca`, `rp`, `rp-sparse`.
    pub(crate) method: String,
    pub(crate) scaler: Scaler,
    pub(crate) seed: u64,
    /// Most dimensions kept.
    pub(crate) max_dim: usize,
}

impl Job {
    /// Whether the fit depends on the data at all.
    pub(crate) fn needs_moments(&self) -> bool {
        match self.method.as_str() {
            "none" => false,
            "pca" => true,
            _ => self.scaler == Scaler::Train,
        }
    }

    /// Fits on a cache. `moments` is filled on first need and can be shared between jobs on the same cache.
    ///
    /// # Errors
    /// If the cache cannot be read, or the method and its parameters do not fit the features.
    pub(crate) fn fit(
        &self,
        cache: &Cache,
        moments: &mut Option<Moments>,
        context: &Context,
    ) -> Result<Reducer> {
        if self.needs_moments() && moments.is_none() {
            *moments = Some(stream_moments(cache, context)?);
        }
        let dim = cache.layout().dim;
        let fitted = moments.as_ref().filter(|_| self.needs_moments());
        let random = |kind| RandomProjectionParams {
            kind,
            seed: self.seed,
            scaler: self.scaler,
            max_dim: self.max_dim,
        };
        Ok(match (self.method.as_str(), fitted) {
            ("none", _) => Reducer::Identity(Identity::new(dim)),
            ("pca", Some(moments)) => {
                let params = PcaParams { scaler: self.scaler, ..PcaParams::default() };
                Reducer::Pca(params.fit_moments(moments)?.truncated(self.max_dim)?)
            }
            ("rp", fitted) => {
                Reducer::RandomProjection(random(RandomProjectionKind::Gaussian).fit(dim, fitted)?)
            }
            ("rp-sparse", fitted) => Reducer::RandomProjection(
                random(RandomProjectionKind::Sparse { density: None }).fit(dim, fitted)?,
            ),
            (other, _) => {
                return Err(usage(format!(
                    "unknown method \"{other}\", expected none, pca, rp or rp-sparse"
                )));
            }
        })
    }

    /// Where the reducer came from, for its file.
    pub(crate) fn provenance(cache: &Cache) -> BTreeMap<String, String> {
        let manifest = cache.manifest();
        let mut provenance = manifest.provenance.clone();
        provenance.insert("cache_id".into(), manifest.cache_id.clone());
        provenance.insert("features".into(), features_name(cache));
        provenance
    }
}

/// What a reducer is bound to: checkpoint, block and facet (data set, split and number type may differ).
pub(crate) fn features_name(cache: &Cache) -> String {
    let (key, reading) = (&cache.manifest().key, cache.reading());
    feature_name((&key.architecture, &key.checkpoint_sha256), reading.layer, &reading.facet)
}

/// The same of features that are in no cache, from `(architecture, checkpoint)` and a block counted from 0.
pub(crate) fn feature_name(
    (architecture, checkpoint): (&str, &str),
    block: impl std::fmt::Display,
    facet: &str,
) -> String {
    format!("{architecture} {checkpoint} block {block} {facet}")
}

/// The same, as written in a reducer file.
pub(crate) fn features_of(file: &[u8]) -> Option<String> {
    noted(file, "features")
}

/// What a reducer file says of where it came from.
pub(crate) fn noted(file: &[u8], name: &str) -> Option<String> {
    let (_, header) = safetensors::SafeTensors::read_metadata(file).ok()?;
    header.metadata().as_ref()?.get(&format!("from.{name}")).cloned()
}

/// Mean and scatter of all tokens of a cache, in one pass.
fn stream_moments(cache: &Cache, context: &Context) -> Result<Moments> {
    let progress = context.reporter.start("moments", cache.rows() as u64, "images");
    Ok(moments_of(cache, 0..cache.rows(), &|| progress.tick(1), context)?.finish())
}

/// Moments of some rows of a cache. `tick` is called after each.
pub(crate) fn moments_of(
    cache: &Cache,
    rows: Range<usize>,
    tick: &dyn Fn(),
    context: &Context,
) -> Result<ImageMoments> {
    let mut moments = ImageMoments::new(cache.layout().dim);
    let read = ReadOptions { columns: Some(vec![cache.column().to_owned()]), ..ReadOptions::default() };
    let all = rows == (0..cache.rows());
    let options = StreamOptions { read, rows: (!all).then_some(rows), ..StreamOptions::default() };
    for record in cache.stream(&options)? {
        context.interrupt.check()?;
        let record = record?;
        moments.add(record.tokens_f32().view()).with_context(|| format!("image {}", record.image_id()))?;
        tick();
    }
    Ok(moments)
}
