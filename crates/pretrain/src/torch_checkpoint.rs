//! Parts of checkpoints that PyTorch programs read: state dicts, optimisers' states, arguments.

use backbone::VitConfig;

use crate::network::BACKBONE;
use crate::optim::{Optimizer, OptimizerKind, StepSize};
use crate::params::{Layout, TensorSpec};
use crate::torch_file::TorchValue;
use crate::training::Notes;
use crate::trunk::Trunk;

/// A dictionary under plain names.
pub(crate) fn dict<'a>(entries: impl IntoIterator<Item = (&'static str, TorchValue<'a>)>) -> TorchValue<'a> {
    TorchValue::Dict(entries.into_iter().map(|(name, value)| (text(name), value)).collect())
}

/// A text.
pub(crate) fn text<'a>(text: &str) -> TorchValue<'a> {
    TorchValue::Text(text.to_owned())
}

/// A whole number.
pub(crate) fn int<'a>(n: usize) -> TorchValue<'a> {
    TorchValue::Int(n as i64)
}

/// Parameters and running statistics under the names that `rename` gives.
pub(crate) fn state_dict<'a>(
    parts: &[(&Layout, &'a [f32])],
    rename: impl Fn(&str) -> String,
) -> TorchValue<'a> {
    TorchValue::OrderedDict(tensors(parts, rename))
}

/// The entries of [`state_dict`].
pub(crate) fn tensors<'a>(
    parts: &[(&Layout, &'a [f32])],
    rename: impl Fn(&str) -> String,
) -> Vec<(String, TorchValue<'a>)> {
    let entry = |(tensor, values): (&TensorSpec, &'a [f32])| {
        let data = tensor.slot.of(values);
        (rename(&tensor.name), TorchValue::Tensor { shape: tensor.shape.clone(), data })
    };
    let tensors =
        parts.iter().flat_map(|(layout, values)| layout.tensors().iter().map(move |t| (t, *values)));
    tensors.map(entry).collect()
}

/// As PyTorch's optimisers load it: parameters are numbered through the groups.
///
/// * `groups`: for each, the tensors' places in the layout and the values of the next step.
pub(crate) fn optimizer<'a>(
    layout: &Layout,
    optimizer: &'a Optimizer,
    groups: &[(Vec<usize>, StepSize)],
) -> TorchValue<'a> {
    let (mut lists, mut states, mut number) = (Vec::new(), Vec::new(), 0);
    for (places, size) in groups {
        let mut members = Vec::new();
        for &place in places {
            if optimizer.steps[place] > 0 {
                let tensor = &layout.tensors()[place];
                states.push((TorchValue::Int(number), tensor_state(optimizer, tensor, place)));
            }
            members.push(TorchValue::Int(number));
            number += 1;
        }
        lists.push(group(optimizer.kind(), *size, members));
    }
    dict([("state", TorchValue::Dict(states)), ("param_groups", TorchValue::List(lists))])
}

fn tensor_state<'a>(optimizer: &'a Optimizer, tensor: &TensorSpec, place: usize) -> TorchValue<'a> {
    let of =
        |values: &'a [f32]| TorchValue::Tensor { shape: tensor.shape.clone(), data: tensor.slot.of(values) };
    let steps = optimizer.counts_as_floats();
    match optimizer.kind() {
        OptimizerKind::Adamw => dict([
            ("step", TorchValue::Tensor { shape: vec![], data: &steps[place..=place] }),
            ("exp_avg", of(optimizer.first())),
            ("exp_avg_sq", of(optimizer.second())),
        ]),
        OptimizerKind::Sgd | OptimizerKind::Larc => dict([("momentum_buffer", of(optimizer.first()))]),
        OptimizerKind::Lars => dict([("mu", of(optimizer.first()))]),
    }
}

fn group<'a>(kind: OptimizerKind, size: StepSize, members: Vec<TorchValue<'a>>) -> TorchValue<'a> {
    let list = |numbers: [f64; 2]| TorchValue::List(numbers.map(TorchValue::Float).to_vec());
    let mut entries =
        vec![("lr", TorchValue::Float(size.lr)), ("weight_decay", TorchValue::Float(size.weight_decay))];
    entries.extend(match kind {
        OptimizerKind::Adamw => vec![
            ("betas", list([0.9, 0.999])),
            ("eps", TorchValue::Float(1e-8)),
            ("amsgrad", TorchValue::Bool(false)),
            ("maximize", TorchValue::Bool(false)),
        ],
        OptimizerKind::Sgd | OptimizerKind::Larc => vec![
            ("momentum", TorchValue::Float(0.9)),
            ("dampening", TorchValue::Int(0)),
            ("nesterov", TorchValue::Bool(false)),
            ("maximize", TorchValue::Bool(false)),
        ],
        OptimizerKind::Lars => vec![("momentum", TorchValue::Float(0.9))],
    });
    entries.push(("params", TorchValue::List(members)));
    dict(entries)
}

/// The sizes of a transformer under the names of DINO's arguments, which loaders look at.
pub(crate) fn vit_arguments<'a>(vit: &VitConfig, readout: &str) -> Vec<(&'static str, TorchValue<'a>)> {
    vec![
        ("arch", text(original_name(vit))),
        ("patch_size", int(vit.patch_size)),
        ("embed_dim", int(vit.embed_dim)),
        ("depth", int(vit.depth)),
        ("num_heads", int(vit.num_heads)),
        ("img_size", int(vit.grid * vit.patch_size)),
        ("readout", text(readout)),
    ]
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

/// SwAV's layout: `epoch` (the next one), `state_dict` with `module.` before every name and no `backbone.`, `optimizer`; our
/// sizes are in `args`.
pub(crate) fn cluster<'a>(
    network: &[(&Layout, &'a [f32])],
    optimizer_state: &'a Optimizer,
    size: StepSize,
    epoch: usize,
    notes: &Notes,
    trunk: &Trunk,
) -> TorchValue<'a> {
    let rename = |name: &str| format!("module.{}", name.strip_prefix(BACKBONE).unwrap_or(name));
    let all = network.first().map_or(0, |(layout, _)| layout.tensors().len());
    let layout = network.first().map_or_else(Layout::default, |(layout, _)| (*layout).clone());
    let mut args = trunk.arguments();
    args.push(("data_path", text(&notes.data)));
    dict([
        ("epoch", int(epoch)),
        ("state_dict", state_dict(network, rename)),
        ("optimizer", optimizer(&layout, optimizer_state, &[((0..all).collect(), size)])),
        ("args", dict(args)),
    ])
}
