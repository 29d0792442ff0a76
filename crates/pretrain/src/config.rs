//! Everything that a DINO run is made of, as its TOML file says it. Every default is the published one. Backbone, views and
//! length are other methods' as well.
//!
//! All of it changes the numbers and is stored with the weights; where a run reads its images, writes its files and how often it
//! looks around is the caller's.

use backbone::VitConfig;
use dataset::augment::{ColorJitter, MultiCrop};
use serde::{Deserialize, Serialize};

use crate::head::HeadConfig;
use crate::optim::OptimizerKind;
use crate::vit::Readout;
use crate::{Error, Result};

/// A DINO run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DinoConfig {
    /// The vision transformer.
    pub backbone: BackboneConfig,
    /// The projection head.
    pub head: HeadConfig,
    /// The random views.
    pub views: ViewsConfig,
    /// The loss.
    pub loss: LossConfig,
    /// The teacher.
    pub teacher: TeacherConfig,
    /// The optimiser.
    pub optimizer: OptimizerConfig,
    /// Length, batch and seed.
    pub train: TrainConfig,
}

/// `[backbone]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackboneConfig {
    /// A published size, such as `vit_small_patch16`; single sizes below replace those of the name.
    pub arch: String,
    /// Length of a token.
    pub embed_dim: Option<usize>,
    /// Number of blocks.
    pub depth: Option<usize>,
    /// Attention heads.
    pub num_heads: Option<usize>,
    /// Side of a patch in pixels.
    pub patch_size: Option<usize>,
    /// Side in pixels of the images whose patches the position table covers.
    pub table_size: usize,
    /// What the head reads: the class token (DINO), or the mean patch token.
    pub readout: Readout,
    /// Largest rate of stochastic depth, of the student's last block.
    pub drop_path: f64,
    /// Deviation of the initial weights; narrow networks want more.
    pub init_std: f64,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self {
            arch: "vit_small_patch16".into(),
            embed_dim: None,
            depth: None,
            num_heads: None,
            patch_size: None,
            table_size: 224,
            readout: Readout::Class,
            drop_path: 0.1,
            init_std: 0.02,
        }
    }
}

impl BackboneConfig {
    /// The sizes.
    ///
    /// # Errors
    /// [`Error::Config`] if the name is unknown or sizes do not go together.
    pub fn vit(&self) -> Result<VitConfig> {
        let invalid = |setting, reason| Err(Error::Config { setting, reason });
        let Some(mut vit) = VitConfig::by_name(&self.arch) else {
            let reason = format!(
                "unknown architecture {:?}; expected vit_micro_patch8, or vit_tiny, vit_small or vit_base with _patch8 or _patch16",
                self.arch
            );
            return invalid("backbone.arch", reason);
        };
        vit.embed_dim = self.embed_dim.unwrap_or(vit.embed_dim);
        vit.depth = self.depth.unwrap_or(vit.depth);
        vit.num_heads = self.num_heads.unwrap_or(vit.num_heads);
        vit.patch_size = self.patch_size.unwrap_or(vit.patch_size);
        vit.mlp_dim = 4 * vit.embed_dim;
        if vit.depth == 0 || vit.embed_dim == 0 || vit.patch_size == 0 {
            return invalid("backbone", "embed_dim, depth and patch_size must be at least 1".into());
        }
        if vit.num_heads == 0 || vit.embed_dim % vit.num_heads != 0 {
            let reason =
                format!("{} heads do not share {} dimensions out evenly", vit.num_heads, vit.embed_dim);
            return invalid("backbone.num_heads", reason);
        }
        vit.grid = self.table_size / vit.patch_size;
        if vit.grid == 0 || !self.table_size.is_multiple_of(vit.patch_size) {
            let reason = format!("{} is not a multiple of patches of {}", self.table_size, vit.patch_size);
            return invalid("backbone.table_size", reason);
        }
        Ok(vit)
    }
}

