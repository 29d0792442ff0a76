//! The golden activation: what the backbone made of one known picture when the cache was begun.
//!
//! The key says which weights and which settings were *named*; the golden activation is what they *computed*.
//! Whoever joins or reads the cache with a backbone of its own can compare, and a backbone that computes
//! something else is refused, whatever the reason. A few tokens are enough for that.

use ndarray::ArrayView2;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Tokens kept by [`GoldenActivation::from_tokens`].
const KEPT: usize = 16;

/// Patch tokens of one known picture.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct GoldenActivation {
    /// `[n, d]`, row-major. In JSON: hex of the little-endian f32 values.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub tokens: Vec<f32>,
    /// `[n, d]`.
    pub shape: [usize; 2],
}

impl GoldenActivation {
    /// Largest deviation, relative to the largest value, at which two activations count as the same: room for
    /// another device or half precision, none for other weights.
    pub const TOLERANCE: f32 = 2e-3;

    /// Keeps at most 16 evenly spaced rows of `tokens`, `[t, d]`, so that the manifest stays small.
    #[must_use]
    pub fn from_tokens(tokens: ArrayView2<'_, f32>) -> Self {
        let rows = tokens.nrows();
        let kept = rows.min(KEPT);
        let picked = (0..kept).flat_map(|i| tokens.row(i * rows / kept).to_vec()); // [n, d]
        Self { tokens: picked.collect(), shape: [kept, tokens.ncols()] }
    }

    /// That of features which no backbone computes, because they were projected afterwards: it agrees with none.
    #[must_use]
    pub fn absent() -> Self {
        Self { tokens: Vec::new(), shape: [0, 0] }
    }

    /// `max |a - b| / max |a|`; infinite if the shapes differ or a value is no number.
    #[must_use]
    pub fn deviation(&self, other: &Self) -> f32 {
        if self.shape != other.shape || self.tokens.len() != other.tokens.len() {
            return f32::INFINITY;
        }
        let mut largest = 0f32;
        let mut apart = 0f32;
        for (a, b) in self.tokens.iter().zip(&other.tokens) {
            if !a.is_finite() || !b.is_finite() {
                return f32::INFINITY;
            }
            largest = largest.max(a.abs());
            apart = apart.max((a - b).abs());
        }
        if apart == 0.0 { 0.0 } else { apart / largest }
    }

    /// Whether the deviation is at most `tolerance`, e.g. [`Self::TOLERANCE`].
    ///
    /// ```
    /// use featcache::GoldenActivation;
    /// let a = GoldenActivation { tokens: vec![1.0, -2.0], shape: [1, 2] };
    /// let b = GoldenActivation { tokens: vec![1.0, -2.002], shape: [1, 2] };
    /// assert!(a.agrees(&b, 2e-3) && !a.agrees(&b, 5e-4));
    /// ```
    #[must_use]
    pub fn agrees(&self, other: &Self, tolerance: f32) -> bool {
        self.deviation(other) <= tolerance
    }
}

fn to_hex<S: Serializer>(tokens: &[f32], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = tokens.iter().flat_map(|value| value.to_le_bytes());
    serializer.serialize_str(&bytes.map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let (numbers, rest) = text.as_bytes().as_chunks::<8>();
    if !rest.is_empty() {
        return Err(D::Error::custom("golden tokens: the hex text does not hold whole numbers"));
    }
    let number = |digits: &[u8; 8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        let bits = u32::from_str_radix(digits, 16).ok()?;
        Some(f32::from_bits(bits.swap_bytes()))
    };
    let tokens: Option<Vec<f32>> = numbers.iter().map(number).collect();
    tokens.ok_or_else(|| D::Error::custom("golden tokens: not a hex text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn json_keeps_every_bit() {
        let golden = GoldenActivation { tokens: vec![1.5, -0.1, f32::MIN_POSITIVE / 3.0], shape: [1, 3] };
        let text = serde_json::to_string(&golden).unwrap();
        assert!(text.contains("0000c03f"), "{text}");
        assert_eq!(serde_json::from_str::<GoldenActivation>(&text).unwrap(), golden);
        for broken in ["0000c0", "zz00c03f"] {
            let text = format!("{{\"tokens\":\"{broken}\",\"shape\":[1,1]}}");
            assert!(serde_json::from_str::<GoldenActivation>(&text).is_err());
        }
    }

    #[test]
    fn evenly_spaced_rows_are_kept() {
        let tokens = Array2::from_shape_fn((784, 2), |(row, column)| (10 * row + column) as f32);
        let golden = GoldenActivation::from_tokens(tokens.view());
        assert_eq!(golden.shape, [16, 2]);
        assert_eq!(golden.tokens[..4], [0.0, 1.0, 490.0, 491.0]);
        let few = GoldenActivation::from_tokens(tokens.slice(ndarray::s![..3, ..]));
        assert_eq!((few.shape, few.tokens), ([3, 2], vec![0.0, 1.0, 10.0, 11.0, 20.0, 21.0]));
    }

    #[test]
    fn an_absent_one_agrees_with_nothing_but_itself() {
        let absent = GoldenActivation::absent();
        let some = GoldenActivation { tokens: vec![1.0], shape: [1, 1] };
        assert!(absent.agrees(&absent, 0.0) && !absent.agrees(&some, 1e9) && !some.agrees(&absent, 1e9));
        let text = serde_json::to_string(&absent).unwrap();
        assert_eq!(serde_json::from_str::<GoldenActivation>(&text).unwrap(), absent);
    }

    #[test]
    fn other_shapes_and_nan_never_agree() {
        let a = GoldenActivation { tokens: vec![1.0, 2.0], shape: [1, 2] };
        let turned = GoldenActivation { shape: [2, 1], ..a.clone() };
        let broken = GoldenActivation { tokens: vec![1.0, f32::NAN], shape: [1, 2] };
        assert!(a.agrees(&a, 0.0));
        assert!(!a.agrees(&turned, 1e9) && !a.agrees(&broken, 1e9) && !broken.agrees(&broken, 1e9));
    }
}
