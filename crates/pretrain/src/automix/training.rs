//! AutoMix behind the traits of all methods: what it reports, predicts and shows, what it stores, and its checkpoint in the original's
//! layout.

use ndarray::{Array2, Array3};

use super::dice::Dice;
use super::mask::blend;
use super::{AutoMix, AutoMixConfig, AutoMixState, decays};
use crate::Result;
use crate::batch_norm::Mode;
use crate::classifier::{Classifier, Head};
use crate::drop_path::Drops;
use crate::mix_policies::mix_images;
use crate::network::BACKBONE;
use crate::optim::StepSize;
use crate::params::Layout;
use crate::torch_checkpoint::{dict, int, optimizer, tensors, text};
use crate::torch_file::TorchValue;
use crate::training::{Batch, Exported, MixedSample, Notes, Plan, Recipe as _, Report, Training, Views};
use crate::weights::Weights;

/// Names of what a step reports.
const COLUMNS: [&str; 12] = [
    "loss_one",
    "loss_mix",
    "loss_generate",
    "loss_mask",
    "lambda_block",
    "mask_mean",
    "mask_deviation",
    "lambda",
    "momentum",
    "grad_norm",
    "block_grad_norm",
    "lr",
];

impl Training for AutoMix {
    fn plan(&self) -> Plan {
        Plan {
            method: AutoMixConfig::METHOD,
            steps: self.schedules.lr.len(),
            steps_per_epoch: self.schedules.steps_per_epoch,
            part: self.config.train.batch_size,
            uniform_loss: ("ln C", (self.classifier.classes as f64).ln()),
        }
    }

    fn step_number(&self) -> usize {
        self.state.step
    }

