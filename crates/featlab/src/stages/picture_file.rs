//! One picture file that is named by itself, outside any data set.

use std::path::Path;

use anyhow::{Context as _, Result};
use dataset::Sample;
use ndarray::Array3;
use sha2::{Digest, Sha256};

/// A picture and the SHA-256 of its file.
///
/// # Errors
/// If it cannot be read or decoded.
pub(crate) fn read(path: &Path) -> Result<(Sample, String)> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("picture {name} cannot be read"))?;
    let contents = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let picture = image::ImageReader::new(std::io::Cursor::new(&bytes))
        .with_guessed_format()
        .map_err(image::ImageError::from)
        .and_then(image::ImageReader::decode)
        .with_context(|| format!("picture {name} cannot be read"))?
        .into_rgb8();
    let (w, h) = picture.dimensions();
    let image = Array3::from_shape_vec((h as usize, w as usize, 3), picture.into_raw())?;
    Ok((Sample { id: name.to_string(), image, label: None }, contents))
}
