//! Moments against their definition in 64 bits: pieces and merges, offsets and scales, numbers that are none.
#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use dimred::{Error, Moments};
use ndarray::{Array1, Array2, Axis, array, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// More rows than are laid out at a time.
const MANY: usize = 1600;

fn rows(n: usize, d: usize, offset: f32) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(n as u64);
    Array2::from_shape_fn((n, d), |(_, j)| offset + rng.random_range(-1.0..1.0f32) * (1.0 + j as f32))
}

fn close(a: &Array2<f64>, b: &Array2<f64>, relative: f64) {
    let largest = b.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    let worst = a.iter().zip(b).fold(0.0_f64, |m, (x, y)| m.max((x - y).abs()));
    assert!(worst <= relative * largest, "off by {worst} of {largest}");
}

#[test]
fn by_hand() {
    let mut moments = Moments::new(2);
    moments.add(array![[1.0_f32, 10.0], [3.0, 10.0], [5.0, 16.0]].view()).unwrap();
    assert_eq!(moments.count(), 3);
    assert_eq!(moments.mean(), &array![3.0, 12.0]);
    assert_eq!(moments.covariance().unwrap(), array![[4.0, 6.0], [6.0, 12.0]]);
    assert_eq!(moments.variance().unwrap(), array![8.0 / 3.0, 8.0]);
}

/// By the definition, in 64 bits.
fn naive(rows: &Array2<f32>) -> Array2<f64> {
    let x = rows.mapv(f64::from);
    let c = &x - &x.mean_axis(Axis(0)).unwrap();
    c.t().dot(&c) / (rows.nrows() - 1) as f64
}

#[test]
fn pieces_and_merged_parts_give_the_whole() {
    // Few rows are exact to 64 bits, many to a little more than 32.
    for (n, split, tolerance) in [(1000, 300, 1e-12), (5000, 900, 4e-7)] {
        let rows = rows(n, 130, 100.0);
        let mut whole = Moments::new(130);
        whole.add(rows.view()).unwrap();
        let (mut pieces, mut left, mut right) = (Moments::new(130), Moments::new(130), Moments::new(130));
        for piece in rows.axis_chunks_iter(Axis(0), 37) {
            pieces.add(piece).unwrap();
        }
        left.add(rows.slice(s![..split, ..])).unwrap();
        right.add(rows.slice(s![split.., ..])).unwrap();
        left.merge(&right);
        left.merge(&Moments::new(130));
        for other in [&pieces, &left, &whole] {
            assert_eq!(other.count(), n as u64);
            close(&other.covariance().unwrap(), &naive(&rows), tolerance);
            let worst = (other.mean() - whole.mean()).mapv(f64::abs).sum();
            assert!(worst < 1e-9, "{worst}");
        }
    }
}

#[test]
fn columns_of_any_scale_and_offset_keep_their_correlation() {
    let base = rows(3000, 6, 0.0);
    let scales = [1e-12_f32, 1e-3, 1.0, 1e3, 1e12, 1.0];
    let rows = Array2::from_shape_fn((3000, 7), |(i, j)| match j {
        6 => 42.0,
        5 => base[[i, 5]] + 3e4,
        _ => base[[i, j]] * scales[j],
    });
    let mut moments = Moments::new(7);
    moments.add(rows.view()).unwrap();
    let (covariance, want) = (moments.covariance().unwrap(), naive(&rows));
    for ((i, j), &x) in covariance.indexed_iter() {
        let size = (want[[i, i]] * want[[j, j]]).sqrt();
        assert!((x - want[[i, j]]).abs() <= 4e-7 * size, "{i} {j}: {x} is not {}", want[[i, j]]);
    }
    assert_eq!((moments.scale().unwrap()[6], covariance[[6, 6]]), (1.0, 0.0));
}

#[test]
fn calls_far_off_the_mean_so_far_cost_no_precision() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut rows = rows(20 * 784, 7, 0.0);
    for mut call in rows.axis_chunks_iter_mut(Axis(0), 784) {
        call += &Array1::from_shape_fn(7, |_| rng.random_range(-30.0..30.0f32));
    }
    let mut moments = Moments::new(7);
    rows.axis_chunks_iter(Axis(0), 784).for_each(|call| moments.add(call).unwrap());
    let (covariance, want) = (moments.covariance().unwrap(), naive(&rows));
    for ((i, j), &x) in covariance.indexed_iter() {
        let size = (want[[i, i]] * want[[j, j]]).sqrt();
        assert!((x - want[[i, j]]).abs() <= 4e-7 * size, "{i} {j}: {x} is not {}", want[[i, j]]);
    }
}

#[test]
fn numbers_whose_squares_need_64_bits_get_them() {
    for size in [1e-22_f32, 1e-30, 1e20, 3e37] {
        let rows = rows(1500, 5, 0.0).mapv(|x| x * size);
        let mut moments = Moments::new(5);
        moments.add(rows.view()).unwrap();
        close(&moments.covariance().unwrap(), &naive(&rows), 1e-12);
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let rows = rows(5000, 200, 3.0);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut moments = Moments::new(200);
            moments.add(rows.view()).unwrap();
            moments
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn a_huge_offset_does_not_cancel() {
    let mut moments = Moments::new(1);
    moments.add(array![[1e7_f32], [1e7 + 1.0], [1e7 + 2.0]].view()).unwrap();
    moments.add(array![[1e7_f32 + 3.0]].view()).unwrap();
    assert!((moments.covariance().unwrap()[[0, 0]] - 5.0 / 3.0).abs() < 1e-9);
}

#[test]
fn a_constant_column_has_scale_one() {
    let mut moments = Moments::new(2);
    moments.add(array![[0.1_f32, 1.0], [0.1, 2.0], [0.1, 3.0]].view()).unwrap();
    assert_eq!(moments.scale().unwrap()[0], 1.0);
    assert!((moments.scale().unwrap()[1] - (2.0_f64 / 3.0).sqrt()).abs() < 1e-12);
}

#[test]
fn bad_rows_are_refused_and_leave_no_trace() {
    let mut moments = Moments::new(2);
    let mut many = Array2::<f32>::ones((MANY + 5, 2));
    many[[MANY + 3, 1]] = f32::INFINITY;
    let error = moments.add(many.view()).unwrap_err();
    assert!(matches!(error, Error::NonFinite { row, column: 1, .. } if row == MANY + 3));
    assert_eq!(moments, Moments::new(2));
    let error = moments.add(array![[1.0_f32, 2.0], [3.0, f32::NAN]].view()).unwrap_err();
    assert_eq!(error.to_string(), "row 1 holds NaN in dimension 1; features must be finite");
    assert!(matches!(moments.add(array![[1.0_f32]].view()), Err(Error::Width { expected: 2, got: 1 })));
    assert_eq!(moments.count(), 0);
    assert!(matches!(moments.covariance(), Err(Error::TooFewRows(0))));
}
