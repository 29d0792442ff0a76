//! Gallery: a few scored images as input, label, predictions (plain and after the dense CRF) and PCA-RGB, side by side, as PNG files.
//!
//! Predictions are those of the full-feature baseline's recorded probes, so the pictures show what the table's numbers
//! mean (a sweep without `none` has no gallery). Pictures that exist are not drawn again.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context as _, Result};
use dataset::{ClassTable, Dataset, Transform};
use dimred::{Affine, Pca, Projection};
use featcache::Cache;
use image::{ImageFormat, RgbImage};
use ndarray::{Array2, Array3, ArrayView2};
use segment::{Palette, colourise, percentile_ranges, rgb_from_components};

use crate::Context;
use crate::records::{Records, key_of, write_atomically};
use crate::stages::crf::picture;
use crate::stages::features::Features;
use crate::stages::refine::refined;
use crate::study::{GalleryItem, RunRecord};

/// Raised when the pictures of the same runs change, so that old ones are drawn again.
const VERSION: u32 = 2;

/// Label value that is not a class.
const IGNORE: u8 = 255;

/// What to draw.
pub(crate) struct Job<'a> {
    pub(crate) out: &'a Path,
    pub(crate) records: &'a Records,
    pub(crate) runs: &'a [RunRecord],
    pub(crate) classes: &'a ClassTable,
    pub(crate) dataset: &'a dyn Dataset,
    pub(crate) transform: &'a Transform,
    pub(crate) pictures: usize,
    pub(crate) pca: Option<Pca>,
}

impl Job<'_> {
    /// Draws what is missing and lists all pictures. `features` may be given if they are in memory already.
    pub(crate) fn run(
        &self,
        features: Option<Features>,
        cache: &Cache,
        context: &Context,
    ) -> Result<Vec<GalleryItem>> {
        let chosen: Vec<&RunRecord> =
            ["linear", "cluster"].iter().filter_map(|probe| self.baseline(probe)).collect();
        if self.pictures == 0 || chosen.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&str> = chosen.iter().map(|run| run.key.as_str()).collect();
        let folder =
            format!("figures/gallery-{}", key_of(&(VERSION, keys, self.pictures, self.pca.is_some()))?);
        let index = self.out.join(&folder).join("index.json");
        if let Some(items) = std::fs::read(&index).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok())
        {
            return Ok(items);
        }
        let features = match features {
            Some(features) => features,
            None => Features::load(cache.clone(), "validation features", context)?,
        };
        let items = self.draw(&features, &chosen, &folder, context)?;
        write_atomically(&index, &serde_json::to_vec(&items)?)?;
        Ok(items)
    }

    /// The first recorded run of the full-feature baseline: it needs no reducer to be applied again.
    fn baseline(&self, probe: &str) -> Option<&RunRecord> {
        self.runs.iter().find(|run| run.probe == probe && run.method == "none" && !run.crf)
    }

    fn draw(
        &self,
        features: &Features,
        chosen: &[&RunRecord],
        folder: &str,
        context: &Context,
    ) -> Result<Vec<GalleryItem>> {
        let probes = chosen.iter().map(|run| self.records.probe(run)).collect::<Result<Vec<_>>>()?;
        let palette = Palette::new(self.classes.palette.clone());
        let layout = features.cache().layout();
        let (grid, size) = (layout.grid, layout.label_size);
        let rgb = self.pca.as_ref().map(|pca| PcaRgb::fit(pca, features, grid)).transpose()?;
        let count = self.pictures.min(features.len());
        let progress = context.reporter.start("draw the gallery", count as u64, "images");
        let mut items = Vec::with_capacity(count);
        for picture in 0..count {
            context.interrupt.check()?;
            let i = picture * features.len() / count;
            let image_id = features.image_id(i).to_owned();
            let input = self.input(&image_id)?;
            let tokens = features.tokens(i);
            let mut sheet = Sheet {
                gallery: self,
                folder,
                picture,
                item: GalleryItem { image_id, ..GalleryItem::default() },
            };
            sheet.panel("input".to_owned(), input.clone())?;
            sheet.panel("label".to_owned(), colourise(features.label(i), &palette, IGNORE)?)?;
            for (run, probe) in chosen.iter().zip(&probes) {
                let predicted = probe.predict(tokens.view(), grid, size);
                let title = format!("{}, {} d", run.probe, run.dim);
                sheet.panel(title, colourise(matched(run, predicted.view()).view(), &palette, IGNORE)?)?;
                // A CRF needs the picture in the size of the labels; where they differ there is nothing to refine with.
                if input.dim() == (size.0, size.1, 3) {
                    let refined = refined(probe, tokens.view(), grid, input.view())?;
                    sheet.refinement(colourise(matched(run, refined.view()).view(), &palette, IGNORE)?)?;
                }
            }
            if let Some(rgb) = &rgb {
                sheet.panel("first 3 components".to_owned(), rgb.picture(tokens.view(), size)?)?;
            }
            items.push(sheet.item);
            progress.tick(1);
        }
        Ok(items)
    }

    /// The network's input as pixels.
    fn input(&self, image_id: &str) -> Result<Array3<u8>> {
        picture(self.dataset, self.transform, image_id)
    }
}

