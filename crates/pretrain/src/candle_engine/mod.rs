//! A device's engine: the passes in candle, gradients by its tape, matrix products in 16 bits if asked.
//!
//! At each step both networks' parameters go to the device and the student's gradients come back: 12 bytes per parameter (528 MB
//! for a ViT-S with DINO's published head, 44 million parameters; 21 ms at a PCIe 4 link's 25 GB/s, which nobody has measured
//! here), and the views go there too (134 MB for 64 images of 10). Optimiser and averages stay on the host, where they are
//! the same code for every engine. Whatever is as wide as K stays on the device, save for sums over rows.

mod net;

use candle_core::{D, DType, Device, DeviceLocation, Tensor, Var};

use crate::Result;
use crate::config::{DinoConfig, Precision};
use crate::dino::DinoState;
use crate::drop_path::{Branch, Drops};
use crate::engine::{Engine, Part, TeacherSeen};
use crate::network::{Network, Stack};
use crate::params::Layout;
use net::{Net, Tensors, log_softmax};

/// A device and what lies there during a step.
#[derive(Debug)]
pub(crate) struct CandleEngine {
    device: Device,
    precision: Precision,
    global: Stack,
    local: Stack,
    student: Vec<Var>, // in the order of the layout
    teacher: Tensors,
    sums: Vec<Option<Tensor>>, // the student's gradients so far
    targets: Option<Tensor>,   // [2 · images, K]
}

impl CandleEngine {
    pub(crate) fn new(device: &Device, precision: Precision) -> Self {
        Self {
            device: device.clone(),
            precision,
            global: Stack::default(),
            local: Stack::default(),
            student: Vec::new(),
            teacher: Tensors::default(),
            sums: Vec::new(),
            targets: None,
        }
    }

    /// The tensors of a vector of all parameters.
    fn upload(&self, layout: &Layout, values: &[f32]) -> Result<Vec<Tensor>> {
        let all = Tensor::from_slice(values, values.len(), &self.device)?;
        let part = |range: std::ops::Range<usize>, shape: &[usize]| {
            all.narrow(0, range.start, range.len())?.reshape(shape)
        };
        let tensors = layout.tensors().iter().map(|tensor| part(tensor.slot.range(), &tensor.shape));
        Ok(tensors.collect::<candle_core::Result<_>>()?)
    }

    fn images(&self, stack: &Stack) -> Result<Tensor> {
        Ok(Tensor::from_slice(&stack.pixels, (stack.rows, 3, stack.side, stack.side), &self.device)?)
    }
}

impl Engine for CandleEngine {
    fn device(&self) -> String {
        match self.device.location() {
            DeviceLocation::Cpu => "candle on the cpu".into(),
            DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
        }
    }

    fn part(&self, config: &DinoConfig) -> usize {
        config.train.batch_size
    }

    fn begin(&mut self, network: &Network, state: &DinoState) -> Result<()> {
        let layout = &network.layout;
        self.teacher = Tensors::named(layout, self.upload(layout, &state.teacher)?);
        let student = self.upload(layout, &state.student)?;
        self.student = student.iter().map(Var::from_tensor).collect::<candle_core::Result<_>>()?;
        self.sums = vec![None; self.student.len()];
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
        let images = [self.images(&self.global)?];
        let net = Net::new(network, &self.teacher, self.precision);
        let outputs = net.forward(&images, |_, _| [Branch::new(), Branch::new()])?;
        outputs.follow(network, &mut state.teacher_buffers)?;
        seen.readouts.extend(host(&outputs.readouts)?);
        let rows = outputs.logits.dim(0)?;
        state.center.observe_sums(&host(&outputs.logits.sum(0)?)?, rows);
        let center = Tensor::from_slice(&state.center.values, (1, state.center.values.len()), &self.device)?;
        let log_targets = log_softmax(&(outputs.logits.broadcast_sub(&center)? * (1.0 / temperature))?)?;
        let targets = log_targets.exp()?;
        let entropy = -total(&(&targets * &log_targets)?.sum(D::Minus1)?)?;
        let tops = targets.argmax(D::Minus1)?.to_vec1::<u32>()?;
        seen.sums.add_sums(&host(&targets.sum(0)?)?, &tops, entropy);
        self.targets = Some(targets);
        Ok(())
    }

