//! Export: a model as a checkpoint under the original's key names, which its scripts load.
//!
//! ```text
//! net.model.*                                      the backbone, DINO's names
//! net.cluster1.0, net.cluster2.0, net.cluster2.2   the head; convolutions of one pixel, [to, from, 1, 1]
//! linear_probe.weight [c, k, 1, 1], .bias          cluster_probe.clusters [m, k]
//! ```

use std::path::Path;

use anyhow::{Result, bail};
use backbone::NamedTensor;
use dimred::Reducer;
use ndarray::{Array1, Array2};
use pretrain::{TorchValue, write_torch};
use tensorfile::Tensor;

use super::Model;
use crate::exit::usage;
use crate::records::write_atomically;

/// All tensors of a model.
///
/// # Errors
/// A usage error if its codes do not come from a STEGO head, which is all that the original's names can say.
pub(crate) fn tensors(
    model: &Model,
    backbone: std::collections::BTreeMap<String, NamedTensor>,
) -> Result<Vec<(String, NamedTensor)>> {
    let Reducer::Stego(head) = &model.reducer else {
        return Err(usage(format!(
            "this model's codes come from {}; the original's checkpoints hold a STEGO head",
            model.reducer.method()
        )));
    };
    let head = head.at(model.card.dim)?;
    let mut all: Vec<_> =
        backbone.into_iter().map(|(name, tensor)| (format!("net.model.{name}"), tensor)).collect();
    let mut layer = |name: &str, weight: &Array2<f32>, bias: &Array1<f32>| {
        let (to, from) = weight.dim();
        let weight = NamedTensor { shape: vec![to, from, 1, 1], values: weight.iter().copied().collect() };
        all.push((format!("{name}.weight"), weight));
        all.push((format!("{name}.bias"), NamedTensor { shape: vec![to], values: bias.to_vec() }));
    };
    layer("net.cluster1.0", &head.linear().weight, &head.linear().bias);
    if let Some((hidden, output)) = head.perceptron() {
        layer("net.cluster2.0", &hidden.weight, &hidden.bias);
        layer("net.cluster2.2", &output.weight, &output.bias);
    }
    if let Some(probe) = &model.linear {
        layer("linear_probe", &probe.weight, &probe.bias);
    }
    if let Some(probe) = &model.cluster {
        let values = probe.centres.iter().copied().collect();
        all.push((
            "cluster_probe.clusters".into(),
            NamedTensor { shape: probe.centres.shape().to_vec(), values },
        ));
    }
    Ok(all)
}

/// Writes them as a `.ckpt` (or `.pth`), which `torch.load` opens, or as `.safetensors`.
///
/// # Errors
/// A usage error for another ending; if the file cannot be written.
pub(crate) fn write(path: &Path, tensors: &[(String, NamedTensor)], classes: usize) -> Result<()> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("ckpt" | "pth" | "pt") => {
            let state = tensors.iter().map(|(name, tensor)| {
                let value = TorchValue::Tensor { shape: tensor.shape.clone(), data: &tensor.values };
                (name.clone(), value)
            });
            let text = |name: &str| TorchValue::Text(name.to_owned());
            let hyper = vec![(text("n_classes"), TorchValue::Int(i64::try_from(classes)?))];
            let file = TorchValue::Dict(vec![
                (text("state_dict"), TorchValue::OrderedDict(state.collect())),
                (text("hyper_parameters"), TorchValue::Dict(hyper)),
            ]);
            Ok(write_torch(path, &file)?)
        }
        Some("safetensors") => {
            let tensors: Vec<Tensor> =
                tensors.iter().map(|(name, t)| Tensor::f32(name.clone(), &t.shape, &t.values)).collect();
            write_atomically(path, &tensorfile::to_bytes(&tensors, &tensorfile::Metadata::new())?)
        }
        _ => bail!(usage(format!(
            "{}: expected a name that ends in .ckpt, .pth or .safetensors",
            path.display()
        ))),
    }
}
