//! The borders between the regions of a label map, drawn over the image.

use ndarray::{Array3, ArrayView2, ArrayView3};

use crate::{Error, Result};

/// The image with every pixel coloured that has a pixel of another label above, below or beside it, `[h, w, 3]`.
///
/// * `image`: `[h, w, 3]`; `labels`: `[h, w]`. The border of the image is none of regions.
///
/// # Errors
/// [`Error::Shape`] if they differ in size.
pub fn outlined(
    image: ArrayView3<'_, u8>,
    labels: ArrayView2<'_, u8>,
    colour: [u8; 3],
) -> Result<Array3<u8>> {
    let (h, w) = labels.dim();
    if image.shape() != [h, w, 3] {
        return Err(Error::Shape { what: "image", expected: vec![h, w, 3], got: image.shape().to_vec() });
    }
    let mut picture = image.to_owned();
    let mut paint = |(y, x): (usize, usize)| {
        for (channel, value) in colour.into_iter().enumerate() {
            picture[[y, x, channel]] = value;
        }
    };
    for ((y, x), here) in labels.indexed_iter() {
        for other in [(y + 1, x), (y, x + 1)] {
            if labels.get(other).is_some_and(|there| there != here) {
                paint((y, x));
                paint(other);
            }
        }
    }
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn both_sides_of_a_border_are_drawn_and_nothing_else() {
        let labels = array![[0, 0, 0, 1], [0, 0, 0, 1], [2, 0, 0, 1]];
        let picture = outlined(Array3::zeros((3, 4, 3)).view(), labels.view(), [9, 8, 7]).unwrap();
        let drawn = picture.index_axis(ndarray::Axis(2), 1).mapv(|value| value == 8);
        let [t, f] = [true, false];
        assert_eq!(drawn, array![[f, f, t, t], [t, f, t, t], [t, t, t, t]]);
    }

    #[test]
    fn one_region_has_no_border_and_sizes_must_fit() {
        let image = Array3::from_elem((4, 5, 3), 3);
        let same = outlined(image.view(), Array2::from_elem((4, 5), 7).view(), [255; 3]).unwrap();
        assert_eq!(same, image);
        assert!(outlined(image.view(), Array2::zeros((4, 4)).view(), [0; 3]).is_err());
    }
}
