//! Backbone and head in candle, from operations that its tape can walk back.
//!
//! The network of `vit.rs` and `head.rs`, written once more from the state dict's names; tests hold the two together. With
//! bf16, matrix products take and give 16-bit numbers, as under PyTorch's autocast; between them everything is f32.

use std::collections::HashMap;

use candle_core::{D, DType, Result, Tensor};

use crate::config::Precision;
use crate::drop_path::Branch;
use crate::network::{BACKBONE, HEAD, Network};
use crate::params::{Layout, TensorSpec};
use crate::position::PositionGrid;
use crate::vit::Readout;

/// `torch.nn.BatchNorm1d` and `torch.nn.functional.normalize`.
const BATCH_NORM_EPS: f64 = 1e-5;
const NORMALIZE_EPS: f64 = 1e-12;

/// Tensors by their names in the state dict.
#[derive(Debug, Default)]
pub(super) struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    /// Of a layout, in its order.
    pub(super) fn named(layout: &Layout, tensors: impl IntoIterator<Item = Tensor>) -> Self {
        Self(layout.tensors().iter().map(|spec| spec.name.clone()).zip(tensors).collect())
    }

    fn get(&self, name: &str) -> Result<&Tensor> {
        self.0.get(name).ok_or_else(|| candle_core::Error::msg(format!("no tensor {name}")))
    }
}

/// What leaves a network.
pub(super) struct Outputs {
    /// What the head reads, `[rows, d]`.
    pub(super) readouts: Tensor,
    /// `[rows, K]`.
    pub(super) logits: Tensor,
    statistics: Vec<Statistics>,
}

/// What a batch norm saw.
struct Statistics {
    /// The batch norm's name.
    name: String,
    /// `[1, hidden]`.
    mean: Tensor,
    /// Unbiased, `[1, hidden]`.
    variance: Tensor,
}

impl Outputs {
    /// Lets the running statistics follow.
    pub(super) fn follow(&self, network: &Network, buffers: &mut [f32]) -> crate::Result<()> {
        for Statistics { name, mean, variance } in &self.statistics {
            for (part, now) in [("running_mean", mean), ("running_var", variance)] {
                let name = format!("{name}.{part}");
                let is_it = |spec: &&TensorSpec| spec.name == name;
                let Some(spec) = network.buffers.tensors().iter().find(is_it) else { continue };
                let running = spec.slot.of_mut(buffers).iter_mut();
                running.zip(super::host(now)?).for_each(|(r, now)| crate::batch_norm::follow(r, now.into()));
            }
        }
        Ok(())
    }
}

/// A network with its tensors.
pub(super) struct Net<'a> {
    network: &'a Network,
    tensors: &'a Tensors,
    precision: Precision,
}

impl<'a> Net<'a> {
    pub(super) fn new(network: &'a Network, tensors: &'a Tensors, precision: Precision) -> Self {
        Self { network, tensors, precision }
    }

    /// Views of each size through the backbone, `[b, 3, side, side]`; all of them through the head at once.
    ///
    /// * `drop`: scales of the branches by group of views and block.
    pub(super) fn forward(
        &self,
        groups: &[Tensor],
        drop: impl Fn(usize, usize) -> [Branch; 2],
    ) -> Result<Outputs> {
        let readouts = (groups.iter().enumerate())
            .map(|(group, images)| self.backbone(images, |block| drop(group, block)))
            .collect::<Result<Vec<_>>>()?;
        let readouts = Tensor::cat(&readouts, 0)?;
        let (logits, statistics) = self.head(&readouts)?;
        Ok(Outputs { readouts: readouts.detach(), logits, statistics })
    }

    /// `[b, 3, h, w]` to readouts `[b, d]`.
    fn backbone(&self, images: &Tensor, drop: impl Fn(usize) -> [Branch; 2]) -> Result<Tensor> {
        let mut x = self.embed(images)?;
        for block in 0..self.network.vit.config().depth {
            let name = format!("{BACKBONE}blocks.{block}");
            let [drop1, drop2] = drop(block);
            let branch =
                self.attention(&format!("{name}.attn"), &self.norm(&format!("{name}.norm1"), &x)?)?;
            x = add_branch(&x, branch, &drop1)?;
            let branch = self.mlp(&format!("{name}.mlp"), &self.norm(&format!("{name}.norm2"), &x)?)?;
            x = add_branch(&x, branch, &drop2)?;
        }
        let norm = format!("{BACKBONE}norm");
        match self.network.vit.readout() {
            Readout::Class => self.norm(&norm, &x.narrow(1, 0, 1)?.squeeze(1)?),
            Readout::Mean => self.norm(&norm, &x)?.narrow(1, 1, x.dim(1)? - 1)?.mean(1),
        }
    }

    /// Patches, class token and positions, `[b, 1 + t, d]`.
    fn embed(&self, images: &Tensor) -> Result<Tensor> {
        let config = self.network.vit.config();
        let (d, p) = (config.embed_dim, config.patch_size);
        let (b, _, h, w) = images.dims4()?;
        let (gh, gw) = (h / p, w / p);
        let patches = images.reshape((b, 3, gh, p, gw, p))?.permute([0, 2, 4, 1, 3, 5])?;
        let patches = patches.reshape((b, gh * gw, 3 * p * p))?;
        let proj = format!("{BACKBONE}patch_embed.proj");
        let weight = self.tensors.get(&format!("{proj}.weight"))?.reshape((d, 3 * p * p))?;
        let patches = self.linear(&patches, &weight, &format!("{proj}.bias"))?;
        let cls = self.tensors.get(&format!("{BACKBONE}cls_token"))?.broadcast_as((b, 1, d))?;
        let tokens = Tensor::cat(&[&cls.contiguous()?, &patches], 1)?;
        tokens.broadcast_add(&self.positions((gh, gw))?)
    }

