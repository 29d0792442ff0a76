//! What follows from a sweep's configuration before anything runs: its two extractions, where their caches lie, and the bench on which
//! probes are compared.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use backbone::Layer;
use dataset::{Dataset, Transform};
use featcache::Store;

use super::Sweep;
use crate::bench::Bench;
use crate::config::Protocol;
use crate::exit::usage;
use crate::stages::extract::Forward;
use crate::stages::probe::Settings;
use crate::stages::{crf, extract};

impl Sweep {
    /// The extractions of both splits, which can be done.
    pub(super) fn jobs(&self) -> Result<(extract::Job<'_>, extract::Job<'_>)> {
        let (train, val) = (self.job(&*self.train, true)?, self.job(&*self.val, false)?);
        train.check()?;
        val.check()?;
        Ok((train, val))
    }

    /// The pixels that the network saw of a scored image, `[h, w, 3]`.
    pub(crate) fn picture(&self, id: &str) -> Result<ndarray::Array3<u8>> {
        crf::picture(&*self.val, &self.job(&*self.val, false)?.forward.transform, id)
    }

    /// The extraction of a split: training's crops and resolution, or those that are scored.
    pub(super) fn job<'a>(&'a self, dataset: &'a dyn Dataset, train: bool) -> Result<extract::Job<'a>> {
        let features = &self.config.features;
        let word = |e: dataset::Error| usage(e.to_string());
        let crop = if train { features.train_crop.as_str() } else { "center" };
        Ok(extract::Job {
            dataset,
            split: if train { &self.config.dataset.train_split } else { &self.config.dataset.val_split }
                .clone(),
            forward: Forward {
                backbone: &self.backbone,
                device: self.device.clone(),
                transform: Transform {
                    res: if train { features.train_res } else { features.val_res },
                    crop: crop.parse().map_err(word)?,
                    resize: features.resize.parse().map_err(word)?,
                    ..self.backbone.normalization.map_or_else(Transform::default, |(mean, std)| Transform {
                        mean,
                        std,
                        ..Transform::default()
                    })
                },
                layers: vec![Layer {
                    block: features.layer,
                    facet: features.facet.parse().map_err(|e| usage(format!("{e}")))?,
                }],
                flip_average: !train && self.config.eval.protocol == Protocol::StegoEval,
                batch: Forward::batch_on(&self.device),
            },
            images: false,
            recipe: BTreeMap::new(),
            dtype: features.dtype.parse()?,
            shard_rows: self.config.how.shard_rows,
            form: None,
            task: extract::Task::ALL,
            overwrite: false,
            repair: false,
        })
    }

    /// The place that caches are below.
    pub(super) fn root(&self) -> String {
        match &self.config.how.cache {
            Some(root) => root.clone(),
            None => self.out.join("features").to_string_lossy().into_owned(),
        }
    }

    /// The place of the cache of a job.
    pub(crate) fn store(&self, job: &extract::Job<'_>) -> Result<Store> {
        let name = format!("{}-{}-{}", self.config.dataset.name, job.split, &job.key()?.fingerprint()[..12]);
        Ok(Store::open(&self.root())?.join(&name))
    }

    /// Width `d` of the features.
    pub(super) fn full_dim(&self) -> Result<usize> {
        let layer = self.job(&*self.train, true)?.forward.layers[0];
        Ok(self.backbone.backbone.spec().feature_dim(layer))
    }

    /// What every cell of the sweep shares.
    pub(super) fn bench(&self, train: &extract::Job<'_>, val: &extract::Job<'_>) -> Result<Bench> {
        let probe = &self.config.probe;
        Ok(Bench {
            dataset: self.config.dataset.name.clone(),
            split: self.config.dataset.val_split.clone(),
            backbone: self.config.features.backbone.clone(),
            train_id: train.key()?.fingerprint(),
            val_id: val.key()?.fingerprint(),
            classes: self.train.classes().expect("open() requires labels").clone(),
            full_dim: self.full_dim()?,
            protocol: self.config.eval.protocol,
            settings: Settings {
                steps: probe.steps,
                batch_size: probe.batch_size,
                learning_rate: probe.learning_rate,
                order_seed: probe.order_seed,
                reset_step: probe.reset_probe_steps,
                class_weights: probe.class_weights.clone(),
                extra_clusters: probe.extra_clusters,
                closed_form: probe.closed_form(),
                hungarian: self.config.eval.hungarian,
                interval: self.config.eval.interval,
                resamples: self.config.eval.bootstrap,
                boundary_iou: self.config.eval.boundary_iou,
            },
            memory: usize::try_from(crate::size_bytes(&self.config.how.memory).context("how.memory")?)?,
        })
    }
}
