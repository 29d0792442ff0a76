//! A number for every class of every pixel, sixteen classes of a pixel side by side.
//!
//! Classes go in *planes* of [`BLOCK`]; a [`Row`] is what one pixel (or one vertex of a lattice) has in a plane: a cache line,
//! aligned as one, so that a look at any row is one access to memory. What the last plane has beyond the classes is -∞ among
//! scores and 0 among probabilities. Nothing here knows of neighbours.

use kernels::exp;
use ndarray::{Array3, ArrayView3, Axis};

use super::work::{Work, each};

/// Classes that are worked on side by side.
pub(super) const BLOCK: usize = 16;

/// Lines of the picture that a thread works through at a time.
const LINES: usize = 4;

/// Numbers of a plane for one pixel or one vertex.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(align(64))]
pub(super) struct Row(pub(super) [f32; BLOCK]);

impl Row {
    pub(super) const ZERO: Self = Self([0.0; BLOCK]);
    pub(super) const ONE: Self = Self([1.0; BLOCK]);

    /// `self += share * other`.
    #[inline(always)]
    pub(super) fn add(&mut self, share: f32, other: &Self) {
        // As one value: written lane by lane, each lane would have to be stored before the next is loaded.
        let own = self.0;
        *self = Self(std::array::from_fn(|lane| own[lane] + share * other.0[lane]));
    }

    /// `share * self`.
    #[inline(always)]
    pub(super) fn times(&self, share: f32) -> Self {
        Self(std::array::from_fn(|lane| share * self.0[lane]))
    }

    /// The row, or zeros: `mask` is all ones or all zeros.
    #[inline(always)]
    pub(super) fn and(&self, mask: u32) -> Self {
        Self(std::array::from_fn(|lane| f32::from_bits(self.0[lane].to_bits() & mask)))
    }

    /// A step of the lattices' blur: half of either neighbour is added.
    #[inline(always)]
    pub(super) fn blurred(&self, before: &Self, after: &Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + 0.5 * (before.0[lane] + after.0[lane])))
    }
}

/// Planes of all classes: `[⌈k / 16⌉][h w]` rows.
pub(super) struct Field {
    classes: usize,
    w: usize,
    pub(super) planes: Vec<Vec<Row>>,
}

impl Field {
    /// The unary term as scores, `-U = ln p`.
    ///
    /// * `probabilities`: `[k, h, w]`.
    /// * `smallest`: probabilities are kept above it, and at most 1.
    pub(super) fn scores(probabilities: &ArrayView3<'_, f32>, smallest: f32, work: Work) -> Self {
        let (classes, h, w) = probabilities.dim();
        let planes = (0..classes.div_ceil(BLOCK)).map(|_| vec![Row([f32::NEG_INFINITY; BLOCK]); h * w]);
        let mut field = Self { classes, w, planes: planes.collect() };
        each(work, field.lines(), |(part, mut planes)| {
            let mut logs = vec![0.0; w];
            for (class, plane) in probabilities.outer_iter().enumerate() {
                let rows = planes[class / BLOCK].chunks_exact_mut(w).enumerate();
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
                    rows.iter_mut().zip(&logs).for_each(|(row, &x)| row.0[class % BLOCK] = x);
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
    fn lines(&mut self) -> Vec<(usize, Vec<&mut [Row]>)> {
        let pixels = LINES * self.w;
        let mut lines: Vec<Vec<&mut [Row]>> = Vec::new();
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
                    let rows = &self.planes[class / BLOCK][(part * LINES + y) * self.w..];
                    line.iter_mut().zip(rows).for_each(|(to, row)| *to = row.0[class % BLOCK]);
                }
            }
        });
        out
    }
}

/// Below this the exponential is 0, so that what is not a class is exactly that.
const LEAST: f32 = -87.0;

#[inline(always)]
fn softmax(planes: &mut [&mut [Row]], pixel: usize) {
    let mut tops = Row([f32::NEG_INFINITY; BLOCK]);
    for plane in planes.iter() {
        let row = &plane[pixel];
        for lane in 0..BLOCK {
            tops.0[lane] = if row.0[lane] > tops.0[lane] { row.0[lane] } else { tops.0[lane] };
        }
    }
    let top = fold(tops, |a, b| if a > b { a } else { b });
    let mut sums = Row::ZERO;
    for plane in planes.iter_mut() {
        let row = &mut plane[pixel];
        for lane in 0..BLOCK {
            let x = row.0[lane] - top;
            let e = if x < LEAST { 0.0 } else { exp(x) };
            row.0[lane] = e;
            sums.0[lane] += e;
        }
    }
    let scale = 1.0 / fold(sums, |a, b| a + b);
    for plane in planes.iter_mut() {
        let row = &mut plane[pixel];
        *row = row.times(scale);
    }
}

/// All lanes into one, by halves.
#[inline(always)]
fn fold(row: Row, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = row.0;
    let mut half = BLOCK / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
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
        for (k, h, w) in [(1, 1, 1), (3, 5, 2), (16, 6, 3), (27, 9, 7), (40, 4, 1)] {
            let mut p = Array3::from_shape_fn((k, h, w), |(k, y, x)| 0.1 + ((k * 5 + y * 3 + x) % 7) as f32);
            p.lanes_mut(Axis(0)).into_iter().for_each(|mut pixel| pixel /= pixel.sum());
            let mut all = Vec::new();
            for work in [Work::One, Work::All] {
                let mut field = Field::scores(&p.view(), 1e-5, work);
                field.normalise(work);
                let beyond = |row: &Row| row.0[(k - 1) % BLOCK + 1..].iter().all(|&q| q == 0.0);
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
        let mut field = Field::scores(&p.view(), 1e-5, Work::One);
        field.normalise(Work::One);
        let q = field.by_class(Work::One);
        assert!(q.slice(ndarray::s![.., 0, 0]).iter().all(|q| q.is_nan()));
        assert!(q.slice(ndarray::s![.., 0, 1]).iter().all(|q| (q - 1.0 / 3.0).abs() < 1e-6));
    }
}