    /// The position table at a grid, `[1, 1 + gh gw, d]`.
    fn positions(&self, (gh, gw): (usize, usize)) -> Result<Tensor> {
        let side = self.network.vit.config().grid;
        let table = self.tensors.get(&format!("{BACKBONE}pos_embed"))?;
        let entries = side * side;
        let resize = PositionGrid::new(side, (gh, gw)).matrix();
        let resize = Tensor::from_vec(resize, (gh * gw, entries), table.device())?;
        let patches = resize.matmul(&table.narrow(1, 1, entries)?.squeeze(0)?.contiguous()?)?;
        Tensor::cat(&[&table.narrow(1, 0, 1)?, &patches.unsqueeze(0)?], 1)
    }

    fn attention(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let config = self.network.vit.config();
        let (b, n, d) = x.dims3()?;
        let (heads, head_dim) = (config.num_heads, config.head_dim());
        let qkv = self.layer(&format!("{name}.qkv"), x)?.reshape((b, n, 3, heads, head_dim))?;
        let qkv = qkv.permute([2, 0, 3, 1, 4])?; // [3, b, heads, n, head_dim]
        let part = |i: usize| qkv.narrow(0, i, 1)?.squeeze(0)?.contiguous();
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (self.matmul(&q, &k.t()?.contiguous()?)? * (1.0 / (head_dim as f64).sqrt()))?;
        let attended = self.matmul(&log_softmax(&scores)?.exp()?, &v)?; // [b, heads, n, head_dim]
        self.layer(&format!("{name}.proj"), &attended.transpose(1, 2)?.reshape((b, n, d))?)
    }

    fn mlp(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        self.layer(&format!("{name}.fc2"), &self.layer(&format!("{name}.fc1"), x)?.gelu_erf()?)
    }

    /// Logits of readouts, `[rows, d]` to `[rows, K]`, and the batch norms' statistics.
    fn head(&self, readouts: &Tensor) -> Result<(Tensor, Vec<Statistics>)> {
        let config = self.network.head.config();
        let (mut x, mut statistics, mut index) = (readouts.clone(), Vec::new(), 0);
        for layer in 0..config.layers {
            let name = if config.layers == 1 { format!("{HEAD}mlp") } else { format!("{HEAD}mlp.{index}") };
            x = self.layer(&name, &x)?;
            index += 1;
            if layer + 1 == config.layers {
                break;
            }
            if config.use_bn {
                x = self.batch_norm(&format!("{HEAD}mlp.{index}"), &x, &mut statistics)?;
                index += 1;
            }
            x = x.gelu_erf()?;
            index += 1;
        }
        // The limit comes before the root, whose slope at 0 is infinite.
        let squares = x.sqr()?.sum_keepdim(1)?.maximum(NORMALIZE_EPS * NORMALIZE_EPS)?;
        let unit = x.broadcast_div(&squares.sqrt()?)?;
        let v = self.tensors.get(&format!("{HEAD}last_layer.weight_v"))?;
        let g = self.tensors.get(&format!("{HEAD}last_layer.weight_g"))?;
        let lengths = v.sqr()?.sum_keepdim(1)?.sqrt()?;
        let weight = v.broadcast_mul(&(g / lengths)?)?;
        Ok((self.matmul(&unit, &weight.t()?)?, statistics))
    }

    fn batch_norm(&self, name: &str, x: &Tensor, statistics: &mut Vec<Statistics>) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let mean = x.mean_keepdim(0)?;
        let centred = x.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim(0)?;
        let unbiased = (variance.detach() * (rows as f64 / (rows.max(2) - 1) as f64))?;
        statistics.push(Statistics { name: name.to_owned(), mean: mean.detach(), variance: unbiased });
        self.affine(name, &centred.broadcast_div(&(variance + BATCH_NORM_EPS)?.sqrt()?)?)
    }

    fn norm(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let deviation = (variance + self.network.vit.config().layer_norm_eps)?.sqrt()?;
        self.affine(name, &centred.broadcast_div(&deviation)?)
    }

    fn affine(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let weight = self.tensors.get(&format!("{name}.weight"))?;
        x.broadcast_mul(weight)?.broadcast_add(self.tensors.get(&format!("{name}.bias"))?)
    }

    fn layer(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        self.linear(x, self.tensors.get(&format!("{name}.weight"))?, &format!("{name}.bias"))
    }

    /// `x Wᵀ + b` over the last axis.
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: &str) -> Result<Tensor> {
        let (outputs, inputs) = weight.dims2()?;
        let mut shape = x.dims().to_vec();
        shape.pop();
        let rows = shape.iter().product::<usize>();
        shape.push(outputs);
        let y = self.matmul(&x.reshape((rows, inputs))?, &weight.t()?)?;
        y.broadcast_add(self.tensors.get(bias)?)?.reshape(shape)
    }

    /// A matrix product in the numbers asked for; the result is f32.
    fn matmul(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        match self.precision {
            Precision::F32 => a.matmul(b),
            Precision::Bf16 => {
                a.to_dtype(DType::BF16)?.matmul(&b.to_dtype(DType::BF16)?)?.to_dtype(DType::F32)
            }
        }
    }
}

/// `x + scale · branch`, a scale for each image.
fn add_branch(x: &Tensor, branch: Tensor, scales: &Branch) -> Result<Tensor> {
    if scales.is_empty() {
        return x + branch;
    }
    let scales = Tensor::from_slice(scales, (scales.len(), 1, 1), x.device())?;
    x + branch.broadcast_mul(&scales)?
}

/// Over the last axis.
pub(super) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}
