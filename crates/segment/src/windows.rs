//! Sliding windows: a patch grid larger than a network's input, seen part by part and put together again.
//!
//! Windows lie as evenly as whole patches allow, the first and the last at the borders, and overlap by a given share at least. Where several
//! see a patch, their codes are averaged with weights that fall linearly towards each window's border, because a network knows
//! least there and so that no seam shows:
//!
//! ```text
//! w(i, j) = min(i + 1, h - i) min(j + 1, w - j),   code = Σ w_a code_a / Σ w_a
//! ```
//!
//! Everything is in patches, and sums run in the order of the windows.

use ndarray::{Array2, ArrayView2, Axis};

use crate::{Error, Result};

/// Where the windows lie on a grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    grid: (usize, usize),
    side: (usize, usize),
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl Windows {
    /// * `grid`: patches `(gh, gw)` of the whole; `side`: of a window at most; `overlap`: least share of a window that its neighbour
    ///   sees as well, in `[0, 1)`.
    ///
    /// # Errors
    /// [`Error::Empty`] if there is no patch, [`Error::NotAFraction`] for another overlap.
    pub fn new(grid: (usize, usize), side: (usize, usize), overlap: f32) -> Result<Self> {
        if grid.0 * grid.1 == 0 || side.0 * side.1 == 0 {
            return Err(Error::Empty("grid of windows"));
        }
        if !(0.0..1.0).contains(&overlap) {
            return Err(Error::NotAFraction { what: "overlap", got: overlap });
        }
        let side = (side.0.min(grid.0), side.1.min(grid.1));
        Ok(Self {
            grid,
            side,
            rows: starts(grid.0, side.0, overlap),
            columns: starts(grid.1, side.1, overlap),
        })
    }

    /// Patches of a window, `(h, w)`.
    #[must_use]
    pub fn side(&self) -> (usize, usize) {
        self.side
    }

    /// First patch `(row, column)` of every window, row by row.
    pub fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        self.rows.iter().flat_map(|&row| self.columns.iter().map(move |&column| (row, column)))
    }

    /// Number of windows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rows.len() * self.columns.len()
    }

    /// The codes of the whole grid, `[gh·gw, k]`.
    ///
    /// * `codes`: those of every window, `[h·w, k]` each, in the order of [`Windows::places`].
    ///
    /// # Errors
    /// [`Error::Shape`] if they are of other windows.
    pub fn blend<'a>(&self, codes: impl IntoIterator<Item = ArrayView2<'a, f32>>) -> Result<Array2<f32>> {
        let ((gh, gw), (h, w)) = (self.grid, self.side);
        let mut codes = codes.into_iter().peekable();
        let k = codes.peek().map_or(0, |code| code.ncols());
        let (mut sums, mut weights) = (Array2::<f32>::zeros((gh * gw, k)), vec![0.0; gh * gw]);
        let mut seen = 0;
        for (code, (top, left)) in codes.zip(self.places()) {
            if code.dim() != (h * w, k) {
                let (expected, got) = (vec![h * w, k], code.shape().to_vec());
                return Err(Error::Shape { what: "codes of a window", expected, got });
            }
            for (at, row) in code.outer_iter().enumerate() {
                let (i, j) = (at / w, at % w);
                let weight = ((i + 1).min(h - i) * (j + 1).min(w - j)) as f32;
                let to = (top + i) * gw + left + j;
                sums.row_mut(to).scaled_add(weight, &row);
                weights[to] += weight;
            }
            seen += 1;
        }
        if seen != self.count() {
            let (expected, got) = (vec![self.count()], vec![seen]);
            return Err(Error::Shape { what: "list of windows", expected, got });
        }
        sums.axis_iter_mut(Axis(0)).zip(&weights).for_each(|(mut row, weight)| row /= *weight);
        Ok(sums)
    }
}

/// First patches of windows of `side` that cover `length`.
fn starts(length: usize, side: usize, overlap: f32) -> Vec<usize> {
    let longest = ((side as f32 * (1.0 - overlap)) as usize).max(1);
    let steps = (length - side).div_ceil(longest);
    (0..=steps).map(|i| (i * (length - side)).checked_div(steps).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array, s};

    use super::*;

    #[test]
    fn windows_cover_the_grid_and_overlap_enough() {
        for (grid, side) in [((1, 1), 1), ((5, 9), 4), ((40, 53), 40), ((40, 300), 40), ((7, 30), 40)] {
            for overlap in [0.0, 0.25, 0.5, 0.9] {
                let windows = Windows::new(grid, (side, side), overlap).unwrap();
                let (h, w) = windows.side();
                assert_eq!((h, w), (side.min(grid.0), side.min(grid.1)));
                let mut seen = Array2::<u32>::zeros(grid);
                for (top, left) in windows.places() {
                    seen.slice_mut(s![top..top + h, left..left + w]).mapv_inplace(|n| n + 1);
                }
                assert!(seen.iter().all(|&n| n > 0), "{grid:?} {side} {overlap}");
                for pair in windows.columns.windows(2) {
                    let shared = (w - (pair[1] - pair[0])) as f32;
                    assert!(
                        pair[1] > pair[0] && (shared >= overlap * w as f32 - 1e-3 || pair[1] == pair[0] + 1)
                    );
                }
            }
        }
        assert_eq!(Windows::new((40, 53), (40, 40), 0.5).unwrap().count(), 2);
    }

    #[test]
    fn what_every_window_agrees_on_comes_out() {
        let (gh, gw) = (6, 11);
        let whole = Array2::from_shape_fn((gh * gw, 3), |(t, c)| (t * 3 + c) as f32);
        let windows = Windows::new((gh, gw), (4, 5), 0.4).unwrap();
        let part = |(top, left): (usize, usize)| {
            Array2::from_shape_fn((20, 3), |(at, c)| whole[[(top + at / 5) * gw + left + at % 5, c]])
        };
        let parts: Vec<_> = windows.places().map(part).collect();
        let blended = windows.blend(parts.iter().map(Array2::view)).unwrap();
        assert!(blended.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn the_nearer_window_counts_more() {
        // Windows of 4 on a row of 6, at 0 and 2: weights 1 2 2 1 each.
        let windows = Windows::new((1, 6), (1, 4), 0.5).unwrap();
        let (zeros, threes) = (Array2::zeros((4, 1)), Array2::from_elem((4, 1), 3.0));
        let blended = windows.blend([zeros.view(), threes.view()]).unwrap();
        assert_eq!(blended, array![[0.0], [0.0], [1.0], [2.0], [3.0], [3.0]]);
    }

    #[test]
    fn misfits() {
        assert!(Windows::new((0, 3), (2, 2), 0.5).is_err());
        assert!(Windows::new((4, 3), (2, 2), 1.0).is_err());
        let windows = Windows::new((2, 3), (2, 2), 0.5).unwrap();
        let code = Array2::<f32>::zeros((4, 1));
        assert!(windows.blend([code.view()]).is_err());
        let other = Array2::<f32>::zeros((3, 1));
        assert!(windows.blend([code.view(), other.view()]).is_err());
    }
}
