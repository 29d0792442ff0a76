//! The passes of a training step over a batch: codes, the losses of the head, and the gradient of its parameters.
//!
//! An image and its neighbour are a task. Of a neighbour, the tokens that no point reads have no part in the step: its features are
//! looked at where the points are, and codes are computed for the tokens around them alone. Buffers are kept from step to step.

use std::borrow::Cow;

use candle_core::Device;
use kernels::{Threads, simd};
use ndarray::ArrayView3;
use rand::Rng;
use rayon::prelude::*;

use super::correspondence::{CorrespondenceValue, PairBatch, PairSums, Tokens};
use super::dropout::{Masks, mask_rows};
use super::error::{Error, Result, expect_finite, expect_range, expect_shape};
use super::head::{Activations, Scratch};
use super::init::Stream;
use super::on_device::DeviceBatch;
use super::optional_terms::{OptionalTerms, TermSlopes};
use super::reconstruction::Decoder;
use super::{Head, Points, StegoConfig, TokenSet};

/// Parameters of a task when gradients are added up.
const SUM: usize = 16 * 1024;

/// What is drawn for a step.
#[derive(Debug)]
struct Draws {
    own_masks: Vec<Masks>,
    neighbour_masks: Vec<Masks>,
    first: Vec<Points>,
    second: Vec<Points>,
    negatives: Vec<Vec<usize>>,
}

/// Images, their neighbours, and what is done with them in a step.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    head: Head,
    decoder: Option<Decoder>,
    own: Vec<Cow<'a, [f32]>>,
    neighbours: Vec<Cow<'a, [f32]>>,
    draws: Draws,
    /// Of every neighbour, the tokens that points read,
    few: Vec<Vec<u32>>,
    /// and the points among these.
    few_points: Vec<Points>,
    terms: OptionalTerms,
}

/// The losses of the head, without the weights of all but the first.
#[derive(Debug)]
pub(super) struct HeadLosses {
    pub(super) correspondence: CorrespondenceValue,
    pub(super) reconstruction: Option<f64>,
    pub(super) alignment: Option<f64>,
    pub(super) crf: Option<f64>,
}

/// What the passes leave.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// Codes of the images, `[b, t, k]`.
    pub(super) codes: Vec<f32>,
    /// Gradient of the head.
    pub(super) head: Vec<f32>,
    /// Gradient of the decoder.
    pub(super) decoder: Vec<f32>,
    images: Vec<ImageBuffers>,
    neighbour_codes: Vec<Vec<f32>>, // [t', k] each
    view_codes: Vec<f32>,           // [b, t, k], of augmented views
}

/// Room for an image and its neighbour.
#[derive(Debug, Default)]
struct ImageBuffers {
    own: Activations,
    neighbour: Activations,
    view: Activations,
    neighbour_rows: Vec<f32>, // [t', d]
    slope: Vec<f32>,          // [t, k], then [t', k]
    head: Vec<f32>,
    decoder: Vec<f32>,
    reconstruction: f64,
}

impl Draws {
    fn new(config: &StegoConfig, d: usize, b: usize, grid: (usize, usize), step: usize) -> Result<Self> {
        let rng = &mut Stream::Step(step as u64).rng(config.seed);
        let loss = &config.correspondence;
        let mut masks = || -> Vec<Masks> {
            (0..b).map(|_| Masks::draw(config.dropout_rate, d, config.dropout, rng)).collect()
        };
        let (own_masks, neighbour_masks) = (masks(), masks());
        let mut points = || -> Result<Vec<Points>> {
            let count = loss.feature_samples * loss.feature_samples;
            let mut at = || [rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0)];
            (0..b).map(|_| Points::new(&(0..count).map(|_| at()).collect::<Vec<_>>(), grid)).collect()
        };
        let (first, second) = (points()?, points()?);
        let negatives = (0..loss.neg_samples).map(|_| loss.negatives.draw(b, rng)).collect::<Result<_>>()?;
        Ok(Self { own_masks, neighbour_masks, first, second, negatives })
    }
}

impl<'a> Batch<'a> {
    /// Reads the images, and draws what is random in step `step`, counted from 0.
    pub(super) fn new(
        config: &StegoConfig,
        (head, decoder): (Head, Option<Decoder>),
        set: &'a dyn TokenSet,
        pairs: &[(usize, usize)],
        step: usize,
    ) -> Result<Self> {
        let (d, grid) = (head.shape().embed_dim, set.grid());
        let draws = Draws::new(config, d, pairs.len(), grid, step)?;
        let read = |image: usize| {
            let tokens = set.tokens(image).map_err(|source| Error::Fetch { step: step + 1, source })?;
            expect_shape("features of an image", &[grid.0 * grid.1 * d], &[tokens.len()])?;
            Ok(tokens)
        };
        let own = pairs.par_iter().map(|pair| read(pair.0)).collect::<Result<_>>()?;
        let neighbours = pairs.par_iter().map(|pair| read(pair.1)).collect::<Result<_>>()?;
        let (few, few_points) = draws.second.iter().map(Points::compact).unzip();
        let images: Vec<usize> = pairs.iter().map(|pair| pair.0).collect();
        let terms = OptionalTerms::read(config, set, &images, step)?;
        Ok(Self { head, decoder, own, neighbours, draws, few, few_points, terms })
    }

