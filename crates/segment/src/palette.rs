//! One colour per label.
//!
//! The Pascal map spreads the bits of a label over the three channels, the lowest into the most
//! significant: bit `k` of channel `c` is bit `3 (7 - k) + c` of the label. So neighbouring labels have
//! far colours, and the first `n` colours are the same for any `n`.

/// Colours of the labels `0, 1, …`, as red, green and blue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Palette(Vec<[u8; 3]>);

impl Palette {
    /// A palette of these colours; label `i` has the colour `colours[i]`.
    pub fn new(colours: Vec<[u8; 3]>) -> Self {
        Self(colours)
    }

    /// The first `n` colours of the Pascal VOC map.
    ///
    /// ```
    /// let palette = segment::Palette::pascal(21);
    /// assert_eq!(palette.colour(15), Some([192, 128, 128])); // person
    /// ```
    pub fn pascal(n: usize) -> Self {
        Self((0..n).map(pascal_colour).collect())
    }

    /// The colour of a label, if it has one.
    pub fn colour(&self, label: u8) -> Option<[u8; 3]> {
        self.0.get(usize::from(label)).copied()
    }

    /// Number of colours.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no colour.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn pascal_colour(label: usize) -> [u8; 3] {
    std::array::from_fn(|c| (0..8).fold(0, |value, k| value | ((label >> (3 * (7 - k) + c) & 1) as u8) << k))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pascal_is_the_published_map() {
        let Palette(colours) = Palette::pascal(256);
        assert_eq!(
            colours[..9],
            [
                [0, 0, 0],
                [128, 0, 0],
                [0, 128, 0],
                [128, 128, 0],
                [0, 0, 128],
                [128, 0, 128],
                [0, 128, 128],
                [128, 128, 128],
                [64, 0, 0],
            ]
        );
        assert_eq!(colours[20], [0, 64, 128]);
        assert_eq!(colours[255], [224, 224, 192]);
    }

    #[test]
    fn labels_beyond_the_palette_have_no_colour() {
        let palette = Palette::new(vec![[1, 2, 3]]);
        assert_eq!((palette.colour(0), palette.colour(1)), (Some([1, 2, 3]), None));
        assert_eq!((palette.len(), palette.is_empty()), (1, false));
        assert!(Palette::pascal(0).is_empty());
    }
}
