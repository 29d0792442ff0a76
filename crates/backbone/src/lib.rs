//! A checkpoint becomes a model in four steps, each in its own place: the *source* (a path, a hub name, a seed), the
//! *container* (zip, legacy pickle, safetensors), the *layout* (whose names the tensors have) and the *sizes*, which
//! are read off the tensors. Whatever the way, the result is one `Vit` in DINO's names, in `f32`
//! unless another [`Precision`] is asked for.
//!
//! Images come in normalised; this crate knows no picture files, data sets or caches. The models run without
//! gradients.
#![doc = include_str!("../README.md")]

mod backbone;
mod checkpoint;
mod device;
mod embedded;
mod error;
mod hub;
mod layer;
mod load;
mod models;
mod nn;
mod precision;
mod random;
mod source;
mod work;

pub use backbone::{Backbone, BackboneSpec, Features, Stage};
pub use checkpoint::{NamedTensor, named_tensors};
pub use device::device;
pub use embedded::embedded_names;
pub use error::{Error, Result};
pub use hub::{hub_cache, hub_offline};
pub use layer::{Facet, Layer};
pub use load::{LoadOptions, Loaded, Origin, load, state_dict};
pub use models::{
    Dinov2, Dinov2Config, Dinov3, Dinov3Config, ResNet, ResNetConfig, Resampling, Vit, VitConfig,
    interpolate_pos,
};
pub use precision::Precision;
