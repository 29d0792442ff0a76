//! `featlab pretrain`: training of a backbone by one of the methods, from a TOML file.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use candle_core::Device;
use pretrain::{AutoMixConfig, DeepClusterConfig, DinoConfig, Recipe, SwavConfig};

use crate::Context;
use crate::cli::{PretrainArgs, PretrainCommand};
use crate::exit::{Status, usage};
use crate::pretrain_config::PretrainConfig;
use crate::progress::duration;
use crate::records::check_local;
use crate::stages::pretrain::{Finished, run as train};
use crate::toml_file::TomlFile as _;

pub(crate) fn run(command: PretrainCommand, context: &Context) -> Result<Status> {
    match command {
        PretrainCommand::Dino(args) => by::<DinoConfig>(args, context),
        PretrainCommand::Swav(args) => by::<SwavConfig>(args, context),
        PretrainCommand::Deepcluster(args) => by::<DeepClusterConfig>(args, context),
        PretrainCommand::Automix(args) => by::<AutoMixConfig>(args, context),
    }
}

/// Trains by the method of a recipe.
fn by<R: Recipe>(args: PretrainArgs, context: &Context) -> Result<Status> {
    let mut config = PretrainConfig::<R>::read(&args.file, &args.set)?;
    if !args.data.is_empty() {
        config.data.datasets = args.data;
    }
    let device = backbone::device(&args.device)?;
    let out = args.out.unwrap_or_else(|| PathBuf::from("runs").join(&config.name));
    check_local(&out)?;
    if args.seeds.len() <= 1 {
        let seed = &mut config.method.train_mut().seed;
        *seed = args.seeds.first().copied().unwrap_or(*seed);
        return one(&config, &out, &device, args.overwrite, context).map(|(_, status)| status);
    }
    let mut status = Status::Done;
    for &seed in &args.seeds {
        config.method.train_mut().seed = seed;
        let out = out.join(format!("seed-{seed}"));
        let (_, this) = one(&config, &out, &device, args.overwrite, context)?;
        if this != Status::Done {
            status = this;
        }
    }
    Ok(status)
}

fn one<R: Recipe>(
    config: &PretrainConfig<R>,
    out: &Path,
    device: &Device,
    overwrite: bool,
    context: &Context,
) -> Result<(Finished, Status)> {
    prepare::<R>(out, overwrite)?;
    let (finished, status) = train(config, out, device, context)?;
    context.output.result(&finished, text)?;
    Ok((finished, status))
}

/// Makes room with `--overwrite`, and refuses a folder that holds something else.
fn prepare<R: Recipe>(out: &Path, overwrite: bool) -> Result<()> {
    if !out.exists() {
        return Ok(());
    }
    let is_run = out.join("state.safetensors").is_file()
        || PretrainConfig::<R>::read(&out.join("config.toml"), &[]).is_ok();
    let names = names(out)?;
    if !is_run && names.iter().any(|name| name != ".lock") {
        return Err(usage(format!(
            "{} is not empty and not a pretraining run; name another --out",
            out.display()
        )));
    }
    for name in names.iter().filter(|name| overwrite && is_ours(name)) {
        let path = out.join(name);
        std::fs::remove_file(&path).map_err(|e| anyhow!("cannot remove {}: {e}", path.display()))?;
    }
    Ok(())
}

/// Names in a folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = folder.read_dir().map_err(|e| usage(format!("{}: {e}", folder.display())))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Whether a run writes a file of this name: nothing else is ever deleted.
fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let numbered = name.strip_prefix("checkpoint").and_then(|rest| rest.strip_suffix(".pth"));
    let tables = ["config.toml", "metrics.csv", "metrics.parquet", "monitor.csv", "mixed.png"];
    tables.contains(&name)
        || ["state.safetensors", "backbone.safetensors"].contains(&name)
        || numbered.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        || name.starts_with("events.out.tfevents.")
}

fn text(finished: &Finished) -> String {
    let Finished { seed, steps, parameters, images, uniform, ln_k, loss_first, loss_last, .. } = finished;
    let percent =
        |share: Option<f64>| share.map_or("–".to_owned(), |share| format!("{:.2} %", 100.0 * share));
    let since = match finished.below_ln_k_since {
        Some(step) => format!("below it from step {} on", step + 1),
        None => "not below it at the end".to_owned(),
    };
    let heads = finished.accuracies.iter().map(|(head, share)| format!("{head} {:.2} %", 100.0 * share));
    let heads = match heads.collect::<Vec<_>>() {
        heads if heads.is_empty() => String::new(),
        heads => format!("\n  classes      {}", heads.join("   ")),
    };
    format!(
        "seed {seed}: {steps} steps, {parameters} parameters, {images} images, {}\n  \
         loss         first {loss_first:.4}   last {loss_last:.4}   ({uniform} = {ln_k:.4}, {since})\n  \
         patch k-NN   before {}   after {}{heads}\n  backbone     {}",
        duration(finished.seconds),
        percent(finished.knn_before),
        percent(finished.knn_after),
        finished.backbone.display()
    )
}
