//! DINOv2 (Oquab et al. 2023), and DINOv2 with registers (Darcet et al. 2023): a vision transformer with layer scale.
//!
//! `x = [cls + pos₀; registers; patches W + pos₁…]`, then for every block `x += γ₁ Attn(LN1 x)`, `x += γ₂ MLP(LN2 x)`,
//! and a final layer norm. Registers are learned tokens without a position, which take part in attention and are no
//! features. The perceptron is the plain one of the models S, B and L; a file with the
//! giant's gated one is refused when it is read.
//!
//! The position table (37 × 37 in the published models, for 518 px) is resampled to other grids in one of three ways,
//! see [`Resampling`]. With registers, all implementations resize it antialiased. Without, the original resamples by a scale
//! that is a tenth of a patch too large, and Hugging Face's model resizes; so a file in Hugging Face's names is resized, and
//! any other is the original's (timm's too, which cannot be told apart). At the table's own grid there is no difference. The
//! architecture says which one it is: `…_resized` is not the original's.

use candle_core::{DType, IndexOp, Tensor};
use candle_nn::VarBuilder;

use super::config::{LAYER_NORM_EPS, Shaped, VitConfig};
use super::encoder::{Encoder, Entry, Model};
use super::patch_embed::PatchEmbed;
use super::position::{PositionEmbedding, Resampling};
use crate::Result;

/// Side of a patch and of the position table in the published models.
const PATCH: usize = 14;
const GRID: usize = 37;

/// The registers of the published models that have any.
const REGISTERS: usize = 4;

/// Sizes of a DINOv2 model, and how its position table is resampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Dinov2Config {
    /// The sizes that it shares with a plain vision transformer.
    pub vit: VitConfig,
    /// `r`, the number of register tokens; 0 for the first models.
    pub registers: usize,
    /// The way of the position table to other grids than its own.
    pub resampling: Resampling,
}

impl Dinov2Config {
    /// The configuration of `dinov2_SIZE_patch14` or `dinov2_reg4_SIZE_patch14`: micro (ours), small, base or large.
    ///
    /// ```
    /// let config = backbone::Dinov2Config::by_name("dinov2_reg4_small_patch14").expect("a published size");
    /// assert_eq!((config.vit.embed_dim, config.vit.grid, config.registers), (384, 37, 4));
    /// assert_eq!(config.architecture(), "dinov2_reg4_small_patch14");
    /// ```
    pub fn by_name(name: &str) -> Option<Self> {
        let size = name.strip_prefix("dinov2_")?.strip_suffix("_patch14")?;
        let (registers, size) = match size.strip_prefix("reg4_") {
            Some(size) => (REGISTERS, size),
            None => (0, size),
        };
        let vit = VitConfig::of_size(size, PATCH, GRID).filter(|_| size != "tiny")?;
        Some(Self { vit, registers, resampling: Self::original(registers) })
    }

    /// How the original implementation resamples the table of a model with so many registers.
    pub(crate) fn original(registers: usize) -> Resampling {
        if registers == 0 { Resampling::Tenth } else { Resampling::Antialiased }
    }

    /// A name for all that is not in the weights, as [`VitConfig::architecture`]; the resampling, where it is not the
    /// original's, is its last word.
    pub fn architecture(&self) -> String {
        let family = match self.registers {
            0 => "dinov2".to_owned(),
            r => format!("dinov2_reg{r}"),
        };
        let name = self.vit.named(&family, self.vit.size(), LAYER_NORM_EPS);
        match self.resampling {
            own if own == Self::original(self.registers) => name,
            other => format!("{name}_{other}"),
        }
    }

    /// Every tensor of the state dict with its shape, in the original's names.
    pub(crate) fn tensors(&self) -> Shaped {
        let d = self.vit.embed_dim;
        let mut all = vec![
            ("cls_token".to_owned(), vec![1, 1, d]),
            ("register_tokens".to_owned(), vec![1, self.registers, d]),
            ("pos_embed".to_owned(), vec![1, 1 + self.vit.grid * self.vit.grid, d]),
        ];
        all.retain(|(name, _)| self.registers > 0 || name != "register_tokens");
        all.extend(self.vit.trunk(true));
        all
    }
}