/// `[views]`: sizes and scales of a multi-crop; the colours are the method's but for their strength.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewsConfig {
    /// Side of the two global views in pixels.
    pub global_size: usize,
    /// Smallest and largest part of the image's area that a global view shows.
    pub global_scale: (f64, f64),
    /// Number of local views.
    pub locals: usize,
    /// Side of a local view in pixels.
    pub local_size: usize,
    /// Smallest and largest part of the image's area that a local view shows.
    pub local_scale: (f64, f64),
    /// Times the blur's radius of 0.1 to 2 pixels; unset: global_size / 224.
    pub blur: Option<f64>,
    /// Times the strengths of the colour jitter; below 1 where views are so different that nothing can be predicted.
    pub jitter: f64,
}

impl Default for ViewsConfig {
    fn default() -> Self {
        Self {
            global_size: 224,
            global_scale: (0.4, 1.0),
            locals: 8,
            local_size: 96,
            local_scale: (0.05, 0.4),
            blur: None,
            jitter: 1.0,
        }
    }
}

impl ViewsConfig {
    /// The recipe that these settings stand for.
    #[must_use]
    pub fn multi_crop(&self) -> MultiCrop {
        self.multi_crop_of(MultiCrop::dino())
    }

    /// The same sizes and scales with the colours of another recipe.
    #[must_use]
    pub fn multi_crop_of(&self, recipe: MultiCrop) -> MultiCrop {
        let mut crops = MultiCrop { locals: self.locals, ..recipe };
        let blur = self.blur.unwrap_or(self.global_size as f64 / crops.global1.size as f64);
        let sizes = [(self.global_size, self.global_scale), (self.local_size, self.local_scale)];
        for (view, (size, scale)) in
            [(&mut crops.global1, sizes[0]), (&mut crops.global2, sizes[0]), (&mut crops.local, sizes[1])]
        {
            *view = view.scaled_blur(blur);
            let ColorJitter { brightness, contrast, saturation, hue } = view.jitter;
            let [brightness, contrast, saturation, hue] =
                [brightness, contrast, saturation, hue].map(|strength| strength * self.jitter);
            view.jitter = ColorJitter { brightness, contrast, saturation, hue };
            (view.size, view.scale) = (size, scale);
        }
        crops
    }

    /// V: views of an image.
    #[must_use]
    pub fn count(&self) -> usize {
        2 + self.locals
    }
}

/// `[loss]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// τ_s.
    pub student_temp: f64,
    /// How much of the centre stays in a step; `1` keeps it at 0: no centring.
    pub center_momentum: f64,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { student_temp: 0.1, center_momentum: 0.9 }
    }
}

/// `[teacher]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherConfig {
    /// Momentum of the average at the start; a cosine takes it to 1. Small batches want more, short runs less.
    pub momentum: f64,
    /// τ_t in the first epoch.
    pub warmup_temp: f64,
    /// τ_t after its warm-up.
    pub temp: f64,
    /// Epochs of that warm-up.
    pub warmup_temp_epochs: usize,
}

impl Default for TeacherConfig {
    fn default() -> Self {
        Self { momentum: 0.996, warmup_temp: 0.04, temp: 0.04, warmup_temp_epochs: 0 }
    }
}

/// `[optimizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// adamw, sgd or lars.
    pub kind: OptimizerKind,
    /// Learning rate for 256 images a step; the rate used is `lr · batch_size / 256`.
    pub lr: f64,
    /// Where its cosine ends.
    pub min_lr: f64,
    /// Epochs of its linear warm-up from 0.
    pub warmup_epochs: usize,
    /// Weight decay at the start.
    pub weight_decay: f64,
    /// Where its cosine ends.
    pub weight_decay_end: f64,
    /// Largest gradient norm of a tensor; 0 does not clip.
    pub clip_grad: f64,
    /// Epochs in which the head's last layer is left alone.
    pub freeze_last_layer: usize,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Adamw,
            lr: 5e-4,
            min_lr: 1e-6,
            warmup_epochs: 10,
            weight_decay: 0.04,
            weight_decay_end: 0.4,
            clip_grad: 3.0,
            freeze_last_layer: 1,
        }
    }
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the images.
    pub epochs: usize,
    /// Images a step; an epoch's rest that does not fill a batch is left out.
    pub batch_size: usize,
    /// Numbers of the matrix products.
    pub precision: Precision,
    /// Images that go through the network at a time; gradients add up over the batch. Unset: as many as fit a
    /// processor's cache, or the batch on a GPU. The mathematics is the same; the last bits are not.
    pub micro_batch: Option<usize>,
    /// Seed of the weights, the order of images, the views and stochastic depth.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self { epochs: 100, batch_size: 64, precision: Precision::F32, micro_batch: None, seed: 0 }
    }
}

