//! Do two points of an image bear the same label? What features, codes and colours say, before any training.
//!
//! Two sets of `s²` points are drawn in every image, and every point of the one is paired with every point of the other. A pair *matches* if
//! both points lie in one class and in the same; a point between pixels of different labels is in none, and matches nothing. Scores
//! are cosines of what is read at the points ([`cosine_scores`]), or the kernel of the CRF loss
//! ([`CrfLoss::kernel`](crate::stego::CrfLoss::kernel)). [`ScoredPairs`](crate::ScoredPairs) makes precision and recall of
//! both.
//!
//! The original compares inner products of bilinearly read one-hot labels, cut to whole numbers: 1 where both points read one label only, and by
//! rounding sometimes 0 there. Pixels without a class are a class of their own in it ([`Void::Class`]); by default pairs with such a
//! pixel do not count.

use kernels::{Matrix, MatrixMut, Threads, gemm};
use ndarray::{Array2, ArrayView2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::correspondence_map::unit_samples;
use crate::stego::Points;
use crate::stego::error::{Result, expect_range, expect_shape};

/// What pixels without a class are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Void {
    /// Nothing: pairs with such a pixel do not count.
    #[default]
    LeftOut,
    /// One more class, as published.
    Class,
}

/// What a point of a label map reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PointLabel {
    /// One label.
    Pure(u8),
    /// Pixels of different labels.
    Mixed,
    /// A pixel without a class, among others or not.
    Void,
}

/// Two independent sets of `samples²` points `(x, y)`, uniform in `[-1, 1]²`.
///
/// They depend on `seed` and `image` alone.
#[must_use]
pub fn pair_points(seed: u64, image: u64, samples: usize) -> [Vec<[f32; 2]>; 2] {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(image);
    let mut set = || {
        (0..samples * samples).map(|_| [rng.random_range(-1.0..=1.0), rng.random_range(-1.0..=1.0)]).collect()
    };
    [set(), set()]
}

/// The cosines between what two sets of points read, `[n, m]`.
///
/// * `tokens`: `[t, k]` features or codes on the patch grid `(gh, gw)`.
///
/// # Errors
/// [`Shape`](crate::stego::Error::Shape) or [`Range`](crate::stego::Error::Range) if grid and tokens do not fit.
pub fn cosine_scores(
    tokens: ArrayView2<'_, f32>,
    grid: (usize, usize),
    [ours, theirs]: [&[[f32; 2]]; 2],
) -> Result<Array2<f32>> {
    let read = |points: &[[f32; 2]]| unit_samples(tokens, &Points::new(points, grid)?);
    let (a, b) = (read(ours)?, read(theirs)?);
    let (n, m, k) = (a.nrows(), b.nrows(), a.ncols());
    let mut scores = Array2::zeros((n, m));
    let b = b.t().as_standard_layout().into_owned();
    let (a, b) = (a.as_slice().expect("a fresh array"), b.as_slice().expect("standard layout"));
    let to = scores.as_slice_mut().expect("a fresh array");
    gemm(MatrixMut::new(to, n, m), 0.0, 1.0, Matrix::new(a, n, k), Matrix::new(b, k, m), Threads::One);
    Ok(scores)
}

/// What every point reads of a label map.
///
/// * `labels`: `[h, w]`, 255 for no class; points of -1 and 1 are the centres of the outermost pixels.
///
/// # Errors
/// [`Range`](crate::stego::Error::Range) for a map without pixels.
pub fn point_labels(labels: ArrayView2<'_, u8>, points: &[[f32; 2]], void: Void) -> Result<Vec<PointLabel>> {
    let (h, w) = labels.dim();
    expect_range(h * w > 0, "label map", "at least one pixel", format!("{h} x {w}"))?;
    let taps = |at: f32, n: usize| {
        let at = (f64::from(at) + 1.0) / 2.0 * (n - 1) as f64;
        let at = if at.is_nan() { 0.0 } else { at.clamp(0.0, (n - 1) as f64) };
        (at.floor() as usize, at.ceil() as usize)
    };
    let label = |&[x, y]: &[f32; 2]| {
        let ((top, bottom), (left, right)) = (taps(y, h), taps(x, w));
        let read = [[top, left], [top, right], [bottom, left], [bottom, right]].map(|at| labels[at]);
        match read {
            _ if void == Void::LeftOut && read.contains(&u8::MAX) => PointLabel::Void,
            [first, rest @ ..] if rest.iter().all(|&label| label == first) => PointLabel::Pure(first),
            _ => PointLabel::Mixed,
        }
    };
    Ok(points.iter().map(label).collect())
}

