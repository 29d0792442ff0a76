//! Nearest images by the cosine of their mean features, exactly: the positives of the correspondence loss.
//!
//! Two images are compared once, for both, in tiles of a matrix product that never exists as a whole. Where the features lie near a space of
//! few dimensions, as those of real pictures do, the tiles are of upper bounds ([`Screen`]), which cost a fraction, and only pairs that could be
//! among the nearest are compared in full; otherwise tiles are of the cosines themselves. Every image keeps its best so far ([`Best`]). An
//! image is its own first neighbour, as in the original, unless an identical image comes before it.

use std::sync::{Mutex, MutexGuard};

use kernels::{Matrix, MatrixMut, Threads, dot, gemm, simd};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

use super::best::Best;
use super::error::{Error, Result, expect_range};
use super::screen::Screen;

/// Images of a side of a tile.
const TILE: usize = 512;

/// Below this a mean feature counts as this long (`torch.nn.functional.normalize`).
const EPSILON: f64 = 1e-12;

/// The nearest images of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// `[n, k]`, nearest first.
    pub indices: Array2<u32>,
    /// `[n, k]`, their cosines.
    pub similarities: Array2<f32>,
}

/// The direction of the mean feature of every image, `[b, d]`.
///
/// * `tokens`: `[b, t, d]`.
///
/// # Errors
/// [`Error::Empty`] without tokens.
pub fn pooled_directions(tokens: ArrayView3<'_, f32>) -> Result<Array2<f32>> {
    let (b, t, d) = tokens.dim();
    if t == 0 || d == 0 {
        return Err(Error::Empty("set of tokens"));
    }
    let image = |i: usize| -> Vec<f32> {
        let mut sums = vec![0.0; d];
        for token in tokens.index_axis(Axis(0), i).outer_iter() {
            sums.iter_mut().zip(token).for_each(|(sum, &x)| *sum += f64::from(x));
        }
        // The direction of the sum is that of the mean; ε is the mean's.
        let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt().max(EPSILON * t as f64);
        sums.iter().map(|x| (x / length) as f32).collect()
    };
    let rows: Vec<f32> = (0..b).into_par_iter().flat_map_iter(image).collect();
    Ok(Array2::from_shape_vec((b, d), rows).expect("a row per image"))
}

/// The `min(k, n)` nearest of `n` images for each of them, itself included.
///
/// * `directions`: `[n, d]`, of length one, as [`pooled_directions`] makes them.
///
/// # Errors
/// [`Error::Range`] for `k = 0`, [`Error::Empty`] for no images, [`Error::NotFinite`] if a number is none.
pub fn nearest_neighbours(directions: ArrayView2<'_, f32>, k: usize) -> Result<Neighbours> {
    let (n, d) = directions.dim();
    expect_range(k > 0, "number of neighbours", "at least 1", k)?;
    expect_range(u32::try_from(n).is_ok(), "number of images", "below 2³²", n)?;
    if n == 0 || d == 0 {
        return Err(Error::Empty("set of images"));
    }
    let directions = directions.as_standard_layout();
    let rows = directions.as_slice().expect("standard layout");
    if !rows.iter().all(|x| x.is_finite()) {
        return Err(Error::NotFinite { what: "a feature" });
    }
    let k = k.min(n);
    let screen = Screen::of(rows, d, k);
    let blocks: Vec<_> = rows.chunks(TILE * d).map(|rows| Mutex::new(Best::new(rows.len() / d, k))).collect();
    let all = All { rows, d, blocks: &blocks };
    let n_blocks = blocks.len();
    // What is near within a block rules out much of what is beside it.
    let within = |tile: &mut Vec<f32>, i: usize| all.compared((i, i), tile);
    (0..n_blocks).into_par_iter().with_max_len(1).for_each_init(Vec::new, within);
    let pairs: Vec<(usize, usize)> =
        (0..n_blocks).flat_map(|i| (i + 1..n_blocks).map(move |j| (i, j))).collect();
    pairs.par_iter().with_max_len(1).for_each_init(Vec::new, |tile: &mut Vec<f32>, &place| match &screen {
        Some(screen) => all.screened(screen, place, tile),
        None => all.compared(place, tile),
    });
    let (mut indices, mut similarities) = (Vec::with_capacity(n * k), Vec::with_capacity(n * k));
    for block in blocks {
        let best = block.into_inner().expect("no thread panicked");
        for row in best.rows {
            indices.extend(row.iter().map(|candidate| candidate.index));
            similarities.extend(row.iter().map(|candidate| candidate.similarity));
        }
    }
    let array = |shape| (Array2::from_shape_vec(shape, indices), Array2::from_shape_vec(shape, similarities));
    let (indices, similarities) = array((n, k));
    Ok(Neighbours {
        indices: indices.expect("k for every image"),
        similarities: similarities.expect("k for every image"),
    })
}

