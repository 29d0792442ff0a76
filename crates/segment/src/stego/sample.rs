//! Reading tokens between the points of the patch grid.
//!
//! A point is four tokens and their weights, so that it reads rows of any width, and its adjoint adds to the same four
//! rows. Two conventions are needed: points in `[-1, 1]²` whose corners are the centres of the outermost tokens
//! (the correspondence loss), and pixels of an enlarged map (the CRF loss). Beyond the outermost centres the
//! border is repeated in both.
//!
//! The original hands its sampler a grid `[s, s, 2]` of `(x, y)` with the two axes of the grid swapped, so the point that
//! becomes entry `(i, j)` is the one at `(j, i)`. [`Points::swapped`] does that; random points do not care.

use kernels::simd;
use ndarray::{Array2, ArrayView2, ArrayView3};

use super::error::{Result, expect_range, expect_shape};

/// Points on a grid of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    taps: Vec<Tap>,
    /// Rows of what is read.
    rows: usize,
}

/// What a point reads.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tap {
    tokens: [u32; 4],
    weights: [f32; 4],
}

/// A place on one axis: `low` with weight `1 - part`, `high` with weight `part`.
type Place = (u32, u32, f32);

impl Points {
    /// Points `(x, y)` of `[-1, 1]²`, where -1 and 1 are the centres of the outermost tokens; what lies outside reads the border,
    /// and NaN counts as -1.
    ///
    /// * `grid`: `(gh, gw)`.
    ///
    /// # Errors
    /// [`Error::Range`](super::Error::Range) for a grid without tokens, or with more than `u32` can count.
    pub fn new(points: &[[f32; 2]], grid: (usize, usize)) -> Result<Self> {
        let place = |at: f32, n: usize| {
            let unit = if at.is_nan() { -1.0 } else { f64::from(at) };
            place((unit + 1.0) / 2.0 * (n - 1) as f64, n)
        };
        Self::of(points.iter().map(|&[x, y]| (y, x)), grid, |y| place(y, grid.0), |x| place(x, grid.1))
    }

    /// As [`Points::new`], of a grid of points in the original's order: entry `(i, j)` is `points[j, i]`.
    ///
    /// * `points`: `[s, s', 2]`, `(x, y)` each.
    ///
    /// # Errors
    /// As [`Points::new`], and [`Error::Shape`](super::Error::Shape) if the last axis is not 2.
    pub fn swapped(points: ArrayView3<'_, f32>, grid: (usize, usize)) -> Result<Self> {
        let (rows, columns, _) = points.dim();
        expect_shape("points", &[rows, columns, 2], points.shape())?;
        let at = |i: usize, j: usize| [points[[j, i, 0]], points[[j, i, 1]]];
        let points: Vec<_> = (0..columns).flat_map(|i| (0..rows).map(move |j| at(i, j))).collect();
        Self::new(&points, grid)
    }

    /// Pixels `(row, column)` of a map of `size` to which the tokens are enlarged bilinearly (edges aligned, not corners).
    ///
    /// # Errors
    /// As [`Points::new`], and [`Error::Range`](super::Error::Range) for a pixel outside the map.
    pub fn pixels(pixels: &[(usize, usize)], size: (usize, usize), grid: (usize, usize)) -> Result<Self> {
        for &(row, column) in pixels {
            let within = row < size.0 && column < size.1;
            expect_range(within, "pixel", &format!("one of a map of {size:?}"), format!("{row}, {column}"))?;
        }
        let place =
            |at: usize, size: usize, n: usize| place((at as f64 + 0.5) * n as f64 / size as f64 - 0.5, n);
        Self::of(
            pixels.iter().copied(),
            grid,
            |row| place(row, size.0, grid.0),
            |column| place(column, size.1, grid.1),
        )
    }

    fn of<T>(
        points: impl Iterator<Item = (T, T)>,
        (gh, gw): (usize, usize),
        down: impl Fn(T) -> Place,
        across: impl Fn(T) -> Place,
    ) -> Result<Self> {
        let fits = gh > 0 && gw > 0 && u32::try_from(gh * gw).is_ok();
        expect_range(fits, "number of tokens", "1 to 2³² - 1", gh * gw)?;
        let width = gw as u32;
        let tap = |(y, x): (T, T)| {
            let ((top, bottom, v), (left, right, u)) = (down(y), across(x));
            Tap {
                tokens: [
                    top * width + left,
                    top * width + right,
                    bottom * width + left,
                    bottom * width + right,
                ],
                weights: [(1.0 - v) * (1.0 - u), (1.0 - v) * u, v * (1.0 - u), v * u],
            }
        };
        Ok(Self { taps: points.map(tap).collect(), rows: gh * gw })
    }

