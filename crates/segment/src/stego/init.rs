//! The default initialisation of a PyTorch convolution, and the random streams of a training.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Uniform};

/// What random numbers are for. Each purpose has a stream of its own, so that one does not move the others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    /// Weights of the head.
    Head,
    /// Weights of the decoder.
    Decoder,
    /// Weights of the linear probe; the number counts how often they are made anew.
    Linear(u64),
    /// Centres of the cluster probe.
    Cluster(u64),
    /// Masks, points and negatives of a step.
    Step(u64),
    /// Order of the images in an epoch.
    Order(u64),
    /// Which neighbours are a step's positives.
    Positives(u64),
    /// Augmented views and pixels of a step.
    Terms(u64),
}

impl Stream {
    /// The stream of a seed.
    pub(super) fn rng(self, seed: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (purpose, count) = match self {
            Self::Head => (0, 0),
            Self::Decoder => (1, 0),
            Self::Linear(draw) => (2, draw),
            Self::Cluster(draw) => (3, draw),
            Self::Step(step) => (4, step),
            Self::Order(epoch) => (5, epoch),
            Self::Positives(step) => (6, step),
            Self::Terms(step) => (7, step),
        };
        rng.set_stream((purpose << 48) + count);
        rng
    }
}

/// Fills weights or biases of a layer with `inputs` inputs, uniform in `±1/√inputs` (Kaiming-uniform with `a = √5`).
pub(super) fn convolution(values: &mut [f32], inputs: usize, rng: &mut ChaCha8Rng) {
    let bound = 1.0 / (inputs as f32).sqrt();
    let uniform = Uniform::new(-bound, bound).expect("the bound is positive and finite");
    values.iter_mut().for_each(|value| *value = uniform.sample(rng));
}
