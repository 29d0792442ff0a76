//! Brightness, contrast, saturation, grey and solarisation of 8-bit pixels, bit for bit as Pillow and torchvision do them.
//!
//! The three adjustments are one formula: `degenerate + factor · (pixel − degenerate)` in single precision, cut off at 0
//! and 255 and rounded *down*; the degenerate picture is black, flat grey of the mean luma, or the grey picture. Where
//! it is flat, a table of 256 bytes does it. Hue is in `hue.rs`.

use ndarray::Array3;

/// The bytes of an image `[h, w, 3]`, pixel by pixel.
///
/// # Panics
/// If it has not 3 channels.
pub(super) fn bytes(image: &mut Array3<u8>) -> &mut [u8] {
    assert_eq!(image.dim().2, 3, "an image is [h, w, 3]");
    if !image.is_standard_layout() {
        *image = image.as_standard_layout().into_owned();
    }
    image.as_slice_mut().expect("an image in standard layout is one slice")
}

/// Makes `[h, w, 3]` darker (`factor` below 1) or brighter; 0 is black.
///
/// # Panics
/// If the image has not 3 channels.
pub fn adjust_brightness(image: &mut Array3<u8>, factor: f64) {
    towards_flat(bytes(image), 0, factor);
}

/// Pulls `[h, w, 3]` towards the mean of its luma (`factor` below 1) or away from it; 0 is flat grey.
///
/// # Panics
/// If the image has not 3 channels.
pub fn adjust_contrast(image: &mut Array3<u8>, factor: f64) {
    let bytes = bytes(image);
    let sum: u64 = bytes.chunks_exact(3).map(|pixel| u64::from(luma(pixel))).sum();
    let mean = sum as f64 / (bytes.len() / 3).max(1) as f64;
    towards_flat(bytes, (mean + 0.5) as u8, factor);
}

/// Pulls every pixel of `[h, w, 3]` towards its luma (`factor` below 1) or away from it; 0 is grey.
///
/// # Panics
/// If the image has not 3 channels.
pub fn adjust_saturation(image: &mut Array3<u8>, factor: f64) {
    let factor = factor as f32;
    for pixel in bytes(image).chunks_exact_mut(3) {
        let grey = luma(pixel);
        pixel.iter_mut().for_each(|byte| *byte = blend(grey, *byte, factor));
    }
}

/// Replaces every pixel of `[h, w, 3]` by three copies of its luma.
///
/// # Panics
/// If the image has not 3 channels.
pub fn grayscale(image: &mut Array3<u8>) {
    bytes(image).chunks_exact_mut(3).for_each(|pixel| pixel.fill(luma(pixel)));
}

/// Inverts every byte of `[h, w, 3]` that is at least `threshold`.
///
/// # Panics
/// If the image has not 3 channels.
pub fn solarize(image: &mut Array3<u8>, threshold: u8) {
    for byte in bytes(image) {
        *byte = if *byte < threshold { *byte } else { 255 - *byte };
    }
}

/// Mirrors `[h, w, 3]` left to right.
///
/// # Panics
/// If the image has not 3 channels.
pub fn flip(image: &mut Array3<u8>) {
    let width = image.dim().1;
    for row in bytes(image).chunks_exact_mut((3 * width).max(1)) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
}

/// `(0.299 R + 0.587 G + 0.114 B)` in 16 bits of fraction, to the nearest.
fn luma(pixel: &[u8]) -> u8 {
    let weighted = |byte: u8, weight: u32| u32::from(byte) * weight;
    let sum = weighted(pixel[0], 19595) + weighted(pixel[1], 38470) + weighted(pixel[2], 7471);
    ((sum + 0x8000) >> 16) as u8
}

fn towards_flat(bytes: &mut [u8], flat: u8, factor: f64) {
    let table: [u8; 256] = std::array::from_fn(|byte| blend(flat, byte as u8, factor as f32));
    bytes.iter_mut().for_each(|byte| *byte = table[usize::from(*byte)]);
}

/// Pillow's blend: in single precision; the conversion cuts off and rounds towards zero.
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Array3<u8> {
        Array3::from_shape_fn((5, 4, 3), |(y, x, c)| (y * 61 + x * 37 + c * 101) as u8)
    }

    fn after(change: impl Fn(&mut Array3<u8>)) -> Array3<u8> {
        let mut image = image();
        change(&mut image);
        image
    }

    #[test]
    fn a_factor_of_one_changes_nothing_and_zero_leaves_the_degenerate_picture() {
        for adjust in [adjust_brightness, adjust_contrast, adjust_saturation] {
            assert_eq!(after(|image| adjust(image, 1.0)), image());
        }
        assert!(after(|image| adjust_brightness(image, 0.0)).iter().all(|&byte| byte == 0));
        assert_eq!(after(|image| adjust_saturation(image, 0.0)), after(grayscale));
        let flat = after(|image| adjust_contrast(image, 0.0));
        assert!(flat.iter().all(|byte| *byte == flat[[0, 0, 0]]));
    }

    #[test]
    fn results_are_rounded_down_and_cut_off() {
        assert_eq!((blend(0, 3, 0.5), blend(10, 7, 0.5)), (1, 8));
        assert_eq!((blend(0, 200, 1.4), blend(200, 10, 1.4)), (255, 0));
    }

    #[test]
    fn luma_weighs_green_most_and_keeps_white_and_black() {
        let of = |pixel: [u8; 3]| luma(&pixel);
        assert_eq!((of([255; 3]), of([0; 3])), (255, 0));
        assert_eq!([of([255, 0, 0]), of([0, 255, 0]), of([0, 0, 255])], [76, 150, 29]);
    }

    #[test]
    fn grey_is_grey_and_stays() {
        let grey = after(grayscale);
        assert!(grey.rows().into_iter().all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
        let mut again = grey.clone();
        grayscale(&mut again);
        assert_eq!(again, grey);
    }

    #[test]
    fn solarising_inverts_from_the_threshold_on() {
        let mut image = Array3::from_shape_vec((1, 1, 3), vec![127, 128, 255]).unwrap();
        solarize(&mut image, 128);
        assert_eq!(image.as_slice().unwrap(), [127, 127, 0]);
    }

    #[test]
    fn flipping_mirrors_and_twice_is_nothing() {
        let flipped = after(flip);
        assert_eq!(flipped, image().slice(ndarray::s![.., ..;-1, ..]));
        assert_eq!(after(|image| (flip(image), flip(image)).0), image());
    }

    #[test]
    fn any_memory_layout_will_do() {
        let turned = || image().permuted_axes([1, 0, 2]);
        let (mut a, mut b) = (turned(), turned().as_standard_layout().into_owned());
        adjust_saturation(&mut a, 1.3);
        adjust_saturation(&mut b, 1.3);
        assert_eq!(a, b);
    }
}
