//! Bytes to the numbers a network reads: `((u8 / 255) − mean) / std`, channels first.
//!
//! There are only 256 bytes per channel, so it is a table.

use ndarray::{Array3, ArrayView3};

use crate::{Error, Result};

/// The normalised value of each channel's byte.
pub(crate) struct Normalise([[f32; 256]; 3]);

impl Normalise {
    /// Fails with [`Error::is_usage`] unless every mean is finite and every deviation positive.
    pub(crate) fn new(mean: [f32; 3], std: [f32; 3]) -> Result<Self> {
        let invalid = |option, reason| Err(Error::InvalidOption { option, reason });
        if !std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return invalid("std", format!("must be positive, got {std:?}"));
        }
        if !mean.iter().all(|mean| mean.is_finite()) {
            return invalid("mean", format!("must be finite, got {mean:?}"));
        }
        let value = |channel: usize, byte| (byte as f32 / 255.0 - mean[channel]) / std[channel];
        Ok(Self(std::array::from_fn(|channel| std::array::from_fn(|byte| value(channel, byte)))))
    }

    /// `[h, w, 3]` bytes to `[3, h, w]` numbers.
    pub(crate) fn apply(&self, pixels: ArrayView3<'_, u8>) -> Array3<f32> {
        let (h, w, _) = pixels.dim();
        let pixels = pixels.as_standard_layout();
        let (pixels, _) = pixels.as_slice().unwrap_or_default().as_chunks::<3>();
        let channel = |channel: usize| {
            let table = &self.0[channel];
            pixels.iter().map(move |pixel| table[usize::from(pixel[channel])])
        };
        let numbers = (0..3).flat_map(channel).collect();
        Array3::from_shape_vec((3, h, w), numbers).expect("three numbers per pixel")
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn channels_come_first_and_have_their_own_statistics() {
        let normalise = Normalise::new([0.0, 0.5, 1.0], [1.0, 0.5, 0.1]).unwrap();
        let pixels = array![[[0, 0, 0], [255, 255, 255]]];
        let expected = array![[[0.0, 1.0]], [[-1.0, 1.0]], [[-10.0, 0.0]]];
        assert_eq!(normalise.apply(pixels.view()), expected);
    }

    #[test]
    fn statistics_that_cannot_be_are_usage_errors() {
        for (mean, std) in [([f32::NAN, 0.0, 0.0], [1.0; 3]), ([0.0; 3], [1.0, 0.0, 1.0])] {
            assert!(Normalise::new(mean, std).err().unwrap().is_usage());
        }
    }
}
