//! Whether a JPEG file goes on to its end.
//!
//! The decoder fills what a cut-off file lacks with grey and reports success; features of that would be wrong
//! without a word. So the file's markers are walked here: a whole file reaches "end of image" (`FF D9`). Bytes after it are
//! allowed, as some cameras append data. This does not decode or validate anything else.

const END_OF_IMAGE: u8 = 0xD9;

/// Whether `bytes`, a JPEG file, holds its end-of-image marker.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        // Entropy-coded data has no 0xFF that is not followed by a zero or a restart marker.
        let Some(mark) = rest.iter().position(|&byte| byte == 0xFF) else { return false };
        rest = &rest[mark + 1..];
        rest = match rest {
            [END_OF_IMAGE, ..] => return true,
            // Padding before a marker.
            [0xFF, ..] => rest,
            // A stuffed zero, or a marker without parameters: TEM, restarts, start of image.
            [0x00 | 0x01 | 0xD0..=0xD8, after @ ..] => after,
            // A segment: two bytes of length, which count themselves.
            [_, high, low, ..] => match rest.get(1 + usize::from(u16::from_be_bytes([*high, *low]))..) {
                Some(after) => after,
                None => return false,
            },
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_marker_outside_of_segments_counts() {
        // start, a comment that holds FF D9, entropy-coded data with a stuffed zero and a restart, end.
        let whole = [0xFF, 0xD8, 0xFF, 0xFE, 0, 4, 0xFF, 0xD9, 7, 0xFF, 0, 0xFF, 0xD0, 8, 0xFF, 0xFF, 0xD9];
        assert!(is_whole(&whole));
        for length in 0..whole.len() {
            assert!(!is_whole(&whole[..length]), "{length}");
        }
        assert!(is_whole(&[&whole[..], b"appended"].concat()));
    }

    #[test]
    fn every_prefix_of_a_real_file_is_cut_off() {
        let picture = image::RgbImage::from_fn(40, 24, |x, y| image::Rgb([x as u8 * 6, y as u8 * 10, 99]));
        let mut file = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut file, image::ImageFormat::Jpeg).unwrap();
        let bytes = file.into_inner();
        assert!(is_whole(&bytes));
        assert!((0..bytes.len()).all(|length| !is_whole(&bytes[..length])));
    }
}
