//! Correspondences as pictures: where every query finds itself, in a colour of its own.
//!
//! The image is turned to grey and darkened, so that nothing is bright but what corresponds; over it each query's map is laid in the
//! query's colour, `opacity = ½ a / max a`, one query after the other. Maps are enlarged bilinearly, with the outermost patches at
//! the border (their centres are where a query of ±1 is). Beside them stands the image itself with a cross at every query.

use ndarray::{Array3, ArrayView2, ArrayView3, Axis, s};
use resample::{Align, Mode, Taps, resize};

use crate::colour_map::hues;
use crate::{Error, Palette, Result};

/// Brightness of what lies under the maps.
const DARK: f32 = 0.8;
/// Red, green and blue of what the eye takes for grey.
const GREY: [f32; 3] = [0.2989, 0.5870, 0.1140];
/// Opacity where a map is largest.
const OPACITY: f32 = 0.5;
/// The first queries' colours.
const USUAL: [[u8; 3]; 4] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]];

/// A colour for each query: red, green, blue, yellow; hues at equal distances for more than four.
#[must_use]
pub fn query_colours(queries: usize) -> Palette {
    Palette::new(USUAL.get(..queries).map_or_else(|| hues(queries), <[_]>::to_vec))
}

/// The maps of all queries over a dark grey image, `[h, w, 3]`.
///
/// * `image`: `[h, w, 3]`; `maps`: `[q, gh, gw]`, at least 0, as from [`correspondence_maps`](crate::correspondence_maps).
/// * `colours`: one for each query.
///
/// # Errors
/// [`Error::NoColour`] for a query without colour, [`Error::Empty`] for a grid without patches, [`Error::Shape`] without three channels.
pub fn correspondence_picture(
    image: ArrayView3<'_, u8>,
    maps: ArrayView3<'_, f32>,
    colours: &Palette,
) -> Result<Array3<u8>> {
    let (h, w, _) = image.dim();
    expect_rgb("image", image)?;
    if maps.dim().1 * maps.dim().2 == 0 && maps.dim().0 > 0 {
        return Err(Error::Empty("grid of a map"));
    }
    let mut picture = Array3::zeros((h, w, 3));
    for (mut pixel, image) in picture.lanes_mut(Axis(2)).into_iter().zip(image.lanes(Axis(2))) {
        let grey: f32 = image.iter().zip(GREY).map(|(&value, weight)| weight * f32::from(value)).sum();
        pixel.fill(DARK * grey);
    }
    for (query, map) in maps.axis_iter(Axis(0)).enumerate() {
        lay_over(&mut picture, map, colour_of(colours, query)?);
    }
    Ok(picture.mapv(|value: f32| value.round() as u8))
}

/// One map in its colour; a map without anything above 0 changes nothing.
fn lay_over(picture: &mut Array3<f32>, map: ArrayView2<'_, f32>, colour: [u8; 3]) {
    let ((h, w, _), (gh, gw)) = (picture.dim(), map.dim());
    let taps = |from, to| Taps::new(Mode::Bilinear, Align::Corners, from, to);
    let large = resize(map.insert_axis(Axis(0)), &taps(gh, h), &taps(gw, w));
    let large = large.expect("taps of this grid").remove_axis(Axis(0));
    let most = large.iter().copied().fold(0.0, f32::max);
    if most <= 0.0 {
        return;
    }
    for (mut pixel, &a) in picture.lanes_mut(Axis(2)).into_iter().zip(&large) {
        let alpha = OPACITY * (a / most).max(0.0);
        for (value, colour) in pixel.iter_mut().zip(colour) {
            *value += alpha * (f32::from(colour) - *value);
        }
    }
}

