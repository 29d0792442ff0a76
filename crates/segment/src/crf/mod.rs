//! The fully connected conditional random field of Krähenbühl and Koltun (2011) on the pixels of a picture.
//!
//! Every pair of pixels is encouraged to share a label, the more so the nearer they are (*smoothness*) and the nearer and more
//! alike in colour (*appearance*). Mean-field inference repeats
//!
//! ```text
//! Q ← softmax(-U + Σ_m w_m k̃_m(Q)),   k̃_m(Q)_i = Σ_j n_i n_j exp(-‖f_i - f_j‖² / 2) Q_j,   Q₀ = softmax(-U)
//! ```
//!
//! with `n_i = (Σ_j k_ij)^(-1/2)` (a symmetric normalisation) and Potts compatibility. The Gaussian sums over all pixels are
//! done on a permutohedral [`lattice`]: an approximation, and the same one as `pydensecrf`'s, whose results these are.

mod filter;
mod lattice;

use filter::Filter;
use kernels::softmax;
use lattice::Lattice;
use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;

use crate::{Error, Result};

/// Probabilities are kept from zero by this much before their logarithm is taken.
const SMALLEST: f32 = 1e-5;

/// Deviations that a picture may be long for smoothness: coordinates on a lattice of two dimensions are at most 2.8 times as
/// large, and have 16 bits.
const MOST_SMOOTH: f32 = 8192.0;

/// The same for appearance, places and colours: 9 times as large in five dimensions.
const MOST_ALIKE: f32 = 2048.0;

/// Classes that are filtered side by side: a cache line.
const BLOCK: usize = 16;

/// Pixels that a thread works through at a time.
const PIXELS: usize = 1024;

/// The two kernels and how often they are applied. The default is STEGO's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseCrf {
    /// Mean-field steps.
    pub iterations: usize,
    /// Weight of smoothness.
    pub smoothness: f32,
    /// Its standard deviation in pixels.
    pub smoothness_xy: f32,
    /// Weight of appearance.
    pub appearance: f32,
    /// Its standard deviation in pixels.
    pub appearance_xy: f32,
    /// Its standard deviation in the 256 steps of each colour.
    pub appearance_rgb: f32,
}

impl Default for DenseCrf {
    fn default() -> Self {
        Self {
            iterations: 10,
            smoothness: 3.0,
            smoothness_xy: 1.0,
            appearance: 4.0,
            appearance_xy: 67.0,
            appearance_rgb: 3.0,
        }
    }
}

impl DenseCrf {
    /// The marginals `Q`, `[k, h, w]`, of pixels that belong to classes with these probabilities. The bits are the same for any
    /// number of threads.
    ///
    /// * `image`: `[h, w, 3]`, RGB.
    /// * `probabilities`: `[k, h, w]`; `-ln` of them, kept from zero, is the unary term `U`.
    ///
    /// # Errors
    /// [`Error::Shape`] if picture and probabilities differ in size, [`Error::Empty`] if there is no pixel or no class,
    /// [`Error::NotPositive`] if a standard deviation is not, [`Error::TooFine`] if the picture is too many of them long.
    ///
    /// ```
    /// # use ndarray::{Array3, array};
    /// // A white and a black half; a pixel of the white one is in doubt.
    /// let image = Array3::from_shape_fn((4, 8, 3), |(_, x, _)| if x < 4 { 255 } else { 0 });
    /// let mut first = Array3::from_elem((2, 4, 8), 0.1_f32);
    /// first.indexed_iter_mut().for_each(|((k, _, x), p)| if (k == 0) == (x < 4) { *p = 0.9 });
    /// (first[[0, 1, 1]], first[[1, 1, 1]]) = (0.45, 0.55);
    /// let refined = segment::DenseCrf::default().marginals(image.view(), first.view())?;
    /// assert!(refined[[0, 1, 1]] > 0.9);
    /// # Ok::<(), segment::Error>(())
    /// ```
    pub fn marginals(
        &self,
        image: ArrayView3<'_, u8>,
        probabilities: ArrayView3<'_, f32>,
    ) -> Result<Array3<f32>> {
        self.check(&image, &probabilities)?;
        let likely = Field::scores(&probabilities, |p| p.clamp(SMALLEST, 1.0).ln()); // -U
        let mut filters = self.filters(&image);
        let mut q = likely.clone();
        q.normalise();
        let mut next = likely.clone();
        for _ in 0..self.iterations {
            next.values.copy_from_slice(&likely.values);
            for filter in &mut filters {
                filter.add(&q, &mut next);
            }
            std::mem::swap(&mut q, &mut next);
            q.normalise();
        }
        Ok(q.by_class(image.dim().1))
    }

