//! DINOv3 (Siméoni et al. 2025): a vision transformer with layer scale and registers, whose patches know their places by
//! rotation alone.
//!
//! `x = [cls; storage tokens; patches W]`, then for every block `x += γ₁ Attn(LN1 x)`, `x += γ₂ MLP(LN2 x)`, and a final
//! layer norm. There is no position table: in every block the queries and keys of the patches are turned by angles
//! ([`Rope`]) that follow from where a patch's centre lies in the image, `2 (i + ½) / gh - 1` and likewise for columns, so
//! that the image is `[-1, 1]` wide and high whatever its shape. Class token and storage tokens (which other models call
//! registers) are not turned. Keys have no bias: the original keeps one and multiplies it by zeros (`bias_mask`).
//!
//! The periods of the rotation are `θ^(4 k / hd)` with θ = 100. The original stores them, rounded to 16 bits in the
//! published files, and where a file has them they are used; they are not in Hugging Face's or timm's files.
//! Layer norms add 1e-5, unlike the earlier models. The facets query and key are what the projection gives, before they
//! are turned. The perceptron is the plain one of S, B and L; a file with the gated one of the "plus"
//! models and the 7B is refused when it is read.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;

use super::config::{Shaped, VitConfig};
use super::encoder::{Encoder, Entry, Model};
use super::patch_embed::PatchEmbed;
use crate::nn::Rope;
use crate::{Error, Result};

/// Side of a patch in the published models, and their number of storage tokens.
const PATCH: usize = 16;
const REGISTERS: usize = 4;

/// The layer norm epsilon of DINOv3.
pub(crate) const DINOV3_EPS: f64 = 1e-5;

/// The base of the periods in the published models.
pub(crate) const ROPE_THETA: f64 = 100.0;

/// Sizes of a DINOv3 model.
#[derive(Debug, Clone, PartialEq)]
pub struct Dinov3Config {
    /// The sizes that it shares with a plain vision transformer; its `grid` is 0, as there is no position table.
    pub vit: VitConfig,
    /// `r`, the number of storage tokens.
    pub registers: usize,
    /// θ, from which the periods follow where the state dict has none.
    pub rope_theta: f64,
    /// How many periods the state dict has, if it has any: a quarter of a head's dimensions.
    pub periods: Option<usize>,
}

impl Dinov3Config {
    /// The configuration of `dinov3_SIZE_patch16`: micro (ours), small, base or large.
    ///
    /// ```
    /// let config = backbone::Dinov3Config::by_name("dinov3_large_patch16").expect("a published size");
    /// assert_eq!((config.vit.embed_dim, config.vit.depth, config.registers), (1024, 24, 4));
    /// ```
    pub fn by_name(name: &str) -> Option<Self> {
        let size = name.strip_prefix("dinov3_")?.strip_suffix("_patch16")?;
        let vit = VitConfig::of_size(size, PATCH, 0).filter(|_| size != "tiny")?;
        let vit = VitConfig { layer_norm_eps: DINOV3_EPS, ..vit };
        Some(Self { vit, registers: REGISTERS, rope_theta: ROPE_THETA, periods: None })
    }

    /// A name for all that is not in the weights, as [`VitConfig::architecture`].
    ///
    /// The number of storage tokens is spelled out where it is not 4, and θ where it is not 100 and periods follow from it.
    pub fn architecture(&self) -> String {
        let family = match self.registers {
            REGISTERS => "dinov3".to_owned(),
            r => format!("dinov3_reg{r}"),
        };
        let mut name = self.vit.named(&family, self.vit.size(), DINOV3_EPS);
        if self.rope_theta != ROPE_THETA && self.periods.is_none() {
            name += &format!("_theta{}", self.rope_theta);
        }
        name
    }

    /// Every tensor of the state dict with its shape, in the original's names.
    pub(crate) fn tensors(&self) -> Shaped {
        let d = self.vit.embed_dim;
        let mut all = vec![("cls_token".to_owned(), vec![1, 1, d])];
        if self.registers > 0 {
            all.push(("storage_tokens".to_owned(), vec![1, self.registers, d]));
        }
        all.extend(self.periods.map(|n| ("rope_embed.periods".to_owned(), vec![n])));
        all.extend(self.vit.trunk(true));
        all
    }

    /// `Ok` if the heads share the dimensions out evenly, and each splits into rotated pairs for rows and for columns.
    pub(super) fn check_heads(&self) -> Result<()> {
        self.vit.check_heads()?;
        let head_dim = self.vit.head_dim();
        let periods = self.periods.unwrap_or(head_dim / 4);
        if periods == 0 || periods.checked_mul(4) != Some(head_dim) {
            return Err(Error::RotatedHeads { num_heads: self.vit.num_heads, head_dim, periods });
        }
        Ok(())
    }

    /// `θ^(4 k / hd)`, `[hd / 4]`.
    fn own_periods(&self) -> Vec<f32> {
        let n = self.vit.head_dim() / 4;
        (0..n).map(|k| self.rope_theta.powf(k as f64 / n as f64) as f32).collect()
    }
}

/// The rotations of a grid, which the next images mostly have too.
type Rotations = ((usize, usize), Arc<Rope>);

/// A DINOv3 model with its weights.
pub struct Dinov3 {
    patch_embed: PatchEmbed,
    before: Tensor,    // [1, 1 + r, d]: cls_token, storage_tokens
    periods: Vec<f32>, // [hd / 4]
    last: Mutex<Option<Rotations>>,
    encoder: Encoder, // blocks, norm
}

