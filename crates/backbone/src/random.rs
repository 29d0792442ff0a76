//! Seeded weights as a DINO training starts from, for demos and tests.
//!
//! Linear maps, class and register tokens and the position table are normal with deviation 0.02, cut off at ±2; their biases
//! are 0, layer norms the identity and layer scales 1 (a training of DINOv2 starts with tiny ones, under which blocks say
//! nothing). The patch projection keeps a convolution's default, uniform in `±1 / √(3 p²)`. A ResNet's convolutions are normal
//! with variance `2 / (outputs · k²)`, its batch norms the identity, their statistics 0 and 1. Every
//! tensor has a ChaCha8 stream of its own, keyed by the recipe and the tensor's name: the same on every platform, for
//! any order of filling and whatever else a model has.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::models::ModelConfig;

/// Raised when the same recipe starts to give other numbers.
const RECIPE_VERSION: u32 = 1;

/// Standard deviation of the weights, and where they are cut off.
const INIT_STD: f64 = 0.02;
const INIT_CUT: f64 = 2.0;

/// What determines the weights: version, architecture and seed, as text.
pub(crate) fn recipe(architecture: &str, seed: u64) -> String {
    format!("random weights v{RECIPE_VERSION}, {architecture}, seed {seed}")
}

/// The state dict of a recipe, in the original's names.
///
/// # Errors
/// [`Error::Tensor`](crate::Error::Tensor) if the device has no room for it.
pub(crate) fn weights(
    config: &ModelConfig,
    recipe: &str,
    device: &Device,
) -> Result<HashMap<String, Tensor>> {
    let tensors = config.tensors().into_iter().map(|(name, shape)| {
        let values = fill(&name, &shape, config, recipe);
        Ok((name, Tensor::from_vec(values, shape, device)?))
    });
    tensors.collect()
}

/// The values of one tensor, row-major.
fn fill(name: &str, shape: &[usize], config: &ModelConfig, recipe: &str) -> Vec<f32> {
    let n = shape.iter().product();
    let rng = ChaCha8Rng::from_seed(Sha256::digest(format!("{recipe}, {name}")).into());
    let Some(vit) = config.vit() else { return fill_convolutional(name, shape, rng) };
    let patch_size = vit.patch_size;
    let bound = 1.0 / ((3 * patch_size * patch_size) as f64).sqrt();
    if name.starts_with("patch_embed.") {
        draw(rng, n, Uniform::new(-bound, bound).expect("the bound is finite and positive"))
    } else if name.contains("norm") {
        vec![if name.ends_with("weight") { 1.0 } else { 0.0 }; n]
    } else if name.ends_with("bias") {
        vec![0.0; n]
    } else if name.ends_with("gamma") {
        vec![1.0; n]
    } else {
        draw(rng, n, Normal::new(0.0, INIT_STD).expect("the deviation is finite"))
    }
}

/// The values of one tensor of a ResNet.
fn fill_convolutional(name: &str, shape: &[usize], rng: impl Rng) -> Vec<f32> {
    let n = shape.iter().product();
    match shape {
        &[outputs, _, k, _] => {
            let std = (2.0 / (outputs * k * k) as f64).sqrt();
            draw(rng, n, Normal::new(0.0, std).expect("the deviation is finite"))
        }
        _ => vec![if name.ends_with("weight") || name.ends_with("var") { 1.0 } else { 0.0 }; n],
    }
}

/// `n` values within the cut, drawn in double precision and rounded once.
fn draw(rng: impl Rng, n: usize, distribution: impl Distribution<f64>) -> Vec<f32> {
    distribution
        .sample_iter(rng)
        .filter(|value| value.abs() <= INIT_CUT)
        .take(n)
        .map(|value| value as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micro() -> ModelConfig {
        ModelConfig::by_name("vit_micro_patch8").unwrap()
    }

    fn moments(values: &[f32]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        (mean, (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt())
    }

    #[test]
    fn weights_follow_the_recipe() {
        let config = micro();
        let values = |name: &str, shape: &[usize]| fill(name, shape, &config, "r");
        let (mean, std) = moments(&values("blocks.0.attn.qkv.weight", &[576, 192]));
        assert!(mean.abs() < 3e-4 && (std / INIT_STD - 1.0).abs() < 0.01, "{mean} {std}");
        let patch = values("patch_embed.proj.weight", &[192, 3, 8, 8]);
        let (mean, std) = moments(&patch);
        let bound = 1.0 / 192f64.sqrt();
        assert!(mean.abs() < 1e-3 && (std * 3f64.sqrt() / bound - 1.0).abs() < 0.02, "{mean} {std}");
        assert!(patch.iter().all(|v| f64::from(v.abs()) <= bound + 1e-9));
        assert!(values("patch_embed.proj.bias", &[192]).iter().all(|&v| v != 0.0));
        assert_eq!(values("blocks.0.mlp.fc1.bias", &[768]), vec![0.0; 768]);
        assert_eq!(values("blocks.0.norm1.weight", &[192]), vec![1.0; 192]);
        assert_eq!(values("norm.bias", &[192]), vec![0.0; 192]);
        assert_eq!(values("blocks.0.ls1.gamma", &[192]), vec![1.0; 192]);
        let (mean, std) = moments(&values("register_tokens", &[1, 4, 192]));
        assert!(mean.abs() < 3e-3 && (std / INIT_STD - 1.0).abs() < 0.1, "{mean} {std}");
    }

    #[test]
    fn streams_depend_on_name_and_recipe() {
        let config = micro();
        let first = |name: &str, recipe: &str| fill(name, &[4], &config, recipe);
        assert_eq!(first("pos_embed", "a"), first("pos_embed", "a"));
        assert_ne!(first("pos_embed", "a"), first("cls_token", "a"));
        assert_ne!(first("pos_embed", "a"), first("pos_embed", "b"));
    }

    /// Features of random models are stored under their recipe: these numbers must never change.
    #[test]
    fn version_one_is_what_it_was() {
        let recipe = recipe("vit_micro_patch8", 0);
        assert_eq!(recipe, "random weights v1, vit_micro_patch8, seed 0");
        assert_eq!(fill("cls_token", &[3], &micro(), &recipe), [-0.008467766, -0.034408405, 0.014198879]);
        assert_eq!(
            fill("patch_embed.proj.bias", &[3], &micro(), &recipe),
            [0.038001962, 0.06800066, -0.050850023]
        );
    }
}
