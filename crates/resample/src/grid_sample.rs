//! Bilinear reading of a map at arbitrary points, with gradients for the map and for the points.
//!
//! A grid holds one point `(x, y)` per output pixel, in units where the map spans `[-1, 1]`. In pixels
//! the point is `(px, py)`, and the four pixels around it have the weights
//! `(1 - |px - column|) (1 - |py - row|)`; their weighted sum is the output. The weights are
//! piecewise linear in the point, so its gradient is exact but for pixel centres and borders, where it
//! is one-sided.

use ndarray::{Array3, ArrayView3};

use crate::Result;
use crate::error::expect_shape;

/// What lies outside the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Zeros: a point near the border fades out over one pixel.
    Zeros,
    /// The nearest border pixel: points are moved onto the map, and their gradient in the direction
    /// they were moved is zero.
    Border,
}

/// Bilinear `grid_sample` with its two conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GridSample {
    /// What points outside the map read.
    pub padding: Padding,
    /// Whether `-1` and `1` are the centres of the outermost pixels, rather than their outer edges.
    pub align_corners: bool,
}

/// A point on one axis: pixel `low` with weight `1 - t` and pixel `low + 1` with weight `t`.
#[derive(Clone, Copy)]
struct Place {
    low: isize,
    t: f64,
    /// Pixels per unit of the grid: the derivative of the pixel coordinate, 0 where the border stopped it.
    slope: f64,
}

/// One of the four pixels around a point.
struct Corner {
    row: usize,
    column: usize,
    weight: f64,
    /// Derivative of `weight` in the grid's `(x, y)`.
    slope: [f64; 2],
}

impl GridSample {
    /// The map read at every point of the grid: `[c, ho, wo]`.
    ///
    /// * `x`: map `[c, h, w]`.
    /// * `grid`: points `[ho, wo, 2]` as `(x, y)` with the map in `[-1, 1]`; NaN counts as `-1`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the last axis of `grid` is not 2.
    pub fn forward(&self, x: ArrayView3<'_, f32>, grid: ArrayView3<'_, f32>) -> Result<Array3<f32>> {
        let (c, h, w) = x.dim();
        let (ho, wo, _) = grid.dim();
        expect_shape("grid", &[ho, wo, 2], grid.shape())?;
        let mut y = Array3::zeros((c, ho, wo));
        for i in 0..ho {
            for j in 0..wo {
                for corner in self.corners([grid[[i, j, 0]], grid[[i, j, 1]]], h, w) {
                    for k in 0..c {
                        y[[k, i, j]] += corner.weight as f32 * x[[k, corner.row, corner.column]];
                    }
                }
            }
        }
        Ok(y)
    }

    /// Gradients of [`GridSample::forward`] in the map, `[c, h, w]`, and in the grid, `[ho, wo, 2]`.
    ///
    /// * `grad`: `[c, ho, wo]`, the gradient with respect to the output.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the last axis of `grid` is not 2, or `grad` is not `[c, ho, wo]`.
    pub fn backward(
        &self,
        x: ArrayView3<'_, f32>,
        grid: ArrayView3<'_, f32>,
        grad: ArrayView3<'_, f32>,
    ) -> Result<(Array3<f32>, Array3<f32>)> {
        let (c, h, w) = x.dim();
        let (ho, wo, _) = grid.dim();
        expect_shape("grid", &[ho, wo, 2], grid.shape())?;
        expect_shape("grad", &[c, ho, wo], grad.shape())?;
        let mut grad_x = Array3::zeros((c, h, w));
        let mut grad_grid = Array3::zeros((ho, wo, 2));
        for i in 0..ho {
            for j in 0..wo {
                let mut slope = [0.0; 2];
                for corner in self.corners([grid[[i, j, 0]], grid[[i, j, 1]]], h, w) {
                    let mut dot = 0.0; // of the output gradient and this pixel, over channels
                    for k in 0..c {
                        let g = grad[[k, i, j]];
                        grad_x[[k, corner.row, corner.column]] += corner.weight as f32 * g;
                        dot += f64::from(g) * f64::from(x[[k, corner.row, corner.column]]);
                    }
                    slope[0] += corner.slope[0] * dot;
                    slope[1] += corner.slope[1] * dot;
                }
                grad_grid[[i, j, 0]] = slope[0] as f32;
                grad_grid[[i, j, 1]] = slope[1] as f32;
            }
        }
        Ok((grad_x, grad_grid))
    }

