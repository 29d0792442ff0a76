#![doc = include_str!("../README.md")]

mod batch_norm;
mod buffer;
mod checkpoint;
mod config;
mod dino;
mod drop_path;
mod error;
mod head;
mod images;
mod init;
mod layers;
mod loss;
mod network;
mod optim;
mod params;
mod position;
mod schedule;
mod signs;
mod vit;

pub use batch_norm::Mode;
pub use checkpoint::{RunIdentity, load_state, peek_step, save_backbone, save_state, write_atomically};
pub use config::{
    BackboneConfig, DinoConfig, LossConfig, OptimizerConfig, TeacherConfig, TrainConfig, ViewsConfig,
};
pub use dino::{Dino, DinoState, StepReport, Views};
pub use drop_path::Branch;
pub use error::{Error, Result};
pub use head::{Head, HeadActivations, HeadConfig};
pub use images::Images;
pub use loss::{Center, LossShape, student_loss, teacher_targets};
pub use network::Network;
pub use optim::{Optimizer, OptimizerKind, StepSize, clip_gradients, ema};
pub use params::{Layout, Slot, TensorSpec};
pub use schedule::{cosine_schedule, teacher_temperatures};
pub use signs::{Collapse, Signs, Watch};
pub use vit::{Activations, Vit};
