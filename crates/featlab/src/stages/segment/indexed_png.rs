//! Label maps as PNG files of one byte a pixel with a palette: numbers to programs, colours to eyes.

use anyhow::Result;
use ndarray::ArrayView2;
use png::{BitDepth, ColorType, Encoder};
use segment::Palette;

/// The file of a label map `[h, w]`. Labels without a colour, as those to ignore, are black.
///
/// # Errors
/// If the encoder refuses.
pub(super) fn indexed_png(labels: ArrayView2<'_, u8>, palette: &Palette) -> Result<Vec<u8>> {
    let (h, w) = labels.dim();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, u32::try_from(w)?, u32::try_from(h)?);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    let colours = (0..=u8::MAX).flat_map(|label| palette.colour(label).unwrap_or_default());
    encoder.set_palette(colours.collect::<Vec<u8>>());
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&labels.iter().copied().collect::<Vec<u8>>())?;
    writer.finish()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_back_with_their_colours() {
        let labels = ndarray::array![[0, 1, 255], [1, 1, 0]];
        let file = indexed_png(labels.view(), &Palette::new(vec![[9, 8, 7], [1, 2, 3]])).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [0, 1, 255, 1, 1, 0]);
        let palette = reader.info().palette.as_ref().unwrap();
        assert_eq!((&palette[..6], &palette[3 * 255..]), (&[9, 8, 7, 1, 2, 3][..], &[0, 0, 0][..]));
    }
}
