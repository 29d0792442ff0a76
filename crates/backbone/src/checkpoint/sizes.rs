//! The sizes of a model, read off the shapes of its tensors, and the comparison of both.
//!
//! Several tensors tell the same size; the most frequent answer counts, so that one misshapen tensor is reported
//! as such and does not turn all the others into errors.

use std::collections::{BTreeMap, BTreeSet};

use crate::VitConfig;

/// Shapes by name, in DINO's layout.
pub(crate) type Shapes = BTreeMap<String, Vec<usize>>;

/// Larger sizes are a hostile file's, and do not count.
const MAX_SIZE: usize = 1 << 20;

/// How many problems are spelled out.
const SHOWN: usize = 8;

/// What the tensors of a vision transformer tell of it: all but the number of heads and the norm's epsilon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) embed_dim: usize,
    pub(crate) depth: usize,
    mlp_dim: usize,
    pub(crate) patch_size: usize,
    grid: usize,
    qkv_bias: bool,
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
        Some(Self {
            embed_dim,
            depth,
            mlp_dim: vote(in_blocks("mlp.fc1.bias")).unwrap_or(embed_dim.saturating_mul(4)),
            patch_size: patch_size.filter(|&side| side > 0)?,
            grid: side("pos_embed", 1)?.saturating_sub(1).isqrt(),
            qkv_bias: !in_blocks("attn.qkv.bias").is_empty(),
        })
    }

    /// The whole configuration.
    pub(crate) fn with(self, num_heads: usize, layer_norm_eps: f64) -> VitConfig {
        VitConfig {
            embed_dim: self.embed_dim,
            depth: self.depth,
            num_heads,
            mlp_dim: self.mlp_dim,
            patch_size: self.patch_size,
            grid: self.grid,
            qkv_bias: self.qkv_bias,
            layer_norm_eps,
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
            assert_eq!(sizes.with(config.num_heads, config.layer_norm_eps), config);
            assert_eq!(problems(&config.tensors(), &shapes(&config)), None);
        }
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
