#![doc = include_str!("../README.md")]

mod bench;
pub mod cli;
#[cfg(feature = "cluster")]
mod cluster;
mod commands;
mod config;
mod dim;
mod exit;
mod interrupt;
mod machine;
mod output;
mod pretrain_config;
mod progress;
mod records;
mod report;
mod sources;
mod stages;
mod study;
mod sweep;
mod toml_file;

use std::process::ExitCode;

use anyhow::Context as _;
use cli::Cli;
use featcache::{Cache, LocalCopy, Store};
use interrupt::Interrupt;
use output::Output;
use progress::{Reporter, Verbosity};

/// What every command is given besides its arguments.
struct Context {
    output: Output,
    reporter: Reporter,
    interrupt: Interrupt,
    /// Where shards that are far away are kept.
    local_copy: Option<LocalCopy>,
    /// The cluster that is to do the work.
    cluster: Option<String>,
}

/// What a program without the feature says.
const NO_CLUSTER: &str =
    "this featlab was built without clusters; build it with `cargo build --release --features cluster`";

/// What to do where h-NNE was not built in.
#[cfg(not(feature = "hnne"))]
const NO_HNNE: &str = "hnne is not in this build; build it with `cargo build --release --features hnne` (its authors allow no commercial \
     use of re-implementations, and this is one)";

impl Context {
    /// The finished cache at `url`.
    fn cache(&self, url: &str) -> anyhow::Result<Cache> {
        let cache = Cache::open(Store::open(url)?).with_context(|| format!("cache {url}"))?;
        Ok(self.near(cache))
    }

    /// A cache, with a local copy if there is to be one.
    fn near(&self, cache: Cache) -> Cache {
        match &self.local_copy {
            Some(copy) => cache.with_local_copy(copy.clone()),
            None => cache,
        }
    }
}

/// Runs one command line and returns the process's exit code (see `exit.rs` for their meaning).
pub fn run(cli: Cli) -> ExitCode {
    let verbosity = match (cli.global.quiet, cli.global.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    };
    start_logging(verbosity);
    let reporter = Reporter::new(verbosity);
    let outcome = Interrupt::install().map_err(anyhow::Error::from).and_then(|interrupt| {
        kernels::Level::requested().map_err(exit::usage)?;
        let output = Output::new(cli.global.json);
        let local_copy = local_copy(&cli.global)?;
        let cluster = cli.global.cluster.clone();
        if cluster.is_some() {
            check_cluster(&cli.command)?;
        }
        let context = Context { output, reporter, interrupt, local_copy, cluster };
        commands::run(cli.command, &context)
    });
    match outcome {
        Ok(status) => status.code().into(),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            reporter.error(&exit::one_line(&error));
            exit::code(&error).into()
        }
    }
}

/// Whether a command can be done on a cluster, by this program.
fn check_cluster(command: &cli::Command) -> anyhow::Result<()> {
    use cli::{CacheCommand as Cache, Command};
    if !cfg!(feature = "cluster") {
        return Err(exit::usage(NO_CLUSTER));
    }
    match command {
        Command::Extract(_)
        | Command::Reduce(_)
        | Command::Probe(_)
        | Command::Sweep(_)
        | Command::Demo(_) => Ok(()),
        Command::Cache(Cache::Verify(_) | Cache::Convert(_) | Cache::Project(_) | Cache::Gc { .. }) => Ok(()),
        _ => Err(exit::usage(
            "--cluster goes with extract, reduce, probe, sweep, demo and cache verify, convert, project, gc",
        )),
    }
}

/// The folder of `--local-copy` or its environment variable.
fn local_copy(options: &cli::Global) -> anyhow::Result<Option<LocalCopy>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let folder = options.local_copy.clone().or_else(|| variable("FEATLAB_LOCAL_COPY").map(Into::into));
    let Some(folder) = folder else { return Ok(None) };
    let limit = options.local_copy_limit.clone().or_else(|| variable("FEATLAB_LOCAL_COPY_LIMIT"));
    let limit = size_bytes(limit.as_deref().unwrap_or("20GB"))?;
    Ok(Some(LocalCopy::new(folder, limit)))
}

/// Reads `50GB`, `512MiB`, `1000000`.
pub(crate) fn size_bytes(text: &str) -> anyhow::Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit: u64 = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => 0,
    };
    let number: f64 = digits.parse().unwrap_or(f64::NAN);
    if unit == 0 || !(number > 0.0 && number.is_finite()) {
        return Err(exit::usage(format!(
            "a size is a number with a unit, as in 50GB or 512MiB; got \"{text}\""
        )));
    }
    Ok((number * unit as f64) as u64)
}

fn start_logging(verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Quiet => tracing::Level::ERROR,
        Verbosity::Normal => tracing::Level::WARN,
        Verbosity::Verbose => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [("50GB", 50_000_000_000), ("1.5 MiB", 1_572_864), ("7", 7), ("2kb", 2000)] {
            assert_eq!(size_bytes(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "GB", "-1GB", "5 parsecs", "nan", "0"] {
            assert_eq!(exit::code(&size_bytes(bad).unwrap_err()), 2, "{bad}");
        }
    }
}
