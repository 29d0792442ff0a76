//! A bank: many probes trained side by side, so that every batch is read, decoded and projected once.
//!
//! A [`BankCell`] is one probe: a source, how many of its dimensions it sees, what kind it is, and its seed. Cells that share a source
//! and a number of dimensions form a [`Group`](group::Group): their weights are stacked to one matrix, so that an image's
//! scores of all of them are one product, and their gradients another one. Between the two stands what is each
//! probe's own: the upsampled cross-entropy of a linear probe, the nearest centre of a cluster probe.
//!
//! Everything a cell's numbers depend on is its own: initial weights come from its seed, batches from the schedule, and
//! no sum runs over more than one cell. So a probe trained in a bank has bit for bit the weights that it has when it is trained
//! alone. Tasks are (image, source); gradients are added up in the order of the images.

mod group;
mod labels;
mod score;
mod set;
mod state;

pub use score::BankScorer;
pub use set::{BankBatch, BankSet, FetchError, RowSet};
pub use state::BankState;

use std::ops::ControlFlow;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::cluster_loss::through_unit_rows;
use crate::error::expect_range;
use crate::schedule::Batches;
use crate::{Adam, ClusterProbe, Error, LinearProbe, Probe, Result, Schedule, Step, upsample_argmax};
use group::{Group, Sums, Worker};
use labels::Labels;

/// What kind of probe a cell trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellKind {
    /// A [`LinearProbe`].
    Linear,
    /// A [`ClusterProbe`] with this many centres.
    Cluster(usize),
}

/// One probe of a bank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BankCell {
    /// Which source it sees.
    pub source: usize,
    /// `k`: it sees the first `k` numbers of every token,
    pub dim: usize,
    /// times this factor (`√(K / k)` for a random projection).
    pub scale: f32,
    /// Linear or cluster probe.
    pub kind: CellKind,
    /// Seed of its initial weights.
    pub seed: u64,
}

/// A trained probe.
#[derive(Debug, Clone, PartialEq)]
pub enum BankProbe {
    /// Weights for tokens that have been scaled.
    Linear(LinearProbe),
    /// Centres.
    Cluster(ClusterProbe),
}

impl Probe for BankProbe {
    fn outputs(&self) -> usize {
        match self {
            Self::Linear(probe) => probe.outputs(),
            Self::Cluster(probe) => probe.outputs(),
        }
    }

    fn scores(&self, tokens: ArrayView2<'_, f32>) -> Array2<f32> {
        match self {
            Self::Linear(probe) => probe.scores(tokens),
            Self::Cluster(probe) => probe.scores(tokens),
        }
    }
}

impl BankProbe {
    /// Predicted class or cluster per pixel, `[h, w]`, from the tokens `[t, k]` of one image.
    ///
    /// # Panics
    /// As [`upsample_argmax`] and [`Probe::scores`].
    pub fn predict(
        &self,
        tokens: ArrayView2<'_, f32>,
        grid: (usize, usize),
        size: (usize, usize),
    ) -> Array2<u8> {
        upsample_argmax(self.scores(tokens).view(), grid, size)
    }
}

/// How a bank is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct BankParams {
    /// Steps, batches and learning rate.
    pub schedule: Schedule,
    /// `[c]`, the weight of a pixel of each class in the cross-entropy, whose mean is over weights; ones as published.
    /// Labels of `c` and more are ignored.
    pub class_weights: Vec<f32>,
}

/// What happened in a step of a bank.
#[derive(Debug, Clone, PartialEq)]
pub struct BankStep<'a> {
    /// The step, counted from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The loss of every cell before the step; `None` for a linear probe whose batch has no labelled pixel, and for a cell that
    /// failed earlier.
    pub losses: &'a [Option<f64>],
}

/// Probes in training.
pub struct Bank<'a> {
    params: BankParams,
    set: &'a dyn BankSet,
    cells: Vec<Trainee>,
    groups: Vec<Group>,
    labels: Labels<'a>,
    batches: Batches,
    step: usize,
}

/// One cell with its optimiser.
struct Trainee {
    cell: BankCell,
    probe: BankProbe,
    adam: Vec<Adam>,
    failed: Option<Error>,
}

