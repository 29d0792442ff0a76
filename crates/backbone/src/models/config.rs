//! The sizes of a vision transformer, and the names and shapes of the tensors that follow from them.
//!
//! The names are those of DINO's published state dicts. They are listed once, here: reading checks a checkpoint
//! against this list, and random initialisation fills it.

use serde::{Deserialize, Serialize};

use crate::{BackboneSpec, Error, Result};

/// Side of the images whose patches the position table of the published models covers, in pixels.
const TABLE_PX: usize = 224;

/// The layer norm epsilon of DINO and timm.
pub(crate) const LAYER_NORM_EPS: f64 = 1e-6;

/// Published sizes: name, `embed_dim`, `depth`, `num_heads`. "micro" is ours: a tiny of four blocks, for demos.
const SIZES: [(&str, usize, usize, usize); 5] = [
    ("micro", 192, 4, 3),
    ("tiny", 192, 12, 3),
    ("small", 384, 12, 6),
    ("base", 768, 12, 12),
    (LARGE, 1024, 24, 16),
];

/// A size that DINO was not published in: only its successors are called so.
const LARGE: &str = "large";

/// Tensors by name, with their shapes.
pub(crate) type Shaped = Vec<(String, Vec<usize>)>;

/// Sizes of a pre-norm vision transformer with a class token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VitConfig {
    /// `d`, the length of a token.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block; each has `d / num_heads` dimensions.
    pub num_heads: usize,
    /// Hidden units of a block's perceptron.
    pub mlp_dim: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Side `G` of the position table: it has one entry for each of `G * G` patches and one for the class token.
    pub grid: usize,
    /// Whether queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Added to the variance by every layer norm.
    pub layer_norm_eps: f64,
}

impl VitConfig {
    /// The configuration of a name such as `vit_small_patch8`: micro, tiny, small or base with patches of 8 or 16.
    ///
    /// ```
    /// let config = backbone::VitConfig::by_name("vit_base_patch16").expect("a published size");
    /// assert_eq!((config.embed_dim, config.num_heads, config.grid), (768, 12, 14));
    /// assert!(backbone::VitConfig::by_name("vit_base_patch7").is_none());
    /// ```
    pub fn by_name(name: &str) -> Option<Self> {
        let (size, patch) = name.strip_prefix("vit_")?.split_once("_patch")?;
        let patch_size = [8, 16].into_iter().find(|side| side.to_string() == patch)?;
        let known = size != LARGE && (size != "micro" || patch_size == 8);
        Self::of_size(size, patch_size, TABLE_PX / patch_size).filter(|_| known)
    }

    /// A published size with these patches and this side of its position table.
    pub(super) fn of_size(size: &str, patch_size: usize, grid: usize) -> Option<Self> {
        let &(_, embed_dim, depth, num_heads) = SIZES.iter().find(|row| row.0 == size)?;
        Some(Self {
            embed_dim,
            depth,
            num_heads,
            mlp_dim: 4 * embed_dim,
            patch_size,
            grid,
            qkv_bias: true,
            layer_norm_eps: LAYER_NORM_EPS,
        })
    }

