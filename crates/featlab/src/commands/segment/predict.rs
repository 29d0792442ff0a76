//! `featlab segment predict`: label maps of pictures, folders and data sets.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use dataset::{Dataset, Split};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Opened;
use crate::Context;
use crate::cli::PredictArgs;
use crate::exit::{Status, usage};
use crate::records::{check_local, write_atomically};
use crate::sources;
use crate::stages::claim::claim;
use crate::stages::segment::Model;
use crate::stages::segment::predict::{Done, Job, Kind, Picture, Source};

/// The file that says how the label maps beside it were made.
const SETTINGS: &str = "segment.json";
/// The file that says what the bytes mean.
const CLASSES: &str = "classes.json";

/// What the files of an output folder have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Settings {
    backbone: String,
    reducer_and_probes: String,
    view: String,
    res: usize,
    window: Option<usize>,
    overlap: f32,
    flip_average: bool,
    crf: bool,
    crf_res: Option<usize>,
    raw: bool,
}

pub(super) fn run(args: PredictArgs, context: &Context) -> Result<Status> {
    check_local(&args.out)?;
    let kinds = kinds(&args.write)?;
    let opened = Opened::new(&args.look.model, args.look.backbone.as_deref(), &args.look.loading, context)?;
    let segmenter = opened.segmenter(&args.look)?;
    let probes = opened.probes(&args.look.probe)?;
    let inputs = args.inputs.iter().map(|input| Input::open(input)).collect::<Result<Vec<_>>>()?;
    let mut problems = 0;
    for problem in inputs.iter().flat_map(Input::problems) {
        context.reporter.warn(format!("skipped {}: {}", problem.id, problem.reason));
        problems += 1;
    }
    let pictures: Vec<Picture<'_>> = inputs.iter().flat_map(Input::pictures).collect();
    distinct(&pictures)?;
    let settings = settings(&args, &opened)?;
    claim(&args.out, SETTINGS, &settings, args.overwrite, || remove_maps(&args.out))?;
    for (name, _) in &probes {
        write_atomically(
            &args.out.join(format!("{name}-{CLASSES}")),
            &legend(&opened.model, name, args.raw)?,
        )?;
    }
    let job = Job {
        segmenter: &segmenter,
        probes: &probes,
        kinds: &kinds,
        raw: args.raw,
        on_cpu: opened.device.is_cpu(),
        out: &args.out,
        overwrite: args.overwrite,
    };
    report(&args.out, &job.run(&pictures, context)?, problems, context)
}

fn kinds(words: &[String]) -> Result<Vec<Kind>> {
    let kind = |word: &String| {
        Kind::parse(word).ok_or_else(|| {
            usage(format!("--write: unknown \"{word}\", expected labels, overlay, probabilities"))
        })
    };
    words.iter().map(kind).collect()
}

/// A word of the command line.
enum Input {
    File(String),
    Dataset(Box<dyn Dataset>),
}

impl Input {
    fn open(word: &str) -> Result<Self> {
        match std::fs::metadata(word) {
            Ok(found) if found.is_file() => Ok(Self::File(word.to_owned())),
            Ok(_) => Ok(Self::Dataset(sources::open(&format!("folder:{word}"), Split::All)?)),
            Err(_) if word.contains(':') || word == "scenes" => {
                Ok(Self::Dataset(sources::open(word, Split::All)?))
            }
            Err(e) => Err(usage(format!("cannot open {word}: {e}"))),
        }
    }

    fn problems(&self) -> &[dataset::Problem] {
        match self {
            Self::File(_) => &[],
            Self::Dataset(dataset) => dataset.problems(),
        }
    }

    fn pictures(&self) -> Vec<Picture<'_>> {
        match self {
            Self::File(word) => {
                let path = Path::new(word);
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                vec![Picture { name, source: Source::File(path.to_owned()) }]
            }
            Self::Dataset(dataset) => (0..dataset.len())
                .map(|i| Picture { name: dataset.id(i).to_owned(), source: Source::Sample(&**dataset, i) })
                .collect(),
        }
    }
}

