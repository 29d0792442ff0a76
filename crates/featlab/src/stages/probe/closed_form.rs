//! Probes that take no gradient steps: ridge, k-means and k-NN, from one more pass over the training features.
//!
//! *Ridge*: least squares on every class's share of each patch. The Gram matrix of the features serves every projection that is
//! affine, every dimension (its leading part) and every penalty; the penalty is the one of least generalised cross-validation error.
//! *k-means* and *k-NN* see a sample of the tokens, drawn by the cell's seed: every image has its own random numbers, so the
//! sample does not depend on anything else.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow};
use ndarray::{Array2, Axis, s};
use probe::{
    BankBatch, BankCell, BankProbe, BankSet as _, Gram, KMeansMetric, KMeansParams, KnnGallery, RidgeParams,
    Selection, TokenSample, patch_histograms, patch_majority,
};
use rayon::prelude::*;

use super::{Kind, Settings, Trained};
use crate::Context;
use crate::stages::sources::{Kinship, Sources};

/// Images that are looked at together.
const BATCH: usize = 8;

/// What is fitted, and on what.
pub(super) struct Fit<'a> {
    pub(super) cells: &'a [(Kind, BankCell)],
    pub(super) train: &'a Sources<'a>,
    pub(super) classes: usize,
    pub(super) settings: &'a Settings,
    /// `[c]`.
    pub(super) class_weights: &'a [f32],
    pub(super) context: &'a Context,
}

/// A cell's place, and what was fitted for it.
type Fitted = (usize, Result<Trained>);

/// Which sample a cell sees: `(source, seed, labelled tokens only)`.
type SampleId = (usize, u64, bool);

/// Rows `[n, K]` and their labels.
type Sampled = (Array2<f32>, Vec<u8>);

