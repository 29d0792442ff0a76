//! One row as it is stored: the name of the view and its cells as bytes.
//!
//! Cells are slices of the file they come from, in memory or mapped, and share it: a record is cheap to clone, and keeps that file
//! alive. Numbers are widened to `f32` on demand, so that a reader that keeps only a projection of them never
//! holds more than a row in single precision.

use std::sync::Arc;

use bytes::Bytes;
use ndarray::{Array1, Array2, ArrayView, ArrayView2, ArrayView3, Dimension};

use crate::schema::{Columns, Feature};
use crate::{Dtype, Error, Layout, Result, Row};

/// One view of one image, as stored.
#[derive(Debug, Clone)]
pub struct Record {
    pub(crate) image_id: String,
    pub(crate) crop: u8,
    /// One per column; `None` where there is no value, or where it was not asked for.
    pub(crate) cells: Vec<Option<Bytes>>,
    pub(crate) columns: Arc<Columns>,
}

impl Record {
    /// The stored form of a row.
    ///
    /// # Errors
    /// [`Error::NonFinite`] and [`Error::Overflow`] name the image; [`Error::InvalidOption`] if its shapes are not those of `layout`.
    pub fn new(row: &Row, layout: &Layout, dtype: Dtype) -> Result<Self> {
        Self::with_columns(row, &Arc::new(Columns::new(layout, dtype)))
    }

    pub(crate) fn with_columns(row: &Row, columns: &Arc<Columns>) -> Result<Self> {
        if let Some(reason) = crate::rows::misshapen(row, &columns.layout) {
            return Err(Error::InvalidOption { option: "row", reason });
        }
        let mut record = Self {
            image_id: row.image_id.clone(),
            crop: row.crop,
            cells: vec![None; columns.list.len()],
            columns: columns.clone(),
        };
        record.set(columns.tokens, row.tokens.view())?;
        for (&feature, values) in columns.more.iter().zip(&row.more) {
            record.set(feature, values.view())?;
        }
        if let (Some(feature), Some(cls)) = (columns.cls, &row.cls) {
            record.set(feature, cls.view())?;
        }
        if let (Some(cell), Some(label)) = (columns.label, &row.label) {
            record.cells[cell] = Some(label.iter().copied().collect());
        }
        if let (Some(cell), Some(image)) = (columns.image, &row.image) {
            record.cells[cell] = Some(image.iter().copied().collect());
        }
        Ok(record)
    }

    fn set<D: Dimension>(&mut self, feature: Feature, values: ArrayView<'_, f32, D>) -> Result<()> {
        let Columns { dtype, layout, list, .. } = &*self.columns;
        let copy: Vec<f32>;
        let slice = match values.as_slice() {
            Some(slice) => slice,
            None => {
                copy = values.iter().copied().collect();
                &copy
            }
        };
        let (bytes, scales) = dtype.encode_vectors(slice, layout.dim).map_err(|value| {
            let (image_id, column) = (self.image_id.clone(), list[feature.values].name.clone());
            if value.is_finite() {
                Error::Overflow { image_id, column, value, dtype: *dtype }
            } else {
                Error::NonFinite { image_id, column, value }
            }
        })?;
        self.cells[feature.values] = Some(bytes.into());
        if let Some(cell) = feature.scales {
            self.cells[cell] = Some(scales.into());
        }
        Ok(())
    }

    /// Name of the image.
    #[must_use]
    pub fn image_id(&self) -> &str {
        &self.image_id
    }

    /// Which crop of it, from 0.
    #[must_use]
    pub fn crop(&self) -> u8 {
        self.crop
    }

    /// Bytes of all values that were read.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.cells.iter().flatten().map(Bytes::len).sum()
    }

    /// The patch tokens as stored: little-endian, row-major `[t, d]`.
    ///
    /// # Panics
    /// If they were not asked for; so do the other ways to the tokens.
    #[must_use]
    pub fn token_bytes(&self) -> &[u8] {
        self.cells[self.columns.tokens.values].as_ref().expect("the tokens were not asked for")
    }

    /// The patch tokens, `[t, d]`.
    #[must_use]
    pub fn tokens_f32(&self) -> Array2<f32> {
        self.array(self.columns.tokens).expect("the tokens were not asked for")
    }

    /// Writes the patch tokens to `out`, row-major `[t, d]`.
    ///
    /// # Panics
    /// If `out` does not hold exactly `t * d` values.
    pub fn tokens_into(&self, out: &mut [f32]) {
        assert!(self.decode(self.columns.tokens, out), "the tokens were not asked for");
    }

    /// A further column of tokens by its name, `[t, d]`; `tokens` is one as well. `None` if there is none.
    #[must_use]
    pub fn feature(&self, name: &str) -> Option<Array2<f32>> {
        self.array(self.columns.feature(name)?)
    }

    /// The further columns of tokens, in the order of the layout's `more`; empty if any was not asked for.
    #[must_use]
    pub fn more_f32(&self) -> Vec<Array2<f32>> {
        let all: Option<Vec<_>> = self.columns.more.iter().map(|&feature| self.array(feature)).collect();
        all.unwrap_or_default()
    }

    /// The class token, `[d]`, if the cache has them.
    #[must_use]
    pub fn cls(&self) -> Option<Array1<f32>> {
        let mut cls = vec![0.0; self.columns.layout.dim];
        self.decode(self.columns.cls?, &mut cls).then(|| cls.into())
    }

    /// The label map, `[h, w]`, 255 = ignore, if there is one.
    #[must_use]
    pub fn label(&self) -> Option<ArrayView2<'_, u8>> {
        let cell = self.cells[self.columns.label?].as_ref()?;
        let view = ArrayView2::from_shape(self.columns.layout.label_size, cell);
        Some(view.expect("the width of the column is h * w"))
    }

    /// The picture as the network saw it, `[h, w, 3]`, if it is stored.
    #[must_use]
    pub fn image(&self) -> Option<ArrayView3<'_, u8>> {
        let cell = self.cells[self.columns.image?].as_ref()?;
        let (h, w) = self.columns.layout.label_size;
        Some(ArrayView3::from_shape((h, w, 3), cell).expect("the width of the column is h * w * 3"))
    }

    fn array(&self, feature: Feature) -> Option<Array2<f32>> {
        let layout = &self.columns.layout;
        let mut values = Array2::zeros((layout.tokens(), layout.dim)); // [t, d]
        let slots = values.as_slice_mut().expect("a fresh array is contiguous");
        self.decode(feature, slots).then_some(values)
    }

    /// Whether the feature was there to be written to `out`.
    fn decode(&self, feature: Feature, out: &mut [f32]) -> bool {
        let Some(bytes) = &self.cells[feature.values] else { return false };
        let scales = feature.scales.map_or(Some(&[][..]), |cell| self.cells[cell].as_deref());
        let Some(scales) = scales else { return false };
        self.columns.dtype.decode_vectors(bytes, scales, self.columns.layout.dim, out);
        true
    }

    /// Whether every number that was read is finite.
    pub(crate) fn is_finite(&self, room: &mut [f32]) -> bool {
        let Columns { tokens, more, cls, layout, .. } = &*self.columns;
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        let fine = |&feature: &Feature, room: &mut [f32]| !self.decode(feature, room) || finite(room);
        fine(tokens, room)
            && more.iter().all(|feature| fine(feature, room))
            && cls.is_none_or(|feature| fine(&feature, &mut room[..layout.dim]))
    }
}
