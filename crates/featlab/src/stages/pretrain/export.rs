//! What leaves a run: the original's checkpoint, and the backbone alone with its provenance.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use backbone::VitConfig;
use pretrain::{
    Dino, Layout, OptimizerKind, Readout, RunIdentity, TensorSpec, TorchValue, save_backbone, write_torch,
};

use crate::pretrain_config::PretrainConfig;
use crate::toml_file::TomlFile as _;

/// Writes the layout of DINO's training checkpoints: `student` (names with `module.`, as its data-parallel wrapper leaves
/// them), `teacher` (so too with batch norm), `optimizer`, `epoch` (the next one), `args`, `dino_loss`.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn official(path: &Path, dino: &Dino, config: &PretrainConfig) -> Result<()> {
    let state = &dino.state;
    let counts: Vec<f32> = state.optimizer.steps().iter().map(|&steps| steps as f32).collect();
    let center = TorchValue::Tensor { shape: vec![1, state.center.values.len()], data: &state.center.values };
    let text = |text: &str| TorchValue::Text(text.to_owned());
    // The original wraps its teacher too if there is batch norm to synchronise.
    let wrapper = if config.head.use_bn { "module." } else { "" };
    let entries = vec![
        (text("student"), state_dict(dino, "module.", &state.student, &state.student_buffers)),
        (text("teacher"), state_dict(dino, wrapper, &state.teacher, &state.teacher_buffers)),
        (text("optimizer"), optimizer(dino, &counts)),
        (text("epoch"), TorchValue::Int((state.step / dino.steps_per_epoch()) as i64)),
        (text("args"), args(dino, config)),
        (text("dino_loss"), TorchValue::OrderedDict(vec![("center".into(), center)])),
    ];
    Ok(write_torch(path, &TorchValue::Dict(entries))?)
}

fn state_dict<'a>(dino: &Dino, prefix: &str, values: &'a [f32], buffers: &'a [f32]) -> TorchValue<'a> {
    let entries = |layout: &Layout, values: &'a [f32]| -> Vec<(String, TorchValue<'a>)> {
        let entry = |tensor: &TensorSpec| {
            let data = tensor.slot.of(values);
            (format!("{prefix}{}", tensor.name), TorchValue::Tensor { shape: tensor.shape.clone(), data })
        };
        layout.tensors().iter().map(entry).collect()
    };
    let all = entries(dino.layout(), values).into_iter().chain(entries(&dino.network().buffers, buffers));
    TorchValue::OrderedDict(all.collect())
}

/// As PyTorch's optimisers load it: parameters are numbered through both groups, decayed ones first.
fn optimizer<'a>(dino: &'a Dino, counts: &'a [f32]) -> TorchValue<'a> {
    let (mut groups, mut states, mut number) = (Vec::new(), Vec::new(), 0);
    for exempt in [false, true] {
        let mut members = Vec::new();
        for (i, tensor) in dino.layout().tensors().iter().enumerate() {
            let frozen = tensor.name.ends_with("weight_g") && dino.config().head.norm_last_layer;
            if frozen || tensor.is_exempt_from_decay() != exempt {
                continue;
            }
            if counts[i] > 0.0 {
                states.push((TorchValue::Int(number), tensor_state(dino, tensor, &counts[i..=i])));
            }
            members.push(TorchValue::Int(number));
            number += 1;
        }
        groups.push(group(dino, exempt, members));
    }
    let text = |text: &str| TorchValue::Text(text.to_owned());
    TorchValue::Dict(vec![
        (text("state"), TorchValue::Dict(states)),
        (text("param_groups"), TorchValue::List(groups)),
    ])
}

fn tensor_state<'a>(dino: &'a Dino, tensor: &TensorSpec, count: &'a [f32]) -> TorchValue<'a> {
    let optimizer = &dino.state.optimizer;
    let of =
        |values: &'a [f32]| TorchValue::Tensor { shape: tensor.shape.clone(), data: tensor.slot.of(values) };
    let entries = match optimizer.kind() {
        OptimizerKind::Adamw => vec![
            ("step", TorchValue::Tensor { shape: vec![], data: count }),
            ("exp_avg", of(optimizer.first())),
            ("exp_avg_sq", of(optimizer.second())),
        ],
        OptimizerKind::Sgd => vec![("momentum_buffer", of(optimizer.first()))],
        OptimizerKind::Lars => vec![("mu", of(optimizer.first()))],
    };
    TorchValue::Dict(
        entries.into_iter().map(|(name, value)| (TorchValue::Text(name.into()), value)).collect(),
    )
}

