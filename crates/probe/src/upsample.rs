//! Scores on the patch grid, read at label resolution: bilinear with half-pixel centres.
//!
//! The two axes separate. Columns first, once per *grid* row: `[gh, c, w]`; then every output row is a
//! blend of two of those, which is a loop over contiguous numbers. With 28 grid rows for 224 pixel rows the
//! irregular half of the work is done an eighth as often as the other, and nothing of size
//! `[h, w, c]` ever exists. Both users of it, the label maps here and the loss, work row by row.

use ndarray::{Array2, ArrayView2};
use resample::{Align, Mode, Taps};

/// A source index with its weight.
type Tap = (usize, f32);

/// The two axes of one upsampling.
pub(crate) struct Upsampler {
    rows: Vec<[Tap; 2]>, // [h]
    cols: Vec<[Tap; 2]>, // [w]
    grid: (usize, usize),
}

impl Upsampler {
    /// From `[gh, gw]` to `[h, w]`; the grid has at least one token.
    pub(crate) fn new(grid: (usize, usize), size: (usize, usize)) -> Self {
        Self { rows: axis(grid.0, size.0), cols: axis(grid.1, size.1), grid }
    }

    /// Output width `w`.
    pub(crate) fn width(&self) -> usize {
        self.cols.len()
    }

    /// The two grid rows that output row `y` blends.
    pub(crate) fn row(&self, y: usize) -> [Tap; 2] {
        self.rows[y]
    }

    /// Scores `[t, c]` resized along the columns into `wide`, `[gh, c, w]`.
    pub(crate) fn widen(&self, scores: ArrayView2<'_, f32>, wide: &mut Vec<f32>) {
        let ((gh, gw), c, w) = (self.grid, scores.ncols(), self.width());
        wide.resize(gh * c * w, 0.0);
        let mut line = vec![0.0; gw];
        for (at, out) in wide.chunks_exact_mut(w.max(1)).enumerate() {
            let (i, class) = (at / c, at % c);
            for (q, value) in line.iter_mut().enumerate() {
                *value = scores[[i * gw + q, class]];
            }
            for (value, [(p, wp), (q, wq)]) in out.iter_mut().zip(&self.cols) {
                *value = wp * line[*p] + wq * line[*q];
            }
        }
    }

    /// The adjoint of [`Upsampler::widen`]: `[gh, c, w]` to `[t, c]`.
    pub(crate) fn narrow(&self, wide: &[f32], c: usize) -> Array2<f32> {
        let ((gh, gw), w) = (self.grid, self.width());
        let mut scores = Array2::zeros((gh * gw, c));
        let mut line = vec![0.0; gw];
        for (at, grad) in wide.chunks_exact(w.max(1)).enumerate() {
            let (i, class) = (at / c, at % c);
            line.fill(0.0);
            for (value, [(p, wp), (q, wq)]) in grad.iter().zip(&self.cols) {
                line[*p] += wp * value;
                line[*q] += wq * value;
            }
            for (q, value) in line.iter().enumerate() {
                scores[[i * gw + q, class]] = *value;
            }
        }
        scores // [t, c]
    }
}

fn axis(input: usize, output: usize) -> Vec<[Tap; 2]> {
    let taps = Taps::new(Mode::Bilinear, Align::HalfPixel, input, output);
    (0..output).map(|i| [taps.at(i)[0], taps.at(i)[1]]).collect()
}

/// The best score per pixel, `[h, w]`: bilinear upsampling of every score, then the index of the largest.
///
/// Ties go to the lowest index.
///
/// * `scores`: `[t, c]` with `t = gh·gw` and `1 <= c <= 256`, rows in row-major order of the grid.
/// * `grid`: `(gh, gw)`, `size`: `(h, w)`.
///
/// # Panics
/// If `scores` has not `gh·gw >= 1` rows, or its columns do not number 1 to 256.
///
/// ```
/// let scores = ndarray::array![[1.0, 0.0], [0.0, 1.0]]; // two tokens side by side, two classes
/// assert_eq!(probe::upsample_argmax(scores.view(), (1, 2), (1, 5)), ndarray::array![[0, 0, 0, 1, 1]]);
/// ```
pub fn upsample_argmax(
    scores: ArrayView2<'_, f32>,
    grid: (usize, usize),
    size: (usize, usize),
) -> Array2<u8> {
    let (t, c) = scores.dim();
    assert!(t == grid.0 * grid.1 && t > 0, "{t} tokens on a grid of {grid:?}");
    assert!((1..=256).contains(&c), "{c} scores per token do not fit a label map of bytes");
    let (h, w) = size;
    let mut labels = Vec::with_capacity(h * w);
    if h * w > 0 {
        let up = Upsampler::new(grid, size);
        let (mut wide, mut best, mut arg) = (Vec::new(), vec![0.0; w], vec![0_u32; w]);
        up.widen(scores, &mut wide);
        for y in 0..h {
            best_of_row(up.row(y), &wide, c, &mut best, &mut arg);
            labels.extend(arg.iter().map(|&class| class as u8));
        }
    }
    Array2::from_shape_vec(size, labels).expect("h rows of w labels") // [h, w]
}

