//! DINO behind the traits of all methods: what it reports, what it stores, and its checkpoint in the original's layout.

use candle_core::Device;

use crate::Result;
use crate::config::{DinoConfig, TrainConfig};
use crate::dino::{Dino, DinoState, StepReport};
use crate::network::Network;
use crate::optim::{OptimizerKind, StepSize};
use crate::params::Layout;
use crate::signs::Signs;
use crate::torch_checkpoint::{dict, int, optimizer, state_dict, text, vit_arguments};
use crate::torch_file::TorchValue;
use crate::training::{
    Augment, Batch, DataShape, Exported, ExportedModel, Notes, Plan, Recipe, Report, Training, value,
};

/// Names of what a step reports.
const COLUMNS: [&str; 12] = [
    "teacher_entropy",
    "kl",
    "marginal_entropy",
    "information",
    "top_share",
    "feature_rank",
    "center_norm",
    "grad_norm",
    "lr",
    "weight_decay",
    "momentum",
    "teacher_temp",
];

impl Recipe for DinoConfig {
    const METHOD: &'static str = "dino";

    fn check(&self) -> Result<()> {
        Self::check(self)
    }

    fn train(&self) -> &TrainConfig {
        &self.train
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        &mut self.train
    }

    fn augment(&self) -> Augment {
        self.views.multi_crop().into()
    }

    fn granule(&self) -> Result<usize> {
        Ok(self.backbone.vit()?.patch_size)
    }

    fn start(&self, data: &DataShape, device: &Device) -> Result<Box<dyn Training>> {
        Ok(Box::new(match device {
            Device::Cpu => Dino::new(self.clone(), data.images)?,
            device => Dino::on_device(self.clone(), data.images, device)?,
        }))
    }
}

impl From<StepReport> for Report {
    fn from(report: StepReport) -> Self {
        let StepReport { step, epoch, loss, lr, weight_decay, momentum, teacher_temp, grad_norm, signs } =
            report;
        let values = vec![
            signs.teacher_entropy,
            signs.kl,
            signs.marginal_entropy,
            signs.information,
            signs.top_share,
            signs.feature_rank,
            signs.center_norm,
            grad_norm,
            lr,
            weight_decay,
            momentum,
            teacher_temp,
        ];
        Self { step, epoch, loss, values }
    }
}

/// The signs in a report.
fn signs(report: &Report) -> Signs {
    let of = |name: &str| value(&COLUMNS, report, name);
    Signs {
        teacher_entropy: of("teacher_entropy"),
        kl: of("kl"),
        marginal_entropy: of("marginal_entropy"),
        information: of("information"),
        top_share: of("top_share"),
        center_norm: of("center_norm"),
        feature_rank: of("feature_rank"),
    }
}

impl Training for Dino {
    fn plan(&self) -> Plan {
        Plan {
            method: DinoConfig::METHOD,
            steps: self.steps(),
            steps_per_epoch: self.steps_per_epoch(),
            part: self.part(),
            uniform_loss: ("ln K", (self.config().head.out_dim as f64).ln()),
        }
    }

    fn step_number(&self) -> usize {
        self.state.step
    }

    fn device(&self) -> String {
        Self::device(self)
    }

    fn step(&mut self, batch: Batch<'_>) -> Result<Report> {
        Ok(Self::step(self, batch.views)?.into())
    }

    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }

    fn summary(&self, mean: &dyn Fn(&str) -> f64) -> String {
        format!(
            "entropy {:.3} · KL {:.3} · information {:.3} · rank {:.1}",
            mean("teacher_entropy"),
            mean("kl"),
            mean("information"),
            mean("feature_rank")
        )
    }

    fn warning(&mut self, report: &Report) -> Option<String> {
        let warm = self.steps_per_epoch() * self.config().optimizer.warmup_epochs.max(1);
        let k = self.config().head.out_dim;
        self.watch.observe(&signs(report), k, report.step >= warm).map(|collapse| collapse.to_string())
    }

    fn layout(&self) -> &Layout {
        Self::layout(self)
    }

    fn vectors(&self) -> Vec<(&'static str, &Vec<f32>)> {
        let DinoState { student, teacher, student_buffers, teacher_buffers, optimizer, center, .. } =
            &self.state;
        vec![
            ("student", student),
            ("teacher", teacher),
            ("first_moments", &optimizer.first),
            ("second_moments", &optimizer.second),
            ("center", &center.values),
            ("student_buffers", student_buffers),
            ("teacher_buffers", teacher_buffers),
        ]
    }

    fn vectors_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        let DinoState { student, teacher, student_buffers, teacher_buffers, optimizer, center, .. } =
            &mut self.state;
        vec![
            ("student", student),
            ("teacher", teacher),
            ("first_moments", &mut optimizer.first),
            ("second_moments", &mut optimizer.second),
            ("center", &mut center.values),
            ("student_buffers", student_buffers),
            ("teacher_buffers", teacher_buffers),
        ]
    }

    fn counts(&self) -> Vec<(&'static str, Vec<u64>)> {
        vec![("optimizer_steps", self.state.optimizer.steps.clone())]
    }

    fn set_counts(&mut self, step: usize, counts: Vec<(&'static str, Vec<u64>)>) {
        self.state.step = step;
        for (_, steps) in counts {
            self.state.optimizer.set_steps(steps);
        }
    }

    fn exported(&self) -> Exported<'_> {
        let network = self.network();
        let DinoState { teacher, teacher_buffers, .. } = &self.state;
        Exported {
            network: "teacher",
            parts: [(&network.layout, teacher), (&network.buffers, teacher_buffers)],
            model: ExportedModel::Vit(network.vit.config()),
            readout: network.vit.readout().word(),
        }
    }

    /// The layout of DINO's training checkpoints: `student` (names with `module.`, as its data-parallel wrapper leaves
    /// them), `teacher` (so too with batch norm), `optimizer`, `epoch` (the next one), `args`, `dino_loss`.
    fn checkpoint(&self, notes: &Notes) -> TorchValue<'_> {
        let DinoState { student, teacher, student_buffers, teacher_buffers, center, .. } = &self.state;
        let Network { layout, buffers, .. } = self.network();
        let named = |prefix: &'static str| move |name: &str| format!("{prefix}{name}");
        let center = TorchValue::Tensor { shape: vec![1, center.values.len()], data: &center.values };
        // The original wraps its teacher too if there is batch norm to synchronise.
        let wrapper = if self.config().head.use_bn { "module." } else { "" };
        dict([
            ("student", state_dict(&[(layout, student), (buffers, student_buffers)], named("module."))),
            ("teacher", state_dict(&[(layout, teacher), (buffers, teacher_buffers)], named(wrapper))),
            ("optimizer", optimizer(layout, &self.state.optimizer, &groups(self))),
            ("epoch", int(self.state.step / self.steps_per_epoch())),
            ("args", args(self, notes)),
            ("dino_loss", TorchValue::OrderedDict(vec![("center".into(), center)])),
        ])
    }
}

