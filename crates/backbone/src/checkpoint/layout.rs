//! Whose names the tensors have: rename tables from other layouts to the original's.
//!
//! DINO, DINOv2 and DINOv3 name their tensors alike, and timm mostly follows them. Hugging Face and timm's DINOv3 have names
//! of their own; where queries, keys and values are apart, they are stacked in this order, as the originals have them. What
//! a layout leaves out because it is zero is put back. Names that no table knows stay as they are, and are found surplus later.

use std::collections::BTreeMap;

use super::array::Array;
use super::unwrap::Arrays;

/// Heads, poolers, prototypes and classifiers behind the backbone, and what only a training needs: the token of masked patches and
/// the norm of small crops' class tokens.
const BEHIND: [&str; 10] = [
    "head.",
    "head_dist.",
    "fc_norm.",
    "pooler.",
    "classifier.",
    "mask_token",
    "local_cls_norm.",
    "fc.",
    "projection_head.",
    "prototypes.",
];

/// Batches that a batch norm has seen: a whole number that no forward pass needs.
const COUNTER: &str = "num_batches_tracked";

/// What gated perceptrons (SwiGLU) call their linear maps: DINOv2, DINOv3, both in Hugging Face's names, timm.
const GATED: [&str; 8] = ["w12.", "w1.", "w2.", "w3.", "weights_in.", "weights_out.", "gate_proj.", "fc1_g."];

/// The names of a layout. In the blocks they are prefixes of what follows the number.
struct Names {
    /// What only its names contain.
    sign: &'static str,
    /// Names outside the blocks.
    outer: &'static [(&'static str, &'static str)],
    /// What comes before the number of a block.
    blocks: &'static str,
    /// Names within a block.
    inner: &'static [(&'static str, &'static str)],
    /// The three that the original stacks as `attn.qkv.`.
    apart: [&'static str; 3],
    /// Whether the bias of the keys may be left out, which then is zero.
    keyless: bool,
}

/// DINO, DINOv2, DINOv3; timm's DINO and DINOv2. The blocks of a training of DINOv2 may be in numbered chunks.
const ORIGINAL: Names = Names {
    sign: "",
    outer: &[("reg_token", "register_tokens")],
    blocks: "blocks.",
    inner: &[],
    apart: ["attn.query.", "attn.key.", "attn.value."],
    keyless: false,
};

/// The others.
const LAYOUTS: [Names; 3] = [
    // Hugging Face's ViT, Dinov2 and Dinov2WithRegisters.
    Names {
        sign: "encoder.layer.",
        outer: &[
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.mask_token", "mask_token"),
            ("embeddings.register_tokens", "register_tokens"),
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
            ("layernorm.", "norm."),
        ],
        blocks: "encoder.layer.",
        inner: &[
            ("layernorm_before.", "norm1."),
            ("layernorm_after.", "norm2."),
            ("attention.output.dense.", "attn.proj."),
            ("intermediate.dense.", "mlp.fc1."),
            ("output.dense.", "mlp.fc2."),
            ("layer_scale1.lambda1", "ls1.gamma"),
            ("layer_scale2.lambda1", "ls2.gamma"),
        ],
        apart: ["attention.attention.query.", "attention.attention.key.", "attention.attention.value."],
        keyless: false,
    },
    // Hugging Face's DINOv3ViT.
    Names {
        sign: "attention.q_proj.",
        outer: &[
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.mask_token", "mask_token"),
            ("embeddings.register_tokens", "storage_tokens"),
            ("embeddings.patch_embeddings.", "patch_embed.proj."),
        ],
        blocks: "layer.",
        inner: &[
            ("attention.o_proj.", "attn.proj."),
            ("mlp.up_proj.", "mlp.fc1."),
            ("mlp.down_proj.", "mlp.fc2."),
            ("layer_scale1.lambda1", "ls1.gamma"),
            ("layer_scale2.lambda1", "ls2.gamma"),
        ],
        apart: ["attention.q_proj.", "attention.k_proj.", "attention.v_proj."],
        keyless: true,
    },
    // timm's DINOv3.
    Names {
        sign: ".gamma_1",
        outer: &[("reg_token", "storage_tokens")],
        blocks: "blocks.",
        inner: &[("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma")],
        apart: ["attn.q_", "attn.k_", "attn.v_"],
        keyless: true,
    },
];

/// A tensor in the original's layout: one array or several, one after the other along an axis, times a mask.
pub(crate) struct Parts {
    pub(crate) arrays: Vec<Array>,
    /// The axis along which they are joined; those before it are 1 long.
    axis: usize,
    /// Factors, in the shape of the whole.
    pub(crate) mask: Option<Array>,
}

/// The tensors of a checkpoint under the original's names.
pub(crate) struct Layout {
    pub(crate) parts: BTreeMap<String, Parts>,
    /// Names of the tensors that lie behind the backbone.
    pub(crate) behind: Vec<String>,
    /// Whether the file is in Hugging Face's names.
    pub(crate) hugging_face: bool,
}

impl From<Array> for Parts {
    fn from(array: Array) -> Self {
        Self { arrays: vec![array], axis: 0, mask: None }
    }
}

impl Parts {
    /// The shape of the whole.
    pub(crate) fn shape(&self) -> Vec<usize> {
        let mut shape = self.arrays[0].shape.clone();
        let sides = self.arrays.iter().filter_map(|array| array.shape.get(self.axis));
        let joined = sides.fold(0usize, |sum, &side| sum.saturating_add(side));
        if let Some(side) = shape.get_mut(self.axis) {
            *side = joined;
        }
        shape
    }
}

impl Layout {
    pub(crate) fn of(arrays: Arrays) -> Self {
        let names = Names::of(&arrays);
        let hugging_face = arrays.keys().any(|name| name.starts_with("embeddings."));
        let timm_registers = arrays.contains_key("reg_token");
        let (mut parts, mut behind, mut rest) = (BTreeMap::new(), Vec::new(), arrays);
        names.stack(&mut rest, &mut parts);
        for (name, array) in rest {
            let renamed = names.rename(&name);
            if renamed.ends_with(COUNTER) {
                continue;
            }
            if BEHIND.iter().any(|prefix| renamed.starts_with(prefix)) {
                behind.push(name);
            } else {
                parts.insert(renamed, Parts::from(array));
            }
        }
        mask(&mut parts);
        if timm_registers && let Some(table) = parts.get_mut("pos_embed") {
            complete_table(table);
        }
        Self { parts, behind, hugging_face }
    }

