//! Nearest images by the cosine of their mean features, exactly: the positives of the correspondence loss.
//!
//! The similarity of two images is computed once, for both, in tiles of a matrix product that never exists as a whole. Every image
//! keeps its best so far; what is better is a question of similarity and, among equals, of the lower index, so that the
//! result does not depend on the order in which tiles are done. An image is its own first neighbour, as in the
//! original, unless an identical image comes before it.

use std::sync::Mutex;

use kernels::{LANES, Matrix, MatrixMut, Threads, gemm, simd};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

use super::error::{Error, Result, expect_range};

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
    let blocks: Vec<_> = rows.chunks(TILE * d).map(|rows| Mutex::new(Best::new(rows.len() / d, k))).collect();
    let tiles: Vec<(usize, usize)> =
        (0..blocks.len()).flat_map(|i| (i..blocks.len()).map(move |j| (i, j))).collect();
    tiles.par_iter().with_max_len(1).for_each_init(Vec::new, |tile: &mut Vec<f32>, &(i, j)| {
        let block = |i: usize| &rows[i * TILE * d..rows.len().min((i + 1) * TILE * d)];
        let (a, b) = (block(i), block(j));
        let (height, width) = (a.len() / d, b.len() / d);
        tile.resize(height * width, 0.0);
        let factors = (Matrix::new(a, height, d), Matrix::new(b, width, d).t());
        gemm(MatrixMut::new(tile, height, width), 0.0, 1.0, factors.0, factors.1, Threads::One);
        let lock = |i: usize| blocks[i].lock().expect("no thread panics while it holds the lock");
        lock(i).see_rows(tile, width, j * TILE);
        if i != j {
            lock(j).see_columns(tile, width, i * TILE);
        }
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

/// One image as another one sees it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    similarity: f32,
    index: u32,
}

impl Candidate {
    fn is_before(self, other: Self) -> bool {
        self.similarity > other.similarity
            || (self.similarity == other.similarity && self.index < other.index)
    }
}

/// The best candidates so far of the images of a block.
struct Best {
    k: usize,
    /// Of every image, the nearest first.
    rows: Vec<Vec<Candidate>>,
    /// Of every image, what a candidate must reach.
    least: Vec<f32>,
}

impl Best {
    fn new(images: usize, k: usize) -> Self {
        Self { k, rows: vec![Vec::with_capacity(k + 1); images], least: vec![f32::NEG_INFINITY; images] }
    }

    /// Candidates of image `i` are row `i` of a tile; the first of them is image `first`.
    fn see_rows(&mut self, tile: &[f32], width: usize, first: usize) {
        simd(
            #[inline(always)]
            || {
                for (i, row) in tile.chunks_exact(width).enumerate() {
                    for (c, chunk) in row.chunks(LANES).enumerate() {
                        if any_reaches(chunk, &[self.least[i]; LANES]) {
                            for (lane, &similarity) in chunk.iter().enumerate() {
                                if similarity >= self.least[i] {
                                    self.see(i, similarity, first + c * LANES + lane);
                                }
                            }
                        }
                    }
                }
            },
        );
    }

    /// Candidates of image `j` are column `j` of a tile.
    fn see_columns(&mut self, tile: &[f32], width: usize, first: usize) {
        simd(
            #[inline(always)]
            || {
                for (i, row) in tile.chunks_exact(width).enumerate() {
                    for (c, chunk) in row.chunks(LANES).enumerate() {
                        if any_reaches(chunk, &self.least[c * LANES..]) {
                            for (lane, &similarity) in chunk.iter().enumerate() {
                                if similarity >= self.least[c * LANES + lane] {
                                    self.see(c * LANES + lane, similarity, first + i);
                                }
                            }
                        }
                    }
                }
            },
        );
    }

    /// A candidate that reaches the least.
    #[inline(never)]
    fn see(&mut self, image: usize, similarity: f32, index: usize) {
        let candidate = Candidate { similarity, index: index as u32 };
        let row = &mut self.rows[image];
        if row.len() == self.k {
            if !candidate.is_before(row[self.k - 1]) {
                return;
            }
            row.pop();
        }
        let at = row.partition_point(|other| other.is_before(candidate));
        row.insert(at, candidate);
        if row.len() == self.k {
            self.least[image] = row[self.k - 1].similarity;
        }
    }
}

/// Whether a number reaches its limit.
#[inline(always)]
fn any_reaches(chunk: &[f32], least: &[f32]) -> bool {
    let mut found = false;
    for (x, least) in chunk.iter().zip(least) {
        found |= x >= least;
    }
    found
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