/// A DINOv2 model with its weights.
pub struct Dinov2 {
    patch_embed: PatchEmbed,
    cls_token: Tensor,               // [1, 1, d]
    register_tokens: Option<Tensor>, // [1, r, d]
    pos_embed: PositionEmbedding,
    encoder: Encoder, // blocks, norm
}

impl Dinov2 {
    /// The model of a state dict in the original's names.
    ///
    /// # Errors
    /// [`Error::Heads`](crate::Error::Heads) if the number of heads does not divide `embed_dim`,
    /// [`Error::Tensor`](crate::Error::Tensor) if a tensor is missing or has another shape than the configuration implies.
    pub fn new(vb: VarBuilder<'_>, config: &Dinov2Config) -> Result<Self> {
        let Dinov2Config { vit, registers, resampling } = config;
        vit.check_heads()?;
        let d = vit.embed_dim;
        let wide = vb.to_dtype(DType::F32);
        let table = wide.get((1, 1 + vit.grid * vit.grid, d), "pos_embed")?;
        let register_tokens = (*registers > 0).then(|| wide.get((1, *registers, d), "register_tokens"));
        Ok(Self {
            patch_embed: PatchEmbed::new(vb.pp("patch_embed"), vit)?,
            cls_token: wide.get((1, 1, d), "cls_token")?,
            register_tokens: register_tokens.transpose()?,
            pos_embed: PositionEmbedding::new(table, *resampling),
            encoder: Encoder::new(vb, vit, true, vit.spec_of(config.architecture(), *registers))?,
        })
    }
}

impl Model for Dinov2 {
    fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Images `[b, 3, h, w]` as the tokens that enter the first block, `[b, 1 + r + t, d]`.
    fn embed(&self, images: &Tensor) -> Result<Entry> {
        let grid = self.patch_embed.grid(images)?;
        let pos = self.pos_embed.at(grid)?; // [1, 1 + t, d]
        let patches = self.patch_embed.forward(images)?.broadcast_add(&pos.i((.., 1..))?)?; // [b, t, d]
        let cls = (&self.cls_token + pos.i((.., ..1))?)?; // [1, 1, d]
        let before: Vec<&Tensor> =
            [Some(&cls), self.register_tokens.as_ref()].into_iter().flatten().collect();
        let before = Tensor::cat(&before, 1)?; // [1, 1 + r, d]
        let (_, n, d) = before.dims3()?;
        let before = before.expand((patches.dim(0)?, n, d))?;
        Ok(Entry { tokens: Tensor::cat(&[&before, &patches], 1)?, grid, rope: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str) -> usize {
        let tensors = Dinov2Config::by_name(name).unwrap().tensors();
        tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Parameter counts of timm's models; with registers theirs lack the class token's entry of the position table.
    #[test]
    fn sizes_count_the_published_parameters() {
        assert_eq!(count("dinov2_small_patch14"), 22_056_192);
        assert_eq!(count("dinov2_base_patch14"), 86_579_712);
        assert_eq!(count("dinov2_large_patch14"), 304_367_616);
        assert_eq!(count("dinov2_reg4_small_patch14"), 22_057_344 + 384);
    }

    #[test]
    fn names_are_read_back_and_say_how_positions_are_resampled() {
        for size in ["micro", "small", "base", "large"] {
            for name in [format!("dinov2_{size}_patch14"), format!("dinov2_reg4_{size}_patch14")] {
                assert_eq!(Dinov2Config::by_name(&name).unwrap().architecture(), name);
            }
        }
        let plain = Dinov2Config::by_name("dinov2_small_patch14").unwrap();
        assert_eq!(plain.resampling, Resampling::Tenth);
        let with =
            |config: &Dinov2Config, resampling| Dinov2Config { resampling, ..config.clone() }.architecture();
        assert_eq!(with(&plain, Resampling::Resized), "dinov2_small_patch14_resized");
        assert_eq!(with(&plain, Resampling::Antialiased), "dinov2_small_patch14_antialiased");
        let registers = Dinov2Config::by_name("dinov2_reg4_base_patch14").unwrap();
        assert_eq!(with(&registers, Resampling::Tenth), "dinov2_reg4_base_patch14_tenth");
        let odd = Dinov2Config { registers: 3, vit: VitConfig { depth: 2, ..registers.vit }, ..registers };
        assert_eq!(odd.architecture(), "dinov2_reg3_d768_depth2_heads12_patch14");
    }
}
