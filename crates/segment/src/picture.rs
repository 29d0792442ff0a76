//! Label maps as pictures: each label in its colour, alone or blended over the image.
//!
//! Pixels to ignore are black, which in the Pascal map is the background's colour too: a picture is
//! for the eye, and a label map for the numbers.

use ndarray::{Array3, ArrayView2, ArrayView3, Zip};

use crate::{Error, Palette, Result};

/// The picture `[h, w, 3]` of a label map; pixels to ignore are black.
///
/// * `labels`: `[h, w]`.
/// * `ignore`: the label that stands for no class, usually 255. It needs no colour.
///
/// # Errors
/// [`Error::NoColour`] for any other label that the palette does not reach.
pub fn colourise(labels: ArrayView2<'_, u8>, palette: &Palette, ignore: u8) -> Result<Array3<u8>> {
    let (h, w) = labels.dim();
    let mut picture = Array3::zeros((h, w, 3));
    for ((i, j), &label) in labels.indexed_iter().filter(|&(_, &label)| label != ignore) {
        let colour = palette.colour(label).ok_or(Error::NoColour { label, colours: palette.len() })?;
        for (channel, value) in colour.into_iter().enumerate() {
            picture[[i, j, channel]] = value;
        }
    }
    Ok(picture)
}

/// A picture laid over an image: `(1 - alpha) image + alpha colours`, rounded, `[h, w, 3]`.
///
/// * `image`, `colours`: `[h, w, 3]`.
/// * `alpha`: opacity of `colours`, from 0 (only the image) to 1 (only the colours).
///
/// # Errors
/// [`Error::Shape`] if the two differ in shape, [`Error::NotAFraction`] for another `alpha`.
pub fn overlay(image: ArrayView3<'_, u8>, colours: ArrayView3<'_, u8>, alpha: f32) -> Result<Array3<u8>> {
    if image.shape() != colours.shape() {
        return Err(Error::Shape {
            what: "colours",
            expected: image.shape().to_vec(),
            got: colours.shape().to_vec(),
        });
    }
    if !(0.0..=1.0).contains(&alpha) {
        return Err(Error::NotAFraction { what: "alpha", got: alpha });
    }
    let blend = |&image: &u8, &colour: &u8| {
        let value = (1.0 - alpha) * f32::from(image) + alpha * f32::from(colour);
        value.round() as u8
    };
    Ok(Zip::from(image).and(colours).map_collect(blend))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn labels_become_colours_and_ignored_pixels_black() {
        let palette = Palette::new(vec![[1, 2, 3], [40, 50, 60]]);
        let picture = colourise(array![[1, 255], [0, 1]].view(), &palette, 255).unwrap();
        assert_eq!(picture, array![[[40, 50, 60], [0, 0, 0]], [[1, 2, 3], [40, 50, 60]]]);
        // A label is ignored even if it has a colour.
        assert_eq!(colourise(array![[1]].view(), &palette, 1).unwrap(), array![[[0, 0, 0]]]);
    }

    #[test]
    fn a_label_without_colour_is_an_error() {
        let refused = colourise(array![[0, 2]].view(), &Palette::pascal(2), 255).unwrap_err();
        assert_eq!(refused, Error::NoColour { label: 2, colours: 2 });
        assert_eq!(
            refused.to_string(),
            "label 2 has no colour in a palette of 2; is it the label to ignore?"
        );
    }

    #[test]
    fn overlay_goes_from_image_to_colours() {
        let (image, colours) = (array![[[0, 100, 255]]], array![[[255, 0, 254]]]);
        let at = |alpha| overlay(image.view(), colours.view(), alpha).unwrap();
        assert_eq!(at(0.0), image);
        assert_eq!(at(1.0), colours);
        assert_eq!(at(0.25), array![[[64, 75, 255]]]); // 63.75 and 254.75, rounded
    }

    #[test]
    fn overlay_refuses_what_does_not_fit() {
        let (image, narrow) = (Array3::zeros((2, 3, 3)), Array3::zeros((2, 2, 3)));
        let refused = overlay(image.view(), narrow.view(), 0.5).unwrap_err();
        assert_eq!(refused.to_string(), "colours has shape [2, 2, 3], expected [2, 3, 3]");
        for alpha in [-0.1, 1.1, f32::NAN] {
            let refused = overlay(image.view(), image.view(), alpha).unwrap_err();
            assert!(matches!(refused, Error::NotAFraction { what: "alpha", .. }));
        }
    }
}
