//! Attention: what the class token of the last block looks at, as pictures of an image or of every frame of a film.
//!
//! The picture is squeezed to a square, normalised, and its right and bottom edge cut to whole patches. The last block's
//! attention of the class token to the patches is one map per head; its attention to itself is left out and the rest not
//! scaled up again. Frames are computed one by one, in the order of their names, and each is a file of its own: a run
//! that was stopped goes on where it was.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use backbone::Loaded;
use candle_core::{Device, IndexOp as _, Tensor};
use dataset::{Dataset, Sample, Transform};
use ndarray::{Array2, Array3, Axis, s};
use segment::{
    enlarge, head_colours, heat_map, highlight, masked, mass_mask, overlay, overlay_heads, stretch,
};

use crate::Context;
use crate::exit::usage;
use crate::records::write_atomically;
use crate::stages::gallery::png;

/// Opacity of what is laid over the image.
const ALPHA: f32 = 0.5;
/// Mass of the picture of all heads where no threshold is given: the paper's.
const USUAL_MASS: f32 = 0.6;
/// How the files of frames begin, and the frames that are not read because they are our own.
const FRAME: &str = "attn-";

/// How to look, and where the pictures go.
pub(crate) struct Job<'a> {
    pub(crate) backbone: &'a Loaded,
    pub(crate) device: Device,
    /// A square, the whole picture.
    pub(crate) transform: Transform,
    /// Heads that are drawn, each below the backbone's number.
    pub(crate) heads: Vec<usize>,
    /// Mass that a mask keeps; without it there are no masks.
    pub(crate) threshold: Option<f32>,
    pub(crate) out: &'a Path,
    /// Draw what is there again.
    pub(crate) overwrite: bool,
}

/// A picture of one image; `at` is the place of the head among those that are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Picture {
    Input,
    Heat { at: usize, head: usize },
    Overlay { at: usize, head: usize },
    Mask { at: usize, head: usize, mass: f32 },
    AllHeads { mass: f32 },
}

impl Picture {
    /// Its file, with the names of the original where it has one.
    fn file(&self) -> String {
        match self {
            Self::Input => "img.png".to_owned(),
            Self::Heat { head, .. } => format!("attn-head{head}.png"),
            Self::Overlay { head, .. } => format!("overlay-head{head}.png"),
            Self::Mask { head, mass, .. } => format!("mask_th{mass}_head{head}.png"),
            Self::AllHeads { .. } => "overlay-heads.png".to_owned(),
        }
    }
}

/// Whether a run draws pictures of such a name.
pub(crate) fn is_picture(name: &str) -> bool {
    name == "img.png"
        || name.ends_with(".png")
            && [FRAME, "overlay-head", "mask_th"].iter().any(|start| name.starts_with(start))
}

/// What a run did, in pictures (of one image) or frames.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Drawn {
    /// Drawn by this run.
    pub(crate) written: usize,
    /// Left as they were.
    pub(crate) kept: usize,
    /// Frames that cannot be read, with the reason.
    pub(crate) skipped: Vec<(String, String)>,
}

/// An image as the network saw it, with its attention.
struct Seen {
    /// `[h, w, 3]`, from its darkest to its brightest value.
    picture: Array3<u8>,
    /// `[heads, gh, gw]`, the heads that are drawn.
    attention: Array3<f32>,
}

