//! Training: a step moves the head by the correspondence loss, and two probes by their own losses on its codes.
//!
//! The probes see the codes of the images, as dropout left them, and send nothing back. Three Adams take the steps, as published:
//! one for the head (and the decoder, if reconstruction has a weight), one for each probe.
//!
//! A step's random numbers depend on seed and step, and its gradients are added up in the order of the images, so that a training
//! gives the same bits on any number of threads and after any interruption ([`TrainerState`]). Which images make a step
//! is the caller's choice; [`PairOrder`](super::PairOrder) makes the original's.

use std::borrow::Cow;

use candle_core::Device;
use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3, Axis};
use probe::{ClusterGradient, ClusterProbe, LinearGradient, LinearProbe};
use rand_distr::{Distribution, StandardNormal};

use super::batch::{Batch, Buffers, HeadLosses};
use super::correspondence::CorrespondenceValue;
use super::error::{FetchError, Result, expect_finite, expect_range, expect_shape};
use super::init::{Stream, convolution};
use super::reconstruction::Decoder;
use super::{Augmented, Head, HeadShape, StegoConfig, Trained};

/// A label that counts nowhere.
const IGNORED: u8 = 255;

/// Images by index: features, and labels where there are some.
pub trait TokenSet: Sync {
    /// The patch grid `(gh, gw)`.
    fn grid(&self) -> (usize, usize);

    /// `d`, numbers of a feature.
    fn embed_dim(&self) -> usize;

    /// Features of an image, `[t, d]` in row-major order of the grid.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn tokens(&self, image: usize) -> Result<Cow<'_, [f32]>, FetchError>;

    /// Pixels `[3, h, w]` of an image, normalised, of one size for all; the CRF loss asks for them.
    ///
    /// # Errors
    /// Whatever keeps them from being read; that there are none.
    fn picture(&self, _image: usize) -> Result<Array3<f32>, FetchError> {
        Err("crf_weight needs pictures, and this set has features only; train from images, or set it to 0"
            .into())
    }

    /// Features of an augmented view of an image, the one that `seed` draws; alignment asks for them.
    ///
    /// # Errors
    /// As [`TokenSet::picture`].
    fn augmented(&self, _image: usize, _seed: u64) -> Result<Augmented, FetchError> {
        Err("aug_alignment_weight needs pictures, and this set has features only; train from images, or set it to 0".into())
    }

    /// Label map `[h, w]` of an image, of one size for all; 255, and any label that is not a class, is ignored.
    fn label(&self, _image: usize) -> Option<ArrayView2<'_, u8>> {
        None
    }
}

/// What a step found before it changed anything.
#[derive(Debug, Clone, PartialEq)]
pub struct StegoStep {
    /// The step, counted from 1.
    pub step: usize,
    /// The correspondence loss.
    pub correspondence: CorrespondenceValue,
    /// Minus the mean cosine of features and their reconstruction, without its weight; `None` if it has none.
    pub reconstruction: Option<f64>,
    /// Minus the mean cosine of codes and those of augmented views, without its weight; `None` if it has none.
    pub alignment: Option<f64>,
    /// The CRF loss, without its weight; `None` if it has none.
    pub crf: Option<f64>,
    /// The linear probe's loss; `None` without a labelled pixel.
    pub linear: Option<f64>,
    /// The cluster probe's loss.
    pub cluster: f64,
}

/// Everything that changes from step to step.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerState {
    /// Steps made.
    pub step: usize,
    /// The head, laid out as [`HeadShape::tensors`] says.
    pub head: Trained,
    /// The decoder, weights `[d, k]` and biases, if reconstruction has a weight.
    pub decoder: Option<Trained>,
    /// The linear probe, weights `[c, k]` and biases.
    pub linear: Trained,
    /// The cluster probe's centres, `[m, k]`.
    pub cluster: Trained,
}

/// A head and its probes in training.
#[derive(Debug)]
pub struct Trainer {
    config: StegoConfig,
    shape: HeadShape,
    state: TrainerState,
    buffers: Buffers,
    /// Where the head's passes run through candle; our own kernels are for the CPU.
    device: Option<Device>,
}

