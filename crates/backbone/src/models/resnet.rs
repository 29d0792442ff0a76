//! ResNets (He et al. 2015) as torchvision names and computes them, read from images to the feature maps of their stages.
//!
//! A stem (7 x 7 at stride 2 and a maximum over 3 x 3 at stride 2; or for small images, as CIFAR's, one 3 x 3 convolution), four
//! stages of residual blocks, each but the first at half the size of the one before. Blocks are *basic* (two 3 x 3) or
//! *bottlenecks* (1 x 1, 3 x 3 with the stride, 1 x 1 to four times the width). The pixels of a stage's map are its patch tokens,
//! their mean stands for the class token. Frozen: batch norms are the affine maps of their running statistics.

use candle_core::{D, DType, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, Module, VarBuilder};
use serde::{Deserialize, Serialize};

use super::Shaped;
use crate::backbone::Stage;
use crate::{Backbone, BackboneSpec, Error, Facet, Features, Layer, Result};

/// Added to the variance by every batch norm.
const EPS: f64 = 1e-5;

/// Sizes of a ResNet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResNetConfig {
    /// Whether blocks are bottlenecks.
    pub bottleneck: bool,
    /// Blocks of each stage.
    pub blocks: [usize; 4],
    /// Width of the first stage, 64 in the published ones; it doubles from stage to stage.
    pub width: usize,
    /// Whether the stem is one 3 x 3 convolution at stride 1.
    pub small_stem: bool,
}

/// Published depths: blocks of each stage, and whether they are bottlenecks.
const DEPTHS: [(&str, [usize; 4], bool); 4] = [
    ("18", [2, 2, 2, 2], false),
    ("34", [3, 4, 6, 3], false),
    ("50", [3, 4, 6, 3], true),
    ("101", [3, 4, 23, 3], true),
];

/// Width of the published models.
const WIDTH: usize = 64;

