//! A model looks at a picture of any size: pixels → windows → codes → label maps of exactly the picture's size.
//!
//! With [`View::Slide`] the shorter side is scaled to `res` pixels and the longer one with it, both to whole patches; a square window slides over
//! the patches and what it sees is blended ([`Windows`]). With [`View::Center`] it is the original's centre square. Codes, not scores, are
//! averaged over windows and over the picture and its mirror image. Labels are read from upsampled scores at the picture's own
//! size; a CRF refines probabilities at the size that the network saw (or another), and its marginals are upsampled.

use anyhow::{Result, ensure};
use dataset::{CropBox, Sample, Transform};
use dimred::{Map, Projection as _};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, s};
use probe::{BankProbe, upsample_argmax};
use segment::Windows;

use super::Model;
use crate::exit::usage;
use crate::stages::extract::Forward;
use crate::stages::refine;

/// A pixel that was not looked at.
pub(crate) const UNSEEN: u8 = 255;

/// Longer side of a picture, in shorter ones, from which on it is refused: it would be scaled to any size.
const LONGEST: usize = 64;

/// What of a picture is looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum View {
    /// The centre square, as the original does.
    Center,
    /// All of it, through windows of `window` pixels that overlap by a share of them.
    Slide { window: usize, overlap: f32 },
}

/// How a model looks.
pub(crate) struct Segmenter<'a> {
    model: &'a Model,
    map: Map,
    forward: Forward<'a>,
    /// `res` is the shorter side.
    transform: Transform,
    view: View,
    flip_average: bool,
    /// Shorter side of the picture that a CRF refines on; 0 for the size that the network saw. `None` without a CRF.
    crf: Option<usize>,
}

/// Choices of a [`Segmenter`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Look {
    pub(crate) view: View,
    pub(crate) res: usize,
    pub(crate) flip_average: bool,
    pub(crate) crf: Option<usize>,
}

/// A picture, looked at.
pub(crate) struct Seen {
    /// `[gh·gw, k]`.
    pub(crate) codes: Array2<f32>,
    pub(crate) grid: (usize, usize),
    /// The part of the picture that the grid covers.
    part: CropBox,
    /// The picture's size, `(h, w)`.
    size: (usize, usize),
    /// What a CRF refines on, `[h, w, 3]`.
    pixels: Array3<u8>,
}

impl<'a> Segmenter<'a> {
    /// * `forward`: reads one layer, without averaging mirror images.
    ///
    /// # Errors
    /// A usage error if window and patches do not fit.
    pub(crate) fn new(model: &'a Model, forward: Forward<'a>, look: Look) -> Result<Self> {
        let patch = forward.backbone.backbone.spec().patch_size;
        let Look { view, res, flip_average, crf } = look;
        let whole = |name: &str, side: usize| match side > 0 && side.is_multiple_of(patch) {
            true => Ok(()),
            false => Err(usage(format!(
                "{name} {side}: expected a multiple of the patch of {patch} pixels, such as {}",
                (side / patch).max(1) * patch
            ))),
        };
        whole("--res", res)?;
        if let View::Slide { window, overlap } = view {
            whole("--window", window)?;
            if !(0.0..1.0).contains(&overlap) {
                return Err(usage(format!(
                    "--overlap is a share of a window from 0 to below 1, got {overlap}"
                )));
            }
        }
        let transform = Transform { res, ..model.card.transform.clone() };
        let map = model.reducer.at(model.card.dim)?;
        Ok(Self { model, map, forward, transform, view, flip_average, crf })
    }

    /// The model.
    pub(crate) fn model(&self) -> &Model {
        self.model
    }

    /// The view of a centre square, which labels go through as well.
    pub(crate) fn transform(&self) -> &Transform {
        &self.transform
    }

    /// What is looked at.
    pub(crate) fn view(&self) -> View {
        self.view
    }

    /// Looks at a picture.
    ///
    /// # Errors
    /// If the picture is no picture, or far too narrow.
    pub(crate) fn look(&self, sample: &Sample) -> Result<Seen> {
        let (h, w, _) = sample.image.dim();
        ensure!(h > 0 && w > 0, "a picture of {w} x {h} pixels");
        let narrow = h.max(w).div_ceil(h.min(w)) > LONGEST;
        ensure!(!narrow, "a picture of {w} x {h} pixels: expected sides of at most {LONGEST} to 1");
        let patch = self.forward.backbone.backbone.spec().patch_size;
        let (pixels, part, side) = match self.view {
            View::Center => {
                let side = self.transform.res / patch;
                (self.transform.image_u8(sample)?, self.transform.seen_part((h, w)), side)
            }
            View::Slide { window, .. } => {
                let size = self.scaled((h, w), patch);
                let pixels = self.transform.resize.stretched(sample.image.view(), size);
                (pixels, CropBox { x: 0, y: 0, w, h }, window / patch)
            }
        };
        let overlap = match self.view {
            View::Center => 0.0,
            View::Slide { overlap, .. } => overlap,
        };
        let grid = (pixels.dim().0 / patch, pixels.dim().1 / patch);
        let windows = Windows::new(grid, (side, side), overlap)?;
        let input = self.transform.normalised(pixels.view())?; // [3, h, w]
        let codes = self.codes(input.view(), &windows, patch)?;
        let codes = windows.blend(codes.iter().map(Array2::view))?;
        let pixels = match self.crf {
            Some(shorter) if shorter > 0 => {
                let cut = sample.image.slice(s![part.y..part.y + part.h, part.x..part.x + part.w, ..]);
                self.transform.resize.stretched(cut, shortened((part.h, part.w), shorter))
            }
            _ => pixels,
        };
        Ok(Seen { codes, grid, part, size: (h, w), pixels })
    }