impl BankParams {
    /// Trains probes, and returns them in the order of the cells. A probe that diverges ends with
    /// [`Error::Diverged`]; the others go on.
    ///
    /// `on_step` is called after every step and stops the training by returning `Break`.
    ///
    /// # Errors
    /// [`Error::Empty`] and [`Error::Range`] for nothing to train on, [`Error::Fetch`] if images cannot be read, and
    /// [`Error::Interrupted`] after a `Break`.
    pub fn fit(
        &self,
        set: &dyn BankSet,
        cells: &[BankCell],
        on_step: &mut dyn FnMut(BankStep<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Result<BankProbe>>> {
        let mut bank = Bank::new(self.clone(), set, cells)?;
        while bank.step() < self.schedule.steps && bank.is_alive() {
            let losses = bank.advance()?;
            let step = BankStep { step: bank.step(), steps: self.schedule.steps, losses: &losses };
            if on_step(step).is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok(bank.finish())
    }
}

impl<'a> Bank<'a> {
    /// A bank that has made no step yet.
    ///
    /// # Errors
    /// [`Error::Empty`] and [`Error::Range`] for nothing to train on.
    pub fn new(params: BankParams, set: &'a dyn BankSet, cells: &[BankCell]) -> Result<Self> {
        let (dims, c) = (set.dims(), params.class_weights.len());
        params.schedule.check(set)?;
        expect_range((1..=255).contains(&c), "number of classes", "1 to 255", c)?;
        for &weight in &params.class_weights {
            expect_range(weight.is_finite() && weight >= 0.0, "class weight", "0 or more", weight)?;
        }
        for cell in cells {
            expect_range(cell.source < dims.len(), "source of a probe", "one of the set's", cell.source)?;
            let most = dims[cell.source];
            let range = format!("1 to {most}");
            expect_range((1..=most).contains(&cell.dim), "dimensions of a probe", &range, cell.dim)?;
            if let CellKind::Cluster(m) = cell.kind {
                expect_range((1..=256).contains(&m), "number of clusters", "1 to 256", m)?;
            }
        }
        let rate = params.schedule.learning_rate;
        let trainee = |&cell: &BankCell| Trainee::new(cell, c, rate, 0);
        Ok(Self {
            groups: Group::of(cells, c),
            cells: cells.iter().map(trainee).collect(),
            labels: Labels::new(set, &params.class_weights),
            batches: Batches::new(set.len(), params.schedule.batch_size, params.schedule.order_seed),
            params,
            set,
            step: 0,
        })
    }

    /// Steps made so far.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Makes a step, and returns every cell's loss before it.
    ///
    /// # Errors
    /// [`Error::Fetch`] if images cannot be read.
    pub fn advance(&mut self) -> Result<Vec<Option<f64>>> {
        if self.params.schedule.reset_step == Some(self.step) {
            self.reset();
        }
        let indices = self.batches.next().to_vec();
        let step = self.step + 1;
        let fetch = |source| Error::Fetch { step, source };
        let sums =
            gradients(self.set, &self.labels, &self.groups, &self.probes(), &indices).map_err(fetch)?;
        self.step = step;
        let groups = &self.groups;
        let tokens = (indices.len() * self.set.shape(1).tokens) as f64;
        let mut places = vec![(0, 0); self.cells.len()];
        for (g, group) in groups.iter().enumerate() {
            group.members.iter().enumerate().for_each(|(m, member)| places[member.cell] = (g, m));
        }
        let update = |(trainee, &(g, m)): (&mut Trainee, &(usize, usize))| {
            trainee.update(step, groups[g].gradient(m, &sums[g], trainee.cell, &trainee.probe, tokens))
        };
        Ok(self.cells.par_iter_mut().zip(&places).map(update).collect())
    }

    /// Whether a cell is left that has not failed.
    pub fn is_alive(&self) -> bool {
        self.cells.iter().any(|cell| cell.failed.is_none())
    }

    /// The trained probes, or why there is none.
    pub fn finish(self) -> Vec<Result<BankProbe>> {
        self.cells.into_iter().map(|cell| cell.failed.map_or(Ok(cell.probe), Err)).collect()
    }

    fn probes(&self) -> Vec<&BankProbe> {
        self.cells.iter().map(|cell| &cell.probe).collect()
    }

    /// Fresh weights and optimisers for all (the original's `reset_probe_steps`).
    fn reset(&mut self) {
        let (classes, rate) = (self.params.class_weights.len(), self.params.schedule.learning_rate);
        for trainee in &mut self.cells {
            if trainee.failed.is_none() {
                *trainee = Trainee::new(trainee.cell, classes, rate, 1);
            }
        }
    }
}

impl Trainee {
    /// The `draw`-th fresh probe of a cell.
    fn new(cell: BankCell, classes: usize, rate: f32, draw: u64) -> Self {
        let mut rng = Schedule::weights_rng(cell.seed, draw);
        let (probe, sizes) = match cell.kind {
            CellKind::Linear => {
                let probe = LinearProbe::initial(classes, cell.dim, &mut rng);
                let sizes = vec![probe.weight.len(), probe.bias.len()];
                (BankProbe::Linear(probe), sizes)
            }
            CellKind::Cluster(clusters) => {
                let probe = ClusterProbe::initial(clusters, cell.dim, &mut rng);
                let sizes = vec![probe.centres.len()];
                (BankProbe::Cluster(probe), sizes)
            }
        };
        Self { cell, probe, adam: sizes.into_iter().map(|n| Adam::new(rate, n)).collect(), failed: None }
    }

    /// One step of the optimiser; a probe whose loss is not finite is given up.
    fn update(&mut self, step: usize, gradient: CellGradient) -> Option<f64> {
        if self.failed.is_some() {
            return None;
        }
        if let Some(loss) = gradient.loss.filter(|loss| !loss.is_finite()) {
            self.failed = Some(Error::Diverged { step, loss });
            return None;
        }
        let parameters = match &mut self.probe {
            BankProbe::Linear(probe) => vec![probe.weight.as_slice_mut(), probe.bias.as_slice_mut()],
            BankProbe::Cluster(probe) => vec![probe.centres.as_slice_mut()],
        };
        for ((adam, parameters), gradient) in
            self.adam.iter_mut().zip(parameters).zip([&gradient.matrix, &gradient.bias])
        {
            adam.step(parameters.expect("made here, in standard layout"), gradient);
        }
        gradient.loss
    }
}

/// Loss and gradient of one cell.
pub(crate) struct CellGradient {
    pub(crate) loss: Option<f64>,
    /// `[c, k]` of weights or `[m, k]` of centres.
    pub(crate) matrix: Vec<f32>,
    /// `[c]`; empty for centres.
    pub(crate) bias: Vec<f32>,
}

/// What some images add to the gradients of all groups: one task per image and source, sums in the order of the images.
fn gradients(
    set: &dyn BankSet,
    labels: &Labels<'_>,
    groups: &[Group],
    probes: &[&BankProbe],
    indices: &[usize],
) -> Result<Vec<Sums>, FetchError> {
    let batch = set.batch(indices)?;
    let level = set.shape(1).level;
    let layers: Vec<_> = groups.iter().map(|group| group.layer(level, probes)).collect();
    let dims = set.dims();
    let sources: Vec<usize> = {
        let mut sources: Vec<_> = groups.iter().map(|group| group.source).collect();
        sources.dedup();
        sources
    };
    let tasks: Vec<(usize, usize)> =
        (0..indices.len()).flat_map(|place| sources.iter().map(move |&source| (place, source))).collect();
    let run = |worker: &mut Worker, &(place, source): &(usize, usize)| -> Result<Vec<Sums>, FetchError> {
        let tokens = batch.tokens(source, place)?;
        let image = labels.get(indices[place]);
        let of_source = groups.iter().zip(&layers).filter(|(group, _)| group.source == source);
        Ok(worker.image(of_source, &tokens, set.shape(dims[source]), set.grid(), labels, &image))
    };
    let done: Vec<_> =
        tasks.par_iter().with_max_len(1).map_init(Worker::default, run).collect::<Result<_, FetchError>>()?;
    // `done[place · sources + s]` holds the groups of source `s`, in order.
    let mut first = 0;
    let mut of_groups: Vec<(usize, usize)> = Vec::new(); // (index of the source, place among its groups)
    for (s, source) in sources.iter().enumerate() {
        let count = groups[first..].iter().take_while(|group| group.source == *source).count();
        of_groups.extend((0..count).map(|at| (s, at)));
        first += count;
    }
    let sum = |&(s, at): &(usize, usize)| {
        Sums::total((0..indices.len()).map(|place| &done[place * sources.len() + s][at]))
    };
    Ok(of_groups.par_iter().map(sum).collect())
}

/// Trains a probe that sees the whole first source.
pub(crate) fn fit_one(
    set: &dyn BankSet,
    schedule: Schedule,
    classes: usize,
    (kind, seed): (CellKind, u64),
    on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<BankProbe> {
    let cell = BankCell { source: 0, dim: set.dims()[0], scale: 1.0, kind, seed };
    let params = BankParams { schedule, class_weights: vec![1.0; classes] };
    let mut each =
        |step: BankStep<'_>| on_step(Step { step: step.step, steps: step.steps, loss: step.losses[0] });
    params.fit(set, &[cell], &mut each)?.remove(0)
}

/// Loss and gradient of a linear probe on all images of a set; see [`LinearProbe::gradient`].
pub(crate) fn linear_gradient(set: &dyn BankSet, probe: &LinearProbe) -> Result<CellGradient> {
    let (classes, dim) = probe.weight.dim();
    let cell = BankCell { source: 0, dim, scale: 1.0, kind: CellKind::Linear, seed: 0 };
    let labels = Labels::new(set, &vec![1.0; classes]);
    let groups = Group::of(&[cell], classes);
    let probe = BankProbe::Linear(probe.clone());
    let indices: Vec<usize> = (0..set.len()).collect();
    let sums = gradients(set, &labels, &groups, &[&probe], &indices)
        .map_err(|source| Error::Fetch { step: 1, source })?;
    Ok(groups[0].gradient(0, &sums[0], cell, &probe, 1.0))
}

impl Group {
    /// The gradient of a member, from the sums over the batch of `tokens` tokens.
    fn gradient(
        &self,
        member: usize,
        sums: &Sums,
        cell: BankCell,
        probe: &BankProbe,
        tokens: f64,
    ) -> CellGradient {
        let rows = self.rows_of(member);
        let matrix = &sums.matrix[rows.start * self.dim..rows.end * self.dim];
        match probe {
            BankProbe::Linear(_) => {
                let part = if sums.weight > 0.0 { (1.0 / sums.weight) as f32 } else { 0.0 };
                CellGradient {
                    loss: (sums.weight > 0.0).then(|| sums.losses[member] / sums.weight),
                    matrix: matrix.iter().map(|&x| x * part * cell.scale).collect(),
                    bias: sums.bias[rows].iter().map(|&x| x * part).collect(),
                }
            }
            BankProbe::Cluster(probe) => {
                let part = (-1.0 / tokens) as f32;
                let slope = matrix.iter().map(|&x| x * part).collect();
                let slope = Array2::from_shape_vec(probe.centres.dim(), slope).expect("a row per centre");
                let slope = through_unit_rows(probe.centres.view(), slope);
                CellGradient {
                    loss: Some(-sums.losses[member] / tokens),
                    matrix: slope.iter().copied().collect(),
                    bias: Vec::new(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array3};

    use super::*;
    use crate::masked_cross_entropy_upsampled;
    use crate::schedule::tests::Halves;

    /// Tokens and labels with many values, on a grid of 3 × 5 tokens under maps of `size`.
    fn images(n: usize, dim: usize, (h, w): (usize, usize)) -> (Array3<f32>, Array3<u8>) {
        let tokens =
            Array::from_shape_fn((n, 15, dim), |(i, t, k)| ((i * 131 + t * 17 + k * 5) as f32).sin());
        let labels = Array::from_shape_fn((n, h, w), |(i, y, x)| match (i + 3 * y + y * x / 4) % 6 {
            5 => 255,
            label => label as u8,
        });
        (tokens, labels)
    }

    fn cells() -> Vec<BankCell> {
        let mut cells = Vec::new();
        for seed in 0..3 {
            for dim in [1, 3, 7, 12] {
                for kind in [CellKind::Linear, CellKind::Cluster(5), CellKind::Cluster(7)] {
                    cells.push(BankCell { source: 0, dim, scale: 1.0 + dim as f32, kind, seed });
                }
            }
        }
        cells
    }

    fn params(steps: usize) -> BankParams {
        let schedule = Schedule { steps, batch_size: 4, learning_rate: 0.05, ..Schedule::default() };
        BankParams { schedule, class_weights: vec![1.0; 5] }
    }

    fn fit(params: &BankParams, set: &dyn BankSet, cells: &[BankCell]) -> Vec<BankProbe> {
        let fitted = params.fit(set, cells, &mut |_| ControlFlow::Continue(())).unwrap();
        fitted.into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn alone_or_in_company_on_any_number_of_threads_the_bits_are_the_same() {
        for size in [(12, 20), (13, 22)] {
            let (tokens, labels) = images(9, 12, size);
            let set = RowSet { tokens: tokens.view(), grid: (3, 5), labels: labels.view() };
            let (cells, params) = (cells(), params(12));
            let together = fit(&params, &set, &cells);
            for threads in [1, 2, 8] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| fit(&params, &set, &cells)), together, "{threads} threads");
            }
            for (cell, probe) in cells.iter().zip(&together) {
                assert_eq!(&fit(&params, &set, &[*cell])[0], probe, "{cell:?} of {size:?}");
            }
        }
    }

    #[test]
    fn gradient_of_upsampled_logits_is_that_of_pixel_by_pixel() {
        for size in [(24, 40), (21, 35), (3, 5), (48, 80), (6, 40)] {
            let (tokens, labels) = images(2, 4, size);
            let set = RowSet { tokens: tokens.view(), grid: (3, 5), labels: labels.view() };
            for scale in [1.0, 30.0, 300.0] {
                let mut probe = LinearProbe::initial(5, 4, &mut Schedule::weights_rng(1, 0));
                probe.weight *= scale;
                let got = linear_gradient(&set, &probe).unwrap();
                let rows = tokens.to_shape((30, 4)).unwrap();
                let logits =
                    crate::Probe::scores(&probe, rows.view()).into_shape_with_order((2, 15, 5)).unwrap();
                let want = masked_cross_entropy_upsampled(logits.view(), (3, 5), labels.view()).unwrap();
                let slope = want.grad_logits.to_shape((30, 5)).unwrap().t().dot(&rows); // [c, k]
                let loss = want.loss.unwrap();
                assert!(
                    (got.loss.unwrap() - loss).abs() < 1e-5 * loss.abs().max(1.0),
                    "{size:?} {scale}: loss"
                );
                let most = slope.fold(0.0_f32, |most, x| most.max(x.abs()));
                for (got, want) in got.matrix.iter().zip(slope.iter()) {
                    assert!((got - want).abs() < 2e-5 * most.max(0.1), "{size:?} {scale}: {got} for {want}");
                }
            }
        }
    }

    #[test]
    fn gradient_of_centres_is_that_of_the_cluster_loss() {
        let (tokens, labels) = images(3, 12, (12, 20));
        let set = RowSet { tokens: tokens.view(), grid: (3, 5), labels: labels.view() };
        let cell = BankCell { source: 0, dim: 12, scale: 2.0, kind: CellKind::Cluster(7), seed: 3 };
        let mut bank = Bank::new(params(1), &set, &[cell]).unwrap();
        let before = ClusterProbe::initial(7, 12, &mut Schedule::weights_rng(3, 0));
        let indices = Batches::new(3, 4, 0).next().to_vec();
        let batch = tokens.select(ndarray::Axis(0), &indices);
        let want = before.gradient(batch.view(), None).unwrap();
        let loss = bank.advance().unwrap()[0].unwrap();
        assert!((loss - want.loss).abs() < 1e-6, "{loss} for {}", want.loss);
        let mut centres = before.centres.clone();
        Adam::new(0.05, 84).step(centres.as_slice_mut().unwrap(), want.centres.as_slice().unwrap());
        let BankProbe::Cluster(after) = bank.finish().remove(0).unwrap() else { panic!("a cluster probe") };
        assert!(centres.iter().zip(&after.centres).all(|(a, b)| (a - b).abs() < 2e-4));
    }

    #[test]
    fn class_weights_count_pixels_several_times() {
        let (tokens, mut labels) = images(2, 4, (12, 20));
        labels.mapv_inplace(|label| if label == 2 { 255 } else { label });
        let gradient = |weights: &[f32], labels: &Array3<u8>| {
            let set = RowSet { tokens: tokens.view(), grid: (3, 5), labels: labels.view() };
            let prepared = Labels::new(&set, weights);
            let cell = BankCell { source: 0, dim: 4, scale: 1.0, kind: CellKind::Linear, seed: 0 };
            let groups = Group::of(&[cell], weights.len());
            let probe = BankProbe::Linear(LinearProbe::initial(5, 4, &mut Schedule::weights_rng(1, 0)));
            let sums = gradients(&set, &prepared, &groups, &[&probe], &[0, 1]).unwrap();
            groups[0].gradient(0, &sums[0], cell, &probe, 1.0)
        };
        let (plain, same) = (gradient(&[1.0; 5], &labels), gradient(&[3.0; 5], &labels));
        assert!((plain.loss.unwrap() - same.loss.unwrap()).abs() < 1e-6);
        // Weight 0 is the same as no label.
        let without = labels.mapv(|label| if label == 1 { 255 } else { label });
        let (zero, absent) = (gradient(&[1.0, 0.0, 1.0, 1.0, 1.0], &labels), gradient(&[1.0; 5], &without));
        assert_eq!((zero.loss, zero.matrix), (absent.loss, absent.matrix));
    }

    #[test]
    fn a_probe_that_diverges_leaves_the_others_alone() {
        let (mut tokens, labels) = images(5, 12, (12, 20));
        tokens.index_axis_mut(ndarray::Axis(2), 9).fill(f32::NAN); // seen by probes of more than 9 dimensions
        let set = RowSet { tokens: tokens.view(), grid: (3, 5), labels: labels.view() };
        let fitted = params(3).fit(&set, &cells(), &mut |_| ControlFlow::Continue(())).unwrap();
        for (cell, probe) in cells().iter().zip(&fitted) {
            match probe {
                Err(Error::Diverged { step: 1, .. }) => assert_eq!(cell.dim, 12),
                other => assert!(cell.dim < 9 && other.is_ok(), "{cell:?}"),
            }
        }
    }

    #[test]
    fn what_goes_on_from_a_state_makes_the_same_steps() {
        let data = Halves::new(7);
        let set = data.set();
        let cells = [CellKind::Linear, CellKind::Cluster(4)].map(|kind| BankCell {
            source: 0,
            dim: 3,
            scale: 1.0,
            kind,
            seed: 1,
        });
        let whole = fit(&params(9), &set, &cells);
        let mut first = Bank::new(params(9), &set, &cells).unwrap();
        (0..4).for_each(|_| drop(first.advance().unwrap()));
        let mut second = Bank::new(params(9), &set, &cells).unwrap();
        second.restore(&first.state()).unwrap();
        while second.step() < 9 {
            second.advance().unwrap();
        }
        let probes: Vec<_> = second.finish().into_iter().map(Result::unwrap).collect();
        assert_eq!(probes, whole);
        let mut other = Bank::new(params(9), &set, &cells[..1]).unwrap();
        assert!(matches!(other.restore(&first.state()), Err(Error::Range { .. })));
    }

    #[test]
    fn reset_makes_probes_anew() {
        let data = Halves::new(5);
        let cell = BankCell { source: 0, dim: 4, scale: 1.0, kind: CellKind::Linear, seed: 2 };
        let run = |steps, reset_step| {
            let mut params = params(steps);
            params.schedule.reset_step = reset_step;
            fit(&params, &data.set(), &[cell]).remove(0)
        };
        assert_eq!(run(3, Some(3)), run(3, None));
        assert_ne!(run(4, Some(3)), run(4, None));
        let fresh = LinearProbe::initial(5, 4, &mut Schedule::weights_rng(2, 1));
        let BankProbe::Linear(after) = run(4, Some(3)) else { panic!("a linear probe") };
        // One step of Adam moves every weight by the learning rate.
        assert!(fresh.weight.iter().zip(&after.weight).all(|(a, b)| (a - b).abs() < 0.051));
    }

    #[test]
    fn cells_that_do_not_fit_are_refused() {
        let data = Halves::new(3);
        let cell = BankCell { source: 0, dim: 4, scale: 1.0, kind: CellKind::Linear, seed: 2 };
        for wrong in [
            BankCell { source: 1, ..cell },
            BankCell { dim: 5, ..cell },
            BankCell { dim: 0, ..cell },
            BankCell { kind: CellKind::Cluster(300), ..cell },
        ] {
            assert!(matches!(Bank::new(params(1), &data.set(), &[wrong]), Err(Error::Range { .. })));
        }
    }
}
