//! What a dense CRF is told by a probe: probabilities per pixel, `[k, h, w]`.
//!
//! As in STEGO, tokens are upsampled bilinearly and scored in every pixel: the linear probe's softmax, and the cluster probe's
//! `softmax(2 cos)`, a flat distribution that leaves the CRF much to say. Here the scores are upsampled instead, which for the linear
//! probe is the same. A cosine also needs the length of the upsampled token `x = Σ w_a x_a`, whose square `Σ w_a w_b ⟨x_a, x_b⟩` is
//! made of inner products of neighbouring tokens: `[h, w, d]` never exists.

use anyhow::{Context as _, Result};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis};
use probe::{BankProbe, Probe as _};
use resample::{Align, Mode, Taps, resize};
use segment::DenseCrf;

/// The original's factor before the softmax over cosines.
const SHARPNESS: f32 = 2.0;

/// The lengths of tokens that a cosine divides by at least.
const SHORTEST: f32 = 1e-12;

/// The class or cluster per pixel, `[h, w]`, after the CRF that STEGO evaluates with.
///
/// * `tokens`: `[t, d]` with `t = gh·gw`; `image`: `[h, w, 3]`, the pixels that the network saw.
///
/// # Errors
/// If picture or tokens do not fit together.
pub(crate) fn refined(
    probe: &BankProbe,
    tokens: ArrayView2<'_, f32>,
    grid: (usize, usize),
    image: ArrayView3<'_, u8>,
) -> Result<Array2<u8>> {
    Ok(argmax(marginals(probe, tokens, grid, image)?.view()))
}

/// Probabilities of classes or clusters after the CRF, `[k, h, w]`.
///
/// # Errors
/// As [`refined`].
pub(crate) fn marginals(
    probe: &BankProbe,
    tokens: ArrayView2<'_, f32>,
    grid: (usize, usize),
    image: ArrayView3<'_, u8>,
) -> Result<Array3<f32>> {
    let size = (image.dim().0, image.dim().1);
    let likely = probabilities(probe, tokens, grid, size)?;
    Ok(DenseCrf::default().marginals(image, likely.view())?)
}

/// Probabilities of classes or clusters, `[k, h, w]`.
///
/// # Errors
/// If tokens and grid do not fit.
pub(crate) fn probabilities(
    probe: &BankProbe,
    tokens: ArrayView2<'_, f32>,
    grid: (usize, usize),
    size: (usize, usize),
) -> Result<Array3<f32>> {
    let scores = probe.scores(tokens); // [t, k]
    let k = scores.ncols();
    let planes = scores.t().as_standard_layout().into_owned().into_shape_with_order((k, grid.0, grid.1));
    let planes = planes.with_context(|| format!("{} tokens on a grid of {grid:?}", tokens.nrows()))?;
    let (rows, cols) = (taps(grid.0, size.0), taps(grid.1, size.1));
    let mut scores = resize(planes.view(), &rows, &cols)?; // [k, h, w]
    if let BankProbe::Cluster(_) = probe {
        let factors = lengths(tokens, grid, (&rows, &cols)).mapv(|length| SHARPNESS / length.max(SHORTEST));
        scores *= &factors; // [k, h, w] by [h, w]
    }
    softmax(&mut scores);
    Ok(scores)
}

fn taps(from: usize, to: usize) -> Taps {
    Taps::new(Mode::Bilinear, Align::HalfPixel, from, to)
}

/// Lengths of the upsampled tokens, `[h, w]`.
fn lengths(tokens: ArrayView2<'_, f32>, grid: (usize, usize), (rows, cols): (&Taps, &Taps)) -> Array2<f32> {
    let products = Neighbours::of(tokens, grid);
    Array2::from_shape_fn((rows.output(), cols.output()), |(y, x)| {
        let corners =
            rows.at(y).iter().flat_map(|&(i, wi)| cols.at(x).iter().map(move |&(j, wj)| ((i, j), wi * wj)));
        let corners: Vec<((usize, usize), f32)> = corners.collect();
        let pairs = corners.iter().flat_map(|a| corners.iter().map(move |b| (a, b)));
        pairs.map(|((a, wa), (b, wb))| wa * wb * products.between(*a, *b)).sum::<f32>().max(0.0).sqrt()
    })
}

/// Inner products of every token with itself and those that touch it.
struct Neighbours {
    /// One entry per offset of [`OFFSETS`], `[gh, gw]` each; what is off the grid is 0.
    products: [Array2<f32>; 5],
}

/// Down and to the right; the opposite offset has the same product.
const OFFSETS: [(usize, isize); 5] = [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1)];

impl Neighbours {
    fn of(tokens: ArrayView2<'_, f32>, (gh, gw): (usize, usize)) -> Self {
        let product = |(di, dj): (usize, isize)| {
            Array2::from_shape_fn((gh, gw), |(i, j)| match j.checked_add_signed(dj) {
                Some(l) if l < gw && i + di < gh => {
                    tokens.row(i * gw + j).dot(&tokens.row((i + di) * gw + l))
                }
                _ => 0.0,
            })
        };
        Self { products: OFFSETS.map(product) }
    }

    /// The product of two tokens that are the same or touch.
    fn between(&self, a: (usize, usize), b: (usize, usize)) -> f32 {
        let (a, b) = if a <= b { (a, b) } else { (b, a) };
        let offset = (b.0 - a.0, b.1 as isize - a.1 as isize);
        let known = OFFSETS.iter().position(|known| *known == offset);
        known.map_or(0.0, |at| self.products[at][a])
    }
}