    /// Those of the four pixels around the point `(x, y)` that are on the `[h, w]` map.
    fn corners(&self, [x, y]: [f32; 2], h: usize, w: usize) -> impl Iterator<Item = Corner> {
        let places = self.place(y, h).zip(self.place(x, w));
        places.into_iter().flat_map(move |(py, px)| {
            [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().filter_map(move |(down, right)| {
                let (row, wy, dy) = py.side(down, h)?;
                let (column, wx, dx) = px.side(right, w)?;
                Some(Corner { row, column, weight: wy * wx, slope: [wy * dx, dy * wx] })
            })
        })
    }

    /// The place of a grid coordinate on an axis of `n` pixels; `None` if it is out of reach of every pixel.
    fn place(&self, coordinate: f32, n: usize) -> Option<Place> {
        if n == 0 {
            return None;
        }
        let unit = if coordinate.is_nan() { -1.0 } else { f64::from(coordinate) };
        let last = (n - 1) as f64;
        let (at, mut slope) = if self.align_corners {
            ((unit + 1.0) / 2.0 * last, last / 2.0)
        } else {
            (((unit + 1.0) * n as f64 - 1.0) / 2.0, n as f64 / 2.0)
        };
        let at = match self.padding {
            Padding::Zeros if at < -1.0 || at >= n as f64 => return None,
            Padding::Zeros => at,
            Padding::Border => {
                if at <= 0.0 || at >= last {
                    slope = 0.0;
                }
                at.clamp(0.0, last)
            }
        };
        let low = at.floor();
        Some(Place { low: low as isize, t: at - low, slope })
    }
}

impl Place {
    /// Index, weight and derivative of the weight of the lower (0) or upper (1) pixel, if on the map.
    fn side(self, side: isize, n: usize) -> Option<(usize, f64, f64)> {
        let index = usize::try_from(self.low + side).ok().filter(|&index| index < n)?;
        Some(match side {
            0 => (index, 1.0 - self.t, -self.slope),
            _ => (index, self.t, self.slope),
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Zip, array, s};

    use super::*;

    const ALL: [GridSample; 4] = [
        GridSample { padding: Padding::Zeros, align_corners: false },
        GridSample { padding: Padding::Zeros, align_corners: true },
        GridSample { padding: Padding::Border, align_corners: false },
        GridSample { padding: Padding::Border, align_corners: true },
    ];

    /// A map without symmetries, `[c, h, w]`.
    fn map(c: usize, h: usize, w: usize) -> Array3<f32> {
        Array3::from_shape_fn((c, h, w), |(k, i, j)| ((7 * k + 3 * i + j * j) as f32).sin())
    }

    /// Points inside and outside the map, `[3, 4, 2]`, away from centres and borders of a `[4, 5]` map.
    fn points() -> Array3<f32> {
        array![
            [[-0.93, 0.11], [0.27, -0.41], [0.61, 0.91], [-0.13, -0.88]],
            [[1.07, 0.13], [-1.12, -1.13], [0.37, 1.09], [2.9, 0.2]],
            [[0.03, 0.44], [-0.55, 0.57], [0.86, -0.2], [-0.3, 0.05]],
        ]
    }

    fn dot(a: &Array3<f32>, b: &Array3<f32>) -> f64 {
        Zip::from(a).and(b).fold(0.0, |sum, &a, &b| sum + f64::from(a) * f64::from(b))
    }

    #[test]
    fn a_grid_of_pixel_centres_copies_the_map() {
        let x = map(2, 4, 5);
        for sampler in ALL {
            let grid = Array3::from_shape_fn((4, 5, 2), |(i, j, axis)| {
                let (at, n) = if axis == 0 { (j as f32, 5.0) } else { (i as f32, 4.0) };
                if sampler.align_corners { 2.0 * at / (n - 1.0) - 1.0 } else { (2.0 * at + 1.0) / n - 1.0 }
            });
            let y = sampler.forward(x.view(), grid.view()).unwrap();
            assert!((y - &x).iter().all(|off| off.abs() < 1e-5), "{sampler:?}");
        }
    }

    #[test]
    fn the_gradient_of_the_map_is_the_adjoint() {
        let (x, grad) = (map(2, 4, 5), map(2, 3, 4) + 0.2);
        for sampler in ALL {
            let y = sampler.forward(x.view(), points().view()).unwrap();
            let (grad_x, _) = sampler.backward(x.view(), points().view(), grad.view()).unwrap();
            assert!((dot(&y, &grad) - dot(&x, &grad_x)).abs() < 1e-5, "{sampler:?}");
        }
    }

    #[test]
    fn the_gradient_of_the_grid_is_its_slope() {
        let (x, grad) = (map(2, 4, 5), map(2, 3, 4) + 0.2);
        let step = 1.0 / 256.0; // stays between the same pixels
        for sampler in ALL {
            let loss = |grid: &Array3<f32>| dot(&sampler.forward(x.view(), grid.view()).unwrap(), &grad);
            let (_, slope) = sampler.backward(x.view(), points().view(), grad.view()).unwrap();
            for (index, &slope) in slope.indexed_iter() {
                let (mut up, mut down) = (points(), points());
                up[index] += step;
                down[index] -= step;
                let measured = (loss(&up) - loss(&down)) / f64::from(up[index] - down[index]);
                assert!((measured - f64::from(slope)).abs() < 1e-3, "{sampler:?} {index:?}");
            }
        }
    }

    #[test]
    fn outside_is_zero_or_the_border() {
        let x = array![[[1.0, 2.0], [3.0, 4.0]]];
        let far = array![[[9.0, -9.0], [f32::INFINITY, f32::NEG_INFINITY], [-1.5, 1.0]]];
        let read = |padding, align_corners| {
            let sampler = GridSample { padding, align_corners };
            let (grad_x, grad_grid) =
                sampler.backward(x.view(), far.view(), array![[[1.0, 1.0, 1.0]]].view()).unwrap();
            (sampler.forward(x.view(), far.view()).unwrap(), grad_x.sum(), grad_grid)
        };
        // The third point is a quarter pixel off to the left: at -0.25 in corner units, at -1 in area units.
        let (y, mass, _) = read(Padding::Zeros, true);
        assert_eq!((y, mass), (array![[[0.0, 0.0, 2.25]]], 0.75));
        let (y, mass, _) = read(Padding::Zeros, false);
        assert_eq!((y, mass), (array![[[0.0, 0.0, 0.0]]], 0.0));
        for align_corners in [false, true] {
            let (y, mass, slope) = read(Padding::Border, align_corners);
            assert_eq!((y, mass), (array![[[2.0, 2.0, 3.0]]], 3.0));
            assert_eq!(slope, Array3::<f32>::zeros((1, 3, 2)));
        }
    }

    #[test]
    fn nan_counts_as_minus_one() {
        for sampler in ALL {
            let read = |v| sampler.forward(map(2, 4, 5).view(), array![[[v, 0.3], [0.2, v]]].view()).unwrap();
            assert_eq!(read(f32::NAN), read(-1.0));
        }
    }

    #[test]
    fn shapes_are_checked_and_may_be_empty() {
        let (x, grid) = (map(2, 4, 5), points());
        for sampler in ALL {
            let flat = grid.slice(s![.., .., ..1]);
            assert!(sampler.forward(x.view(), flat).is_err());
            assert!(sampler.backward(x.view(), flat, map(2, 3, 4).view()).is_err());
            let refused = sampler.backward(x.view(), grid.view(), map(2, 4, 3).view()).unwrap_err();
            assert_eq!(refused.to_string(), "grad has shape [2, 4, 3], expected [2, 3, 4]");
            let none = sampler.forward(map(2, 0, 5).view(), grid.view()).unwrap();
            assert_eq!(none, Array3::<f32>::zeros((2, 3, 4)));
        }
    }
}
