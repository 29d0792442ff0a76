//! Predictions of many probes on one image: the scores of all that see the same tokens are one product.

use kernels::{Epilogue, Level, PackedLinear, one_thread};
use ndarray::{Array2, ArrayView2, ShapeBuilder};

use super::group::{Group, gather};
use super::{BankBatch, BankCell, BankProbe, BankSet, FetchError};
use crate::upsample_argmax;

/// Trained probes, ready to be asked.
pub struct BankScorer {
    groups: Vec<(Group, PackedLinear)>,
}

impl BankScorer {
    /// * `probes`: cells with what was trained for them; all linear ones have `classes` classes.
    pub fn new(probes: &[(BankCell, &BankProbe)], classes: usize) -> Self {
        let cells: Vec<_> = probes.iter().map(|(cell, _)| *cell).collect();
        let of_cells: Vec<_> = probes.iter().map(|(_, probe)| *probe).collect();
        let layer = |group: Group| {
            let layer = group.layer(Level::current(), &of_cells);
            (group, layer)
        };
        Self { groups: Group::of(&cells, classes).into_iter().map(layer).collect() }
    }

    /// Calls `visit(cell, label map [h, w])` for every cell, on the calling thread, where a source's tokens are asked for once.
    ///
    /// * `place`: of the image in the batch.
    ///
    /// # Errors
    /// If the tokens cannot be read.
    pub fn image(
        &self,
        set: &dyn BankSet,
        batch: &dyn BankBatch,
        place: usize,
        visit: &mut dyn FnMut(usize, Array2<u8>),
    ) -> Result<(), FetchError> {
        self.scores(set, batch, place, &mut |cell, scores| {
            visit(cell, upsample_argmax(scores, set.grid(), set.label_size()));
        })
    }

    /// Calls `visit(cell, scores [t, c])` for every cell.
    ///
    /// # Errors
    /// If the tokens cannot be read.
    pub fn scores(
        &self,
        set: &dyn BankSet,
        batch: &dyn BankBatch,
        place: usize,
        visit: &mut dyn FnMut(usize, ArrayView2<'_, f32>),
    ) -> Result<(), FetchError> {
        let dims = set.dims();
        let (mut panels, mut line) = (Vec::new(), Vec::new());
        let mut tokens: Option<(usize, _)> = None;
        for (group, layer) in &self.groups {
            if tokens.as_ref().is_none_or(|(source, _)| *source != group.source) {
                tokens = Some((group.source, batch.tokens(group.source, place)?));
            }
            let Some((_, tokens)) = &tokens else { continue };
            let shape = set.shape(dims[group.source]);
            let rows = shape.with_dim(group.rows());
            panels.resize(rows.len(), 0.0);
            one_thread(|| layer.forward(tokens, shape, Epilogue::Plain, &mut panels));
            for (m, member) in group.members.iter().enumerate() {
                let range = group.rows_of(m);
                line.resize(range.len() * rows.tokens, 0.0);
                for (row, line) in range.clone().zip(line.chunks_exact_mut(rows.tokens)) {
                    gather(&panels, rows, row, 0, line);
                }
                let scores = (rows.tokens, range.len()).strides((1, rows.tokens));
                visit(member.cell, ArrayView2::from_shape(scores, &line).expect("a line per row"));
            }
        }
        Ok(())
    }
}
