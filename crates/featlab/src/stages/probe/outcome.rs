//! From counts per image to scores: clusters are named, means taken, intervals drawn.
//!
//! Intervals come from redrawing or leaving out images, with the naming of clusters held fixed.

use ndarray::{Array2, s};
use probe::{
    Assignment, BankProbe, BoundaryParams, ConfusionMatrix, Interval, Resampling, boundary_scores, hungarian,
    majority,
};

use super::Kind;
use crate::stages::sources::Sources;
use crate::study::Majority;

/// Label value that is no class.
const NO_CLASS: u8 = 255;

/// What was counted in one image.
#[derive(Debug, Clone)]
pub(crate) struct ImageCounts {
    /// `[c, m]`, row = truth, column = class or cluster.
    pub(crate) confusion: ConfusionMatrix,
    /// The same of pixels near edges, `[m + 1, m + 1]`; see [`BoundaryParams::count`].
    pub(crate) boundary: Option<ConfusionMatrix>,
}

impl ImageCounts {
    /// No pixels yet.
    ///
    /// * `size`: `(c, m)`.
    pub(crate) fn new((classes, outputs): (usize, usize), boundary: bool) -> Self {
        let side = outputs.max(classes) + 1;
        Self {
            confusion: ConfusionMatrix::new(classes, outputs),
            boundary: boundary.then(|| ConfusionMatrix::new(side, side)),
        }
    }

    /// Counts a prediction, `[h, w]`.
    ///
    /// # Errors
    /// If the two are of different size.
    pub(crate) fn add(
        &mut self,
        truth: ndarray::ArrayView2<'_, u8>,
        predicted: &Array2<u8>,
    ) -> probe::Result<()> {
        self.confusion.add(truth, predicted.view())?;
        let Some(boundary) = &mut self.boundary else { return Ok(()) };
        let classes = self.confusion.classes();
        let truth = truth.mapv(|label| if usize::from(label) < classes { label } else { NO_CLASS });
        let params = BoundaryParams::new(boundary.classes() - 1);
        boundary.merge(&params.count(truth.view(), predicted.view())?);
        Ok(())
    }

    fn merge(&mut self, other: &Self) {
        self.confusion.merge(&other.confusion);
        if let (Some(sum), Some(more)) = (&mut self.boundary, &other.boundary) {
            sum.merge(more);
        }
    }
}

/// What one cell of a sweep found.
pub(crate) struct Scored {
    /// The weights, of a probe that has some.
    pub(crate) probe: Option<BankProbe>,
    /// `[c, c or m]` counts, row = truth.
    pub(crate) confusion: ConfusionMatrix,
    pub(crate) assignment: Option<Assignment>,
    /// Of clusters, scores when each is named after the class that has most of it.
    pub(crate) majority: Option<Majority>,
    pub(crate) scores: probe::Scores,
    pub(crate) boundary_iou: Option<f64>,
    /// Of the mean IoU, within `[0, 1]`.
    pub(crate) interval: Interval,
    /// The counts of every image, classes in place of clusters: `[c, c]` or `[c, c + 1]`.
    pub(crate) per_image: Vec<ConfusionMatrix>,
}

impl Scored {
    /// * `images`: the counts of every image, at least one; `matching`: counts that clusters are named by, if not these.
    pub(crate) fn new(
        kind: Kind,
        resampling: &Resampling,
        probe: Option<BankProbe>,
        images: &[ImageCounts],
        matching: Option<&ConfusionMatrix>,
    ) -> Self {
        let confusion = total(images.iter().map(|image| &image.confusion));
        let naming = matching.unwrap_or(&confusion);
        let assignment = kind.is_unsupervised().then(|| hungarian(naming));
        let matched = |counts: &ConfusionMatrix| match &assignment {
            Some(assignment) => counts.matched(assignment),
            None => counts.clone(),
        };
        let per_image: Vec<ConfusionMatrix> = images.iter().map(|image| matched(&image.confusion)).collect();
        let interval = resampling.interval(&per_image, |counts| counts.scores().mean_iou);
        let boundary = images.iter().map(|image| image.boundary.as_ref()).collect::<Option<Vec<_>>>();
        let boundary_iou = boundary.map(|images| {
            let counts = total(images.into_iter());
            boundary_scores(&named(&counts, assignment.as_ref(), confusion.classes())).mean_iou
        });
        Self {
            probe,
            scores: matched(&confusion).scores(),
            majority: assignment.as_ref().map(|_| by_majority(&confusion, naming)),
            boundary_iou,
            interval: Interval { lo: interval.lo.max(0.0), hi: interval.hi.min(1.0) },
            per_image,
            confusion,
            assignment,
        }
    }
}