impl Trainer {
    /// A training that has made no step yet.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range) for numbers that make no sense.
    pub fn new(config: StegoConfig, embed_dim: usize) -> Result<Self> {
        config.check()?;
        let shape = HeadShape { embed_dim, code_dim: config.dim, kind: config.projection_type };
        let head = Head::new(shape, config.seed)?;
        let decoder = (config.rec_weight > 0.0).then(|| Decoder::new(embed_dim, config.dim, config.seed));
        let state = TrainerState {
            step: 0,
            head: Trained::new(head.parameters),
            decoder: decoder.map(|decoder| Trained::new(decoder.parameters)),
            linear: fresh_linear(&config, 0),
            cluster: fresh_cluster(&config, 0),
        };
        Ok(Self { config, shape, state, buffers: Buffers::default(), device: None })
    }

    /// The same training with the head's passes on a device. A GPU gives the CPU's results within a tolerance, and knows no
    /// terms that need pictures or a decoder; probes and Adam stay on the CPU.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        Self { device: Some(device.clone()).filter(|device| !device.is_cpu()), ..self }
    }

    /// The hyper-parameters.
    #[must_use]
    pub fn config(&self) -> &StegoConfig {
        &self.config
    }

    /// The state after the steps so far.
    #[must_use]
    pub fn state(&self) -> &TrainerState {
        &self.state
    }

    /// Goes on from the state of a training with the same configuration.
    ///
    /// # Errors
    /// [`Error::Shape`](super::Error::Shape) or [`Error::Range`](super::Error::Range) if it is one of another; then nothing has
    /// changed.
    pub fn restore(&mut self, state: TrainerState) -> Result<()> {
        let own = &self.state;
        state.head.check("state of the head", own.head.parameters.len())?;
        state.linear.check("state of the linear probe", own.linear.parameters.len())?;
        state.cluster.check("state of the cluster probe", own.cluster.parameters.len())?;
        let decoders = [&state, own].map(|state| state.decoder.is_some());
        expect_range(
            decoders[0] == decoders[1],
            "decoder of the state",
            &decoders[1].to_string(),
            decoders[0],
        )?;
        if let (Some(theirs), Some(ours)) = (&state.decoder, &own.decoder) {
            theirs.check("state of the decoder", ours.parameters.len())?;
        }
        self.state = state;
        Ok(())
    }

    /// The head as it is now.
    #[must_use]
    pub fn head(&self) -> Head {
        Head::from_parameters(self.shape, self.state.head.parameters.clone()).expect("made for this shape")
    }

    /// The decoder as it is now, if reconstruction has a weight.
    #[must_use]
    pub fn decoder(&self) -> Option<Decoder> {
        let parameters = self.state.decoder.as_ref()?.parameters.clone();
        let decoder = Decoder::from_parameters(self.shape.embed_dim, self.shape.code_dim, parameters);
        Some(decoder.expect("made for this shape"))
    }

    /// The linear probe as it is now.
    #[must_use]
    pub fn linear_probe(&self) -> LinearProbe {
        self.linear_of(&self.state.linear)
    }

    /// The cluster probe as it is now.
    #[must_use]
    pub fn cluster_probe(&self) -> ClusterProbe {
        self.cluster_of(&self.state.cluster)
    }

    /// Makes a step on images and their neighbours, given as indices of the set. After an error nothing has changed.
    ///
    /// # Errors
    /// [`Error::Fetch`](super::Error::Fetch) if images cannot be read, [`Error::Shape`](super::Error::Shape) if they do not fit,
    /// [`Error::Range`](super::Error::Range) for a batch without negatives, [`Error::NotFinite`](super::Error::NotFinite) if a
    /// loss is no number.
    pub fn advance(&mut self, set: &dyn TokenSet, pairs: &[(usize, usize)]) -> Result<StegoStep> {
        let (grid, b, k) = (set.grid(), pairs.len(), self.config.dim);
        let t = grid.0 * grid.1;
        expect_shape("features of the set", &[self.shape.embed_dim], &[set.embed_dim()])?;
        expect_range(b > 0 && t > 0, "tokens of a batch", "at least 1", b * t)?;
        let networks = (self.head(), self.decoder());
        let batch = Batch::new(&self.config, networks, set, pairs, self.state.step)?;
        let found = match &self.device {
            Some(device) => batch.on_device(&self.config, device, &mut self.buffers)?,
            None => {
                batch.forward(t, &mut self.buffers);
                batch.backward(&self.config, grid, &mut self.buffers)?
            }
        };

        let reset = self.config.reset_probe_steps == Some(self.state.step);
        let fresh = reset.then(|| (fresh_linear(&self.config, 1), fresh_cluster(&self.config, 1)));
        let (old_linear, old_cluster) = (&self.state.linear, &self.state.cluster);
        let (mut linear, mut cluster) = fresh.unwrap_or_else(|| (old_linear.clone(), old_cluster.clone()));
        let codes = ArrayView3::from_shape((b, t, k), &self.buffers.codes).expect("a code per token");
        let linear_slope = labels_of(set, pairs)?
            .map(|labels| self.linear_of(&linear).gradient(codes, grid, labels.view()))
            .transpose()?;
        let cluster_slope = self.cluster_of(&cluster).gradient(codes, None)?;
        let linear_loss = linear_slope.as_ref().and_then(|slope| slope.loss);
        expect_finite("the linear probe's loss", linear_loss.unwrap_or(0.0))?;
        expect_finite("the cluster probe's loss", cluster_slope.loss)?;

        // Nothing fails from here on.
        let state = &mut self.state;
        state.head.step(self.config.lr, &self.buffers.head);
        if let Some(decoder) = &mut state.decoder {
            decoder.step(self.config.lr, &self.buffers.decoder);
        }
        cluster.step(self.config.probe_lr, &flat_cluster(&cluster_slope));
        if let Some(slope) = &linear_slope {
            linear.step(self.config.probe_lr, &flat_linear(slope));
        }
        (state.linear, state.cluster) = (linear, cluster);
        state.step += 1;
        let (step, cluster) = (state.step, cluster_slope.loss);
        let HeadLosses { correspondence, reconstruction, alignment, crf } = found;
        Ok(StegoStep { step, correspondence, reconstruction, alignment, crf, linear: linear_loss, cluster })
    }

    fn linear_of(&self, trained: &Trained) -> LinearProbe {
        let (c, k) = (self.config.n_classes, self.config.dim);
        let (weight, bias) = trained.parameters.split_at(c * k);
        let weight = Array2::from_shape_vec((c, k), weight.to_vec()).expect("made for this shape");
        LinearProbe { weight, bias: Array1::from(bias.to_vec()) }
    }

    fn cluster_of(&self, trained: &Trained) -> ClusterProbe {
        let shape = (self.config.clusters(), self.config.dim);
        let centres = Array2::from_shape_vec(shape, trained.parameters.clone());
        ClusterProbe { centres: centres.expect("made for this shape") }
    }
}

