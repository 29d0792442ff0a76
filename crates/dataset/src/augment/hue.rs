//! Turning the hue of 8-bit pixels, bit for bit as torchvision does it with Pillow's 8-bit hue, saturation and value.
//!
//! A full turn is 256 steps that wrap, although the conversion spreads the circle over 0 to 255. Both conversions cut to 8
//! bits, so that turning by nothing still changes pixels a little. Where Pillow computes in single and where in double
//! precision decides on last bits, and is kept.

use ndarray::Array3;

use super::colour::bytes;

/// Turns the hue of `[h, w, 3]` by `factor` of a full turn, from −½ to ½.
///
/// # Panics
/// If the image has not 3 channels.
pub fn adjust_hue(image: &mut Array3<u8>, factor: f64) {
    let shift = (factor * 255.0) as i32 as u8;
    let sectors: [Sector; 256] = std::array::from_fn(|hue| Sector::of(hue as u8));
    let (pixels, _) = bytes(image).as_chunks_mut::<3>();
    for pixel in pixels {
        let (hue, saturation, value) = hsv(*pixel);
        *pixel = sectors[usize::from(hue.wrapping_add(shift))].rgb(saturation, value);
    }
}

/// Hue, saturation and value; hue and saturation are rounded down.
fn hsv([r, g, b]: [u8; 3]) -> (u8, u8, u8) {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return (0, 0, most);
    }
    let range = f32::from(most - least);
    let below = |byte: u8| f32::from(most - byte) / range;
    let wide = |byte: u8| f64::from(below(byte));
    let sixth = if r == most {
        below(b) - below(g)
    } else if g == most {
        (2.0 + wide(r) - wide(b)) as f32
    } else {
        (4.0 + wide(g) - wide(r)) as f32
    };
    let turn = f64::from(sixth) / 6.0 + 1.0;
    let hue = if turn < 1.0 { turn } else { turn - 1.0 } as f32;
    let saturation = range / f32::from(most);
    ((f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, most)
}

/// Where on the circle a hue lies: in which of six parts, and how far into it.
#[derive(Clone, Copy)]
struct Sector {
    number: u8,
    into: f32,
}

impl Sector {
    fn of(hue: u8) -> Self {
        let sixths = f64::from(hue) * 6.0 / 255.0;
        Self { number: sixths as u8 % 6, into: (sixths - sixths.floor()) as f32 }
    }

    /// The colour of this hue.
    fn rgb(self, saturation: u8, value: u8) -> [u8; 3] {
        let (share, v) = (f32::from(saturation) / 255.0, value);
        let darker = |by: f64| (f64::from(v) * (1.0 - by)).round() as u8;
        let least = || darker(share.into());
        let falling = || darker((share * self.into).into());
        let rising = || darker(f64::from(share) * (1.0 - f64::from(self.into)));
        match self.number {
            _ if saturation == 0 => [v; 3],
            0 => [v, rising(), least()],
            1 => [falling(), v, least()],
            2 => [least(), v, rising()],
            3 => [least(), falling(), v],
            4 => [rising(), least(), v],
            _ => [v, least(), falling()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turned(pixel: [u8; 3], factor: f64) -> [u8; 3] {
        let mut image = Array3::from_shape_vec((1, 1, 3), pixel.to_vec()).unwrap();
        adjust_hue(&mut image, factor);
        [image[[0, 0, 0]], image[[0, 0, 1]], image[[0, 0, 2]]]
    }

    #[test]
    fn a_third_of_a_turn_moves_the_primaries_on() {
        assert_eq!(turned([255, 0, 0], 1.0 / 3.0), [0, 255, 0]);
        assert_eq!(turned([0, 255, 0], 1.0 / 3.0), [0, 0, 255]);
    }

    #[test]
    fn greys_have_no_hue_to_turn() {
        for grey in 0..=255 {
            assert_eq!(turned([grey; 3], 0.3), [grey; 3]);
        }
    }

    #[test]
    fn the_brightest_channel_keeps_its_value() {
        for pixel in [[9, 200, 31], [250, 249, 1], [0, 1, 2], [17, 17, 99]] {
            for factor in [-0.5, -0.1, 0.0, 0.02, 0.5] {
                assert_eq!(turned(pixel, factor).iter().max(), pixel.iter().max(), "{pixel:?} {factor}");
            }
        }
    }
}