/// One output row: its largest score `best` and the class `arg` that has it, both `[w]`.
fn best_of_row([(p, wp), (q, wq)]: [Tap; 2], wide: &[f32], c: usize, best: &mut [f32], arg: &mut [u32]) {
    let w = best.len();
    best.fill(f32::NEG_INFINITY);
    arg.fill(0);
    let upper = wide[p * c * w..(p + 1) * c * w].chunks_exact(w);
    let lower = wide[q * c * w..(q + 1) * c * w].chunks_exact(w);
    for (class, (upper, lower)) in (0..).zip(upper.zip(lower)) {
        for (((best, arg), u), l) in best.iter_mut().zip(&mut *arg).zip(upper).zip(lower) {
            let score = wp * u + wq * l;
            let better = score > *best;
            *best = if better { score } else { *best };
            *arg = if better { class } else { *arg };
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    fn scores(t: usize, c: usize) -> Array2<f32> {
        Array2::from_shape_fn((t, c), |(i, j)| ((i * 7 + j * 3 + i * i * j) as f32).sin())
    }

    /// The slow way: all scores at label resolution, then the first largest.
    fn whole(scores: &Array2<f32>, (gh, gw): (usize, usize), (h, w): (usize, usize)) -> Array2<u8> {
        let map = Array3::from_shape_fn((scores.ncols(), gh, gw), |(c, i, j)| scores[[i * gw + j, c]]);
        let rows = Taps::new(Mode::Bilinear, Align::HalfPixel, gh, h);
        let cols = Taps::new(Mode::Bilinear, Align::HalfPixel, gw, w);
        let up = resample::resize(map.view(), &rows, &cols).unwrap();
        Array2::from_shape_fn((h, w), |(y, x)| {
            (0..scores.ncols()).rev().max_by(|&a, &b| up[[a, y, x]].total_cmp(&up[[b, y, x]])).unwrap() as u8
        })
    }

    #[test]
    fn equals_resizing_everything_first() {
        for (grid, size) in [((3, 4), (17, 23)), ((1, 1), (5, 4)), ((5, 2), (5, 2)), ((6, 7), (4, 3))] {
            let scores = scores(grid.0 * grid.1, 5);
            assert_eq!(upsample_argmax(scores.view(), grid, size), whole(&scores, grid, size), "{grid:?}");
        }
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        let scores = array![[0.0, 2.0, 2.0], [0.0, 2.0, 2.0]];
        assert!(upsample_argmax(scores.view(), (2, 1), (4, 3)).iter().all(|&class| class == 1));
    }

    #[test]
    fn empty_maps_are_empty() {
        assert_eq!(upsample_argmax(scores(4, 2).view(), (2, 2), (0, 3)).dim(), (0, 3));
        assert_eq!(upsample_argmax(scores(4, 2).view(), (2, 2), (3, 0)).dim(), (3, 0));
    }

    #[test]
    fn narrowing_is_the_adjoint_of_widening() {
        let (up, x) = (Upsampler::new((2, 3), (1, 11)), scores(6, 4));
        let mut wide = Vec::new();
        up.widen(x.view(), &mut wide); // [2, 4, 11]
        let grad: Vec<f32> = (0..wide.len()).map(|i| (i as f32 * 0.37).cos()).collect();
        let left: f32 = wide.iter().zip(&grad).map(|(a, b)| a * b).sum();
        let right = (up.narrow(&grad, 4) * &x).sum();
        assert!((left - right).abs() < 1e-4, "{left} and {right}");
    }
}
