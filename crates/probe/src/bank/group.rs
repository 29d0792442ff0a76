//! Cells that see the same dimensions of the same source, worked on together, image by image.
//!
//! With `X` the image's tokens in panels, `[k, L]` each, and `W` the stacked weights of all members, the scores are `W X`.
//! Every member turns its rows of them into the gradient in its scores, in place, and the gradient in the weights is
//! the sum over tokens of score gradient times token. A linear member's scores go to the grid's layout and back, for the
//! upsampling; a cluster member's stay where they are: its gradient in a token's cosines is one at the nearest centre, and the
//! token's length is divided out there.

use std::ops::Range;

use kernels::{
    Epilogue, Level, PackedLinear, PanelShape, UpsampledSoftmax, one_thread, panel_products, simd,
};
use ndarray::{ArrayView2, ShapeBuilder};

use super::labels::{Form, ImageLabels, Labels};
use super::{BankCell, BankProbe, CellKind};
use crate::cluster_loss::{EPSILON, unit_rows};
use crate::cross_entropy::{Scratch, UpsampledLoss};

/// Cells of one source and one number of dimensions.
pub(super) struct Group {
    pub(super) source: usize,
    pub(super) dim: usize,
    pub(super) members: Vec<Member>,
}

/// One cell of a group, and where its scores are.
pub(super) struct Member {
    /// Its place among all cells.
    pub(super) cell: usize,
    first_row: usize,
    rows: usize,
    linear: bool,
    scale: f32,
}

/// What images add to the gradients of a group.
#[derive(Clone)]
pub(super) struct Sums {
    /// Of every member: `Σ w · loss` over pixels, or the sum over tokens of the best cosine.
    pub(super) losses: Vec<f64>,
    /// `Σ w` over labelled pixels.
    pub(super) weight: f64,
    /// `[rows, k]`.
    pub(super) matrix: Vec<f32>,
    /// `[rows]`.
    pub(super) bias: Vec<f32>,
}

impl Sums {
    /// The sum, in order.
    pub(super) fn total<'a>(mut parts: impl Iterator<Item = &'a Self>) -> Self {
        let mut total = parts.next().expect("a batch has an image").clone();
        for part in parts {
            total.weight += part.weight;
            total.losses.iter_mut().zip(&part.losses).for_each(|(total, x)| *total += x);
            simd(
                #[inline(always)]
                || {
                    for (total, x) in total.matrix.iter_mut().zip(&part.matrix) {
                        *total += x;
                    }
                    for (total, x) in total.bias.iter_mut().zip(&part.bias) {
                        *total += x;
                    }
                },
            );
        }
        total
    }
}

impl Group {
    /// Cells by source and dimension, in rising order of both.
    pub(super) fn of(cells: &[BankCell], classes: usize) -> Vec<Self> {
        let mut order: Vec<usize> = (0..cells.len()).collect();
        order.sort_by_key(|&i| (cells[i].source, cells[i].dim));
        let mut groups: Vec<Self> = Vec::new();
        for i in order {
            let cell = cells[i];
            if groups.last().is_none_or(|group| (group.source, group.dim) != (cell.source, cell.dim)) {
                groups.push(Self { source: cell.source, dim: cell.dim, members: Vec::new() });
            }
            let group = groups.last_mut().expect("pushed above");
            let (rows, linear) = match cell.kind {
                CellKind::Linear => (classes, true),
                CellKind::Cluster(clusters) => (clusters, false),
            };
            let first_row = group.rows();
            group.members.push(Member { cell: i, first_row, rows, linear, scale: cell.scale });
        }
        groups
    }

    /// Rows of the stacked weights.
    pub(super) fn rows(&self) -> usize {
        self.members.last().map_or(0, |member| member.first_row + member.rows)
    }

    pub(super) fn rows_of(&self, member: usize) -> Range<usize> {
        let member = &self.members[member];
        member.first_row..member.first_row + member.rows
    }

    /// The stacked weights: those of linear probes with the token's scale, and centres of length one.
    pub(super) fn layer(&self, level: Level, probes: &[&BankProbe]) -> PackedLinear {
        let mut weight = Vec::with_capacity(self.rows() * self.dim);
        let mut bias = Vec::with_capacity(self.rows());
        for member in &self.members {
            match probes[member.cell] {
                BankProbe::Linear(probe) => {
                    weight.extend(probe.weight.iter().map(|&w| w * member.scale));
                    bias.extend(&probe.bias);
                }
                BankProbe::Cluster(probe) => {
                    weight.extend(unit_rows(probe.centres.view()));
                    bias.resize(bias.len() + member.rows, 0.0);
                }
            }
        }
        PackedLinear::new(level, &weight, Some(&bias), self.dim, self.rows())
    }
}

