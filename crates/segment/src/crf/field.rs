//! A number for every class of every pixel, some classes of a pixel side by side.
//!
//! Classes go in *planes*; a [`Row`] is what one pixel has in a plane. What the last plane has beyond the classes is -∞ among
//! scores and 0 among probabilities. Nothing here knows of neighbours.

use kernels::exp;
use ndarray::{Array3, ArrayView3, Axis};

use super::row::Row;
use super::work::{Work, each};

/// Lines of the picture that a thread works through at a time.
const LINES: usize = 4;

/// Planes of all classes, each a row per pixel: `[⌈k / lanes⌉][h w]`.
pub(super) struct Field<R> {
    classes: usize,
    w: usize,
    pub(super) planes: Vec<Vec<R>>,
}

impl<R: Row> Field<R> {
    /// The unary term as scores, `-U = ln p`.
    ///
    /// * `probabilities`: `[k, h, w]`.
    /// * `smallest`: probabilities are kept above it, and at most 1.
    pub(super) fn scores(probabilities: &ArrayView3<'_, f32>, smallest: f32, work: Work) -> Self {
        let (classes, h, w) = probabilities.dim();
        let planes = (0..classes.div_ceil(R::LANES)).map(|_| vec![R::all(f32::NEG_INFINITY); h * w]);
        let mut field = Self { classes, w, planes: planes.collect() };
        each(work, field.lines(), |(part, mut planes)| {
            let mut logs = vec![0.0; w];
            for (class, plane) in probabilities.outer_iter().enumerate() {
                let rows = planes[class / R::LANES].chunks_exact_mut(w).enumerate();
                for (y, rows) in rows {
                    let line = plane.row(part * LINES + y);
                    logs.iter_mut().zip(line).for_each(|(to, &p)| *to = p);
                    kernels::simd(
                        #[inline(always)]
                        || {
                            for x in &mut logs {
                                *x = ln(x.clamp(smallest, 1.0));
                            }
                        },
                    );
                    rows.iter_mut().zip(&logs).for_each(|(row, &x)| row.lanes_mut()[class % R::LANES] = x);
                }
            }
        });
        field
    }

    /// Another of the same size, with nothing in it.
    pub(super) fn copy(&self) -> Self {
        Self { classes: self.classes, w: self.w, planes: self.planes.clone() }
    }

    /// The softmax over the classes of every pixel.
    pub(super) fn normalise(&mut self, work: Work) {
        each(work, self.lines(), |(_, mut planes)| {
            kernels::simd(
                #[inline(always)]
                || {
                    for pixel in 0..planes[0].len() {
                        softmax(&mut planes, pixel);
                    }
                },
            );
        });
    }

    /// Some lines of every plane, numbered.
    fn lines(&mut self) -> Vec<(usize, Vec<&mut [R]>)> {
        let pixels = LINES * self.w;
        let mut lines: Vec<Vec<&mut [R]>> = Vec::new();
        for plane in &mut self.planes {
            for (part, rows) in plane.chunks_mut(pixels).enumerate() {
                if part == lines.len() {
                    lines.push(Vec::new());
                }
                lines[part].push(rows);
            }
        }
        lines.into_iter().enumerate().collect()
    }

    /// `[k, h, w]`.
    pub(super) fn by_class(&self, work: Work) -> Array3<f32> {
        let h = self.planes[0].len() / self.w;
        let mut out = Array3::zeros((self.classes, h, self.w));
        let parts: Vec<_> = out.axis_chunks_iter_mut(Axis(1), LINES).enumerate().collect();
        each(work, parts, |(part, mut out)| {
            for (class, mut plane) in out.outer_iter_mut().enumerate() {
                for (y, mut line) in plane.outer_iter_mut().enumerate() {
                    let rows = &self.planes[class / R::LANES][(part * LINES + y) * self.w..];
                    line.iter_mut().zip(rows).for_each(|(to, row)| *to = row.lanes()[class % R::LANES]);
                }
            }
        });
        out
    }
}

/// Below this the exponential is 0, so that what is not a class is exactly that.
const LEAST: f32 = -87.0;