    /// Codes of images, neighbours and augmented views, in training mode.
    pub(super) fn forward(&self, tokens: usize, buffers: &mut Buffers) {
        let (b, d, k) = (self.own.len(), self.head.shape().embed_dim, self.head.shape().code_dim);
        buffers.codes.resize(b * tokens * k, 0.0);
        buffers.images.resize_with(b, ImageBuffers::default);
        buffers.neighbour_codes.resize_with(b, Vec::new);
        let images = buffers.images.par_iter_mut().zip(&mut buffers.neighbour_codes);
        let images = images.zip(buffers.codes.par_chunks_mut(tokens * k)).enumerate().with_max_len(1);
        images.for_each_init(Scratch::default, |scratch, (i, ((image, neighbour_code), code))| {
            let ImageBuffers { own, neighbour, neighbour_rows, .. } = image;
            let masks = [&self.draws.own_masks[i], &self.draws.neighbour_masks[i]];
            self.head.forward(&self.own[i], masks[0], Threads::One, own, scratch, code);
            neighbour_rows.clear();
            for &token in &self.few[i] {
                neighbour_rows.extend_from_slice(&self.neighbours[i][token as usize * d..][..d]);
            }
            neighbour_code.resize(self.few[i].len() * k, 0.0);
            self.head.forward(neighbour_rows, masks[1], Threads::One, neighbour, scratch, neighbour_code);
        });
        let views = buffers.images.par_iter_mut().map(|image| &mut image.view);
        self.terms.forward(&self.head, &mut buffers.view_codes, views);
    }

    /// The losses of the head, whose gradients are left in the buffers.
    pub(super) fn backward(
        &self,
        config: &StegoConfig,
        grid: (usize, usize),
        buffers: &mut Buffers,
    ) -> Result<HeadLosses> {
        let b = self.own.len();
        let Buffers { codes, head, decoder, images, neighbour_codes, view_codes } = buffers;
        let pairs = self.pairs(codes, neighbour_codes);
        let sums = config.correspondence.pairs(&pairs)?;
        let (t, k) = (grid.0 * grid.1, self.head.shape().code_dim);
        let all = ArrayView3::from_shape((b, t, k), &codes[..]).expect("a code per token");
        let slopes = self.terms.slopes(config, grid, all, view_codes)?;
        let tasks = images.par_iter_mut().enumerate().with_max_len(1);
        tasks.for_each_init(Scratch::default, |scratch, (i, image)| {
            self.image(config.rec_weight, (&pairs, &sums, &slopes, i), scratch, image);
        });
        let reconstruction = self.decoder.as_ref().map(|_| {
            let weighted: f64 = images.iter().map(|image| image.reconstruction).sum();
            weighted / f64::from(config.rec_weight)
        });
        if let Some(loss) = reconstruction {
            expect_finite("the reconstruction loss", loss)?;
        }
        add_up(head, &images[..b], |image| &image.head);
        add_up(decoder, &images[..b], |image| &image.decoder);
        let TermSlopes { alignment, crf, .. } = slopes;
        Ok(HeadLosses { correspondence: sums.value, reconstruction, alignment, crf })
    }

