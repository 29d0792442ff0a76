//! Who computes a step's passes through the networks: the kernels of the processor, or candle on a device.
//!
//! `Dino::step` says what a step is; an engine does the work between parameters and gradients. Parameters, gradients and
//! everything that outlives a step are vectors of the host, so that optimiser, average and checkpoints are the same for all.

use std::fmt::Debug;

use crate::Result;
use crate::config::DinoConfig;
use crate::dino::DinoState;
use crate::network::Network;
use crate::signs::TargetSums;
use crate::training::Views;

/// Some images of a batch, on their way through the networks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) config: &'a DinoConfig,
    /// The views of its images.
    pub(crate) images: &'a [Views],
    /// Number of its first image in the batch.
    pub(crate) first: usize,
    /// Images of the whole batch.
    pub(crate) batch: usize,
    /// Number of the step.
    pub(crate) step: usize,
}

/// What a step sees of the teacher.
#[derive(Debug)]
pub(crate) struct TeacherSeen {
    pub(crate) sums: TargetSums,
    /// What its head reads, `[2 · images, d]`.
    pub(crate) readouts: Vec<f32>,
}

/// A step's passes. The calls of a step: `begin`, then for each part `teacher` and `student`, then `finish`.
pub(crate) trait Engine: Debug + Send {
    /// Where it computes: `cpu`, `cuda:0` and the like.
    fn device(&self) -> String;

    /// Images that go through the networks at a time, if the configuration leaves it open.
    fn part(&self, config: &DinoConfig) -> usize;

    /// Takes over the parameters of a step.
    fn begin(&mut self, network: &Network, state: &DinoState) -> Result<()>;

    /// The teacher's targets for the global views of a part, which [`Engine::student`] meets next. The centre observes
    /// the logits.
    fn teacher(
        &mut self,
        network: &Network,
        state: &mut DinoState,
        part: Part<'_>,
        temperature: f64,
        seen: &mut TeacherSeen,
    ) -> Result<()>;

    /// The student on all views of a part, there and back; returns its share of the loss.
    fn student(
        &mut self,
        network: &Network,
        state: &mut DinoState,
        part: Part<'_>,
        grads: &mut [f32],
    ) -> Result<f64>;

    /// Adds what is still missing in the gradients.
    fn finish(&mut self, network: &Network, state: &DinoState, grads: &mut [f32]) -> Result<()>;
}
