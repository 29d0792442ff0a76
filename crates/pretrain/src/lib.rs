#![doc = include_str!("../README.md")]

mod automix;
mod batch_norm;
mod buffer;
mod candle_engine;
mod checkpoint;
mod classifier;
mod cluster_network;
mod config;
mod conv;
mod deepcluster;
mod deepcluster_config;
mod dino;
mod dino_training;
mod drop_path;
mod engine;
mod error;
mod events;
mod head;
mod hidden_mix;
mod images;
mod init;
mod kernel_engine;
mod layers;
mod loss;
mod mix_block;
mod mix_policies;
mod mixed_labels;
mod network;
mod optim;
mod params;
mod position;
mod projector;
mod queue;
mod resnet;
mod schedule;
mod signs;
mod sinkhorn;
mod spherical_kmeans;
mod swapped;
mod swav;
mod swav_config;
mod target_cross_entropy;
mod torch_checkpoint;
mod torch_file;
mod training;
mod trunk;
mod vit;
mod weights;

pub use automix::{
    Anneal, AutoMix, AutoMixConfig, AutoMixState, MixConfig, MixLossConfig, MixOptimizerConfig,
    MomentumConfig, SingleViewConfig, StartConfig,
};
pub use batch_norm::Mode;
pub use checkpoint::{RunIdentity, load_state, save_backbone, save_state, write_atomically};
pub use cluster_network::ClusterNetwork;
pub use config::{
    BackboneConfig, DinoConfig, LossConfig, OptimizerConfig, Precision, TeacherConfig, TrainConfig,
    ViewsConfig,
};
pub use deepcluster::{DeepCluster, DeepClusterState};
pub use deepcluster_config::{DeepClusterConfig, DeepClusterLossConfig};
pub use dino::{Dino, DinoState, StepReport};
pub use drop_path::Branch;
pub use error::{Error, Result};
pub use events::EventWriter;
pub use head::{Head, HeadActivations, HeadConfig};
pub use hidden_mix::HiddenMix;
pub use images::{Images, Tiles};
pub use loss::{Center, LossShape, student_loss, teacher_targets};
pub use mix_block::{Enlarge, LambdaEncoding, MixActivations, MixBlock, MixInput};
pub use mix_policies::MixPolicy;
pub use mixed_labels::{MixedLabels, mixed_cross_entropy};
pub use network::Network;
pub use optim::{Optimizer, OptimizerKind, StepSize, clip_gradients, ema};
pub use params::{Layout, Slot, TensorSpec};
pub use projector::{Projector, ProjectorActivations, ProjectorConfig};
pub use queue::FeatureQueue;
pub use resnet::{ResNet, ResNetActivations};
pub use schedule::{cosine_schedule, teacher_temperatures};
pub use signs::{Collapse, Signs, Watch};
pub use sinkhorn::{Sinkhorn, SinkhornBuffers, SinkhornForm};
pub use spherical_kmeans::{nearest_centroids, spherical_kmeans};
pub use swapped::{SwappedShape, assignment_signs, swapped_loss};
pub use swav::{Swav, SwavState};
pub use swav_config::{ClusterOptimizerConfig, SwavConfig, SwavLossConfig};
pub use torch_file::{TorchValue, write_torch};
pub use training::{
    Augment, Batch, DataShape, Exported, ExportedModel, Look, MixedSample, Notes, Plan, Recipe, Report,
    Training, Views,
};
pub use trunk::{Trunk, TrunkActivations, TrunkConfig};
pub use vit::{Activations, Readout, Vit};
