//! The linear layer `y = x Wᵀ + b` on panels, with what follows it done while the results are at hand.
//!
//! The weights are laid out once as `[to / R, from, R]`, the order in which tiles read them. A task is some panels times
//! a range of outputs. It takes as many panels at a time as fit the second-level cache: the weights of one row of tiles
//! stay in the first one while those go by. A long inner index is summed in blocks, whose sums wait in the output.

use std::ops::Range;

use pulp::Simd;

use super::math::gelu;
use super::prefetch::part;
use super::tile::{linear_rows, packed, vectorized, vectors, vectors_mut};
use super::work::{for_each, threads};
use super::{PanelShape, tile};
use crate::Level;

/// Bytes of panels that a task goes over again and again: they should stay in the second-level cache.
const GROUP_BYTES: usize = 512 * 1024;

/// Most steps of the inner index that are summed before the next tile: the weights of a tile should stay in the first cache.
const BLOCK_STEPS: usize = 768;

/// Tasks per thread that are aimed at, so that a slow one does not hold up the others.
const TASKS_PER_THREAD: usize = 3;

/// What reading a tile's weights for one more part costs, in parts of the work of one panel.
const WEIGHTS_AGAIN: f64 = 0.1;

/// What is done with `x Wᵀ + b`.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing.
    Plain,
    /// GELU, with the error function.
    Gelu,
    /// It is added to a residual of the output's shape.
    Add(&'a [f32]),
}

/// A linear layer's weights as tiles read them.
#[derive(Debug, Clone)]
pub struct PackedLinear {
    level: Level,
    from: usize,
    to: usize,
    weight: Vec<f32>, // [to / R, from, R]
    bias: Vec<f32>,   // [to / R, R]
}

/// A range of outputs of a few neighbouring panels.
struct Task<'a> {
    /// The first of the panels, counted over all images.
    panel: usize,
    /// The first output.
    output: usize,
    /// Of every panel, the range of outputs: `[outputs, L]`.
    out: Vec<&'a mut [f32]>,
}

impl PackedLinear {
    /// * `weight`: `[to, from]`; `bias`: `[to]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    #[must_use]
    pub fn new(level: Level, weight: &[f32], bias: Option<&[f32]>, from: usize, to: usize) -> Self {
        assert_eq!(weight.len(), from * to, "weights of {from} -> {to}");
        let rows = linear_rows(level);
        let tiles = to.div_ceil(rows);
        let mut packed = vec![0.0; tiles * from * rows];
        for (output, weights) in weight.chunks_exact(from.max(1)).enumerate() {
            let tile = &mut packed[output / rows * from * rows..][..from * rows];
            weights
                .iter()
                .zip(tile[output % rows..].iter_mut().step_by(rows))
                .for_each(|(&weight, to)| *to = weight);
        }
        let mut padded = vec![0.0; tiles * rows];
        if let Some(bias) = bias {
            padded[..to].copy_from_slice(bias);
        }
        Self { level, from, to, weight: packed, bias: padded }
    }

