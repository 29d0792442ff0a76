//! Image features of a class folder: one row per image, through the backbone once, kept in files.
//!
//! The shorter side is resized to `res · 256 / 224`, bicubic and antialiased, and the centre `res × res` is seen, of
//! training images too. A row holds the class tokens of the last blocks after the final norm, oldest first, and behind
//! them, if asked for, the mean of the last block's patch tokens: all side by side. (DINO's own layout with a pooled
//! token alternates between the two vectors; a probe's accuracy does not depend on the order, released weights do.)
//!
//! Images go through one at a time, in parallel, so that the numbers do not depend on a batch. Files of features
//! lie in a folder that is named by the hash of everything they depend on.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use backbone::Loaded;
use candle_core::{Device, IndexOp as _};
use dataset::{ClassFolder, Crop, Dataset as _, Resize, Transform};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis, s};
use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use tensorfile::Tensor;

use crate::Context;
use crate::exit::usage;
use crate::progress::Progress;
use crate::records::{key_of, write_atomically};

/// Kind and version of a features file.
const FORMAT: &str = "featlab-image-features 1";
/// Images of one file: what an interruption may cost.
const CHUNK: usize = 1024;

/// How images become rows.
pub(crate) struct Job<'a> {
    pub(crate) backbone: &'a Loaded,
    pub(crate) device: Device,
    /// Side of the network's input.
    pub(crate) res: usize,
    /// Last blocks whose class tokens are read.
    pub(crate) blocks: usize,
    /// Whether the mean patch token is appended.
    pub(crate) avgpool: bool,
}

/// The rows of one part of a class folder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageRows {
    /// `[n, blocks·d (+ d)]`.
    pub(crate) rows: Array2<f32>,
    /// `[n]`, as the folder numbers them.
    pub(crate) classes: Vec<u32>,
    /// Images without a row.
    pub(crate) skipped: Vec<Skipped>,
}

/// An image that cannot be used, `PART/ID`, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) id: String,
    pub(crate) reason: String,
}

impl ImageRows {
    /// The class token after the last block, `[n, d]`: what neighbours are looked for with.
    pub(crate) fn last_cls(&self, job: &Job<'_>) -> ArrayView2<'_, f32> {
        let d = job.backbone.backbone.spec().embed_dim;
        self.rows.slice(s![.., (job.blocks - 1) * d..job.blocks * d])
    }
}

impl Job<'_> {
    /// Fails for settings that the backbone cannot serve.
    pub(crate) fn check(&self) -> Result<()> {
        let spec = self.backbone.backbone.spec();
        let (res, patch) = (self.res, spec.patch_size);
        if res == 0 || !res.is_multiple_of(patch) {
            let below = (res / patch * patch).max(patch);
            return Err(usage(format!(
                "resolution {res} is not a multiple of the backbone's patch size {patch}; the nearest are {below} and {}",
                below + patch
            )));
        }
        if !(1..=spec.depth).contains(&self.blocks) {
            return Err(usage(format!(
                "--n-last-blocks {} is not between 1 and {}, the number of blocks",
                self.blocks, spec.depth
            )));
        }
        Ok(())
    }

    /// Hash of everything the rows of `images` depend on.
    pub(crate) fn key(&self, images: &ClassFolder) -> Result<String> {
        let spec = self.backbone.backbone.spec();
        key_of(&(
            (FORMAT, &spec.architecture, &self.backbone.fingerprint),
            images.fingerprint()?,
            (self.transform(), self.res, self.blocks, self.avgpool),
        ))
    }

    /// The rows of `images`: read from files in `folder` where they are there, else computed and put there.
    ///
    /// # Errors
    /// If the backbone fails, a file cannot be written, or on interruption (finished files stay).
    pub(crate) fn run(
        &self,
        images: &ClassFolder,
        part: &str,
        folder: &Path,
        context: &Context,
    ) -> Result<ImageRows> {
        let folder = folder.join(format!("{part}-{}", self.key(images)?));
        let progress = context.reporter.start(&format!("features {part}"), images.len() as u64, "images");
        let (mut chunks, mut found) = (Vec::new(), 0);
        for start in (0..images.len()).step_by(CHUNK) {
            let range = start..images.len().min(start + CHUNK);
            let path = folder.join(format!("{:05}.safetensors", start / CHUNK));
            // A file that cannot be read counts as absent.
            let stored = std::fs::read(&path).ok().and_then(|bytes| from_bytes(&bytes).ok());
            chunks.push(match stored {
                Some(rows) => {
                    found += range.len();
                    progress.tick(range.len() as u64);
                    rows
                }
                None => {
                    let rows = self.compute(images, part, range, &progress, context)?;
                    write_atomically(&path, &to_bytes(&rows)?)?;
                    rows
                }
            });
        }
        drop(progress);
        if found > 0 {
            context.reporter.say(format!("{part}: features of {found} images are there"));
        }
        joined(chunks)
    }

