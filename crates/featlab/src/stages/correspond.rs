//! Correspond: where pictures look like chosen points of the first one, by a backbone's features or a reducer's codes.
//!
//! Every picture goes through the backbone once; maps, panels and the frames of a film are made of what came out.

use std::path::Path;

use anyhow::{Context as _, Result};
use dataset::{Sample, Transform};
use dimred::{Map, Projection as _};
use ndarray::{Array2, Array3};
use segment::{beside, correspondence_maps, correspondence_picture, mark_queries, query_colours, query_path};

use crate::Context;
use crate::records::write_atomically;
use crate::stages::extract::Forward;
use crate::stages::gallery::png;

/// Columns between two panels.
const GAP: usize = 8;

/// How to look.
pub(crate) struct Job<'a> {
    pub(crate) forward: Forward<'a>,
    /// From features to codes.
    pub(crate) map: Option<Map>,
    pub(crate) out: &'a Path,
}

/// A film: one point that rests and moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Film {
    pub(crate) hold: usize,
    pub(crate) between: usize,
}

/// A picture as the network saw it.
struct Seen {
    /// `[side, side, 3]`
    picture: Array3<u8>,
    /// `[t, k]`
    tokens: Array2<f32>,
    /// `(gh, gw)`
    grid: (usize, usize),
}

/// A square whose side is whole patches: the transform, cut to them.
pub(crate) fn whole_patches(transform: Transform, patch: usize) -> Transform {
    Transform { res: transform.res / patch * patch, ..transform }
}

/// Whether a run draws pictures of such a name.
pub(crate) fn is_picture(name: &str) -> bool {
    let numbered = |start: &str| {
        name.strip_prefix(start)
            .and_then(|rest| rest.strip_suffix(".png"))
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    name == "queries.png" || name == "panels.png" || numbered("map-") || numbered("frame-")
}

impl Job<'_> {
    /// Draws panels, and the frames of a film if one is asked for; gives the number of pictures written.
    ///
    /// * `samples`: the picture with the points first; at least one.
    ///
    /// # Errors
    /// If a picture does not fit the backbone or cannot be written, or on interruption.
    pub(crate) fn run(
        &self,
        samples: &[Sample],
        points: &[[f32; 2]],
        film: Option<Film>,
        context: &Context,
    ) -> Result<usize> {
        let seen = samples.iter().map(|sample| self.see(sample)).collect::<Result<Vec<_>>>()?;
        let panels = panels(&seen, points)?;
        self.write("panels.png", &row(&panels)?)?;
        for (number, panel) in panels.iter().enumerate() {
            let name = match number.checked_sub(1) {
                None => "queries.png".to_owned(),
                Some(map) => format!("map-{map}.png"),
            };
            self.write(&name, panel)?;
        }
        let mut written = panels.len() + 1;
        if let Some(Film { hold, between }) = film {
            let path = query_path(points, hold, between);
            let progress = context.reporter.start("correspond", path.len() as u64, "frames");
            let mut last: Option<([f32; 2], Array3<u8>)> = None;
            for (number, point) in path.into_iter().enumerate() {
                context.interrupt.check()?;
                // A point at rest gives the same picture again.
                let frame = match last.take() {
                    Some((at, frame)) if at == point => frame,
                    _ => row(&self::panels(&seen, &[point])?)?,
                };
                self.write(&format!("frame-{number:04}.png"), &frame)?;
                last = Some((point, frame));
                written += 1;
                progress.tick(1);
            }
        }
        Ok(written)
    }

    fn see(&self, sample: &Sample) -> Result<Seen> {
        let transform = &self.forward.transform;
        let view = transform.apply(0, sample)?.swap_remove(0);
        let picture = transform.image_u8(sample)?;
        let (tokens, _) = self.forward.all(&[view.image.view()])?.swap_remove(0).swap_remove(0);
        let side = transform.res / self.forward.backbone.backbone.spec().patch_size;
        let tokens = match &self.map {
            None => tokens,
            Some(map) => map.transform(tokens.view()).with_context(|| format!("codes of {}", sample.id))?,
        };
        Ok(Seen { picture, tokens, grid: (side, side) })
    }

    fn write(&self, name: &str, picture: &Array3<u8>) -> Result<()> {
        write_atomically(&self.out.join(name), &png(picture.clone())?)
    }
}

/// The first picture with crosses, then the map of every picture.
fn panels(seen: &[Seen], points: &[[f32; 2]]) -> Result<Vec<Array3<u8>>> {
    let first = seen.first().context("there is no picture")?;
    let colours = query_colours(points.len());
    let mut panels = vec![mark_queries(first.picture.view(), points, &colours)?];
    for other in seen {
        let maps = correspondence_maps(first.tokens.view(), first.grid, points, other.tokens.view())?;
        let (gh, gw) = other.grid;
        let maps = maps.into_shape_with_order((points.len(), gh, gw))?;
        panels.push(correspondence_picture(other.picture.view(), maps.view(), &colours)?);
    }
    Ok(panels)
}

fn row(panels: &[Array3<u8>]) -> Result<Array3<u8>> {
    let views: Vec<_> = panels.iter().map(Array3::view).collect();
    Ok(beside(&views, GAP)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_pictures_are_known_by_their_names() {
        for own in ["queries.png", "panels.png", "map-0.png", "map-12.png", "frame-0279.png"] {
            assert!(is_picture(own), "{own}");
        }
        for other in ["map-.png", "map-a.png", "frame-1.jpg", "mine.png", "queries.png.bak"] {
            assert!(!is_picture(other), "{other}");
        }
    }
}
