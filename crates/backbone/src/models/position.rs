//! The position embedding at other grids than its own.
//!
//! The table holds one entry for the class token and one for each patch of a `G x G` grid. For a grid `gh x gw` DINO
//! resamples the patches' part bicubically with the *scales* `(gh + 0.1) / G` and `(gw + 0.1) / G` (it adds the tenth
//! against rounding, and PyTorch takes coordinates from the scale): source row `(i + 0.5) G / (gh + 0.1) - 0.5`. That
//! is not a resize to `gh x gw`; the two differ visibly. Later models do resize, with and without antialiasing.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use candle_core::{IndexOp, Tensor};
use ndarray::Array3;
use resample::{Align, Mode, Taps, resize};

use crate::Result;

/// How many resampled tables are kept: enough for a run, few enough for a folder of pictures of all sizes.
const KEPT: usize = 16;

/// How a position table of `G x G` patches comes to a grid `gh x gw`. All are bicubic, and differ in their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resampling {
    /// With the scale `(gh + 0.1) / G`, and one for columns: DINO, and DINOv2 without registers.
    Tenth,
    /// To the size `gh x gw`: DINOv2 without registers as the transformers library has it.
    Resized,
    /// To the size `gh x gw`, antialiased, so that a smaller grid averages: DINOv2 with registers.
    Antialiased,
}

impl Resampling {
    /// The weights of an axis of `side` entries for `n` patches.
    fn taps(self, side: usize, n: usize) -> Taps {
        match self {
            Self::Tenth => Taps::new(Mode::Bicubic, Align::Scale((n as f64 + 0.1) / side as f64), side, n),
            Self::Resized => Taps::new(Mode::Bicubic, Align::HalfPixel, side, n),
            Self::Antialiased => Taps::antialiased_bicubic(side, n),
        }
    }
}

impl fmt::Display for Resampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tenth => "tenth",
            Self::Resized => "resized",
            Self::Antialiased => "antialiased",
        })
    }
}

/// A position table resampled to a grid as DINO does it: `[1, 1 + gh * gw, d]`, on the table's device.
///
/// * `pos_embed`: `[1, 1 + G * G, d]`, the class token's entry first. At its own grid it is returned as it is.
/// * `grid`: `(gh, gw)`.
///
/// # Errors
/// [`Error::Tensor`](crate::Error::Tensor) if the table is not `[1, 1 + G * G, d]` in `f32`.
pub fn interpolate_pos(pos_embed: &Tensor, grid: (usize, usize)) -> Result<Tensor> {
    resample_pos(pos_embed, grid, Resampling::Tenth)
}

/// As [`interpolate_pos`], in the given way.
fn resample_pos(pos_embed: &Tensor, (gh, gw): (usize, usize), resampling: Resampling) -> Result<Tensor> {
    let (one, entries, d) = pos_embed.dims3()?;
    let side = entries.saturating_sub(1).isqrt();
    if one != 1 || side == 0 || side * side + 1 != entries {
        return Err(
            candle_core::Error::Msg(format!("no square position table: {:?}", pos_embed.dims())).into()
        );
    }
    if (gh, gw) == (side, side) {
        return Ok(pos_embed.clone());
    }
    let patches = pos_embed.i((0, 1.., ..))?.t()?.flatten_all()?.to_vec1::<f32>()?; // [d, G, G]
    let patches =
        Array3::from_shape_vec((d, side, side), patches).expect("the table was just read in this shape");
    let (rows, columns) = (resampling.taps(side, gh), resampling.taps(side, gw));
    let resized = resize(patches.view(), &rows, &columns).expect("the taps were made for this table");
    let resized = resized.into_raw_vec_and_offset().0; // [d, gh, gw]
    let resized = Tensor::from_vec(resized, (d, gh * gw), pos_embed.device())?.t()?.unsqueeze(0)?; // [1, t, d]
    Ok(Tensor::cat(&[&pos_embed.narrow(1, 0, 1)?, &resized.contiguous()?], 1)?)
}

/// A position table that remembers the grids it was resampled to.
///
/// It is resampled on the host, so that a grid that is seen for the first time costs a copy there and back.
pub(super) struct PositionEmbedding {
    table: Tensor, // [1, 1 + G * G, d]
    resampling: Resampling,
    resampled: Mutex<HashMap<(usize, usize), Tensor>>,
}

impl PositionEmbedding {
    pub(super) fn new(table: Tensor, resampling: Resampling) -> Self {
        Self { table, resampling, resampled: Mutex::default() }
    }

