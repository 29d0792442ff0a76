//! The correspondence loss: codes of two points should agree where their features do (Hamilton et al., 2022).
//!
//! Features and codes are read at random points of every image, `S²` of them, and their cosines compared for all pairs of points of
//! two images, `[S², S²]`: for an image and itself (*intra*), its nearest neighbour (*inter*), and other images of the batch
//! (*negative*). With the features' cosine `f`, centred if `pointwise`, and the codes' cosine `c`, a pair of points
//! costs `-clamp(c) (f - b)`: codes attract each other where `f` exceeds the shift `b`. The loss is the weighted sum of the three means.
//!
//! Centring subtracts from `f` its mean over the second image's points and adds the mean `m` over all pairs of the batch. The
//! latter is the mean over images of `⟨mean f̂, mean f̂'⟩`, so no matrix has to be kept for it: one image's are in memory at a time
//! on every thread. Images are tasks, and what they give to an image's codes is added in a fixed order.

use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

use super::dropout::mask_rows;
use super::error::{Result, expect_finite, expect_range, expect_shape};
use super::image_pairs::{ImagePairs, PairBuffers, PairRules, PartnerRule};
use super::unit::{add_rows, make_unit};
use super::{CorrespondenceParams, Points};

/// A number for each kind of pair.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PairMeans {
    /// An image and itself.
    pub intra: f64,
    /// An image and its neighbour.
    pub inter: f64,
    /// An image and others of the batch; 0 without negatives.
    pub negative: f64,
}

/// The loss of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct CorrespondenceValue {
    /// The weighted sum.
    pub total: f64,
    /// Means of `-clamp(c) (f - b)`, added up over the ladder, without weights.
    pub losses: PairMeans,
    /// Means of the cosines `c` of the whole codes.
    pub cosines: PairMeans,
    /// The weighted sum of every rung of the ladder.
    pub rungs: Vec<f64>,
}

/// The loss of a batch with its slope in the codes.
#[derive(Debug, Clone, PartialEq)]
pub struct CorrespondenceGradient {
    /// The loss.
    pub value: CorrespondenceValue,
    /// `[b, t, k]`, of the images.
    pub grad_codes: Array3<f32>,
    /// `[b, t, k]`, of their neighbours.
    pub grad_codes_pos: Array3<f32>,
}

/// Images of a batch, or their neighbours.
#[derive(Debug, Clone, Copy)]
pub struct CorrespondenceSide<'a> {
    /// `[b, t, d]`.
    pub features: ArrayView3<'a, f32>,
    /// `[b, t, k]`.
    pub codes: ArrayView3<'a, f32>,
    /// Where they are read, `[b]` times `n` points of the grid.
    pub points: &'a [Points],
}

/// The tokens of one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens<'a> {
    /// `[t, d]`.
    pub(super) features: &'a [f32],
    /// Of dropout, `[d]`.
    pub(super) mask: Option<&'a [f32]>,
    /// `[t, k]`, or those tokens of it that are read.
    pub(super) code: &'a [f32],
}

/// A batch to be compared.
#[derive(Debug)]
pub(super) struct PairBatch<'a> {
    pub(super) images: Vec<Tokens<'a>>,
    pub(super) neighbours: Vec<Tokens<'a>>,
    /// Where an image is read as the first of a pair,
    pub(super) first: &'a [Points],
    /// where its partners are,
    pub(super) second: &'a [Points],
    /// and the latter among those tokens of which neighbours have codes.
    pub(super) neighbour_codes: &'a [Points],
    /// `[neg_samples][b]`.
    pub(super) negatives: &'a [Vec<usize>],
    /// `d` and `k`.
    pub(super) dims: (usize, usize),
}

/// The loss of a batch, and its gradient in sampled codes.
#[derive(Debug)]
pub(super) struct PairSums {
    pub(super) value: CorrespondenceValue,
    pairs: Vec<ImagePairs>,
}

