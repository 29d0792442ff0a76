//! The sizes of a model, read off the shapes of its tensors, and the comparison of both.
//!
//! Several tensors tell the same size; the most frequent answer counts, so that one misshapen tensor is reported
//! as such and does not turn all the others into errors.

use std::collections::{BTreeMap, BTreeSet};

use crate::models::{DINOV3_EPS, LAYER_NORM_EPS, ModelConfig, ROPE_THETA, Shaped};
use crate::{Dinov2Config, Dinov3Config, Resampling, VitConfig};

/// Shapes by name, in the original's layout.
pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;

/// Larger sizes are a hostile file's, and do not count.
const MAX_SIZE: usize = 1 << 20;

/// How many problems are spelled out.
const SHOWN: usize = 8;

/// Which of the models has such tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vit,
    Dinov2,
    Dinov3,
}

/// What no tensor tells; the model's own where nothing else does.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct Untold {
    pub(crate) num_heads: usize,
    pub(crate) layer_norm_eps: Option<f64>,
    pub(crate) rope_theta: Option<f64>,
}

/// What the tensors of a vision transformer tell of it: all but [`Untold`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    kind: Kind,
    pub(crate) embed_dim: usize,
    pub(crate) depth: usize,
    mlp_dim: usize,
    pub(crate) patch_size: usize,
    grid: usize,
    qkv_bias: bool,
    registers: usize,
    periods: Option<usize>,
    hugging_face: bool,
}

impl Sizes {
    /// The sizes that fit the tensors best; `None` if they look like no vision transformer at all.
    pub(crate) fn read_off(shapes: &Shapes) -> Option<Self> {
        let side = |name: &str, axis: usize| shapes.get(name).and_then(|shape| shape.get(axis)).copied();
        let blocks: BTreeSet<usize> = shapes.keys().filter_map(|name| block(name)?.0.parse().ok()).collect();
        // An absurd block number in a hostile file must not make an absurd list of missing tensors.
        let depth = blocks.last()?.saturating_add(1).min(shapes.len());
        let in_blocks = |tensor: &str| -> Vec<usize> {
            (blocks.iter().take(depth)).filter_map(|i| side(&format!("blocks.{i}.{tensor}"), 0)).collect()
        };
        let ends = [
            side("cls_token", 2),
            side("pos_embed", 2),
            side("norm.weight", 0),
            side("patch_embed.proj.bias", 0),
        ];
        let embed_dim = vote(ends.into_iter().flatten().chain(in_blocks("norm1.weight")))?;
        let patch_size = vote(
            [side("patch_embed.proj.weight", 2), side("patch_embed.proj.weight", 3)].into_iter().flatten(),
        );
        let kind = Kind::of(shapes, depth);
        let table = side("pos_embed", 1).map(|entries| entries.saturating_sub(1).isqrt());
        let registers = match kind {
            Kind::Vit => None,
            Kind::Dinov2 => side("register_tokens", 1),
            Kind::Dinov3 => side("storage_tokens", 1),
        };
        Some(Self {
            kind,
            embed_dim,
            depth,
            mlp_dim: vote(in_blocks("mlp.fc1.bias")).unwrap_or(embed_dim.saturating_mul(4)),
            patch_size: patch_size.filter(|&side| side > 0)?,
            grid: if kind == Kind::Dinov3 { 0 } else { table? },
            qkv_bias: !in_blocks("attn.qkv.bias").is_empty(),
            registers: registers.unwrap_or(0),
            periods: side("rope_embed.periods", 0).filter(|_| kind == Kind::Dinov3),
            hugging_face: false,
        })
    }

    /// The same, of a file that was in Hugging Face's names or not.
    pub(crate) fn in_hugging_face(self, hugging_face: bool) -> Self {
        Self { hugging_face, ..self }
    }

    /// The number of heads, where a tensor tells it after all: four dimensions for each period of a rotation.
    pub(crate) fn heads(self) -> Option<usize> {
        let head_dim =
            self.periods?.checked_mul(4).filter(|&dims| dims > 0 && self.embed_dim.is_multiple_of(dims))?;
        Some(self.embed_dim / head_dim)
    }

