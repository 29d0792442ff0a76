//! One axis of a resize: which source indices each output index reads, with which weights.
//!
//! An output index `i` has a source coordinate `src`, given by [`Align`]; the kernel of [`Mode`]
//! around `src` gives the weights. Outside the axis the border pixel is repeated, so the weights of
//! every output sum to one. They are computed in `f64` and rounded once. A two-dimensional resize is
//! the product of two axes.

/// The kernel: how many source pixels an output reads, and how it weighs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One pixel, `floor(i · input / output)`: the upper left one, with no half-pixel shift.
    Nearest,
    /// Two pixels, weighed by distance.
    Bilinear,
    /// Four pixels with the cubic of Keys (1981), `a = -0.75`. It may overshoot the range of the map.
    Bicubic,
}

/// Where on the source axis an output index `i` lies.
///
/// [`Mode::Nearest`] has no half pixels and no corners: it reads at `i · input / output`, or at
/// `i / s` with a given scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Align {
    /// Pixels are areas: `src = (i + 0.5) / s - 0.5` with `s = output / input` (`align_corners=False`).
    HalfPixel,
    /// Pixels are points, and the outermost ones stay in place (`align_corners=True`):
    /// `src = i (input - 1) / (output - 1)`.
    Corners,
    /// As [`Align::HalfPixel`], with this `s` in place of the quotient of the sizes, which differs
    /// from it when the output size was rounded (`scale_factor=s`). A scale that is not positive
    /// counts as not given.
    Scale(f64),
}

/// The weights of one axis: for each of `output` indices a short list of `(source index, weight)`.
///
/// All lists have the length of the kernel: at a border the same source index may occur more than once, or with weight 0.
/// An axis of input length 0 has empty lists, so that everything resized from it is zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Taps {
    input: usize,
    output: usize,
    width: usize,
    taps: Vec<(usize, f32)>, // [output * width]
}

impl Taps {
    /// Weights for an axis of `input` pixels read at `output` places.
    pub fn new(mode: Mode, align: Align, input: usize, output: usize) -> Self {
        let width = match mode {
            _ if input == 0 => 0,
            Mode::Nearest => 1,
            Mode::Bilinear => 2,
            Mode::Bicubic => 4,
        };
        let mut taps = Vec::with_capacity(output * width);
        for i in 0..output {
            match mode {
                _ if input == 0 => {}
                Mode::Nearest => taps.push((nearest(align, input, output, i), 1.0)),
                Mode::Bilinear => taps.extend(bilinear(align.source(input, output, i), input)),
                Mode::Bicubic => taps.extend(bicubic(align.source(input, output, i), input)),
            }
        }
        Self { input, output, width, taps }
    }

    /// Bicubic weights with antialiasing, as PyTorch has them (`antialias=True, align_corners=False`).
    ///
    /// Output `i` is centred at `(i + 0.5) · input / output`. Where the axis shrinks, the kernel is stretched by that
    /// quotient, so that every source pixel counts. It is Keys' cubic with `a = -0.5` here, for larger sizes as well, and
    /// weights beyond the border are left out and the rest scaled to a sum of one.
    pub fn antialiased_bicubic(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let support = 2.0 * stretch;
        let lists: Vec<Vec<(usize, f64)>> = (0..output)
            .map(|i| {
                let centre = (i as f64 + 0.5) * scale;
                // A negative number becomes 0.
                let (first, end) = ((centre - support + 0.5) as usize, (centre + support + 0.5) as usize);
                let weight = |j: usize| keys(-0.5, (j as f64 + 0.5 - centre).abs() / stretch);
                (first..end.min(input)).map(|j| (j, weight(j))).collect()
            })
            .collect();
        let width = lists.iter().map(Vec::len).max().unwrap_or(0);
        let mut taps = Vec::with_capacity(output * width);
        for list in lists {
            let sum: f64 = list.iter().map(|(_, weight)| weight).sum();
            taps.extend(list.iter().map(|&(j, weight)| (j, (weight / sum) as f32)));
            // Filled up with a pixel that is read anyway.
            let last = list.last().map_or(0, |&(j, _)| j);
            taps.extend(std::iter::repeat_n((last, 0.0), width - list.len()));
        }
        Self { input, output, width, taps }
    }

    /// Length of the axis that is read.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Length of the axis that is written.
    pub fn output(&self) -> usize {
        self.output
    }

    /// The source indices and weights of output `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Taps::output`].
    pub fn at(&self, i: usize) -> &[(usize, f32)] {
        assert!(i < self.output, "output index {i} of {}", self.output);
        &self.taps[i * self.width..(i + 1) * self.width]
    }
}

impl Align {
    /// Source pixels per output pixel, in the half-pixel and the nearest convention.
    fn step(self, input: usize, output: usize) -> f64 {
        match self {
            Self::Scale(s) if s > 0.0 => 1.0 / s,
            _ => input as f64 / output as f64,
        }
    }