impl ResNetConfig {
    /// The configuration of a name: `resnet18`, 34, 50 or 101, then `_w16` for another width, then `_cifar` for the small stem.
    ///
    /// ```
    /// let config = backbone::ResNetConfig::by_name("resnet50").expect("a published size");
    /// assert_eq!((config.dim(3), config.stride(3)), (2048, 32));
    /// assert_eq!(backbone::ResNetConfig::by_name("resnet18_w16_cifar").map(|c| c.dim(3)), Some(128));
    /// assert!(backbone::ResNetConfig::by_name("resnet19").is_none());
    /// ```
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("resnet")?;
        let (rest, small_stem) = match rest.strip_suffix("_cifar") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (depth, width) = match rest.split_once("_w") {
            Some((depth, width)) => (depth, width.parse().ok().filter(|w| (1..=1024).contains(w))?),
            None => (rest, WIDTH),
        };
        let &(_, blocks, bottleneck) = DEPTHS.iter().find(|row| row.0 == depth)?;
        Some(Self { bottleneck, blocks, width, small_stem })
    }

    /// A name for all of this, as [`ResNetConfig::by_name`] reads it; one that spells the blocks out where it has none.
    #[must_use]
    pub fn architecture(&self) -> String {
        let depth = DEPTHS.iter().find(|row| (row.1, row.2) == (self.blocks, self.bottleneck));
        let depth = match depth {
            Some(row) => row.0.to_owned(),
            None => {
                let [a, b, c, d] = self.blocks;
                format!("_{a}_{b}_{c}_{d}{}", if self.bottleneck { "_bottleneck" } else { "" })
            }
        };
        let width = if self.width == WIDTH { String::new() } else { format!("_w{}", self.width) };
        format!("resnet{depth}{width}{}", if self.small_stem { "_cifar" } else { "" })
    }

    /// Features of a stage's map, `0..4`.
    #[must_use]
    pub fn dim(&self, stage: usize) -> usize {
        (self.width << stage) * if self.bottleneck { 4 } else { 1 }
    }

    /// Pixels of the image along a side of a pixel of a stage's map.
    #[must_use]
    pub fn stride(&self, stage: usize) -> usize {
        (if self.small_stem { 1 } else { 4 }) << stage
    }

    /// Inputs of a block.
    #[must_use]
    pub fn inputs(&self, stage: usize, block: usize) -> usize {
        match (stage, block) {
            (0, 0) => self.width,
            (_, 0) => self.dim(stage - 1),
            _ => self.dim(stage),
        }
    }

    /// The convolutions of a block: inputs, outputs, kernel, stride.
    #[must_use]
    pub fn convolutions(&self, stage: usize, block: usize) -> Vec<[usize; 4]> {
        let (inputs, width) = (self.inputs(stage, block), self.width << stage);
        let stride = if stage > 0 && block == 0 { 2 } else { 1 };
        match self.bottleneck {
            false => vec![[inputs, width, 3, stride], [width, width, 3, 1]],
            true => vec![[inputs, width, 1, 1], [width, width, 3, stride], [width, 4 * width, 1, 1]],
        }
    }

    /// Whether a block's shortcut is a convolution: where size or width change.
    #[must_use]
    pub fn has_shortcut(&self, stage: usize, block: usize) -> bool {
        block == 0 && (stage > 0 || self.inputs(stage, block) != self.dim(stage))
    }

    /// Name and sizes as a caller sees them.
    #[must_use]
    pub fn spec(&self) -> BackboneSpec {
        let mut work = 0.0;
        let mut stages = Vec::new();
        let stem_side = if self.small_stem { 1.0 } else { 2.0 };
        let stem_kernel = if self.small_stem { 9.0 } else { 49.0 };
        work += 2.0 * stem_kernel * 3.0 * self.width as f64 / (stem_side * stem_side);
        for stage in 0..4 {
            for block in 0..self.blocks[stage] {
                for [inputs, outputs, kernel, _] in self.convolutions(stage, block) {
                    // The stride's convolution leaves the smaller size; those before it in a bottleneck see the larger.
                    let before =
                        self.bottleneck && kernel == 1 && inputs != outputs / 4 && stage > 0 && block == 0;
                    let side = if before { self.stride(stage) / 2 } else { self.stride(stage) };
                    work += 2.0 * (kernel * kernel * inputs * outputs) as f64 / (side * side) as f64;
                }
                if self.has_shortcut(stage, block) {
                    let side = self.stride(stage);
                    work += 2.0 * (self.inputs(stage, block) * self.dim(stage)) as f64 / (side * side) as f64;
                }
            }
            stages.push(Stage { dim: self.dim(stage), stride: self.stride(stage), work_per_pixel: work });
        }
        BackboneSpec {
            architecture: self.architecture(),
            embed_dim: self.dim(3),
            depth: 4,
            num_heads: 0,
            mlp_dim: 0,
            patch_size: self.stride(3),
            registers: 0,
            stages,
        }
    }

    /// Every tensor of the state dict with its shape, running statistics included.
    #[must_use]
    pub fn tensors(&self) -> Shaped {
        let mut all = Shaped::new();
        let mut conv = |name: String, norm: String, [inputs, outputs, kernel, _]: [usize; 4]| {
            all.push((format!("{name}.weight"), vec![outputs, inputs, kernel, kernel]));
            for part in ["weight", "bias", "running_mean", "running_var"] {
                all.push((format!("{norm}.{part}"), vec![outputs]));
            }
        };
        let kernel = if self.small_stem { 3 } else { 7 };
        conv("conv1".into(), "bn1".into(), [3, self.width, kernel, 1]);
        for stage in 0..4 {
            for block in 0..self.blocks[stage] {
                let name = format!("layer{}.{block}", stage + 1);
                for (i, sizes) in self.convolutions(stage, block).into_iter().enumerate() {
                    conv(format!("{name}.conv{}", i + 1), format!("{name}.bn{}", i + 1), sizes);
                }
                if self.has_shortcut(stage, block) {
                    let sizes = [self.inputs(stage, block), self.dim(stage), 1, 1];
                    conv(format!("{name}.downsample.0"), format!("{name}.downsample.1"), sizes);
                }
            }
        }
        all
    }

    /// The configuration that tensors of these shapes have; `None` if they look like no ResNet.
    pub(crate) fn read_off(shape: impl Fn(&str) -> Option<Vec<usize>>) -> Option<Self> {
        let stem = shape("conv1.weight").filter(|stem| stem.len() == 4)?;
        shape("layer1.0.conv1.weight")?;
        let count = |stage: usize| {
            let has = |block: &usize| shape(&format!("layer{stage}.{block}.conv1.weight")).is_some();
            (0..MAX_BLOCKS).take_while(has).count()
        };
        Some(Self {
            bottleneck: shape("layer1.0.conv3.weight").is_some(),
            blocks: [1, 2, 3, 4].map(count),
            width: stem[0].min(1 << 16),
            small_stem: stem[2] == 3,
        })
    }
}

