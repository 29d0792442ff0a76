//! What a bank of probes is trained and scored on: images by index, each seen through several *sources*.
//!
//! A source is one projection of the features, `[t, K]`; probes of fewer dimensions see its first ones, since principal
//! components and random projections nest. Tokens come in panels ([`kernels::PanelShape`]), in which the first `k` features of
//! some tokens lie side by side.

use std::borrow::Cow;

use kernels::{Level, PanelShape};
use ndarray::{ArrayView2, ArrayView3};

/// Whatever keeps images from being read.
pub type FetchError = Box<dyn std::error::Error + Send + Sync>;

/// Labelled images, addressed by index.
pub trait BankSet: Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The patch grid `(gh, gw)`.
    fn grid(&self) -> (usize, usize);

    /// Size `(h, w)` of the label maps.
    fn label_size(&self) -> (usize, usize);

    /// Width `K` of every source.
    fn dims(&self) -> Vec<usize>;

    /// Images that are looked at together. Only a source whose scaling depends on the images beside it cares which they are.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn batch<'a>(&'a self, indices: &'a [usize]) -> Result<Box<dyn BankBatch + 'a>, FetchError>;

    /// Label map `[h, w]` of image `i`; 255, and any label that is not a class, is ignored.
    fn label(&self, i: usize) -> ArrayView2<'_, u8>;

    /// How tokens of `dim` numbers of one image lie in panels.
    fn shape(&self, dim: usize) -> PanelShape {
        let (gh, gw) = self.grid();
        PanelShape { level: Level::current(), images: 1, tokens: gh * gw, dim }
    }
}

/// Some images of a [`BankSet`].
pub trait BankBatch: Sync {
    /// Tokens of the image at a place of the batch, as one source shows it: panels of [`BankSet::shape`], finite behind the
    /// last token.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn tokens(&self, source: usize, place: usize) -> Result<Cow<'_, [f32]>, FetchError>;
}

/// Images that are in memory as rows, with one source.
#[derive(Debug, Clone, Copy)]
pub struct RowSet<'a> {
    /// `[n, t, k]`, `t = gh·gw` in row-major order of the grid.
    pub tokens: ArrayView3<'a, f32>,
    /// `(gh, gw)`.
    pub grid: (usize, usize),
    /// `[n, h, w]`.
    pub labels: ArrayView3<'a, u8>,
}

impl BankSet for RowSet<'_> {
    fn len(&self) -> usize {
        self.tokens.dim().0
    }

    fn grid(&self) -> (usize, usize) {
        self.grid
    }

    fn label_size(&self) -> (usize, usize) {
        let (_, h, w) = self.labels.dim();
        (h, w)
    }

    fn dims(&self) -> Vec<usize> {
        vec![self.tokens.dim().2]
    }

    fn batch<'a>(&'a self, indices: &'a [usize]) -> Result<Box<dyn BankBatch + 'a>, FetchError> {
        Ok(Box::new(Rows { tokens: self.tokens.view(), shape: self.shape(self.tokens.dim().2), indices }))
    }

    fn label(&self, i: usize) -> ArrayView2<'_, u8> {
        self.labels.index_axis(ndarray::Axis(0), i)
    }
}

struct Rows<'a> {
    tokens: ArrayView3<'a, f32>,
    shape: PanelShape,
    indices: &'a [usize],
}

impl BankBatch for Rows<'_> {
    fn tokens(&self, _: usize, place: usize) -> Result<Cow<'_, [f32]>, FetchError> {
        let rows = self.tokens.index_axis(ndarray::Axis(0), self.indices[place]);
        let mut panels = vec![0.0; self.shape.len()];
        self.shape.pack(rows.as_standard_layout().as_slice().expect("standard layout"), &mut panels);
        Ok(Cow::Owned(panels))
    }
}