    /// The source coordinate of output `i`; it may lie outside the axis.
    fn source(self, input: usize, output: usize, i: usize) -> f64 {
        match self {
            Self::Corners if output > 1 => i as f64 * (input - 1) as f64 / (output - 1) as f64,
            Self::Corners => 0.0,
            _ => (i as f64 + 0.5) * self.step(input, output) - 0.5,
        }
    }
}

/// The index that PyTorch reads, to the last tie.
fn nearest(align: Align, input: usize, output: usize, i: usize) -> usize {
    // PyTorch ignores a given scale where the sizes are equal or doubled. Elsewhere it rounds the
    // product to `f32` before the floor, which decides the ties that no fraction settles.
    if output == input || output == 2 * input {
        return i * input / output;
    }
    let src = (i as f32 * align.step(input, output) as f32).floor() as usize;
    src.min(input - 1)
}

/// `src` split into an index on the axis and the fraction beyond it.
fn split(src: f64, input: usize) -> (isize, f64) {
    let low = (src.floor() as isize).min(input as isize - 1);
    (low, (src - low as f64).clamp(0.0, 1.0))
}

fn bilinear(src: f64, input: usize) -> [(usize, f32); 2] {
    let (low, t) = split(src.max(0.0), input);
    [(low, 1.0 - t), (low + 1, t)].map(|(j, w)| (clamped(j, input), w as f32))
}

fn bicubic(src: f64, input: usize) -> [(usize, f32); 4] {
    let (low, t) = split(src, input);
    let weights = [1.0 + t, t, 1.0 - t, 2.0 - t].map(|distance| keys(KEYS_A, distance));
    std::array::from_fn(|k| (clamped(low + k as isize - 1, input), weights[k] as f32))
}

/// Index of the border pixel that stands for `j` outside the axis, else `j`.
fn clamped(j: isize, input: usize) -> usize {
    j.clamp(0, input as isize - 1) as usize
}

/// The free parameter of Keys' cubic, at the value that PyTorch and OpenCV use.
const KEYS_A: f64 = -0.75;

