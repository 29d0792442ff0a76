#![doc = include_str!("../README.md")]

mod cache;
mod cloud;
mod damage;
mod dtype;
mod encode;
mod error;
mod find;
mod golden;
mod key;
mod layout;
mod location;
mod manifest;
mod plan;
mod rows;
mod runtime;
mod schema;
mod seal;
mod shard;
mod store;
mod verify;
mod writer;

pub use cache::{Cache, ReadOptions};
pub use damage::{Damage, DamageKind};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use find::{Found, find};
pub use golden::GoldenActivation;
pub use key::{Difference, FORMAT_VERSION, FeatureKey};
pub use layout::{Classes, Layout};
pub use manifest::{Manifest, ShardInfo};
pub use plan::PlannedShard;
pub use rows::{Row, Tombstone};
pub use shard::Shard;
pub use store::{Leftover, PutOutcome, Store};
pub use verify::Progress;
pub use writer::{Opened, Writer, WriterOptions};
