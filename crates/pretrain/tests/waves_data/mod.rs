//! Images that are told apart by their shapes alone.
//!
//! An image is one of 8 smooth random patterns of 16 x 16 pixels, with contrast, brightness and slopes of its own; a view changes them
//! again and adds noise, and a local view is a window of 12 x 12.

#![allow(dead_code, reason = "each test uses what it needs")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use ndarray::{Array2, Array3, s};
use pretrain::Views;
use probe::{KnnVote, LabelledRows};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

pub(crate) const SIDE: usize = 16;
pub(crate) const CLASSES: usize = 8;
pub(crate) const BATCH: usize = 64;
pub(crate) const TRAIN: usize = 1024;
pub(crate) const TEST: usize = 512;

pub(crate) type Image = Array2<f32>;

pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f32 {
    rng.sample(StandardNormal)
}

/// `base` at another contrast, with another brightness and slopes, and with noise of deviation `sigma`.
pub(crate) fn changed(rng: &mut ChaCha8Rng, base: &Image, sigma: f32) -> Image {
    let (contrast, brightness) = (rng.random_range(0.6..1.4), 0.5 * normal(rng));
    let slopes = [0.4 * normal(rng), 0.4 * normal(rng)];
    let ramp = |i: usize| 2.0 * i as f32 / (SIDE - 1) as f32 - 1.0;
    Image::from_shape_fn((SIDE, SIDE), |(y, x)| {
        contrast * base[[y, x]] + brightness + slopes[0] * ramp(x) + slopes[1] * ramp(y) + sigma * normal(rng)
    })
}

/// 4 x 4 random numbers, enlarged bilinearly and standardised.
pub(crate) fn pattern(rng: &mut ChaCha8Rng) -> Image {
    let coarse = Image::from_shape_simple_fn((4, 4), || normal(rng));
    let taps = |i: usize| {
        let at = ((i as f32 + 0.5) / 4.0 - 0.5).clamp(0.0, 3.0);
        let low = (at as usize).min(2);
        (low, at - low as f32)
    };
    let fine = Image::from_shape_fn((SIDE, SIDE), |(y, x)| {
        let ((y, fy), (x, fx)) = (taps(y), taps(x));
        let row = |y: usize| coarse[[y, x]] * (1.0 - fx) + coarse[[y, x + 1]] * fx;
        row(y) * (1.0 - fy) + row(y + 1) * fy
    });
    let mean = fine.mean().unwrap();
    let deviation = fine.mapv(|x| (x - mean).powi(2)).mean().unwrap().sqrt();
    fine.mapv(|x| (x - mean) / deviation)
}

/// Images and their classes.
pub(crate) fn images(rng: &mut ChaCha8Rng, patterns: &[Image], count: usize) -> (Vec<Image>, Vec<u32>) {
    (0..count).map(|i| (changed(rng, &patterns[i % CLASSES], 0.3), (i % CLASSES) as u32)).unzip()
}

pub(crate) fn three_channels(image: &Image) -> Array3<f32> {
    let (h, w) = image.dim();
    image.broadcast((3, h, w)).unwrap().to_owned()
}

pub(crate) fn views(rng: &mut ChaCha8Rng, image: &Image, local: usize) -> Views {
    let mut view = |side: usize| {
        let whole = changed(rng, image, 0.2);
        let room = (SIDE - side) / 4 + 1; // windows lie on the grid of patches
        let (y, x) = (4 * rng.random_range(0..room), 4 * rng.random_range(0..room));
        three_channels(&whole.slice(s![y..y + side, x..x + side]).to_owned())
    };
    vec![view(SIDE), view(SIDE), view(local), view(local)]
}

/// Training and test images of a seed.
pub(crate) fn sets(rng: &mut ChaCha8Rng) -> [(Vec<Image>, Vec<u32>); 2] {
    let patterns: Vec<Image> = (0..CLASSES).map(|_| pattern(rng)).collect();
    [images(rng, &patterns, TRAIN), images(rng, &patterns, TEST)]
}

/// k-NN accuracy of features, 20 neighbours.
pub(crate) fn knn(rows: Array2<f32>, queries: Array2<f32>, classes: [&[u32]; 2]) -> f64 {
    let vote = KnnVote { ks: vec![20], ..KnnVote::default() };
    let known = LabelledRows { rows: rows.view(), classes: classes[0] };
    vote.rank(known, queries.view()).unwrap()[0].accuracy(classes[1]).unwrap().top1
}

/// The generator of a seed.
pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Images as a network takes them, `[n, 3, 16, 16]`.
pub(crate) fn pixels(images: &[Image]) -> Vec<f32> {
    images.iter().flat_map(|image| three_channels(image).into_iter()).collect()
}
