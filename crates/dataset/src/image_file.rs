//! One picture file to pixels `[h, w, 3]`.
//!
//! JPEG, PNG, BMP, WebP and TIFF, told apart by their content. Grey, palette and 16-bit pictures become 8-bit RGB; an alpha
//! channel is dropped, not blended. The orientation that a camera may have noted (EXIF) is *not* applied: the
//! reference does not, and label maps are drawn on the pixels as stored. A hostile or damaged file is an error with its reason.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use ndarray::Array3;

use crate::source::Source;
use crate::{Error, Listed, Result, jpeg_end};

/// File name extensions of pictures, in lower case.
pub(crate) const EXTENSIONS: &[&str] = &["bmp", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// More pixels than any camera's, and few enough that two pictures at once fit into 1 GiB.
pub(crate) const MAX_PIXELS: u64 = 1 << 27;
const MAX_SIDE: u32 = 1 << 16;

/// Decodes a picture.
pub(crate) fn read_image(source: &Source, file: &Listed) -> Result<Array3<u8>> {
    let refuse = |reason| Error::Image { path: source.place(&file.path), reason };
    decode(&source.read(file, refuse)?).map_err(refuse)
}

/// Refuses pictures that would not fit into memory, or have no pixel.
pub(crate) fn check_size(w: u32, h: u32) -> std::result::Result<(), String> {
    if w == 0 || h == 0 {
        return Err(format!("it has {w} x {h} pixels"));
    }
    if w > MAX_SIDE || h > MAX_SIDE || u64::from(w) * u64::from(h) > MAX_PIXELS {
        return Err(format!("it has {w} x {h} pixels; at most {MAX_PIXELS} and {MAX_SIDE} a side are read"));
    }
    Ok(())
}

fn decode(bytes: &[u8]) -> std::result::Result<Array3<u8>, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let format = reader.format().ok_or("it is not a JPEG, PNG, BMP, WebP or TIFF file")?;
    if format == ImageFormat::Jpeg && !jpeg_end::is_whole(bytes) {
        return Err("the JPEG file is cut off".into());
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(8 * MAX_PIXELS);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (w, h) = decoder.dimensions();
    check_size(w, h)?;
    let picture = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?.into_rgb8();
    Ok(Array3::from_shape_vec((h as usize, w as usize, 3), picture.into_raw()).expect("three bytes a pixel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture.write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    /// 12 × 10 pixels, smooth enough for JPEG.
    fn picture() -> DynamicImage {
        image::RgbImage::from_fn(12, 10, |x, y| image::Rgb([x as u8 * 20, y as u8 * 20, 77])).into()
    }

    #[test]
    fn lossless_formats_give_the_pixels_back() {
        let expected = Array3::from_shape_vec((10, 12, 3), picture().into_rgb8().into_raw()).unwrap();
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::WebP, ImageFormat::Tiff] {
            assert_eq!(decode(&encoded(&picture(), format)).unwrap(), expected, "{format:?}");
        }
    }

    #[test]
    fn any_kind_of_pixel_becomes_rgb() {
        let grey = image::GrayImage::from_pixel(3, 2, image::Luma([200]));
        let wide = image::ImageBuffer::from_pixel(3, 2, image::Luma([200u16 * 257]));
        let alpha = image::RgbaImage::from_pixel(3, 2, image::Rgba([200, 200, 200, 0]));
        for picture in [DynamicImage::from(grey), wide.into(), alpha.into()] {
            let pixels = decode(&encoded(&picture, ImageFormat::Png)).unwrap();
            assert_eq!(pixels, Array3::from_elem((2, 3, 3), 200), "{:?}", picture.color());
        }
    }

    #[test]
    fn cut_off_files_of_every_format_are_errors() {
        use ImageFormat::{Bmp, Jpeg, Png, Tiff, WebP};
        for format in [Jpeg, Png, Bmp, Tiff, WebP] {
            let bytes = encoded(&picture(), format);
            assert!(decode(&bytes).is_ok(), "{format:?}");
            for length in [bytes.len() / 3, bytes.len() / 2, bytes.len() * 9 / 10] {
                assert!(decode(&bytes[..length]).is_err(), "{format:?} of {length}/{} bytes", bytes.len());
            }
        }
    }

    #[test]
    fn other_files_are_errors_with_path_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::local(folder.path());
        let read = |name: &str| read_image(&source, &Listed { path: name.into(), bytes: 5, tag: None });
        for (name, content, word) in [("empty.png", "", "empty"), ("text.jpg", "words", "not a JPEG")] {
            std::fs::write(folder.path().join(name), content).unwrap();
            let error = read(name).unwrap_err();
            assert!(error.is_sample());
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(word), "{text}");
        }
        let missing = read("gone.png").unwrap_err();
        assert!(missing.is_sample() && missing.to_string().contains("gone.png"));
    }

    #[test]
    fn a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded() {
        let mut bytes = encoded(&picture(), ImageFormat::Bmp);
        bytes[18..22].copy_from_slice(&60_000u32.to_le_bytes());
        bytes[22..26].copy_from_slice(&60_000u32.to_le_bytes());
        let reason = decode(&bytes).unwrap_err();
        assert!(reason.contains("60000 x 60000"), "{reason}");
        assert!(
            check_size(0, 5).is_err() && check_size(1 << 17, 1).is_err() && check_size(8192, 8192).is_ok()
        );
    }
}