/// Decayed tensors, then the others; frozen magnitudes are in none.
fn groups(dino: &Dino) -> Vec<(Vec<usize>, StepSize)> {
    let (lr, weight_decay) = dino.schedule_at(dino.state.step.saturating_sub(1));
    let group = |exempt: bool| {
        let tensors = dino.network().layout.tensors().iter().enumerate();
        let own = tensors.filter(|(_, tensor)| {
            let frozen = tensor.name.ends_with("weight_g") && dino.config().head.norm_last_layer;
            !frozen && tensor.is_exempt_from_decay() == exempt
        });
        let decay = if exempt { 0.0 } else { weight_decay };
        (own.map(|(place, _)| place).collect(), StepSize { lr, weight_decay: decay })
    };
    vec![group(false), group(true)]
}

/// The settings under the original's names, as a plain dictionary.
fn args<'a>(dino: &Dino, notes: &Notes) -> TorchValue<'a> {
    let config = dino.config();
    let float = TorchValue::Float;
    let (head, views, teacher) = (&config.head, &config.views, &config.teacher);
    let (optimizer, train) = (&config.optimizer, &config.train);
    let pair = |(a, b): (f64, f64)| TorchValue::List(vec![float(a), float(b)]);
    let vit = &dino.network().vit;
    let mut entries = vit_arguments(vit.config(), vit.readout().word());
    entries.extend([
        ("drop_path_rate", float(config.backbone.drop_path)),
        ("out_dim", int(head.out_dim)),
        ("hidden_dim", int(head.hidden_dim)),
        ("bottleneck_dim", int(head.bottleneck_dim)),
        ("nlayers", int(head.layers)),
        ("use_bn_in_head", TorchValue::Bool(head.use_bn)),
        ("norm_last_layer", TorchValue::Bool(head.norm_last_layer)),
        ("momentum_teacher", float(teacher.momentum)),
        ("warmup_teacher_temp", float(teacher.warmup_temp)),
        ("teacher_temp", float(teacher.temp)),
        ("warmup_teacher_temp_epochs", int(teacher.warmup_temp_epochs)),
        ("weight_decay", float(optimizer.weight_decay)),
        ("weight_decay_end", float(optimizer.weight_decay_end)),
        ("clip_grad", float(optimizer.clip_grad)),
        ("lr", float(optimizer.lr)),
        ("min_lr", float(optimizer.min_lr)),
        ("warmup_epochs", int(optimizer.warmup_epochs)),
        ("freeze_last_layer", int(optimizer.freeze_last_layer)),
        ("batch_size_per_gpu", int(train.batch_size)),
        ("epochs", int(train.epochs)),
        ("optimizer", text(optimizer_name(optimizer.kind))),
        ("use_fp16", TorchValue::Bool(false)),
        ("saveckp_freq", int(notes.keep_every_epochs)),
        ("data_path", text(&notes.data)),
        ("student_temp", float(config.loss.student_temp)),
        ("center_momentum", float(config.loss.center_momentum)),
        ("init_std", float(config.backbone.init_std)),
        ("seed", i64::try_from(train.seed).map_or_else(|_| text(&train.seed.to_string()), TorchValue::Int)),
        ("global_crops_size", int(views.global_size)),
        ("global_crops_scale", pair(views.global_scale)),
        ("local_crops_number", int(views.locals)),
        ("local_crops_size", int(views.local_size)),
        ("local_crops_scale", pair(views.local_scale)),
    ]);
    dict(entries)
}

fn optimizer_name(kind: OptimizerKind) -> &'static str {
    match kind {
        OptimizerKind::Adamw => "adamw",
        OptimizerKind::Sgd => "sgd",
        OptimizerKind::Lars => "lars",
        OptimizerKind::Larc => "larc",
    }
}
