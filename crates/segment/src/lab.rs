//! From red, green and blue to CIE L*a*b*, in which distances are about what the eye sees.
//!
//! Bytes are sRGB (IEC 61966-2-1): linear light `v / 12.92` up to 0.04045, `((v + 0.055) / 1.055)^2.4` above; then XYZ of the standard's
//! primaries, over the white of daylight D65 (observer of 2°); then `L = 116 f(y) - 16`, `a = 500 (f(x) - f(y))`, `b = 200 (f(y) - f(z))` with the cube root
//! `f`, straight below `(6/29)³`.

const TO_XYZ: [[f64; 3]; 3] =
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]];
const WHITE: [f64; 3] = [0.95047, 1.0, 1.08883];

/// Lightness 0 to 100, then green to red and blue to yellow, about -128 to 127 each.
///
/// ```
/// let [lightness, a, b] = segment::lab([255, 255, 255]);
/// assert!((lightness - 100.0).abs() < 1e-3 && a.abs() < 0.01 && b.abs() < 0.02);
/// ```
#[must_use]
pub fn lab(rgb: [u8; 3]) -> [f32; 3] {
    let linear = rgb.map(|byte| {
        let value = f64::from(byte) / 255.0;
        if value > 0.04045 { ((value + 0.055) / 1.055).powf(2.4) } else { value / 12.92 }
    });
    let mut xyz = [0.0; 3];
    for ((to, row), white) in xyz.iter_mut().zip(TO_XYZ).zip(WHITE) {
        let sum: f64 = row.iter().zip(linear).map(|(weight, light)| weight * light).sum();
        *to = f(sum / white);
    }
    let [x, y, z] = xyz;
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)].map(|value| value as f32)
}

fn f(t: f64) -> f64 {
    const KNEE: f64 = 6.0 / 29.0;
    if t > KNEE.powi(3) { t.cbrt() } else { t / (3.0 * KNEE * KNEE) + 4.0 / 29.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours() {
        // scikit-image's rgb2lab.
        for (rgb, want) in [
            ([255, 0, 0], [53.2406, 80.0924, 67.2028]),
            ([0, 255, 0], [87.7351, -86.1813, 83.1795]),
            ([0, 0, 255], [32.2957, 79.1870, -107.8618]),
            ([0, 0, 0], [0.0, 0.0, 0.0]),
            ([255, 255, 255], [100.0, -0.0025, 0.0047]),
        ] {
            for (got, want) in lab(rgb).into_iter().zip(want) {
                assert!((got - want).abs() < 0.02, "{rgb:?}: {:?}", lab(rgb));
            }
        }
    }

    #[test]
    fn greys_have_no_colour_and_rise() {
        let greys: Vec<_> = (0..=255).map(|value| lab([value; 3])).collect();
        assert!(greys.iter().all(|[_, a, b]| a.abs() < 0.01 && b.abs() < 0.02));
        assert!(greys.windows(2).all(|pair| pair[0][0] < pair[1][0]));
    }
}