fn by_majority(confusion: &ConfusionMatrix, naming: &ConfusionMatrix) -> Majority {
    let names = majority(naming);
    Majority { miou: confusion.merged(&names).scores().mean_iou, coverage: covered(confusion, &names) }
}

/// Boundary counts `[m + 1, m + 1]` with classes in place of clusters, `[c + 1, c + 1]`.
fn named(counts: &ConfusionMatrix, assignment: Option<&Assignment>, classes: usize) -> ConfusionMatrix {
    let Some(assignment) = assignment else { return counts.clone() };
    let old = counts.counts();
    let no_band = old.nrows() - 1;
    let mut new = Array2::zeros((classes + 1, classes + 1));
    for row in 0..=classes {
        let from = old.row(if row == classes { no_band } else { row });
        for (class, cluster) in assignment.cluster_of_class.iter().enumerate() {
            new[[row, class]] = cluster.map_or(0, |cluster| from[cluster]);
        }
        new[[row, classes]] = from.sum() - new.slice(s![row, ..classes]).sum();
    }
    ConfusionMatrix::from_counts(new)
}

/// Share of the classes that occur which some cluster is named after.
fn covered(counts: &ConfusionMatrix, names: &[Option<usize>]) -> f64 {
    let occurs = |&class: &usize| counts.counts().row(class).sum() > 0;
    let classes: Vec<usize> = (0..counts.classes()).filter(occurs).collect();
    let named = classes.iter().filter(|&&class| names.contains(&Some(class))).count();
    named as f64 / classes.len() as f64
}

/// Rows (crops) of one image together: resampling is over images, and crops of one overlap.
pub(crate) fn by_image(rows: Vec<ImageCounts>, data: &Sources<'_>) -> Vec<ImageCounts> {
    let mut images: Vec<ImageCounts> = Vec::with_capacity(rows.len());
    for (i, row) in rows.into_iter().enumerate() {
        match images.last_mut() {
            Some(image) if data.image_id(i) == data.image_id(i - 1) => image.merge(&row),
            _ => images.push(row),
        }
    }
    images
}

/// The sum of at least one matrix.
pub(super) fn total<'a>(mut counts: impl Iterator<Item = &'a ConfusionMatrix>) -> ConfusionMatrix {
    let mut sum = counts.next().cloned().unwrap_or_else(|| ConfusionMatrix::new(0, 0));
    counts.for_each(|more| sum.merge(more));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_of_clusters_are_those_of_their_classes() {
        // Two classes side by side; the clusters are the classes with their names exchanged, and a third one has a corner.
        let truth = Array2::from_shape_fn((40, 40), |(_, x)| u8::from(x >= 20));
        let mut predicted = truth.mapv(|label| 1 - label);
        let mut plain = ImageCounts::new((2, 3), true);
        plain.add(truth.view(), &predicted).unwrap();
        let whole = plain.boundary.unwrap();
        let assignment = hungarian(&plain.confusion);
        assert_eq!(boundary_scores(&named(&whole, Some(&assignment), 2)).mean_iou, 1.0);
        predicted.slice_mut(s![..10, ..10]).fill(2);
        let mut cut = ImageCounts::new((2, 3), true);
        cut.add(truth.view(), &predicted).unwrap();
        let assignment = hungarian(&cut.confusion);
        let scores = boundary_scores(&named(&cut.boundary.unwrap(), Some(&assignment), 2));
        assert!(scores.per_class_iou[0].unwrap() < 1.0 && scores.per_class_iou[1] == Some(1.0));
    }
}
