//! Half precision against `f32`: what a GPU computes, rounded on the CPU where a GPU rounds.
//!
//! `f32` on the CPU goes through the kernels on panels, half precision through candle's operators on rows, which is the
//! way of every other device. So this also holds the two ways together.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use backbone::{Facet, Layer, LoadOptions, Loaded, Precision, load};
use candle_core::{DType, Device, Tensor};

fn loaded(name: &str, precision: Precision) -> Loaded {
    load(name, &LoadOptions { precision, ..LoadOptions::default() }).unwrap()
}

/// Images without symmetries, of about the spread of normalised ones, `[b, 3, side, side]`.
fn images(b: usize, side: usize) -> Tensor {
    let value = |i: usize| {
        let (x, y, rest) = (i % side, i / side % side, i / side / side);
        (x as f32 * 0.21).sin() + (y as f32 * 0.13 + rest as f32).cos() + (i as f32 * 12.9898).sin() * 0.5
    };
    let values: Vec<f32> = (0..b * 3 * side * side).map(value).collect();
    Tensor::from_vec(values, (b, 3, side, side), &Device::Cpu).unwrap()
}

/// `[rows, d]`.
fn rows(tokens: &Tensor) -> Vec<Vec<f32>> {
    assert_eq!(tokens.dtype(), DType::F32);
    let d = tokens.dims()[tokens.rank() - 1];
    tokens.reshape(((), d)).unwrap().to_vec2().unwrap()
}

/// The smallest cosine of a token with the same token of the other, and the largest difference in parts of the largest value.
fn apart(a: &Tensor, b: &Tensor) -> (f64, f32) {
    let (a, b) = (rows(a), rows(b));
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let cosine = |(x, y): (&Vec<f32>, &Vec<f32>)| dot(x, y) / (dot(x, x) * dot(y, y)).sqrt();
    let largest = a.iter().flatten().fold(0f32, |most, x| most.max(x.abs()));
    let far = a.iter().flatten().zip(b.iter().flatten()).fold(0f32, |most, (x, y)| most.max((x - y).abs()));
    (a.iter().zip(&b).map(cosine).fold(1.0, f64::min), far / largest)
}

/// Patch tokens and class token of a layer.
fn features(name: &str, precision: Precision, images: &Tensor, layer: Layer) -> [Tensor; 2] {
    let features = loaded(name, precision).backbone.forward_features(images, layer).unwrap();
    [features.patches, features.cls]
}

/// Every family of networks, those of depth 12 as large as they are published.
const NETWORKS: [(&str, usize); 5] = [
    ("random:vit_small_patch8:0", 112),
    ("random:vit_base_patch16:0", 112),
    ("random:dinov2_reg4_small_patch14:0", 112),
    ("random:dinov3_small_patch16:0", 112),
    ("embedded:scenes-micro", 96),
];

#[test]
fn half_precision_stays_close_token_by_token() {
    for (name, side) in NETWORKS {
        let images = images(1, side);
        let last = Layer { block: -1, facet: Facet::Token };
        let exact = features(name, Precision::F32, &images, last);
        for (precision, cosine, difference) in
            [(Precision::F16, 1.0 - 2e-6, 2e-3), (Precision::Bf16, 0.9999, 2e-2)]
        {
            for (exact, half) in exact.iter().zip(features(name, precision, &images, last)) {
                let apart = apart(exact, &half);
                assert!(
                    apart.0 >= cosine && apart.1 <= difference && apart.1 > 0.0,
                    "{name} {precision}: {apart:?}"
                );
            }
        }
    }
}

#[test]
fn facets_are_read_in_half_precision_too() {
    let images = images(1, 48);
    for name in ["random:vit_micro_patch8:0", "random:dinov3_micro_patch16:0"] {
        for facet in [Facet::Query, Facet::Key, Facet::Value] {
            let layer = Layer { block: 2, facet };
            let exact = features(name, Precision::F32, &images, layer);
            for (exact, half) in exact.iter().zip(features(name, Precision::F16, &images, layer)) {
                let apart = apart(exact, &half);
                assert!(apart.0 > 0.99999 && apart.1 < 4e-3, "{name} {facet}: {apart:?}");
            }
        }
    }
}

#[test]
fn attention_in_half_precision_still_sums_to_one() {
    let images = images(1, 48);
    let attention =
        |precision| loaded("random:vit_micro_patch8:0", precision).backbone.attention(&images, -1).unwrap();
    let (exact, half) = (attention(Precision::F32), attention(Precision::F16));
    assert_eq!(half.dims(), exact.dims());
    let half = rows(&half);
    assert!(half.iter().all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
    let exact = rows(&exact);
    assert!(exact.iter().flatten().zip(half.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-3));
}

/// The tokens of an image are the same bits whatever else is in the batch, on the CPU.
#[test]
fn a_batch_in_half_precision_is_its_images() {
    let three = images(3, 32);
    for name in
        ["random:vit_micro_patch8:0", "random:dinov2_reg4_micro_patch14:0", "random:dinov3_micro_patch16:0"]
    {
        let three = if name.contains("patch14") {
            three.narrow(2, 0, 28).unwrap().narrow(3, 0, 28).unwrap().contiguous().unwrap()
        } else {
            three.clone()
        };
        let loaded = loaded(name, Precision::F16);
        let patches = |images: &Tensor| {
            rows(&loaded.backbone.forward_features(images, Layer::default()).unwrap().patches)
        };
        let together = patches(&three);
        let alone: Vec<_> = (0..3).flat_map(|i| patches(&three.narrow(0, i, 1).unwrap())).collect();
        assert_eq!(together, alone, "{name}");
    }
}

#[test]
fn the_architecture_says_the_precision_and_f32_is_as_before() {
    let name =
        |precision| loaded("random:dinov3_micro_patch16:1", precision).backbone.spec().architecture.clone();
    assert_eq!(name(Precision::F32), "dinov3_micro_patch16");
    assert_eq!(name(Precision::F16), "dinov3_micro_patch16_f16");
    assert_eq!(name(Precision::Bf16), "dinov3_micro_patch16_bf16");
    for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
        assert_eq!(Precision::of_architecture(&name(precision)), precision);
    }
    let fingerprint = |precision| loaded("random:dinov3_micro_patch16:1", precision).fingerprint;
    assert_eq!(fingerprint(Precision::F16), fingerprint(Precision::F32));
}
