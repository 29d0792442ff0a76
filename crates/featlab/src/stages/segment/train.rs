//! Train: a head and its probes, or probes on a reducer that is there; then clusters get their names.
//!
//! STEGO's probes learn beside its head, as published, and the linear one only from images that have labels. Clusters are named, and both
//! probes scored, on another cache with labels; without one, on the training cache's own.

use std::path::Path;

use anyhow::{Context as _, Result};
use candle_core::Device;
use dimred::{Map, Projection as _, Reducer};
use probe::{
    Bank, BankCell, BankParams, BankProbe, CellKind, ClusterProbe, LinearProbe, Probe as _, Resampling,
    Schedule,
};
use rayon::prelude::*;
use segment::stego::{StegoConfig, TokenSet};

use super::evaluate::{class_of_cluster, kind};
use crate::Context;
use crate::stages::features::Features;
use crate::stages::probe::{ImageCounts, Scored};
use crate::stages::sources::Sources;
use crate::stages::stego;

/// Memory for projected features.
const MEMORY: usize = 4 << 30;

/// Codes and probes.
pub(crate) struct Trained {
    pub(crate) reducer: Reducer,
    pub(crate) linear: Option<LinearProbe>,
    pub(crate) cluster: ClusterProbe,
}

/// STEGO's head with its probes, trained on `n` images.
///
/// * `state`: where the training is kept meanwhile, and its key. `labelled`: whether the linear probe has anything to learn from.
///
/// # Errors
/// As [`stego::Job::run`].
pub(crate) fn stego(
    config: StegoConfig,
    device: Device,
    state: (&Path, &str),
    (set, n): (&dyn TokenSet, usize),
    labelled: bool,
    context: &Context,
) -> Result<Trained> {
    let stego::Trained { head, linear, cluster } =
        stego::Job { config, state, device }.run((set, n), context)?;
    Ok(Trained { reducer: head, linear: labelled.then_some(linear), cluster })
}

/// Probes on the first `dim` numbers of a reducer, with STEGO's schedule.
///
/// # Errors
/// If the reducer does not serve that dimension, or on interruption.
pub(crate) fn probes(
    (reducer, dim): (Reducer, usize),
    config: &StegoConfig,
    features: &Features,
    context: &Context,
) -> Result<Trained> {
    let map = reducer.at(dim).map_err(|e| crate::exit::usage(format!("--dims: {e}")))?;
    let sources = Sources::new(features, vec![Some(map)], MEMORY);
    let cell = |kind| BankCell { source: 0, dim, scale: 1.0, kind, seed: config.seed };
    let cells = [cell(CellKind::Linear), cell(CellKind::Cluster(config.clusters()))];
    let schedule = Schedule {
        steps: config.max_steps,
        batch_size: config.batch_size,
        learning_rate: config.probe_lr,
        order_seed: config.seed,
        reset_step: config.reset_probe_steps,
    };
    let params = BankParams { schedule, class_weights: vec![1.0; config.n_classes] };
    let mut bank = Bank::new(params, &sources, &cells)?;
    let progress = context.reporter.start("train 2 probes", config.max_steps as u64, "steps");
    while bank.step() < config.max_steps && bank.is_alive() {
        context.interrupt.check()?;
        bank.advance().context("training probes")?;
        progress.tick(1);
    }
    drop(progress);
    let (mut linear, mut cluster) = (None, None);
    for probe in bank.finish() {
        match probe? {
            BankProbe::Linear(probe) => linear = Some(probe),
            BankProbe::Cluster(probe) => cluster = Some(probe),
        }
    }
    Ok(Trained { reducer, linear, cluster: cluster.context("a bank gives the probes that it was given")? })
}

/// What labels say of a model.
pub(crate) struct Judged {
    /// By the name of the probe.
    pub(crate) scored: Vec<(&'static str, Scored)>,
    pub(crate) class_of_cluster: Vec<Option<usize>>,
}

/// Scores of both probes on a cache with labels, and the class of every cluster.
///
/// # Errors
/// If codes and probes do not fit, or on interruption.
pub(crate) fn score(
    trained: &Trained,
    dim: usize,
    classes: usize,
    features: &Features,
    context: &Context,
) -> Result<Judged> {
    let map: Map = trained.reducer.at(dim)?;
    let linear = trained.linear.clone().map(|probe| ("linear", BankProbe::Linear(probe)));
    let cluster = ("cluster", BankProbe::Cluster(trained.cluster.clone()));
    let probes: Vec<_> = linear.into_iter().chain([cluster]).collect();
    let (grid, size) = (features.cache().layout().grid, features.cache().layout().label_size);
    let image = |i: usize| -> Result<Vec<ImageCounts>> {
        context.interrupt.check()?;
        let codes = map.transform(features.tokens(i).view())?;
        let count = |(_, probe): &(&str, BankProbe)| -> Result<ImageCounts> {
            let mut counts = ImageCounts::new((classes, probe.outputs()), false);
            counts.add(features.label(i), &probe.predict(codes.view(), grid, size))?;
            Ok(counts)
        };
        probes.iter().map(count).collect()
    };
    let images: Vec<_> = (0..features.len()).into_par_iter().map(image).collect::<Result<_>>()?;
    let scored = probes.iter().enumerate().map(|(at, (name, _))| {
        let counts: Vec<ImageCounts> = images.iter().map(|probes| probes[at].clone()).collect();
        (*name, Scored::new(kind(name), &resampling(), None, &counts, None))
    });
    let scored: Vec<(&'static str, Scored)> = scored.collect();
    let names = scored.iter().find_map(|(_, scored)| class_of_cluster(scored, trained.cluster.outputs()));
    Ok(Judged { scored, class_of_cluster: names.unwrap_or_default() })
}

/// How intervals of a model's scores are made.
pub(crate) fn resampling() -> Resampling {
    crate::stages::probe::IntervalMethod::default().resampling(1000, 0)
}
