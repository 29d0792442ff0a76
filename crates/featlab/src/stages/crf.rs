//! CRF: the predictions of recorded probes, refined by STEGO's dense CRF with the pictures that the network saw, and scored.

use anyhow::{Context as _, Result, anyhow, ensure};
use ndarray::{Array3, s};
use probe::{BankCell, BankProbe, BankSet as _, Probe as _};
use rayon::prelude::*;

use crate::Context;
use crate::stages::probe::{ImageCounts, Kind, Scored, Settings, by_image, rows};
use crate::stages::refine::refined;
use crate::stages::sources::Sources;

/// Images that are looked at together.
const BATCH: usize = 8;

/// Looks up the pixels that the network saw of an image, `[h, w, 3]`.
pub(crate) type Pictures<'a> = dyn Fn(&str) -> Result<Array3<u8>> + Sync + 'a;

/// What is refined and scored.
pub(crate) struct Job<'a> {
    pub(crate) probes: &'a [(Kind, BankCell, BankProbe)],
    pub(crate) classes: usize,
    pub(crate) settings: &'a Settings,
    pub(crate) pictures: &'a Pictures<'a>,
}

impl Job<'_> {
    /// Scores of every probe. Clusters are named by the refined predictions themselves, as the original does.
    ///
    /// # Errors
    /// If a picture cannot be read or is not of the size of the labels, or on interruption.
    pub(crate) fn run(&self, val: &Sources<'_>, context: &Context) -> Result<Vec<Scored>> {
        ensure!(val.len() > 0, "no image to refine");
        let mut counts: Vec<Vec<ImageCounts>> = self.probes.iter().map(|_| Vec::new()).collect();
        let progress =
            context.reporter.start("dense CRF", (val.len() * self.probes.len()) as u64, "pictures");
        for first in (0..val.len()).step_by(BATCH) {
            context.interrupt.check()?;
            let indices: Vec<usize> = (first..(first + BATCH).min(val.len())).collect();
            let batch = val.batch(&indices).map_err(|e| anyhow!(e))?;
            for (place, &i) in indices.iter().enumerate() {
                let image = (self.pictures)(val.image_id(i))?;
                let (h, w) = val.label_size();
                ensure!(image.dim() == (h, w, 3), "image {}: labels of {h} x {w} pixels", val.image_id(i));
                let of_probe = |(_, cell, probe): &(Kind, BankCell, BankProbe)| -> Result<ImageCounts> {
                    let rows = rows(val, &*batch, cell.source, place)?;
                    let tokens = rows.slice(s![.., ..cell.dim]).mapv(|x| x * cell.scale); // [t, k]
                    let predicted = refined(probe, tokens.view(), val.grid(), image.view())?;
                    let mut counts =
                        ImageCounts::new((self.classes, probe.outputs()), self.settings.boundary_iou);
                    counts.add(val.label(i), &predicted)?;
                    progress.tick(1);
                    Ok(counts)
                };
                let found: Vec<_> = self.probes.par_iter().map(of_probe).collect::<Result<_>>()?;
                counts.iter_mut().zip(found).for_each(|(all, image)| all.push(image));
            }
        }
        let scored = |((kind, cell, _), images): (&(Kind, BankCell, BankProbe), Vec<ImageCounts>)| {
            Scored::new(*kind, &self.settings.resampling(cell.seed), None, &by_image(images, val), None)
        };
        Ok(self.probes.iter().zip(counts).map(scored).collect())
    }
}

/// The pictures of a data set through a view.
///
/// # Errors
/// If the data set has no image of that id, or it cannot be read.
pub(crate) fn picture(
    dataset: &dyn dataset::Dataset,
    transform: &dataset::Transform,
    image_id: &str,
) -> Result<Array3<u8>> {
    let i = (0..dataset.len()).find(|&i| dataset.id(i) == image_id);
    let i = i.with_context(|| format!("image {image_id} is in the cache but not in the data set"))?;
    Ok(transform.image_u8(&dataset.load(i)?)?)
}