#[inline(always)]
fn softmax<R: Row>(planes: &mut [&mut [R]], pixel: usize) {
    /// NaN counts as none.
    #[inline(always)]
    fn larger(a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    let mut tops = R::all(f32::NEG_INFINITY);
    for plane in planes.iter() {
        tops = plane[pixel].zip(&tops, larger);
    }
    let top = tops.fold(larger);
    let mut sums = R::all(0.0);
    for plane in planes.iter_mut() {
        let row = plane[pixel].map(
            #[inline(always)]
            |x| if x - top < LEAST { 0.0 } else { exp(x - top) },
        );
        plane[pixel] = row;
        sums.add(1.0, &row);
    }
    let scale = 1.0
        / sums.fold(
            #[inline(always)]
            |a, b| a + b,
        );
    for plane in planes.iter_mut() {
        plane[pixel] = plane[pixel].times(scale);
    }
}

/// The natural logarithm of a normal number above 0, at most two units in the last place off; NaN stays NaN.
///
/// `x = 2ⁿ m` with `m` from √½ to √2, and `ln m = 2 artanh s = 2 (s + s³/3 + s⁵/5 + …)` of `s = (m - 1) / (m + 1)`, which is at
/// most 0.172.
#[inline(always)]
fn ln(x: f32) -> f32 {
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_sub(ROOT_HALF);
    let n = (bits as i32 >> 23) as f32;
    let m = f32::from_bits((bits & 0x007f_ffff).wrapping_add(ROOT_HALF));
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let tail = square * (2.0 / 3.0 + square * (2.0 / 5.0 + square * (2.0 / 7.0 + square * (2.0 / 9.0))));
    let log = n * std::f32::consts::LN_2 + (2.0 * s + s * tail);
    if x.is_nan() { x } else { log }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Line, Quarter};
    use super::*;

    #[test]
    fn the_logarithm_is_right_to_the_last_places() {
        assert_eq!(ln(1.0), 0.0);
        assert!(ln(f32::NAN).is_nan());
        let mut x = 1e-6_f32;
        while x <= 1.0 {
            let exact = f64::from(x).ln();
            let off = (f64::from(ln(x)) - exact).abs();
            assert!(off <= 3e-7 * exact.abs().max(f64::from(f32::MIN_POSITIVE)), "{x}: off by {off}");
            x *= 1.000_37;
        }
    }

    /// Classes that do not fill their planes; lines that do not fill their parts.
    #[test]
    fn scores_of_probabilities_are_those_probabilities() {
        there_and_back::<Line>();
        there_and_back::<Quarter>();
    }

    fn there_and_back<R: Row>() {
        for (k, h, w) in [(1, 1, 1), (3, 5, 2), (16, 6, 3), (27, 9, 7), (40, 4, 1)] {
            let mut p = Array3::from_shape_fn((k, h, w), |(k, y, x)| 0.1 + ((k * 5 + y * 3 + x) % 7) as f32);
            p.lanes_mut(Axis(0)).into_iter().for_each(|mut pixel| pixel /= pixel.sum());
            let mut all = Vec::new();
            for work in [Work::One, Work::All] {
                let mut field = Field::<R>::scores(&p.view(), 1e-5, work);
                field.normalise(work);
                let beyond = |row: &R| row.lanes()[(k - 1) % R::LANES + 1..].iter().all(|&q| q == 0.0);
                assert!(field.planes.last().unwrap().iter().all(beyond));
                all.push(field.by_class(work));
            }
            assert_eq!(all[0], all[1]);
            assert!(all[0].iter().zip(&p).all(|(a, b)| (a - b).abs() < 1e-6), "{k} {h} {w}");
        }
    }

    #[test]
    fn a_pixel_without_numbers_stays_without_and_harms_no_other() {
        let mut p = Array3::from_elem((3, 1, 2), 0.5_f32);
        p[[1, 0, 0]] = f32::NAN;
        let mut field = Field::<Quarter>::scores(&p.view(), 1e-5, Work::One);
        field.normalise(Work::One);
        let q = field.by_class(Work::One);
        assert!(q.slice(ndarray::s![.., 0, 0]).iter().all(|q| q.is_nan()));
        assert!(q.slice(ndarray::s![.., 0, 1]).iter().all(|q| (q - 1.0 / 3.0).abs() < 1e-6));
    }
}
