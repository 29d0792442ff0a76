//! What the class token of a vision transformer looks at, as pictures.
//!
//! Attention comes as weights per patch, one map per head, non-negative. They need not sum to 1: the class token's own
//! share is left out. A map is drawn as a *heat map* (all weights, colours from its least to its largest), or as a
//! *mask*: the fewest patches that together hold a given part of its mass. A patch is a square of pixels, drawn without
//! interpolation, as there is nothing known between patches.

use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis};

use crate::colour_map::{hues, inferno};
use crate::{Error, Palette, Result};

/// The patches that hold the mass: the smallest set with at least `mass` of the sum of all weights.
///
/// Weights in increasing order are added up; those are kept at which the sum exceeds `1 - mass` of the total. Of equal
/// weights the later patch is kept first. What is not positive has no mass and is never kept.
///
/// * `weights`: `[gh, gw]`.
/// * `mass`: a fraction, 0 for no patch up to 1 for all that have mass.
///
/// ```
/// use ndarray::array;
/// let mask = segment::mass_mask(array![[0.1, 0.4], [0.2, 0.3]].view(), 0.6)?;
/// assert_eq!(mask, array![[false, true], [false, true]]);
/// # Ok::<(), segment::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotAFraction`] for another `mass`.
pub fn mass_mask(weights: ArrayView2<'_, f32>, mass: f32) -> Result<Array2<bool>> {
    expect_fraction("mass", mass)?;
    let masses: Vec<f64> = weights.iter().map(|&w| if w > 0.0 { f64::from(w) } else { 0.0 }).collect();
    let mut order: Vec<usize> = (0..masses.len()).collect();
    order.sort_by(|&a, &b| masses[a].total_cmp(&masses[b]));
    let total: f64 = order.iter().map(|&i| masses[i]).sum(); // in this order: the last sum below is this number
    let spared = (1.0 - f64::from(mass)) * total;
    let mut sum = 0.0;
    let mut kept = vec![false; masses.len()];
    for i in order {
        sum += masses[i];
        kept[i] = sum > spared && masses[i] > 0.0;
    }
    Ok(Array2::from_shape_vec(weights.dim(), kept).expect("one flag a weight"))
}

/// The weights that a mask keeps, and 0 elsewhere.
///
/// * `weights`, `mask`: `[gh, gw]`.
///
/// # Errors
/// [`Error::Shape`] if the two differ in shape.
pub fn masked(weights: ArrayView2<'_, f32>, mask: ArrayView2<'_, bool>) -> Result<Array2<f32>> {
    expect_shape("mask", weights.shape(), mask.shape())?;
    Ok(ndarray::Zip::from(weights).and(mask).map_collect(|&weight, &kept| if kept { weight } else { 0.0 }))
}

/// Each patch as a square: `[gh, gw]` to `[gh·patch, gw·patch]`.
pub fn enlarge<T: Copy>(map: ArrayView2<'_, T>, patch: usize) -> Array2<T> {
    let (gh, gw) = map.dim();
    Array2::from_shape_fn((gh * patch, gw * patch), |(y, x)| map[[y / patch, x / patch]])
}

/// A map in colours, `[gh·patch, gw·patch, 3]`: black the least weight, pale yellow the largest (*inferno*).
///
/// A map without differences is black, and so is NaN.
///
/// * `weights`: `[gh, gw]`.
pub fn heat_map(weights: ArrayView2<'_, f32>, patch: usize) -> Array3<u8> {
    let (low, high) = extremes(weights.iter());
    let colours = weights.mapv(|weight| inferno((weight - low) / (high - low)));
    let large = enlarge(colours.view(), patch);
    Array3::from_shape_fn((large.nrows(), large.ncols(), 3), |(y, x, channel)| large[[y, x]][channel])
}

/// A network's input as a picture `[h, w, 3]`: its least value black, its largest full, all channels alike.
///
/// * `image`: `[3, h, w]`, normalised in whatever way.
///
/// # Errors
/// [`Error::Shape`] if there are not three channels.
pub fn stretch(image: ArrayView3<'_, f32>) -> Result<Array3<u8>> {
    let (channels, h, w) = image.dim();
    expect_shape("image", &[3, h, w], &[channels, h, w])?;
    let (low, high) = extremes(image.iter());
    let byte = |value: f32| (255.0 * (value - low) / (high - low)).round() as u8; // the cast clamps
    Ok(image.permuted_axes([1, 2, 0]).mapv(byte))
}

/// A mask over an image: its pixels blended with a colour, its outline drawn one pixel wide.
///
/// The outline runs inside of the mask, along the border of the image as well.
///
/// * `image`: `[h, w, 3]`; `mask`: `[h, w]`.
/// * `alpha`: opacity of the colour, from 0 to 1; the outline is opaque.
///
/// # Errors
/// [`Error::Shape`] if they differ in size, [`Error::NotAFraction`] for another `alpha`.
pub fn highlight(
    image: ArrayView3<'_, u8>,
    mask: ArrayView2<'_, bool>,
    colour: [u8; 3],
    alpha: f32,
) -> Result<Array3<u8>> {
    let labels = mask.mapv(|kept| if kept { 0 } else { NOTHING });
    paint(image, labels.view(), &Palette::new(vec![colour]), alpha)
}

