//! The number type that a backbone computes in.
//!
//! In half precision linear layers and attention have this type: their weights, inputs and outputs. The residual stream, norms,
//! softmax, rotations, the sums inside of matrix products and everything that is handed out are 32-bit all the same. By the
//! bytes that are moved that costs little, and a residual stream in half precision makes features of large networks deviate
//! more than twice as much.
//! Greatest `1 - cos` of a patch token of the last block to the same in `f32`, at 224 px, computed on the CPU:
//!
//! | weights | `f16` | `bf16` | `f16`, residual stream too | `bf16`, residual stream too |
//! |---|---|---|---|---|
//! | `random:vit_small_patch8:0` | 3.9e-7 | 2.8e-5 | 1.3e-6 | 8.0e-5 |
//! | `random:vit_base_patch16:0` | 4.9e-7 | 3.2e-5 | 1.2e-6 | 7.4e-5 |
//! | `random:dinov3_small_patch16:0` | 3.2e-7 | 2.0e-5 | 1.0e-6 | 6.4e-5 |
//! | `embedded:scenes-micro`, at 96 px | 7.2e-7 | 6.3e-5 | 7.4e-7 | 1.0e-4 |
//!
//! Hence `f16` where there is a choice: its error is the rounding of a cache in `f16`. Its range ends at 65504, which matters
//! little where the residual stream is 32-bit; `bf16` is for a network that reaches beyond all the same. Its features are up
//! to 0.8 % of the largest value off those in `f32`, where `f16` is off by 0.1 % and a cache's golden activation allows 0.2 %: two
//! different devices may refuse to add to each other's caches in `bf16`.
//!
//! Half precision is another network in the last places, so [`BackboneSpec::architecture`](crate::BackboneSpec::architecture)
//! names it, and features of different precision are never taken for one another. It is for GPUs; a CPU does it
//! slower than 32-bit, but rounds where a GPU rounds, so that what a GPU computed can be checked and mended without one.

use std::fmt;

use candle_core::{DType, Device};

use crate::{Error, Result};

/// The number type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits: the range of `f32`, 8 bits of precision. With CUDA it needs compute capability 8.0 or later.
    Bf16,
    /// 16 bits: 11 bits of precision, nothing above 65504.
    F16,
}

impl Precision {
    /// All of them.
    const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// The precision of a name, `f32`, `bf16` or `f16`; `auto` is what suits the device: `f32` on a CPU, `f16` on a GPU.
    ///
    /// # Errors
    /// [`Error::Precision`] if the name is unknown.
    ///
    /// ```
    /// use backbone::{Precision, device};
    /// assert_eq!(Precision::of("auto", &device("cpu")?)?, Precision::F32);
    /// assert_eq!(Precision::of("bf16", &device("cpu")?)?.to_string(), "bf16");
    /// # Ok::<(), backbone::Error>(())
    /// ```
    pub fn of(choice: &str, device: &Device) -> Result<Self> {
        if choice == "auto" {
            return Ok(match device {
                Device::Cpu => Self::F32,
                Device::Cuda(_) | Device::Metal(_) => Self::F16,
            });
        }
        let known = Self::ALL.into_iter().find(|one| one.to_string() == choice);
        known.ok_or_else(|| Error::Precision(choice.to_owned()))
    }

    /// The precision that an [`architecture`](crate::BackboneSpec::architecture) names.
    ///
    /// ```
    /// use backbone::Precision;
    /// assert_eq!(Precision::of_architecture("vit_small_patch8_f16"), Precision::F16);
    /// assert_eq!(Precision::of_architecture("vit_small_patch8"), Precision::F32);
    /// ```
    #[must_use]
    pub fn of_architecture(architecture: &str) -> Self {
        let named = |one: &Self| *one != Self::F32 && architecture.ends_with(&suffix(one.dtype()));
        Self::ALL.into_iter().find(named).unwrap_or_default()
    }

    /// As candle has it.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// What the type of the weights adds to the name of an architecture.
pub(crate) fn suffix(dtype: DType) -> String {
    match dtype {
        DType::F32 => String::new(),
        other => format!("_{}", other.as_str()),
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.dtype().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_strictly() {
        for (name, one) in [("f32", Precision::F32), ("bf16", Precision::Bf16), ("f16", Precision::F16)] {
            assert_eq!(Precision::of(name, &Device::Cpu).unwrap(), one);
            assert_eq!(one.to_string(), name);
        }
        assert_eq!(Precision::of("auto", &Device::Cpu).unwrap(), Precision::default());
        for bad in ["", "half", "F16", "f64", "fp16", "auto "] {
            let error = Precision::of(bad, &Device::Cpu).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(&format!("\"{bad}\"")), "{error}");
        }
    }
}