fn group<'a>(dino: &Dino, exempt: bool, members: Vec<TorchValue<'a>>) -> TorchValue<'a> {
    let (lr, weight_decay) = dino.schedule_at(dino.state.step.saturating_sub(1));
    let list = |numbers: [f64; 2]| TorchValue::List(numbers.map(TorchValue::Float).to_vec());
    let mut entries = vec![
        ("lr", TorchValue::Float(lr)),
        ("weight_decay", TorchValue::Float(if exempt { 0.0 } else { weight_decay })),
    ];
    entries.extend(match dino.state.optimizer.kind() {
        OptimizerKind::Adamw => vec![
            ("betas", list([0.9, 0.999])),
            ("eps", TorchValue::Float(1e-8)),
            ("amsgrad", TorchValue::Bool(false)),
            ("maximize", TorchValue::Bool(false)),
        ],
        OptimizerKind::Sgd => vec![
            ("momentum", TorchValue::Float(0.9)),
            ("dampening", TorchValue::Int(0)),
            ("nesterov", TorchValue::Bool(false)),
            ("maximize", TorchValue::Bool(false)),
        ],
        OptimizerKind::Lars => vec![("momentum", TorchValue::Float(0.9))],
    });
    entries.push(("params", TorchValue::List(members)));
    TorchValue::Dict(
        entries.into_iter().map(|(name, value)| (TorchValue::Text(name.into()), value)).collect(),
    )
}

/// The settings under the original's names, as a plain dictionary.
fn args<'a>(dino: &Dino, config: &PretrainConfig) -> TorchValue<'a> {
    let vit = dino.network().vit.config();
    let text = |text: &str| TorchValue::Text(text.to_owned());
    let int = |n: usize| TorchValue::Int(n as i64);
    let float = TorchValue::Float;
    let (head, views, teacher) = (&config.head, &config.views, &config.teacher);
    let (optimizer, train) = (&config.optimizer, &config.train);
    let pair = |(a, b): (f64, f64)| TorchValue::List(vec![float(a), float(b)]);
    let entries = [
        ("arch", text(original_name(vit))),
        ("patch_size", int(vit.patch_size)),
        ("embed_dim", int(vit.embed_dim)),
        ("depth", int(vit.depth)),
        ("num_heads", int(vit.num_heads)),
        ("img_size", int(vit.grid * vit.patch_size)),
        ("readout", text(readout(config))),
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
        ("saveckp_freq", int(config.save.keep_every_epochs)),
        ("data_path", text(&config.data.datasets.join(" "))),
        ("student_temp", float(config.loss.student_temp)),
        ("center_momentum", float(config.loss.center_momentum)),
        ("init_std", float(config.backbone.init_std)),
        ("seed", i64::try_from(train.seed).map_or_else(|_| text(&train.seed.to_string()), TorchValue::Int)),
        ("global_crops_size", int(views.global_size)),
        ("global_crops_scale", pair(views.global_scale)),
        ("local_crops_number", int(views.locals)),
        ("local_crops_size", int(views.local_size)),
        ("local_crops_scale", pair(views.local_scale)),
    ];
    TorchValue::Dict(entries.into_iter().map(|(name, value)| (text(name), value)).collect())
}

/// What the head read.
fn readout(config: &PretrainConfig) -> &'static str {
    match config.backbone.readout {
        Readout::Class => "class",
        Readout::Mean => "mean",
    }
}

/// The original's name of a network, which leaves the patch size to an argument of its own.
fn original_name(vit: &VitConfig) -> &'static str {
    match (vit.embed_dim, vit.depth, vit.num_heads, vit.mlp_dim) {
        (192, 12, 3, 768) => "vit_tiny",
        (384, 12, 6, 1536) => "vit_small",
        (768, 12, 12, 3072) => "vit_base",
        _ => "vit", // none of its names: the sizes beside it say what it is
    }
}

fn optimizer_name(kind: OptimizerKind) -> &'static str {
    match kind {
        OptimizerKind::Adamw => "adamw",
        OptimizerKind::Sgd => "sgd",
        OptimizerKind::Lars => "lars",
    }
}

/// Writes the teacher's backbone: DINO's names, and in the metadata where it comes from.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn backbone(path: &Path, dino: &Dino, config: &PretrainConfig, run: &RunIdentity) -> Result<()> {
    let vit = dino.network().vit.config();
    let provenance = [
        ("system", "DINO, featlab".to_owned()),
        ("network", "teacher".into()),
        ("architecture", vit.architecture()),
        ("num_heads", vit.num_heads.to_string()),
        ("readout", readout(config).into()),
        ("name", config.name.clone()),
        ("step", dino.state.step.to_string()),
        ("seed", config.train.seed.to_string()),
        ("images", run.images.to_string()),
        ("data_sha256", run.data.clone()),
        ("config", config.to_toml()?),
    ];
    let provenance: BTreeMap<String, String> =
        provenance.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Ok(save_backbone(path, dino.layout(), &dino.state.teacher, config.save.half, &provenance)?)
}