    fn student(
        &mut self,
        network: &Network,
        state: &mut DinoState,
        part: Part<'_>,
        _grads: &mut [f32],
    ) -> Result<f64> {
        let (images, views) = (part.images.len(), part.config.views.count());
        self.local.fill(part.images, 2..views);
        let mut stacks = vec![self.images(&self.global)?];
        if part.config.views.locals > 0 {
            stacks.push(self.images(&self.local)?);
        }
        let drops = Drops::draw(&part, network.vit.config().depth);
        let student = self.student.iter().map(|var| var.as_tensor().clone());
        let student = Tensors::named(&network.layout, student);
        let net = Net::new(network, &student, self.precision);
        let outputs = net.forward(&stacks, |group, block| drops.of(group, block))?;
        outputs.follow(network, &mut state.student_buffers)?;
        let log_student = log_softmax(&(outputs.logits * (1.0 / part.config.loss.student_temp))?)?;
        let targets = self.targets.take().ok_or_else(|| candle_core::Error::msg("no targets"))?;
        let k = log_student.dim(1)?;
        let log_student = log_student.reshape((views, images, k))?;
        let targets = targets.reshape((2, images, k))?;
        // A global view does not predict itself: target q meets all views but view q.
        let others = log_student.sum_keepdim(0)?.broadcast_sub(&log_student.narrow(0, 0, 2)?)?;
        let share = 1.0 / (2 * (views - 1) * part.batch) as f64;
        let rows = (targets * others)?.sum(D::Minus1)?; // [2, images]
        let grads = (rows.sum_all()? * -share)?.backward()?;
        for (sum, var) in self.sums.iter_mut().zip(&self.student) {
            if let Some(grad) = grads.get(var.as_tensor()) {
                let grad = grad.detach(); // It may hold on to what it was computed from.
                *sum = Some(match sum.take() {
                    Some(sum) => (sum + grad)?,
                    None => grad,
                });
            }
        }
        Ok(-share * total(&rows)?)
    }

    fn finish(&mut self, network: &Network, _state: &DinoState, grads: &mut [f32]) -> Result<()> {
        let fixed = network.head.config().norm_last_layer;
        for (tensor, sum) in network.layout.tensors().iter().zip(self.sums.drain(..)) {
            let is_fixed = fixed && tensor.name.ends_with("last_layer.weight_g");
            if let (Some(sum), false) = (sum, is_fixed) {
                let values = host(&sum)?;
                tensor.slot.of_mut(grads).iter_mut().zip(values).for_each(|(grad, more)| *grad += more);
            }
        }
        self.student.clear();
        self.teacher = Tensors::default();
        Ok(())
    }
}

/// All numbers of a tensor.
fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_dtype(DType::F32)?.to_vec1()?)
}

/// Their sum, in double precision: for sums over rows, where f32 has added up K numbers and is at its end.
fn total(tensor: &Tensor) -> Result<f64> {
    Ok(host(tensor)?.into_iter().map(f64::from).sum())
}

#[cfg(test)]
mod tests {
    use ndarray::Array3;

    use super::*;
    use crate::dino::Dino;
    use crate::signs::TargetSums;
    use crate::training::Views;

    /// What a gradient was computed from would stay on the device until the step's last part.
    #[test]
    fn sums_over_parts_hold_on_to_nothing() {
        let mut config = DinoConfig::default();
        config.backbone.arch = "vit_micro_patch8".into();
        (config.backbone.depth, config.backbone.table_size) = (Some(1), 16);
        (config.head.out_dim, config.head.hidden_dim, config.head.bottleneck_dim) = (8, 8, 4);
        (config.views.global_size, config.views.locals, config.train.batch_size) = (16, 0, 2);
        let dino = Dino::new(config.clone(), 2).unwrap();
        let (network, mut state) = (dino.network(), dino.state.clone());
        let views: Views = (0..2).map(|v| Array3::from_elem((3, 16, 16), v as f32)).collect();
        let mut seen = TeacherSeen { sums: TargetSums::new(8), readouts: Vec::new() };
        let mut engine = CandleEngine::new(&Device::Cpu, Precision::F32);
        engine.begin(network, &state).unwrap();
        for first in 0..2 {
            let images = std::slice::from_ref(&views);
            let part = Part { config: &config, images, first, batch: 2, step: 0 };
            engine.teacher(network, &mut state, part, 0.04, &mut seen).unwrap();
            engine.student(network, &mut state, part, &mut []).unwrap();
        }
        assert!(engine.sums.iter().flatten().count() > 10);
        assert!(!engine.sums.iter().flatten().any(Tensor::track_op));
    }
}
