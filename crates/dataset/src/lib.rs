#![doc = include_str!("../README.md")]

mod antialias;
pub mod augment;
mod class_folder;
mod concat;
#[cfg(test)]
mod contract;
mod crop;
mod dataset;
mod error;
mod fingerprint;
mod frame;
mod image_file;
mod image_folder;
mod jpeg_end;
mod label_file;
mod labelled_folder;
mod listing;
mod normalise;
mod open;
mod python_hash;
mod resize;
pub mod scenes;
mod scenes_dataset;
mod transform;
mod word;

pub use class_folder::ClassFolder;
pub use concat::{Concat, concat};
pub use crop::{Crop, CropBox, five_crop_boxes};
pub use dataset::{ClassTable, Dataset, Problem, Sample, Split};
pub use error::{Error, Result};
pub use open::open;
pub use resize::Resize;
pub use transform::{Transform, View};
