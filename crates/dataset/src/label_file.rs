//! One label file to class indices `[h, w]`.
//!
//! A label is a PNG whose *stored* values are classes: 8-bit grey, or palette indices (whatever the colours). Anything else
//! (16 bits, RGB, an alpha channel) would have to be guessed at, so it is refused. The class table's void index and 255 both
//! become 255, "ignore"; any other value that is no class is an error that says where it is.

use std::io::Cursor;

use ndarray::Array2;
use png::{BitDepth, ColorType, Decoder, Limits};

use crate::image_file::{MAX_PIXELS, check_size};
use crate::source::Source;
use crate::{Error, Listed, Result};

/// Label value that is no class.
pub(crate) const IGNORE: u8 = 255;
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Decodes a label.
///
/// * `classes`: number of classes `c`; values are `0..c`.
/// * `void`: a further value that means "no class".
pub(crate) fn read_label(
    source: &Source,
    file: &Listed,
    classes: usize,
    void: Option<u8>,
) -> Result<Array2<u8>> {
    let mut label = read_values(source, file)?;
    for ((y, x), value) in label.indexed_iter_mut() {
        if usize::from(*value) < classes {
            continue;
        }
        if *value != IGNORE && Some(*value) != void {
            let path = source.place(&file.path);
            return Err(Error::LabelValue { path, value: *value, x, y, classes, void });
        }
        *value = IGNORE;
    }
    Ok(label)
}

/// Decodes the stored values of a label, whatever they mean.
pub(crate) fn read_values(source: &Source, file: &Listed) -> Result<Array2<u8>> {
    let path = || source.place(&file.path);
    let refuse = |reason: String| Error::Label { path: path(), reason };
    let bytes = source.read(file, refuse)?;
    if !bytes.starts_with(SIGNATURE) {
        return Err(Error::LabelFormat { path: path(), found: "not a PNG file".into() });
    }
    let mut decoder =
        Decoder::new_with_limits(Cursor::new(&bytes[..]), Limits { bytes: MAX_PIXELS as usize });
    let header = decoder.read_header_info().map_err(|e| refuse(e.to_string()))?;
    let (w, h, bits) = (header.width, header.height, header.bit_depth);
    if !is_index(header.color_type, bits) {
        return Err(Error::LabelFormat { path: path(), found: kind(header.color_type, bits) });
    }
    check_size(w, h).map_err(refuse)?;
    let packed = frame(decoder).map_err(refuse)?;
    let (w, h) = (w as usize, h as usize);
    Ok(Array2::from_shape_vec((h, w), unpacked(&packed, w, bits)).expect("h lines of w values"))
}

/// Writers pack palettes of few colours into less than 8 bits; the indices are no less clear for it. Grey of few
/// bits is another matter: readers disagree on whether it is to be scaled.
fn is_index(colour: ColorType, bits: BitDepth) -> bool {
    match colour {
        ColorType::Grayscale => bits == BitDepth::Eight,
        ColorType::Indexed => true,
        _ => false,
    }
}

fn kind(colour: ColorType, bits: BitDepth) -> String {
    let colour = match colour {
        ColorType::Grayscale => "grey",
        ColorType::GrayscaleAlpha => "grey-alpha",
        ColorType::Rgb => "RGB",
        ColorType::Rgba => "RGBA",
        ColorType::Indexed => "palette",
    };
    let bits = bits as u8;
    let article = if bits == 8 { "an" } else { "a" };
    format!("{article} {bits}-bit {colour} PNG")
}

/// The lines as stored, each filled up to whole bytes.
fn frame(decoder: Decoder<Cursor<&[u8]>>) -> std::result::Result<Vec<u8>, String> {
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let length = reader.output_buffer_size().ok_or("it does not fit into memory")?;
    let mut lines = vec![0; length];
    reader.next_frame(&mut lines).map_err(|e| e.to_string())?;
    Ok(lines)
}

