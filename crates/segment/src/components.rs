//! Three components per patch as red, green and blue: the usual way to look at features.
//!
//! A component has no unit and no natural range, so the caller gives one per channel:
//! `255 (v - low) / (high - low)`, clamped. Ranges taken from percentiles survive outliers; ranges taken
//! once from many images keep the same colour for the same feature in all of them.

use ndarray::{Array3, ArrayView1, ArrayView2, ArrayView3};
use resample::{Align, Mode, Taps, resize};

use crate::{Error, Result};

/// The percentiles, as fractions, that become the darkest and the brightest value.
const ROBUST: (f64, f64) = (0.01, 0.99);

/// The picture `[h, w, 3]` of three components, upsampled bilinearly.
///
/// A channel whose range has no width is mid-grey. `low > high` is allowed and inverts the channel, as the
/// sign of a component is arbitrary. NaN is black.
///
/// * `components`: `[gh, gw, 3]`.
/// * `size`: `(h, w)` of the picture.
/// * `ranges`: `(low, high)` per channel, for example from [`percentile_ranges`].
///
/// # Errors
/// [`Error::Shape`] if there are not three components, [`Error::Empty`] if there is no patch.
pub fn rgb_from_components(
    components: ArrayView3<'_, f32>,
    size: (usize, usize),
    ranges: &[(f32, f32); 3],
) -> Result<Array3<u8>> {
    let (gh, gw, _) = components.dim();
    expect_three(components.shape())?;
    if gh * gw == 0 {
        return Err(Error::Empty("grid of components"));
    }
    let rows = Taps::new(Mode::Bilinear, Align::HalfPixel, gh, size.0);
    let cols = Taps::new(Mode::Bilinear, Align::HalfPixel, gw, size.1);
    let large =
        resize(components.permuted_axes([2, 0, 1]), &rows, &cols).expect("the taps were made for this grid"); // [3, h, w]
    Ok(Array3::from_shape_fn((size.0, size.1, 3), |(i, j, channel)| {
        brightness(large[[channel, i, j]], ranges[channel])
    }))
}

/// The 1st and the 99th percentile of each of three components: the ranges for [`rgb_from_components`].
///
/// Percentiles are interpolated linearly between values, as NumPy does. Values that are not finite
/// are left out.
///
/// * `rows`: `[n, 3]`, the patches of one image or of many.
///
/// # Errors
/// [`Error::Shape`] if there are not three components, [`Error::Empty`] if one has no finite value.
pub fn percentile_ranges(rows: ArrayView2<'_, f32>) -> Result<[(f32, f32); 3]> {
    expect_three(rows.shape())?;
    let mut ranges = [(0.0, 0.0); 3];
    for (range, column) in ranges.iter_mut().zip(rows.columns()) {
        *range = robust_range(column)?;
    }
    Ok(ranges)
}

fn robust_range(values: ArrayView1<'_, f32>) -> Result<(f32, f32)> {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
    if sorted.is_empty() {
        return Err(Error::Empty("column of components"));
    }
    sorted.sort_unstable_by(f32::total_cmp);
    Ok((quantile(&sorted, ROBUST.0), quantile(&sorted, ROBUST.1)))
}

/// The value below which a fraction `q` of the sorted values lies.
fn quantile(sorted: &[f32], q: f64) -> f32 {
    let at = q * (sorted.len() - 1) as f64;
    let low = f64::from(sorted[at.floor() as usize]);
    let high = f64::from(sorted[at.ceil() as usize]);
    (low + (high - low) * at.fract()) as f32
}

fn brightness(value: f32, (low, high): (f32, f32)) -> u8 {
    let fraction = if low == high { 0.5 } else { (value - low) / (high - low) };
    (255.0 * fraction).round() as u8 // the cast clamps
}

/// `Ok` if the last axis of an array is three components.
fn expect_three(shape: &[usize]) -> Result<()> {
    let mut expected = shape.to_vec();
    expected[shape.len() - 1] = 3;
    if shape == expected {
        return Ok(());
    }
    Err(Error::Shape { what: "components", expected, got: shape.to_vec() })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn range_ends_become_black_and_full() {
        let components = array![[[-2.0, 5.0, 1.0], [2.0, 5.0, 0.0]]];
        let range = [(-1.0, 1.0), (5.0, 5.0), (1.0, 0.0)];
        let picture = rgb_from_components(components.view(), (1, 2), &range).unwrap();
        // Clamped; mid-grey for a range without width; inverted.
        assert_eq!(picture, array![[[0, 128, 0], [255, 128, 255]]]);
    }

    #[test]
    fn colours_are_interpolated_between_patches() {
        let components =
            Array3::from_shape_fn((2, 2, 3), |(i, j, k)| if k == 0 { i as f32 } else { j as f32 });
        let picture = rgb_from_components(components.view(), (4, 4), &[(0.0, 1.0); 3]).unwrap();
        for (at, value) in [0, 64, 191, 255].into_iter().enumerate() {
            assert_eq!((picture[[at, 1, 0]], picture[[1, at, 2]]), (value, value));
        }
    }

    #[test]
    fn nan_is_black() {
        let picture = rgb_from_components(array![[[f32::NAN, 0.0, 1.0]]].view(), (1, 1), &[(0.0, 1.0); 3]);
        assert_eq!(picture.unwrap(), array![[[0, 0, 255]]]);
    }

    #[test]
    fn the_range_is_that_of_numpy() {
        // numpy.percentile(arange(51) ** 2, [1, 99]) is [0.5, 2450.5].
        let rows = Array2::from_shape_fn((51, 3), |(i, k)| ((50 - i).pow(2) * (k + 1)) as f32);
        let expected = [(0.5, 2450.5), (1.0, 4901.0), (1.5, 7351.5)];
        assert_eq!(percentile_ranges(rows.view()).unwrap(), expected);
        assert_eq!(
            percentile_ranges(array![[7.0, 8.0, 9.0]].view()).unwrap(),
            [(7.0, 7.0), (8.0, 8.0), (9.0, 9.0)]
        );
    }

    #[test]
    fn outliers_hardly_move_the_range() {
        let mut rows = Array2::from_shape_fn((1001, 3), |(i, _)| i as f32);
        let before = percentile_ranges(rows.view()).unwrap();
        rows[[1000, 0]] = 1e9;
        rows[[0, 0]] = f32::NEG_INFINITY; // left out
        let after = percentile_ranges(rows.view()).unwrap();
        assert_eq!(before[0], (10.0, 990.0));
        assert!((after[0].0 - 11.0).abs() < 0.1 && (after[0].1 - 990.0).abs() < 0.1);
        assert_eq!(before[1..], after[1..]);
    }

    #[test]
    fn other_shapes_are_refused() {
        let refused = percentile_ranges(Array2::zeros((4, 2)).view()).unwrap_err();
        assert_eq!(refused.to_string(), "components has shape [4, 2], expected [4, 3]");
        assert_eq!(
            percentile_ranges(Array2::zeros((0, 3)).view()),
            Err(Error::Empty("column of components"))
        );
        let range = [(0.0, 1.0); 3];
        assert!(rgb_from_components(Array3::zeros((2, 2, 4)).view(), (4, 4), &range).is_err());
        let none = rgb_from_components(Array3::zeros((0, 2, 3)).view(), (4, 4), &range);
        assert_eq!(none, Err(Error::Empty("grid of components")));
    }
}