    /// Number of points.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taps.len()
    }

    /// `t`, the tokens of the grid.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether there is no point.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    /// The tokens `[t, k]` read at every point, `[n, k]`.
    ///
    /// # Errors
    /// [`Error::Shape`](super::Error::Shape) if there are not `t` tokens.
    pub fn sample(&self, tokens: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        let width = tokens.ncols();
        expect_shape("tokens", &[self.rows, width], tokens.shape())?;
        let mut out = Array2::zeros((self.len(), width));
        let tokens = tokens.as_standard_layout();
        let slices = (tokens.as_slice(), out.as_slice_mut());
        self.read(slices.0.expect("standard layout"), width, slices.1.expect("standard layout"));
        Ok(out)
    }

    /// The gradient in the tokens, `[t, k]`, from the gradient in what was read, `[n, k]`.
    ///
    /// # Errors
    /// [`Error::Shape`](super::Error::Shape) if there are not `n` rows.
    pub fn adjoint(&self, grad: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        let width = grad.ncols();
        expect_shape("grad", &[self.len(), width], grad.shape())?;
        let mut out = Array2::zeros((self.rows, width));
        let grad = grad.as_standard_layout();
        let slices = (grad.as_slice(), out.as_slice_mut());
        self.add_back(slices.0.expect("standard layout"), width, slices.1.expect("standard layout"));
        Ok(out)
    }

    /// Writes `[n, width]`, read from `[t, width]`.
    pub(super) fn read(&self, rows: &[f32], width: usize, out: &mut [f32]) {
        assert_eq!((rows.len(), out.len()), (self.rows * width, self.len() * width), "rows of {width}");
        simd(
            #[inline(always)]
            || {
                for (tap, out) in self.taps.iter().zip(out.chunks_exact_mut(width)) {
                    let [a, b, c, d] = tap.tokens.map(|token| &rows[token as usize * width..][..width]);
                    let [wa, wb, wc, wd] = tap.weights;
                    for i in 0..width {
                        out[i] = (wa * a[i] + wb * b[i]) + (wc * c[i] + wd * d[i]);
                    }
                }
            },
        );
    }

    /// Adds the gradient in `[t, width]` that belongs to `grad`, `[n, width]`.
    pub(super) fn add_back(&self, grad: &[f32], width: usize, rows: &mut [f32]) {
        assert_eq!((rows.len(), grad.len()), (self.rows * width, self.len() * width), "rows of {width}");
        simd(
            #[inline(always)]
            || {
                for (tap, grad) in self.taps.iter().zip(grad.chunks_exact(width)) {
                    for (token, weight) in tap.tokens.iter().zip(tap.weights) {
                        let row = &mut rows[*token as usize * width..][..width];
                        for (to, g) in row.iter_mut().zip(grad) {
                            *to += weight * g;
                        }
                    }
                }
            },
        );
    }

    /// Writes the weight of every token in every point, `[n, t]`.
    pub(super) fn write_weights(&self, weights: &mut Vec<f32>) {
        for tap in &self.taps {
            let start = weights.len();
            weights.resize(start + self.rows, 0.0);
            let weighted = tap.tokens.iter().zip(tap.weights);
            weighted.for_each(|(&token, weight)| weights[start + token as usize] += weight);
        }
    }

    /// The tokens that some point reads, in rising order, and the points as they read those alone.
    pub(super) fn compact(&self) -> (Vec<u32>, Self) {
        let mut place = vec![0_u32; self.rows];
        self.taps.iter().flat_map(|tap| tap.tokens).for_each(|token| place[token as usize] = 1);
        let mut read = Vec::new();
        for (token, place) in (0..).zip(&mut place) {
            if *place == 1 {
                *place = read.len() as u32;
                read.push(token);
            }
        }
        let taps = self.taps.iter().map(|tap| Tap { tokens: tap.tokens.map(|t| place[t as usize]), ..*tap });
        let points = Self { taps: taps.collect(), rows: read.len() };
        (read, points)
    }
}