    /// The level it was laid out for.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// `(from, to)`.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.from, self.to)
    }

    /// Writes the layer's outputs, `[b, p, to, L]`.
    ///
    /// * `x`: `[b, p, d, L]` of `shape`. The layer reads the first `from` of a token's `d` numbers, so that features that are
    ///   prefixes of one another need to lie in memory once.
    ///
    /// # Panics
    /// If the shapes do not fit, or the panels are of another level.
    pub fn forward(&self, x: &[f32], shape: PanelShape, epilogue: Epilogue<'_>, out: &mut [f32]) {
        assert!(shape.level == self.level && shape.dim >= self.from, "inputs of the layer");
        let out_shape = shape.with_dim(self.to);
        shape.check(x);
        out_shape.check(out);
        if let Epilogue::Add(residual) = epilogue {
            out_shape.check(residual);
        }
        if out.is_empty() {
            return;
        }
        for_each(self.tasks(shape, out), |task| {
            self.level.run(Run { layer: self, x, shape, epilogue, task });
        });
    }

    /// Cuts the outputs into tasks.
    fn tasks<'a>(&self, shape: PanelShape, out: &'a mut [f32]) -> Vec<Task<'a>> {
        let (lanes, rows) = (shape.lanes(), linear_rows(self.level));
        let panels = shape.images * shape.panels();
        let tiles = self.to.div_ceil(rows);
        let (parts, ranges) = cuts(panels, tiles, fitting(self.from, lanes));
        let group = panels.div_ceil(parts);
        let outputs = tiles.div_ceil(ranges) * rows; // of a range
        let mut tasks: Vec<Task<'a>> = Vec::new();
        for (first, out) in (0..panels).step_by(group).zip(out.chunks_mut(group * self.to * lanes)) {
            let start = tasks.len();
            let new = (0..self.to).step_by(outputs);
            tasks.extend(new.map(|output| Task { panel: first, output, out: Vec::with_capacity(group) }));
            for panel in out.chunks_exact_mut(self.to * lanes) {
                for (task, part) in tasks[start..].iter_mut().zip(panel.chunks_mut(outputs * lanes)) {
                    task.out.push(part);
                }
            }
        }
        tasks
    }
}

/// Steps of a block of the inner index.
fn block_steps(from: usize) -> usize {
    from.div_ceil(from.div_ceil(BLOCK_STEPS).max(1)).max(1)
}

/// How many panels' blocks stay in the second-level cache.
fn fitting(from: usize, lanes: usize) -> usize {
    (GROUP_BYTES / (block_steps(from) * lanes * size_of::<f32>())).max(1)
}

/// Into how many parts `panels` and into how many ranges `tiles` of outputs are cut: a few more tasks than threads, of a
/// size at which all threads have most nearly the same to do.
///
/// Every part reads the weights once more, so larger ones are better, as long as they fit the second-level cache. Tasks go to
/// threads in the order of the panels, so that a thread finds in its cache what it wrote in the layer before.
fn cuts(panels: usize, tiles: usize, fitting: usize) -> (usize, usize) {
    let threads = threads();
    if threads == 1 {
        return (1, 1);
    }
    let cost = |part: usize, ranges: usize| {
        let busiest = (panels.div_ceil(part) * ranges).div_ceil(threads) * part * tiles.div_ceil(ranges);
        busiest as f64 * (1.0 + WEIGHTS_AGAIN / part as f64)
    };
    let wanted = TASKS_PER_THREAD * threads;
    (1..=fitting.min(panels))
        .flat_map(|part| {
            let fewest = wanted.div_ceil(panels.div_ceil(part)).min(tiles);
            (fewest..(fewest + 4).min(tiles + 1)).map(move |ranges| (part, ranges))
        })
        .min_by(|&a, &b| cost(a.0, a.1).total_cmp(&cost(b.0, b.1)))
        .map_or((1, 1), |(part, ranges)| (panels.div_ceil(part), ranges))
}

struct Run<'a> {
    layer: &'a PackedLinear,
    x: &'a [f32],
    shape: PanelShape,
    epilogue: Epilogue<'a>,
    task: Task<'a>,
}

vectorized!(Run => run);

#[inline(always)]
fn run<S: Simd, const R: usize, const NV: usize, const L: usize>(simd: S, mut run: Run<'_>) {
    let PackedLinear { from, .. } = *run.layer;
    let mut panels = std::mem::take(&mut run.task.out);
    let steps = block_steps(from);
    let groups = panels.len().div_ceil(fitting(from, L)).max(1);
    let group = panels.len().div_ceil(groups).max(1);
    for (i, out) in panels.chunks_mut(group).enumerate() {
        for start in (0..from.max(1)).step_by(steps) {
            run_block::<S, R, NV, L>(
                simd,
                &run,
                run.task.panel + i * group,
                start..(start + steps).min(from),
                out,
            );
        }
    }
}