    /// The entries of a grid, `[1, 1 + gh * gw, d]`.
    pub(super) fn at(&self, grid: (usize, usize)) -> Result<Tensor> {
        // A poisoned lock is harmless: entries are inserted whole.
        let mut resampled = self.resampled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = resampled.get(&grid) {
            return Ok(known.clone());
        }
        if resampled.len() == KEPT {
            resampled.clear();
        }
        let entries = resample_pos(&self.table, grid, self.resampling)?;
        resampled.insert(grid, entries.clone());
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// `[1, 1 + side * side, 2]`: the row and the column of each patch, and `[-7, -8]` for the class token.
    fn ramp(side: usize) -> Tensor {
        let patches = (0..side * side).flat_map(|i| [(i / side) as f32, (i % side) as f32]);
        let values: Vec<f32> = [-7.0, -8.0].into_iter().chain(patches).collect();
        Tensor::from_vec(values, (1, 1 + side * side, 2), &Device::Cpu).unwrap()
    }

    fn rows(table: &Tensor) -> Vec<Vec<f32>> {
        table.i(0).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn its_own_grid_is_left_alone() {
        let table = ramp(4);
        assert_eq!(rows(&interpolate_pos(&table, (4, 4)).unwrap()), rows(&table));
    }

    /// A cubic kernel reproduces a ramp inside: patch `(i, j)` reads its source coordinates.
    #[test]
    fn a_ramp_shows_the_coordinates() {
        let table = rows(&interpolate_pos(&ramp(12), (7, 18)).unwrap());
        assert_eq!(table.len(), 1 + 7 * 18);
        assert_eq!(table[0], [-7.0, -8.0]);
        for i in 1..6 {
            for j in 3..15 {
                let source = |k: usize, n: usize| ((k as f64 + 0.5) * 12.0 / (n as f64 + 0.1) - 0.5) as f32;
                let entry = &table[1 + i * 18 + j];
                // With a = -3/4 the kernel has second-order wiggles of less than a tenth; its mean is exact.
                assert!((entry[0] - source(i, 7)).abs() < 0.1, "{i} {entry:?}");
                assert!((entry[1] - source(j, 18)).abs() < 0.1, "{j} {entry:?}");
            }
        }
    }

    /// Without the tenth a ramp is read at the places of a resize; at the table's own grid all ways leave it alone.
    #[test]
    fn a_resized_ramp_lies_half_a_pixel_in() {
        for resampling in [Resampling::Resized, Resampling::Antialiased] {
            let table = rows(&resample_pos(&ramp(12), (6, 24), resampling).unwrap());
            for (i, j) in [(2, 8), (3, 15)] {
                let entry = &table[1 + i * 24 + j];
                assert!((entry[0] - (2.0 * i as f32 + 0.5)).abs() < 1e-5, "{resampling} {entry:?}");
                assert!((entry[1] - (j as f32 - 0.5) / 2.0).abs() < 0.1, "{resampling} {entry:?}");
            }
            assert_eq!(rows(&resample_pos(&ramp(4), (4, 4), resampling).unwrap()), rows(&ramp(4)));
        }
    }

    /// Stripes of one patch vanish in a third of the grid only where it averages.
    #[test]
    fn only_antialiasing_averages() {
        let stripes: Vec<f32> =
            (0..1 + 81).map(|i| if i > 0 && (i - 1) / 9 % 2 == 0 { 1.0 } else { 0.0 }).collect();
        let stripes = Tensor::from_vec(stripes, (1, 82, 1), &Device::Cpu).unwrap();
        let middle = |resampling| rows(&resample_pos(&stripes, (3, 3), resampling).unwrap())[5][0];
        assert_eq!(middle(Resampling::Resized), 1.0);
        assert!((middle(Resampling::Antialiased) - 0.5).abs() < 0.1);
    }

    #[test]
    fn the_same_number_of_patches_in_another_shape_is_resampled() {
        let table = rows(&interpolate_pos(&ramp(4), (2, 8)).unwrap());
        assert_eq!(table.len(), 17);
        assert_ne!(table, rows(&ramp(4)));
    }

    #[test]
    fn remembered_entries_are_the_computed_ones() {
        let position = PositionEmbedding::new(ramp(5), Resampling::Tenth);
        for n in 1..=2 * KEPT {
            let expected = rows(&interpolate_pos(&ramp(5), (3, n)).unwrap());
            assert_eq!(rows(&position.at((3, n)).unwrap()), expected);
            assert_eq!(rows(&position.at((3, n)).unwrap()), expected);
        }
        assert!(position.resampled.lock().unwrap().len() <= KEPT);
    }

    #[test]
    fn a_table_that_is_not_square_is_refused() {
        for entries in [1, 4, 6] {
            let table = Tensor::zeros((1, entries, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
            assert!(interpolate_pos(&table, (2, 2)).is_err(), "{entries}");
        }
    }
}
