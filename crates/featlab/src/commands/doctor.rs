//! `featlab doctor`: what this build and this machine offer.

use anyhow::Result;
use serde_json::json;

use crate::Context;
use crate::exit::Status;

pub(crate) fn run(context: &Context) -> Result<Status> {
    let store = probe_store();
    let facts = [
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
        ("local store", store),
        ("weights inside", backbone::embedded_names().join(", ")),
        ("model cache", backbone::hub_cache().display().to_string()),
        ("model hub", if backbone::hub_offline() { "offline (HF_HUB_OFFLINE)" } else { "online" }.to_owned()),
    ];
    let value: serde_json::Map<_, _> = facts.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    context.output.result(&value, |_| {
        facts.iter().map(|(name, fact)| format!("{name:18}{fact}")).collect::<Vec<_>>().join("\n")
    })?;
    Ok(Status::Done)
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