/// One block of the inner index, of one group of panels.
#[inline(always)]
fn run_block<S: Simd, const R: usize, const NV: usize, const L: usize>(
    simd: S,
    run: &Run<'_>,
    first: usize,
    block: Range<usize>,
    panels: &mut [&mut [f32]],
) {
    let PackedLinear { from, to, ref weight, ref bias, .. } = *run.layer;
    let outputs = panels.first().map_or(0, |out| out.len() / L);
    let weights = |output: usize| &weight[(output * from + block.start * R).min(weight.len())..];
    let weights = |output: usize| part(weights(output), 0, block.len() * R);
    let epilogue = if block.end == from { run.epilogue } else { Epilogue::Plain };
    for output in (run.task.output..run.task.output + outputs).step_by(R) {
        let (factors, next) = (weights(output).as_chunks::<R>().0, weights(output + R));
        let bias: &[f32; R] = bias[output..].first_chunk().expect("the bias is filled up to whole tiles");
        let rows = R.min(to - output);
        let share = next.len().div_ceil(panels.len());
        for (i, out) in panels.iter_mut().enumerate() {
            let index = first + i;
            let start = (index * run.shape.dim + block.start) * L;
            let panel = vectors::<S, NV>(&run.x[start..][..block.len() * L]);
            let out = vectors_mut::<S, NV>(&mut out[(output - run.task.output) * L..][..rows * L]);
            let residual = match epilogue {
                Epilogue::Add(residual) => &residual[(index * to + output) * L..][..rows * L],
                _ => &[],
            };
            let residual = vectors::<S, NV>(residual);
            let bias = (block.start == 0).then_some(bias);
            let around = Around { bias, epilogue, residual, next: part(next, i, share) };
            // Vectors without a token are left out.
            if run.shape.tokens_of(index) <= S::F32_LANES {
                one_tile::<S, R, NV, 1>(simd, factors, panel, &around, out);
            } else {
                one_tile::<S, R, NV, NV>(simd, factors, panel, &around, out);
            }
        }
    }
}

/// What precedes and follows the sums of a tile.
struct Around<'a, S: Simd, const R: usize, const NV: usize> {
    /// What the first block begins with; the others go on with what is in the output.
    bias: Option<&'a [f32; R]>,
    epilogue: Epilogue<'a>,
    residual: &'a [[S::f32s; NV]],
    /// Weights of the next tile.
    next: &'a [f32],
}

#[inline(always)]
fn one_tile<S: Simd, const R: usize, const NV: usize, const USED: usize>(
    simd: S,
    factors: &[[f32; R]],
    panel: &[[S::f32s; NV]],
    around: &Around<'_, S, R, NV>,
    out: &mut [[S::f32s; NV]],
) {
    let mut sums: tile::Tile<S, R, USED> = [[simd.splat_f32s(0.0); USED]; R];
    if let Some(bias) = around.bias {
        for r in 0..R {
            sums[r] = [simd.splat_f32s(bias[r]); USED];
        }
    } else {
        for (sums, out) in sums.iter_mut().zip(out.iter()) {
            sums.copy_from_slice(&out[..USED]);
        }
    }
    let ahead = tile::Ahead { write: &*out, read: around.residual, later: around.next };
    packed::<S, R, NV, USED>(simd, factors, panel, &ahead, &mut sums);
    match around.epilogue {
        Epilogue::Plain => {}
        Epilogue::Gelu => gelu_tile(simd, &mut sums),
        Epilogue::Add(_) => {
            for (sums, residual) in sums.iter_mut().zip(around.residual) {
                for (sum, &residual) in sums.iter_mut().zip(residual) {
                    *sum = simd.add_f32s(*sum, residual);
                }
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(&sums) {
        out[..USED].copy_from_slice(sums);
    }
}

/// GELU of a whole tile, six vectors at a time.
#[inline(always)]
fn gelu_tile<S: Simd, const R: usize, const USED: usize>(simd: S, tile: &mut tile::Tile<S, R, USED>) {
    let (sixes, rest) = tile.as_chunks_mut::<6>();
    for [a, b, c, d, e, f] in sixes {
        for v in 0..USED {
            [a[v], b[v], c[v], d[v], e[v], f[v]] = gelu(simd, [a[v], b[v], c[v], d[v], e[v], f[v]]);
        }
    }
    for row in rest {
        *row = gelu(simd, *row);
    }
}
