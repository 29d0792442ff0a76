//! The head of SwAV and DeepCluster-v2: a perceptron with batch norm, directions, and cosines to prototypes.
//!
//! `e = W₂ relu(BN(W₁ x))`, `z = e / ‖e‖`, `o_i = z C_iᵀ` for each table of prototypes `C_i`, `[K, d]`, whose rows have length 1. Batch
//! norm sees all views of a batch at once. Names are those of the original's checkpoints: `projection_head.{0,1,3}`,
//! `prototypes.weight`, or `prototypes.prototypes{i}.weight` of several tables.

use kernels::{Matrix, MatrixMut, Threads, gemm};
use serde::{Deserialize, Serialize};

use crate::batch_norm::{BatchNorm, BatchNormActivations, Mode};
use crate::buffer::sized;
use crate::layers::Dense;
use crate::params::{Layout, Slot};
use crate::swapped::{normalize_rows, normalize_rows_backward};

/// Sizes of the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectorConfig {
    /// Hidden units; 0 is a single linear map.
    pub hidden_dim: usize,
    /// Length of an embedding.
    pub out_dim: usize,
    /// K: number of prototypes.
    pub prototypes: usize,
}

impl Default for ProjectorConfig {
    /// As published for a ResNet-50: 2048, 128, 3000.
    fn default() -> Self {
        Self { hidden_dim: 2048, out_dim: 128, prototypes: 3000 }
    }
}

/// The head without its weights.
#[derive(Debug, Clone)]
pub struct Projector {
    first: Dense,
    norm: Option<BatchNorm>,
    second: Option<Dense>,
    tables: Vec<Slot>, // [K, d] each
    config: ProjectorConfig,
}

/// What a forward pass leaves for the way back; reused from one to the next.
#[derive(Debug, Default)]
pub struct ProjectorActivations {
    input: Vec<f32>,  // [rows, inputs]
    hidden: Vec<f32>, // [rows, hidden], after the rectifier
    norm: BatchNormActivations,
    embedded: Vec<f32>, // [rows, d]
    unit: Vec<f32>,     // [rows, d], z
    back: [Vec<f32>; 2],
}

impl ProjectorActivations {
    /// z, `[rows, d]`.
    #[must_use]
    pub fn embeddings(&self) -> &[f32] {
        &self.unit
    }
}

impl Projector {
    /// Adds the head's tensors, with `heads` tables of prototypes; `buffers` is where the batch norm keeps its statistics.
    pub fn add(
        layout: &mut Layout,
        buffers: &mut Layout,
        inputs: usize,
        config: &ProjectorConfig,
        heads: usize,
    ) -> Self {
        let ProjectorConfig { hidden_dim, out_dim, prototypes } = *config;
        let (first, norm, second) = match hidden_dim {
            0 => (Dense::add(layout, "projection_head", inputs, out_dim), None, None),
            hidden => (
                Dense::add(layout, "projection_head.0", inputs, hidden),
                Some(BatchNorm::add(layout, buffers, "projection_head.1", hidden)),
                Some(Dense::add(layout, "projection_head.3", hidden, out_dim)),
            ),
        };
        let name = |head: usize| match heads {
            1 => "prototypes.weight".to_owned(),
            _ => format!("prototypes.prototypes{head}.weight"),
        };
        let tables = (0..heads).map(|head| layout.add(name(head), &[prototypes, out_dim])).collect();
        Self { first, norm, second, tables, config: config.clone() }
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &ProjectorConfig {
        &self.config
    }

    /// Where the tables of prototypes lie.
    #[must_use]
    pub fn tables(&self) -> &[Slot] {
        &self.tables
    }

    /// Brings every prototype to length 1: before each forward pass, also while prototypes are frozen.
    pub fn normalize_prototypes(&self, params: &mut [f32]) {
        let mut unit = Vec::new();
        for table in &self.tables {
            let rows = table.of_mut(params);
            normalize_rows(rows, self.config.out_dim, &mut unit);
            rows.copy_from_slice(&unit);
        }
    }

    /// `[rows, inputs]` to embeddings of length 1, left in `kept`.
    pub fn embed(
        &self,
        params: &[f32],
        buffers: &mut [f32],
        mode: Mode,
        x: &[f32],
        kept: &mut ProjectorActivations,
    ) {
        sized(&mut kept.input, x.len()).copy_from_slice(x);
        match (&self.norm, &self.second) {
            (Some(norm), Some(second)) => {
                self.first.forward(params, x, &mut kept.hidden);
                norm.forward(params, buffers, mode, &mut kept.hidden, &mut kept.norm);
                kept.hidden.iter_mut().for_each(|x| *x = x.max(0.0));
                second.forward(params, &kept.hidden, &mut kept.embedded);
            }
            _ => self.first.forward(params, x, &mut kept.embedded),
        }
        normalize_rows(&kept.embedded, self.config.out_dim, &mut kept.unit);
    }

    /// Scores `[rows, K]` of embeddings `[rows, d]` with the table number `head`.
    pub fn scores(&self, params: &[f32], head: usize, z: &[f32], scores: &mut Vec<f32>) {
        let (d, k) = (self.config.out_dim, self.config.prototypes);
        let rows = z.len() / d;
        let table = Matrix::new(self.tables[head].of(params), k, d).t();
        let scores = MatrixMut::new(sized(scores, rows * k), rows, k);
        gemm(scores, 0.0, 1.0, Matrix::new(z, rows, d), table, Threads::All);
    }

    /// Adds the prototypes' gradient, and the embeddings' to `dz`, `[rows, d]`.
    pub fn scores_backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        head: usize,
        dscores: &[f32],
        z: &[f32],
        dz: &mut [f32],
    ) {
        let (d, k) = (self.config.out_dim, self.config.prototypes);
        let rows = z.len() / d;
        let dscores = Matrix::new(dscores, rows, k);
        let table = Matrix::new(self.tables[head].of(params), k, d);
        gemm(MatrixMut::new(dz, rows, d), 1.0, 1.0, dscores, table, Threads::All);
        let dtable = MatrixMut::new(self.tables[head].of_mut(grads), k, d);
        gemm(dtable, 1.0, 1.0, dscores.t(), Matrix::new(z, rows, d), Threads::All);
    }

    /// Adds the perceptron's gradients from that of z, `[rows, d]`, and writes the input's.
    pub fn embed_backward(
        &self,
        params: &[f32],
        grads: &mut [f32],
        dz: &[f32],
        kept: &mut ProjectorActivations,
        dx: &mut Vec<f32>,
    ) {
        let ProjectorActivations { input, hidden, norm, embedded, unit, back: [a, b] } = kept;
        sized(a, dz.len()).copy_from_slice(dz);
        normalize_rows_backward(embedded, unit, self.config.out_dim, a);
        match (&self.norm, &self.second) {
            (Some(batch_norm), Some(second)) => {
                second.backward(params, grads, a, hidden, Some(b));
                b.iter_mut().zip(&*hidden).filter(|(_, h)| **h <= 0.0).for_each(|(d, _)| *d = 0.0);
                batch_norm.backward(params, grads, norm, b);
                self.first.backward(params, grads, b, input, Some(dx));
            }
            _ => self.first.backward(params, grads, a, input, Some(dx)),
        }
    }
}