    /// Codes and losses on a candle device, with the head's gradient; in place of [`Batch::forward`] and [`Batch::backward`].
    pub(super) fn on_device(
        &self,
        config: &StegoConfig,
        device: &Device,
        buffers: &mut Buffers,
    ) -> Result<HeadLosses> {
        for (what, weight) in [
            ("rec_weight on a device other than the CPU", config.rec_weight),
            ("aug_alignment_weight on a device other than the CPU", config.aug_alignment_weight),
            ("crf_weight on a device other than the CPU", config.crf_weight),
        ] {
            expect_range(weight == 0.0, what, "0", weight)?;
        }
        let loss = &config.correspondence;
        let Draws { own_masks, neighbour_masks, first, second, negatives } = &self.draws;
        let ladder = loss.ladder(self.head.shape().code_dim)?;
        let masks = |masks: &[Masks]| {
            let of = |pick: fn(&Masks) -> &Option<Vec<f32>>| -> Option<Vec<f32>> {
                Some(masks.iter().filter_map(|masks| pick(masks).as_deref()).collect::<Vec<_>>().concat())
                    .filter(|all| !all.is_empty())
            };
            [of(|masks| &masks.linear), of(|masks| &masks.nonlinear), of(|masks| &masks.features)]
        };
        let weights = |points: &[Points]| {
            let mut weights = Vec::new();
            points.iter().for_each(|points| points.write_weights(&mut weights));
            weights
        };
        let batch = DeviceBatch {
            tokens: [rows(&self.own), rows(&self.neighbours)],
            masks: [masks(own_masks), masks(neighbour_masks)],
            points: [weights(first), weights(second)],
            samples: first[0].len(),
            negatives,
        };
        let head = (self.head.shape(), self.head.parameters());
        let found = batch.run(loss, head, ladder.rungs(), device)?;
        (buffers.codes, buffers.head) = (found.codes, found.head);
        let count = self.own.len() * batch.samples * batch.samples;
        let sums = (found.losses, found.cosines);
        let correspondence = loss.value_of(sums, 2 + negatives.len(), count)?;
        Ok(HeadLosses { correspondence, reconstruction: None, alignment: None, crf: None })
    }

    /// What one image and its neighbour add to the gradients.
    fn image(
        &self,
        rec_weight: f32,
        (pairs, sums, slopes, i): (&PairBatch<'_>, &PairSums, &TermSlopes, usize),
        scratch: &mut Scratch,
        image: &mut ImageBuffers,
    ) {
        let k = self.head.shape().code_dim;
        let ImageBuffers { own, neighbour, view, neighbour_rows, slope, head, decoder, reconstruction } =
            image;
        let masks = [&self.draws.own_masks[i], &self.draws.neighbour_masks[i]];
        let code = pairs.images[i].code;
        zeros(head, self.head.parameters().len());
        zeros(slope, code.len());
        sums.add_image(pairs, i, slope);
        zeros(decoder, self.decoder.as_ref().map_or(0, |decoder| decoder.parameters().len()));
        if let Some(layer) = &self.decoder {
            let mut features = self.own[i].to_vec();
            mask_rows(&mut features, masks[0].features.as_deref());
            let share = f64::from(rec_weight) * k as f64 / (pairs.images.len() * code.len()) as f64;
            *reconstruction = layer.add_slopes(&features, code, share, slope, decoder);
        }
        slopes.add_image(i, slope);
        self.head.backward(&self.own[i], masks[0], slope, own, scratch, head);
        self.terms.backward(&self.head, (slopes, i), view, scratch, head);
        zeros(slope, self.few[i].len() * k);
        sums.add_neighbour(pairs, i, slope);
        self.head.backward(neighbour_rows, masks[1], slope, neighbour, scratch, head);
    }

    fn pairs<'b>(&'b self, codes: &'b [f32], neighbour_codes: &'b [Vec<f32>]) -> PairBatch<'b> {
        fn tokens<'b>(features: &'b [f32], masks: &'b Masks, code: &'b [f32]) -> Tokens<'b> {
            Tokens { features, mask: masks.features.as_deref(), code }
        }
        let Draws { own_masks, neighbour_masks, first, second, negatives } = &self.draws;
        let codes = codes.chunks_exact(codes.len() / self.own.len());
        let own = self.own.iter().zip(own_masks).zip(codes);
        let neighbours = self.neighbours.iter().zip(neighbour_masks).zip(neighbour_codes);
        PairBatch {
            images: own.map(|((features, masks), code)| tokens(features, masks, code)).collect(),
            neighbours: neighbours.map(|((features, masks), code)| tokens(features, masks, code)).collect(),
            first,
            second,
            neighbour_codes: &self.few_points,
            negatives,
            dims: (self.head.shape().embed_dim, self.head.shape().code_dim),
        }
    }
}

fn rows<'b>(images: &'b [Cow<'_, [f32]>]) -> Vec<&'b [f32]> {
    images.iter().map(|rows| &**rows).collect()
}

/// The sum of all images' gradients, in their order.
fn add_up(sum: &mut Vec<f32>, images: &[ImageBuffers], of: impl Fn(&ImageBuffers) -> &Vec<f32> + Sync) {
    zeros(sum, of(&images[0]).len());
    sum.par_chunks_mut(SUM).enumerate().for_each(|(task, sum)| {
        for image in images {
            let part = &of(image)[task * SUM..][..sum.len()];
            simd(
                #[inline(always)]
                || {
                    for (sum, x) in sum.iter_mut().zip(part) {
                        *sum += x;
                    }
                },
            );
        }
    });
}

fn zeros(buffer: &mut Vec<f32>, len: usize) {
    buffer.clear();
    buffer.resize(len, 0.0);
}
