//! Mixtures as a picture: a row for each image, with its partner, the mask, and what became of them.
//!
//! White in the mask is the image's own, black its partner's; a hand-made mix has no mask and three columns.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context as _, Result};
use image::{ImageFormat, Rgb, RgbImage};
use ndarray::{Array2, Array3};
use pretrain::{Augment, MixedSample};

use crate::records::write_atomically;

/// Pixels between two pictures.
const GAP: usize = 2;

/// Side of an image in the picture, at least.
const SIDE: usize = 96;

/// Writes the samples as PNG; nothing if there are none.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(path: &Path, samples: &[MixedSample], augment: &Augment) -> Result<()> {
    let Some(first) = samples.first() else { return Ok(()) };
    let side = first.image.dim().1;
    let scale = SIDE.div_ceil(side);
    let cell = side * scale + GAP;
    let columns = if first.mask.is_some() { 4 } else { 3 };
    let size = |cells: usize| u32::try_from(cells * cell - GAP).context("the picture is too large");
    let mut picture = RgbImage::from_pixel(size(columns)?, size(samples.len())?, Rgb([255; 3]));
    for (row, sample) in samples.iter().enumerate() {
        let mask = sample.mask.as_ref().map(grey);
        let colour = |image: &Array3<f32>| bytes(image, augment);
        let cells =
            [Some(colour(&sample.image)), Some(colour(&sample.partner)), mask, Some(colour(&sample.mixed))];
        for (column, image) in cells.into_iter().flatten().enumerate() {
            for y in 0..side * scale {
                for x in 0..side * scale {
                    let pixel = [0, 1, 2].map(|channel| image[[y / scale, x / scale, channel]]);
                    picture.put_pixel((column * cell + x) as u32, (row * cell + y) as u32, Rgb(pixel));
                }
            }
        }
    }
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png)?;
    write_atomically(path, png.get_ref())
}

/// A mask as grey values, `[side, side, 3]`.
fn grey(mask: &Array2<f32>) -> Array3<u8> {
    let (h, w) = mask.dim();
    Array3::from_shape_fn((h, w, 3), |(y, x, _)| (255.0 * mask[[y, x]].clamp(0.0, 1.0)).round() as u8)
}

/// Normalised pixels back to bytes, `[side, side, 3]`.
fn bytes(image: &Array3<f32>, augment: &Augment) -> Array3<u8> {
    let (mean, std) = augment.statistics();
    let (_, h, w) = image.dim();
    Array3::from_shape_fn((h, w, 3), |(y, x, channel)| {
        let value = image[[channel, y, x]].mul_add(std[channel], mean[channel]);
        (255.0 * value.clamp(0.0, 1.0)).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use dataset::augment::SingleView;

    use super::*;

    #[test]
    fn every_cell_shows_what_it_is() {
        let augment =
            Augment::Single(SingleView { mean: [0.5; 3], std: [0.5; 3], ..SingleView::crop_and_flip(4) });
        let plain = |value: f32| Array3::from_elem((3, 4, 4), value);
        let sample = MixedSample {
            image: plain(-1.0),
            partner: plain(1.0),
            mixed: plain(0.0),
            mask: Some(Array2::from_elem((4, 4), 0.25)),
            lambda: 0.25,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mixed.png");
        write(&path, &[], &augment).unwrap();
        assert!(!path.exists());
        write(&path, &[sample.clone(), MixedSample { ..sample.clone() }], &augment).unwrap();
        let picture = image::open(&path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (4 * 98 - 2, 2 * 98 - 2));
        let column = |column: u32| picture.get_pixel(column * 98 + 50, 150).0[0];
        assert_eq!([0, 1, 2, 3].map(column), [0, 255, 64, 128]);
        write(&path, &[MixedSample { mask: None, ..sample }], &augment).unwrap();
        assert_eq!(image::open(&path).unwrap().width(), 3 * 98 - 2);
    }
}