    /// What the tensors seem to be, in words.
    pub(crate) fn model(self) -> String {
        let name = match self.kind {
            Kind::Vit => "a ViT",
            Kind::Dinov2 => "a DINOv2",
            Kind::Dinov3 => "a DINOv3",
        };
        let Self { embed_dim, depth, patch_size, registers, .. } = self;
        let registers = if registers > 0 { format!(", {registers} registers") } else { String::new() };
        format!(
            "{name} of {depth} blocks with {embed_dim} dimensions{registers} and patches of {patch_size} px"
        )
    }

    /// Every tensor that the model must have.
    pub(crate) fn tensors(self) -> Shaped {
        // Names and shapes depend on nothing that the tensors do not tell.
        self.with(Untold { num_heads: 1, ..Untold::default() }).tensors()
    }

    /// The whole configuration.
    pub(crate) fn with(self, untold: Untold) -> ModelConfig {
        let own_eps = if self.kind == Kind::Dinov3 { DINOV3_EPS } else { LAYER_NORM_EPS };
        let vit = VitConfig {
            embed_dim: self.embed_dim,
            depth: self.depth,
            num_heads: untold.num_heads,
            mlp_dim: self.mlp_dim,
            patch_size: self.patch_size,
            grid: self.grid,
            qkv_bias: self.qkv_bias,
            layer_norm_eps: untold.layer_norm_eps.unwrap_or(own_eps),
        };
        let Self { registers, periods, .. } = self;
        match self.kind {
            Kind::Vit => ModelConfig::Vit(vit),
            Kind::Dinov2 => {
                // The transformers library resizes where the original has the tenth.
                let resampling = match Dinov2Config::original(registers) {
                    Resampling::Tenth if self.hugging_face => Resampling::Resized,
                    original => original,
                };
                ModelConfig::Dinov2(Dinov2Config { vit, registers, resampling })
            }
            Kind::Dinov3 => {
                let rope_theta = untold.rope_theta.unwrap_or(ROPE_THETA);
                ModelConfig::Dinov3(Dinov3Config { vit, registers, rope_theta, periods })
            }
        }
    }
}

impl Kind {
    /// Rotations or storage tokens make a DINOv3; registers, or layer scales in most places, a DINOv2.
    fn of(shapes: &Shapes, depth: usize) -> Self {
        let has = |name: &str| shapes.contains_key(name);
        let is_scale = |name: &&String| name.ends_with(".ls1.gamma") || name.ends_with(".ls2.gamma");
        let scales = shapes.keys().filter(is_scale).count();
        if has("storage_tokens") || has("rope_embed.periods") {
            Self::Dinov3
        } else if has("register_tokens") || scales >= depth {
            Self::Dinov2
        } else {
            Self::Vit
        }
    }
}

/// Number and rest of a name within a block.
fn block(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("blocks.")?.split_once('.')
}

/// The most frequent value, the smaller one of two that are equally frequent.
fn vote(values: impl IntoIterator<Item = usize>) -> Option<usize> {
    let mut counts = BTreeMap::new();
    for value in values.into_iter().filter(|&value| value <= MAX_SIZE) {
        *counts.entry(value).or_insert(0) += 1;
    }
    counts.into_iter().max_by_key(|&(value, count)| (count, usize::MAX - value)).map(|(value, _)| value)
}

