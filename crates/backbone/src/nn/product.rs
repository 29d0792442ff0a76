//! The matrix product of tensors that are not in panels.

use candle_core::{DType, Tensor};

use crate::Result;

/// `a b`, `[.., m, k] x [.., k, n] -> [.., m, n]`, in the type of both; sums are 32-bit and rounded once.
///
/// With CUDA that is what candle asks of cuBLAS for half types (`CUBLAS_COMPUTE_32F` in candle-core's
/// `cuda_backend/mod.rs`, as long as nobody asks for reduced precision). candle's product on the CPU knows no `bf16`, so there
/// half types are widened first.
pub(super) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.device().is_cpu() && a.dtype() != DType::F32 {
        let wide = |x: &Tensor| x.to_dtype(DType::F32);
        return Ok(wide(a)?.matmul(&wide(b)?)?.to_dtype(a.dtype())?);
    }
    Ok(a.matmul(b)?)
}