/// Which pairs match, `[n, m]`; `None` for those that do not count.
#[must_use]
pub fn label_matches(ours: &[PointLabel], theirs: &[PointLabel]) -> Array2<Option<bool>> {
    Array2::from_shape_fn((ours.len(), theirs.len()), |(a, b)| match (ours[a], theirs[b]) {
        (PointLabel::Void, _) | (_, PointLabel::Void) => None,
        (PointLabel::Pure(one), PointLabel::Pure(other)) => Some(one == other),
        _ => Some(false),
    })
}

/// The colours that points read of an image, `[n, c]`, for [`CrfLoss::kernel`](crate::stego::CrfLoss::kernel).
///
/// * `image`: `[h·w, c]`, rows of pixels; `size`: `(h, w)`.
///
/// # Errors
/// [`Shape`](crate::stego::Error::Shape) or [`Range`](crate::stego::Error::Range) if they do not fit.
pub fn point_colours(
    image: ArrayView2<'_, f32>,
    size: (usize, usize),
    points: &[[f32; 2]],
) -> Result<Array2<f32>> {
    expect_shape("image", &[size.0 * size.1, image.ncols()], image.shape())?;
    Points::new(points, size)?.sample(image)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array};

    use super::*;
    use crate::ScoredPairs;
    use crate::stego::CrfLoss;

    #[test]
    fn points_depend_on_seed_and_image_alone() {
        let [ours, theirs] = pair_points(3, 7, 11);
        assert_eq!((ours.len(), theirs.len()), (121, 121));
        assert_eq!(pair_points(3, 7, 11), [ours.clone(), theirs.clone()]);
        assert_ne!(ours, theirs);
        assert_ne!(pair_points(3, 8, 11)[0], ours);
        assert_ne!(pair_points(4, 7, 11)[0], ours);
        let all = ours.iter().chain(&theirs).flatten();
        assert!(all.clone().all(|at| (-1.0..=1.0).contains(at)));
        let mean = all.clone().sum::<f32>() / 484.0;
        assert!(mean.abs() < 0.1 && all.clone().any(|&at| at > 0.9) && all.clone().any(|&at| at < -0.9));
    }

    #[test]
    fn cosines_are_those_of_what_is_read() {
        let tokens = Array::from_shape_fn((12, 5), |(t, c)| ((t * 5 + c * 3 + t * c) as f32).sin());
        let [ours, theirs] = pair_points(0, 0, 3);
        let scores = cosine_scores(tokens.view(), (3, 4), [&ours, &theirs]).unwrap();
        let read = |points: &[[f32; 2]]| Points::new(points, (3, 4)).unwrap().sample(tokens.view()).unwrap();
        let (a, b) = (read(&ours), read(&theirs));
        for ((i, j), score) in scores.indexed_iter() {
            let dot = |x: ArrayView2<'_, f32>, i, y: ArrayView2<'_, f32>, j| -> f64 {
                x.row(i).iter().zip(y.row(j)).map(|(p, q)| f64::from(p * q)).sum()
            };
            let lengths = dot(a.view(), i, a.view(), i) * dot(b.view(), j, b.view(), j);
            assert!((f64::from(*score) - dot(a.view(), i, b.view(), j) / lengths.sqrt()).abs() < 1e-5);
        }
        assert!(cosine_scores(tokens.view(), (3, 3), [&ours, &theirs]).is_err());
        assert!(cosine_scores(Array2::zeros((12, 0)).view(), (3, 4), [&ours, &theirs]).is_err());
    }

    /// The original's rule, with one-hot labels read bilinearly in `f64` and cut to whole numbers.
    #[test]
    fn matches_are_whole_inner_products_of_one_hot_labels() {
        let labels = Array2::from_shape_fn((7, 9), |(y, x)| [0, 1, 255][(y / 3 + x / 4) % 3]);
        let [mut ours, theirs] = pair_points(1, 1, 8);
        ours.extend([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]]);
        let one_hot = |[x, y]: [f32; 2]| {
            let (column, row) = (f64::from(x + 1.0) / 2.0 * 8.0, f64::from(y + 1.0) / 2.0 * 6.0);
            let mut read = [0.0; 3];
            for (y, v) in [(row.floor(), 1.0 - row.fract()), (row.ceil(), row.fract())] {
                for (x, u) in [(column.floor(), 1.0 - column.fract()), (column.ceil(), column.fract())] {
                    let class = match labels[[y as usize, x as usize]] {
                        255 => 2,
                        class => class as usize,
                    };
                    read[class] += u * v;
                }
            }
            read
        };
        let of = |points: &[[f32; 2]]| point_labels(labels.view(), points, Void::Class).unwrap();
        let matches = label_matches(&of(&ours), &of(&theirs));
        let mut count = [0; 2];
        for ((i, j), is) in matches.indexed_iter() {
            let product: f64 = one_hot(ours[i]).iter().zip(one_hot(theirs[j])).map(|(a, b)| a * b).sum();
            let is = is.unwrap();
            assert_eq!(is, product > 1.0 - 1e-9, "{i} {j} {product}");
            count[usize::from(is)] += 1;
        }
        assert!(count[0] > 300 && count[1] > 300, "{count:?}");
    }

    #[test]
    fn pixels_without_a_class_are_left_out_or_a_class() {
        let labels = array![[0, 255]];
        let points = [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]];
        let of = |void| point_labels(labels.view(), &points, void).unwrap();
        assert_eq!(of(Void::LeftOut), [PointLabel::Pure(0), PointLabel::Void, PointLabel::Void]);
        assert_eq!(of(Void::Class), [PointLabel::Pure(0), PointLabel::Pure(255), PointLabel::Mixed]);
        let matches = label_matches(&of(Void::LeftOut), &of(Void::LeftOut));
        assert_eq!(matches.row(0).to_vec(), [Some(true), None, None]);
        let matches = label_matches(&of(Void::Class), &of(Void::Class));
        assert_eq!(matches.row(1).to_vec(), [Some(false), Some(true), Some(false)]);
        assert!(point_labels(Array2::zeros((0, 3)).view(), &points, Void::Class).is_err());
    }

    /// Features that know the label rank all matches before all others; so do colours, if nothing but they tell.
    #[test]
    fn scores_that_know_the_label_are_perfect() {
        let labels = Array2::from_shape_fn((8, 8), |(_, x)| u8::from(x >= 4));
        let [ours, theirs] = pair_points(2, 0, 6);
        let keep = |points: Vec<[f32; 2]>| {
            let pure = point_labels(labels.view(), &points, Void::Class).unwrap();
            let is_pure = |(_, label): &([f32; 2], PointLabel)| *label != PointLabel::Mixed;
            points.into_iter().zip(pure).filter(is_pure).unzip::<_, _, Vec<_>, Vec<_>>()
        };
        let ((ours, our_labels), (theirs, their_labels)) = (keep(ours), keep(theirs));
        let matches = label_matches(&our_labels, &their_labels);
        let pixels = Array2::from_shape_fn((64, 3), |(i, c)| match (i % 8 >= 4, c) {
            (false, 0) | (true, 1) => 1.0,
            _ => 0.0,
        });
        let average = |scores: Array2<f32>| {
            let mut pairs = ScoredPairs::new();
            pairs.push(scores.view(), matches.view()).unwrap();
            pairs.precision_recall().unwrap().average_precision
        };
        assert_eq!(average(cosine_scores(pixels.view(), (8, 8), [&ours, &theirs]).unwrap()), 1.0);
        let colours = |points: &[[f32; 2]]| point_colours(pixels.view(), (8, 8), points).unwrap();
        let (own, other) = (colours(&ours), colours(&theirs));
        let sharp = CrfLoss { alpha: 1e6, beta: 0.01, w2: 0.0, ..CrfLoss::co_occurrence() };
        let kernel = sharp.kernel((&ours, own.view()), (&theirs, other.view())).unwrap();
        assert!(average(kernel) > 0.9999);
        // Near points match more often than far ones.
        let near = CrfLoss { w1: 0.0, ..CrfLoss::co_occurrence() };
        let kernel = near.kernel((&ours, own.view()), (&theirs, other.view())).unwrap();
        let by_place = average(kernel);
        let chance = matches.iter().filter(|is| **is == Some(true)).count() as f64 / matches.len() as f64;
        assert!(by_place > chance + 0.1 && by_place < 1.0, "{by_place} {chance}");
        assert!(near.kernel((&ours, own.view()), (&ours, other.view())).is_err());
    }

    #[test]
    fn the_kernel_is_the_published_formula() {
        let crf = CrfLoss::co_occurrence();
        let (a, b) = ([[0.2, -0.4]], [[-0.3, 0.9]]);
        let (one, other) = (array![[0.5, -1.0, 0.25]], array![[0.1, 0.4, 1.5]]);
        let got = crf.kernel((&a, one.view()), (&b, other.view())).unwrap()[[0, 0]];
        let places: f64 = 0.5_f64.powi(2) + 1.3_f64.powi(2);
        let colours: f64 = 0.4_f64.powi(2) + 1.4_f64.powi(2) + 1.25_f64.powi(2);
        let want = 10.0 * (-places / (2.0 * 0.5_f64.exp()) - colours / (2.0 * 0.15_f64.exp())).exp()
            + 3.0 * (-places / (2.0 * 0.05_f64.exp())).exp()
            + 0.3;
        assert!((f64::from(got) - want).abs() < 1e-4, "{got} {want}");
    }
}
