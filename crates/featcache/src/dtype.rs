//! Number formats of stored features, and the conversion between them and `f32`.
//!
//! Values lie little-endian and row-major. Rounding is to nearest, ties to even; a value that would round
//! to infinity is refused instead. `int8` is the one format with a second part: every vector of `d` values has a scale,
//! its largest magnitude / 127 in f32, and stores `round(x / scale)`. The slice conversions of `half` use the processor's f16 instructions
//! where it has them. Subnormals are kept. This is storage only: nothing computes in f16.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Values converted at a time: small enough to stay in the first-level cache.
const BLOCK: usize = 2048;

/// Number format of the stored features.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit float: exact.
    F32,
    /// IEEE half precision: 11 significant bits, up to 65504.
    F16,
    /// bfloat16: 8 significant bits, the range of f32.
    Bf16,
    /// 8-bit integers with a scale per vector: at most half a step of 1/127 of the vector's largest value off.
    Int8,
}

impl Dtype {
    /// Bytes per value.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Whether values mean something only together with their vector's scale.
    #[must_use]
    pub fn is_scaled(self) -> bool {
        self == Self::Int8
    }

    /// `values`, vectors of `d` one after the other, as stored: their bytes and, if there are any, those of their scales.
    /// The first value that has no finite form here is the error.
    pub(crate) fn encode_vectors(
        self,
        values: &[f32],
        d: usize,
    ) -> std::result::Result<(Vec<u8>, Vec<u8>), f32> {
        let mut bytes = Vec::with_capacity(values.len() * self.size_bytes());
        if !self.is_scaled() {
            self.encode(values, &mut bytes)?;
            return Ok((bytes, Vec::new()));
        }
        let mut scales = Vec::with_capacity(values.len() / d * 4);
        for vector in values.chunks_exact(d) {
            if let Some(&value) = vector.iter().find(|value| !value.is_finite()) {
                return Err(value);
            }
            let largest = vector.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let (scale, steps) = (largest / 127.0, 127.0 / largest);
            // A vector of nothing but zeros and the tiniest numbers is stored as zeros.
            let (scale, steps) = if steps.is_finite() { (scale, steps) } else { (0.0, 0.0) };
            append(&mut bytes, vector.iter().map(|x| [((x * steps).round_ties_even() as i8) as u8]));
            scales.extend(scale.to_le_bytes());
        }
        Ok((bytes, scales))
    }

    /// The reverse of [`Self::encode_vectors`].
    pub(crate) fn decode_vectors(self, bytes: &[u8], scales: &[u8], d: usize, out: &mut [f32]) {
        if !self.is_scaled() {
            return self.decode(bytes, out);
        }
        assert_eq!(bytes.len(), out.len(), "one slot per stored value");
        let vectors = bytes.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(scales.as_chunks::<4>().0);
        for ((bytes, out), scale) in vectors {
            let scale = f32::from_le_bytes(*scale);
            for (value, &byte) in out.iter_mut().zip(bytes) {
                *value = f32::from(byte as i8) * scale;
            }
        }
    }

    /// Appends `values` to `out`; the first value that has no finite form here is the error.
    fn encode(self, values: &[f32], out: &mut Vec<u8>) -> std::result::Result<(), f32> {
        for block in values.chunks(BLOCK) {
            let finite = match self {
                Self::F32 => {
                    append(out, block.iter().map(|value| value.to_le_bytes()));
                    block.iter().all(|value| value.is_finite())
                }
                Self::F16 => {
                    let mut narrow = [f16::ZERO; BLOCK];
                    let narrow = &mut narrow[..block.len()];
                    narrow.convert_from_f32_slice(block);
                    append(out, narrow.iter().map(|value| value.to_le_bytes()));
                    narrow.iter().all(|value| value.is_finite())
                }
                Self::Bf16 => {
                    let mut narrow = [bf16::ZERO; BLOCK];
                    let narrow = &mut narrow[..block.len()];
                    narrow.convert_from_f32_slice(block);
                    append(out, narrow.iter().map(|value| value.to_le_bytes()));
                    narrow.iter().all(|value| value.is_finite())
                }
                Self::Int8 => unreachable!("has scales"),
            };
            if !finite {
                return Err(self.first_unrepresentable(block));
            }
        }
        Ok(())
    }

    fn first_unrepresentable(self, block: &[f32]) -> f32 {
        let lost = |value: f32| match self {
            Self::F32 => !value.is_finite(),
            Self::F16 => !f16::from_f32(value).is_finite(),
            Self::Bf16 => !bf16::from_f32(value).is_finite(),
            Self::Int8 => unreachable!("has scales"),
        };
        block.iter().copied().find(|&value| lost(value)).unwrap_or(f32::NAN)
    }

