//! Two terms that the published trainings leave out and the original's configuration offers: codes that agree with those of an augmented view
//! ([`alignment_gradient`]), and codes that a CRF's kernel would agree with ([`CrfLoss`]).
//!
//! They need pictures, which a cache of features need not have: a set that can give them says so by [`TokenSet::augmented`] and
//! [`TokenSet::picture`]. With weight 0 nothing of this is asked for, computed or drawn. Both terms send slopes to the codes of the batch,
//! alignment also to those of the augmented views, whose codes are made in training mode as well.

use kernels::Threads;
use ndarray::{Array3, Array4, ArrayView3, Axis, s};
use rand::Rng;
use rayon::prelude::*;

use super::alignment::{aligned_points, alignment_gradient};
use super::dropout::Masks;
use super::error::{Error, Result, expect_shape};
use super::head::{Activations, Scratch};
use super::init::Stream;
use super::{Head, Points, StegoConfig, TokenSet};

/// Features of an augmented view of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Augmented {
    /// `[t, d]`.
    pub tokens: Vec<f32>,
    /// Where its pixels came from: `[h, w, 2]`, `(row, column)` in `[-1, 1]` of the image.
    pub coordinates: Array3<f32>,
}

/// What the terms see of a batch.
#[derive(Debug, Default)]
pub(super) struct OptionalTerms {
    views: Option<Views>,
    crf: Option<Pictures>,
}

/// Augmented views, one of every image.
#[derive(Debug)]
struct Views {
    tokens: Vec<Vec<f32>>,
    points: Vec<Points>,
    masks: Vec<Masks>,
}

/// Pictures, and the pixels of them that are compared.
#[derive(Debug)]
struct Pictures {
    images: Array4<f32>, // [b, 3, h, w]
    pixels: Vec<(usize, usize)>,
}

/// What the terms find, without their weights, and their weighted slopes.
#[derive(Debug, Default)]
pub(super) struct TermSlopes {
    pub(super) alignment: Option<f64>,
    pub(super) crf: Option<f64>,
    /// In the codes of the images, `[b, t, k]`.
    pub(super) codes: Option<Array3<f32>>,
    /// In the codes of the augmented views, `[b, t, k]`.
    pub(super) view_codes: Option<Array3<f32>>,
}

impl OptionalTerms {
    /// Reads what the terms with a weight need, for step `step`, counted from 0.
    pub(super) fn read(
        config: &StegoConfig,
        set: &dyn TokenSet,
        images: &[usize],
        step: usize,
    ) -> Result<Self> {
        let fetch = |source| Error::Fetch { step: step + 1, source };
        let rng = &mut Stream::Terms(step as u64).rng(config.seed);
        let seeds: Vec<u64> = images.iter().map(|_| rng.random()).collect();
        let views = (config.aug_alignment_weight > 0.0).then(|| -> Result<Views> {
            let view = |(&image, &seed): (&usize, &u64)| set.augmented(image, seed).map_err(fetch);
            let seen: Vec<Augmented> = images.par_iter().zip(&seeds).map(view).collect::<Result<_>>()?;
            let (d, grid) = (set.embed_dim(), set.grid());
            let mut views = Views { tokens: Vec::new(), points: Vec::new(), masks: Vec::new() };
            for Augmented { tokens, coordinates } in seen {
                expect_shape("features of an augmented view", &[grid.0 * grid.1 * d], &[tokens.len()])?;
                views.points.push(aligned_points(coordinates.view(), grid)?);
                views.tokens.push(tokens);
                views.masks.push(Masks::draw(config.dropout_rate, d, false, rng));
            }
            Ok(views)
        });
        let crf = (config.crf_weight > 0.0).then(|| -> Result<Pictures> {
            let pictures: Vec<Array3<f32>> =
                images.par_iter().map(|&image| set.picture(image).map_err(fetch)).collect::<Result<_>>()?;
            let (_, h, w) = pictures.first().map_or((0, 0, 0), Array3::dim);
            let mut images = Array4::zeros((pictures.len(), 3, h, w));
            for (mut to, picture) in images.axis_iter_mut(Axis(0)).zip(&pictures) {
                expect_shape("picture", &[3, h, w], picture.shape())?;
                to.assign(picture);
            }
            Ok(Pictures { images, pixels: config.crf.draw(rng) })
        });
        Ok(Self { views: views.transpose()?, crf: crf.transpose()? })
    }

    /// Codes of the augmented views, `[b, t, k]`; what their gradient needs is left in `kept`.
    pub(super) fn forward<'a>(
        &self,
        head: &Head,
        codes: &mut Vec<f32>,
        kept: impl IndexedParallelIterator<Item = &'a mut Activations>,
    ) {
        let Some(views) = &self.views else { return };
        let width = views.tokens[0].len() / head.shape().embed_dim * head.shape().code_dim;
        codes.resize(views.tokens.len() * width, 0.0);
        let images = kept.zip(codes.par_chunks_mut(width)).zip(&views.tokens).zip(&views.masks);
        images.with_max_len(1).for_each_init(Scratch::default, |scratch, (((kept, code), tokens), masks)| {
            head.forward(tokens, masks, Threads::One, kept, scratch, code);
        });
    }

    /// The terms and their slopes.
    ///
    /// * `codes`, `view_codes`: `[b, t, k]`, of the images and of their augmented views.
    pub(super) fn slopes(
        &self,
        config: &StegoConfig,
        grid: (usize, usize),
        codes: ArrayView3<'_, f32>,
        view_codes: &[f32],
    ) -> Result<TermSlopes> {
        let mut found = TermSlopes::default();
        if let Some(views) = &self.views {
            let shape = codes.dim();
            let aug = ArrayView3::from_shape(shape, view_codes).expect("a code per token");
            let slopes = alignment_gradient(codes, aug, &views.points)?;
            found.alignment = Some(slopes.loss);
            found.codes = Some(slopes.grad_codes * config.aug_alignment_weight);
            found.view_codes = Some(slopes.grad_codes_aug * config.aug_alignment_weight);
        }
        if let Some(Pictures { images, pixels }) = &self.crf {
            let slopes = config.crf.gradient(images.view(), codes, grid, pixels)?;
            found.crf = Some(slopes.loss);
            let weighted = slopes.grad_codes * config.crf_weight;
            found.codes = Some(match found.codes {
                Some(sum) => sum + weighted,
                None => weighted,
            });
        }
        Ok(found)
    }

    /// Adds what the augmented view of image `i` says of the head's parameters.
    pub(super) fn backward(
        &self,
        head: &Head,
        (slopes, i): (&TermSlopes, usize),
        kept: &mut Activations,
        scratch: &mut Scratch,
        grads: &mut [f32],
    ) {
        let (Some(views), Some(slope)) = (&self.views, &slopes.view_codes) else { return };
        let slope: Vec<f32> = slope.slice(s![i, .., ..]).iter().copied().collect();
        head.backward(&views.tokens[i], &views.masks[i], &slope, kept, scratch, grads);
    }
}

impl TermSlopes {
    /// Adds the slope in the codes of image `i`, `[t, k]`.
    pub(super) fn add_image(&self, i: usize, slope: &mut [f32]) {
        if let Some(codes) = &self.codes {
            slope.iter_mut().zip(codes.slice(s![i, .., ..])).for_each(|(sum, x)| *sum += x);
        }
    }
}