    fn step(&mut self, batch: Batch<'_>) -> Result<Report> {
        Self::step(self, batch.views, batch.classes)
    }

    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }

    fn summary(&self, mean: &dyn Fn(&str) -> f64) -> String {
        match self.block {
            Some(_) => format!(
                "one {:.3} · mix {:.3} · generate {:.3} · mask {:.3} ± {:.3}",
                mean("loss_one"),
                mean("loss_mix"),
                mean("loss_generate"),
                mean("mask_mean"),
                mean("mask_deviation")
            ),
            None => format!("mix {:.3}", mean("loss_mix")),
        }
    }

    fn warning(&mut self, _report: &Report) -> Option<String> {
        None
    }

    fn predict(&mut self, views: &[Views]) -> Vec<(&'static str, Vec<u32>)> {
        self.stack.fill(views, 0..1);
        let none = Drops::of_images(0.0, self.classifier.trunk.depth(), 0, 0, 1, 0..views.len());
        let Self { classifier, state, stack, pass, .. } = self;
        let AutoMixState { query, key, query_buffers, key_buffers, .. } = state;
        let mut predict = |params: &[f32], buffers: &mut [f32], head: Head| {
            let mut weights = Weights { params, buffers, mode: Mode::Eval };
            classifier.forward(&mut weights, (&stack.pixels, stack.side), &none, None, head, pass);
            pass.predictions(classifier.classes)
        };
        let mut heads = vec![("one_q", predict(query, query_buffers, Head::One))];
        if !key.is_empty() {
            heads.push(("mix_q", predict(query, query_buffers, Head::Mix)));
            heads.push(("one_k", predict(key, key_buffers, Head::One)));
            heads.push(("mix_k", predict(key, key_buffers, Head::Mix)));
        }
        heads
    }

    /// Running statistics are left as they were: looking changes nothing.
    fn mixed(&mut self, views: &[Views]) -> Vec<MixedSample> {
        let statistics = self.state.key_buffers.clone();
        self.stack.fill(views, 0..1);
        let mut dice = Dice::throw(&self.config, 1, 0, views.len());
        // Each with its neighbour, so that pairs are different images.
        let partners: Vec<usize> = (0..views.len()).map(|i| (i + 1) % views.len()).collect();
        (dice.lambdas, dice.partners) = ([0.5; 2], [partners.clone(), partners.clone()]);
        self.make_masks(&dice);
        self.state.key_buffers = statistics;
        let Self { config, block, stack, mixed, .. } = self;
        let (side, mut lambda) = (stack.side, dice.lambdas[1]);
        let plane = side * side;
        match block {
            Some(generator) => blend(&stack.pixels, side, &partners, generator.constant.mask(), mixed),
            None => {
                let rng = &mut dice.rng;
                lambda = mix_images(config.mix.policy, &stack.pixels, side, &partners, lambda, rng, mixed);
            }
        }
        let image = |pixels: &[f32], i: usize| {
            let own = pixels[i * 3 * plane..][..3 * plane].to_vec();
            Array3::from_shape_vec((3, side, side), own).expect("three planes")
        };
        let mask = |i: usize| {
            let own = block.as_ref()?.constant.mask()[i * plane..][..plane].iter().map(|m| 1.0 - m).collect();
            Array2::from_shape_vec((side, side), own).ok()
        };
        (0..views.len())
            .map(|i| MixedSample {
                image: image(&stack.pixels, i),
                partner: image(&stack.pixels, partners[i]),
                mixed: image(mixed, i),
                mask: mask(i),
                lambda,
            })
            .collect()
    }

    fn layout(&self) -> &Layout {
        &self.classifier.layout
    }

    fn vectors(&self) -> Vec<(&'static str, &Vec<f32>)> {
        let AutoMixState {
            query, key, query_buffers, key_buffers, block, optimizer, block_optimizer, ..
        } = &self.state;
        vec![
            ("query", query),
            ("key", key),
            ("query_buffers", query_buffers),
            ("key_buffers", key_buffers),
            ("block", block),
            ("first_moments", &optimizer.first),
            ("second_moments", &optimizer.second),
            ("block_first_moments", &block_optimizer.first),
            ("block_second_moments", &block_optimizer.second),
        ]
    }

    fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        let AutoMixState {
            query, key, query_buffers, key_buffers, block, optimizer, block_optimizer, ..
        } = &mut self.state;
        vec![
            ("query", query),
            ("key", key),
            ("query_buffers", query_buffers),
            ("key_buffers", key_buffers),
            ("block", block),
            ("first_moments", &mut optimizer.first),
            ("second_moments", &mut optimizer.second),
            ("block_first_moments", &mut block_optimizer.first),
            ("block_second_moments", &mut block_optimizer.second),
        ]
    }

    fn counts(&self) -> Vec<(&'static str, Vec<u64>)> {
        vec![
            ("optimizer_steps", self.state.optimizer.steps.clone()),
            ("block_optimizer_steps", self.state.block_optimizer.steps.clone()),
        ]
    }

    fn set_counts(&mut self, step: usize, counts: Vec<(&'static str, Vec<u64>)>) {
        self.state.step = step;
        for (name, steps) in counts {
            match name {
                "optimizer_steps" => self.state.optimizer.set_steps(steps),
                _ => self.state.block_optimizer.set_steps(steps),
            }
        }
    }

    /// The momentum encoder, which is what is used afterwards; of hand-made mixes the only one.
    fn exported(&self) -> Exported<'_> {
        let Classifier { layout, buffers, trunk, .. } = &self.classifier;
        let [parameters, statistics] = self.used();
        let network = if self.state.key.is_empty() { "encoder" } else { "momentum encoder" };
        trunk.exported(network, (layout, parameters), (buffers, statistics))
    }

    /// `state_dict` with the original's prefixes (`backbone_q.`, `backbone_k.`, `backbone.` again for the one that is used,
    /// `head_one_q.`, …, `mix_block.`), `optimizer`, `meta` with the epoch (the next one), and `args` with our sizes.
    fn checkpoint(&self, notes: &Notes) -> TorchValue<'_> {
        let AutoMixState { step, query, key, query_buffers, key_buffers, block, .. } = &self.state;
        let (layout, buffers) = (&self.classifier.layout, &self.classifier.buffers);
        let named = |suffix: &'static str| {
            move |name: &str| {
                let (part, rest) = name.split_once('.').unwrap_or((name, ""));
                format!("{part}_{suffix}.{rest}")
            }
        };
        let mut entries = tensors(&[(layout, query), (buffers, query_buffers)], named("q"));
        if !key.is_empty() {
            entries.extend(tensors(&[(layout, key), (buffers, key_buffers)], named("k")));
        }
        let [parameters, statistics] = self.used();
        let used = tensors(&[(layout, parameters), (buffers, statistics)], str::to_owned);
        entries.extend(used.into_iter().filter(|(name, _)| name.starts_with(BACKBONE)));
        if let Some(generator) = &self.block {
            entries.extend(tensors(&[(&generator.layout, block)], str::to_owned));
        }
        let weight_decay = self.config.optimizer.weight_decay;
        let lr = self.schedules.lr[step.saturating_sub(1)];
        let group = |decaying: bool| {
            let tensors =
                layout.tensors().iter().enumerate().filter(|(_, tensor)| decays(tensor) == decaying);
            let weight_decay = if decaying { weight_decay } else { 0.0 };
            (tensors.map(|(place, _)| place).collect(), StepSize { lr, weight_decay })
        };
        let mut args = self.classifier.trunk.arguments();
        args.push(("data_path", text(&notes.data)));
        dict([
            ("state_dict", TorchValue::OrderedDict(entries)),
            ("optimizer", optimizer(layout, &self.state.optimizer, &[group(true), group(false)])),
            ("meta", dict([("epoch", int(step / self.schedules.steps_per_epoch))])),
            ("args", dict(args)),
        ])
    }
}
