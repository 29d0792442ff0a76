//! `featlab doctor`: what this build and this machine offer.

use std::path::Path;

use anyhow::{Context as _, Result};
use backbone::{Layer, LoadOptions, Precision, VitConfig};
use candle_core::{Device, Tensor};
use serde_json::json;

use crate::cli::DoctorArgs;
use crate::exit::Status;
use crate::stages::extract::Forward;
use crate::{Context, machine};

/// A name and what is said about it.
type Fact = (&'static str, String);

/// The model and side whose images/s are measured; the others follow from their work.
const MEASURED: (&str, usize) = ("vit_small_patch8", 224);

/// The models and sides of the forecast.
const MODELS: [&str; 4] = ["vit_small_patch16", "vit_small_patch8", "vit_base_patch16", "vit_base_patch8"];
const SIDES: [usize; 2] = [224, 320];

pub(crate) fn run(args: &DoctorArgs, context: &Context) -> Result<Status> {
    let mut facts = offered();
    let mut status = Status::Done;
    if let Some(url) = &args.store {
        let answers = ask_store(url)?;
        if answers.is_err() {
            status = Status::Incomplete;
        }
        facts.push(("store asked", answers.unwrap_or_else(|reason| reason)));
    }
    if !args.no_measure {
        facts.extend(measured(&args.folder.clone().unwrap_or_else(std::env::temp_dir)));
    }
    let value: serde_json::Map<_, _> = facts.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    context.output.result(&value, |_| {
        facts.iter().map(|(name, fact)| format!("{name:18}{fact}")).collect::<Vec<_>>().join("\n")
    })?;
    Ok(status)
}

/// What is there.
fn offered() -> Vec<Fact> {
    vec![
        ("featlab", env!("CARGO_PKG_VERSION").to_owned()),
        ("build", if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned()),
        ("threads", rayon::current_num_threads().to_string()),
        ("instruction sets", instruction_sets()),
        ("kernels", kernels()),
        ("matrix products", "gemm (pure Rust, chosen at run time), matrixmultiply; no BLAS".to_owned()),
        ("devices built in", devices()),
        (
            "device chosen",
            backbone::device("auto").map_or_else(|e| e.to_string(), |d| format!("{:?}", d.location())),
        ),
        ("stores", "local paths, file://, memory://, s3://, gs://, az://".to_owned()),
        ("local store", probe_store()),
        ("bucket variables", bucket_variables()),
        ("weights inside", backbone::embedded_names().join(", ")),
        ("model cache", backbone::hub_cache().display().to_string()),
        ("model hub", if backbone::hub_offline() { "offline (HF_HUB_OFFLINE)" } else { "online" }.to_owned()),
    ]
}

/// What it does, measured now.
///
/// * `folder`: on the disk that is meant.
fn measured(folder: &Path) -> Vec<Fact> {
    let fails = |error: anyhow::Error| format!("not measured: {}", crate::exit::one_line(&error));
    let disk = machine::disk_rate(folder).map_or_else(fails, |rate| {
        format!("{:.0} MB/s written, {:.0} MB/s read ({})", rate.written, rate.read, folder.display())
    });
    let mut facts = vec![
        ("memory rate", format!("{:.1} GB/s (two arrays read, one written)", machine::memory_rate())),
        ("disk rate", disk),
    ];
    let chosen = backbone::device("auto").ok().filter(|device| !device.is_cpu());
    for device in std::iter::once(Device::Cpu).chain(chosen) {
        facts.extend(forecast(&device).unwrap_or_else(|error| vec![("forward passes", fails(error))]));
    }
    facts
}

/// The rates of matrix products and of forward passes on a device, and the images/s that follow from them.
fn forecast(device: &Device) -> Result<Vec<Fact>> {
    let precision = Precision::of("auto", device)?;
    let peak = machine::matrix_rate(device, precision.dtype(), false)?;
    let (model, side) = MEASURED;
    let (batch, layers) = (Forward::busy_batch(device), [Layer::default()]);
    let options = LoadOptions { device: device.clone(), precision, ..LoadOptions::default() };
    let loaded = backbone::load(&format!("random:{model}:0"), &options)?.backbone;
    let images = Tensor::full(0.5_f32, (batch, 3, side, side), device)?;
    let forward =
        || Ok(loaded.forward_layers(&images, &layers)?.swap_remove(0).cls.to_device(&Device::Cpu)?);
    let mut outcome: Result<Tensor> = forward();
    let seconds = machine::best(|| outcome = forward());
    outcome?;
    let rate = loaded.spec().work((side, side), &layers)? * batch as f64 / seconds;
    let mut expected = Vec::new();
    for model in MODELS {
        let spec = VitConfig::by_name(model).context("a published size")?.spec();
        for side in SIDES {
            expected.push(format!("{model} at {side} px {:.1}", rate / spec.work((side, side), &layers)?));
        }
    }
    let (reached, share) = (rate / 1e9, 100.0 * rate / 1e9 / peak);
    let names = match device {
        Device::Cpu => ["matrix rate", "forward passes", "images/s expected"],
        _ => ["GPU matrix rate", "GPU passes", "GPU images/s"],
    };
    let said = [
        format!("{peak:.0} GFLOP/s ({precision})"),
        format!("{reached:.0} GFLOP/s ({precision}, {model} at {side} px), {share:.0} % of that"),
        expected.join(", "),
    ];
    Ok(names.into_iter().zip(said).collect())
}

/// The level of the kernels of forward passes, and the others that could be asked for.
fn kernels() -> String {
    let levels: Vec<_> = kernels::Level::available().iter().map(|level| level.name()).collect();
    let (current, variable) = (kernels::Level::current().name(), kernels::LEVEL_VARIABLE);
    format!("{current} (of {}; {variable} chooses)", levels.join(", "))
}

fn devices() -> String {
    let built = [("cpu", true), ("cuda", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal"))];
    built.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> String {
    let sets = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("f16c", std::arch::is_x86_feature_detected!("f16c")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    sets.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> String {
    std::env::consts::ARCH.to_owned()
}

/// Which of the variables that stores in buckets look at are set; never what they say.
fn bucket_variables() -> String {
    let prefixes = ["AWS_", "GOOGLE_", "AZURE_"];
    let mut set: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    set.sort_unstable();
    match set.is_empty() {
        true => "none set (AWS_*, GOOGLE_*, AZURE_*)".to_owned(),
        false => format!("{} set", set.join(", ")),
    }
}

/// Whether a store answers, and what a cache would find there; or why not.
///
/// # Errors
/// If the URL cannot be.
fn ask_store(url: &str) -> Result<std::result::Result<String, String>> {
    let store = featcache::Store::open(url)?;
    let shown = store.display().to_owned();
    Ok(match store.exists("manifest.json") {
        Ok(true) => Ok(format!("{shown} answers; it holds a cache")),
        Ok(false) => Ok(format!("{shown} answers; no cache lies right there")),
        Err(error) => Err(format!("{shown} fails: {}", crate::exit::one_line(&error.into()))),
    })
}

/// Writes and reads one object in the system's temporary folder.
fn probe_store() -> String {
    let folder = std::env::temp_dir().join(format!("featlab-doctor-{}", std::process::id()));
    let round_trip = || -> Result<()> {
        let store = featcache::Store::open(&folder.to_string_lossy())?;
        store.put("probe", "ok".into())?;
        anyhow::ensure!(store.get("probe")?.as_ref() == b"ok", "read back something else");
        Ok(())
    };
    let outcome = round_trip();
    let _ = std::fs::remove_dir_all(&folder);
    match outcome {
        Ok(()) => "writes and reads".to_owned(),
        Err(error) => format!("fails: {}", crate::exit::one_line(&error)),
    }
}