    fn check(&self, image: &ArrayView3<'_, u8>, probabilities: &ArrayView3<'_, f32>) -> Result<()> {
        let ((h, w, _), (k, _, _)) = (image.dim(), probabilities.dim());
        let shape = |what, expected: [usize; 3], got: &[usize]| match expected == got {
            true => Ok(()),
            false => Err(Error::Shape { what, expected: expected.to_vec(), got: got.to_vec() }),
        };
        shape("a picture", [h, w, 3], image.shape())?;
        shape("probabilities", [k, h, w], probabilities.shape())?;
        if probabilities.is_empty() {
            return Err(Error::Empty("a picture's probabilities"));
        }
        for (what, got) in [
            ("the deviation of smoothness", self.smoothness_xy),
            ("the deviation of appearance in pixels", self.appearance_xy),
            ("the deviation of appearance in colours", self.appearance_rgb),
        ] {
            if !(got > 0.0 && got.is_finite()) {
                return Err(Error::NotPositive { what, got });
            }
        }
        let side = h.max(w) as f32;
        for (long, most) in [
            (side / self.smoothness_xy, MOST_SMOOTH),
            (side / self.appearance_xy, MOST_ALIKE),
            (255.0 / self.appearance_rgb, MOST_ALIKE),
        ] {
            if long > most {
                return Err(Error::TooFine { most });
            }
        }
        Ok(())
    }

    /// The kernels that count.
    fn filters(&self, image: &ArrayView3<'_, u8>) -> Vec<Filter> {
        let (h, w, _) = image.dim();
        let places = || (0..h).flat_map(move |y| (0..w).map(move |x| (y, x)));
        let mut filters = Vec::new();
        if self.smoothness != 0.0 {
            let s = self.smoothness_xy;
            let features: Vec<[f32; 2]> = places().map(|(y, x)| [x as f32 / s, y as f32 / s]).collect();
            filters.push(Filter::new(Lattice::new(&features), self.smoothness));
        }
        if self.appearance != 0.0 {
            let (s, c) = (self.appearance_xy, self.appearance_rgb);
            let feature = |(y, x)| {
                // Blue first, as in STEGO: on the lattice the order of the dimensions counts.
                let colour = |i: usize| f32::from(image[[y, x, i]]) / c;
                [x as f32 / s, y as f32 / s, colour(2), colour(1), colour(0)]
            };
            let features: Vec<[f32; 5]> = places().map(feature).collect();
            filters.push(Filter::new(Lattice::new(&features), self.appearance));
        }
        filters
    }
}

/// A number for every class of every pixel, `[h w, width]`, where `width` is a multiple of [`BLOCK`]. Scores are filled up with
/// -∞, probabilities with 0.
#[derive(Debug, Clone)]
struct Field {
    classes: usize,
    width: usize,
    values: Vec<f32>,
}

impl Field {
    /// `f` of every probability, `[k, h, w]`, as scores.
    fn scores(probabilities: &ArrayView3<'_, f32>, f: impl Fn(f32) -> f32 + Sync) -> Self {
        let (classes, _, w) = probabilities.dim();
        let width = classes.next_multiple_of(BLOCK);
        let mut values = vec![f32::NEG_INFINITY; probabilities.len() / classes * width];
        values.par_chunks_exact_mut(w * width).enumerate().for_each(|(y, row)| {
            for (class, plane) in probabilities.outer_iter().enumerate() {
                let to = row[class..].iter_mut().step_by(width);
                to.zip(plane.row(y)).for_each(|(to, &p)| *to = f(p));
            }
        });
        Self { classes, width, values }
    }

    /// A block of a pixel's classes.
    #[inline(always)]
    fn block(&self, pixel: usize, block: usize) -> &[f32; BLOCK] {
        self.values[pixel * self.width + block * BLOCK..].first_chunk().expect("a whole block")
    }

    /// `[k, h, w]`.
    fn by_class(&self, w: usize) -> Array3<f32> {
        let pixels = self.values.len() / self.width;
        let mut planes = Array3::zeros((self.classes, pixels / w, w));
        planes.outer_iter_mut().into_par_iter().enumerate().for_each(|(class, mut plane)| {
            let values = self.values[class..].iter().step_by(self.width);
            plane.iter_mut().zip(values).for_each(|(to, &from)| *to = from);
        });
        planes
    }

    /// The softmax over the classes of every pixel.
    fn normalise(&mut self) {
        let Self { classes, width, .. } = *self;
        self.values.par_chunks_mut(PIXELS * width).for_each(|rows| {
            kernels::simd(
                #[inline(always)]
                || {
                    for row in rows.chunks_exact_mut(width) {
                        softmax(&mut row[..classes]);
                    }
                },
            );
        });
    }
}
