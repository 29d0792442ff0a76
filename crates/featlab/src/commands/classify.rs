//! `featlab classify`: how well a backbone's features tell the classes of whole images apart.
//!
//! Results carry the settings they were made with. The same command again finds them; another one says so, unless
//! `--overwrite`.

use std::io::Write as _;
use std::ops::ControlFlow;

use anyhow::{Context as _, Result};
use dataset::{ClassFolder, Dataset as _, Split};
use probe::{EpochRecord, KnnVote, LabelledRows, LinearClassifier, LinearClassifierParams, TrainEvent};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tensorfile::Tensor;

use crate::Context;
use crate::cli::ClassifyArgs;
use crate::commands::asked::load;
use crate::exit::{Status, usage};
use crate::records::{check_local, write_atomically};
use crate::sources;
use crate::stages::classify::{ImageRows, Job, Skipped};

/// How the images were seen, as named beside every number.
const PROTOCOL: &str = "frozen-center-256/224";

/// Everything that determines the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Settings {
    features: [String; 2],
    probes: Vec<String>,
    k: Vec<usize>,
    temperature: f64,
    epochs: usize,
    batch_size: usize,
    lr: f64,
    seed: u64,
}

/// One scored probe: a row of `results.csv`. Accuracies are fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Scored {
    backbone: String,
    probe: String,
    k: Option<usize>,
    temperature: Option<f64>,
    epochs: Option<usize>,
    seed: Option<u64>,
    protocol: String,
    classes: usize,
    train_images: usize,
    val_images: usize,
    top1: f64,
    top5: f64,
    /// The best of all epochs, chosen on the validation images.
    best_top1: Option<f64>,
}

/// What `results.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Results {
    settings: Settings,
    /// Images that could not be read.
    skipped: Vec<Skipped>,
    scores: Vec<Scored>,
}

pub(crate) fn run(args: ClassifyArgs, context: &Context) -> Result<Status> {
    check(&args)?;
    let (train, val) = (open(&args, Split::Train, context)?, open(&args, Split::Val, context)?);
    let problems = train.problems().len() + val.problems().len();
    let (loaded, device) = load(&args.backbone, &args.loading, context)?;
    if let Some(caution) = loaded.class_token_caution() {
        context.reporter.warn(caution);
    }
    let job =
        Job { backbone: &loaded, device, res: args.res, blocks: args.n_last_blocks, avgpool: args.avgpool };
    job.check()?;
    let settings = settings(&args, [job.key(&train)?, job.key(&val)?]);
    if let Some(results) = finished(&settings, &args)? {
        context.reporter.say("nothing to compute: the results are there");
        return print(&results, problems, context);
    }
    let folder = args.out.join("features");
    let train_rows = job.run(&train, "train", &folder, context)?;
    let val_rows = job.run(&val, "val", &folder, context)?;
    for (part, rows) in [("train", &train_rows), ("val", &val_rows)] {
        anyhow::ensure!(!rows.classes.is_empty(), "no image of {part} in {} could be read", args.data);
    }
    let bench =
        Bench { args: &args, names: train.class_names(), train: &train_rows, val: &val_rows, context };
    let mut scores = Vec::new();
    if args.probe.iter().any(|probe| probe == "knn") {
        scores.extend(bench.knn(&job)?);
    }
    if args.probe.iter().any(|probe| probe == "linear") {
        scores.push(bench.linear()?);
    }
    let skipped = train_rows.skipped.iter().chain(&val_rows.skipped).cloned().collect();
    let results = Results { settings, skipped, scores };
    write_atomically(&args.out.join("results.csv"), csv(&results).as_bytes())?;
    write_atomically(&args.out.join("results.json"), &serde_json::to_vec_pretty(&results)?)?;
    print(&results, problems, context)
}

/// Refuses options that cannot be, before anything is read.
fn check(args: &ClassifyArgs) -> Result<()> {
    check_local(&args.out)?;
    if let Some(word) = args.probe.iter().find(|word| !["knn", "linear"].contains(&word.as_str())) {
        return Err(usage(format!("unknown probe \"{word}\"; known are knn, linear")));
    }
    let positive = |value: f64| value.is_finite() && value > 0.0;
    for (option, ok) in [
        ("--k", !args.k.contains(&0)),
        ("--temperature", positive(args.temperature)),
        ("--epochs", args.epochs > 0),
        ("--batch-size", args.batch_size > 0),
        ("--lr", positive(args.lr)),
    ] {
        if !ok {
            return Err(usage(format!("{option} must be positive")));
        }
    }
    Ok(())
}

