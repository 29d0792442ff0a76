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

mod cell;
mod gradient;
mod group;
mod labels;
mod score;
mod set;
mod state;
mod trainee;

pub use cell::{BankCell, BankProbe, CellKind};
pub(crate) use gradient::linear_gradient;
pub use score::BankScorer;
pub use set::{BankBatch, BankSet, FetchError, RowSet};
pub use state::BankState;

use std::ops::ControlFlow;

use rayon::prelude::*;

use crate::error::expect_range;
use crate::schedule::Batches;
use crate::{Error, Result, Schedule, Step};
use gradient::gradients;
use group::Group;
use labels::Labels;
use trainee::Trainee;

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

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array3};

    use super::*;
    use crate::schedule::tests::Halves;
    use crate::{Adam, ClusterProbe, LinearProbe};

    /// Tokens and labels with many values, on a grid of 3 × 5 tokens under maps of `size`.
    pub(super) fn images(n: usize, dim: usize, (h, w): (usize, usize)) -> (Array3<f32>, Array3<u8>) {
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