/// No stage has as many blocks.
const MAX_BLOCKS: usize = 1000;

/// A convolution and the batch norm behind it.
struct ConvNorm {
    conv: Conv2d,
    scale: Tensor, // [1, c, 1, 1]
    shift: Tensor,
}

impl ConvNorm {
    fn new(
        vb: &VarBuilder<'_>,
        conv: &str,
        norm: &str,
        [inputs, outputs, kernel, stride]: [usize; 4],
    ) -> Result<Self> {
        let weight = vb.get((outputs, inputs, kernel, kernel), &format!("{conv}.weight"))?;
        let config = Conv2dConfig { padding: kernel / 2, stride, ..Conv2dConfig::default() };
        let vector = |name: &str| vb.get(outputs, &format!("{norm}.{name}"));
        let scale = (vector("weight")? / (vector("running_var")? + EPS)?.sqrt()?)?;
        let shift = (vector("bias")? - (vector("running_mean")? * &scale)?)?;
        let shape = (1, outputs, 1, 1);
        Ok(Self {
            conv: Conv2d::new(weight, None, config),
            scale: scale.reshape(shape)?,
            shift: shift.reshape(shape)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.conv.forward(x)?.broadcast_mul(&self.scale)?.broadcast_add(&self.shift)?)
    }
}

/// A residual block.
struct Block {
    layers: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            y = layer.forward(&y)?;
            if i + 1 < self.layers.len() {
                y = y.relu()?;
            }
        }
        let identity = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x)?,
            None => x.clone(),
        };
        Ok((y + identity)?.relu()?)
    }
}

/// A ResNet with its weights.
pub struct ResNet {
    stem: ConvNorm,
    stages: Vec<Vec<Block>>,
    config: ResNetConfig,
    spec: BackboneSpec,
}

impl ResNet {
    /// The model of a state dict in torchvision's names.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if a tensor is missing or has another shape than the configuration implies.
    pub fn new(vb: VarBuilder<'_>, config: &ResNetConfig) -> Result<Self> {
        let vb = vb.to_dtype(DType::F32);
        let (kernel, stride) = if config.small_stem { (3, 1) } else { (7, 2) };
        let stem = ConvNorm::new(&vb, "conv1", "bn1", [3, config.width, kernel, stride])?;
        let mut stages = Vec::new();
        for stage in 0..4 {
            let mut blocks = Vec::new();
            for block in 0..config.blocks[stage] {
                let name = format!("layer{}.{block}", stage + 1);
                let mut layers = Vec::new();
                for (i, sizes) in config.convolutions(stage, block).into_iter().enumerate() {
                    let (conv, norm) = (format!("{name}.conv{}", i + 1), format!("{name}.bn{}", i + 1));
                    layers.push(ConvNorm::new(&vb, &conv, &norm, sizes)?);
                }
                let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
                let sizes =
                    [config.inputs(stage, block), config.dim(stage), 1, if stage > 0 { 2 } else { 1 }];
                let shortcut =
                    config.has_shortcut(stage, block).then(|| ConvNorm::new(&vb, &conv, &norm, sizes));
                blocks.push(Block { layers, shortcut: shortcut.transpose()? });
            }
            stages.push(blocks);
        }
        Ok(Self { stem, stages, config: config.clone(), spec: config.spec() })
    }

