//! From a fraction to a colour: the map *inferno*, black over red to pale yellow, in which equal steps look equal.
//!
//! The table holds every fifth of matplotlib's 256 colours (version 3.11); between them it is linear, which is nowhere
//! more than one level off.

/// Colours at the fractions `0, 1/51, …, 1`.
const INFERNO: [[u8; 3]; 52] = [
    [0, 0, 3],
    [1, 1, 11],
    [4, 3, 22],
    [9, 6, 33],
    [15, 9, 45],
    [22, 11, 57],
    [29, 12, 69],
    [38, 11, 80],
    [46, 10, 90],
    [55, 9, 97],
    [64, 9, 102],
    [72, 11, 106],
    [80, 13, 108],
    [88, 16, 109],
    [96, 19, 110],
    [104, 22, 110],
    [112, 25, 110],
    [120, 28, 109],
    [128, 31, 107],
    [136, 33, 106],
    [144, 36, 104],
    [152, 39, 101],
    [160, 42, 98],
    [167, 45, 95],
    [175, 49, 91],
    [183, 52, 86],
    [190, 56, 82],
    [197, 61, 77],
    [204, 65, 72],
    [210, 71, 66],
    [217, 77, 61],
    [222, 83, 55],
    [228, 90, 49],
    [232, 97, 43],
    [237, 104, 37],
    [240, 112, 30],
    [243, 121, 24],
    [246, 129, 17],
    [248, 138, 11],
    [250, 147, 6],
    [251, 157, 6],
    [251, 166, 11],
    [251, 176, 20],
    [251, 185, 30],
    [249, 195, 42],
    [248, 205, 55],
    [245, 215, 69],
    [243, 224, 86],
    [241, 233, 104],
    [241, 242, 125],
    [245, 248, 145],
    [252, 254, 164],
];

/// The colour of a fraction; fractions beyond 0 and 1 have the colours of the ends, NaN that of 0.
///
/// ```
/// assert_eq!(segment::inferno(0.0), [0, 0, 3]);
/// assert_eq!(segment::inferno(1.0), [252, 254, 164]);
/// ```
pub fn inferno(fraction: f32) -> [u8; 3] {
    let at = if fraction > 0.0 { fraction.min(1.0) * (INFERNO.len() - 1) as f32 } else { 0.0 };
    let low = (at as usize).min(INFERNO.len() - 2);
    let share = at - low as f32;
    std::array::from_fn(|channel| {
        let [a, b] = [INFERNO[low][channel], INFERNO[low + 1][channel]].map(f32::from);
        (a + (b - a) * share).round() as u8
    })
}

/// `n` bright colours of evenly spaced hues, red first.
pub(crate) fn hues(n: usize) -> Vec<[u8; 3]> {
    (0..n).map(|i| hue(i as f32 / n as f32)).collect()
}

/// The pure colour of a hue from 0 (red) over 1/3 (green) and 2/3 (blue) to 1 (red again).
fn hue(hue: f32) -> [u8; 3] {
    let channel = |center: f32| {
        let distance = (hue - center).abs().min(1.0 - (hue - center).abs());
        (255.0 * (2.0 - 6.0 * distance).clamp(0.0, 1.0)).round() as u8
    };
    [channel(0.0), channel(1.0 / 3.0), channel(2.0 / 3.0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_between_the_anchors_are_the_published_ones() {
        // Levels of matplotlib's table that are no anchors, and the colours there.
        for (level, published) in PUBLISHED {
            let ours = inferno(f32::from(level) / 255.0);
            assert!(ours.iter().zip(published).all(|(a, b)| a.abs_diff(b) <= 1), "{level}: {ours:?}");
        }
    }

    const PUBLISHED: [(u8, [u8; 3]); 6] = [
        (3, [1, 0, 7]),
        (57, [75, 12, 107]),
        (101, [145, 37, 103]),
        (148, [214, 74, 63]),
        (202, [251, 160, 7]),
        (253, [249, 252, 157]),
    ];

    #[test]
    fn it_becomes_lighter_all_the_way() {
        let light =
            |[r, g, b]: [u8; 3]| 0.2126 * f32::from(r) + 0.7152 * f32::from(g) + 0.0722 * f32::from(b);
        let lights: Vec<f32> = (0..=51).map(|i| light(inferno(i as f32 / 51.0))).collect();
        assert!(lights.windows(2).all(|pair| pair[0] < pair[1]), "{lights:?}");
    }

    #[test]
    fn anything_has_a_colour() {
        for (odd, like) in [(-1.0, 0.0), (7.0, 1.0), (f32::NAN, 0.0), (f32::INFINITY, 1.0)] {
            assert_eq!(inferno(odd), inferno(like));
        }
    }

    #[test]
    fn hues_are_spread() {
        assert_eq!(hues(3), [[255, 0, 0], [0, 255, 0], [0, 0, 255]]);
        assert_eq!(hues(6)[1], [255, 255, 0]);
        let mut many = hues(12);
        many.sort_unstable();
        many.dedup();
        assert_eq!(many.len(), 12);
    }
}
