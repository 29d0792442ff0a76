//! Sources: features as probes see them, projected once.
//!
//! A source is a reducer at the largest dimension that any probe asks of it; smaller dimensions are its first columns. An
//! image is projected when a probe first wants it, and kept in memory while there is room ([`Sources::new`]'s `memory`); what
//! does not fit is projected again each time. Either way the numbers are the same.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use dimred::{Affine, Map, Projection};
use kernels::{Epilogue, Level, PackedLinear, one_thread};
use ndarray::{Array2, ArrayView2, Axis};
use probe::{BankBatch, BankSet, FetchError};

use crate::stages::features::Features;

/// The labelled images of a cache, seen through several maps.
pub(crate) struct Sources<'a> {
    features: &'a Features,
    sources: Vec<Source>,
    room: AtomicUsize,
}

/// What a source's rows are of the features'.
pub(crate) enum Kinship<'a> {
    /// They are the same.
    Same,
    /// Each is an affine map of one, whatever is beside it.
    Affine(&'a Affine),
    /// Something else.
    Other,
}

struct Source {
    /// `None` for the features as they are.
    map: Option<Map>,
    /// `K`.
    dim: usize,
    /// The matrix of an affine map whose rows do not depend on one another.
    layer: Option<PackedLinear>,
    /// Panels of the images that have been projected and kept.
    kept: Vec<OnceLock<Box<[f32]>>>,
}

impl<'a> Sources<'a> {
    /// * `maps`: one source each; `None` shows the features as they are. `memory`: bytes of projected features that are kept.
    pub(crate) fn new(features: &'a Features, maps: Vec<Option<Map>>, memory: usize) -> Self {
        let source = |map: Option<Map>| {
            let dim = map.as_ref().map_or(features.dim(), Projection::output_dim);
            let affine = map.as_ref().and_then(Map::affine).filter(|affine| !affine.is_batch_scaled());
            let layer = affine.map(|affine| {
                let matrix = affine.matrix().t().as_standard_layout().into_owned(); // [K, d]
                let weights = matrix.as_slice().expect("standard layout");
                PackedLinear::new(Level::current(), weights, None, affine.input_dim(), dim)
            });
            let kept = std::iter::repeat_with(OnceLock::new).take(features.len()).collect();
            Source { map, dim, layer, kept }
        };
        Self { features, sources: maps.into_iter().map(source).collect(), room: AtomicUsize::new(memory) }
    }

    /// What is projected.
    pub(crate) fn features(&self) -> &Features {
        self.features
    }

    /// How a source comes from the features.
    pub(crate) fn kinship(&self, source: usize) -> Kinship<'_> {
        match &self.sources[source].map {
            None => Kinship::Same,
            Some(map) => match map.affine().filter(|affine| !affine.is_batch_scaled()) {
                Some(affine) => Kinship::Affine(affine),
                None => Kinship::Other,
            },
        }
    }

    /// Id of the image that labelled row `i` shows.
    pub(crate) fn image_id(&self, i: usize) -> &str {
        self.features.image_id(i)
    }

    fn panels(&self, rows: ArrayView2<'_, f32>) -> Vec<f32> {
        let shape = self.shape(rows.ncols());
        let mut panels = vec![0.0; shape.len()];
        shape.pack(rows.as_standard_layout().as_slice().expect("standard layout"), &mut panels);
        panels
    }

    /// Image `i` through a source that takes every row by itself.
    fn project(&self, source: &Source, i: usize) -> Result<Vec<f32>, FetchError> {
        let mut rows = self.features.tokens(i); // [t, d]
        let Some(map) = &source.map else { return Ok(self.panels(rows.view())) };
        let (Some(affine), Some(layer)) = (map.affine(), &source.layer) else {
            return Ok(self.panels(map.transform(rows.view())?.view()));
        };
        rows -= affine.mean();
        let shape = self.shape(rows.ncols());
        let mut out = vec![0.0; shape.with_dim(source.dim).len()];
        one_thread(|| layer.forward(&self.panels(rows.view()), shape, Epilogue::Plain, &mut out));
        Ok(out)
    }

    /// Images standardised by the batch they are drawn in (`scaler = "batch"`), so that they cannot be kept.
    fn project_together(&self, map: &Map, indices: &[usize]) -> Result<Vec<Vec<f32>>, FetchError> {
        let images: Vec<Array2<f32>> = indices.iter().map(|&i| self.features.tokens(i)).collect();
        let views: Vec<_> = images.iter().map(Array2::view).collect();
        let rows = ndarray::concatenate(Axis(0), &views)?; // [b·t, d]
        let projected = map.transform(rows.view())?; // [b·t, K]
        let tokens = images[0].nrows();
        Ok(projected.axis_chunks_iter(Axis(0), tokens).map(|image| self.panels(image)).collect())
    }
}

impl BankSet for Sources<'_> {
    fn len(&self) -> usize {
        self.features.len()
    }

    fn grid(&self) -> (usize, usize) {
        self.features.cache().layout().grid
    }

    fn label_size(&self) -> (usize, usize) {
        self.features.cache().layout().label_size
    }

    fn dims(&self) -> Vec<usize> {
        self.sources.iter().map(|source| source.dim).collect()
    }

    fn batch<'b>(&'b self, indices: &'b [usize]) -> Result<Box<dyn BankBatch + 'b>, FetchError> {
        let together = |source: &Source| match &source.map {
            Some(map) if map.is_batch_scaled() => self.project_together(map, indices).map(Some),
            _ => Ok(None),
        };
        let together = self.sources.iter().map(together).collect::<Result<_, _>>()?;
        Ok(Box::new(Batch { sources: self, indices, together }))
    }

    fn label(&self, i: usize) -> ArrayView2<'_, u8> {
        self.features.label(i)
    }
}

struct Batch<'a> {
    sources: &'a Sources<'a>,
    indices: &'a [usize],
    /// Of batch-scaled sources, the images' panels.
    together: Vec<Option<Vec<Vec<f32>>>>,
}

impl BankBatch for Batch<'_> {
    fn tokens(&self, source: usize, place: usize) -> Result<Cow<'_, [f32]>, FetchError> {
        if let Some(images) = &self.together[source] {
            return Ok(Cow::Borrowed(&images[place]));
        }
        let (of, i) = (&self.sources.sources[source], self.indices[place]);
        if let Some(panels) = of.kept[i].get() {
            return Ok(Cow::Borrowed(panels));
        }
        let panels = self.sources.project(of, i)?;
        let bytes = size_of_val(panels.as_slice());
        let room = &self.sources.room;
        let taken = room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes));
        match taken {
            // If another thread was faster, its numbers are the same.
            Ok(_) => Ok(Cow::Borrowed(of.kept[i].get_or_init(|| panels.into_boxed_slice()))),
            Err(_) => Ok(Cow::Owned(panels)),
        }
    }
}
