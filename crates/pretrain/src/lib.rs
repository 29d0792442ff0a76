#![doc = include_str!("../README.md")]

mod batch_norm;
mod buffer;
mod candle_engine;
mod checkpoint;
mod config;
mod dino;
mod drop_path;
mod engine;
mod error;
mod events;
mod head;
mod images;
mod init;
mod kernel_engine;
mod layers;
mod loss;
mod network;
mod optim;
mod params;
mod position;
mod schedule;
mod signs;
mod torch_file;
mod vit;

pub use batch_norm::Mode;
pub use checkpoint::{RunIdentity, load_state, save_backbone, save_state, write_atomically};
pub use config::{
    BackboneConfig, DinoConfig, LossConfig, OptimizerConfig, Precision, TeacherConfig, TrainConfig,
    ViewsConfig,
};
pub use dino::{Dino, DinoState, StepReport, Views};
pub use drop_path::Branch;
pub use error::{Error, Result};
pub use events::EventWriter;
pub use head::{Head, HeadActivations, HeadConfig};
pub use images::{Images, Tiles};
pub use loss::{Center, LossShape, student_loss, teacher_targets};
pub use network::Network;
pub use optim::{Optimizer, OptimizerKind, StepSize, clip_gradients, ema};
pub use params::{Layout, Slot, TensorSpec};
pub use schedule::{cosine_schedule, teacher_temperatures};
pub use signs::{Collapse, Signs, Watch};
pub use torch_file::{TorchValue, write_torch};
pub use vit::{Activations, Readout, Vit};
