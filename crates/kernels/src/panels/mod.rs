//! Layers on *panels*: activations laid out for vectors that run over tokens.
//!
//! The tokens of an image, `[n, d]`, are cut into panels of `L` tokens (the last one is filled up), and a panel is stored
//! as `[d, L]`: number `(token, feature)` of an image lies at `[token / L, feature, token % L]` of `[p, d, L]`. A vector
//! register holds one feature of neighbouring tokens. What that buys:
//!
//! * the output of a matrix product in this layout is the input of the next one as it stands, and nothing is
//!   ever repacked, the keys and values of attention included;
//! * sums over features and over keys (norms, softmax) run lane by lane, with no sums across a register;
//! * every output is one chain of multiply-adds in the order of the inner index, whoever computes it: the same bits for
//!   any number of threads, any batch and any way of cutting the work.
//!
//! `L` depends on the [`Level`]. The lanes behind the last token hold numbers that nobody reads.

mod attention;
mod layer_norm;
mod linear;
pub(crate) mod math;
mod prefetch;
mod products;
mod rope;
mod tile;
mod work;

pub use attention::panel_attention;
pub use layer_norm::panel_layer_norm;
pub use linear::{Epilogue, PackedLinear};
pub use prefetch::prefetch_read;
pub use products::panel_products;
pub use rope::panel_rope;
pub(crate) use tile::{panel_lanes, vectorized};
pub use work::one_thread;

use crate::Level;

/// Sizes of activations in panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PanelShape {
    /// The level that chose the width of a panel.
    pub level: Level,
    /// `b`, the number of images.
    pub images: usize,
    /// `n`, the tokens of an image.
    pub tokens: usize,
    /// `d`, the numbers of a token.
    pub dim: usize,
}

impl PanelShape {
    /// `L`, the tokens of a panel.
    #[must_use]
    pub fn lanes(&self) -> usize {
        panel_lanes(self.level)
    }

    /// `p`, the panels of an image.
    #[must_use]
    pub fn panels(&self) -> usize {
        self.tokens.div_ceil(self.lanes())
    }

    /// How many numbers there are, `b · p · d · L`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.images * self.panels() * self.panel_len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same tokens with `dim` numbers each.
    #[must_use]
    pub fn with_dim(self, dim: usize) -> Self {
        Self { dim, ..self }
    }

    /// Numbers of a panel.
    fn panel_len(&self) -> usize {
        self.dim * self.lanes()
    }

    /// Tokens of the panel at `index`, counted over all images.
    fn tokens_of(&self, index: usize) -> usize {
        (self.tokens - index % self.panels() * self.lanes()).min(self.lanes())
    }

    fn check(&self, data: &[f32]) {
        assert_eq!(data.len(), self.len(), "panels of {self:?}");
    }

    /// Lays out rows, `[b, n, d]`, as panels; what lies behind the last token is zero.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn pack(&self, rows: &[f32], panels: &mut [f32]) {
        self.check(panels);
        assert_eq!(rows.len(), self.images * self.tokens * self.dim, "rows of {self:?}");
        let (lanes, d) = (self.lanes(), self.dim);
        for (index, panel) in panels.chunks_exact_mut(self.panel_len().max(1)).enumerate() {
            let count = self.tokens_of(index);
            let rows = &rows[self.first_row(index) * d..][..count * d];
            panel.fill(0.0);
            for (lane, row) in rows.chunks_exact(d).enumerate() {
                row.iter().zip(panel[lane..].iter_mut().step_by(lanes)).for_each(|(&x, to)| *to = x);
            }
        }
    }

    /// Writes the tokens as rows, `[b, n, d]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn unpack(&self, panels: &[f32], rows: &mut [f32]) {
        self.check(panels);
        assert_eq!(rows.len(), self.images * self.tokens * self.dim, "rows of {self:?}");
        let (lanes, d) = (self.lanes(), self.dim);
        for (index, panel) in panels.chunks_exact(self.panel_len().max(1)).enumerate() {
            let count = self.tokens_of(index);
            let rows = &mut rows[self.first_row(index) * d..][..count * d];
            for (lane, row) in rows.chunks_exact_mut(d).enumerate() {
                row.iter_mut().zip(panel[lane..].iter().step_by(lanes)).for_each(|(to, &x)| *to = x);
            }
        }
    }

    /// The row of a panel's first token among the rows of all images.
    fn first_row(&self, index: usize) -> usize {
        index / self.panels() * self.tokens + index % self.panels() * self.lanes()
    }
}