    /// The maps of the stages up to `last`, `[b, c, h, w]` each.
    fn maps(&self, images: &Tensor, last: usize) -> Result<Vec<Tensor>> {
        let stride = self.spec.patch_size;
        match images.dims() {
            &[_, 3, h, w] if h >= stride && w >= stride && h % stride == 0 && w % stride == 0 => {}
            got => return Err(Error::Images { patch_size: stride, got: got.to_vec() }),
        }
        let mut x = self.stem.forward(images)?.relu()?;
        if !self.config.small_stem {
            // After the rectifier nothing is below 0, so that padding with 0 changes no maximum.
            x = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?.max_pool2d_with_stride(3, 2)?;
        }
        let mut maps = Vec::new();
        for stage in &self.stages[..=last] {
            for block in stage {
                x = block.forward(&x)?;
            }
            maps.push(x.clone());
        }
        Ok(maps)
    }

    fn features(&self, map: &Tensor) -> Result<Features> {
        let (_, _, h, w) = map.dims4()?;
        let patches = map.flatten_from(2)?.transpose(1, 2)?.contiguous()?; // [b, h w, c]
        Ok(Features { cls: patches.mean(1)?, patches, grid: (h, w) })
    }
}

impl Backbone for ResNet {
    fn spec(&self) -> &BackboneSpec {
        &self.spec
    }

    fn forward_layers(&self, images: &Tensor, layers: &[Layer]) -> Result<Vec<Features>> {
        let mut stages = Vec::new();
        for layer in layers {
            if layer.facet != Facet::Token {
                return Err(Error::Convolutional { what: format!("{}s", layer.facet) });
            }
            stages.push(self.spec.block_index(layer.block)?);
        }
        let maps = self.maps(images, stages.iter().copied().max().unwrap_or(0))?;
        stages.into_iter().map(|stage| self.features(&maps[stage])).collect()
    }

    /// The last map alone: earlier ones have other sizes.
    fn last_blocks(&self, images: &Tensor, n: usize) -> Result<Vec<Tensor>> {
        if n != 1 {
            return Err(Error::Convolutional { what: format!("last {n} blocks of one size; ask for 1") });
        }
        let Features { cls, patches, .. } = self.forward_features(images, Layer::default())?;
        Ok(vec![Tensor::cat(&[&cls.unsqueeze(1)?, &patches], D::Minus2)?])
    }

    fn attention(&self, _images: &Tensor, _block: i64) -> Result<Tensor> {
        Err(Error::Convolutional { what: "attention".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str) -> usize {
        let statistics = |name: &str| name.contains("running_");
        let tensors = ResNetConfig::by_name(name).unwrap().tensors();
        tensors
            .iter()
            .filter(|(name, _)| !statistics(name))
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }

    /// torchvision's counts without the classifier (512 or 2048 times 1000, and 1000).
    #[test]
    fn parameters_are_as_many_as_torchvisions() {
        assert_eq!(count("resnet18"), 11_689_512 - 513_000);
        assert_eq!(count("resnet34"), 21_797_672 - 513_000);
        assert_eq!(count("resnet50"), 25_557_032 - 2_049_000);
        assert_eq!(count("resnet101"), 44_549_160 - 2_049_000);
    }

    /// torchvision states 1.814 and 4.089 GMAC for a picture of 224 pixels, the classifier (0.0005 and 0.002) included.
    #[test]
    fn work_is_what_torchvision_states() {
        for (name, gmac) in [("resnet18", 1.814), ("resnet50", 4.089)] {
            let spec = ResNetConfig::by_name(name).unwrap().spec();
            let work = spec.work((224, 224), &[Layer::default()]).unwrap() / 2e9;
            assert!((work - gmac).abs() < 0.003, "{name}: {work}");
        }
    }

    #[test]
    fn names_and_tensors_tell_the_sizes() {
        for name in
            ["resnet18", "resnet50", "resnet101", "resnet34_w32", "resnet18_w16_cifar", "resnet50_cifar"]
        {
            let config = ResNetConfig::by_name(name).unwrap();
            assert_eq!(config.architecture(), name);
            let tensors: std::collections::BTreeMap<_, _> = config.tensors().into_iter().collect();
            assert_eq!(ResNetConfig::read_off(|name| tensors.get(name).cloned()), Some(config));
        }
        for unknown in
            ["resnet", "resnet18_w", "resnet18_w0", "resnet20", "resnet18_imagenet", "vit_tiny_patch8"]
        {
            assert!(ResNetConfig::by_name(unknown).is_none(), "{unknown}");
        }
    }
}