    fn compute(
        &self,
        images: &ClassFolder,
        part: &str,
        range: Range<usize>,
        progress: &Progress,
        context: &Context,
    ) -> Result<ImageRows> {
        let one = |i| {
            context.interrupt.check()?;
            let row = self.row(images, i)?;
            progress.tick(1);
            Ok((i, row))
        };
        let outcomes: Vec<_> = range.into_par_iter().map(one).collect::<Result<_>>()?;
        let (mut values, mut classes, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for (i, outcome) in outcomes {
            match outcome {
                Ok(row) => {
                    values.extend(row);
                    classes.push(images.class(i));
                }
                Err(reason) => skipped.push(Skipped { id: format!("{part}/{}", images.id(i)), reason }),
            }
        }
        let rows = Array2::from_shape_vec((classes.len(), self.dim()), values)?;
        Ok(ImageRows { rows, classes, skipped })
    }

    /// Length of a row.
    fn dim(&self) -> usize {
        (self.blocks + usize::from(self.avgpool)) * self.backbone.backbone.spec().embed_dim
    }

    /// The row of one image, or the reason why it has none.
    fn row(&self, images: &ClassFolder, i: usize) -> Result<std::result::Result<Vec<f32>, String>> {
        let view = match images.load(i).and_then(|sample| self.transform().apply(i as u64, &sample)) {
            Ok(mut views) => views.swap_remove(0),
            Err(error) if error.is_sample() => return Ok(Err(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let margin = ((view.image.dim().1 - self.res) as f64 / 2.0).round_ties_even() as usize;
        let window = margin..margin + self.res;
        self.forward(view.image.slice(s![.., window.clone(), window])).map(Ok)
    }

    /// The row of an input `[3, res, res]`.
    fn forward(&self, input: ArrayView3<'_, f32>) -> Result<Vec<f32>> {
        let pixels: Vec<f32> = input.iter().copied().collect();
        let images = candle_core::Tensor::from_vec(pixels, (1, 3, self.res, self.res), &self.device)?;
        let blocks = self.backbone.backbone.last_blocks(&images, self.blocks)?; // each [1, 1 + r + t, d]
        let mut row = Vec::with_capacity(self.dim());
        for block in &blocks {
            row.extend(block.i((0, 0))?.to_vec1::<f32>()?);
        }
        if self.avgpool {
            let last = blocks.last().context("at least one block")?;
            let before = 1 + self.backbone.backbone.spec().registers; // tokens that are no patches
            row.extend(last.i((0, before..))?.mean(0)?.to_vec1::<f32>()?);
        }
        Ok(row)
    }

    /// The larger picture whose centre is seen.
    fn transform(&self) -> Transform {
        let defaults = Transform::default();
        let (mean, std) = self.backbone.normalization.unwrap_or((defaults.mean, defaults.std));
        Transform {
            res: self.res * 256 / 224,
            crop: Crop::Center,
            resize: Resize::Bicubic,
            mean,
            std,
            ..defaults
        }
    }
}

/// All rows, in order.
fn joined(chunks: Vec<ImageRows>) -> Result<ImageRows> {
    let views: Vec<_> = chunks.iter().map(|chunk| chunk.rows.view()).collect();
    let rows = ndarray::concatenate(Axis(0), &views)?;
    let classes = chunks.iter().flat_map(|chunk| &chunk.classes).copied().collect();
    Ok(ImageRows { rows, classes, skipped: chunks.into_iter().flat_map(|chunk| chunk.skipped).collect() })
}

fn to_bytes(rows: &ImageRows) -> Result<Vec<u8>> {
    let classes = rows.classes.iter().map(|class| class.to_le_bytes());
    let tensors = [
        Tensor::f32("rows", rows.rows.shape(), &rows.rows),
        Tensor::new("classes", Dtype::U32, &[rows.classes.len()], classes),
    ];
    let metadata = [("format", FORMAT.to_owned()), ("skipped", serde_json::to_string(&rows.skipped)?)];
    let metadata = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Ok(tensorfile::to_bytes(&tensors, &metadata)?)
}

fn from_bytes(bytes: &[u8]) -> Result<ImageRows> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let skipped =
        header.metadata().as_ref().and_then(|m| m.get("skipped")).context("no list of skipped images")?;
    let file = SafeTensors::deserialize(bytes)?;
    let (rows, classes) = (file.tensor("rows")?, file.tensor("classes")?);
    let [n, d] = rows.shape() else { anyhow::bail!("rows have {} axes", rows.shape().len()) };
    anyhow::ensure!(rows.dtype() == Dtype::F32 && classes.dtype() == Dtype::U32 && classes.shape() == [*n]);
    let words = |data: &[u8]| data.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect::<Vec<_>>();
    Ok(ImageRows {
        rows: Array2::from_shape_vec(
            (*n, *d),
            words(rows.data()).into_iter().map(f32::from_le_bytes).collect(),
        )?,
        classes: words(classes.data()).into_iter().map(u32::from_le_bytes).collect(),
        skipped: serde_json::from_str(skipped)?,
    })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn rows_come_back_from_their_file() {
        let skipped = vec![Skipped { id: "a/b".into(), reason: "\"cut\" off".into() }];
        let rows =
            ImageRows { rows: array![[1.5, -2.0, 0.0], [3.0, 1e-9, 7.0]], classes: vec![4, 0], skipped };
        let bytes = to_bytes(&rows).unwrap();
        assert_eq!(from_bytes(&bytes).unwrap(), rows);
        assert!(from_bytes(&bytes[..bytes.len() - 1]).is_err());
        let twice = joined(vec![rows.clone(), rows.clone()]).unwrap();
        assert_eq!((twice.rows.dim(), twice.classes, twice.skipped.len()), ((4, 3), vec![4, 0, 4, 0], 2));
    }
}