impl Fit<'_> {
    /// Fits all cells that take no steps. One that cannot be fitted has an error of its own.
    ///
    /// # Errors
    /// If features cannot be read, or on interruption.
    pub(super) fn run(&self) -> Result<Vec<Fitted>> {
        let mut fitted = self.ridges()?;
        let samples = self.samples()?;
        let sampled = self.of_kinds(&[Kind::KMeans, Kind::Knn]);
        let progress = self.context.reporter.start("fit k-means and k-NN", sampled.len() as u64, "probes");
        for (i, kind, cell) in sampled {
            self.context.interrupt.check()?;
            fitted.push((i, self.of_sample(kind, cell, &samples[&sample_id(kind, cell)])));
            progress.tick(1);
        }
        Ok(fitted)
    }

    fn of_kinds(&self, kinds: &[Kind]) -> Vec<(usize, Kind, BankCell)> {
        let all = self.cells.iter().enumerate().map(|(i, &(kind, cell))| (i, kind, cell));
        all.filter(|(_, kind, _)| kinds.contains(kind)).collect()
    }

    fn of_sample(&self, kind: Kind, cell: BankCell, sample: &Result<Sampled, String>) -> Result<Trained> {
        let (rows, labels) = sample.as_ref().map_err(|reason| anyhow!("{reason}"))?;
        let rows = rows.slice(s![.., ..cell.dim]);
        if kind == Kind::Knn {
            return Ok(Trained::Neighbours(KnnGallery::new(rows, labels, self.classes)?));
        }
        let clusters = self.settings.clusters(self.classes);
        let params = KMeansParams {
            restarts: self.settings.closed_form.kmeans_restarts,
            seed: cell.seed,
            ..KMeansParams::new(clusters, KMeansMetric::Cosine)
        };
        Ok(Trained::Weights(BankProbe::Cluster(params.fit(rows)?.cluster_probe())))
    }

    /// The samples that cells see, each drawn once, in one pass.
    fn samples(&self) -> Result<BTreeMap<SampleId, Result<Sampled, String>>> {
        let mut samples = BTreeMap::new();
        for (_, kind, cell) in self.of_kinds(&[Kind::KMeans, Kind::Knn]) {
            let closed = &self.settings.closed_form;
            let limit = if kind == Kind::Knn { closed.knn_tokens } else { closed.kmeans_tokens };
            let new = TokenSample::new(self.train.dims()[cell.source], limit, cell.seed)?;
            samples.entry(sample_id(kind, cell)).or_insert(new);
        }
        if samples.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut sources: Vec<usize> = samples.keys().map(|id| id.0).collect();
        sources.dedup();
        self.each_batch("sample tokens", |first, batch, count| {
            let image = |place: usize| -> Result<_> {
                let label = self.train.label(first + place);
                let classes = patch_majority(label, self.train.grid(), self.classes)?;
                let rows = sources.iter().map(|&source| self.rows(batch, source, place));
                Ok((classes, rows.collect::<Result<Vec<_>>>()?))
            };
            let images = (0..count).into_par_iter().map(image).collect::<Result<Vec<_>>>()?;
            for (place, (classes, rows)) in images.iter().enumerate() {
                let unlabelled = vec![0; classes.len()];
                for (&(source, _, labelled), sample) in &mut samples {
                    let at = sources.iter().position(|&s| s == source).context("a source that is sampled")?;
                    let labels = if labelled { classes } else { &unlabelled };
                    sample.add((first + place) as u64, rows[at].view(), labels)?;
                }
            }
            Ok(())
        })?;
        Ok(samples.into_iter().map(|(id, sample)| (id, sample.finish().map_err(|e| e.to_string()))).collect())
    }

    fn ridges(&self) -> Result<Vec<Fitted>> {
        let cells = self.of_kinds(&[Kind::Ridge]);
        let mut sources: Vec<usize> = cells.iter().map(|(_, _, cell)| cell.source).collect();
        sources.sort_unstable();
        sources.dedup();
        let (mut of_features, mut fitted) = (None, Vec::new());
        for source in sources {
            let cells: Vec<_> = cells.iter().filter(|(_, _, cell)| cell.source == source).collect();
            let gram = self.gram(source, &mut of_features)?;
            for (i, _, cell) in cells {
                // Of these dimensions alone: penalties are in units of their mean variance, whoever asks for more.
                let lambdas = self.settings.closed_form.ridge_lambdas.clone();
                let fits = RidgeParams { lambdas, dims: vec![cell.dim] }
                    .fit(&gram.leading(cell.dim), Selection::Gcv);
                let probe =
                    fits.map(|fits| Trained::Weights(BankProbe::Linear(fits[0].scaled_probe(cell.scale))));
                fitted.push((*i, probe.map_err(anyhow::Error::from)));
            }
        }
        Ok(fitted)
    }

    /// The Gram matrix of a source; that of the features themselves is made at most once.
    fn gram(&self, source: usize, of_features: &mut Option<Gram>) -> Result<Gram> {
        let affine = match self.train.kinship(source) {
            Kinship::Other => {
                let dim = self.train.dims()[source];
                return self.sum_gram(dim, |batch, _, place| self.rows(batch, source, place));
            }
            Kinship::Same => None,
            Kinship::Affine(affine) => Some(affine),
        };
        let gram = match of_features.take() {
            Some(gram) => gram,
            None => {
                self.sum_gram(self.train.features().dim(), |_, i, _| Ok(self.train.features().tokens(i)))?
            }
        };
        let gram = of_features.insert(gram);
        Ok(match affine {
            Some(affine) => gram.project(affine.mean().view(), affine.matrix().view())?,
            None => gram.clone(),
        })
    }

    /// The sum over all images, in their order.
    fn sum_gram(
        &self,
        dim: usize,
        rows: impl Fn(&dyn BankBatch, usize, usize) -> Result<Array2<f32>> + Sync,
    ) -> Result<Gram> {
        let mut sum = Gram::new(dim, self.classes);
        self.each_batch("sums for ridge", |first, batch, count| {
            let image = |place: usize| -> Result<Gram> {
                let label = self.train.label(first + place);
                let mut masses = patch_histograms(label, self.train.grid(), self.classes)?; // [t, c]
                for (mut column, &weight) in masses.axis_iter_mut(Axis(1)).zip(self.class_weights) {
                    column *= weight;
                }
                let mut gram = Gram::new(dim, self.classes);
                gram.add(rows(batch, first + place, place)?.view(), masses.view())?;
                Ok(gram)
            };
            let grams = (0..count).into_par_iter().map(image).collect::<Result<Vec<_>>>()?;
            grams.iter().for_each(|gram| sum.merge(gram));
            Ok(())
        })?;
        Ok(sum)
    }

    /// Calls `work(first image, batch, images)` for all training images, in their order.
    fn each_batch(
        &self,
        what: &str,
        mut work: impl FnMut(usize, &dyn BankBatch, usize) -> Result<()>,
    ) -> Result<()> {
        let n = self.train.len();
        let progress = self.context.reporter.start(what, n as u64, "images");
        for first in (0..n).step_by(BATCH) {
            self.context.interrupt.check()?;
            let indices: Vec<usize> = (first..(first + BATCH).min(n)).collect();
            let batch = self.train.batch(&indices).map_err(|e| anyhow!(e))?;
            work(first, &*batch, indices.len())?;
            progress.tick(indices.len() as u64);
        }
        Ok(())
    }

    fn rows(&self, batch: &dyn BankBatch, source: usize, place: usize) -> Result<Array2<f32>> {
        rows(self.train, batch, source, place)
    }
}

fn sample_id(kind: Kind, cell: BankCell) -> SampleId {
    (cell.source, cell.seed, kind == Kind::Knn)
}

/// Tokens `[t, K]` of an image of a batch, as a source shows them.
pub(crate) fn rows(
    data: &Sources<'_>,
    batch: &dyn BankBatch,
    source: usize,
    place: usize,
) -> Result<Array2<f32>> {
    let panels = batch.tokens(source, place).map_err(|e| anyhow!(e))?;
    let shape = data.shape(data.dims()[source]);
    let mut rows = Array2::zeros((shape.tokens, shape.dim));
    shape.unpack(&panels, rows.as_slice_mut().context("a new array is contiguous")?);
    Ok(rows)
}
