//! One cell in training: its probe, its optimisers, and what became of it.

use super::gradient::CellGradient;
use super::{BankCell, BankProbe, CellKind};
use crate::{Adam, ClusterProbe, Error, LinearProbe, Schedule};

/// One cell with its optimiser.
pub(super) struct Trainee {
    pub(super) cell: BankCell,
    pub(super) probe: BankProbe,
    pub(super) adam: Vec<Adam>,
    pub(super) failed: Option<Error>,
}

impl Trainee {
    /// The `draw`-th fresh probe of a cell.
    pub(super) fn new(cell: BankCell, classes: usize, rate: f32, draw: u64) -> Self {
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
    pub(super) fn update(&mut self, step: usize, gradient: CellGradient) -> Option<f64> {
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