/// Numbers that matrix products are computed in. Parameters, gradients, norms, softmaxes and the loss are always f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of 32, on GPUs (NVIDIA: compute capability 8.0 or newer).
    Bf16,
}

/// Tokens of the student that go through the network at a time, unless told otherwise.
const TOKENS_PER_PASS: usize = 2048;

impl DinoConfig {
    /// Whether the settings can be and go together.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        let vit = self.backbone.vit()?;
        let p = vit.patch_size;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let not_negative = |x: f64| x.is_finite() && x >= 0.0;
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let (views, train, optimizer) = (&self.views, &self.train, &self.optimizer);
        let side = |side: usize| side > 0 && side.is_multiple_of(p);
        let rules = [
            (side(views.global_size), "views.global_size", format!("must be a multiple of the patch size {p}")),
            (
                views.locals == 0 || side(views.local_size),
                "views.local_size",
                format!("must be a multiple of the patch size {p}"),
            ),
            (train.batch_size > 0, "train.batch_size", "must be at least 1".into()),
            (train.micro_batch != Some(0), "train.micro_batch", "must be at least 1".into()),
            (train.epochs > 0, "train.epochs", "must be at least 1".into()),
            (
                optimizer.warmup_epochs <= train.epochs,
                "optimizer.warmup_epochs",
                format!("{} is more than the {} epochs of the run", optimizer.warmup_epochs, train.epochs),
            ),
            (
                self.teacher.warmup_temp_epochs <= train.epochs,
                "teacher.warmup_temp_epochs",
                format!("{} is more than the {} epochs of the run", self.teacher.warmup_temp_epochs, train.epochs),
            ),
            (positive(self.teacher.temp), "teacher.temp", "must be above 0".into()),
            (positive(self.teacher.warmup_temp), "teacher.warmup_temp", "must be above 0".into()),
            (positive(self.loss.student_temp), "loss.student_temp", "must be above 0".into()),
            (share(self.loss.center_momentum), "loss.center_momentum", "must be in [0, 1]".into()),
            (share(self.teacher.momentum), "teacher.momentum", "must be in [0, 1]".into()),
            ((0.0..1.0).contains(&self.backbone.drop_path), "backbone.drop_path", "must be in [0, 1)".into()),
            (share(self.backbone.init_std), "backbone.init_std", "must be in [0, 1]".into()),
            (not_negative(optimizer.lr), "optimizer.lr", "must be 0 or more".into()),
            (not_negative(optimizer.min_lr), "optimizer.min_lr", "must be 0 or more".into()),
            (not_negative(optimizer.weight_decay), "optimizer.weight_decay", "must be 0 or more".into()),
            (not_negative(optimizer.weight_decay_end), "optimizer.weight_decay_end", "must be 0 or more".into()),
            (not_negative(optimizer.clip_grad), "optimizer.clip_grad", "must be 0 or more; 0 does not clip".into()),
            (self.head.layers > 0, "head.layers", "must be at least 1".into()),
            (self.head.hidden_dim > 0, "head.hidden_dim", "must be at least 1".into()),
            (self.head.out_dim > 1, "head.out_dim", "must be at least 2".into()),
            (self.head.bottleneck_dim > 0, "head.bottleneck_dim", "must be at least 1".into()),
            (
                !self.head.use_bn || train.micro_batch.is_none_or(|images| images >= train.batch_size),
                "train.micro_batch",
                "batch norm in the head needs the whole batch at once: leave it unset or set it to batch_size".into(),
            ),
        ];
        if let Some((_, setting, reason)) = rules.into_iter().find(|(holds, ..)| !holds) {
            return Err(Error::Config { setting, reason });
        }
        Ok(views.multi_crop().check()?)
    }

    /// Images whose activations fit a processor's cache, so that parts are of about one size; the whole batch if the head
    /// has batch norm.
    pub(crate) fn cache_sized_part(&self) -> usize {
        let batch = self.train.batch_size;
        if self.head.use_bn {
            return batch;
        }
        let patch = self.backbone.vit().map_or(16, |vit| vit.patch_size);
        let tokens = |side: usize| 1 + (side / patch).pow(2);
        let per_image = 2 * tokens(self.views.global_size);
        let parts = batch.div_ceil((TOKENS_PER_PASS / per_image).max(1));
        batch.div_ceil(parts.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_batch_are_of_about_one_size() {
        let mut config = DinoConfig::default();
        config.views.global_size = 64; // 17 tokens a view in patches of 16: at most 60 images
        for (batch, part) in [(1, 1), (60, 60), (61, 31), (130, 44)] {
            config.train.batch_size = batch;
            assert_eq!(config.cache_sized_part(), part);
        }
        config.head.use_bn = true;
        assert_eq!(config.cache_sized_part(), 130);
    }

    #[test]
    fn defaults_are_the_published_ones() {
        let config = DinoConfig::default();
        config.check().unwrap();
        assert_eq!(config.views.multi_crop(), MultiCrop::dino());
        assert_eq!(
            (config.head.out_dim, config.head.hidden_dim, config.head.bottleneck_dim),
            (65_536, 2048, 256)
        );
        assert_eq!((config.loss.student_temp, config.loss.center_momentum), (0.1, 0.9));
        assert_eq!(
            (config.optimizer.lr, config.optimizer.min_lr, config.optimizer.clip_grad),
            (5e-4, 1e-6, 3.0)
        );
        assert_eq!((config.optimizer.weight_decay, config.optimizer.weight_decay_end), (0.04, 0.4));
        assert_eq!(
            (config.teacher.momentum, config.teacher.temp, config.teacher.warmup_temp_epochs),
            (0.996, 0.04, 0)
        );
        assert_eq!(
            (config.train.epochs, config.optimizer.warmup_epochs, config.optimizer.freeze_last_layer),
            (100, 10, 1)
        );
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let refuse = |change: fn(&mut DinoConfig), name: &str| {
            let mut config = DinoConfig::default();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        };
        refuse(|c| c.backbone.arch = "resnet".into(), "backbone.arch");
        refuse(|c| c.backbone.num_heads = Some(5), "backbone.num_heads");
        refuse(|c| c.views.local_size = 50, "views.local_size");
        refuse(|c| c.optimizer.warmup_epochs = 101, "warmup_epochs");
        refuse(|c| c.teacher.temp = 0.0, "teacher.temp");
        refuse(|c| c.train.batch_size = 0, "batch_size");
        refuse(|c| c.head.hidden_dim = 0, "hidden_dim");
        refuse(|c| c.backbone.init_std = 1e30, "init_std");
        refuse(|c| c.optimizer.min_lr = f64::NAN, "min_lr");
        refuse(|c| c.optimizer.weight_decay_end = -1.0, "weight_decay_end");
        refuse(|c| (c.head.use_bn, c.train.micro_batch) = (true, Some(2)), "micro_batch");
        refuse(|c| c.views.global_scale = (0.9, 0.1), "scale");
    }

    #[test]
    fn blur_shrinks_with_the_views_unless_told() {
        let mut views = ViewsConfig { global_size: 112, local_size: 48, ..ViewsConfig::default() };
        assert_eq!(views.multi_crop().local.blur_radius, (0.05, 1.0));
        views.blur = Some(1.0);
        assert_eq!(views.multi_crop().global1.blur_radius, (0.1, 2.0));
        views.jitter = 0.5;
        let jitter = views.multi_crop().local.jitter;
        assert_eq!((jitter.brightness, jitter.saturation), (0.2, 0.1));
    }
}
