//! Whose names the tensors have: rename tables from other layouts to DINO's.
//!
//! DINO and timm agree. The Hugging Face ViT has other names and keeps queries, keys and values apart, which DINO
//! stacks in this order. Names that no table knows stay as they are, and are found surplus later.

use std::collections::BTreeMap;

use super::array::Array;
use super::unwrap::Arrays;

/// Heads, poolers and classifiers behind the backbone; not needed for its tokens.
const BEHIND: [&str; 5] = ["head.", "head_dist.", "fc_norm.", "pooler.", "classifier."];

/// Hugging Face names outside the blocks.
const HF_OUTER: [(&str, &str); 5] = [
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("layernorm.", "norm."),
    ("encoder.layer.", "blocks."),
];

/// Hugging Face names within a block, after its number.
const HF_BLOCK: [(&str, &str); 5] = [
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("attention.output.dense.", "attn.proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
];

/// The three that DINO stacks.
const HF_QKV: [&str; 3] =
    ["attention.attention.query.", "attention.attention.key.", "attention.attention.value."];

/// A tensor in DINO's layout: one array, or several stacked along the first axis.
pub(crate) struct Parts(pub(crate) Vec<Array>);

impl Parts {
    /// The shape of the whole.
    pub(crate) fn shape(&self) -> Vec<usize> {
        let mut shape = self.0[0].shape.clone();
        if let [first, ..] = &mut shape[..] {
            *first = first.saturating_mul(self.0.len());
        }
        shape
    }
}

/// The tensors under DINO's names, and the names of those that lie behind the backbone.
pub(crate) fn to_dino(arrays: Arrays) -> (BTreeMap<String, Parts>, Vec<String>) {
    let (mut parts, mut behind) = (BTreeMap::new(), Vec::new());
    let mut rest = arrays;
    stack_qkv(&mut rest, &mut parts);
    for (name, array) in rest {
        if BEHIND.iter().any(|prefix| name.starts_with(prefix)) {
            behind.push(name);
        } else {
            parts.insert(rename(&name).unwrap_or(name), Parts(vec![array]));
        }
    }
    (parts, behind)
}

/// Moves every complete triple of queries, keys and values from `arrays` to `parts`.
fn stack_qkv(arrays: &mut Arrays, parts: &mut BTreeMap<String, Parts>) {
    let queries: Vec<String> = arrays.keys().filter(|name| name.contains(HF_QKV[0])).cloned().collect();
    for query in queries {
        let names = HF_QKV.map(|part| query.replacen(HF_QKV[0], part, 1));
        let found: Vec<Array> = names.iter().filter_map(|name| arrays.get(name)).cloned().collect();
        let Some(stacked) = rename(&query.replacen(HF_QKV[0], "attn.qkv.", 1)) else { continue };
        if found.len() == HF_QKV.len() && found.iter().all(|array| array.shape == found[0].shape) {
            names.iter().for_each(|name| drop(arrays.remove(name)));
            parts.insert(stacked, Parts(found));
        }
    }
}

/// DINO's name for a Hugging Face name; `None` if it is none.
fn rename(name: &str) -> Option<String> {
    let (from, to) = HF_OUTER.iter().find(|(from, _)| name.starts_with(from))?;
    let rest = &name[from.len()..];
    if *to != "blocks." {
        return Some(format!("{to}{rest}"));
    }
    let (block, within) = rest.split_once('.')?;
    let renamed = HF_BLOCK.iter().find_map(|(from, to)| Some(format!("{to}{}", within.strip_prefix(from)?)));
    Some(format!("blocks.{block}.{}", renamed.unwrap_or_else(|| within.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::super::array::{Dtype, Storage, row_major};
    use super::*;

    fn arrays(names: &[(&str, &[usize])]) -> Arrays {
        let array = |shape: &[usize]| Array {
            shape: shape.to_vec(),
            strides: row_major(shape),
            offset: 0,
            dtype: Dtype::F32,
            storage: Storage::Bytes(0..0),
        };
        names.iter().map(|(name, shape)| ((*name).to_owned(), array(shape))).collect()
    }

    #[test]
    fn hugging_face_names_become_dinos() {
        for (from, to) in [
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias"),
            ("layernorm.weight", "norm.weight"),
            ("encoder.layer.11.layernorm_after.weight", "blocks.11.norm2.weight"),
            ("encoder.layer.0.attention.output.dense.bias", "blocks.0.attn.proj.bias"),
            ("encoder.layer.0.intermediate.dense.bias", "blocks.0.mlp.fc1.bias"),
            ("encoder.layer.0.output.dense.bias", "blocks.0.mlp.fc2.bias"),
        ] {
            assert_eq!(rename(from).as_deref(), Some(to));
            assert_eq!(rename(to), None);
        }
    }

    #[test]
    fn queries_keys_and_values_are_stacked_in_this_order() {
        let block = "encoder.layer.3.attention.attention.";
        let names = ["query.weight", "key.weight", "value.weight"].map(|part| format!("{block}{part}"));
        let mut given = arrays(&[(&names[0], &[4, 4]), (&names[1], &[4, 4]), (&names[2], &[4, 4])]);
        for (offset, name) in names.iter().enumerate() {
            given.get_mut(name).unwrap().offset = offset;
        }
        let (parts, behind) = to_dino(given);
        let stacked = &parts["blocks.3.attn.qkv.weight"];
        assert_eq!((parts.len(), behind.len()), (1, 0));
        assert_eq!(stacked.shape(), [12, 4]);
        assert_eq!(stacked.0.iter().map(|array| array.offset).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn an_incomplete_triple_is_left_to_be_reported() {
        let query = "encoder.layer.0.attention.attention.query.bias";
        let (parts, _) = to_dino(arrays(&[(query, &[4]), (&query.replace("query", "key"), &[4])]));
        assert_eq!(parts.len(), 2);
        assert!(parts.keys().all(|name| name.starts_with("blocks.0.attention.attention.")));
    }

    #[test]
    fn heads_lie_behind() {
        let (parts, behind) =
            to_dino(arrays(&[("norm.bias", &[4]), ("head.mlp.0.bias", &[9]), ("fc_norm.bias", &[4])]));
        assert_eq!(parts.keys().collect::<Vec<_>>(), ["norm.bias"]);
        assert_eq!(behind, ["fc_norm.bias", "head.mlp.0.bias"]);
    }
}
