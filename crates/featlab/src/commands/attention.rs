//! `featlab attention`: where the class token looks, for one image or a folder of frames.

use anyhow::Result;
use backbone::Loaded;
use dataset::{Crop, Resize, Split, Transform};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Context;
use crate::cli::AttentionArgs;
use crate::commands::asked::load;
use crate::exit::{Status, usage};
use crate::records::check_local;
use crate::sources;
use crate::stages::attention::{Drawn, Job, is_picture, parse_heads};
use crate::stages::{claim, picture_file};

/// The file that says how the pictures beside it were made.
const SETTINGS: &str = "attention.json";

/// What the pictures of an output folder have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Settings {
    input: String,
    /// SHA-256 of the picture; none of a folder, whose frames may become more.
    contents: Option<String>,
    backbone: String,
    fingerprint: String,
    res: usize,
    threshold: Option<f32>,
    heads: Vec<usize>,
}

pub(crate) fn run(args: AttentionArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    if let Some(mass) = args.threshold.filter(|mass| !(*mass > 0.0 && *mass <= 1.0)) {
        return Err(usage(format!(
            "--threshold is the mass that is kept, above 0 and at most 1, got {mass}"
        )));
    }
    let is_folder = std::fs::metadata(&args.input)
        .map_err(|e| usage(format!("cannot open {}: {e}", args.input.display())))?
        .is_dir();
    let (loaded, device) = load(&args.backbone, &args.loading, context)?;
    if let Some(caution) = loaded.class_token_caution() {
        context.reporter.warn(caution);
    }
    let spec = loaded.backbone.spec();
    if args.res < spec.patch_size {
        return Err(usage(format!(
            "--res {} is less than one patch of {} pixels; give a multiple of it, such as 480",
            args.res, spec.patch_size
        )));
    }
    let heads = parse_heads(&args.heads, spec.num_heads)?;
    let job = Job {
        backbone: &loaded,
        device,
        transform: transform(args.res, &loaded),
        heads: heads.clone(),
        threshold: args.threshold,
        out: &args.out,
        overwrite: args.overwrite,
    };
    if is_folder {
        let folder = sources::open(&format!("folder:{}", args.input.display()), Split::All)?;
        for problem in folder.problems() {
            context.reporter.warn(format!("skipped {}: {}", problem.id, problem.reason));
        }
        claim(&settings(&args, &loaded, None, heads), &args)?;
        let drawn = job.frames(&*folder, context)?;
        report(&args, drawn, folder.problems().len(), true, context)
    } else {
        let (sample, contents) = picture_file::read(&args.input)?;
        claim(&settings(&args, &loaded, Some(contents), heads), &args)?;
        report(&args, job.image(&sample, context)?, 0, false, context)
    }
}

/// The whole picture squeezed to a square, bilinearly, as the original does.
fn transform(res: usize, loaded: &Loaded) -> Transform {
    let defaults = Transform::default();
    let (mean, std) = loaded.normalization.unwrap_or((defaults.mean, defaults.std));
    Transform { res, crop: Crop::None, resize: Resize::Bilinear, mean, std, ..defaults }
}

fn settings(args: &AttentionArgs, loaded: &Loaded, contents: Option<String>, heads: Vec<usize>) -> Settings {
    Settings {
        input: args.input.display().to_string(),
        contents,
        backbone: loaded.backbone.spec().architecture.clone(),
        fingerprint: loaded.fingerprint.clone(),
        res: args.res,
        threshold: args.threshold,
        heads,
    }
}

/// Makes the folder ours.
fn claim(settings: &Settings, args: &AttentionArgs) -> Result<()> {
    claim::claim(&args.out, SETTINGS, settings, args.overwrite, || claim::remove(&args.out, is_picture))
}

fn report(
    args: &AttentionArgs,
    drawn: Drawn,
    problems: usize,
    film: bool,
    context: &Context,
) -> Result<Status> {
    for (frame, reason) in &drawn.skipped {
        context.reporter.warn(format!("skipped {frame}: {reason}"));
    }
    let skipped = drawn.skipped.len() + problems;
    if film && drawn.written + drawn.kept == 0 {
        anyhow::bail!("none of the {skipped} frames could be read");
    }
    let out = args.out.display();
    let assemble = film.then(|| {
        format!(
            "ffmpeg -framerate 30 -pattern_type glob -i '{out}/attn-*.png' -pix_fmt yuv420p '{out}/video.mp4'"
        )
    });
    let value = json!({
        "out": args.out,
        "input": args.input,
        "written": drawn.written,
        "kept": drawn.kept,
        "skipped": skipped,
        "assemble": assemble,
    });
    context.output.result(&value, |_| {
        let unit = if film { "frames" } else { "pictures" };
        let mut line = format!("{out}: {} {unit} written, {} were there", drawn.written, drawn.kept);
        if skipped > 0 {
            line += &format!(", {skipped} inputs skipped");
        }
        if let Some(command) = &assemble {
            line += &format!("\nas a film: {command}");
        }
        line
    })?;
    Ok(if skipped > 0 { Status::Skipped } else { Status::Done })
}