/// Refuses two pictures with files of one name.
fn distinct(pictures: &[Picture<'_>]) -> Result<()> {
    let mut names = BTreeSet::new();
    match pictures.iter().find(|picture| !names.insert(&picture.name)) {
        None => Ok(()),
        Some(twice) => Err(usage(format!(
            "two pictures are called {}: their label maps would have one name; segment them into different folders",
            twice.name
        ))),
    }
}

fn settings(args: &PredictArgs, opened: &Opened) -> Result<Settings> {
    let look = &args.look;
    Ok(Settings {
        backbone: opened.backbone.fingerprint.clone(),
        reducer_and_probes: opened.model.hash()?,
        view: look.view.clone(),
        res: look.res,
        window: look.window,
        overlap: look.overlap,
        flip_average: look.flip_average,
        crf: look.crf,
        crf_res: look.crf_res,
        raw: args.raw,
    })
}

/// Removes what an earlier run made, of whatever pictures, so that no map of other settings stays beside these.
fn remove_maps(out: &Path) -> Result<()> {
    let folders = ["linear", "cluster"].iter().flat_map(|probe| Kind::folders(probe));
    for folder in folders.map(|folder| out.join(folder)).filter(|folder| folder.exists()) {
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

/// What the bytes of a probe's label maps mean.
fn legend(model: &Model, probe: &str, raw: bool) -> Result<Vec<u8>> {
    let palette = model.palette(probe, raw);
    let is_cluster = probe == "cluster" && (raw || model.card.class_of_cluster.is_none());
    let name = |i: usize| match (is_cluster, model.card.classes.names.get(i)) {
        (false, Some(name)) => name.clone(),
        _ => format!("cluster {i}"),
    };
    let entries: Vec<_> = (0..palette.len())
        .map(|i| json!({ "value": i, "name": name(i), "colour": palette.colour(i as u8) }))
        .collect();
    serde_json::to_vec_pretty(&entries).context("a legend as JSON")
}

fn report(out: &Path, done: &Done, problems: usize, context: &Context) -> Result<Status> {
    for (picture, reason) in &done.skipped {
        context.reporter.warn(format!("skipped {picture}: {reason}"));
    }
    let skipped = done.skipped.len() + problems;
    if done.written + done.kept == 0 {
        anyhow::bail!("none of the {skipped} pictures could be read");
    }
    let rate = done.written as f64 / done.wall_s;
    let [read, network, labels, write] = done.seconds;
    let value = json!({
        "out": out,
        "written": done.written,
        "kept": done.kept,
        "skipped": skipped,
        "wall_s": done.wall_s,
        "images_per_s": rate,
        "seconds": { "read": read, "network": network, "labels": labels, "write": write },
    });
    context.output.result(&value, |_| {
        let mut line = format!(
            "{}: {} pictures segmented, {} were there",
            out.display(),
            done.written,
            done.kept
        );
        if skipped > 0 {
            line += &format!(", {skipped} inputs skipped");
        }
        if done.written > 0 {
            let all = done.seconds.iter().sum::<f64>();
            let share = |seconds: f64| 100.0 * seconds / all;
            line += &format!(
                "\n{rate:.2} images/s: reading {:.0} %, network {:.0} %, labels and CRF {:.0} %, writing {:.0} %",
                share(read), share(network), share(labels), share(write)
            );
        }
        line
    })?;
    Ok(if skipped > 0 { Status::Skipped } else { Status::Done })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_must_differ() {
        let picture = |name: &str| Picture { name: name.into(), source: Source::File("x".into()) };
        assert!(distinct(&[picture("a"), picture("b")]).is_ok());
        let error = distinct(&[picture("a"), picture("b"), picture("a")]).unwrap_err();
        assert!(crate::exit::code(&error) == 2 && error.to_string().contains("called a"), "{error}");
    }

    #[test]
    fn unknown_words() {
        assert_eq!(kinds(&["labels".into(), "overlay".into()]).unwrap(), [Kind::Labels, Kind::Overlay]);
        assert_eq!(crate::exit::code(&kinds(&["maps".into()]).unwrap_err()), 2);
        assert_eq!(crate::exit::code(&Input::open("/no/such/picture.png").err().unwrap()), 2);
    }
}
