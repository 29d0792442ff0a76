//! The weights that a training starts from.
//!
//! Linear maps, class token and position table are normal with deviation `std`, cut off at ±2, and their biases 0; norms are the
//! identity. The patch projection keeps a convolution's default, uniform in `±1 / √(3 p²)`, and so do the directions
//! of the head's last layer, uniform in `±1 / √bottleneck`; their magnitudes are 1. SwAV's head and prototypes keep PyTorch's
//! default too, weights and biases uniform in `±1 / √inputs`. A ResNet's convolutions are normal with variance
//! `2 / (outputs · k²)`. Every tensor has a random stream of its own, keyed by
//! seed and name.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};
use sha2::{Digest, Sha256};

use crate::params::{Layout, TensorSpec};

/// Raised when the same seed starts to give other numbers.
const RECIPE_VERSION: u32 = 1;

/// Where the normal distribution is cut off.
const CUT: f64 = 2.0;

/// What the tensors are drawn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Init {
    /// Seed of all streams.
    pub(crate) seed: u64,
    /// Deviation of the normal weights; DINO's is 0.02.
    pub(crate) std: f64,
    /// Side of a patch in pixels.
    pub(crate) patch_size: usize,
}

impl Init {
    /// A vector of all parameters.
    pub(crate) fn parameters(&self, layout: &Layout) -> Vec<f32> {
        let mut all = vec![0.0; layout.len()];
        let mut inputs = 0; // of the last linear map: those of its bias
        for tensor in layout.tensors() {
            inputs = if tensor.shape.len() == 2 { tensor.shape[1] } else { inputs };
            self.fill(tensor, inputs, tensor.slot.of_mut(&mut all));
        }
        all
    }

    fn fill(&self, tensor: &TensorSpec, inputs: usize, values: &mut [f32]) {
        let TensorSpec { name, shape, .. } = tensor;
        let key = format!("pretraining weights v{RECIPE_VERSION}, seed {}, {name}", self.seed);
        let rng = ChaCha8Rng::from_seed(Sha256::digest(key).into());
        let is_norm = shape.len() == 1 && name.ends_with("weight");
        if name.ends_with("weight_g") || is_norm {
            values.fill(1.0);
        } else if name.starts_with("prototypes.") || is_projection(name) {
            draw(rng, values, uniform(inputs));
        } else if name.contains("patch_embed.") {
            draw(rng, values, uniform(3 * self.patch_size * self.patch_size));
        } else if let (&[outputs, _, k, _], true) = (shape.as_slice(), name.starts_with("backbone.")) {
            let std = (2.0 / (outputs * k * k) as f64).sqrt();
            draw(rng, values, Normal::new(0.0, std).expect("the deviation is finite"));
        } else if name.ends_with("weight_v") {
            draw(rng, values, uniform(shape[1]));
        } else if !name.ends_with("bias") {
            draw(rng, values, Normal::new(0.0, self.std).expect("the deviation was checked to be finite"));
        }
    }
}

/// Running statistics of batch norms: mean 0, variance 1.
pub(crate) fn buffers(layout: &Layout) -> Vec<f32> {
    let mut all = vec![0.0; layout.len()];
    for tensor in layout.tensors().iter().filter(|tensor| tensor.name.ends_with("running_var")) {
        tensor.slot.of_mut(&mut all).fill(1.0);
    }
    all
}

/// A linear map of SwAV's head; its batch norm is `projection_head.1`.
fn is_projection(name: &str) -> bool {
    name.starts_with("projection_head.") && !name.starts_with("projection_head.1.")
}

fn uniform(inputs: usize) -> Uniform<f64> {
    let bound = 1.0 / (inputs as f64).sqrt();
    Uniform::new(-bound, bound).expect("the bound is finite and positive")
}

/// Values within the cut, drawn in double precision and rounded once.
fn draw(mut rng: impl Rng, values: &mut [f32], distribution: impl Distribution<f64>) {
    for value in values {
        *value = loop {
            let drawn = distribution.sample(&mut rng);
            if drawn.abs() <= CUT {
                break drawn as f32;
            }
        };
    }
}