/// The image with a cross at every query, in its colour and on a black rim.
///
/// * `queries`: `(x, y)`; -1 and 1 are the centres of the outermost pixels, and what lies outside is drawn at the border.
///
/// # Errors
/// [`Error::NoColour`] for a query without colour, [`Error::Shape`] without three channels.
pub fn mark_queries(
    image: ArrayView3<'_, u8>,
    queries: &[[f32; 2]],
    colours: &Palette,
) -> Result<Array3<u8>> {
    let (h, w, _) = image.dim();
    expect_rgb("image", image)?;
    let arm = (h.min(w) / 32).max(2) as isize;
    let half = arm / 6;
    let mut picture = image.to_owned();
    for (number, &[x, y]) in queries.iter().enumerate() {
        let colour = colour_of(colours, number)?;
        let place = |at: f32, n: usize| {
            ((at.clamp(-1.0, 1.0) + 1.0) / 2.0 * n.saturating_sub(1) as f32).round() as isize
        };
        let (row, column) = (place(y, h), place(x, w));
        for (rim, colour) in [(1, [0; 3]), (0, colour)] {
            for (dy, dx) in cross(arm + rim, half + rim) {
                let (y, x) = (row + dy, column + dx);
                if (0..h as isize).contains(&y) && (0..w as isize).contains(&x) {
                    picture.slice_mut(s![y, x, ..]).iter_mut().zip(colour).for_each(|(to, c)| *to = c);
                }
            }
        }
    }
    Ok(picture)
}

/// Offsets of an upright cross whose arms are `arm` long and `2 half + 1` thick.
fn cross(arm: isize, half: isize) -> impl Iterator<Item = (isize, isize)> {
    let all = (-arm..=arm).flat_map(move |dy| (-arm..=arm).map(move |dx| (dy, dx)));
    all.filter(move |&(dy, dx)| dy.abs() <= half || dx.abs() <= half)
}