    /// Dimensions of one head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim / self.num_heads
    }

    /// A name for all of this: `vit_small_patch8` for a published size, else one that spells the sizes out.
    ///
    /// It says everything that changes the numbers and is not in the weights: the number of heads (by the sizes it
    /// belongs to, or in full) and the epsilon, where it is not DINO's.
    pub fn architecture(&self) -> String {
        let size = self.size().filter(|size| *size != LARGE);
        self.named("vit", size, LAYER_NORM_EPS)
    }

    /// The published size that this is, by embedding, depth and heads.
    pub(super) fn size(&self) -> Option<&'static str> {
        let same = |row: &&(_, usize, usize, usize)| {
            (row.1, row.2, row.3) == (self.embed_dim, self.depth, self.num_heads)
        };
        SIZES.iter().find(same).map(|row| row.0)
    }

    /// `FAMILY_SIZE_patchP`, the size spelled out where it has no name, and the epsilon where it is not the family's own.
    pub(super) fn named(&self, family: &str, size: Option<&str>, own_eps: f64) -> String {
        let size = match size {
            Some(size) => size.to_owned(),
            None => format!("d{}_depth{}_heads{}", self.embed_dim, self.depth, self.num_heads),
        };
        let mut name = format!("{family}_{size}_patch{}", self.patch_size);
        if self.layer_norm_eps != own_eps {
            name += &format!("_eps{:e}", self.layer_norm_eps);
        }
        name
    }

    /// Name and sizes of DINO's model as a caller sees them.
    #[must_use]
    pub fn spec(&self) -> BackboneSpec {
        self.spec_of(self.architecture(), 0)
    }

    /// Name and sizes of a model with `registers` register tokens.
    pub(super) fn spec_of(&self, architecture: String, registers: usize) -> BackboneSpec {
        BackboneSpec {
            architecture,
            embed_dim: self.embed_dim,
            depth: self.depth,
            num_heads: self.num_heads,
            mlp_dim: self.mlp_dim,
            patch_size: self.patch_size,
            registers,
            stages: Vec::new(),
        }
    }

    /// `Ok` if the heads share the dimensions out evenly.
    pub(crate) fn check_heads(&self) -> Result<()> {
        let (num_heads, embed_dim) = (self.num_heads, self.embed_dim);
        if num_heads == 0 || embed_dim % num_heads != 0 {
            return Err(Error::Heads { num_heads, embed_dim });
        }
        Ok(())
    }

    /// Every tensor of the state dict with its shape, in the order of the forward pass.
    pub(crate) fn tensors(&self) -> Shaped {
        let d = self.embed_dim;
        let own = [("cls_token", vec![1, 1, d]), ("pos_embed", vec![1, 1 + self.grid * self.grid, d])];
        own.map(|(name, shape)| (name.to_owned(), shape)).into_iter().chain(self.trunk(false)).collect()
    }

    /// The tensors that follow the tokens of a model's own: patches, blocks and the last norm.
    ///
    /// * `layer_scale`: whether the blocks have one.
    pub(super) fn trunk(&self, layer_scale: bool) -> Shaped {
        let (d, p) = (self.embed_dim, self.patch_size);
        let mut all = vec![
            ("patch_embed.proj.weight".to_owned(), vec![d, 3, p, p]),
            ("patch_embed.proj.bias".to_owned(), vec![d]),
        ];
        for i in 0..self.depth {
            let of_block = self.block_tensors(layer_scale).into_iter();
            all.extend(of_block.map(|(name, shape)| (format!("blocks.{i}.{name}"), shape)));
        }
        all.extend([("norm.weight".to_owned(), vec![d]), ("norm.bias".to_owned(), vec![d])]);
        all
    }

    fn block_tensors(&self, layer_scale: bool) -> Vec<(&'static str, Vec<usize>)> {
        let (d, hidden) = (self.embed_dim, self.mlp_dim);
        let mut tensors = vec![
            ("norm1.weight", vec![d]),
            ("norm1.bias", vec![d]),
            ("attn.qkv.weight", vec![3 * d, d]),
            ("attn.qkv.bias", vec![3 * d]),
            ("attn.proj.weight", vec![d, d]),
            ("attn.proj.bias", vec![d]),
            ("ls1.gamma", vec![d]),
            ("norm2.weight", vec![d]),
            ("norm2.bias", vec![d]),
            ("mlp.fc1.weight", vec![hidden, d]),
            ("mlp.fc1.bias", vec![hidden]),
            ("mlp.fc2.weight", vec![d, hidden]),
            ("mlp.fc2.bias", vec![d]),
            ("ls2.gamma", vec![d]),
        ];
        tensors.retain(|(name, _)| {
            (self.qkv_bias || *name != "attn.qkv.bias") && (layer_scale || !name.starts_with("ls"))
        });
        tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameter counts that DINO's repository states.
    #[test]
    fn sizes_count_the_published_parameters() {
        let count = |name: &str| {
            let tensors = VitConfig::by_name(name).unwrap().tensors();
            tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>()
        };
        assert_eq!(count("vit_small_patch16"), 21_665_664);
        assert_eq!(count("vit_small_patch8"), 21_670_272);
        assert_eq!(count("vit_tiny_patch16"), 5_524_416);
        assert_eq!(count("vit_base_patch16"), 85_798_656);
    }

    #[test]
    fn names_are_read_back() {
        for family in ["vit_tiny", "vit_small", "vit_base"] {
            for patch in [8, 16] {
                let name = format!("{family}_patch{patch}");
                assert_eq!(VitConfig::by_name(&name).unwrap().architecture(), name);
            }
        }
        assert_eq!(VitConfig::by_name("vit_micro_patch8").unwrap().architecture(), "vit_micro_patch8");
        for unknown in [
            "vit_micro_patch16",
            "vit_small",
            "vit_small_patch08",
            "vit_huge_patch16",
            "vit_large_patch16",
            "",
        ] {
            assert!(VitConfig::by_name(unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn the_architecture_says_what_the_weights_do_not() {
        let small = VitConfig::by_name("vit_small_patch8").unwrap();
        assert_eq!(small.layer_norm_eps, 1e-6); // DINO's; PyTorch's own default is 1e-5
        let heads = VitConfig { num_heads: 12, ..small.clone() };
        assert_eq!(heads.architecture(), "vit_d384_depth12_heads12_patch8");
        let eps = VitConfig { layer_norm_eps: 1e-12, ..small.clone() };
        assert_eq!(eps.architecture(), "vit_small_patch8_eps1e-12");
        let large = VitConfig { embed_dim: 1024, depth: 24, num_heads: 16, ..small.clone() };
        assert_eq!(large.architecture(), "vit_d1024_depth24_heads16_patch8");
        assert!(VitConfig { num_heads: 5, ..small.clone() }.check_heads().unwrap_err().is_usage());
        assert!(VitConfig { num_heads: 0, ..small }.check_heads().is_err());
    }

    #[test]
    fn a_bias_less_qkv_has_no_bias_tensor() {
        let config = VitConfig { qkv_bias: false, ..VitConfig::by_name("vit_micro_patch8").unwrap() };
        assert!(config.tensors().iter().all(|(name, _)| !name.ends_with("qkv.bias")));
        assert_eq!(config.tensors().len(), 6 + 4 * 11);
    }
}