/// One value per byte.
fn unpacked(lines: &[u8], w: usize, bits: BitDepth) -> Vec<u8> {
    let bits = bits as usize;
    if bits == 8 {
        return lines.to_vec();
    }
    let (per_byte, mask) = (8 / bits, (1u8 << bits) - 1);
    let value = |line: &[u8], x: usize| line[x / per_byte] >> (8 - bits * (x % per_byte + 1)) & mask;
    lines.chunks_exact(w.div_ceil(per_byte)).flat_map(|line| (0..w).map(move |x| value(line, x))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ndarray::array;

    use super::*;

    /// `label.png` in `folder`, of classes 0, 1 and 2.
    fn read_from(folder: &Path, void: Option<u8>) -> Result<Array2<u8>> {
        let file = Listed { path: "label.png".into(), bytes: 5, tag: None };
        read_label(&Source::local(folder), &file, 3, void)
    }

    /// Writes `lines` as a PNG of `w` columns.
    fn write(path: &Path, w: u32, colour: ColorType, bits: BitDepth, lines: &[u8]) {
        let samples = match colour {
            ColorType::Grayscale | ColorType::Indexed => 1,
            ColorType::GrayscaleAlpha => 2,
            ColorType::Rgb => 3,
            ColorType::Rgba => 4,
        };
        let line = (w as usize * samples * bits as usize).div_ceil(8);
        let file = std::fs::File::create(path).unwrap();
        let mut encoder = png::Encoder::new(file, w, (lines.len() / line) as u32);
        encoder.set_color(colour);
        encoder.set_depth(bits);
        if colour == ColorType::Indexed {
            encoder.set_palette([9, 9, 9].repeat(4)); // all alike: only the index can tell
        }
        encoder.write_header().unwrap().write_image_data(lines).unwrap();
    }

    fn read(colour: ColorType, bits: BitDepth, w: u32, lines: &[u8]) -> Result<Array2<u8>> {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("label.png"), w, colour, bits, lines);
        read_from(folder.path(), Some(7))
    }

    #[test]
    fn stored_values_are_classes() {
        let expected = array![[0, 1, 2], [2, 1, 0]];
        let lines = [0, 1, 2, 2, 1, 0];
        assert_eq!(read(ColorType::Grayscale, BitDepth::Eight, 3, &lines).unwrap(), expected);
        assert_eq!(read(ColorType::Indexed, BitDepth::Eight, 3, &lines).unwrap(), expected);
        assert_eq!(read(ColorType::Indexed, BitDepth::Four, 3, &[0x01, 0x20, 0x21, 0x00]).unwrap(), expected);
        let two = [0b00_01_10_00, 0b10_01_00_00];
        assert_eq!(read(ColorType::Indexed, BitDepth::Two, 3, &two).unwrap(), expected);
    }

    #[test]
    fn void_and_255_are_ignored() {
        let label = read(ColorType::Grayscale, BitDepth::Eight, 3, &[7, 255, 1]).unwrap();
        assert_eq!(label, array![[255, 255, 1]]);
    }

    #[test]
    fn a_value_that_is_no_class_is_named_with_its_place() {
        let error = read(ColorType::Grayscale, BitDepth::Eight, 3, &[0, 1, 2, 0, 3, 9]).unwrap_err();
        assert!(error.is_sample());
        let text = error.to_string();
        assert!(text.contains("label.png holds 3 at x 1, y 1; expected a class below 3, 7 or 255"), "{text}");
    }

    #[test]
    fn other_pixels_are_refused_by_kind() {
        use BitDepth::{Eight, Four, Sixteen};
        let cases = [
            (ColorType::Grayscale, Sixteen, "a 16-bit grey PNG"),
            (ColorType::Grayscale, Four, "a 4-bit grey PNG"),
            (ColorType::GrayscaleAlpha, Eight, "an 8-bit grey-alpha PNG"),
            (ColorType::Rgb, Eight, "an 8-bit RGB PNG"),
            (ColorType::Rgb, Sixteen, "a 16-bit RGB PNG"),
            (ColorType::Rgba, Eight, "an 8-bit RGBA PNG"),
        ];
        for (colour, bits, found) in cases {
            // One pixel a line; 64 bytes are whole lines of any kind but RGB.
            let bytes = if colour == ColorType::Rgb { 60 } else { 64 };
            let error = read(colour, bits, 1, &vec![0; bytes]).unwrap_err();
            assert!(error.is_sample());
            let text = error.to_string();
            assert!(text.contains(&format!("label.png is {found}; expected an 8-bit grey")), "{text}");
        }
    }

    #[test]
    fn files_that_are_no_whole_png_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("label.png");
        write(&path, 40, ColorType::Grayscale, BitDepth::Eight, &[1; 1600]);
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 20, bytes.len() / 2, bytes.len() - 20] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let error = read_from(folder.path(), None).unwrap_err();
            assert!(error.is_sample() && error.to_string().contains("label.png"), "{error}");
        }
        std::fs::write(&path, b"\xff\xd8\xff\xe0").unwrap();
        assert!(read_from(folder.path(), None).unwrap_err().to_string().contains("is not a PNG file"));
    }
}