/// Weights and biases of a linear probe, drawn for the `draw`-th time.
fn fresh_linear(config: &StegoConfig, draw: u64) -> Trained {
    let mut parameters = vec![0.0; config.n_classes * (config.dim + 1)];
    convolution(&mut parameters, config.dim, &mut Stream::Linear(draw).rng(config.seed));
    Trained::new(parameters)
}

/// Standard normal centres, drawn for the `draw`-th time.
fn fresh_cluster(config: &StegoConfig, draw: u64) -> Trained {
    let mut rng = Stream::Cluster(draw).rng(config.seed);
    Trained::new((0..config.clusters() * config.dim).map(|_| StandardNormal.sample(&mut rng)).collect())
}

/// Label maps of the images of a batch, `[b, h, w]`; an image without one counts nowhere. `None` if there are none at all.
fn labels_of(set: &dyn TokenSet, pairs: &[(usize, usize)]) -> Result<Option<Array3<u8>>> {
    let maps: Vec<_> = pairs.iter().map(|&(image, _)| set.label(image)).collect();
    let Some((h, w)) = maps.iter().flatten().map(ArrayView2::dim).next() else { return Ok(None) };
    let mut labels = Array3::from_elem((pairs.len(), h, w), IGNORED);
    for (mut to, map) in labels.axis_iter_mut(Axis(0)).zip(maps) {
        let Some(map) = map else { continue };
        expect_shape("label map", &[h, w], map.shape())?;
        to.assign(&map);
    }
    Ok(Some(labels))
}