    /// Codes of every window of a picture `[3, h, w]`.
    fn codes(&self, input: ArrayView3<'_, f32>, windows: &Windows, patch: usize) -> Result<Vec<Array2<f32>>> {
        let (h, w) = windows.side();
        let views: Vec<_> = windows
            .places()
            .map(|(i, j)| input.slice_move(s![.., i * patch..(i + h) * patch, j * patch..(j + w) * patch]))
            .collect();
        let seen = self.map_all(&views)?;
        if !self.flip_average {
            return Ok(seen);
        }
        let mirrored: Vec<_> = views.iter().map(|view| view.slice_move(s![.., .., ..;-1])).collect();
        let mirrored = self.map_all(&mirrored)?;
        Ok(seen
            .into_iter()
            .zip(mirrored)
            .map(|(code, other)| (code + unmirrored(other.view(), w)) / 2.0)
            .collect())
    }

    fn map_all(&self, views: &[ArrayView3<'_, f32>]) -> Result<Vec<Array2<f32>>> {
        let seen = self.forward.all(views)?;
        seen.into_iter().map(|mut layers| Ok(self.map.transform(layers.swap_remove(0).0.view())?)).collect()
    }

    /// Whole patches, the shorter side `res`.
    fn scaled(&self, size: (usize, usize), patch: usize) -> (usize, usize) {
        let (h, w) = shortened(size, self.transform.res);
        let whole = |side: usize| ((side + patch / 2) / patch).max(1) * patch;
        (whole(h), whole(w))
    }

    /// The class or cluster of every pixel, on `size` pixels over the part that was looked at.
    ///
    /// # Errors
    /// If the parts of `seen` do not fit together.
    pub(crate) fn labels(&self, probe: &BankProbe, seen: &Seen, size: (usize, usize)) -> Result<Array2<u8>> {
        if self.crf.is_none() {
            return Ok(probe.predict(seen.codes.view(), seen.grid, size));
        }
        let marginals = self.probabilities(probe, seen)?; // [k, h, w]
        let (k, h, w) = marginals.dim();
        if (h, w) == size {
            return Ok(refine::argmax(marginals.view()));
        }
        let rows = marginals.into_shape_with_order((k, h * w))?.reversed_axes(); // [h·w, k]
        Ok(upsample_argmax(rows.view(), (h, w), size))
    }

    /// The class or cluster of every pixel of the picture; [`UNSEEN`] where it was not looked at.
    ///
    /// # Errors
    /// As [`Segmenter::labels`].
    pub(crate) fn label_map(&self, probe: &BankProbe, seen: &Seen) -> Result<Array2<u8>> {
        let CropBox { x, y, w, h } = seen.part;
        let labels = self.labels(probe, seen, (h, w))?;
        if (h, w) == seen.size {
            return Ok(labels);
        }
        let mut all = Array2::from_elem(seen.size, UNSEEN);
        all.slice_mut(s![y..y + h, x..x + w]).assign(&labels);
        Ok(all)
    }

    /// Probabilities of classes or clusters, `[k, h, w]`, after the CRF if there is one; of clusters, the original's `softmax(2 cos)`.
    ///
    /// # Errors
    /// As [`Segmenter::labels`].
    pub(crate) fn probabilities(&self, probe: &BankProbe, seen: &Seen) -> Result<Array3<f32>> {
        let (codes, image) = (seen.codes.view(), seen.pixels.view());
        match self.crf {
            None => refine::probabilities(probe, codes, seen.grid, (image.dim().0, image.dim().1)),
            Some(_) => refine::marginals(probe, codes, seen.grid, image),
        }
    }

    /// Clusters by the names of their classes, if they have some; those without one are [`UNSEEN`].
    pub(crate) fn named(&self, probe: &BankProbe, labels: Array2<u8>) -> Array2<u8> {
        match (probe, &self.model.card.class_of_cluster) {
            (BankProbe::Cluster(_), Some(names)) => {
                let name = |cluster: u8| names.get(usize::from(cluster)).copied().flatten();
                labels.mapv(|cluster| name(cluster).map_or(UNSEEN, |class| class as u8))
            }
            _ => labels,
        }
    }
}

/// A size whose shorter side is `shorter`, the longer one rounded.
fn shortened((h, w): (usize, usize), shorter: usize) -> (usize, usize) {
    let scale = shorter as f64 / h.min(w) as f64;
    let side = |n: usize| ((n as f64 * scale).round() as usize).max(1);
    (side(h), side(w))
}

/// Codes `[h·w, k]` with every row of the grid reversed.
fn unmirrored(codes: ArrayView2<'_, f32>, w: usize) -> Array2<f32> {
    Array2::from_shape_fn(codes.dim(), |(t, c)| codes[[t / w * w + (w - 1 - t % w), c]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_side_is_given_and_the_aspect_kept() {
        assert_eq!(shortened((360, 480), 320), (320, 427));
        assert_eq!(shortened((480, 360), 320), (427, 320));
        assert_eq!(shortened((3000, 4000), 320), (320, 427));
        assert_eq!(shortened((1, 64), 8), (8, 512));
    }

    #[test]
    fn rows_are_reversed_each_by_itself() {
        let codes = ndarray::array![[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]];
        assert_eq!(unmirrored(codes.view(), 3), ndarray::array![[2.0], [1.0], [0.0], [5.0], [4.0], [3.0]]);
    }
}
