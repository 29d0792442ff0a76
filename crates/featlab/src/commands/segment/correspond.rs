//! `featlab segment correspond`: pictures in which chosen points of one are looked for.

use std::path::Path;

use anyhow::{Context as _, Result};
use backbone::{Layer, Loaded};
use dataset::{Crop, Resize, Sample, Transform};
use dimred::Map;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Context;
use crate::cli::CorrespondArgs;
use crate::commands::asked::load;
use crate::exit::{Status, usage};
use crate::records::check_local;
use crate::stages::correspond::{Film, Job, is_picture, whole_patches};
use crate::stages::extract::Forward;
use crate::stages::reduce::feature_name;
use crate::stages::reducer_file::ReducerFile;
use crate::stages::{claim, picture_file};

/// The file that says how the pictures beside it were made.
const SETTINGS: &str = "correspond.json";
/// The published points.
const POINTS: [[f32; 2]; 3] = [[-0.1, 0.0], [0.5, 0.8], [-0.7, -0.7]];
/// More would not be told apart.
const MOST_POINTS: usize = 64;

/// What the pictures of an output folder have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Settings {
    /// Names and SHA-256 of the pictures.
    pictures: Vec<(String, String)>,
    backbone: String,
    fingerprint: String,
    /// SHA-256 and dimension of the reducer.
    reducer: Option<(String, usize)>,
    res: usize,
    crop: String,
    points: Vec<[f32; 2]>,
    /// Frames at rest and between, of a film.
    film: Option<(usize, usize)>,
}

pub(super) fn run(args: &CorrespondArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    let points = points(&args.points)?;
    let crop: Crop = args.crop.parse().map_err(|e: dataset::Error| usage(e.to_string()))?;
    if !matches!(crop, Crop::Center | Crop::None) {
        return Err(usage(format!("--crop: unknown \"{crop}\" here, expected center or none")));
    }
    let read = args.pictures.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let (loaded, device) = load(&args.backbone, &args.loading, context)?;
    let patch = loaded.backbone.spec().patch_size;
    if args.res < patch {
        return Err(usage(format!(
            "--res {} is less than one patch of {patch} pixels; give a multiple of it, such as 512",
            args.res
        )));
    }
    let (map, reducer) = codes(args, &loaded)?.unzip();
    let (samples, contents): (Vec<Sample>, Vec<String>) = read.into_iter().unzip();
    let settings = Settings {
        pictures: samples.iter().map(|sample| sample.id.clone()).zip(contents).collect(),
        backbone: loaded.backbone.spec().architecture.clone(),
        fingerprint: loaded.fingerprint.clone(),
        reducer,
        res: args.res,
        crop: crop.to_string(),
        points: points.clone(),
        film: args.film.then_some((args.hold, args.between)),
    };
    claim::claim(&args.out, SETTINGS, &settings, args.overwrite, || claim::remove(&args.out, is_picture))?;
    let defaults = Transform::default();
    let (mean, std) = loaded.normalization.unwrap_or((defaults.mean, defaults.std));
    let transform = Transform { res: args.res, crop, resize: Resize::Bilinear, mean, std, ..defaults };
    let job = Job {
        forward: Forward {
            backbone: &loaded,
            batch: Forward::batch_on(&device),
            device,
            transform: whole_patches(transform, patch),
            layers: vec![Layer::default()],
            flip_average: false,
        },
        map,
        out: &args.out,
    };
    let film = args.film.then_some(Film { hold: args.hold, between: args.between });
    let written = job.run(&samples, &points, film, context)?;
    let out = args.out.display();
    let assemble = film.map(|_| {
        format!("ffmpeg -framerate 30 -i '{out}/frame-%04d.png' -pix_fmt yuv420p '{out}/correspond.mp4'")
    });
    let value = json!({ "out": args.out, "points": points, "written": written, "assemble": assemble });
    context.output.result(&value, |_| {
        let mut line =
            format!("{out}: {written} pictures of {} points in {} pictures", points.len(), samples.len());
        if let Some(command) = &assemble {
            line += &format!("\nas a film: {command}");
        }
        line
    })?;
    Ok(Status::Done)
}

fn read(path: &Path) -> Result<(Sample, String)> {
    let about = std::fs::metadata(path).map_err(|e| usage(format!("cannot open {}: {e}", path.display())))?;
    if about.is_dir() {
        return Err(usage(format!("{} is a folder; name the pictures themselves", path.display())));
    }
    picture_file::read(path)
}

/// The points of the command line, or the published ones.
fn points(texts: &[String]) -> Result<Vec<[f32; 2]>> {
    if texts.is_empty() {
        return Ok(POINTS.to_vec());
    }
    if texts.len() > MOST_POINTS {
        return Err(usage(format!("--points: at most {MOST_POINTS} can be told apart, got {}", texts.len())));
    }
    let point = |text: &String| {
        let number = |part: &str| part.trim().parse().ok().filter(|at: &f32| (-1.0..=1.0).contains(at));
        let found = text.split_once(',').and_then(|(x, y)| Some([number(x)?, number(y)?]));
        found.ok_or_else(|| usage(format!("--points takes X,Y with both from -1 to 1, got \"{text}\"")))
    };
    texts.iter().map(point).collect()
}

/// The reducer's map, and what identifies it.
fn codes(args: &CorrespondArgs, loaded: &Loaded) -> Result<Option<(Map, (String, usize))>> {
    let Some(path) = &args.reducer else { return Ok(None) };
    let (spec, layer) = (loaded.backbone.spec(), Layer::default());
    let name = feature_name((&spec.architecture, &loaded.fingerprint), layer.block, &layer.facet.to_string());
    let ReducerFile { reducer, sha256 } = ReducerFile::read_for(path, spec.feature_dim(layer), &name)?;
    let dim = args.dims.unwrap_or_else(|| reducer.max_dim());
    let map = reducer.at(dim).with_context(|| format!("reducer {}", path.display()))?;
    Ok(Some((map, (sha256, dim))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_strictly() {
        let parse = |texts: &[&str]| points(&texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]).unwrap(), POINTS);
        assert_eq!(parse(&["-0.5, 1", "0,0"]).unwrap(), [[-0.5, 1.0], [0.0, 0.0]]);
        for bad in ["1", "1,2", "a,0", "0,0,0", "NaN,0", ""] {
            let error = parse(&[bad]).unwrap_err();
            assert_eq!(crate::exit::code(&error), 2, "{bad}");
            assert!(error.to_string().contains("from -1 to 1"), "{error}");
        }
        assert_eq!(crate::exit::code(&parse(&["0,0"; 65]).unwrap_err()), 2);
    }
}
