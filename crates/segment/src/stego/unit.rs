//! Rows as directions, `x̂ = x / max(‖x‖, ε)`, and the way back from the gradient in `x̂` to the one in `x`:
//! `(g - ⟨x̂, g⟩ x̂) / ‖x‖`, or `g / ε` where the length is below ε and the divisor a constant.

use kernels::{LANES, dot, simd};

/// Below this a row counts as this long, in all of STEGO's losses.
pub(super) const EPSILON: f32 = 1e-10;

/// Divides every row of `[n, width]` by its length.
pub(crate) fn make_unit(rows: &mut [f32], width: usize) {
    simd(
        #[inline(always)]
        || {
            for row in rows.chunks_exact_mut(width) {
                let scale = 1.0 / dot(row, row).sqrt().max(EPSILON);
                for x in row {
                    *x *= scale;
                }
            }
        },
    );
}

/// Turns the gradient in a row's direction into the gradient in the row.
///
/// * `row`, `unit`, `grad`: the row, its direction, and the gradient, all of one width.
pub(crate) fn through_unit(row: &[f32], unit: &[f32], grad: &mut [f32]) {
    simd(
        #[inline(always)]
        || {
            let length = dot(row, row).sqrt();
            let along = if length > EPSILON { dot(unit, grad) } else { 0.0 };
            let scale = 1.0 / length.max(EPSILON);
            for (g, u) in grad.iter_mut().zip(unit) {
                *g = scale * (*g - along * u);
            }
        },
    );
}

/// `Σ x`, in lanes whose order depends on the length alone.
#[inline(always)]
pub(super) fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += x;
    }
    lanes.iter().sum()
}

/// Adds `rows`, `[n, width]`, to `sums`, `[width]`.
pub(super) fn add_rows(rows: &[f32], sums: &mut [f32]) {
    simd(
        #[inline(always)]
        || {
            for row in rows.chunks_exact(sums.len()) {
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum += x;
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back_is_the_slope_and_zero_rows_are_harmless() {
        let weights = [0.3_f32, -1.0, 0.7];
        let value = |row: [f32; 3]| {
            let mut unit = row;
            make_unit(&mut unit, 3);
            dot(&unit, &weights)
        };
        let row = [0.8_f32, -0.1, 0.5];
        let (mut unit, mut grad) = (row, weights);
        make_unit(&mut unit, 3);
        through_unit(&row, &unit, &mut grad);
        for i in 0..3 {
            let [up, down] = [1e-2, -1e-2].map(|shift| {
                let mut row = row;
                row[i] += shift;
                value(row)
            });
            assert!(((up - down) / 2e-2 - grad[i]).abs() < 1e-3);
        }
        let (mut zero, mut grad) = ([0.0; 3], weights);
        make_unit(&mut zero, 3);
        assert_eq!(zero, [0.0; 3]);
        through_unit(&[0.0; 3], &zero, &mut grad);
        assert!(grad.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn sums_of_any_length() {
        for n in [0, 1, 15, 16, 17, 121] {
            let row: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            assert_eq!(sum(&row), (n * (n + 1) / 2) as f32);
        }
    }
}