/// The pictures of one image, written as they come.
struct Sheet<'a> {
    gallery: &'a Job<'a>,
    folder: &'a str,
    picture: usize,
    item: GalleryItem,
}

impl Sheet<'_> {
    fn panel(&mut self, title: String, pixels: Array3<u8>) -> Result<()> {
        let file = self.write(&self.item.panels.len().to_string(), pixels)?;
        self.item.panels.push((title, file));
        Ok(())
    }

    /// What a CRF makes of the panel that came last.
    fn refinement(&mut self, pixels: Array3<u8>) -> Result<()> {
        let of = self.item.panels.len().saturating_sub(1);
        let file = self.write(&format!("{of}-crf"), pixels)?;
        self.item.refined.push((of, file));
        Ok(())
    }

    fn write(&self, name: &str, pixels: Array3<u8>) -> Result<String> {
        let file = format!("{}/{:02}-{name}.png", self.folder, self.picture);
        write_atomically(&self.gallery.out.join(&file), &png(pixels)?)?;
        Ok(file)
    }
}

/// Clusters renamed to the classes they were matched to; unmatched ones are blank.
fn matched(run: &RunRecord, predicted: ArrayView2<'_, u8>) -> Array2<u8> {
    match &run.class_of_cluster {
        None => predicted.to_owned(),
        Some(classes) => predicted.mapv(|cluster| {
            classes.get(usize::from(cluster)).copied().flatten().map_or(IGNORE, |class| class as u8)
        }),
    }
}

/// The first three principal components as red, green and blue, with one colour range for all pictures.
struct PcaRgb {
    map: Affine,
    ranges: [(f32, f32); 3],
    grid: (usize, usize),
}

impl PcaRgb {
    fn fit(pca: &Pca, features: &Features, grid: (usize, usize)) -> Result<Self> {
        let map = pca.at(3)?;
        let sample: Vec<Array2<f32>> = (0..features.len().min(16))
            .map(|i| Ok(map.transform(features.tokens(i * features.len() / features.len().min(16)).view())?))
            .collect::<Result<_>>()?;
        let views: Vec<_> = sample.iter().map(Array2::view).collect();
        let ranges = percentile_ranges(ndarray::concatenate(ndarray::Axis(0), &views)?.view())?;
        Ok(Self { map, ranges, grid })
    }

    fn picture(&self, tokens: ArrayView2<'_, f32>, size: (usize, usize)) -> Result<Array3<u8>> {
        let (gh, gw) = self.grid;
        let components = self.map.transform(tokens)?.into_shape_with_order((gh, gw, 3))?;
        Ok(rgb_from_components(components.view(), size, &self.ranges)?)
    }
}

/// A picture `[h, w, 3]` as the bytes of a PNG file.
pub(super) fn png(pixels: Array3<u8>) -> Result<Vec<u8>> {
    let (h, w, _) = pixels.dim();
    let raw = pixels.as_standard_layout().into_owned().into_raw_vec_and_offset().0;
    let picture = RgbImage::from_raw(w as u32, h as u32, raw).context("a picture has 3 bytes a pixel")?;
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
