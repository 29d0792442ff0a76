//! The position table at the grid of a crop, and the gradient's way back into the table.
//!
//! The same bicubic resize as `backbone::interpolate_pos`, which is linear in the table: every entry of a grid is a sum over
//! 4 x 4 entries of the table. The class token's entry is left alone.

use resample::{Align, Mode, Taps};

/// The taps of a grid, row and column.
#[derive(Debug)]
pub(crate) struct PositionGrid {
    rows: Taps,
    columns: Taps,
    side: usize,
    native: bool,
}

impl PositionGrid {
    /// From a table of `side * side` patches to `(gh, gw)`, with DINO's tenth added to the scale.
    pub(crate) fn new(side: usize, (gh, gw): (usize, usize)) -> Self {
        let taps = |n: usize| Taps::new(Mode::Bicubic, Align::Scale((n as f64 + 0.1) / side as f64), side, n);
        Self { rows: taps(gh), columns: taps(gw), side, native: (gh, gw) == (side, side) }
    }

    /// Calls `f(patch, entry of the table, weight)` for every pair that belongs together; entries count the class token.
    fn pairs(&self, mut f: impl FnMut(usize, usize, f32)) {
        if self.native {
            (1..=self.side * self.side).for_each(|i| f(i, i, 1.0));
            return;
        }
        for gy in 0..self.rows.output() {
            for gx in 0..self.columns.output() {
                for &(y, wy) in self.rows.at(gy) {
                    for &(x, wx) in self.columns.at(gx) {
                        f(1 + gy * self.columns.output() + gx, 1 + y * self.side + x, wy * wx);
                    }
                }
            }
        }
    }

    /// `[1 + gh gw, d]` from the table `[1 + side², d]`.
    pub(crate) fn resize(&self, table: &[f32], d: usize, out: &mut [f32]) {
        out.fill(0.0);
        out[..d].copy_from_slice(&table[..d]);
        self.pairs(|patch, entry, weight| add(&mut out[patch * d..][..d], &table[entry * d..][..d], weight));
    }

    /// The resize of the patches as a matrix, `[gh gw, side²]`.
    pub(crate) fn matrix(&self) -> Vec<f32> {
        let entries = self.side * self.side;
        let mut matrix = vec![0.0; self.rows.output() * self.columns.output() * entries];
        self.pairs(|patch, entry, weight| matrix[(patch - 1) * entries + entry - 1] += weight);
        matrix
    }

    /// Adds the gradient of the resized entries to the table's.
    pub(crate) fn resize_backward(&self, dout: &[f32], d: usize, dtable: &mut [f32]) {
        add(&mut dtable[..d], &dout[..d], 1.0);
        self.pairs(|patch, entry, weight| {
            add(&mut dtable[entry * d..][..d], &dout[patch * d..][..d], weight)
        });
    }
}

fn add(to: &mut [f32], from: &[f32], weight: f32) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += weight * from);
}
