//! Hand-made ways to mix two images, that AutoMix is compared with: one λ and one partner per image, labels mixed as λ says.
//!
//! Mixup blends pixels. CutMix pastes a box of the partner; SaliencyMix puts the box where the partner is salient; ResizeMix
//! pastes the whole partner, shrunk. Where a box is pasted, λ is the share of pixels that are left alone. ManifoldMix blends inside
//! the network ([`HiddenMix`](crate::HiddenMix)). Vanilla mixes nothing.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How training images are mixed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixPolicy {
    /// Not at all.
    Vanilla,
    /// Pixels are blended (Zhang et al. 2018).
    Mixup,
    /// A box of the partner is pasted (Yun et al. 2019).
    CutMix,
    /// Features are blended at a random one of the first blocks (Verma et al. 2019).
    ManifoldMix,
    /// A box of the partner, around its most salient pixel (Uddin et al. 2021).
    SaliencyMix,
    /// The partner, shrunk into a box (Qin et al. 2020).
    ResizeMix,
    /// A learned mask (Liu et al. 2022).
    #[default]
    AutoMix,
}

/// A rectangle of pixels: rows, columns.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Patch {
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

impl Patch {
    /// As large as `1 - λ` of the image where it does not reach over the edge, around `(y, x)`.
    fn around(side: usize, lambda: f64, (y, x): (usize, usize)) -> Self {
        let length = (side as f64 * (1.0 - lambda).sqrt()) as usize;
        let span = |centre: usize| {
            let low = centre.saturating_sub(length / 2);
            low..(centre + length / 2).min(side).max(low)
        };
        Self { rows: span(y), columns: span(x) }
    }

    fn area(&self) -> usize {
        self.rows.len() * self.columns.len()
    }
}

/// Mixes images `[b, 3, side, side]` with their partners into `mixed`; returns λ, the share of each image that is its own.
///
/// One λ, and one box, for the whole batch. Policies that mix elsewhere leave the images as they are and return `lambda`.
pub(crate) fn mix_images(
    policy: MixPolicy,
    images: &[f32],
    side: usize,
    partners: &[usize],
    lambda: f64,
    rng: &mut ChaCha8Rng,
    mixed: &mut Vec<f32>,
) -> f64 {
    mixed.clear();
    mixed.extend_from_slice(images);
    let len = 3 * side * side;
    match policy {
        MixPolicy::Vanilla | MixPolicy::ManifoldMix | MixPolicy::AutoMix => lambda,
        MixPolicy::Mixup => {
            let (own, other) = (lambda as f32, (1.0 - lambda) as f32);
            for (mixed, &partner) in mixed.chunks_exact_mut(len).zip(partners) {
                let partner = &images[partner * len..][..len];
                mixed.iter_mut().zip(partner).for_each(|(x, other_x)| *x = own * *x + other * other_x);
            }
            lambda
        }
        MixPolicy::CutMix | MixPolicy::SaliencyMix => {
            let centre = match policy {
                MixPolicy::CutMix => (rng.random_range(0..side), rng.random_range(0..side)),
                _ => most_salient(&images[partners[0] * len..][..len], side),
            };
            let patch = Patch::around(side, lambda, centre);
            paste(mixed, images, side, partners, &patch, |y, x| (y, x));
            1.0 - patch.area() as f64 / (side * side) as f64
        }
        MixPolicy::ResizeMix => {
            let length = ((side as f64 * rng.random_range(0.1..0.8)) as usize).max(1);
            let (top, left) = (rng.random_range(0..=side - length), rng.random_range(0..=side - length));
            let patch = Patch { rows: top..top + length, columns: left..left + length };
            let shrunk = |at: usize, start: usize| (at - start) * side / length;
            paste(mixed, images, side, partners, &patch, |y, x| (shrunk(y, top), shrunk(x, left)));
            1.0 - patch.area() as f64 / (side * side) as f64
        }
    }
}

/// Copies the partners' pixels into a patch; `from` says which pixel goes where.
fn paste(
    mixed: &mut [f32],
    images: &[f32],
    side: usize,
    partners: &[usize],
    patch: &Patch,
    from: impl Fn(usize, usize) -> (usize, usize),
) {
    let plane = side * side;
    for (image, &partner) in partners.iter().enumerate() {
        for channel in 0..3 {
            let (to, source) = ((image * 3 + channel) * plane, (partner * 3 + channel) * plane);
            for y in patch.rows.clone() {
                for x in patch.columns.clone() {
                    let (sy, sx) = from(y, x);
                    mixed[to + y * side + x] = images[source + sy * side + sx];
                }
            }
        }
    }
}

