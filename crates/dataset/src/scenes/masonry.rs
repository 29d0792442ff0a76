//! Bonds of laid blocks: bricks, ashlar, rubble walls, paving slabs and cobbles.
//!
//! Rows of equal height, every other one shifted by half a block; a joint around each block, and each
//! block a little lighter or darker than its neighbours. Where a sample covers more than a row, only the mean is left.

use super::exact::fract;
use super::noise::speck;

/// Mean of [`laid`].
const MEAN: f32 = 0.75;

/// Relative brightness at `(u, v)` metres of blocks of `(long, high)` metres with joints of tone `joint`,
/// seen by a sample `footprint` metres wide; 0.75 in the mean.
pub(super) fn laid(
    (u, v): (f32, f32),
    (long, high): (f32, f32),
    joint: f32,
    footprint: f32,
    grain: u32,
) -> f32 {
    let row = (v / high).floor();
    let along = u / long + fract(row * 0.5); // every other row is shifted by half a block
    let seen = (1.4 - 0.8 * footprint / high).clamp(0.0, 1.0);
    let in_joint = fract(along) < 0.06 || fract(v / high) < 0.12;
    let tone = if in_joint { joint } else { 0.45 + 0.6 * speck(along.floor() as i32, row as i32, grain) };
    MEAN + (tone - MEAN) * seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shifted_and_far_walls_are_even() {
        let at = |u, v| laid((u, v), (0.4, 0.1), 0.0, 0.0, 1);
        assert_eq!(at(0.01, 0.05), 0.0); // a joint at the start of the first row
        assert_ne!(at(0.01, 0.15), 0.0); // the middle of a block in the second
        assert_eq!(at(0.21, 0.15), 0.0);
        assert_eq!(laid((0.01, 0.05), (0.4, 0.1), 0.0, 9.0, 1), MEAN);
    }
}