/// The tokens below and above a coordinate in tokens, and how far it is from the one to the other.
fn place(at: f64, n: usize) -> Place {
    let at = at.clamp(0.0, (n - 1) as f64);
    let low = at.floor();
    (low as u32, (low as u32 + 1).min(n as u32 - 1), (at - low) as f32)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array3, Axis};
    use resample::{Align, GridSample, Mode, Padding, Taps, resize};

    use super::*;

    fn tokens(t: usize, k: usize) -> Array2<f32> {
        Array::from_shape_fn((t, k), |(t, k)| ((t * 7 + k * 3 + t * k) as f32).sin())
    }

    /// `[t, k]` as `[k, gh, gw]`.
    fn map(tokens: &Array2<f32>, (gh, gw): (usize, usize)) -> Array3<f32> {
        tokens.t().as_standard_layout().into_owned().into_shape_with_order((tokens.ncols(), gh, gw)).unwrap()
    }

    fn grid_of_points() -> Array3<f32> {
        Array::from_shape_fn((3, 3, 2), |(i, j, axis)| 1.3 * ((i * 5 + j * 11 + axis * 3) as f32).sin())
    }

    #[test]
    fn swapped_points_read_what_a_grid_sample_reads() {
        let (grid, tokens, points) = ((4, 5), tokens(20, 3), grid_of_points());
        let got = Points::swapped(points.view(), grid).unwrap().sample(tokens.view()).unwrap();
        let sampler = GridSample { padding: Padding::Border, align_corners: true };
        let turned = points.permuted_axes([1, 0, 2]);
        let want = sampler.forward(map(&tokens, grid).view(), turned.view()).unwrap();
        let want = want.into_shape_with_order((3, 9)).unwrap();
        assert!((got - want.t()).iter().all(|off| off.abs() < 1e-6));
    }

    #[test]
    fn pixels_read_what_a_resize_reads() {
        let (grid, size, tokens) = ((4, 5), (9, 8), tokens(20, 3));
        let taps = |n, size| Taps::new(Mode::Bilinear, Align::HalfPixel, n, size);
        let large = resize(map(&tokens, grid).view(), &taps(4, 9), &taps(5, 8)).unwrap();
        let all: Vec<_> = (0..72).map(|i| (i / 8, i % 8)).collect();
        let got = Points::pixels(&all, size, grid).unwrap().sample(tokens.view()).unwrap();
        let want = large.into_shape_with_order((3, 72)).unwrap();
        assert!((got - want.t()).iter().all(|off| off.abs() < 1e-6));
        assert!(Points::pixels(&[(9, 0)], size, grid).is_err());
    }

    #[test]
    fn the_way_back_is_the_adjoint_also_of_the_tokens_that_are_read_alone() {
        let (tokens, grid) = (tokens(20, 3), (4, 5));
        let points = Points::swapped(grid_of_points().view(), grid).unwrap();
        let grad = Array::from_shape_fn((9, 3), |(i, k)| ((i * 3 + k) as f32).cos());
        let forward = (points.sample(tokens.view()).unwrap() * &grad).sum();
        let back = points.adjoint(grad.view()).unwrap();
        assert!((forward - (&back * &tokens).sum()).abs() < 1e-5);
        let (read, few) = points.compact();
        let read: Vec<usize> = read.iter().map(|&t| t as usize).collect();
        let some = tokens.select(Axis(0), &read);
        assert_eq!(few.sample(some.view()).unwrap(), points.sample(tokens.view()).unwrap());
        assert_eq!(few.adjoint(grad.view()).unwrap(), back.select(Axis(0), &read));
        assert!(back.outer_iter().enumerate().all(|(t, row)| read.contains(&t) || row.sum() == 0.0));
    }

    #[test]
    fn odd_points_and_grids() {
        let one = Points::new(&[[0.3, -2.0], [f32::NAN, 5.0]], (1, 1)).unwrap();
        assert_eq!(one.sample(tokens(1, 2).view()).unwrap(), tokens(2, 2).select(Axis(0), &[0, 0]));
        assert!(Points::new(&[[0.0, 0.0]], (0, 3)).is_err());
        assert!(one.sample(tokens(2, 2).view()).is_err() && one.adjoint(tokens(3, 2).view()).is_err());
    }
}
