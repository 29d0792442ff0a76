//! Co-occurrence: precision and recall of "two points bear the same label", from a labelled cache.
//!
//! Points depend on the seed and the image's place in the cache alone. Every score sees the same pairs.

use anyhow::{Context as _, Result, ensure};
use dataset::Transform;
use dimred::{Map, Projection as _};
use featcache::{Cache, ReadOptions, Record, StreamOptions};
use ndarray::{Array2, ArrayView3};
use rayon::prelude::*;
use segment::co_occurrence::{
    PointLabel, Void, cosine_scores, label_matches, pair_points, point_colours, point_labels,
};
use segment::stego::CrfLoss;
use segment::{PrecisionRecall, ScoredPairs};

use crate::Context;

/// Images that are scored together.
const BATCH: usize = 16;

/// What is scored on which images.
pub(crate) struct Job<'a> {
    pub(crate) cache: &'a Cache,
    /// Reducers by name; features come before them.
    pub(crate) codes: &'a [(String, Map)],
    /// Whether pictures are in the cache, and the kernel of the CRF loss is a score.
    pub(crate) with_crf: bool,
    pub(crate) images: usize,
    pub(crate) samples: usize,
    pub(crate) void: Void,
    pub(crate) seed: u64,
}

/// The scores' curves, and what they rest on.
pub(crate) struct Found {
    /// Labelled images.
    pub(crate) images: usize,
    /// By name.
    pub(crate) curves: Vec<(String, PrecisionRecall)>,
}

/// What of an image counts.
struct Scored {
    /// `[n, m]` for each score.
    scores: Vec<Array2<f32>>,
    matches: Array2<Option<bool>>,
}

impl Job<'_> {
    /// The names of the scores.
    fn names(&self) -> Vec<String> {
        let mut names = vec!["features".to_owned()];
        names.extend(self.codes.iter().map(|(name, _)| name.clone()));
        names.extend(self.with_crf.then(|| "CRF kernel".to_owned()));
        names
    }

    /// Reads the cache's first images, and curves of all their pairs.
    ///
    /// # Errors
    /// If a shard is damaged, no image has a label, no pair matches, or on interruption.
    pub(crate) fn run(&self, context: &Context) -> Result<Found> {
        let mut columns = vec![self.cache.column().to_owned(), "label".to_owned()];
        columns.extend(self.with_crf.then(|| "image".to_owned()));
        let read = ReadOptions { columns: Some(columns), ..ReadOptions::default() };
        let total = self.images.min(self.cache.rows());
        let progress = context.reporter.start("co-occurrence", total as u64, "images");
        let names = self.names();
        let mut pairs = vec![ScoredPairs::new(); names.len()];
        let (mut images, mut batch) = (0, Vec::with_capacity(BATCH));
        let rows = self.cache.stream(&StreamOptions { read, ..StreamOptions::default() })?.take(total);
        for (place, record) in rows.enumerate() {
            batch.push((place as u64, record.context("reading the cache")?));
            if batch.len() == BATCH || place + 1 == total {
                context.interrupt.check()?;
                progress.tick(batch.len() as u64);
                images += self.add(std::mem::take(&mut batch), &mut pairs)?;
            }
        }
        ensure!(images > 0, "none of the {total} images has a label");
        let curve = |(name, pairs): (String, ScoredPairs)| {
            let curve = pairs.precision_recall().with_context(|| {
                format!("pairs of {images} images, by {name}; take more --images or --samples")
            })?;
            Ok((name, curve))
        };
        Ok(Found { images, curves: names.into_iter().zip(pairs).map(curve).collect::<Result<_>>()? })
    }

    /// Adds the pairs of some images in their order; gives the number of those with a label.
    fn add(&self, batch: Vec<(u64, Record)>, pairs: &mut [ScoredPairs]) -> Result<usize> {
        let scored: Vec<Option<Scored>> = batch
            .par_iter()
            .map(|(place, record)| {
                self.image(*place, record).with_context(|| format!("image {}", record.image_id()))
            })
            .collect::<Result<_>>()?;
        let mut images = 0;
        for Scored { scores, matches } in scored.into_iter().flatten() {
            images += 1;
            for (pairs, scores) in pairs.iter_mut().zip(&scores) {
                pairs.push(scores.view(), matches.view())?;
            }
        }
        Ok(images)
    }

    fn image(&self, place: u64, record: &Record) -> Result<Option<Scored>> {
        let Some(label) = record.label() else { return Ok(None) };
        let [ours, theirs] = pair_points(self.seed, place, self.samples);
        let both = [&ours[..], &theirs[..]];
        let read = |points| -> Result<Vec<PointLabel>> { Ok(point_labels(label, points, self.void)?) };
        let matches = label_matches(&read(&ours)?, &read(&theirs)?);
        let (grid, tokens) = (self.cache.layout().grid, record.tokens_f32());
        let mut scores = vec![cosine_scores(tokens.view(), grid, both)?];
        for (name, map) in self.codes {
            let codes = map.transform(tokens.view()).with_context(|| format!("codes of {name}"))?;
            scores.push(cosine_scores(codes.view(), grid, both)?);
        }
        if self.with_crf {
            let image = record.image().context("the picture is not in the cache")?;
            let (pixels, size) = (normalised(image), (image.dim().0, image.dim().1));
            let colours = |points| point_colours(pixels.view(), size, points);
            let (a, b) = (colours(&ours)?, colours(&theirs)?);
            scores.push(CrfLoss::co_occurrence().kernel((&ours, a.view()), (&theirs, b.view()))?);
        }
        Ok(Some(Scored { scores, matches }))
    }
}

/// A picture as the original's networks see it: ImageNet's mean taken off, by its deviation; `[h·w, 3]`.
fn normalised(image: ArrayView3<'_, u8>) -> Array2<f32> {
    let Transform { mean, std, .. } = Transform::default();
    let (h, w, _) = image.dim();
    Array2::from_shape_fn((h * w, 3), |(i, c)| {
        (f32::from(image[[i / w, i % w, c]]) / 255.0 - mean[c]) / std[c]
    })
}
