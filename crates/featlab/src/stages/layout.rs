//! Layout: UMAP and h-NNE fitted on a sample of a cache's tokens, for one target dimension.
//!
//! Neither can be fitted on streamed sums: the rows themselves are needed. Some images are drawn, then some of their
//! tokens, both by the seed; images are read a few at a time, so that no more than the sample is in memory.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use dimred::{Metric, Reducer, Scaler, UmapParams};
use featcache::{Cache, ReadOptions};
use ndarray::Array2;
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;

use crate::Context;
use crate::exit::usage;

/// Images read at a time.
const IMAGES: usize = 64;

/// Which tokens are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// At most so many images.
    pub(crate) images: usize,
    /// At most so many tokens of them.
    pub(crate) tokens: usize,
    pub(crate) seed: u64,
}

/// What to fit, with the parameters that users may set.
#[derive(Debug, Clone)]
pub(crate) struct LayoutJob {
    pub(crate) sample: Sample,
    /// `k`.
    pub(crate) dims: usize,
    pub(crate) scaler: Scaler,
    pub(crate) metric: Metric,
    pub(crate) method: LayoutMethod,
}

/// The method.
#[derive(Debug, Clone)]
pub(crate) enum LayoutMethod {
    Umap {
        n_neighbors: usize,
        min_dist: f64,
        n_epochs: Option<usize>,
    },
    #[cfg(feature = "hnne")]
    Hnne,
}

impl LayoutJob {
    /// Fits on a cache; returns the tokens that were used as well.
    ///
    /// # Errors
    /// If the cache cannot be read, or parameters and features do not fit together.
    pub(crate) fn fit(&self, cache: &Cache, context: &Context) -> Result<(Reducer, usize)> {
        let rows = self.sample.read(cache, context)?; // [n, d]
        let progress = context.reporter.start("fit", 1, "layouts");
        let reducer = match self.method {
            LayoutMethod::Umap { n_neighbors, min_dist, n_epochs } => {
                let params = UmapParams {
                    n_components: self.dims,
                    n_neighbors,
                    min_dist,
                    metric: self.metric,
                    scaler: self.scaler,
                    n_epochs,
                    seed: self.sample.seed,
                    ..UmapParams::default()
                };
                Reducer::Umap(Arc::new(params.fit(rows.view())?))
            }
            #[cfg(feature = "hnne")]
            LayoutMethod::Hnne => {
                context.reporter.say(dimred::HNNE_NOTICE);
                let params =
                    dimred::HnneParams { n_components: self.dims, metric: self.metric, scaler: self.scaler };
                Reducer::Hnne(Arc::new(params.fit(rows.view())?.hnne))
            }
        };
        progress.tick(1);
        Ok((reducer, rows.nrows()))
    }
}

impl Sample {
    /// The drawn tokens `[n, d]`, in the order of the cache.
    fn read(&self, cache: &Cache, context: &Context) -> Result<Array2<f32>> {
        let (gh, gw) = cache.layout().grid;
        let (t, d) = (gh * gw, cache.layout().dim);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut images = sample(&mut rng, cache.rows(), self.images.min(cache.rows())).into_vec();
        images.sort_unstable();
        let most = images.len() * t;
        if self.tokens == 0 || most == 0 {
            return Err(usage("a layout needs tokens: --rows and --images are at least 1".to_owned()));
        }
        let mut places = sample(&mut rng, most, self.tokens.min(most)).into_vec();
        places.sort_unstable();
        let progress = context.reporter.start("sample", images.len() as u64, "images");
        let read = ReadOptions { columns: Some(vec![cache.column().to_owned()]), ..ReadOptions::default() };
        let mut rows = Array2::zeros((places.len(), d)); // [n, d]
        let mut at = 0;
        for (first, chunk) in (0..).step_by(IMAGES).zip(images.chunks(IMAGES)) {
            context.interrupt.check()?;
            let records = cache.read_rows(chunk, &read).context("reading the sample")?;
            for (i, record) in (first..).zip(&records) {
                let wanted = places[at..].partition_point(|&place| place < (i + 1) * t);
                if wanted > 0 {
                    let tokens = record.tokens_f32(); // [t, d]
                    for _ in 0..wanted {
                        rows.row_mut(at).assign(&tokens.row(places[at] - i * t));
                        at += 1;
                    }
                }
                progress.tick(1);
            }
        }
        Ok(rows)
    }
}
