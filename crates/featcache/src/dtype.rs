//! Number formats of stored features, and the conversion between them and `f32`.
//!
//! Values lie little-endian and row-major. Rounding is to nearest, ties to even; a value that would round
//! to infinity is refused instead. The slice conversions of `half` use the processor's f16 instructions
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
}

impl Dtype {
    /// Bytes per value.
    #[must_use]
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Appends `values` to `out`; the first value that has no finite form here is the error.
    pub(crate) fn encode(self, values: &[f32], out: &mut Vec<u8>) -> std::result::Result<(), f32> {
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
        };
        block.iter().copied().find(|&value| lost(value)).unwrap_or(f32::NAN)
    }

    /// Widens `bytes` into `out`, which must hold exactly as many values.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut [f32]) {
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
            _ => Err(Error::InvalidOption {
                option: "dtype",
                reason: format!("is {text:?}, expected f32, f16 or bf16"),
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
        assert!("int8".parse::<Dtype>().unwrap_err().is_usage());
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
}
