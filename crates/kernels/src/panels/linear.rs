//! The linear layer `y = x Wᵀ + b` on panels, with what follows it done while the results are at hand.
//!
//! The weights are laid out once as `[to / R, from, R]`, the order in which tiles read them. A task is a few panels times
//! a range of outputs: the weights of one row of tiles stay in the first cache while the panels, which fit
//! the second, go by.

use pulp::Simd;

use super::math::gelu;
use super::tile::{linear_rows, packed, vectorized, vectors, vectors_mut};
use super::work::{for_each, threads};
use super::{PanelShape, tile};
use crate::Level;

/// Bytes of panels that a task goes over again and again: half of a small second-level cache.
const GROUP_BYTES: usize = 256 * 1024;

/// Tasks per thread that are aimed at, so that a slow one does not hold up the others.
const TASKS_PER_THREAD: usize = 3;

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
    /// * `x`: `[b, p, from, L]` of `shape`.
    ///
    /// # Panics
    /// If the shapes do not fit, or the panels are of another level.
    pub fn forward(&self, x: &[f32], shape: PanelShape, epilogue: Epilogue<'_>, out: &mut [f32]) {
        assert_eq!((shape.level, shape.dim), (self.level, self.from), "inputs of the layer");
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
        let wanted = if threads() == 1 { 1 } else { TASKS_PER_THREAD * threads() };
        let fitting = (GROUP_BYTES / (self.from.max(1) * lanes * size_of::<f32>())).max(1);
        let group = fitting.min(panels.div_ceil(wanted)).max(1);
        let ranges = ranges(panels.div_ceil(group), wanted).min(self.to.div_ceil(rows));
        let outputs = self.to.div_ceil(rows).div_ceil(ranges) * rows; // of a range
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

/// Into how many ranges of outputs a layer is cut, so that `groups` of panels make at least `wanted` tasks: the number,
/// of a few, at which all threads have most nearly the same to do.
fn ranges(groups: usize, wanted: usize) -> usize {
    let fewest = wanted.div_ceil(groups);
    let rounds = |ranges: usize| (groups * ranges).div_ceil(threads()) as f64 / ranges as f64;
    (fewest..fewest + 4).min_by(|&a, &b| rounds(a).total_cmp(&rounds(b))).unwrap_or(fewest)
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
    let PackedLinear { from, to, weight, bias, .. } = run.layer;
    let Task { panel: first, output: start, out } = &mut run.task;
    let outputs = out.first().map_or(0, |out| out.len() / L);
    for output in (*start..*start + outputs).step_by(R) {
        let factors = weight[output * from..][..from * R].as_chunks::<R>().0;
        let bias: &[f32; R] = bias[output..].first_chunk().expect("the bias is filled up to whole tiles");
        let rows = R.min(to - output);
        for (i, out) in out.iter_mut().enumerate() {
            let index = *first + i;
            let panel = vectors::<S, NV>(&run.x[index * from * L..][..from * L]);
            let out = vectors_mut::<S, NV>(&mut out[(output - *start) * L..][..rows * L]);
            let residual = match run.epilogue {
                Epilogue::Add(residual) => &residual[(index * to + output) * L..][..rows * L],
                _ => &[],
            };
            let last = Last { epilogue: run.epilogue, residual: vectors::<S, NV>(residual) };
            // Vectors without a token are left out.
            if run.shape.tokens_of(index) <= S::F32_LANES {
                one_tile::<S, R, NV, 1>(simd, factors, panel, bias, &last, out);
            } else {
                one_tile::<S, R, NV, NV>(simd, factors, panel, bias, &last, out);
            }
        }
    }
}

/// The epilogue at one tile.
struct Last<'a, S: Simd, const NV: usize> {
    epilogue: Epilogue<'a>,
    residual: &'a [[S::f32s; NV]],
}

#[inline(always)]
fn one_tile<S: Simd, const R: usize, const NV: usize, const USED: usize>(
    simd: S,
    factors: &[[f32; R]],
    panel: &[[S::f32s; NV]],
    bias: &[f32; R],
    last: &Last<'_, S, NV>,
    out: &mut [[S::f32s; NV]],
) {
    let mut sums: tile::Tile<S, R, USED> = [[simd.splat_f32s(0.0); USED]; R];
    for r in 0..R {
        sums[r] = [simd.splat_f32s(bias[r]); USED];
    }
    packed::<S, R, NV, USED>(simd, factors, panel, &mut sums);
    match last.epilogue {
        Epilogue::Plain => {
            for (out, sums) in out.iter_mut().zip(&sums) {
                out[..USED].copy_from_slice(sums);
            }
        }
        Epilogue::Gelu => {
            for (out, sums) in out.iter_mut().zip(&sums) {
                for (out, &sum) in out.iter_mut().zip(sums) {
                    *out = gelu(simd, sum);
                }
            }
        }
        Epilogue::Add(_) => {
            for ((out, sums), residual) in out.iter_mut().zip(&sums).zip(last.residual) {
                for ((out, &sum), &residual) in out.iter_mut().zip(sums).zip(residual) {
                    *out = simd.add_f32s(sum, residual);
                }
            }
        }
    }
}
