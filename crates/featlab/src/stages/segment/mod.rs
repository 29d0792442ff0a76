//! Segmentation: a backbone, a reducer and two probes as one model that turns pictures into label maps.
//!
//! [`Model`] is what is stored; [`Segmenter`] looks at pictures with it; [`predict`] writes what it sees, [`evaluate`] counts it against
//! labels, [`train`] makes a model from a cache or ([`ImageSet`]) from pictures, [`export`] gives it the original's names.

pub(crate) mod evaluate;
pub(crate) mod export;
mod images;
mod indexed_png;
mod model;
pub(crate) mod predict;
mod segmenter;
pub(crate) mod train;
mod workers;

pub(crate) use images::ImageSet;
pub(crate) use model::{Card, Model, numbered};
pub(crate) use segmenter::{Look, Segmenter, View};