    /// The first tensor of a gated perceptron, if the blocks have those in place of plain ones.
    ///
    /// timm packs the gate into a plain one's first map, which then is twice as wide as its second map reads.
    pub(crate) fn gated(&self) -> Option<&str> {
        let named = |name: &&String| {
            let (_, within) = name.split_once(".mlp.").unwrap_or_default();
            GATED.iter().any(|gated| within.starts_with(gated))
        };
        let packed = |name: &&String| {
            let second = name.strip_suffix("fc1.weight").map(|mlp| format!("{mlp}fc2.weight"));
            let Some(second) = second.and_then(|second| self.parts.get(&second)) else { return false };
            match (&self.parts[*name].shape()[..], &second.shape()[..]) {
                ([to, d], [back, from]) => d == back && from.checked_mul(2) == Some(*to),
                _ => false,
            }
        };
        self.parts.keys().find(|name| named(name) || packed(name)).map(String::as_str)
    }
}

impl Names {
    fn of(arrays: &Arrays) -> &'static Self {
        let found = LAYOUTS.iter().find(|names| arrays.keys().any(|name| name.contains(names.sign)));
        found.unwrap_or(&ORIGINAL)
    }

    /// The original's name; the name itself if the table does not know it.
    fn rename(&self, name: &str) -> String {
        if let Some((number, within)) = self.split_block(name) {
            return format!("blocks.{number}.{}", replaced(self.inner, within));
        }
        replaced(self.outer, name)
    }

    /// Number and rest of a name within a block; the number of a chunk before it says nothing.
    fn split_block<'a>(&self, name: &'a str) -> Option<(&'a str, &'a str)> {
        let (number, within) = name.strip_prefix(self.blocks)?.split_once('.')?;
        match within.split_once('.') {
            Some((inner, rest)) if !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_digit()) => {
                Some((inner, rest))
            }
            _ => Some((number, within)),
        }
    }

    /// Moves every complete triple of queries, keys and values from `arrays` to `parts`.
    fn stack(&self, arrays: &mut Arrays, parts: &mut BTreeMap<String, Parts>) {
        let [query, ..] = self.apart;
        let queries: Vec<String> = arrays.keys().filter(|name| name.contains(query)).cloned().collect();
        for name in queries {
            let [q, k, v] = self.apart.map(|part| name.replacen(query, part, 1));
            let (Some(queries), Some(values)) = (arrays.get(&q), arrays.get(&v)) else { continue };
            let left_out = self.keyless && name.ends_with("bias");
            let zeros = || left_out.then(|| Array::zeros(queries.shape.clone(), queries.dtype.clone()));
            let Some(keys) = arrays.get(&k).cloned().or_else(zeros) else { continue };
            if queries.shape == keys.shape && queries.shape == values.shape {
                let stacked = self.rename(&name.replacen(query, "attn.qkv.", 1));
                let found = vec![queries.clone(), keys, values.clone()];
                parts.insert(stacked, Parts { arrays: found, axis: 0, mask: None });
                [q, k, v].iter().for_each(|name| drop(arrays.remove(name)));
            }
        }
    }
}

