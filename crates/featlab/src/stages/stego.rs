//! STEGO: a head trained on features, cached or computed as they are needed, becomes a reducer.
//!
//! Every image's positives are among its nearest neighbours by mean feature; batches are pairs of an image and a positive. The
//! training's state is written down every minute, so that a kill costs that and no more.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use candle_core::Device;
use dimred::{HeadLayer, Reducer, StegoHead};
use ndarray::{Array1, Array2, ArrayView2, ArrayView3, Axis};
use probe::{ClusterProbe, LinearProbe};
use rayon::prelude::*;
use segment::stego::{
    FetchError, Head, HeadKind, HeadShape, HeadTensor, PairOrder, StegoConfig, StegoStep, TokenSet, Trainer,
    TrainerState, nearest_neighbours, pooled_directions,
};
use serde::{Deserialize, Serialize};

use super::state_file;
use crate::Context;
use crate::exit::integrity;
use crate::stages::features::Features;

/// Time between two states on disk.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What is trained.
pub(crate) struct Job<'a> {
    pub(crate) config: StegoConfig,
    /// Where the state of the training is kept, and the key that it must carry.
    pub(crate) state: (&'a Path, &'a str),
    /// Where the head's passes run.
    pub(crate) device: Device,
}

/// Images of a cache as the trainer sees them.
pub(crate) struct CachedTokens<'a> {
    pub(crate) features: &'a Features,
    /// Whether the linear probe learns from those whose labels were read; for the head alone it need not.
    pub(crate) labels: bool,
}

impl TokenSet for CachedTokens<'_> {
    fn grid(&self) -> (usize, usize) {
        self.features.cache().layout().grid
    }

    fn embed_dim(&self) -> usize {
        self.features.dim()
    }

    fn tokens(&self, image: usize) -> Result<Cow<'_, [f32]>, FetchError> {
        Ok(Cow::Owned(self.features.tokens(image).into_raw_vec_and_offset().0))
    }

    fn label(&self, image: usize) -> Option<ArrayView2<'_, u8>> {
        self.features.label_if_any(image).filter(|_| self.labels)
    }
}

/// A trained head, and the probes that were trained beside it.
pub(crate) struct Trained {
    pub(crate) head: Reducer,
    pub(crate) linear: LinearProbe,
    pub(crate) cluster: ClusterProbe,
}

/// What of a trainer's state is no tensor.
#[derive(Serialize, Deserialize)]
struct Rest {
    step: usize,
    adam_steps: Vec<i32>,
}

impl Job<'_> {
    /// Trains a head on `n` images; nested if its loss has a ladder.
    ///
    /// # Errors
    /// If the configuration or the features do not fit, a loss is no number, or on interruption (the state is then kept).
    pub(crate) fn run(&self, (set, n): (&dyn TokenSet, usize), context: &Context) -> Result<Trained> {
        let neighbours = self.neighbours((set, n), context)?;
        let config = &self.config;
        let mut order =
            PairOrder::new(neighbours.view(), config.batch_size, config.num_neighbors, config.seed)?;
        let of_pictures = [config.rec_weight, config.aug_alignment_weight, config.crf_weight];
        let device = match of_pictures == [0.0; 3] {
            true => &self.device,
            false => &Device::Cpu, // these terms know no other
        };
        let mut trainer = Trainer::new(config.clone(), set.embed_dim())?.on(device);
        let (path, key) = self.state;
        if let Some(state) = read(path, key)
            && trainer.restore(state).is_ok()
        {
            context.reporter.say(format!("goes on at step {} of STEGO's training", trainer.state().step));
        }
        let steps = config.max_steps;
        let what = format!("train STEGO, {} dimensions", config.dim);
        let progress = context.reporter.start(&what, (steps - trainer.state().step) as u64, "steps");
        let (mut saved, mut last) = (Instant::now(), None);
        while trainer.state().step < steps {
            let interrupted = context.interrupt.requested();
            if interrupted || saved.elapsed() > SAVE_EVERY {
                write(path, key, trainer.state())?;
                saved = Instant::now();
            }
            context.interrupt.check()?;
            let batch = order.batch(trainer.state().step);
            last = Some(trainer.advance(set, &batch).context("training STEGO")?);
            progress.tick(1);
        }
        drop(progress);
        if let Some(step) = last {
            context.reporter.say(said(&step, config));
        }
        let head = reducer(&trainer.head(), !config.correspondence.ladder.is_empty())?;
        // All it was for is in the result.
        let _ = std::fs::remove_file(path);
        Ok(Trained { head, linear: trainer.linear_probe(), cluster: trainer.cluster_probe() })
    }

    /// The nearest images of each, itself first, `[n, num_neighbors + 1]`.
    fn neighbours(&self, (set, n): (&dyn TokenSet, usize), context: &Context) -> Result<Array2<u32>> {
        let wanted = self.config.num_neighbors + 1;
        ensure!(
            n >= wanted,
            "{n} training images have no {} neighbours; set stego.num_neighbors",
            wanted - 1
        );
        let (d, progress) = (set.embed_dim(), context.reporter.start("neighbours", n as u64, "images"));
        let direction = |i: usize| -> Result<Array1<f32>> {
            context.interrupt.check()?;
            let tokens = set.tokens(i).map_err(|e| anyhow!(e))?;
            let tokens = ArrayView3::from_shape((1, tokens.len() / d, d), &tokens)?;
            let direction = pooled_directions(tokens)?.row(0).to_owned();
            progress.tick(1);
            Ok(direction)
        };
        let directions = (0..n).into_par_iter().map(direction).collect::<Result<Vec<_>>>()?;
        drop(progress);
        let views: Vec<_> = directions.iter().map(Array1::view).collect();
        let directions = ndarray::stack(Axis(0), &views)?; // [n, d]
        Ok(nearest_neighbours(directions.view(), wanted)?.indices)
    }
}