/// All images, and the best of each.
struct All<'a> {
    /// `[n, d]`.
    rows: &'a [f32],
    d: usize,
    blocks: &'a [Mutex<Best>],
}

impl All<'_> {
    /// The rows of a block, of `width` numbers each.
    fn block<'a>(&self, rows: &'a [f32], width: usize, block: usize) -> &'a [f32] {
        &rows[block * TILE * width..rows.len().min((block + 1) * TILE * width)]
    }

    fn best(&self, block: usize) -> MutexGuard<'_, Best> {
        self.blocks[block].lock().expect("no thread panics while it holds the lock")
    }

    /// The products of two blocks of rows of `width` numbers, and their sizes.
    fn product(
        &self,
        rows: &[f32],
        width: usize,
        (i, j): (usize, usize),
        tile: &mut Vec<f32>,
    ) -> (usize, usize) {
        let (a, b) = (self.block(rows, width, i), self.block(rows, width, j));
        let (height, across) = (a.len() / width, b.len() / width);
        tile.resize(height * across, 0.0);
        let factors = (Matrix::new(a, height, width), Matrix::new(b, across, width).t());
        gemm(MatrixMut::new(tile, height, across), 0.0, 1.0, factors.0, factors.1, Threads::One);
        (height, across)
    }

    /// Cosines of a tile.
    fn compared(&self, (i, j): (usize, usize), tile: &mut Vec<f32>) {
        let (_, across) = self.product(self.rows, self.d, (i, j), tile);
        self.best(i).see_rows(tile, across, j * TILE);
        if i != j {
            self.best(j).see_columns(tile, across, i * TILE);
        }
    }

    /// Bounds of a tile of two blocks, and the cosines of pairs that could be among the nearest. Limits are those of the beginning: they
    /// only rise.
    fn screened(&self, screen: &Screen, (i, j): (usize, usize), tile: &mut Vec<f32>) {
        let (_, across) = self.product(screen.rows(), screen.width(), (i, j), tile);
        let of_rows = self.best(i).least.clone();
        let of_columns = self.best(j).least.clone();
        let mut pairs = Vec::new();
        screen.survivors(&tile[..], across, (&of_rows, &of_columns), &mut pairs);
        let row = |block: usize, at: u32| &self.rows[(block * TILE + at as usize) * self.d..][..self.d];
        let mut cosines = Vec::with_capacity(pairs.len());
        simd(
            #[inline(always)]
            || {
                for &(a, b) in &pairs {
                    cosines.push(dot(row(i, a), row(j, b)));
                }
            },
        );
        let mut best = self.best(i);
        for (&(a, b), &cosine) in pairs.iter().zip(&cosines) {
            best.see(a as usize, cosine, j * TILE + b as usize);
        }
        drop(best);
        let mut best = self.best(j);
        for (&(a, b), &cosine) in pairs.iter().zip(&cosines) {
            best.see(b as usize, cosine, i * TILE + a as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array3};

    use super::*;

    fn directions(n: usize, d: usize) -> Array2<f32> {
        let tokens =
            Array::from_shape_fn((n, 2, d), |(i, t, c)| ((i * i * 7 + t + c * (i + 3)) as f32).sin());
        pooled_directions(tokens.view()).unwrap()
    }

    #[test]
    fn all_similarities_sorted() {
        for (n, k) in [(1, 3), (5, 5), (300, 30), (1037, 7)] {
            let x = directions(n, 9);
            let got = nearest_neighbours(x.view(), k).unwrap();
            assert_eq!(got.indices.dim(), (n, k.min(n)));
            for i in 0..n {
                let all: Vec<f32> = (0..n).map(|j| x.row(i).dot(&x.row(j))).collect();
                let mut sorted = all.clone();
                sorted.sort_unstable_by(|a, b| b.total_cmp(a));
                for rank in 0..k.min(n) {
                    let found = all[got.indices[[i, rank]] as usize];
                    assert!((found - sorted[rank]).abs() < 1e-6, "{n} {i} {rank}");
                    assert!((got.similarities[[i, rank]] - found).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn the_lower_of_equals_comes_first_on_any_number_of_threads() {
        let x = Array2::from_shape_fn((1300, 4), |(i, c)| if c == i % 4 { 1.0 } else { 0.0 });
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let got = pool.install(|| nearest_neighbours(x.view(), 3)).unwrap();
            for (i, row) in got.indices.outer_iter().enumerate() {
                let first = (i % 4) as u32;
                assert_eq!(row.to_vec(), [first, first + 4, first + 8]);
            }
        }
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let x = directions(1100, 11);
        let one = pool(1).install(|| nearest_neighbours(x.view(), 30)).unwrap();
        assert_eq!(pool(2).install(|| nearest_neighbours(x.view(), 30)).unwrap(), one);
        assert!((0..1100).all(|i| one.indices[[i, 0]] == i as u32));
    }

    #[test]
    fn screening_changes_nothing() {
        // Near a space of 4 dimensions out of 96, and some images twice.
        let near = |n: usize| {
            let mut x = Array2::from_shape_fn((n, 96), |(i, c)| {
                let i = i % (n - 40);
                let along = |a: usize| ((i * (3 * a + 7)) as f32).sin() * ((c * (a + 2) + a) as f32).cos();
                (0..4).map(along).sum::<f32>() + 0.05 * ((i * 31 + c * c * 17) as f32).sin()
            });
            x.rows_mut().into_iter().for_each(|mut row| row /= row.dot(&row).sqrt());
            x
        };
        let x = near(2500);
        assert!(Screen::of(x.as_slice().unwrap(), 96, 30).is_some());
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / 16_777_216.0 - 0.5
        };
        let mut random = Array2::from_shape_simple_fn((2500, 96), &mut noise);
        random.rows_mut().into_iter().for_each(|mut row| row /= row.dot(&row).sqrt());
        assert!(Screen::of(random.as_slice().unwrap(), 96, 30).is_none());
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let got = pool(1).install(|| nearest_neighbours(x.view(), 30)).unwrap();
        for threads in [2, 5] {
            assert_eq!(pool(threads).install(|| nearest_neighbours(x.view(), 30)).unwrap(), got);
        }
        for i in (0..2500).step_by(97) {
            let all: Vec<f32> = (0..2500).map(|j| x.row(i).dot(&x.row(j))).collect();
            let mut sorted = all.clone();
            sorted.sort_unstable_by(|a, b| b.total_cmp(a));
            for rank in 0..30 {
                let found = all[got.indices[[i, rank]] as usize];
                assert!((found - sorted[rank]).abs() < 1e-6, "{i} {rank}: {found} {}", sorted[rank]);
            }
        }
    }

    #[test]
    fn constant_images_and_misfits() {
        let zero = pooled_directions(Array3::zeros((3, 2, 4)).view()).unwrap();
        assert_eq!(
            nearest_neighbours(zero.view(), 2).unwrap().indices,
            ndarray::array![[0, 1], [0, 1], [0, 1]]
        );
        let mut broken = directions(4, 3);
        broken[[2, 1]] = f32::NAN;
        assert!(matches!(nearest_neighbours(broken.view(), 2), Err(Error::NotFinite { .. })));
        assert!(nearest_neighbours(directions(4, 3).view(), 0).is_err());
        assert!(pooled_directions(Array3::zeros((3, 0, 4)).view()).is_err());
    }
}