/// The masks of all heads over one image, a colour per head (see [`head_colours`]), each with its outline.
///
/// A patch that several heads keep has the colour of the head whose largest share of mass it holds.
///
/// * `image`: `[gh·patch, gw·patch, 3]`.
/// * `heads`: `[n, gh, gw]`, `n` at most 255.
/// * `mass`: as for [`mass_mask`]; `alpha`: as for [`highlight`].
///
/// # Errors
/// [`Error::Shape`] if image and heads do not fit, [`Error::NotAFraction`] for `mass` or `alpha`.
pub fn overlay_heads(
    image: ArrayView3<'_, u8>,
    heads: ArrayView3<'_, f32>,
    patch: usize,
    mass: f32,
    alpha: f32,
) -> Result<Array3<u8>> {
    let (n, gh, gw) = heads.dim();
    expect_shape("heads", &[n.min(usize::from(NOTHING)), gh, gw], &[n, gh, gw])?;
    let mut owner = Array2::from_elem((gh, gw), NOTHING);
    let mut largest = Array2::from_elem((gh, gw), 0.0_f32);
    for (head, weights) in heads.axis_iter(Axis(0)).enumerate() {
        let mask = mass_mask(weights, mass)?;
        let total: f32 = weights.iter().filter(|&&w| w > 0.0).sum();
        for ((at, &weight), &kept) in weights.indexed_iter().zip(&mask) {
            if kept && weight / total > largest[at] {
                (owner[at], largest[at]) = (head as u8, weight / total);
            }
        }
    }
    paint(image, enlarge(owner.view(), patch).view(), &head_colours(n), alpha)
}

/// One colour per head: hues at equal distances, as bright as can be.
pub fn head_colours(heads: usize) -> Palette {
    Palette::new(hues(heads))
}

/// Pixels of no region.
const NOTHING: u8 = 255;

/// Regions over an image, each blended with its colour and outlined in it.
fn paint(
    image: ArrayView3<'_, u8>,
    regions: ArrayView2<'_, u8>,
    palette: &Palette,
    alpha: f32,
) -> Result<Array3<u8>> {
    let (h, w) = regions.dim();
    expect_shape("image", &[h, w, 3], image.shape())?;
    expect_fraction("alpha", alpha)?;
    let mut picture = image.to_owned();
    for ((y, x), colour) in regions.indexed_iter().filter_map(|(at, &r)| Some((at, palette.colour(r)?))) {
        let alpha = if on_outline(regions, (y, x)) { 1.0 } else { alpha };
        for (channel, colour) in colour.into_iter().enumerate() {
            let pixel = &mut picture[[y, x, channel]];
            *pixel = ((1.0 - alpha) * f32::from(*pixel) + alpha * f32::from(colour)).round() as u8;
        }
    }
    Ok(picture)
}

/// Whether one of a pixel's four neighbours is of another region, or outside of the image.
fn on_outline(regions: ArrayView2<'_, u8>, (y, x): (usize, usize)) -> bool {
    let here = regions[[y, x]];
    let other = |y: Option<usize>, x: Option<usize>| match (y, x) {
        (Some(y), Some(x)) => regions.get((y, x)).is_none_or(|&there| there != here),
        _ => true,
    };
    other(y.checked_sub(1), Some(x))
        || other(Some(y + 1), Some(x))
        || other(Some(y), x.checked_sub(1))
        || other(Some(y), Some(x + 1))
}

/// The least and the largest of the values that are not NaN.
fn extremes<'a>(values: impl Iterator<Item = &'a f32>) -> (f32, f32) {
    values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}

fn expect_fraction(what: &'static str, got: f32) -> Result<()> {
    if (0.0..=1.0).contains(&got) { Ok(()) } else { Err(Error::NotAFraction { what, got }) }
}