fn said(step: &StegoStep, config: &StegoConfig) -> String {
    let mut line = format!(
        "STEGO, {} dimensions: {} steps, correspondence loss {:.4}",
        config.dim, step.step, step.correspondence.total
    );
    let terms = [("reconstruction", step.reconstruction), ("alignment", step.alignment), ("CRF", step.crf)];
    for (name, term) in terms {
        line += &term.map(|loss| format!(", {name} {loss:.4}")).unwrap_or_default();
    }
    line
}

/// A head as a reducer.
fn reducer(head: &Head, nested: bool) -> Result<Reducer> {
    let tensors: Vec<&[f32]> =
        head.shape().tensors().into_iter().map(|tensor| &head.parameters()[tensor.range]).collect();
    let layers = tensors.chunks_exact(2).map(|pair| -> Result<HeadLayer> {
        let bias = Array1::from_vec(pair[1].to_vec());
        let from = pair[0].len() / bias.len();
        Ok(HeadLayer { weight: Array2::from_shape_vec((bias.len(), from), pair[0].to_vec())?, bias })
    });
    let mut layers = layers.collect::<Result<Vec<_>>>()?.into_iter();
    let linear = layers.next().context("a head has a linear branch")?;
    let head = StegoHead::new(linear, layers.next().zip(layers.next()), nested)?;
    Ok(Reducer::Stego(Arc::new(head)))
}

/// The head in a checkpoint of the original, for features of `dim` dimensions.
///
/// # Errors
/// If the file is no checkpoint, holds no head, or one for other features.
pub(crate) fn from_checkpoint(path: &Path, dim: usize) -> Result<Reducer> {
    let tensors = backbone::named_tensors(path, "net.")?;
    let wrong = |what: String| integrity(format!("{}: {what}", path.display()));
    let bias = tensors.get("cluster1.0.bias");
    let bias = bias.ok_or_else(|| wrong("no head of STEGO (net.cluster1.0.bias) is in it".into()))?;
    let kind = match tensors.contains_key("cluster2.0.weight") {
        true => HeadKind::Nonlinear,
        false => HeadKind::Linear,
    };
    let shape = HeadShape { embed_dim: dim, code_dim: bias.values.len(), kind };
    let mut parameters = Vec::with_capacity(shape.parameters());
    for HeadTensor { name, shape, .. } in shape.tensors() {
        match tensors.get(name) {
            Some(tensor) if tensor.shape == shape => parameters.extend(&tensor.values),
            found => {
                let found = found.map(|tensor| format!("{:?}", tensor.shape)).unwrap_or("missing".into());
                return Err(wrong(format!(
                    "tensor net.{name} is {found}, features of {dim} dimensions need {shape:?}"
                )));
            }
        }
    }
    reducer(&Head::from_parameters(shape, parameters)?, false)
}

/// The networks of a trainer, in a fixed order.
fn networks(state: &TrainerState) -> Vec<&segment::stego::Trained> {
    let mut all = vec![&state.head, &state.linear, &state.cluster];
    all.extend(&state.decoder);
    all
}

fn write(path: &Path, key: &str, state: &TrainerState) -> Result<()> {
    let networks = networks(state);
    let rest = Rest { step: state.step, adam_steps: networks.iter().map(|network| network.steps).collect() };
    let parts = networks.iter().flat_map(|n| [&n.parameters, &n.mean, &n.square].map(Vec::as_slice));
    state_file::write(path, key, &rest, parts)
}

fn read(path: &Path, key: &str) -> Option<TrainerState> {
    let (rest, parts): (Rest, Vec<Vec<f32>>) = state_file::read(path, key)?;
    let networks = parts.chunks_exact(3).zip(rest.adam_steps).map(|(parts, steps)| segment::stego::Trained {
        parameters: parts[0].clone(),
        mean: parts[1].clone(),
        square: parts[2].clone(),
        steps,
    });
    let mut networks = networks;
    Some(TrainerState {
        step: rest.step,
        head: networks.next()?,
        linear: networks.next()?,
        cluster: networks.next()?,
        decoder: networks.next(),
    })
}
