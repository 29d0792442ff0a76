//! Stochastic depth (Huang et al. 2016): a residual branch is left out for some images, and scaled up for the others.
//!
//! Block `i` of `L` drops a branch with probability `r · i / (L - 1)`; with `p` the probability that it is kept, the branch is
//! multiplied by `Bernoulli(p) / p` for each image on its own.

use std::ops::Range;

use kernels::for_each_row;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::buffer::sized;
use crate::engine::Part;

/// A scale for each image of a batch, `[b]`; empty if the branch is always kept.
pub type Branch = Vec<f32>;

/// The scales of `images` images where the branch is dropped with probability `rate`.
fn draw(rng: &mut impl Rng, rate: f64, images: usize) -> Branch {
    if rate == 0.0 {
        return Branch::new();
    }
    let keep = 1.0 - rate;
    (0..images).map(|_| if rng.random_bool(keep) { (1.0 / keep) as f32 } else { 0.0 }).collect()
}

/// The rate of each block.
fn rates(rate: f64, depth: usize) -> Vec<f64> {
    (0..depth).map(|i| rate * i as f64 / (depth.max(2) - 1) as f64).collect()
}

/// Writes `out = x + scale · branch`, rows of one image after the other.
pub(crate) fn add_branch(x: &[f32], branch: &[f32], scales: &Branch, out: &mut [f32]) {
    let len = if scales.is_empty() { out.len() } else { out.len() / scales.len() };
    let row = row_len(len);
    for_each_row(out, row, |i, out| {
        let at = i * row;
        let scale = scales.get(at / len).copied().unwrap_or(1.0);
        let inputs = x[at..at + out.len()].iter().zip(&branch[at..]);
        out.iter_mut().zip(inputs).for_each(|(out, (x, branch))| *out = x + scale * branch);
    });
}

/// The gradient of a branch: that of the sum, scaled. Without scales it is the sum's own.
pub(crate) fn scale_branch<'a>(dout: &'a [f32], scales: &Branch, scratch: &'a mut Vec<f32>) -> &'a [f32] {
    if scales.is_empty() {
        return dout;
    }
    let len = dout.len() / scales.len();
    let row = row_len(len);
    let scaled = sized(scratch, dout.len());
    for_each_row(scaled, row, |i, out| {
        let (at, scale) = (i * row, scales[i * row / len]);
        out.iter_mut().zip(&dout[at..]).for_each(|(out, d)| *out = scale * d);
    });
    scaled
}

/// A divisor of an image's `len` numbers that is handy as a row.
fn row_len(len: usize) -> usize {
    (1..=len.min(1024)).rev().find(|row| len.is_multiple_of(*row)).unwrap_or(1)
}

/// The student's stochastic depth in one pass: scales for every block, branch, view and image.
#[derive(Debug)]
pub(crate) struct Drops {
    rates: Vec<f64>,
    views: usize,
    images: Vec<Vec<f32>>, // [image][(block · 2 + branch) · views + view]
}

impl Drops {
    /// Every image has dice of its own, so that the batch may come in any parts.
    pub(crate) fn draw(part: &Part<'_>, depth: usize) -> Self {
        let numbers = part.first..part.first + part.images.len();
        let views = part.config.views.count();
        Self::of_images(
            part.config.backbone.drop_path,
            depth,
            part.config.train.seed,
            part.step,
            views,
            numbers,
        )
    }

    /// For the images of these numbers in a step's batch.
    pub(crate) fn of_images(
        rate: f64,
        depth: usize,
        seed: u64,
        step: usize,
        views: usize,
        numbers: Range<usize>,
    ) -> Self {
        let rates = rates(rate, depth);
        let of_image = |image: usize| {
            let key = format!("drop path, seed {seed}, step {step}, image {image}");
            let mut rng = ChaCha8Rng::from_seed(Sha256::digest(key).into());
            let branches = rates.iter().flat_map(|&rate| [rate, rate]);
            branches.flat_map(|rate| draw(&mut rng, rate, views)).collect()
        };
        let images = if rate > 0.0 { numbers.map(of_image).collect() } else { Vec::new() };
        Self { rates, views, images }
    }

    /// The scales of a block's branches for the views of group 0 (global) or 1 (local), view-major.
    pub(crate) fn of(&self, group: usize, block: usize) -> [Branch; 2] {
        let views = if group == 0 { 0..self.views.min(2) } else { 2..self.views };
        if self.images.is_empty() || self.rates[block] == 0.0 {
            return [Branch::new(), Branch::new()];
        }
        // Blocks whose rate is 0 drew nothing.
        let before = self.rates[..block].iter().filter(|rate| **rate > 0.0).count();
        [0, 1].map(|branch| {
            let at = |view: usize| (before * 2 + branch) * self.views + view;
            views.clone().flat_map(|view| self.images.iter().map(move |image| image[at(view)])).collect()
        })
    }
}
