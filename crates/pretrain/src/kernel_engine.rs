//! The processor's engine: hand-written passes forwards and backwards over flat vectors.
//!
//! Its numbers are the same bits for any number of threads, and its buffers live from step to step.

use crate::Result;
use crate::config::DinoConfig;
use crate::dino::DinoState;
use crate::drop_path::{Branch, Drops};
use crate::engine::{Engine, Part, TeacherSeen};
use crate::loss::{LossShape, student_loss, teacher_targets};
use crate::network::{Network, Stack, Workspace};

/// Buffers of the passes.
#[derive(Debug, Default)]
pub(crate) struct KernelEngine {
    student: Workspace,
    teacher: Workspace,
    global: Stack,
    local: Stack,
    student_logits: Vec<f32>,
    teacher_logits: Vec<f32>,
    losses: Vec<f32>,
    entropies: Vec<f32>,
}

impl Engine for KernelEngine {
    fn device(&self) -> String {
        "cpu".into()
    }

    fn part(&self, config: &DinoConfig) -> usize {
        config.cache_sized_part()
    }

    fn begin(&mut self, network: &Network, state: &DinoState) -> Result<()> {
        network.head.prepare(&state.student, &mut self.student.head);
        network.head.prepare(&state.teacher, &mut self.teacher.head);
        Ok(())
    }

    fn teacher(
        &mut self,
        network: &Network,
        state: &mut DinoState,
        part: Part<'_>,
        temperature: f64,
        seen: &mut TeacherSeen,
    ) -> Result<()> {
        self.global.fill(part.images, 0..2);
        let (no_drop, logits) = (|_, _| [Branch::new(), Branch::new()], &mut self.teacher_logits);
        let buffers = &mut state.teacher_buffers;
        network.forward(&state.teacher, buffers, &[&self.global], no_drop, &mut self.teacher, logits);
        seen.readouts.extend_from_slice(network.cls(&self.teacher));
        state.center.observe(logits);
        teacher_targets(logits, &state.center.values, temperature, &mut self.entropies);
        seen.sums.add(logits, &self.entropies);
        Ok(())
    }

    fn student(
        &mut self,
        network: &Network,
        state: &mut DinoState,
        part: Part<'_>,
        grads: &mut [f32],
    ) -> Result<f64> {
        let Part { config, images, .. } = part;
        self.local.fill(images, 2..config.views.count());
        let stacks =
            if config.views.locals > 0 { vec![&self.global, &self.local] } else { vec![&self.global] };
        let drops = Drops::draw(&part, network.vit.config().depth);
        let logits = &mut self.student_logits;
        let buffers = &mut state.student_buffers;
        let drop = |group, block| drops.of(group, block);
        network.forward(&state.student, buffers, &stacks, drop, &mut self.student, logits);
        let shape = LossShape {
            images: images.len(),
            views: config.views.count(),
            batch: part.batch,
            temperature: config.loss.student_temp,
        };
        let loss = student_loss(logits, &self.teacher_logits, shape, &mut self.losses);
        network.backward(&state.student, grads, &stacks, logits, &mut self.student);
        Ok(loss)
    }

    fn finish(&mut self, network: &Network, state: &DinoState, grads: &mut [f32]) -> Result<()> {
        network.head.finish(&state.student, grads, &self.student.head);
        Ok(())
    }
}