/// Pictures of one height side by side, black between them.
///
/// * `gap`: columns between two.
///
/// # Errors
/// [`Error::Empty`] without pictures, [`Error::Shape`] if one has another height than the first, or not three channels.
pub fn beside(pictures: &[ArrayView3<'_, u8>], gap: usize) -> Result<Array3<u8>> {
    let first = pictures.first().ok_or(Error::Empty("list of pictures"))?;
    let h = first.dim().0;
    for picture in pictures {
        let (_, w, _) = picture.dim();
        if picture.shape() != [h, w, 3] {
            return Err(Error::Shape {
                what: "picture",
                expected: vec![h, w, 3],
                got: picture.shape().to_vec(),
            });
        }
    }
    let width: usize =
        pictures.iter().map(|picture| picture.dim().1).sum::<usize>() + gap * (pictures.len() - 1);
    let (mut all, mut from) = (Array3::zeros((h, width, 3)), 0);
    for picture in pictures {
        let to = from + picture.dim().1;
        all.slice_mut(s![.., from..to, ..]).assign(picture);
        from = to + gap;
    }
    Ok(all)
}

fn colour_of(colours: &Palette, query: usize) -> Result<[u8; 3]> {
    let label = u8::try_from(query).unwrap_or(u8::MAX);
    let colour = colours.colour(label).filter(|_| query == usize::from(label));
    colour.ok_or(Error::NoColour { label, colours: colours.len() })
}

fn expect_rgb(what: &'static str, image: ArrayView3<'_, u8>) -> Result<()> {
    match image.dim() {
        (_, _, 3) => Ok(()),
        (h, w, _) => Err(Error::Shape { what, expected: vec![h, w, 3], got: image.shape().to_vec() }),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, array};

    use super::*;

    fn pixel(picture: &Array3<u8>, y: usize, x: usize) -> [u8; 3] {
        [0, 1, 2].map(|c| picture[[y, x, c]])
    }

    #[test]
    fn without_correspondence_the_image_is_dark_grey() {
        let image = array![[[200, 100, 50], [255, 255, 255]]];
        let grey = |rgb: [f32; 3]| (0.8 * (0.2989 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2])).round() as u8;
        let flat = Array3::zeros((1, 2, 2));
        let picture = correspondence_picture(image.view(), flat.view(), &query_colours(1)).unwrap();
        assert_eq!(pixel(&picture, 0, 0), [grey([200.0, 100.0, 50.0]); 3]);
        assert_eq!(pixel(&picture, 0, 1), [grey([255.0; 3]); 3]);
    }

    #[test]
    fn a_map_is_half_opaque_at_its_largest_and_the_border_patches_are_at_the_border() {
        let image = Array3::from_elem((5, 5, 3), 0);
        let maps = array![[[0.0, 0.0], [0.0, 4.0]]];
        let picture = correspondence_picture(image.view(), maps.view(), &query_colours(1)).unwrap();
        // align_corners: the last pixel is the last patch, the middle one the mean of all four.
        assert_eq!(pixel(&picture, 4, 4), [128, 0, 0]);
        assert_eq!(pixel(&picture, 2, 2), [32, 0, 0]);
        assert_eq!((pixel(&picture, 0, 0), pixel(&picture, 4, 0)), ([0; 3], [0; 3]));
        let scaled = correspondence_picture(image.view(), (&maps * 0.125).view(), &query_colours(1)).unwrap();
        assert_eq!(scaled, picture);
    }

    #[test]
    fn queries_are_laid_over_one_after_the_other() {
        let image = Array3::from_elem((1, 1, 3), 0);
        let maps = Array3::ones((2, 1, 1));
        let picture = correspondence_picture(image.view(), maps.view(), &query_colours(2)).unwrap();
        assert_eq!(pixel(&picture, 0, 0), [64, 128, 0]); // half of the half that red had, and half green
        let colours = query_colours(7);
        assert_eq!((colours.len(), colours.colour(0)), (7, Some([255, 0, 0])));
        assert_eq!(query_colours(4).colour(3), Some([255, 255, 0]));
        assert!(matches!(
            correspondence_picture(image.view(), maps.view(), &query_colours(1)),
            Err(Error::NoColour { label: 1, colours: 1 })
        ));
        let empty = Array3::zeros((1, 0, 3));
        assert!(correspondence_picture(image.view(), empty.view(), &query_colours(1)).is_err());
        assert!(correspondence_picture(Array3::zeros((2, 2, 4)).view(), maps.view(), &colours).is_err());
    }

    #[test]
    fn crosses_are_where_the_queries_are() {
        let image = Array3::from_elem((33, 65, 3), 100);
        let queries = [[0.0, 0.0], [-1.0, 1.0], [9.0, -9.0]];
        let picture = mark_queries(image.view(), &queries, &query_colours(3)).unwrap();
        for ((y, x), colour) in [(16, 32), (32, 0), (0, 64)].into_iter().zip(USUAL) {
            assert_eq!(pixel(&picture, y, x), colour);
        }
        assert_eq!((pixel(&picture, 16, 34), pixel(&picture, 16, 35)), (USUAL[0], [0; 3]));
        assert_eq!((pixel(&picture, 16, 36), pixel(&picture, 18, 34)), ([100; 3], [100; 3]));
        let changed = picture.lanes(Axis(2)).into_iter().filter(|p| p.iter().any(|&v| v != 100)).count();
        assert!(changed < 100, "{changed}");
        assert!(mark_queries(image.view(), &queries, &query_colours(2)).is_err());
        assert_eq!(
            mark_queries(Array3::zeros((0, 0, 3)).view(), &queries, &query_colours(3)).unwrap().len(),
            0
        );
    }

    #[test]
    fn pictures_stand_side_by_side() {
        let (one, two) = (Array3::from_elem((2, 1, 3), 7), Array3::from_elem((2, 2, 3), 9));
        let both = beside(&[one.view(), two.view()], 1).unwrap();
        assert_eq!(both.index_axis(Axis(2), 0), array![[7, 0, 9, 9], [7, 0, 9, 9]]);
        assert!(beside(&[one.view(), Array3::zeros((3, 1, 3)).view()], 0).is_err());
        assert_eq!(beside(&[], 1), Err(Error::Empty("list of pictures")));
    }
}
