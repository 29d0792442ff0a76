//! How a label map lies over a patch grid, where scores are upsampled bilinearly by whole factors.
//!
//! The *spans* of an axis are what lies between the centres of neighbouring tokens, and the two half ones beyond the outermost
//! centres, where an upsampled score stays as it is: `g + 1` for `g` tokens. Maps of scores and of weights are laid out so that the
//! same column of neighbouring spans is one vector.

use std::ops::Range;

/// Spans are filled up to whole numbers of these: the widest vectors of all levels.
pub(crate) const WIDEST: usize = 16;

/// How a patch grid and the label map above it are cut into spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    /// `(gh, gw)`.
    pub(crate) grid: (usize, usize),
    /// Pixels per token, down and across.
    pub(crate) factor: (usize, usize),
}

impl Spans {
    /// The spans of a grid below a map of `size`; `None` if the sizes are no whole multiples of the grid's.
    #[must_use]
    pub fn new(grid: (usize, usize), size: (usize, usize)) -> Option<Self> {
        let whole = |g: usize, s: usize| g > 0 && s > 0 && s.is_multiple_of(g);
        let factor = (size.0.checked_div(grid.0)?, size.1.checked_div(grid.1)?);
        (whole(grid.0, size.0) && whole(grid.1, size.1)).then_some(Self { grid, factor })
    }

    /// Spans across, filled up to whole vectors.
    pub(crate) fn across(&self) -> usize {
        (self.grid.1 + 1).next_multiple_of(WIDEST)
    }

    /// Numbers of one class in one row of the grid: a repeated first token, the tokens, the last one repeated.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.across() + WIDEST
    }

    /// Numbers of a map of `classes` scores per token, `[gh, c, row]`.
    #[must_use]
    pub fn scores_len(&self, classes: usize) -> usize {
        self.grid.0 * classes * self.row_len()
    }

    /// Numbers of a map of one weight per pixel, `[h, factor, spans]`.
    #[must_use]
    pub fn weights_len(&self) -> usize {
        self.grid.0 * self.factor.0 * self.factor.1 * self.across()
    }

    /// Where pixel `x` of a row lies among the row's weights.
    fn weight_at(&self, x: usize) -> usize {
        let (span, column) = place(x, self.factor.1);
        column * self.across() + span
    }

    /// Writes the weights of pixels: `weight_of_label` of every label, 0 for a pixel that does not count.
    ///
    /// * `labels`: `[h, w]`; `weights`: [`Spans::weights_len`].
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn pack_weights(&self, labels: &[u8], weight_of_label: &[f32; 256], weights: &mut [f32]) {
        let (h, w) = (self.grid.0 * self.factor.0, self.grid.1 * self.factor.1);
        assert!(labels.len() == h * w && weights.len() == self.weights_len(), "labels of {h} x {w}");
        weights.fill(0.0);
        let places: Vec<usize> = (0..w).map(|x| self.weight_at(x)).collect();
        let rows = weights.chunks_exact_mut(self.factor.1 * self.across());
        for (labels, weights) in labels.chunks_exact(w).zip(rows) {
            for (&label, &at) in labels.iter().zip(&places) {
                weights[at] = weight_of_label[usize::from(label)];
            }
        }
    }

    /// Adds up, for every token and class, the weights of the pixels of that class times the token's share in them: the
    /// upsampling's adjoint, applied to the one-hot labels. `[gh, c, row]`, as the scores.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn label_mass(&self, labels: &[u8], weight_of_label: &[f32; 256], classes: usize, mass: &mut [f32]) {
        let ((gh, gw), (sy, sx)) = (self.grid, self.factor);
        let (w, len) = (gw * sx, self.row_len());
        assert!(labels.len() == gh * sy * w && mass.len() == self.scores_len(classes), "labels and scores");
        mass.fill(0.0);
        let places: Vec<(usize, f32)> = (0..w)
            .map(|x| {
                let (span, column) = place(x, sx);
                (span, share(column, sx))
            })
            .collect();
        let mut line = vec![0.0; classes * len];
        for (y, labels) in labels.chunks_exact(w).enumerate() {
            line.fill(0.0);
            for (&label, &(span, right)) in labels.iter().zip(&places) {
                let weight = weight_of_label[usize::from(label)];
                if usize::from(label) < classes && weight != 0.0 {
                    let at = usize::from(label) * len + span;
                    line[at] += weight * (1.0 - right);
                    line[at + 1] += weight * right;
                }
            }
            let (span, row) = place(y, sy);
            let below = share(row, sy);
            for (token_row, part) in [(span.saturating_sub(1), 1.0 - below), (span.min(gh - 1), below)] {
                let to = &mut mass[token_row * classes * len..][..classes * len];
                to.iter_mut().zip(&line).for_each(|(to, &x)| *to += part * x);
            }
        }
        self.fold(mass);
    }

    /// Adds what repeated tokens got to the tokens, and clears the former.
    pub(crate) fn fold(&self, map: &mut [f32]) {
        let gw = self.grid.1;
        for row in map.chunks_exact_mut(self.row_len()) {
            row[1] += row[0];
            row[gw] += row[gw + 1];
            row[0] = 0.0;
            row[gw + 1..].fill(0.0);
        }
    }

    /// Where the scores of the tokens of grid row `i` and of class `class` lie in a map, `[gw]`.
    #[must_use]
    pub fn tokens(&self, i: usize, class: usize, classes: usize) -> Range<usize> {
        let start = (i * classes + class) * self.row_len() + 1;
        start..start + self.grid.1
    }

    /// Repeats the outermost tokens of a map whose tokens have been written.
    pub fn repeat_outermost(&self, map: &mut [f32]) {
        let gw = self.grid.1;
        for row in map.chunks_exact_mut(self.row_len()) {
            row[0] = row[1];
            let last = row[gw];
            row[gw + 1..].fill(last);
        }
    }
}

/// The span and the place in it of a pixel, at `factor` pixels per token.
pub(crate) fn place(pixel: usize, factor: usize) -> (usize, usize) {
    let shifted = pixel + factor - factor / 2;
    (shifted / factor, shifted % factor)
}

/// How far a pixel has come from the token before it to the one behind it, in `[0, 1)`.
pub(crate) fn share(column: usize, factor: usize) -> f32 {
    let first = if factor.is_multiple_of(2) { 0.5 } else { 0.0 };
    (column as f32 + first) / factor as f32
}
