#![doc = include_str!("../README.md")]

mod antialias;
pub mod augment;
mod class_folder;
mod concat;
mod contents;
#[cfg(test)]
mod contract;
mod crop;
mod dataset;
mod error;
mod files;
mod fingerprint;
mod frame;
mod image_file;
mod image_folder;
mod jpeg_end;
mod keys;
mod label_file;
mod labelled_folder;
mod local;
mod memo;
mod normalise;
mod open;
mod opener;
mod python_hash;
mod resize;
pub mod scenes;
mod scenes_dataset;
mod source;
mod stamp;
mod transform;
mod word;

pub use class_folder::ClassFolder;
pub use concat::{Concat, concat};
pub use crop::{Crop, CropBox, five_crop_boxes};
pub use dataset::{ClassTable, Dataset, Problem, Sample, Split};
pub use error::{Error, Result};
pub use files::{Files, Kind, Listed, Listing};
pub use keys::Keys;
pub use local::Local;
pub use memo::Memo;
pub use open::{OpenOptions, open, open_with};
pub use opener::Opener;
pub use resize::Resize;
pub use stamp::Stamp;
pub use transform::{Transform, View};