/// The pixel that differs most from its surroundings: grey value against the mean of a window of a third of the image, both
/// smoothed over a window of a twelfth. (The original takes OpenCV's fine-grained saliency, which also compares centres with
/// surroundings; ours is one scale of it.)
fn most_salient(image: &[f32], side: usize) -> (usize, usize) {
    let plane = side * side;
    let grey: Vec<f64> = (0..plane)
        .map(|i| (0..3).map(|channel| f64::from(image[channel * plane + i])).sum::<f64>() / 3.0)
        .collect();
    let sums = integral(&grey, side);
    let mean = |y: usize, x: usize, radius: usize| {
        let (top, left) = (y.saturating_sub(radius), x.saturating_sub(radius));
        let (bottom, right) = ((y + radius + 1).min(side), (x + radius + 1).min(side));
        let at = |y: usize, x: usize| sums[y * (side + 1) + x];
        let sum = at(bottom, right) - at(top, right) - at(bottom, left) + at(top, left);
        sum / ((bottom - top) * (right - left)) as f64
    };
    let contrast = |i: usize| {
        let (y, x) = (i / side, i % side);
        (mean(y, x, side / 24) - mean(y, x, side / 6)).abs()
    };
    let first = |top: (usize, f64), i: usize| {
        let contrast = contrast(i);
        if contrast > top.1 { (i, contrast) } else { top }
    };
    let (top, _) = (0..plane).fold((plane / 2 + side / 2, 0.0), first);
    (top / side, top % side)
}

/// Sums over all pixels above and to the left, `[side + 1, side + 1]`.
fn integral(values: &[f64], side: usize) -> Vec<f64> {
    let wide = side + 1;
    let mut sums = vec![0.0; wide * wide];
    for y in 0..side {
        let mut row = 0.0;
        for x in 0..side {
            row += values[y * side + x];
            sums[(y + 1) * wide + x + 1] = sums[y * wide + x + 1] + row;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const SIDE: usize = 12;

    /// Images of one number each: 0, 1, 2, 3.
    fn images() -> Vec<f32> {
        (0..4 * 3 * SIDE * SIDE).map(|i| (i / (3 * SIDE * SIDE)) as f32).collect()
    }

    fn mix(policy: MixPolicy, lambda: f64, seed: u64) -> (Vec<f32>, f64) {
        let (mut mixed, mut rng) = (Vec::new(), ChaCha8Rng::seed_from_u64(seed));
        let lambda = mix_images(policy, &images(), SIDE, &[2, 0, 3, 3], lambda, &mut rng, &mut mixed);
        (mixed, lambda)
    }

    /// The share of pixels that are the image's own, whatever the policy, is λ.
    #[test]
    fn lambda_is_the_share_that_is_left() {
        use MixPolicy::{CutMix, Mixup, ResizeMix, SaliencyMix};
        for policy in [Mixup, CutMix, SaliencyMix, ResizeMix] {
            for seed in 0..20 {
                let (mixed, lambda) = mix(policy, 0.05 + 0.045 * seed as f64, seed);
                for (image, (own, partner)) in [(0.0, 2.0), (1.0, 0.0), (2.0, 3.0)].into_iter().enumerate() {
                    let plane = &mixed[image * 3 * SIDE * SIDE..][..3 * SIDE * SIDE];
                    let mean = plane.iter().map(|&x| f64::from(x)).sum::<f64>() / plane.len() as f64;
                    let expected = lambda * own + (1.0 - lambda) * partner;
                    assert!((mean - expected).abs() < 1e-5, "{policy:?}: {mean} {expected}");
                }
                let fourth = &mixed[3 * 3 * SIDE * SIDE..];
                assert!(fourth.iter().all(|&x| (x - 3.0).abs() < 1e-6), "an image that is its own partner");
            }
        }
    }

    #[test]
    fn policies_that_mix_elsewhere_leave_images_alone() {
        for policy in [MixPolicy::Vanilla, MixPolicy::ManifoldMix, MixPolicy::AutoMix] {
            assert_eq!(mix(policy, 0.3, 1), (images(), 0.3));
        }
    }

    #[test]
    fn the_salient_pixel_is_the_spot() {
        let mut image = vec![0.0; 3 * 24 * 24];
        (0..3).for_each(|channel| image[(channel * 24 + 17) * 24 + 5] = 9.0);
        let (y, x) = most_salient(&image, 24);
        assert!(y.abs_diff(17) <= 1 && x.abs_diff(5) <= 1, "{y} {x}");
        assert_eq!(most_salient(&[1.0; 3 * 24 * 24], 24), (12, 12), "the middle where nothing is");
    }

    #[test]
    fn resized_partners_are_whole() {
        let ramp: Vec<f32> = (0..2 * 3 * 100).map(|i| if i < 300 { -1.0 } else { (i % 10) as f32 }).collect();
        let (mut mixed, mut rng) = (Vec::new(), ChaCha8Rng::seed_from_u64(4));
        let lambda = mix_images(MixPolicy::ResizeMix, &ramp, 10, &[1, 1], 0.5, &mut rng, &mut mixed);
        let row = mixed[..300].chunks_exact(10).find(|row| row.iter().any(|&x| x >= 0.0)).unwrap();
        let pasted: Vec<f32> = row.iter().copied().filter(|&x| x >= 0.0).collect();
        let length = pasted.len();
        assert!((1.0 - lambda - (length * length) as f64 / 100.0).abs() < 1e-9);
        assert!(pasted.iter().enumerate().all(|(i, &x)| x == (i * 10 / length) as f32), "{pasted:?}");
    }
}
