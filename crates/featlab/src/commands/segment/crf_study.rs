//! `featlab segment crf-study`: what the CRF loss alone makes of the pixels of pictures.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use dataset::Split;
use ndarray::Array3;
use segment::crf_study::CrfStudy;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::Context;
use crate::cli::CrfStudyArgs;
use crate::exit::{Status, usage};
use crate::records::check_local;
use crate::sources;
use crate::stages::crf_study::{Job, is_own};
use crate::stages::{claim, picture_file};

/// The file that says how the pictures beside it were made.
const SETTINGS: &str = "crf-study.json";

/// A picture with its name.
type Named = (String, Array3<u8>);

/// What the files of an output folder have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Settings {
    /// Names and SHA-256 of the pixels.
    pictures: Vec<(String, String)>,
    study: CrfStudy,
    steps: usize,
    every: usize,
}

pub(super) fn run(args: &CrfStudyArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    for (option, number) in [("--steps", args.steps), ("--every", args.every), ("--pictures", args.pictures)]
    {
        if number == 0 {
            return Err(usage(format!("{option} must be at least 1, got 0")));
        }
    }
    if !(args.scale > 0.0 && args.scale <= 1.0) {
        return Err(usage(format!("--scale must be above 0 and at most 1, got {}", args.scale)));
    }
    let study: CrfStudy = crate::toml_file::parse("", &args.set)?;
    study.check().map_err(|e| usage(format!("--set: {e}")))?;
    let (pictures, skipped) = pictures(args, context)?;
    let settings = Settings {
        pictures: pictures.iter().map(|(name, picture)| (name.clone(), hash(picture))).collect(),
        study: study.clone(),
        steps: args.steps,
        every: args.every,
    };
    claim::claim(&args.out, SETTINGS, &settings, args.overwrite, || claim::remove(&args.out, is_own))?;
    let job = Job { study, pictures: &pictures, steps: args.steps, every: args.every, out: &args.out };
    let (last, written) = job.run(context)?;
    let value = json!({ "out": args.out, "last": last, "pictures": written, "skipped": skipped });
    context.output.result(&value, |_| {
        let entropies = match (last.global_entropy, last.local_entropy) {
            (Some(global), Some(local)) => format!(", entropy {global:.3} of all, {local:.3} of a pixel"),
            _ => String::new(),
        };
        format!(
            "{}: {} steps on {} pictures, loss {:.5}{entropies}; {} pictures written",
            args.out.display(),
            last.step,
            pictures.len(),
            last.loss,
            written.len()
        )
    })?;
    Ok(if skipped > 0 { Status::Skipped } else { Status::Done })
}

/// The first pictures of all inputs, scaled, under names of their own; and how many could not be read.
fn pictures(args: &CrfStudyArgs, context: &Context) -> Result<(Vec<Named>, usize)> {
    let (mut pictures, mut skipped) = (Vec::new(), 0);
    for input in &args.inputs {
        let about =
            std::fs::metadata(input).map_err(|e| usage(format!("cannot open {}: {e}", input.display())))?;
        if !about.is_dir() {
            if pictures.len() < args.pictures {
                let stem = input.file_stem().unwrap_or(input.as_os_str()).to_string_lossy().into_owned();
                pictures.push((stem, scaled(picture_file::read(input)?.0.image, args.scale)?));
            }
            continue;
        }
        let folder = sources::open(&format!("folder:{}", input.display()), Split::All)?;
        for i in 0..folder.len() {
            if pictures.len() == args.pictures {
                break;
            }
            match folder.load(i) {
                Ok(sample) => {
                    pictures.push((folder.id(i).replace('/', "_"), scaled(sample.image, args.scale)?));
                }
                Err(error) if error.is_sample() => {
                    context.reporter.warn(format!("skipped {}: {error}", folder.id(i)));
                    skipped += 1;
                }
                Err(error) => return Err(error).context("reading a picture"),
            }
        }
    }
    if pictures.is_empty() {
        return Err(usage("none of the pictures can be read".to_owned()));
    }
    Ok((named_uniquely(pictures), skipped))
}

/// Two pictures of one name are numbered.
fn named_uniquely(pictures: Vec<Named>) -> Vec<Named> {
    let mut seen = BTreeMap::<String, usize>::new();
    let name = |(name, picture): Named| {
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        (if *count == 1 { name } else { format!("{name}-{count}") }, picture)
    };
    pictures.into_iter().map(name).collect()
}

/// The picture at a scale, at least one pixel a side, every pixel the mean of those that it covers.
fn scaled(picture: Array3<u8>, scale: f64) -> Result<Array3<u8>> {
    let (h, w, _) = picture.dim();
    let side = |n: usize| ((n as f64 * scale) as usize).max(1);
    let (height, width) = (side(h), side(w));
    if (height, width) == (h, w) {
        return Ok(picture);
    }
    let raw = picture.as_standard_layout().into_owned().into_raw_vec_and_offset().0;
    let pixels =
        image::RgbImage::from_raw(w as u32, h as u32, raw).context("a picture has 3 bytes a pixel")?;
    let filter = image::imageops::FilterType::Triangle;
    let small = image::imageops::resize(&pixels, width as u32, height as u32, filter);
    Ok(Array3::from_shape_vec((height, width, 3), small.into_raw())?)
}

fn hash(picture: &Array3<u8>) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{:?}", picture.dim()));
    picture.iter().for_each(|&byte| digest.update([byte]));
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_scaled_and_named() {
        let picture = Array3::from_shape_fn((5, 8, 3), |(y, x, _)| (y * 8 + x) as u8);
        assert_eq!(scaled(picture.clone(), 1.0).unwrap(), picture);
        let half = scaled(picture.clone(), 0.5).unwrap();
        assert_eq!(half.dim(), (2, 4, 3));
        assert!(half[[0, 0, 0]] > picture[[0, 0, 0]] && half[[0, 0, 0]] < picture[[2, 2, 0]]);
        assert_eq!(scaled(picture.clone(), 0.01).unwrap().dim(), (1, 1, 3));
        let named = |name: &str| (name.to_owned(), picture.clone());
        let names: Vec<String> = named_uniquely(vec![named("a"), named("b"), named("a")])
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["a", "b", "a-2"]);
        assert_ne!(hash(&picture), hash(&half));
    }
}