/// The softmax over the classes of every pixel of `[k, h, w]`.
fn softmax(scores: &mut Array3<f32>) {
    let top = scores.fold_axis(Axis(0), f32::NEG_INFINITY, |a, b| a.max(*b)); // [h, w]
    *scores -= &top;
    scores.mapv_inplace(f32::exp);
    let sum = scores.sum_axis(Axis(0));
    *scores /= &sum;
}

/// The first class with the largest value in every pixel of `[k, h, w]`.
pub(crate) fn argmax(values: ArrayView3<'_, f32>) -> Array2<u8> {
    let (_, h, w) = values.dim();
    let mut best = Array2::from_elem((h, w), f32::NEG_INFINITY);
    let mut class_of = Array2::zeros((h, w));
    for (class, plane) in (0..=u8::MAX).zip(values.outer_iter()) {
        ndarray::Zip::from(&mut best).and(&mut class_of).and(plane).for_each(|best, of, &value| {
            if value > *best {
                (*best, *of) = (value, class);
            }
        });
    }
    class_of
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;
    use probe::{ClusterProbe, LinearProbe};

    use super::*;

    const GRID: (usize, usize) = (3, 4);
    const SIZE: (usize, usize) = (13, 17);

    fn tokens() -> Array2<f32> {
        Array2::from_shape_fn((12, 5), |(i, j)| ((i * 7 + j * 3 + i * i * j) as f32).sin())
    }

    /// The slow way: tokens at label resolution, `[h·w, d]`.
    fn upsampled(tokens: &Array2<f32>) -> Array2<f32> {
        let planes =
            tokens.t().as_standard_layout().into_owned().into_shape_with_order((5, GRID.0, GRID.1)).unwrap();
        let large = resize(planes.view(), &taps(GRID.0, SIZE.0), &taps(GRID.1, SIZE.1)).unwrap();
        large.into_shape_with_order((5, SIZE.0 * SIZE.1)).unwrap().reversed_axes()
    }

    fn softmax_rows(scores: &Array2<f32>) -> Array3<f32> {
        let mut exp = scores.mapv(f32::exp);
        exp.rows_mut().into_iter().for_each(|mut row| row /= row.sum());
        let planes = exp.t().as_standard_layout().into_owned();
        planes.into_shape_with_order((scores.ncols(), SIZE.0, SIZE.1)).unwrap()
    }

    fn close(a: &Array3<f32>, b: &Array3<f32>) -> bool {
        a.dim() == b.dim() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
    }

    #[test]
    fn equals_scoring_upsampled_tokens() {
        let tokens = tokens();
        let large = upsampled(&tokens);
        let weight = Array2::from_shape_fn((3, 5), |(i, j)| ((i * 5 + j) as f32).cos());
        let bias = Array1::from(vec![0.1, -0.2, 0.3]);
        let expected = softmax_rows(&(large.dot(&weight.t()) + &bias));
        let linear = BankProbe::Linear(LinearProbe { weight: weight.clone(), bias });
        assert!(close(&probabilities(&linear, tokens.view(), GRID, SIZE).unwrap(), &expected));

        let unit = |m: &Array2<f32>| {
            let mut m = m.clone();
            m.rows_mut().into_iter().for_each(|mut row| row /= row.dot(&row).sqrt());
            m
        };
        let expected = softmax_rows(&(2.0 * unit(&large).dot(&unit(&weight).t())));
        let cluster = BankProbe::Cluster(ClusterProbe { centres: weight });
        assert!(close(&probabilities(&cluster, tokens.view(), GRID, SIZE).unwrap(), &expected));
    }

    #[test]
    fn a_token_of_no_length_leaves_numbers() {
        let cluster = BankProbe::Cluster(ClusterProbe { centres: Array2::eye(5) });
        let likely = probabilities(&cluster, Array2::zeros((12, 5)).view(), GRID, SIZE).unwrap();
        assert!(likely.iter().all(|p| (p - 0.2).abs() < 1e-6));
    }

    #[test]
    fn edges_of_the_picture_win_over_those_of_the_grid() {
        // Two patches side by side, but the picture changes at three eighths.
        let image = Array3::from_shape_fn((8, 16, 3), |(_, x, _)| if x < 6 { 250 } else { 5 });
        let linear = BankProbe::Linear(LinearProbe { weight: Array2::eye(2), bias: Array1::zeros(2) });
        let tokens = ndarray::array![[2.0, 0.0], [0.0, 2.0]];
        let plain = linear.predict(tokens.view(), (1, 2), (8, 16));
        let refined = refined(&linear, tokens.view(), (1, 2), image.view()).unwrap();
        assert!((0..16).all(|x| plain[[4, x]] == u8::from(x >= 8)));
        assert!((0..16).all(|x| refined[[4, x]] == u8::from(x >= 6)), "{refined}");
    }

    #[test]
    fn ties_go_to_the_first() {
        let values = ndarray::array![[[1.0, 0.0]], [[1.0, 2.0]], [[0.0, 2.0]]];
        assert_eq!(argmax(values.view()), ndarray::array![[0, 1]]);
    }

    #[test]
    fn other_grids_are_refused() {
        let linear = BankProbe::Linear(LinearProbe { weight: Array2::eye(2), bias: Array1::zeros(2) });
        let error = probabilities(&linear, Array2::zeros((3, 2)).view(), (2, 2), SIZE).unwrap_err();
        assert!(error.to_string().contains("3 tokens on a grid of (2, 2)"), "{error}");
    }
}
