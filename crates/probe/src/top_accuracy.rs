//! Top-1 and top-5 accuracy: how often the right class is the first, or one of the first five, that is named.

/// Classes that are looked at: the five best.
pub(crate) const TOP: usize = 5;

/// Fractions of images, in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopAccuracy {
    /// The best class is right.
    pub top1: f64,
    /// One of the best five classes is right.
    pub top5: f64,
}

impl TopAccuracy {
    /// From the place, from 0, of the right class in every image's ranking; `None` where it is not in it.
    ///
    /// Without images both are NaN.
    pub(crate) fn from_places(places: impl IntoIterator<Item = Option<usize>>) -> Self {
        let (mut n, mut first, mut five) = (0_usize, 0_usize, 0_usize);
        for place in places {
            n += 1;
            first += usize::from(place == Some(0));
            five += usize::from(place.is_some_and(|place| place < TOP));
        }
        Self { top1: first as f64 / n as f64, top5: five as f64 / n as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted() {
        let accuracy = TopAccuracy::from_places([Some(0), Some(4), Some(5), None]);
        assert_eq!(accuracy, TopAccuracy { top1: 0.25, top5: 0.5 });
    }
}
