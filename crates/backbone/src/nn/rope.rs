//! Rotary position embedding in two dimensions (Su et al. 2021; the axial form of Heo et al. 2024 and DINOv3).
//!
//! A head's dimensions are pairs `(x_k, x_{k + hd/2})`. A token at `(y, x)` has each of its pairs turned by an angle: the
//! first half of the pairs by `2π y / p`, the second half by `2π x / p`, with one period `p` after the other. Turning
//! keeps lengths, and `q · k` of two turned vectors depends on the difference of their places alone.

use std::f64::consts::TAU;

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Shape, Tensor};
use kernels::{PanelShape, panel_rope};

use super::Tokens;
use super::tokens::{new_panels, numbers};
use crate::Result;

/// The rotations of the tokens of one grid.
pub(crate) struct Rope {
    cos: Tensor, // [n, 1, hd / 2]
    sin: Tensor, // [n, 1, hd / 2]
    /// Both in panels, where the kernels turn.
    panels: OnceLock<[Vec<f32>; 2]>,
}

impl Rope {
    /// * `periods`: `[hd / 4]`, in the unit of the points.
    /// * `still`: how many tokens before those of the points are not turned.
    /// * `points`: row and column of every other token, `[t, 2]`.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the device has no room for it.
    pub(crate) fn new(periods: &[f32], still: usize, points: &[[f64; 2]], device: &Device) -> Result<Self> {
        let pairs = 2 * periods.len(); // of a head
        let turned =
            points.iter().flatten().flat_map(|at| periods.iter().map(move |&p| TAU * at / f64::from(p)));
        let angles: Vec<f64> = std::iter::repeat_n(0.0, still * pairs).chain(turned).collect();
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&angle| of(angle) as f32).collect();
            Tensor::from_vec(values, (still + points.len(), 1, pairs), device)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)?, panels: OnceLock::new() })
    }

    /// Queries and keys of a fused projection turned, values left alone: `[b, n, 3 d] -> [b, n, 3 d]`.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if there are not `n` rotations, or the heads have another size.
    pub(crate) fn turn(&self, qkv: &Tokens, num_heads: usize) -> Result<Tokens> {
        if qkv.in_panels() {
            return qkv.on_panels(|shape| shape, |shape| Turn { rope: self, shape, num_heads });
        }
        let qkv = qkv.rows()?;
        let (b, n, d3) = qkv.dims3()?;
        let (d, half) = (d3 / 3, d3 / 3 / num_heads / 2);
        let heads = qkv.narrow(D::Minus1, 0, 2 * d)?.reshape((b, n, 2 * num_heads, 2 * half))?;
        let heads = heads.to_dtype(DType::F32)?; // that of the angles
        let (first, second) = (heads.narrow(3, 0, half)?, heads.narrow(3, half, half)?); // [b, n, 2 * heads, hd / 2]
        let turned = [
            (first.broadcast_mul(&self.cos)? - second.broadcast_mul(&self.sin)?)?,
            (second.broadcast_mul(&self.cos)? + first.broadcast_mul(&self.sin)?)?,
        ];
        let turned = Tensor::cat(&turned, 3)?.reshape((b, n, 2 * d))?.to_dtype(qkv.dtype())?;
        Ok(Tokens::in_rows(Tensor::cat(&[&turned, &qkv.narrow(D::Minus1, 2 * d, d)?], D::Minus1)?))
    }

    /// Cosines and sines as panels of `shape`'s tokens, laid out when first asked for.
    fn panels(&self, shape: PanelShape, num_heads: usize) -> candle_core::Result<&[Vec<f32>; 2]> {
        let (n, _, pairs) = self.cos.dims3()?;
        if n != shape.tokens || shape.dim != 6 * num_heads * pairs {
            candle_core::bail!(
                "rotations of {n} tokens and {pairs} pairs for {shape:?} in {num_heads} heads"
            );
        }
        if let Some(panels) = self.panels.get() {
            return Ok(panels);
        }
        let angles = PanelShape { images: 1, dim: pairs, ..shape };
        let pack = |table: &Tensor| -> candle_core::Result<Vec<f32>> {
            let mut panels = vec![0.0; angles.len()];
            angles.pack(&table.flatten_all()?.to_vec1::<f32>()?, &mut panels);
            Ok(panels)
        };
        let tables = [pack(&self.cos)?, pack(&self.sin)?];
        Ok(self.panels.get_or_init(|| tables))
    }
}

struct Turn<'a> {
    rope: &'a Rope,
    shape: PanelShape,
    num_heads: usize,
}