impl CorrespondenceParams {
    /// The loss of a batch, and its gradient in the codes of images and neighbours.
    ///
    /// * `images`, read at their points as first of a pair; `neighbours`, of every image one. As second of a pair, image `j` is read at
    ///   the points that belong to its partner's neighbour, as in the original.
    /// * `negatives`: `[neg_samples][b]`, of every image another one; see [`Negatives::draw`](super::Negatives::draw).
    ///
    /// # Errors
    /// [`Error::Shape`](super::Error::Shape), [`Error::Range`](super::Error::Range) or [`Error::Empty`](super::Error::Empty) if
    /// they do not fit, [`Error::NotFinite`](super::Error::NotFinite) if the loss is no number.
    pub fn gradient<'a>(
        &self,
        images: CorrespondenceSide<'a>,
        neighbours: CorrespondenceSide<'a>,
        negatives: &[Vec<usize>],
    ) -> Result<CorrespondenceGradient> {
        let ((b, t, d), k) = (images.features.dim(), images.codes.dim().2);
        for (side, features, codes) in
            [(images, "features", "codes"), (neighbours, "features_pos", "codes_pos")]
        {
            expect_shape(features, &[b, t, d], side.features.shape())?;
            expect_shape(codes, &[b, t, k], side.codes.shape())?;
            expect_shape("points", &[b], &[side.points.len()])?;
            for points in side.points {
                expect_shape("tokens under the points", &[points.rows()], &[t])?;
            }
        }
        for order in negatives {
            expect_shape("negatives", &[b], &[order.len()])?;
            let most = order.iter().copied().max().unwrap_or(0);
            expect_range(most < b.max(1), "negative", &format!("an image of a batch of {b}"), most)?;
        }
        let [own, own_codes, other, other_codes] =
            [images.features, images.codes, neighbours.features, neighbours.codes]
                .map(|array| array.as_standard_layout().into_owned());
        let batch = PairBatch {
            images: tokens(&own, &own_codes),
            neighbours: tokens(&other, &other_codes),
            first: images.points,
            second: neighbours.points,
            neighbour_codes: neighbours.points,
            negatives,
            dims: (d, k),
        };
        let sums = self.pairs(&batch)?;
        let mut grad_codes = Array3::zeros((b, t, k));
        let mut grad_codes_pos = Array3::zeros((b, t, k));
        for (j, mut grad) in grad_codes.axis_iter_mut(Axis(0)).enumerate() {
            sums.add_image(&batch, j, grad.as_slice_mut().expect("standard layout"));
        }
        for (j, mut grad) in grad_codes_pos.axis_iter_mut(Axis(0)).enumerate() {
            sums.add_neighbour(&batch, j, grad.as_slice_mut().expect("standard layout"));
        }
        Ok(CorrespondenceGradient { value: sums.value, grad_codes, grad_codes_pos })
    }

    /// The loss, and what it says of the sampled codes.
    pub(super) fn pairs(&self, batch: &PairBatch<'_>) -> Result<PairSums> {
        let (d, k) = batch.dims;
        let b = batch.images.len();
        self.check(k)?;
        expect_range(b > 0 && d > 0, "number of images", "at least 1", b)?;
        let points = batch.first[0].len();
        for side in [batch.first, batch.second, batch.neighbour_codes] {
            let same = side.iter().all(|of_image| of_image.len() == points);
            expect_range(points > 0 && same, "points of an image", &format!("{points} for all"), "other")?;
        }
        let ladder = self.ladder(k)?;
        let sampled: Vec<_> = (0..b).into_par_iter().map(|i| batch.features(i, points)).collect();
        let partners = self.partners(&sampled, batch.negatives.len(), points);
        let rules = PairRules {
            points,
            embed_dim: d,
            code_dim: k,
            ladder: &ladder,
            pointwise: self.pointwise,
            limits: self.limits(),
            partners: &partners,
        };
        let run = |(buffers, codes): &mut (PairBuffers, Vec<f32>), i: usize| {
            batch.codes(i, points, codes);
            buffers.run(&rules, &sampled[i].directions, codes)
        };
        let pairs: Vec<_> = (0..b).into_par_iter().with_max_len(1).map_init(Default::default, run).collect();
        let value = self.value(&pairs, partners.len(), b * points * points);
        expect_finite("the correspondence loss", value.total)?;
        Ok(PairSums { value, pairs })
    }

    /// Of every partner, what is added to its feature correlations and what a pair of points weighs.
    fn partners(&self, sampled: &[Sampled], negatives: usize, points: usize) -> Vec<PartnerRule> {
        let d = sampled[0].sums.len() / (2 + negatives);
        let pairs = (sampled.len() * points * points) as f64;
        let rule = |partner: usize| {
            let (shift, weight) = match partner {
                0 => (self.pos_intra_shift, f64::from(self.pos_intra_weight)),
                1 => (self.pos_inter_shift, f64::from(self.pos_inter_weight)),
                _ => (self.neg_inter_shift, f64::from(self.neg_inter_weight) / negatives as f64),
            };
            let product = |image: &Sampled| -> f64 {
                let (own, other) = (&image.sums[..d], &image.sums[partner * d..][..d]);
                own.iter().zip(other).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
            };
            let mean = sampled.iter().map(product).sum::<f64>() / pairs;
            let kept = if self.pointwise { mean } else { 0.0 };
            PartnerRule {
                offset: (kept - f64::from(shift)) as f32,
                weight: (f64::from(self.correspondence_weight) * weight / pairs) as f32,
            }
        };
        (0..2 + negatives).map(rule).collect()
    }

    /// The value of a batch of which the sums over all `count` pairs of points are known, `[rungs, partners]`; see
    /// [`ImagePairs`].
    pub(super) fn value_of(
        &self,
        (losses, cosines): (Vec<f64>, Vec<f64>),
        partners: usize,
        count: usize,
    ) -> Result<CorrespondenceValue> {
        let all = ImagePairs { own: Vec::new(), others: Vec::new(), losses, cosines };
        let value = self.value(&[all], partners, count);
        expect_finite("the correspondence loss", value.total)?;
        Ok(value)
    }

    fn value(&self, pairs: &[ImagePairs], partners: usize, count: usize) -> CorrespondenceValue {
        let sums = |of: fn(&ImagePairs) -> &[f64]| -> Vec<PairMeans> {
            let mut all = vec![0.0; of(&pairs[0]).len()];
            for image in pairs {
                all.iter_mut().zip(of(image)).for_each(|(sum, x)| *sum += x);
            }
            let count = count as f64;
            let means = |rung: &[f64]| PairMeans {
                intra: rung[0] / count,
                inter: rung[1] / count,
                negative: rung[2..].iter().sum::<f64>() / (count * (partners - 2).max(1) as f64),
            };
            all.chunks_exact(partners).map(means).collect()
        };
        let losses = sums(|image| &image.losses);
        let weighted = |means: &PairMeans| {
            f64::from(self.correspondence_weight)
                * (f64::from(self.pos_intra_weight) * means.intra
                    + f64::from(self.pos_inter_weight) * means.inter
                    + f64::from(self.neg_inter_weight) * means.negative)
        };
        let rungs: Vec<f64> = losses.iter().map(weighted).collect();
        let added = losses.iter().fold(PairMeans::default(), |sum, means| PairMeans {
            intra: sum.intra + means.intra,
            inter: sum.inter + means.inter,
            negative: sum.negative + means.negative,
        });
        let cosines = *sums(|image| &image.cosines).last().expect("a ladder has a rung");
        CorrespondenceValue { total: rungs.iter().sum(), losses: added, cosines, rungs }
    }
}