/// A name with its prefix replaced, if a table has it.
fn replaced(table: &[(&str, &str)], name: &str) -> String {
    let found = table.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
    found.unwrap_or_else(|| name.to_owned())
}

/// Puts the masks of DINOv3's biases where they belong: `attn.qkv.bias_mask` is a factor of `attn.qkv.bias`.
fn mask(parts: &mut BTreeMap<String, Parts>) {
    let masks: Vec<String> = parts.keys().filter(|name| name.ends_with(".qkv.bias_mask")).cloned().collect();
    for name in masks {
        let (shape, whole) = (parts[&name].shape(), parts[&name].arrays.len() == 1);
        let bias = name.trim_end_matches("_mask");
        if whole
            && parts.get(bias).is_some_and(|bias| bias.shape() == shape)
            && let Some(mask) = parts.remove(&name).and_then(|mut mask| mask.arrays.pop())
            && let Some(bias) = parts.get_mut(bias)
        {
            bias.mask = Some(mask);
        }
    }
}

/// Gives a position table without an entry for the class token (timm's, who adds it to the token) one of zeros.
fn complete_table(table: &mut Parts) {
    if let [1, entries, d] = table.arrays[0].shape[..]
        && entries.isqrt().pow(2) == entries
    {
        table.axis = 1;
        table.arrays.insert(0, Array::zeros(vec![1, 1, d], table.arrays[0].dtype.clone()));
    }
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

    /// The original's names of some tensors, all under one table.
    fn renamed<const N: usize>(pairs: [(&str, &str); N]) {
        let given: Vec<(&str, &[usize])> = pairs.iter().map(|(from, _)| (*from, &[4][..])).collect();
        let names = Names::of(&arrays(&given));
        for (from, to) in pairs {
            assert_eq!(names.rename(from), to);
            assert_eq!(ORIGINAL.rename(to), to);
        }
    }

    #[test]
    fn hugging_face_names_become_dinos() {
        renamed([
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.register_tokens", "register_tokens"),
            ("embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias"),
            ("layernorm.weight", "norm.weight"),
            ("encoder.layer.11.layernorm_after.weight", "blocks.11.norm2.weight"),
            ("encoder.layer.0.attention.output.dense.bias", "blocks.0.attn.proj.bias"),
            ("encoder.layer.0.intermediate.dense.bias", "blocks.0.mlp.fc1.bias"),
            ("encoder.layer.0.output.dense.bias", "blocks.0.mlp.fc2.bias"),
            ("encoder.layer.0.norm2.bias", "blocks.0.norm2.bias"),
            ("encoder.layer.0.layer_scale2.lambda1", "blocks.0.ls2.gamma"),
        ]);
    }

    #[test]
    fn the_other_layouts_become_the_originals() {
        renamed([
            ("embeddings.register_tokens", "storage_tokens"),
            ("embeddings.patch_embeddings.weight", "patch_embed.proj.weight"),
            ("layer.7.attention.q_proj.weight", "blocks.7.attention.q_proj.weight"), // stacked before
            ("layer.7.attention.o_proj.weight", "blocks.7.attn.proj.weight"),
            ("layer.7.mlp.down_proj.bias", "blocks.7.mlp.fc2.bias"),
            ("layer.7.layer_scale1.lambda1", "blocks.7.ls1.gamma"),
            ("norm.bias", "norm.bias"),
        ]);
        renamed([("reg_token", "storage_tokens"), ("blocks.3.gamma_1", "blocks.3.ls1.gamma")]);
        renamed([("reg_token", "register_tokens"), ("blocks.3.ls1.gamma", "blocks.3.ls1.gamma")]);
        renamed([
            ("blocks.1.13.norm1.bias", "blocks.13.norm1.bias"),
            ("blocks.0.norm1.bias", "blocks.0.norm1.bias"),
        ]);
    }

    /// A layout's parts, by name.
    fn parts(names: &[(&str, &[usize])]) -> BTreeMap<String, Parts> {
        Layout::of(arrays(names)).parts
    }

    #[test]
    fn what_is_zero_is_put_back() {
        let block = "layer.0.attention.";
        let [q, v] = ["q_proj.bias", "v_proj.bias"].map(|part| format!("{block}{part}"));
        let found = parts(&[(&q, &[4]), (&v, &[4])]);
        let bias = &found["blocks.0.attn.qkv.bias"];
        assert_eq!((bias.shape(), bias.arrays[1].storage.clone()), (vec![12], Storage::Zeros));
        // Without a bias there is nothing to complete; a weight is never zero.
        assert!(parts(&[(&q, &[4])]).contains_key("blocks.0.attention.q_proj.bias"));
        let [q, v] = [q, v].map(|name| name.replace("bias", "weight"));
        assert_eq!(parts(&[(&q, &[4, 4]), (&v, &[4, 4])]).len(), 2);

        let timm = parts(&[
            ("blocks.0.gamma_1", &[4]),
            ("blocks.0.attn.q_bias", &[4]),
            ("blocks.0.attn.v_bias", &[4]),
        ]);
        assert_eq!(timm["blocks.0.attn.qkv.bias"].shape(), [12]);
        let table = |names: &[(&str, &[usize])]| parts(names)["pos_embed"].shape();
        assert_eq!(table(&[("reg_token", &[1, 4, 8]), ("pos_embed", &[1, 9, 8])]), [1, 10, 8]);
        assert_eq!(table(&[("reg_token", &[1, 4, 8]), ("pos_embed", &[1, 10, 8])]), [1, 10, 8]);
        assert_eq!(table(&[("register_tokens", &[1, 4, 8]), ("pos_embed", &[1, 9, 8])]), [1, 9, 8]);
    }

    #[test]
    fn masks_go_to_their_biases() {
        let (bias, mask) = ("blocks.0.attn.qkv.bias", "blocks.0.attn.qkv.bias_mask");
        let found = parts(&[(bias, &[12]), (mask, &[12])]);
        assert!(found.len() == 1 && found[bias].mask.is_some());
        assert_eq!(parts(&[(bias, &[12]), (mask, &[11])]).len(), 2);
        assert_eq!(parts(&[(mask, &[12])]).len(), 1);
    }

    #[test]
    fn gated_perceptrons_are_recognised() {
        let gated = |names: &[(&str, &[usize])]| Layout::of(arrays(names)).gated().map(str::to_owned);
        for name in [
            "blocks.0.mlp.w12.weight",
            "blocks.0.mlp.w3.bias",
            "encoder.layer.0.mlp.weights_in.weight",
            "blocks.0.mlp.fc1_g.weight",
        ] {
            assert!(gated(&[(name, &[16, 8])]).is_some(), "{name}");
        }
        let plain = ("layer.0.attention.q_proj.weight", &[8, 8][..]);
        assert!(gated(&[plain, ("layer.0.mlp.gate_proj.weight", &[16, 8])]).is_some());
        let mlp = |hidden| {
            gated(&[("blocks.0.mlp.fc1.weight", &[32, 8]), ("blocks.0.mlp.fc2.weight", &[8, hidden])])
        };
        assert_eq!((mlp(32), mlp(16).as_deref()), (None, Some("blocks.0.mlp.fc1.weight")));
    }

    #[test]
    fn queries_keys_and_values_are_stacked_in_this_order() {
        let block = "encoder.layer.3.attention.attention.";
        let names = ["query.weight", "key.weight", "value.weight"].map(|part| format!("{block}{part}"));
        let mut given = arrays(&[(&names[0], &[4, 4]), (&names[1], &[4, 4]), (&names[2], &[4, 4])]);
        for (offset, name) in names.iter().enumerate() {
            given.get_mut(name).unwrap().offset = offset;
        }
        let layout = Layout::of(given);
        let stacked = &layout.parts["blocks.3.attn.qkv.weight"];
        assert_eq!((layout.parts.len(), layout.behind.len()), (1, 0));
        assert_eq!(stacked.shape(), [12, 4]);
        assert_eq!(stacked.arrays.iter().map(|array| array.offset).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn an_incomplete_triple_is_left_to_be_reported() {
        let query = "encoder.layer.0.attention.attention.query.bias";
        let parts = parts(&[(query, &[4]), (&query.replace("query", "key"), &[4])]);
        assert_eq!(parts.len(), 2);
        assert!(parts.keys().all(|name| name.starts_with("blocks.0.attention.attention.")));
    }

    #[test]
    fn heads_lie_behind() {
        let names = ["norm.bias", "head.mlp.0.bias", "fc_norm.bias", "mask_token", "local_cls_norm.bias"];
        let layout = Layout::of(arrays(&names.map(|name| (name, &[4][..]))));
        assert_eq!(layout.parts.keys().collect::<Vec<_>>(), ["norm.bias"]);
        assert_eq!(layout.behind, ["fc_norm.bias", "head.mlp.0.bias", "local_cls_norm.bias", "mask_token"]);
    }
}