/// Buffers of a thread.
#[derive(Default)]
pub(super) struct Worker {
    scores: Vec<f32>,   // [p, rows, L]
    lengths: Vec<f32>,  // [p, L]: squared, then inverse lengths
    inverse: Vec<f32>,  // [p, L]
    map: Vec<f32>,      // [gh, c, row]
    gradient: Vec<f32>, // [gh, c, row]
    softmax: UpsampledSoftmax,
    scratch: Scratch,
}

impl Worker {
    /// What one image adds to the groups of one source, in their order, which is that of rising dimensions.
    pub(super) fn image<'g>(
        &mut self,
        groups: impl Iterator<Item = (&'g Group, &'g PackedLinear)>,
        tokens: &[f32],
        shape: PanelShape,
        grid: (usize, usize),
        labels: &Labels<'_>,
        image: &ImageLabels,
    ) -> Vec<Sums> {
        self.lengths.clear();
        self.lengths.resize(shape.panels() * shape.lanes(), 0.0);
        let mut known = 0;
        let mut all = Vec::new();
        for (group, layer) in groups {
            let rows = shape.with_dim(group.rows());
            self.scores.resize(rows.len(), 0.0);
            one_thread(|| layer.forward(tokens, shape, Epilogue::Plain, &mut self.scores));
            add_squares(tokens, shape, known..group.dim, &mut self.lengths);
            known = group.dim;
            self.inverse.clear();
            self.inverse.extend(self.lengths.iter().map(|&square| 1.0 / square.sqrt().max(EPSILON)));
            let mut sums = Sums {
                losses: Vec::with_capacity(group.members.len()),
                weight: image.weight,
                matrix: vec![0.0; group.rows() * group.dim],
                bias: vec![0.0; group.rows()],
            };
            for member in &group.members {
                sums.losses.push(if member.linear {
                    self.linear(member, rows, grid, labels, image, &mut sums.bias)
                } else {
                    self.cluster(member, rows)
                });
            }
            panel_products(&self.scores, rows, tokens, shape, group.dim, &mut sums.matrix);
            all.push(sums);
        }
        all
    }

    /// Replaces a linear member's scores by the gradient in them.
    fn linear(
        &mut self,
        member: &Member,
        shape: PanelShape,
        (gh, gw): (usize, usize),
        labels: &Labels<'_>,
        image: &ImageLabels,
        bias: &mut [f32],
    ) -> f64 {
        let classes = member.rows;
        let (Some(spans), Form::Spans { weights, mass }) = (labels.spans(), &image.form) else {
            return self.linear_of_any_size(member, shape, (gh, gw), labels, image, bias);
        };
        self.map.resize(spans.scores_len(classes), 0.0);
        self.gradient.resize(spans.scores_len(classes), 0.0);
        for i in 0..gh {
            for class in 0..classes {
                let at = spans.tokens(i, class, classes);
                gather(&self.scores, shape, member.first_row + class, i * gw, &mut self.map[at]);
            }
        }
        spans.repeat_outermost(&mut self.map);
        let mut loss = self.softmax.run(shape.level, spans, classes, &self.map, weights, &mut self.gradient);
        for i in 0..gh {
            for class in 0..classes {
                let at = spans.tokens(i, class, classes);
                let (map, mass) = (&self.map[at.clone()], &mass[at.clone()]);
                loss -= map.iter().zip(mass).map(|(&x, &m)| f64::from(x) * f64::from(m)).sum::<f64>();
                let gradient = &mut self.gradient[at];
                gradient.iter_mut().zip(mass).for_each(|(g, m)| *g -= m);
                bias[member.first_row + class] += gradient.iter().sum::<f32>();
                scatter(&mut self.scores, shape, member.first_row + class, i * gw, gradient);
            }
        }
        clear_behind(&mut self.scores, shape, member.first_row..member.first_row + classes);
        loss
    }

    /// The same where the label map is no whole multiple of the grid.
    fn linear_of_any_size(
        &mut self,
        member: &Member,
        shape: PanelShape,
        grid: (usize, usize),
        labels: &Labels<'_>,
        image: &ImageLabels,
        bias: &mut [f32],
    ) -> f64 {
        let Form::Any(map) = &image.form else { return 0.0 };
        let (classes, tokens) = (member.rows, shape.tokens);
        let loss = UpsampledLoss::new(grid, map.dim(), classes).expect("checked when the bank was made");
        self.map.resize(classes * tokens, 0.0);
        for (class, row) in self.map.chunks_exact_mut(tokens).enumerate() {
            gather(&self.scores, shape, member.first_row + class, 0, row);
        }
        let logits = ArrayView2::from_shape((tokens, classes).strides((1, tokens)), &self.map);
        let logits = logits.expect("a row per class");
        let out = loss.image(logits, map.view(), labels.weight_of_label(), &mut self.scratch);
        let mut line = vec![0.0; tokens];
        for (class, column) in out.grad_logits.columns().into_iter().enumerate() {
            line.iter_mut().zip(column).for_each(|(to, &x)| *to = x);
            bias[member.first_row + class] += line.iter().sum::<f32>();
            scatter(&mut self.scores, shape, member.first_row + class, 0, &line);
        }
        clear_behind(&mut self.scores, shape, member.first_row..member.first_row + classes);
        out.sum
    }

    /// Replaces a cluster member's scores by the gradient of the best cosines' sum, and returns that sum.
    fn cluster(&mut self, member: &Member, shape: PanelShape) -> f64 {
        let (lanes, rows) = (shape.lanes(), member.rows);
        let mut sum = 0.0;
        for (p, panel) in self.scores.chunks_exact_mut(shape.dim * lanes).enumerate() {
            let count = (shape.tokens - p * lanes).min(lanes);
            let inverse = &self.inverse[p * lanes..][..lanes];
            let scores = &mut panel[member.first_row * lanes..][..rows * lanes];
            let mut best = [f32::NEG_INFINITY; MOST_LANES];
            let mut which = [0_u32; MOST_LANES];
            let (best, which) = (&mut best[..lanes], &mut which[..lanes]);
            simd(
                #[inline(always)]
                || {
                    best.copy_from_slice(&scores[..lanes]);
                    for (row, scores) in (0_u32..).zip(scores.chunks_exact(lanes)).skip(1) {
                        for lane in 0..lanes {
                            // The first of equals, and a NaN over everything, so that it is seen in the loss.
                            let x = scores[lane];
                            let better = x > best[lane] || x.is_nan();
                            best[lane] = if better { x } else { best[lane] };
                            which[lane] = if better { row } else { which[lane] };
                        }
                    }
                    for (row, scores) in (0_u32..).zip(scores.chunks_exact_mut(lanes)) {
                        for lane in 0..lanes {
                            let is = which[lane] == row && lane < count;
                            scores[lane] = if is { inverse[lane] } else { 0.0 };
                        }
                    }
                },
            );
            sum += best[..count].iter().zip(inverse).map(|(&s, &i)| f64::from(s * i)).sum::<f64>();
        }
        sum
    }
}