    /// Widens `bytes` into `out`, which must hold exactly as many values.
    fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(bytes.len(), out.len() * self.size_bytes(), "one slot per stored value");
        for (bytes, out) in bytes.chunks(BLOCK * self.size_bytes()).zip(out.chunks_mut(BLOCK)) {
            match self {
                Self::F32 => {
                    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                        *value = f32::from_le_bytes(*bytes);
                    }
                }
                Self::F16 => {
                    let mut narrow = [f16::ZERO; BLOCK];
                    for (value, bytes) in narrow.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *value = f16::from_le_bytes(*bytes);
                    }
                    narrow[..out.len()].convert_to_f32_slice(out);
                }
                Self::Bf16 => {
                    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
                    }
                }
                Self::Int8 => unreachable!("has scales"),
            }
        }
    }
}

/// Appends values of `N` bytes each; a plain loop over slots, because that becomes one wide copy.
fn append<const N: usize>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = [u8; N]>) {
    let start = out.len();
    out.resize(start + N * values.len(), 0);
    for (slot, value) in out[start..].as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *slot = value;
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::InvalidOption {
                option: "dtype",
                reason: format!("is {text:?}, expected f32, f16, bf16 or int8"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

    #[test]
    fn names_round_trip() {
        for dtype in ALL {
            assert_eq!(dtype.to_string().parse::<Dtype>().unwrap(), dtype);
            assert_eq!(serde_json::to_string(&dtype).unwrap(), format!("\"{dtype}\""));
        }
        assert_eq!("int8".parse::<Dtype>().unwrap(), Dtype::Int8);
        assert!("f8".parse::<Dtype>().unwrap_err().is_usage());
    }

    /// Longer than a block and not a multiple of anything, so that every tail is met.
    #[test]
    fn exact_values_survive() {
        let exact: Vec<f32> = (0..5003).map(|i| ((i % 255) as f32 - 127.0) / 64.0).collect();
        for dtype in ALL {
            let mut bytes = Vec::new();
            dtype.encode(&exact, &mut bytes).unwrap();
            assert_eq!(bytes.len(), exact.len() * dtype.size_bytes());
            let mut back = vec![f32::NAN; exact.len()];
            dtype.decode(&bytes, &mut back);
            assert_eq!(back, exact, "{dtype}");
        }
    }

    #[test]
    fn known_bit_patterns() {
        let cases: [(Dtype, f32, &[u8]); 6] = [
            (Dtype::F32, 1.5, &[0, 0, 0xc0, 0x3f]),
            (Dtype::F16, 1.5, &[0, 0x3e]),
            (Dtype::F16, 65504.0, &[0xff, 0x7b]),
            (Dtype::F16, 5.960_464_5e-8, &[1, 0]),
            (Dtype::Bf16, 1.5, &[0xc0, 0x3f]),
            // Exactly between two neighbours: to the even one.
            (Dtype::Bf16, 1.0 + 1.0 / 256.0, &[0x80, 0x3f]),
        ];
        for (dtype, value, expected) in cases {
            let mut bytes = Vec::new();
            dtype.encode(&[value], &mut bytes).unwrap();
            assert_eq!(bytes, expected, "{dtype} {value}");
        }
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let mut out = Vec::new();
        assert_eq!(Dtype::F16.encode(&[1.0, 70000.0], &mut out), Err(70000.0));
        assert_eq!(Dtype::F16.encode(&[65519.9], &mut out), Ok(()));
        assert_eq!(Dtype::F16.encode(&[-65520.0], &mut out), Err(-65520.0));
        assert_eq!(Dtype::Bf16.encode(&[70000.0], &mut out), Ok(()));
        assert_eq!(Dtype::Bf16.encode(&[f32::MAX], &mut out), Err(f32::MAX));
        for dtype in ALL {
            assert!(dtype.encode(&[0.0, f32::NAN], &mut out).unwrap_err().is_nan());
            assert_eq!(dtype.encode(&[f32::INFINITY], &mut out), Err(f32::INFINITY));
        }
    }

    #[test]
    fn eight_bits_keep_each_vector_to_half_a_step() {
        let d = 7;
        let values: Vec<f32> = (0..70).map(|i| ((i * 37 % 23) as f32 - 11.0) * 1.7f32.powi(i / 7)).collect();
        let (bytes, scales) = Dtype::Int8.encode_vectors(&values, d).unwrap();
        assert_eq!((bytes.len(), scales.len()), (70, 40));
        let mut back = vec![f32::NAN; 70];
        Dtype::Int8.decode_vectors(&bytes, &scales, d, &mut back);
        for (vector, back) in values.chunks(d).zip(back.chunks(d)) {
            let largest = vector.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(back.iter().any(|x| (x.abs() - largest).abs() <= largest * 1e-6), "the largest is kept");
            for (x, y) in vector.iter().zip(back) {
                assert!((x - y).abs() <= largest / 127.0 * 0.5001, "{x} {y}");
            }
        }
        let (bytes, scales) = Dtype::Int8.encode_vectors(&[0.0, 0.0, 1e-45, 0.0], 2).unwrap();
        assert_eq!((bytes, scales), (vec![0; 4], vec![0; 8]));
        assert!(Dtype::Int8.encode_vectors(&[0.0, f32::NAN], 2).unwrap_err().is_nan());
    }
}
