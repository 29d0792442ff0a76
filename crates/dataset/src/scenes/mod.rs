//! `scenes`: an embedded, seeded, procedural data set of labelled street and landscape scenes.
//!
//! Mental model: a small 2.5-D world is drawn up from dice (`world`, `populate`, `street`), lit (`light`, `sky`), painted
//! sample by sample with its labels (`painter`, and a file per kind of thing) and developed by an imperfect
//! camera (`sensor`). Colours overlap between the classes on purpose, and viewpoints vary: texture, shape
//! and context tell the classes apart. It costs no download, and the same `(seed, index, size)` gives
//! the same bytes on any machine (`exact`). It is not a substitute for photographs in published results.

mod barrier;
mod building;
mod camera;
mod dice;
mod exact;
mod furniture;
mod ground;
mod light;
mod masonry;
mod noise;
mod painter;
mod person;
mod populate;
mod sensor;
mod sky;
mod solid;
mod street;
mod vegetation;
mod vehicle;
mod world;

use ndarray::{Array2, Array3};

/// Version of the generator. It is part of every cache key: whoever changes a pixel raises it.
pub const VERSION: u32 = 1;

/// Names of the classes, and the colours they are drawn with in label maps.
pub const CLASSES: [(&str, [u8; 3]); 11] = [
    ("sky", [70, 130, 180]),
    ("building", [110, 70, 70]),
    ("road", [128, 64, 128]),
    ("pavement", [244, 35, 232]),
    ("vegetation", [60, 142, 35]),
    ("grass", [152, 251, 152]),
    ("water", [30, 60, 200]),
    ("barrier", [190, 153, 110]),
    ("vehicle", [0, 0, 142]),
    ("person", [220, 20, 60]),
    ("pole", [250, 220, 40]),
];

const SKY: u8 = 0;
const BUILDING: u8 = 1;
const ROAD: u8 = 2;
const PAVEMENT: u8 = 3;
const VEGETATION: u8 = 4;
const GRASS: u8 = 5;
const WATER: u8 = 6;
const BARRIER: u8 = 7;
const VEHICLE: u8 = 8;
const PERSON: u8 = 9;
const POLE: u8 = 10;

/// A picture and the class of each of its pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// `[h, w, 3]`, red, green, blue.
    pub image: Array3<u8>,
    /// `[h, w]`, an index into [`CLASSES`]; every pixel has one.
    pub label: Array2<u8>,
}

/// The scene number `index` of the data set `seed`, `size = (h, w)` pixels.
///
/// A pure function: the same arguments give the same bytes on any machine, on any thread, in any order.
/// Other sizes show the same world, taken by the same camera.
///
/// # Panics
/// If `size` has a zero side.
pub fn render(seed: u64, index: u64, size: (usize, usize)) -> Scene {
    let (h, w) = size;
    assert!(h > 0 && w > 0, "a scene needs at least one pixel, got {h} x {w}");
    let world = world::World::roll(seed, index);
    let painter::Exposure { light, classes } = painter::expose(&world, size);
    let bytes = world.sensor.develop(light, size);
    Scene {
        image: Array3::from_shape_vec((h, w, 3), bytes).expect("the sensor gives three bytes a pixel"),
        label: Array2::from_shape_vec((h, w), classes).expect("the painter gives one class a pixel"),
    }
}

#[cfg(test)]
mod tests;