fn flat_linear(slope: &LinearGradient) -> Vec<f32> {
    slope.weight.iter().chain(&slope.bias).copied().collect()
}

fn flat_cluster(slope: &ClusterGradient) -> Vec<f32> {
    slope.centres.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stego::HeadKind;

    struct Waves(Vec<Vec<f32>>);

    impl TokenSet for Waves {
        fn grid(&self) -> (usize, usize) {
            (4, 5)
        }

        fn embed_dim(&self) -> usize {
            6
        }

        fn tokens(&self, image: usize) -> Result<Cow<'_, [f32]>, FetchError> {
            Ok(Cow::Borrowed(&self.0[image]))
        }
    }

    /// Candle's tensors and gradients, here on the CPU, give what our kernels do: losses, cosines and the head after each of some
    /// steps, for both kinds of heads, with and without a ladder, dropout, centring and clamps.
    #[test]
    fn candle_finds_what_the_kernels_find() {
        let wave = |i: usize| (0..20 * 6).map(|j| ((i * 31 + j * 7 + i * j) as f32).sin()).collect();
        let set = Waves((0..8).map(wave).collect());
        let pairs = [(0, 4), (1, 5), (2, 6), (3, 7)];
        for bits in 0..8_u8 {
            let on = |bit: u8| bits & bit != 0;
            let mut config = StegoConfig { dim: 5, batch_size: 4, n_classes: 3, ..StegoConfig::default() };
            config.projection_type = if on(1) { HeadKind::Linear } else { HeadKind::Nonlinear };
            config.dropout = on(2);
            config.dropout_rate = if on(2) { 0.3 } else { 0.0 };
            let loss = &mut config.correspondence;
            loss.ladder = if on(4) { vec![2, 5] } else { Vec::new() };
            (loss.pointwise, loss.stabalize, loss.zero_clamp) = (!on(1), on(2), !on(4));
            let mut ours = Trainer::new(config.clone(), 6).unwrap();
            let mut candles = Trainer::new(config, 6).unwrap();
            candles.device = Some(Device::Cpu);
            for step in 0..3 {
                let (a, b) = (ours.advance(&set, &pairs).unwrap(), candles.advance(&set, &pairs).unwrap());
                let near = |a: f64, b: f64| (a - b).abs() < 1e-5 * (1.0 + a.abs());
                let (a, b) = (a.correspondence, b.correspondence);
                assert!(near(a.total, b.total), "case {bits}, step {step}: {a:?} {b:?}");
                assert!(near(a.losses.negative, b.losses.negative) && near(a.cosines.inter, b.cosines.inter));
                assert!(a.rungs.len() == b.rungs.len() && near(a.rungs[0], b.rungs[0]));
            }
            let off = ours.state.head.parameters.iter().zip(&candles.state.head.parameters);
            let off = off.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-4, "case {bits}: parameters are {off} apart");
        }
    }

    #[test]
    fn a_device_refuses_what_it_does_not_know() {
        let config = StegoConfig { dim: 2, batch_size: 2, rec_weight: 1.0, ..StegoConfig::default() };
        let set = Waves(vec![vec![0.5; 20 * 6]; 2]);
        let mut trainer = Trainer::new(config, 6).unwrap();
        trainer.device = Some(Device::Cpu);
        let refused = trainer.advance(&set, &[(0, 1), (1, 0)]).unwrap_err().to_string();
        assert!(refused.contains("rec_weight"), "{refused}");
    }
}