fn open(args: &ClassifyArgs, split: Split, context: &Context) -> Result<ClassFolder> {
    let folder = sources::open_classes(&args.data, split)?;
    for problem in folder.problems() {
        context.reporter.warn(format!("skipped {}: {}", problem.id, problem.reason));
    }
    Ok(folder)
}

fn settings(args: &ClassifyArgs, features: [String; 2]) -> Settings {
    Settings {
        features,
        probes: args.probe.clone(),
        k: args.k.clone(),
        temperature: args.temperature,
        epochs: args.epochs,
        batch_size: args.batch_size,
        lr: args.lr,
        seed: args.seed,
    }
}

/// The results under `--out`, if they are those of these settings.
///
/// # Errors
/// A usage error if they are others' and may not be replaced.
fn finished(settings: &Settings, args: &ClassifyArgs) -> Result<Option<Results>> {
    let bytes = std::fs::read(args.out.join("results.json")).ok();
    match bytes.and_then(|bytes| serde_json::from_slice::<Results>(&bytes).ok()) {
        Some(results) if results.settings == *settings => Ok(Some(results)),
        Some(_) if !args.overwrite => Err(usage(format!(
            "{} holds results of other settings (see results.json); choose another --out, or --overwrite",
            args.out.display()
        ))),
        _ => Ok(None),
    }
}

/// The rows and what is done with them.
struct Bench<'a> {
    args: &'a ClassifyArgs,
    names: &'a [String],
    train: &'a ImageRows,
    val: &'a ImageRows,
    context: &'a Context,
}

impl Bench<'_> {
    fn knn(&self, job: &Job<'_>) -> Result<Vec<Scored>> {
        let train = LabelledRows { rows: self.train.last_cls(job), classes: &self.train.classes };
        let ks = self.clamped(train.len());
        let vote = KnnVote { ks, temperature: self.args.temperature };
        let rankings = vote.rank(train, self.val.last_cls(job)).context("k-NN")?;
        self.context.interrupt.check()?;
        let score = |ranking: &probe::KnnRanking| {
            let accuracy = ranking.accuracy(&self.val.classes)?;
            let (k, temperature) = (Some(ranking.k), Some(self.args.temperature));
            Ok(Scored { k, temperature, ..self.blank("knn", accuracy.top1, accuracy.top5) })
        };
        rankings.iter().map(score).collect()
    }

    /// The asked numbers of neighbours, none larger than the training set.
    fn clamped(&self, n: usize) -> Vec<usize> {
        let mut ks: Vec<usize> = Vec::with_capacity(self.args.k.len());
        for &k in &self.args.k {
            if k > n {
                self.context
                    .reporter
                    .warn(format!("--k {k}: there are only {n} training images; all {n} vote"));
            }
            if !ks.contains(&k.min(n)) {
                ks.push(k.min(n));
            }
        }
        ks
    }

    fn linear(&self) -> Result<Scored> {
        let params = LinearClassifierParams {
            classes: self.names.len(),
            epochs: self.args.epochs,
            batch_size: self.args.batch_size,
            learning_rate: self.args.lr,
            seed: self.args.seed,
        };
        let path = self.args.out.join("log.jsonl");
        let mut log = std::fs::File::create(&path).with_context(|| format!("writing {}", path.display()))?;
        let (train, val) = (labelled(self.train), labelled(self.val));
        let total = self.args.epochs * train.len();
        let progress = self.context.reporter.start("linear", total as u64, "images");
        let (mut last, mut written) = (None, Ok(()));
        let mut watch = |event| {
            match event {
                TrainEvent::Step(images) => progress.tick(images as u64),
                TrainEvent::Epoch(record) => {
                    written = writeln!(log, "{}", log_line(&record, self.names.len()));
                    last = Some(record);
                }
            }
            let stop = self.context.interrupt.requested() || written.is_err();
            if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let fitted = params.fit(train, val, &mut watch);
        drop(progress);
        self.context.interrupt.check()?;
        written.with_context(|| format!("writing {}", path.display()))?;
        let classifier = fitted.context("linear probe")?;
        write_atomically(&self.args.out.join("linear.safetensors"), &weights(&classifier, self.names)?)?;
        let last = last.context("at least one epoch")?;
        let (epochs, seed) = (Some(self.args.epochs), Some(self.args.seed));
        let best_top1 = Some(last.best_top1);
        Ok(Scored { epochs, seed, best_top1, ..self.blank("linear", last.test.top1, last.test.top5) })
    }

    fn blank(&self, probe: &str, top1: f64, top5: f64) -> Scored {
        Scored {
            backbone: self.args.backbone.clone(),
            probe: probe.to_owned(),
            k: None,
            temperature: None,
            epochs: None,
            seed: None,
            protocol: PROTOCOL.to_owned(),
            classes: self.names.len(),
            train_images: self.train.classes.len(),
            val_images: self.val.classes.len(),
            top1,
            top5,
            best_top1: None,
        }
    }
}

