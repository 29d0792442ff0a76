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
//! done on a permutohedral lattice ([`simplex`]): an approximation, and the same one as `pydensecrf`'s, whose results these are.

mod field;
mod lattice;
mod regular;
mod row;
mod scattered;
mod simplex;
mod work;

use field::Field;
use lattice::Lattice;
use ndarray::{Array3, ArrayView3};
use rayon::prelude::*;
use regular::Regular;
use row::{Line, Quarter, Row};
use scattered::Scattered;
use work::{Work, both, each};

use crate::{Error, Result};

/// Probabilities are kept from zero by this much before their logarithm is taken.
const SMALLEST: f32 = 1e-5;

/// Deviations that a picture may be long for smoothness.
const MOST_SMOOTH: f32 = 8192.0;

/// The same for appearance, places and colours: coordinates on a lattice of five dimensions are at most 9 times as large, and
/// have 12 bits when divided by 6.
const MOST_ALIKE: f32 = 1024.0;

/// Classes for which narrow rows are sooner done.
const MOST_FEW: usize = 8;

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
        Ok(self.infer(&image, &probabilities, Work::All))
    }

    /// [`marginals`](Self::marginals) of many pictures, one thread for each: the same bits, sooner, since threads need not wait
    /// for one another.
    ///
    /// * `pictures`: image and probabilities of each.
    ///
    /// # Errors
    /// That of the first picture that cannot be worked on; none is, then.
    pub fn marginals_of(
        &self,
        pictures: &[(ArrayView3<'_, u8>, ArrayView3<'_, f32>)],
    ) -> Result<Vec<Array3<f32>>> {
        pictures.iter().try_for_each(|(image, probabilities)| self.check(image, probabilities))?;
        let infer = |(image, probabilities): &_| self.infer(image, probabilities, Work::One);
        Ok(pictures.par_iter().map(infer).collect())
    }

    fn infer(
        &self,
        image: &ArrayView3<'_, u8>,
        probabilities: &ArrayView3<'_, f32>,
        work: Work,
    ) -> Array3<f32> {
        match probabilities.dim().0 {
            0..=MOST_FEW => self.infer_in::<Quarter>(image, probabilities, work),
            _ => self.infer_in::<Line>(image, probabilities, work),
        }
    }

    fn infer_in<R: Row>(
        &self,
        image: &ArrayView3<'_, u8>,
        probabilities: &ArrayView3<'_, f32>,
        work: Work,
    ) -> Array3<f32> {
        let ((smooth, alike), likely) = both(
            work,
            || both(work, || self.smooth(image), || self.alike(image, work)),
            || Field::<R>::scores(probabilities, SMALLEST, work), // -U
        );
        let mut q = likely.copy();
        q.normalise(work);
        let mut memories = vec![Memory { alike: Vec::new(), smooth: Vec::new() }; q.planes.len()];
        for _ in 0..self.iterations {
            let planes = q.planes.iter_mut().zip(&likely.planes).zip(&mut memories);
            each(work, planes.collect(), |((q, likely), memory)| {
                memory.step(&smooth, &alike, likely, q);
            });
            q.normalise(work);
        }
        q.by_class(work)
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

    /// The kernel of places, if it counts.
    fn smooth(&self, image: &ArrayView3<'_, u8>) -> Option<Smooth> {
        let ((h, w, _), s) = (image.dim(), self.smoothness_xy);
        if self.smoothness == 0.0 {
            return None;
        }
        if Regular::suits(s) {
            return Some(Smooth::Regular(Regular::new((h, w), s, self.smoothness)));
        }
        let feature = |i| [(i % w) as f32 / s, (i / w) as f32 / s];
        Some(Smooth::Scattered(Scattered::new(Lattice::new(h * w, feature, Work::One), self.smoothness)))
    }

    /// The kernel of places and colours, if it counts.
    fn alike(&self, image: &ArrayView3<'_, u8>, work: Work) -> Option<Scattered> {
        let ((h, w, _), s, c) = (image.dim(), self.appearance_xy, self.appearance_rgb);
        let feature = |i| {
            let (y, x) = (i / w, i % w);
            // Blue first, as in STEGO: on the lattice the order of the dimensions counts.
            let colour = |i: usize| f32::from(image[[y, x, i]]) / c;
            [x as f32 / s, y as f32 / s, colour(2), colour(1), colour(0)]
        };
        let counts = self.appearance != 0.0;
        counts.then(|| Scattered::new(Lattice::new(h * w, feature, work), self.appearance))
    }
}

/// Smoothness on the lattice that suits its deviation.
enum Smooth {
    Regular(Regular),
    Scattered(Scattered),
}

/// What a plane needs while it is filtered.
#[derive(Debug, Clone)]
struct Memory<R> {
    alike: Vec<R>,
    smooth: Vec<R>,
}

impl<R: Row> Memory<R> {
    /// Puts the scores `-U + Σ_m w_m k̃_m(Q)` of a plane in place of its `Q`.
    fn step(&mut self, smooth: &Option<Smooth>, alike: &Option<Scattered>, likely: &[R], q: &mut [R]) {
        if let Some(kernel) = alike {
            kernel.collect(q, &mut self.alike);
        }
        if let Some(Smooth::Scattered(kernel)) = smooth {
            kernel.collect(q, &mut self.smooth);
        }
        let Self { alike: rows, smooth: memory } = self;
        kernels::simd(
            #[inline(always)]
            || match smooth {
                Some(Smooth::Regular(kernel)) => kernel.add(
                    q,
                    memory,
                    #[inline(always)]
                    |pixel, to| base(likely, alike, rows, pixel, to),
                ),
                other => {
                    for (pixel, to) in q.iter_mut().enumerate() {
                        base(likely, alike, rows, pixel, to);
                        if let Some(Smooth::Scattered(kernel)) = other {
                            kernel.read(pixel, memory, to);
                        }
                    }
                }
            },
        );
    }
}

/// The unary term, and what appearance adds to it.
#[inline(always)]
fn base<R: Row>(likely: &[R], alike: &Option<Scattered>, rows: &[R], pixel: usize, to: &mut R) {
    *to = likely[pixel];
    if let Some(kernel) = alike {
        kernel.read(pixel, rows, to);
    }
}
