//! Activations between layers: the tokens of a batch of images, `[b, n, d]`, in the layout that the layers like.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, InplaceOp1, Layout, Shape, Tensor};
use kernels::{Level, PanelShape};

use super::spare;
use crate::Result;

/// The tokens of `b` images.
#[derive(Debug)]
pub(crate) struct Tokens {
    data: Data,
}

#[derive(Debug)]
enum Data {
    /// `[b, n, d]`.
    Rows(Tensor),
    /// `[b, p, d, L]` and what that means: on the CPU, in `f32`, under the kernels, and nobody else's.
    Panels(Tensor, PanelShape),
}

impl Drop for Tokens {
    fn drop(&mut self) {
        if let Data::Panels(panels, _) = &self.data {
            // All that can fail is that the buffer is not kept.
            let _ = panels.inplace_op1(&GiveBack);
        }
    }
}

/// Takes the buffer out of panels that nobody will read any more.
struct GiveBack;

impl InplaceOp1 for GiveBack {
    fn name(&self) -> &'static str {
        "give-back"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        if let CpuStorage::F32(numbers) = storage {
            spare::give_back(std::mem::take(numbers));
        }
        Ok(())
    }
}

impl Tokens {
    /// * `rows`: `[b, n, d]`; what is `f32` on the CPU is put into panels.
    pub(crate) fn new(rows: Tensor) -> Result<Self> {
        if !rows.device().is_cpu() || rows.dtype() != DType::F32 {
            return Ok(Self::in_rows(rows));
        }
        let (images, tokens, dim) = rows.dims3()?;
        let shape = PanelShape { level: Level::current(), images, tokens, dim };
        let panels = rows.contiguous()?.apply_op1_no_bwd(&Pack(shape))?;
        Ok(Self { data: Data::Panels(panels, shape) })
    }

    /// * `rows`: `[b, n, d]`, for layers under candle's operators.
    pub(super) fn in_rows(rows: Tensor) -> Self {
        Self { data: Data::Rows(rows) }
    }

    /// `[b, n, d]`.
    pub(crate) fn rows(&self) -> Result<Tensor> {
        match &self.data {
            Data::Rows(rows) => Ok(rows.clone()),
            Data::Panels(panels, shape) => Ok(panels.apply_op1_no_bwd(&Unpack(*shape))?),
        }
    }

    /// Whether these are panels.
    pub(super) fn in_panels(&self) -> bool {
        matches!(self.data, Data::Panels(..))
    }

    /// Applies an operator to the panels; `to` tells the shape of its results.
    pub(super) fn on_panels<Op: CustomOp1>(
        &self,
        to: impl FnOnce(PanelShape) -> PanelShape,
        op: impl FnOnce(PanelShape) -> Op,
    ) -> Result<Self> {
        let (panels, shape) = self.panels()?;
        Ok(Self { data: Data::Panels(panels.apply_op1_no_bwd(&op(shape))?, to(shape)) })
    }

    /// As [`Tokens::on_panels`], with a second argument in panels.
    pub(super) fn on_panels_with<Op: CustomOp2>(
        &self,
        other: &Self,
        to: impl FnOnce(PanelShape) -> PanelShape,
        op: impl FnOnce(PanelShape) -> Op,
    ) -> Result<Self> {
        let ((panels, shape), (other, _)) = (self.panels()?, other.panels()?);
        Ok(Self { data: Data::Panels(panels.apply_op2_no_bwd(other, &op(shape))?, to(shape)) })
    }

    fn panels(&self) -> Result<(&Tensor, PanelShape)> {
        match &self.data {
            Data::Panels(panels, shape) => Ok((panels, *shape)),
            Data::Rows(rows) => Err(candle_core::Error::Msg(format!(
                "a layer whose weights are f32 on the CPU was given {:?} on {:?}",
                rows.dtype(),
                rows.device().location()
            ))
            .into()),
        }
    }
}

/// The shape of a tensor that holds panels.
fn panel_dims(shape: PanelShape) -> Shape {
    (shape.images, shape.panels(), shape.dim, shape.lanes()).into()
}

/// The numbers of a contiguous tensor.
pub(super) fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let numbers: &[f32] = storage.as_slice()?;
    let (start, end) = layout.contiguous_offsets().ok_or_else(|| {
        candle_core::Error::Msg(format!("a fused layer needs contiguous tensors, got {:?}", layout.stride()))
    })?;
    Ok(&numbers[start..end])
}

/// New panels, filled by `f`, which finds any numbers in them.
pub(super) fn new_panels(
    shape: PanelShape,
    f: impl FnOnce(&mut [f32]),
) -> candle_core::Result<(CpuStorage, Shape)> {
    let mut out = spare::buffer(shape.len());
    f(&mut out);
    Ok((CpuStorage::F32(out), panel_dims(shape)))
}

/// Rows to panels.
struct Pack(PanelShape);

impl CustomOp1 for Pack {
    fn name(&self) -> &'static str {
        "pack-tokens"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let rows = numbers(storage, layout)?;
        new_panels(self.0, |panels| self.0.pack(rows, panels))
    }
}

/// Panels to rows.
struct Unpack(PanelShape);

impl CustomOp1 for Unpack {
    fn name(&self) -> &'static str {
        "unpack-tokens"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let PanelShape { images, tokens, dim, .. } = self.0;
        let mut rows = vec![0.0; images * tokens * dim];
        self.0.unpack(numbers(storage, layout)?, &mut rows);
        Ok((CpuStorage::F32(rows), (images, tokens, dim).into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_come_back_from_panels_and_other_types_stay_rows() {
        let values: Vec<f32> = (0..3 * 37 * 5).map(|i| i as f32).collect();
        let rows = Tensor::from_vec(values, (3, 37, 5), &Device::Cpu).unwrap();
        let tokens = Tokens::new(rows.clone()).unwrap();
        assert!(tokens.in_panels());
        let back = tokens.rows().unwrap();
        assert_eq!(
            back.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            rows.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        );
        let half = Tokens::new(rows.to_dtype(DType::F16).unwrap()).unwrap();
        assert!(!half.in_panels() && half.panels().is_err());
    }
}