impl Job<'_> {
    /// Draws one image: itself, and per head a heat map, an overlay and, with a threshold, its mask.
    ///
    /// # Errors
    /// If the image does not fit the backbone, or a picture cannot be written.
    pub(crate) fn image(&self, sample: &Sample, context: &Context) -> Result<Drawn> {
        let all = self.pictures();
        let place = |picture: &Picture| self.out.join(picture.file());
        let todo: Vec<_> = all.iter().filter(|picture| self.overwrite || !place(picture).exists()).collect();
        let mut drawn = Drawn { kept: all.len() - todo.len(), ..Drawn::default() };
        if todo.is_empty() {
            return Ok(drawn);
        }
        let seen = self.see(sample)?;
        for picture in todo {
            context.interrupt.check()?;
            write_atomically(&place(picture), &png(self.draw(picture, &seen)?)?)?;
            drawn.written += 1;
        }
        Ok(drawn)
    }

    /// What is drawn of one image.
    fn pictures(&self) -> Vec<Picture> {
        let mut pictures = vec![Picture::Input];
        for (at, &head) in self.heads.iter().enumerate() {
            pictures.extend([Picture::Heat { at, head }, Picture::Overlay { at, head }]);
            pictures.extend(self.threshold.map(|mass| Picture::Mask { at, head, mass }));
        }
        pictures.push(Picture::AllHeads { mass: self.threshold.unwrap_or(USUAL_MASS) });
        pictures
    }

    fn draw(&self, picture: &Picture, seen: &Seen) -> Result<Array3<u8>> {
        let (patch, input) = (self.patch(), seen.picture.view());
        let weights = |at| seen.attention.index_axis(Axis(0), at);
        Ok(match *picture {
            Picture::Input => seen.picture.clone(),
            Picture::Heat { at, .. } => heat_map(weights(at), patch),
            Picture::Overlay { at, .. } => overlay(input, heat_map(weights(at), patch).view(), ALPHA)?,
            Picture::Mask { at, mass, .. } => {
                let mask = enlarge(mass_mask(weights(at), mass)?.view(), patch);
                let colour = u8::try_from(at).ok().and_then(|at| head_colours(self.heads.len()).colour(at));
                highlight(input, mask.view(), colour.context("at most 256 heads")?, ALPHA)?
            }
            Picture::AllHeads { mass } => overlay_heads(input, seen.attention.view(), patch, mass, ALPHA)?,
        })
    }

    /// Draws the mean of the heads for every picture that lies directly in a folder.
    ///
    /// With a threshold each head's map is first cut down to its mask.
    ///
    /// # Errors
    /// If there is no frame, a picture cannot be written, or on interruption (finished pictures stay).
    pub(crate) fn frames(&self, folder: &dyn Dataset, context: &Context) -> Result<Drawn> {
        let frames: Vec<usize> = (0..folder.len()).filter(|&i| is_frame(folder.id(i))).collect();
        if frames.is_empty() {
            return Err(usage(
                "the folder has no frames: pictures in folders below it, and those named attn-…, do not count",
            ));
        }
        let mut drawn = Drawn::default();
        let progress = context.reporter.start("attention", frames.len() as u64, "frames");
        for i in frames {
            context.interrupt.check()?;
            let path = self.out.join(frame_name(folder.id(i)));
            if path.exists() && !self.overwrite {
                drawn.kept += 1;
            } else {
                match folder.load(i) {
                    Ok(sample) => {
                        write_atomically(&path, &png(heat_map(self.mean(&sample)?.view(), self.patch()))?)?;
                        drawn.written += 1;
                    }
                    Err(error) if error.is_sample() => {
                        drawn.skipped.push((folder.id(i).to_owned(), error.to_string()));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            progress.tick(1);
        }
        Ok(drawn)
    }

    /// The mean over heads of one frame, `[gh, gw]`.
    fn mean(&self, sample: &Sample) -> Result<Array2<f32>> {
        let attention = self.see(sample)?.attention;
        let mut sum = Array2::zeros((attention.dim().1, attention.dim().2));
        for weights in attention.axis_iter(Axis(0)) {
            match self.threshold {
                Some(mass) => sum += &masked(weights, mass_mask(weights, mass)?.view())?,
                None => sum += &weights,
            }
        }
        Ok(sum / attention.dim().0 as f32)
    }

    /// Runs the network.
    fn see(&self, sample: &Sample) -> Result<Seen> {
        let view = self.transform.apply(0, sample)?.swap_remove(0);
        let side = self.transform.res / self.patch() * self.patch();
        let input = view.image.slice(s![.., ..side, ..side]); // [3, side, side]
        let pixels: Vec<f32> = input.iter().copied().collect();
        let images = Tensor::from_vec(pixels, (1, 3, side, side), &self.device)?;
        let before = 1 + self.backbone.backbone.spec().registers; // tokens that are no patches
        let weights = self.backbone.backbone.attention(&images, -1)?.i((0, .., 0, before..))?; // [heads, t]
        let (n, _) = weights.dims2()?;
        let grid = side / self.patch();
        let weights = Array3::from_shape_vec((n, grid, grid), weights.flatten_all()?.to_vec1()?)?;
        Ok(Seen { picture: stretch(input)?, attention: weights.select(Axis(0), &self.heads) })
    }

    fn patch(&self) -> usize {
        self.backbone.backbone.spec().patch_size
    }
}

/// Whether a picture of a folder is a frame: not below it, and not drawn by us.
fn is_frame(id: &str) -> bool {
    !id.contains('/') && !id.starts_with(FRAME)
}

/// The file of a frame's picture. Its own extension, where the id has one, stays in the name.
fn frame_name(id: &str) -> PathBuf {
    format!("{FRAME}{id}.png").into()
}

/// Heads by the words of the command line: `all`, or numbers.
///
/// # Errors
/// A usage error for what is no head of `heads`.
pub(crate) fn parse_heads(words: &[String], heads: usize) -> Result<Vec<usize>> {
    if let [word] = words
        && word == "all"
    {
        return Ok((0..heads).collect());
    }
    let mut chosen = Vec::with_capacity(words.len());
    for word in words {
        let head = word.parse().ok().filter(|&head: &usize| head < heads).ok_or_else(|| {
            usage(format!("--heads takes all, or numbers from 0 to {}, got \"{word}\"", heads - 1))
        })?;
        if !chosen.contains(&head) {
            chosen.push(head);
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_strictly() {
        let parse = |words: &[&str]| parse_heads(&words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>(), 3);
        assert_eq!(parse(&["all"]).unwrap(), [0, 1, 2]);
        assert_eq!(parse(&["2", "0", "2"]).unwrap(), [2, 0]);
        for bad in [&["3"][..], &["-1"], &["all", "0"], &[""]] {
            assert_eq!(crate::exit::code(&parse(bad).unwrap_err()), 2, "{bad:?}");
        }
    }

    #[test]
    fn own_pictures_are_no_frames() {
        assert!(is_frame("frame-0001") && !is_frame("attn-frame-0001") && !is_frame("sub/frame"));
        assert_eq!(frame_name("frame-0001"), PathBuf::from("attn-frame-0001.png"));
    }
}
