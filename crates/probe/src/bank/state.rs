//! A bank in the middle of its training, as numbers: what goes on from it makes the same steps as what never stopped.

use super::{Bank, BankProbe};
use crate::error::expect_range;
use crate::{Adam, Error, Result};

/// Parameters and optimisers of all cells after some steps.
#[derive(Debug, Clone, PartialEq)]
pub struct BankState {
    /// Steps made.
    pub step: usize,
    /// Of every cell: its arrays of parameters, the mean and the square of their gradients, one behind the other.
    pub numbers: Vec<Vec<f32>>,
    /// Of every cell: steps of its optimiser.
    pub adam_steps: Vec<i32>,
    /// Of every cell that failed: the step and the loss at which it did.
    pub failed: Vec<Option<(usize, f64)>>,
}

impl Bank<'_> {
    /// The state after the steps so far.
    pub fn state(&self) -> BankState {
        let numbers = |probe: &BankProbe, adam: &[Adam]| {
            let mut all = Vec::new();
            for (parameters, adam) in parameters(probe).into_iter().zip(adam) {
                let (mean, square) = adam.moments();
                all.extend(parameters.iter().chain(mean).chain(square));
            }
            all
        };
        let failure = |error: &Option<Error>| match error {
            Some(Error::Diverged { step, loss }) => Some((*step, *loss)),
            _ => None,
        };
        BankState {
            step: self.step,
            numbers: self.cells.iter().map(|cell| numbers(&cell.probe, &cell.adam)).collect(),
            adam_steps: self.cells.iter().map(|cell| cell.adam[0].steps()).collect(),
            failed: self.cells.iter().map(|cell| failure(&cell.failed)).collect(),
        }
    }

    /// Goes on from a state of a bank with the same cells, parameters and images.
    ///
    /// # Errors
    /// [`Error::Range`] if it is one of another bank; then nothing has changed.
    pub fn restore(&mut self, state: &BankState) -> Result<()> {
        let cells = self.cells.len();
        let lengths = [state.numbers.len(), state.adam_steps.len(), state.failed.len()];
        expect_range(lengths == [cells; 3], "number of cells of the state", &cells.to_string(), lengths[0])?;
        for (trainee, numbers) in self.cells.iter().zip(&state.numbers) {
            let expected = 3 * parameters(&trainee.probe).iter().map(|p| p.len()).sum::<usize>();
            expect_range(
                numbers.len() == expected,
                "size of a cell's state",
                &expected.to_string(),
                numbers.len(),
            )?;
        }
        let steps = self.params.schedule.steps;
        expect_range(state.step <= steps, "step of the state", &format!("at most {steps}"), state.step)?;
        while self.step < state.step {
            self.batches.next();
            self.step += 1;
        }
        let all = state.numbers.iter().zip(&state.adam_steps).zip(&state.failed);
        for (trainee, ((numbers, &steps), failed)) in self.cells.iter_mut().zip(all) {
            let mut rest = numbers.as_slice();
            let arrays = match &mut trainee.probe {
                BankProbe::Linear(probe) => vec![probe.weight.as_slice_mut(), probe.bias.as_slice_mut()],
                BankProbe::Cluster(probe) => vec![probe.centres.as_slice_mut()],
            };
            for (array, adam) in arrays.into_iter().zip(&mut trainee.adam) {
                let array = array.expect("made here, in standard layout");
                let (parameters, behind) = rest.split_at(array.len());
                let (mean, behind) = behind.split_at(array.len());
                let (square, behind) = behind.split_at(array.len());
                array.copy_from_slice(parameters);
                adam.restore(steps, mean, square);
                rest = behind;
            }
            trainee.failed = failed.map(|(step, loss)| Error::Diverged { step, loss });
        }
        Ok(())
    }
}

fn parameters(probe: &BankProbe) -> Vec<&[f32]> {
    let arrays = match probe {
        BankProbe::Linear(probe) => vec![probe.weight.as_slice(), probe.bias.as_slice()],
        BankProbe::Cluster(probe) => vec![probe.centres.as_slice()],
    };
    arrays.into_iter().map(|array| array.expect("made here, in standard layout")).collect()
}
