//! Loops over the rows of `[rows, columns]`, in parallel and always cut in the same places.

use rayon::prelude::*;

use crate::dispatch::simd;

/// Numbers per task: enough to outweigh handing the task out, few enough to stay in a core's cache.
const TASK: usize = 16 * 1024;

/// Columns per task when columns are summed.
const SUM_COLUMNS: usize = 64;

/// Rows of `columns` numbers that make a task.
pub(crate) fn rows_per_task(columns: usize) -> usize {
    (TASK / columns.max(1)).max(1)
}

/// Calls `f(row, numbers)` for every row of `data`, `[rows, columns]`.
///
/// The closure is not compiled for wide vectors; wrap what is hot in [`simd`].
pub fn for_each_row(data: &mut [f32], columns: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = rows_per_task(columns);
    data.par_chunks_mut(rows * columns).enumerate().for_each(|(task, part)| {
        for (i, row) in part.chunks_exact_mut(columns).enumerate() {
            f(task * rows + i, row);
        }
    });
}

/// Adds the sum over the rows of `term(row, column range)` to `sums`, row after row.
pub(crate) fn add_sums(sums: &mut [f32], rows: usize, term: impl Fn(usize, usize, &mut [f32]) + Sync) {
    sums.par_chunks_mut(SUM_COLUMNS).enumerate().for_each(|(block, sums)| {
        simd(
            #[inline(always)]
            || {
                for row in 0..rows {
                    term(row, block * SUM_COLUMNS, sums);
                }
            },
        );
    });
}

/// Adds the column sums of `data`, `[rows, columns]`, to `sums`, `[columns]`.
///
/// # Panics
/// If `data` is not a whole number of rows.
pub fn add_column_sums(data: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    assert_eq!(data.len() % columns.max(1), 0, "{} numbers are not rows of {columns}", data.len());
    add_sums(
        sums,
        data.len() / columns.max(1),
        #[inline(always)]
        |row, first, sums| {
            let numbers = &data[row * columns + first..][..sums.len()];
            for (sum, &x) in sums.iter_mut().zip(numbers) {
                *sum += x;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_sums_add_to_what_is_there() {
        let data: Vec<f32> = (0..7 * 130).map(|i| i as f32).collect();
        let mut sums = vec![0.5; 130];
        add_column_sums(&data, &mut sums);
        for (column, sum) in sums.iter().enumerate() {
            let expected: usize = (0..7).map(|row| row * 130 + column).sum();
            assert_eq!(*sum, expected as f32 + 0.5);
        }
    }

    #[test]
    fn every_row_is_visited_once_with_its_number() {
        let mut data = vec![0.0; 1003 * 50];
        for_each_row(&mut data, 50, |row, numbers| numbers.iter_mut().for_each(|x| *x += row as f32));
        assert!(
            data.chunks_exact(50).enumerate().all(|(row, numbers)| numbers.iter().all(|&x| x == row as f32))
        );
    }
}