/// How the tensors differ from those that a model must have; `None` if they do not.
pub(crate) fn problems(expected: &[(String, Vec<usize>)], found: &Shapes) -> Option<String> {
    let mut problems: Vec<String> = Vec::new();
    for (name, shape) in expected {
        match found.get(name) {
            None => problems.push(format!("missing {name} {shape:?}")),
            Some(other) if other != shape => {
                problems.push(format!("{name} is {other:?}, expected {shape:?}"))
            }
            Some(_) => {}
        }
    }
    let names: BTreeSet<&String> = expected.iter().map(|(name, _)| name).collect();
    let surplus = found.iter().filter(|(name, _)| !names.contains(name));
    problems.extend(surplus.map(|(name, shape)| format!("surplus {name} {shape:?}")));
    let more = problems.len().saturating_sub(SHOWN);
    problems.truncate(SHOWN);
    let mut text = problems.join("; ");
    if more > 0 {
        text += &format!("; and {more} more");
    }
    (!problems.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VitConfig {
        VitConfig { depth: 3, mlp_dim: 100, ..VitConfig::by_name("vit_tiny_patch16").unwrap() }
    }

    fn shapes(config: &VitConfig) -> Shapes {
        config.tensors().into_iter().collect()
    }

    #[test]
    fn sizes_are_those_that_made_the_tensors() {
        for config in [config(), VitConfig { qkv_bias: false, grid: 5, ..config() }] {
            let sizes = Sizes::read_off(&shapes(&config)).unwrap();
            let untold = Untold { num_heads: config.num_heads, ..Untold::default() };
            assert_eq!(sizes.with(untold), ModelConfig::Vit(config.clone()));
            assert_eq!(problems(&config.tensors(), &shapes(&config)), None);
        }
    }

    #[test]
    fn the_kind_is_told_by_the_tensors() {
        let v2 = |registers| Dinov2Config {
            vit: config(),
            registers,
            resampling: Dinov2Config::original(registers),
        };
        let vit = VitConfig { grid: 0, layer_norm_eps: 1e-5, ..config() };
        let v3 =
            |registers, periods| Dinov3Config { vit: vit.clone(), registers, rope_theta: 100.0, periods };
        for config in [
            ModelConfig::Dinov2(v2(0)),
            ModelConfig::Dinov2(v2(4)),
            ModelConfig::Dinov3(v3(4, None)),
            ModelConfig::Dinov3(v3(4, Some(16))),
            ModelConfig::Dinov3(v3(0, Some(16))),
        ] {
            let tensors: Shapes = config.tensors().into_iter().collect();
            let sizes = Sizes::read_off(&tensors).unwrap();
            assert_eq!(sizes.with(Untold { num_heads: 3, ..Untold::default() }), config);
            assert_eq!(problems(&sizes.tensors(), &tensors), None);
            // One missing scale does not make another model of it.
            let mut damaged = tensors.clone();
            damaged.remove("blocks.1.ls2.gamma");
            assert_eq!(Sizes::read_off(&damaged), Some(sizes));
            assert_eq!(problems(&sizes.tensors(), &damaged).unwrap(), "missing blocks.1.ls2.gamma [192]");
        }
        let with_periods = ModelConfig::Dinov3(v3(4, Some(16))).tensors().into_iter().collect();
        assert_eq!(Sizes::read_off(&with_periods).unwrap().heads(), Some(3));
    }

    #[test]
    fn one_wrong_tensor_does_not_change_the_sizes() {
        let sizes = Sizes::read_off(&shapes(&config())).unwrap();
        for (name, wrong) in [
            ("cls_token", vec![1, 1, 191]),
            ("norm.weight", vec![7]),
            ("blocks.1.mlp.fc1.bias", vec![99]),
            ("blocks.2.norm1.weight", vec![]),
        ] {
            let mut found = shapes(&config());
            found.insert(name.to_owned(), wrong.clone());
            assert_eq!(Sizes::read_off(&found).unwrap(), sizes, "{name}");
            let text = problems(&config().tensors(), &found).unwrap();
            assert!(
                text.starts_with(&format!("{name} is {wrong:?}, expected [")) && !text.contains(';'),
                "{text}"
            );
        }
    }

    #[test]
    fn problems_are_named_up_to_eight() {
        let mut found = shapes(&config());
        found.remove("norm.bias");
        found.insert("extra".to_owned(), vec![2, 3]);
        let text = problems(&config().tensors(), &found).unwrap();
        assert_eq!(text, "missing norm.bias [192]; surplus extra [2, 3]");
        found.retain(|name, _| !name.starts_with("blocks.1."));
        let text = problems(&config().tensors(), &found).unwrap();
        assert_eq!(text.matches("missing").count(), SHOWN);
        assert!(text.ends_with("; and 6 more"), "{text}");
    }

    #[test]
    fn other_networks_and_absurd_numbers_are_harmless() {
        assert_eq!(Sizes::read_off(&[("conv1.weight".to_owned(), vec![64, 3, 7, 7])].into()), None);
        assert_eq!(Sizes::read_off(&Shapes::new()), None);
        let mut found = shapes(&config());
        found.insert(format!("blocks.{}.norm1.weight", usize::MAX), vec![192]);
        assert!(Sizes::read_off(&found).unwrap().depth <= found.len());
    }
}
