//! What training needs to know of an image's labels, worked out once and kept while there is room.
//!
//! The cross-entropy of a pixel is `w (ln Σ_c exp u_c - u_label)`. The weights of the pixels and the label's part, which is
//! linear in the logits, are the same for every probe and in every epoch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use kernels::Spans;
use ndarray::{Array2, ArrayView2};

use super::BankSet;

/// Bytes of prepared labels that are kept: beyond that they are made again each time.
const KEPT_BYTES: usize = 1 << 30;

/// One image's labels.
pub(super) struct ImageLabels {
    /// `Σ w` over labelled pixels.
    pub(super) weight: f64,
    pub(super) form: Form,
}

/// How the loss of an image is computed.
pub(super) enum Form {
    /// The label map is a whole multiple of the grid.
    Spans {
        /// Weights of pixels, as [`Spans::pack_weights`] lays them out.
        weights: Vec<f32>,
        /// [`Spans::label_mass`].
        mass: Vec<f32>,
    },
    /// It is not.
    Any(Array2<u8>),
}

/// The labels of a set.
pub(super) struct Labels<'a> {
    set: &'a dyn BankSet,
    spans: Option<Spans>,
    classes: usize,
    weight_of_label: [f32; 256],
    kept: Vec<OnceLock<Arc<ImageLabels>>>,
    room: AtomicUsize,
}

impl<'a> Labels<'a> {
    /// * `class_weights`: `[c]`; a label of `c` or more is ignored.
    pub(super) fn new(set: &'a dyn BankSet, class_weights: &[f32]) -> Self {
        let mut weight_of_label = [0.0; 256];
        weight_of_label[..class_weights.len()].copy_from_slice(class_weights);
        Self {
            set,
            spans: Spans::new(set.grid(), set.label_size()),
            classes: class_weights.len(),
            weight_of_label,
            kept: std::iter::repeat_with(OnceLock::new).take(set.len()).collect(),
            room: AtomicUsize::new(KEPT_BYTES),
        }
    }

    pub(super) fn spans(&self) -> Option<Spans> {
        self.spans
    }

    pub(super) fn weight_of_label(&self) -> &[f32; 256] {
        &self.weight_of_label
    }

    /// The labels of image `i`.
    pub(super) fn get(&self, i: usize) -> Arc<ImageLabels> {
        if let Some(labels) = self.kept[i].get() {
            return Arc::clone(labels);
        }
        let labels = Arc::new(self.prepare(self.set.label(i)));
        let bytes = match &labels.form {
            Form::Spans { weights, mass } => (weights.len() + mass.len()) * size_of::<f32>(),
            Form::Any(map) => map.len(),
        };
        let taken =
            self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(bytes));
        if taken.is_ok() {
            // Another thread may have been faster, with the same numbers.
            let _ = self.kept[i].set(Arc::clone(&labels));
        }
        labels
    }

    fn prepare(&self, map: ArrayView2<'_, u8>) -> ImageLabels {
        let map = map.as_standard_layout().into_owned();
        let weight = map.iter().map(|&label| f64::from(self.weight_of_label[usize::from(label)])).sum();
        let Some(spans) = self.spans else {
            return ImageLabels { weight, form: Form::Any(map) };
        };
        let labels = map.as_slice().expect("standard layout");
        let mut weights = vec![0.0; spans.weights_len()];
        let mut mass = vec![0.0; spans.scores_len(self.classes)];
        spans.pack_weights(labels, &self.weight_of_label, &mut weights);
        spans.label_mass(labels, &self.weight_of_label, self.classes, &mut mass);
        ImageLabels { weight, form: Form::Spans { weights, mass } }
    }
}