fn expect_shape(what: &'static str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(Error::Shape { what, expected: expected.to_vec(), got: got.to_vec() })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array};

    use super::*;

    /// Positive weights without order.
    fn weights() -> Array2<f32> {
        Array2::from_shape_fn((6, 9), |(i, j)| 1.01 + ((i * 31 + j * 17) as f32).sin())
    }

    #[test]
    fn the_smallest_set_that_holds_the_mass() {
        let weights = weights();
        let total: f32 = weights.sum();
        for mass in [0.1, 0.35, 0.6, 0.9] {
            let mask = mass_mask(weights.view(), mass).unwrap();
            let kept = masked(weights.view(), mask.view()).unwrap();
            let least = kept.iter().copied().filter(|&w| w > 0.0).fold(f32::INFINITY, f32::min);
            assert!(kept.sum() >= mass * total - 1e-4, "{mass} holds too little");
            assert!(kept.sum() - least < mass * total, "{mass} holds too much");
            let dropped = weights.iter().zip(&mask).filter(|(_, kept)| !**kept).map(|(w, _)| *w);
            assert!(dropped.fold(0.0, f32::max) <= least, "a heavier patch was dropped");
        }
    }

    #[test]
    fn masks_grow_with_the_mass_and_do_not_depend_on_the_scale() {
        let mask = |mass, scale: f32| mass_mask((weights() * scale).view(), mass).unwrap();
        let count = |mask: &Array2<bool>| mask.iter().filter(|&&kept| kept).count();
        assert_eq!((count(&mask(0.0, 1.0)), count(&mask(1.0, 1.0))), (0, 54));
        assert!(count(&mask(0.3, 1.0)) < count(&mask(0.6, 1.0)));
        assert_eq!(mask(0.6, 1.0), mask(0.6, 0.125));
    }

    #[test]
    fn what_has_no_mass_is_not_kept() {
        let odd = array![[0.0, f32::NAN, -1.0, 2.0]];
        assert_eq!(mass_mask(odd.view(), 1.0).unwrap(), array![[false, false, false, true]]);
        assert_eq!(mass_mask(array![[0.0, 0.0]].view(), 1.0).unwrap(), array![[false, false]]);
        assert_eq!(mass_mask(Array2::zeros((0, 3)).view(), 0.5).unwrap().dim(), (0, 3));
        assert!(matches!(mass_mask(odd.view(), 1.5), Err(Error::NotAFraction { what: "mass", .. })));
        assert!(matches!(mass_mask(odd.view(), f32::NAN), Err(Error::NotAFraction { .. })));
    }

    #[test]
    fn patches_become_squares() {
        let large = enlarge(array![[1, 2], [3, 4]].view(), 2);
        assert_eq!(large, array![[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]);
    }

    #[test]
    fn heat_goes_from_the_least_to_the_largest() {
        let map = heat_map(array![[0.25, 0.5, 0.0]].view(), 2);
        assert_eq!(map.dim(), (2, 6, 3));
        let colour = |x: usize| [map[[1, x, 0]], map[[1, x, 1]], map[[1, x, 2]]];
        assert_eq!([colour(0), colour(2), colour(5)], [inferno(0.5), inferno(1.0), inferno(0.0)]);
        assert!(heat_map(array![[0.5, 0.5]].view(), 1).iter().eq(&[0, 0, 3, 0, 0, 3]));
    }

    #[test]
    fn inputs_are_stretched_over_all_channels_together() {
        let image = Array::from_shape_vec((3, 1, 2), vec![-2.0, 2.0, 0.0, 1.0, -1.0, 0.0]).unwrap();
        assert_eq!(stretch(image.view()).unwrap(), array![[[0, 128, 64], [255, 191, 128]]]);
        assert!(stretch(Array3::zeros((2, 1, 1)).view()).is_err());
    }

    #[test]
    fn a_mask_is_blended_and_outlined() {
        let image = Array3::from_elem((5, 5, 3), 100);
        let mask = Array2::from_shape_fn((5, 5), |(y, x)| y < 3 && (1..4).contains(&x));
        let picture = highlight(image.view(), mask.view(), [200, 0, 100], 0.5).unwrap();
        let pixel = |y: usize, x: usize| [picture[[y, x, 0]], picture[[y, x, 1]], picture[[y, x, 2]]];
        assert_eq!(pixel(1, 2), [150, 50, 100]);
        for outline in [(0, 2), (1, 1), (2, 2), (1, 3)] {
            assert_eq!(pixel(outline.0, outline.1), [200, 0, 100], "{outline:?}");
        }
        assert_eq!(pixel(3, 2), [100; 3]);
        let narrow = Array2::from_elem((5, 4), true);
        assert!(matches!(highlight(image.view(), narrow.view(), [0; 3], 0.5), Err(Error::Shape { .. })));
        assert!(matches!(
            highlight(image.view(), mask.view(), [0; 3], 2.0),
            Err(Error::NotAFraction { what: "alpha", .. })
        ));
    }

    #[test]
    fn every_patch_has_the_colour_of_the_head_that_looks_at_it_most() {
        let heads = Array::from_shape_vec((2, 1, 3), vec![0.6, 0.4, 0.0, 0.0, 1.2, 0.8]).unwrap();
        let image = Array3::from_elem((4, 12, 3), 0);
        let picture = overlay_heads(image.view(), heads.view(), 4, 1.0, 1.0).unwrap();
        let colour = |x: usize| [picture[[1, x, 0]], picture[[1, x, 1]], picture[[1, x, 2]]];
        let [first, second] = [0, 1].map(|head| head_colours(2).colour(head).unwrap());
        assert_eq!([colour(1), colour(5), colour(9)], [first, second, second]);
        // Half of the mass is in one patch of each.
        let picture = overlay_heads(image.view(), heads.view(), 4, 0.5, 0.5).unwrap();
        assert_eq!(picture[[1, 9, 1]], 0);
        assert!(overlay_heads(image.view(), heads.view(), 3, 0.5, 0.5).is_err());
        assert!(overlay_heads(image.view(), Array3::zeros((300, 1, 3)).view(), 4, 0.5, 0.5).is_err());
    }
}