/// Every image of `[b, t, d]` and `[b, t, k]`, both in standard layout.
fn tokens<'a>(features: &'a Array3<f32>, codes: &'a Array3<f32>) -> Vec<Tokens<'a>> {
    let images = |array: &'a Array3<f32>| {
        let len = array.len() / array.dim().0.max(1);
        array.as_slice().expect("standard layout").chunks_exact(len.max(1))
    };
    images(features)
        .zip(images(codes))
        .map(|(features, code)| Tokens { features, mask: None, code })
        .collect()
}

/// Features at the points of an image and its partners.
struct Sampled {
    /// `[m s, d]`, of length one.
    directions: Vec<f32>,
    /// Of every partner, `[m, d]`.
    sums: Vec<f32>,
}

impl PairBatch<'_> {
    fn features(&self, i: usize, points: usize) -> Sampled {
        let d = self.dims.0;
        let partners = 2 + self.negatives.len();
        let mut directions = vec![0.0; partners * points * d];
        let mut sums = vec![0.0; partners * d];
        for (partner, rows) in directions.chunks_exact_mut(points * d).enumerate() {
            let (tokens, at) = match partner {
                0 => (&self.images[i], &self.first[i]),
                1 => (&self.neighbours[i], &self.second[i]),
                _ => (&self.images[self.negatives[partner - 2][i]], &self.second[i]),
            };
            at.read(tokens.features, d, rows);
            mask_rows(rows, tokens.mask);
            make_unit(rows, d);
            add_rows(rows, &mut sums[partner * d..][..d]);
        }
        Sampled { directions, sums }
    }

    fn codes(&self, i: usize, points: usize, codes: &mut Vec<f32>) {
        let k = self.dims.1;
        codes.resize((2 + self.negatives.len()) * points * k, 0.0);
        for (partner, rows) in codes.chunks_exact_mut(points * k).enumerate() {
            let (tokens, at) = match partner {
                0 => (&self.images[i], &self.first[i]),
                1 => (&self.neighbours[i], &self.neighbour_codes[i]),
                _ => (&self.images[self.negatives[partner - 2][i]], &self.second[i]),
            };
            at.read(tokens.code, k, rows);
        }
    }
}

impl PairSums {
    /// Adds the gradient in the codes of image `j`, `[t, k]`: as the first of its pairs, then as the negative of others.
    pub(super) fn add_image(&self, batch: &PairBatch<'_>, j: usize, grad: &mut [f32]) {
        let k = batch.dims.1;
        batch.first[j].add_back(&self.pairs[j].own, k, grad);
        for (sample, order) in batch.negatives.iter().enumerate() {
            for (i, _) in order.iter().enumerate().filter(|&(_, &negative)| negative == j) {
                let len = batch.second[i].len() * k;
                let part = &self.pairs[i].others[(1 + sample) * len..][..len];
                batch.second[i].add_back(part, k, grad);
            }
        }
    }

    /// Adds the gradient in the codes that the neighbour of image `j` has.
    pub(super) fn add_neighbour(&self, batch: &PairBatch<'_>, j: usize, grad: &mut [f32]) {
        let points = &batch.neighbour_codes[j];
        points.add_back(&self.pairs[j].others[..points.len() * batch.dims.1], batch.dims.1, grad);
    }
}