fn labelled(rows: &ImageRows) -> LabelledRows<'_> {
    LabelledRows { rows: rows.rows.view(), classes: &rows.classes }
}

/// One epoch in DINO's words, accuracies in percent; top-5 means nothing with fewer than five classes.
fn log_line(record: &EpochRecord, classes: usize) -> serde_json::Value {
    json!({
        "train_loss": record.train_loss,
        "train_lr": record.train_lr,
        "epoch": record.epoch,
        "test_loss": record.test_loss,
        "test_acc1": 100.0 * record.test.top1,
        "test_acc5": (classes >= 5).then_some(100.0 * record.test.top5),
    })
}

/// The trained probe as a safetensors file; the classes are in its metadata.
fn weights(classifier: &LinearClassifier, names: &[String]) -> Result<Vec<u8>> {
    let tensors = [
        Tensor::f32("weight", classifier.weight.shape(), &classifier.weight),
        Tensor::f32("bias", classifier.bias.shape(), &classifier.bias),
    ];
    let metadata =
        [("format", "featlab-linear-classifier".to_owned()), ("classes", serde_json::to_string(names)?)];
    let metadata = metadata.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    Ok(tensorfile::to_bytes(&tensors, &metadata)?)
}

fn csv(results: &Results) -> String {
    let mut text = String::from(
        "backbone,probe,k,temperature,epochs,seed,protocol,classes,train_images,val_images,top1,top5,best_top1\n",
    );
    let word = |value: Option<String>| value.unwrap_or_default();
    for s in &results.scores {
        let cells = [
            format!("\"{}\"", s.backbone.replace('"', "\"\"")),
            s.probe.clone(),
            word(s.k.map(|v| v.to_string())),
            word(s.temperature.map(|v| v.to_string())),
            word(s.epochs.map(|v| v.to_string())),
            word(s.seed.map(|v| v.to_string())),
            s.protocol.clone(),
            s.classes.to_string(),
            s.train_images.to_string(),
            s.val_images.to_string(),
            s.top1.to_string(),
            s.top5.to_string(),
            word(s.best_top1.map(|v| v.to_string())),
        ];
        text += &cells.join(",");
        text.push('\n');
    }
    text
}

fn print(results: &Results, problems: usize, context: &Context) -> Result<Status> {
    for skipped in &results.skipped {
        context.reporter.warn(format!("skipped {}: {}", skipped.id, skipped.reason));
    }
    for scored in &results.scores {
        context.output.result(scored, |s| {
            let name = s.k.map_or_else(|| s.probe.clone(), |k| format!("{k}-NN"));
            let best = s.best_top1.map(|best| format!(", best Top1 of all epochs: {:.2}", 100.0 * best));
            format!(
                "{name} classifier result: Top1: {:.2}, Top5: {:.2}{} ({}, {} classes, {} + {} images)",
                100.0 * s.top1,
                100.0 * s.top5,
                best.unwrap_or_default(),
                s.protocol,
                s.classes,
                s.train_images,
                s.val_images
            )
        })?;
    }
    Ok(if results.skipped.len() + problems > 0 { Status::Skipped } else { Status::Done })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_logged_in_the_originals_words() {
        let test = probe::TopAccuracy { top1: 0.5, top5: 0.75 };
        let record =
            EpochRecord { epoch: 3, train_lr: 0.1, train_loss: 2.0, test_loss: 1.0, test, best_top1: 0.5 };
        let line = log_line(&record, 5);
        assert_eq!((line["test_acc1"].as_f64(), line["test_acc5"].as_f64()), (Some(50.0), Some(75.0)));
        assert!(log_line(&record, 4)["test_acc5"].is_null());
        for key in ["train_loss", "train_lr", "epoch", "test_loss"] {
            assert!(line[key].is_number(), "{key}");
        }
    }
}