/// At least the widest panel of all levels.
const MOST_LANES: usize = 64;

/// Adds the squares of some of the tokens' numbers, `[p, L]`.
fn add_squares(tokens: &[f32], shape: PanelShape, range: Range<usize>, squares: &mut [f32]) {
    let lanes = shape.lanes();
    let panels = tokens.chunks_exact(shape.dim * lanes).zip(squares.chunks_exact_mut(lanes));
    for (panel, squares) in panels {
        simd(
            #[inline(always)]
            || {
                for row in panel[range.start * lanes..range.end * lanes].chunks_exact(lanes) {
                    for (square, &x) in squares.iter_mut().zip(row) {
                        *square += x * x;
                    }
                }
            },
        );
    }
}

/// The pieces of a range of tokens that lie together: place in the panels, place in the range, length.
fn pieces(
    shape: PanelShape,
    row: usize,
    first: usize,
    count: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let lanes = shape.lanes();
    let mut done = 0;
    std::iter::from_fn(move || {
        let token = first + done;
        let len = (lanes - token % lanes).min(count - done);
        let piece = ((token / lanes * shape.dim + row) * lanes + token % lanes, done..done + len);
        done += len;
        (len > 0).then_some(piece)
    })
}

/// Reads one number of neighbouring tokens.
pub(super) fn gather(panels: &[f32], shape: PanelShape, row: usize, first: usize, to: &mut [f32]) {
    for (at, range) in pieces(shape, row, first, to.len()) {
        to[range.clone()].copy_from_slice(&panels[at..][..range.len()]);
    }
}

/// Writes one number of neighbouring tokens.
fn scatter(panels: &mut [f32], shape: PanelShape, row: usize, first: usize, from: &[f32]) {
    for (at, range) in pieces(shape, row, first, from.len()) {
        panels[at..][..range.len()].copy_from_slice(&from[range]);
    }
}

/// Makes some rows zero behind the last token.
fn clear_behind(panels: &mut [f32], shape: PanelShape, rows: Range<usize>) {
    let (lanes, used) = (shape.lanes(), shape.tokens % shape.lanes());
    if used > 0 {
        let last = (shape.panels() - 1) * shape.dim * lanes;
        for row in rows {
            panels[last + row * lanes..][used..lanes].fill(0.0);
        }
    }
}