impl Dinov3 {
    /// The model of a state dict in the original's names, the mask of `qkv.bias` multiplied in.
    ///
    /// # Errors
    /// [`Error::Heads`] or [`Error::RotatedHeads`] if the heads do not share `embed_dim` out or cannot be rotated,
    /// [`Error::Tensor`] if a tensor is missing or has another shape than the configuration implies.
    pub fn new(vb: VarBuilder<'_>, config: &Dinov3Config) -> Result<Self> {
        config.check_heads()?;
        let Dinov3Config { vit, registers, periods, .. } = config;
        let d = vit.embed_dim;
        let wide = vb.to_dtype(DType::F32);
        let mut before = vec![wide.get((1, 1, d), "cls_token")?];
        if *registers > 0 {
            before.push(wide.get((1, *registers, d), "storage_tokens")?);
        }
        let periods = match periods {
            Some(n) => wide.get(*n, "rope_embed.periods")?.to_vec1()?,
            None => config.own_periods(),
        };
        Ok(Self {
            patch_embed: PatchEmbed::new(vb.pp("patch_embed"), vit)?,
            before: Tensor::cat(&before, 1)?,
            periods,
            last: Mutex::default(),
            encoder: Encoder::new(vb, vit, true, vit.spec_of(config.architecture(), *registers))?,
        })
    }
}

impl Dinov3 {
    /// The rotations of `still` tokens and the patches of a grid.
    fn rope(&self, grid: (usize, usize), still: usize, device: &Device) -> Result<Arc<Rope>> {
        // A poisoned lock is harmless: rotations are put there whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rope)) = last.as_ref().filter(|(known, _)| *known == grid) {
            return Ok(Arc::clone(rope));
        }
        let rope = Arc::new(Rope::new(&self.periods, still, &centres(grid), device)?);
        *last = Some((grid, Arc::clone(&rope)));
        Ok(rope)
    }
}

/// Row and column of every patch's centre, where the image is `[-1, 1]` high and wide: `[t, 2]`.
fn centres((gh, gw): (usize, usize)) -> Vec<[f64; 2]> {
    let at = |i: usize, n: usize| 2.0 * (i as f64 + 0.5) / n as f64 - 1.0;
    (0..gh).flat_map(|i| (0..gw).map(move |j| [at(i, gh), at(j, gw)])).collect()
}

impl Model for Dinov3 {
    fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Images `[b, 3, h, w]` as the tokens that enter the first block, `[b, 1 + r + t, d]`.
    fn embed(&self, images: &Tensor) -> Result<Entry> {
        let grid = self.patch_embed.grid(images)?;
        let patches = self.patch_embed.forward(images)?; // [b, t, d]
        let (_, n, d) = self.before.dims3()?;
        let before = self.before.expand((patches.dim(0)?, n, d))?;
        let rope = self.rope(grid, n, images.device())?;
        Ok(Entry { tokens: Tensor::cat(&[&before, &patches], 1)?, grid, rope: Some(rope) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str) -> usize {
        let tensors = Dinov3Config::by_name(name).unwrap().tensors();
        tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Parameter counts of timm's models, which have no bias of keys: `d` for each block.
    #[test]
    fn sizes_count_the_published_parameters() {
        assert_eq!(count("dinov3_small_patch16"), 21_596_160 + 12 * 384);
        assert_eq!(count("dinov3_base_patch16"), 85_659_648 + 12 * 768);
        assert_eq!(count("dinov3_large_patch16"), 303_128_576 + 24 * 1024);
    }

    #[test]
    fn names_are_read_back_and_say_what_the_weights_do_not() {
        for size in ["micro", "small", "base", "large"] {
            let name = format!("dinov3_{size}_patch16");
            assert_eq!(Dinov3Config::by_name(&name).unwrap().architecture(), name);
        }
        let small = Dinov3Config::by_name("dinov3_small_patch16").unwrap();
        let theta = Dinov3Config { rope_theta: 50.0, ..small.clone() };
        assert_eq!(theta.architecture(), "dinov3_small_patch16_theta50");
        // Periods in the state dict are weights, and no base stands behind them.
        let periods = Dinov3Config { periods: Some(16), ..theta };
        assert_eq!(periods.architecture(), "dinov3_small_patch16");
        let vit = VitConfig { layer_norm_eps: 1e-6, ..small.vit.clone() };
        assert_eq!(Dinov3Config { vit, ..small }.architecture(), "dinov3_small_patch16_eps1e-6");
    }

    #[test]
    fn heads_are_rotated_four_dimensions_at_a_time() {
        let small = Dinov3Config::by_name("dinov3_small_patch16").unwrap();
        let check = |num_heads, periods| {
            let vit = VitConfig { num_heads, ..small.vit.clone() };
            Dinov3Config { vit, periods, ..small.clone() }.check_heads()
        };
        assert!(check(6, None).is_ok() && check(6, Some(16)).is_ok() && check(96, None).is_ok());
        assert!(matches!(check(64, None), Err(Error::RotatedHeads { head_dim: 6, periods: 1, .. })));
        assert!(matches!(check(384, None), Err(Error::RotatedHeads { periods: 0, .. })));
        assert!(check(6, Some(8)).unwrap_err().is_usage() && check(5, None).unwrap_err().is_usage());
        let bases = small.own_periods();
        assert_eq!((bases.len(), bases[0], bases[8]), (16, 1.0, 10.0));
    }

    #[test]
    fn the_image_is_two_wide_and_high_whatever_its_shape() {
        assert_eq!(centres((1, 1)), [[0.0, 0.0]]);
        assert_eq!(centres((2, 4))[..2], [[-0.5, -0.75], [-0.5, -0.25]]);
        let all = centres((3, 5));
        assert_eq!((all.len(), all[0], all[14]), (15, [1.0 / 3.0 - 1.0, -0.8], [5.0 / 3.0 - 1.0, 0.8]));
    }
}
