//! Products of the features of two panels, summed over their tokens: `out[i, j] = Σ_token a[i] b[j]`.
//!
//! What the gradient of a linear layer's weights is made of: `a` holds the gradient of the outputs, `b` the inputs. Every
//! number of the result is one chain of multiply-adds over the vectors of the image, in order, and the lanes are
//! added up at its end; which other numbers are computed beside it changes nothing.
//!
//! A tile of `R × K` results stays in the registers while the panels go by. The calling thread does all the work:
//! callers have an image for each.

use pulp::{Simd, WithSimd};

use super::PanelShape;
use crate::level::mul_add;

/// Writes `Σ_token a[i] b[j]` of one image, `[a's d, used]`.
///
/// * `a`: panels of `a_shape`, zero behind the last token; `b`: panels of `b_shape`, finite there.
/// * `used`: of `b`'s numbers, how many are taken.
///
/// # Panics
/// If the shapes do not fit, or there is more than one image.
pub fn panel_products(
    a: &[f32],
    a_shape: PanelShape,
    b: &[f32],
    b_shape: PanelShape,
    used: usize,
    out: &mut [f32],
) {
    a_shape.check(a);
    b_shape.check(b);
    assert!(a_shape.images == 1 && b_shape.with_dim(a_shape.dim) == a_shape, "two panels of one image");
    assert!(used <= b_shape.dim && out.len() == a_shape.dim * used, "products of {} and {used}", a_shape.dim);
    if out.is_empty() {
        return;
    }
    let sizes = Sizes { rows: a_shape.dim, b_dim: b_shape.dim, used, lanes: a_shape.lanes() };
    a_shape.level.run(Products { a, b, sizes, out });
}

#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    b_dim: usize,
    used: usize,
    lanes: usize,
}

struct Products<'a> {
    a: &'a [f32],
    b: &'a [f32],
    sizes: Sizes,
    out: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 | 4 => run::<S, 6, 4>(simd, self),
            _ => run::<S, 3, 4>(simd, self),
        }
    }
}

#[inline(always)]
fn run<S: Simd, const R: usize, const K: usize>(simd: S, products: Products<'_>) {
    let Products { a, b, sizes, out } = products;
    let Sizes { rows, used, .. } = sizes;
    for column in (0..used).step_by(K) {
        for row in (0..rows).step_by(R) {
            let sums = if row + R <= rows && column + K <= used {
                tile::<S, R, K>(simd, a, b, sizes, row, column)
            } else {
                edge::<S, R, K>(simd, a, b, sizes, row, column)
            };
            for (i, sums) in sums.iter().enumerate().take(rows - row) {
                for (j, &sum) in sums.iter().enumerate().take(used - column) {
                    out[(row + i) * used + column + j] = simd.reduce_sum_f32s(sum);
                }
            }
        }
    }
}

/// A tile that lies wholly within the result.
#[inline(always)]
fn tile<S: Simd, const R: usize, const K: usize>(
    simd: S,
    a: &[f32],
    b: &[f32],
    sizes: Sizes,
    row: usize,
    column: usize,
) -> [[S::f32s; K]; R] {
    let Sizes { rows, b_dim, lanes, .. } = sizes;
    let mut sums = [[simd.splat_f32s(0.0); K]; R];
    for (a, b) in a.chunks_exact(rows * lanes).zip(b.chunks_exact(b_dim * lanes)) {
        let (a, b) = (&a[row * lanes..][..R * lanes], &b[column * lanes..][..K * lanes]);
        for v in 0..lanes / S::F32_LANES {
            let at = v * S::F32_LANES;
            let mut columns = [simd.splat_f32s(0.0); K];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = vector::<S>(b, j * lanes + at);
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = vector::<S>(a, i * lanes + at);
                for (sum, &b) in sums.iter_mut().zip(&columns) {
                    *sum = mul_add(simd, a, b, *sum);
                }
            }
        }
    }
    sums
}

/// A tile of which a part lies beyond the result; that part repeats the last row and column.
#[inline(always)]
fn edge<S: Simd, const R: usize, const K: usize>(
    simd: S,
    a: &[f32],
    b: &[f32],
    sizes: Sizes,
    row: usize,
    column: usize,
) -> [[S::f32s; K]; R] {
    let Sizes { rows, b_dim, used, lanes } = sizes;
    let mut sums = [[simd.splat_f32s(0.0); K]; R];
    for (a, b) in a.chunks_exact(rows * lanes).zip(b.chunks_exact(b_dim * lanes)) {
        for v in 0..lanes / S::F32_LANES {
            let at = v * S::F32_LANES;
            let mut columns = [simd.splat_f32s(0.0); K];
            for (j, numbers) in columns.iter_mut().enumerate() {
                *numbers = vector::<S>(b, (column + j).min(used - 1) * lanes + at);
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = vector::<S>(a, (row + i).min(rows - 1) * lanes + at);
                for (sum, &b) in sums.iter_mut().zip(&columns) {
                    *sum = mul_add(simd, a, b, *sum);
                }
            }
        }
    }
    sums
}

#[inline(always)]
fn vector<S: Simd>(numbers: &[f32], at: usize) -> S::f32s {
    S::as_simd_f32s(&numbers[at..][..S::F32_LANES]).0[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    fn rows(tokens: usize, dim: usize, salt: usize) -> Vec<f32> {
        (0..tokens * dim).map(|i| ((i * 37 + salt * 11) as f32 * 0.731).sin()).collect()
    }

    fn panels(shape: PanelShape, rows: &[f32]) -> Vec<f32> {
        let mut panels = vec![0.0; shape.len()];
        shape.pack(rows, &mut panels);
        panels
    }

    fn products(level: Level, tokens: usize, (ra, rb, used): (usize, usize, usize)) -> Vec<f32> {
        let a_shape = PanelShape { level, images: 1, tokens, dim: ra };
        let b_shape = a_shape.with_dim(rb);
        let mut out = vec![f32::NAN; ra * used];
        let (a, b) = (panels(a_shape, &rows(tokens, ra, 1)), panels(b_shape, &rows(tokens, rb, 2)));
        panel_products(&a, a_shape, &b, b_shape, used, &mut out);
        out
    }

    #[test]
    fn equals_the_definition_at_every_level() {
        for level in Level::available() {
            for (tokens, ra, rb, used) in [(1, 1, 1, 1), (49, 7, 5, 3), (100, 22, 40, 40), (33, 12, 9, 8)] {
                let (a, b) = (rows(tokens, ra, 1), rows(tokens, rb, 2));
                let out = products(level, tokens, (ra, rb, used));
                for i in 0..ra {
                    for j in 0..used {
                        let exact: f64 =
                            (0..tokens).map(|t| f64::from(a[t * ra + i]) * f64::from(b[t * rb + j])).sum();
                        let off = (f64::from(out[i * used + j]) - exact).abs();
                        assert!(off < 1e-5 * tokens as f64, "{level:?} {tokens} {i} {j}: {off}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_result_does_not_depend_on_what_is_beside_it() {
        for level in Level::available() {
            let whole = products(level, 70, (13, 20, 20));
            let few = products(level, 70, (13, 20, 5));
            for i in 0..13 {
                assert_eq!(few[i * 5..][..5], whole[i * 20..][..5], "{level:?}");
            }
        }
    }
}
