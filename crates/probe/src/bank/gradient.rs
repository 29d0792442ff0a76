//! Gradients of all cells from a batch: one task per image and source, sums in the order of the images.

use ndarray::Array2;
use rayon::prelude::*;

use super::group::{Group, Sums, Worker};
use super::labels::Labels;
use super::set::{BankSet, FetchError};
use super::{BankCell, BankProbe, CellKind};
use crate::cluster_loss::through_unit_rows;
use crate::{Error, LinearProbe, Result};

/// Loss and gradient of one cell.
pub(crate) struct CellGradient {
    pub(crate) loss: Option<f64>,
    /// `[c, k]` of weights or `[m, k]` of centres.
    pub(crate) matrix: Vec<f32>,
    /// `[c]`; empty for centres.
    pub(crate) bias: Vec<f32>,
}

/// What some images add to the gradients of all groups.
pub(super) fn gradients(
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
    pub(super) fn gradient(
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
    use ndarray::Array3;

    use super::super::RowSet;
    use super::super::tests::images;
    use super::*;
    use crate::{Schedule, masked_cross_entropy_upsampled};

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
}