impl CustomOp1 for Turn<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let qkv = numbers(storage, layout)?;
        let [cos, sin] = self.rope.panels(self.shape, self.num_heads)?;
        new_panels(self.shape, |out| {
            out.copy_from_slice(qkv);
            panel_rope(out, self.shape, self.num_heads, cos, sin);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: usize = 2;
    const PERIODS: [f32; 2] = [1.0, 10.0]; // heads of 8 dimensions

    /// A fused projection of `n` tokens without symmetries, `[2, n, 3 * 16]`.
    fn qkv(n: usize) -> Tensor {
        let values: Vec<f32> = (0..2 * n * 48).map(|i| (i as f32 * 0.731).sin()).collect();
        Tensor::from_vec(values, (2, n, 48), &Device::Cpu).unwrap()
    }

    fn turned(still: usize, points: &[[f64; 2]]) -> Vec<Vec<f32>> {
        let rope = Rope::new(&PERIODS, still, points, &Device::Cpu).unwrap();
        rows(&rope.turn(&Tokens::new(qkv(still + points.len())).unwrap(), HEADS).unwrap().rows().unwrap())
    }

    fn rows(qkv: &Tensor) -> Vec<Vec<f32>> {
        qkv.flatten_to(1).unwrap().to_vec2().unwrap()
    }

    /// `q · k` of every head and pair of tokens of the first image.
    fn scores(rows: &[Vec<f32>], n: usize) -> Vec<f32> {
        let dot = |q: &[f32], k: &[f32]| q.iter().zip(k).map(|(a, b)| a * b).sum::<f32>();
        let pairs = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
        pairs.flat_map(|(i, j)| [0, 8].map(|h| dot(&rows[i][h..h + 8], &rows[j][16 + h..24 + h]))).collect()
    }

    fn far(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).fold(0.0, |far, (a, b)| far.max((a - b).abs()))
    }

    const POINTS: [[f64; 2]; 4] = [[-0.5, -0.25], [0.1, 0.7], [0.9, -0.3], [0.0, 0.4]];

    #[test]
    fn lengths_values_and_still_tokens_are_kept() {
        let (before, after) = (rows(&qkv(7)), turned(3, &POINTS));
        let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
        for (token, (old, new)) in before.iter().zip(&after).enumerate() {
            for head in (0..32).step_by(8) {
                assert!((length(&old[head..head + 8]) - length(&new[head..head + 8])).abs() < 1e-6);
            }
            assert_eq!(old[32..], new[32..]);
            assert_eq!(old[..32] == new[..32], token % 7 < 3, "token {token}");
        }
    }

    #[test]
    fn scores_depend_on_differences_of_places_alone() {
        let at = |shift: [f64; 2]| POINTS.map(|[y, x]| [y + shift[0], x + shift[1]]);
        let here = scores(&turned(0, &at([0.0, 0.0])), 4);
        assert!(far(&here, &scores(&turned(0, &at([0.37, -1.9])), 4)) < 1e-5);
        // Rows and columns are not the same, and another scale is another place.
        assert!(far(&here, &scores(&turned(0, &POINTS.map(|[y, x]| [x, y])), 4)) > 0.1);
        assert!(far(&here, &scores(&turned(0, &POINTS.map(|[y, x]| [2.0 * y, x])), 4)) > 0.1);
    }

    /// By hand: a quarter of the first period turns the pair `(x_0, x_4)` of each head by a right angle.
    #[test]
    fn a_quarter_turn_is_one() {
        let (before, after) = (rows(&qkv(1)), turned(0, &[[0.25, 0.0]]));
        let (old, new) = (&before[0], &after[0]);
        for head in (0..32).step_by(8) {
            assert!((new[head] + old[head + 4]).abs() < 1e-6 && (new[head + 4] - old[head]).abs() < 1e-6);
            // The second pair's period is ten times as long; the other two are for the column, which is 0.
            let (sin, cos) = (std::f32::consts::TAU / 40.0).sin_cos();
            assert!((new[head + 1] - (cos * old[head + 1] - sin * old[head + 5])).abs() < 1e-6);
            assert_eq!([new[head + 2], new[head + 3]], [old[head + 2], old[head + 3]]);
        }
    }

    #[test]
    fn another_number_of_tokens_is_refused() {
        let rope = Rope::new(&PERIODS, 1, &POINTS, &Device::Cpu).unwrap();
        assert!(rope.turn(&Tokens::new(qkv(4)).unwrap(), HEADS).is_err());
    }
}