/// Keys' cubic with free parameter `a` at distance `x`, 0 from 2 on.
fn keys(a: f64, x: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [Mode; 3] = [Mode::Nearest, Mode::Bilinear, Mode::Bicubic];
    const ALIGNS: [Align; 3] = [Align::HalfPixel, Align::Corners, Align::Scale(1.7)];

    /// The weights of one output, spread over the axis: `[input]`.
    fn dense(taps: &Taps, i: usize) -> Vec<f32> {
        let mut row = vec![0.0; taps.input()];
        for &(j, weight) in taps.at(i) {
            row[j] += weight;
        }
        row
    }

    fn indices(input: usize, output: usize, align: Align) -> Vec<usize> {
        let taps = Taps::new(Mode::Nearest, align, input, output);
        (0..output).map(|i| taps.at(i)[0].0).collect()
    }

    #[test]
    fn weights_sum_to_one_and_stay_on_the_axis() {
        for mode in MODES {
            for align in ALIGNS {
                for (input, output) in [(1, 1), (1, 9), (9, 1), (2, 5), (7, 7), (28, 60), (60, 28)] {
                    let taps = Taps::new(mode, align, input, output);
                    assert_eq!((taps.input(), taps.output()), (input, output));
                    for i in 0..output {
                        let sum: f32 = dense(&taps, i).iter().sum();
                        assert!((sum - 1.0).abs() < 1e-6, "{mode:?} {align:?} {input}→{output}");
                    }
                }
            }
        }
    }

    #[test]
    fn equal_sizes_change_nothing() {
        for mode in MODES {
            for align in [Align::HalfPixel, Align::Corners, Align::Scale(1.0)] {
                let taps = Taps::new(mode, align, 4, 4);
                for i in 0..4 {
                    let mut unit = vec![0.0; 4];
                    unit[i] = 1.0;
                    assert_eq!(dense(&taps, i), unit, "{mode:?} {align:?}");
                }
            }
        }
    }

    #[test]
    fn corners_keep_the_ends_and_linear_ramps() {
        for mode in [Mode::Bilinear, Mode::Bicubic] {
            let taps = Taps::new(mode, Align::Corners, 9, 17);
            assert_eq!(dense(&taps, 0)[0], 1.0);
            assert_eq!(dense(&taps, 16)[8], 1.0);
            for i in 2..15 {
                let at: f32 = taps.at(i).iter().map(|&(j, weight)| j as f32 * weight).sum();
                assert!((at - i as f32 / 2.0).abs() < 1e-5, "{mode:?} reads {at} at {i}");
            }
        }
        assert_eq!(dense(&Taps::new(Mode::Bilinear, Align::Corners, 3, 1), 0), [1.0, 0.0, 0.0]);
    }

    #[test]
    fn half_pixels_stop_at_the_border() {
        let taps = Taps::new(Mode::Bilinear, Align::HalfPixel, 2, 4);
        let rows: Vec<_> = (0..4).map(|i| dense(&taps, i)).collect();
        assert_eq!(rows, [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]);
        // Before the first pixel centre its value is copied; beyond the last it is blended with itself.
        assert_eq!(taps.at(0)[0], (0, 1.0));
        assert_eq!(taps.at(3), [(1, 0.75), (1, 0.25)]);
    }

    #[test]
    fn the_cubic_of_keys_overshoots_by_the_known_amount() {
        // Half-way between pixels: -0.75 gives (-3, 19, 19, -3) / 32.
        let taps = Taps::new(Mode::Bicubic, Align::Corners, 5, 9);
        assert_eq!(dense(&taps, 3), [-3.0, 19.0, 19.0, -3.0, 0.0].map(|v| v / 32.0));
        // At the border the missing pixel is a copy of the first.
        assert_eq!(dense(&taps, 1), [16.0, 19.0, -3.0, 0.0, 0.0].map(|v| v / 32.0));
    }

    #[test]
    fn bicubic_reads_beyond_the_border_where_bilinear_stops() {
        // src = -0.25: pixel 1 is 1.25 away; pixel 0 stands for itself and for the two beyond it.
        let far = 27.0 / 256.0;
        let taps = Taps::new(Mode::Bicubic, Align::HalfPixel, 4, 8);
        assert_eq!(dense(&taps, 0), [1.0 + far, -far, 0.0, 0.0]);
    }

    #[test]
    fn nearest_floors_without_a_half_pixel() {
        assert_eq!(indices(3, 5, Align::HalfPixel), [0, 0, 1, 1, 2]);
        assert_eq!(indices(5, 3, Align::HalfPixel), [0, 1, 3]);
        assert_eq!(indices(2, 4, Align::HalfPixel), [0, 0, 1, 1]);
        assert_eq!(indices(3, 5, Align::Scale(1.9)), [0, 0, 1, 1, 2]);
        assert_eq!(indices(3, 5, Align::Scale(1.0)), [0, 1, 2, 2, 2]);
        assert_eq!(indices(2, 4, Align::Scale(2.4)), [0, 0, 1, 1]);
        // What torch 2.15 reads; in exact arithmetic the source would be 1, and index 1 be read.
        assert_eq!(indices(2, 82, Align::HalfPixel)[40..43], [0, 0, 1]);
    }

    #[test]
    fn a_given_scale_moves_the_coordinates() {
        let (input, s) = (14, 60.1 / 14.0);
        let taps = Taps::new(Mode::Bilinear, Align::Scale(s), input, 60);
        let src = 30.5 / s - 0.5;
        let (index, weight) = taps.at(30)[1];
        assert_eq!(index, src as usize + 1);
        assert!((f64::from(weight) - src.fract()).abs() < 1e-6);
        let quotient = Taps::new(Mode::Bilinear, Align::HalfPixel, input, 60);
        assert_ne!(taps, quotient);
        for nothing in [0.0, -1.0, f64::NAN] {
            assert_eq!(Taps::new(Mode::Bilinear, Align::Scale(nothing), input, 60), quotient);
        }
        // Absurd scales read the border pixels, with weights that still sum to one.
        for s in [f64::MIN_POSITIVE / 4.0, f64::INFINITY] {
            for mode in MODES {
                let sum: f32 = dense(&Taps::new(mode, Align::Scale(s), 5, 3), 2).iter().sum();
                assert!((sum - 1.0).abs() < 1e-6, "{mode:?} {s}");
            }
        }
    }

    #[test]
    fn antialiasing_averages_what_it_skips() {
        for (input, output) in [(1, 1), (1, 9), (9, 1), (2, 5), (7, 7), (28, 60), (60, 28), (37, 16)] {
            let taps = Taps::antialiased_bicubic(input, output);
            assert_eq!((taps.input(), taps.output()), (input, output));
            for i in 0..output {
                let row = dense(&taps, i);
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{input}→{output}");
                assert!(input != output || row[i] == 1.0);
                // Its mirror image reads the mirror image.
                let back: Vec<f32> = dense(&taps, output - 1 - i).into_iter().rev().collect();
                assert!(row.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-6), "{input}→{output}");
            }
        }
        // Halving, away from the borders: the kernel at ±¼, ±¾, ±1¼ and ±1¾.
        let row = dense(&Taps::antialiased_bicubic(16, 8), 4);
        let half = [-3.0, -9.0, 29.0, 111.0].map(|v| v / 256.0);
        let expected: Vec<f32> = half.into_iter().chain(half.into_iter().rev()).collect();
        assert!(row[5..13].iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{row:?}");
        assert!(row[..5].iter().chain(&row[13..]).all(|&weight| weight == 0.0));
    }

    #[test]
    fn empty_axes_are_allowed() {
        assert!(Taps::antialiased_bicubic(0, 3).at(2).is_empty());
        assert_eq!(Taps::antialiased_bicubic(3, 0).output(), 0);
        for mode in MODES {
            assert!(Taps::new(mode, Align::HalfPixel, 0, 3).at(2).is_empty());
            assert_eq!(Taps::new(mode, Align::Corners, 3, 0).output(), 0);
        }
    }
}
