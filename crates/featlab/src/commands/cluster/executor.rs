//! `featlab cluster executor`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cluster::ExecutorOptions;
use serde_json::json;

use super::check_name;
use crate::Context;
use crate::cli::ExecutorArgs;
use crate::cluster::{UnitWorker, token, version};
use crate::exit::Status;
use crate::output::Output;
use crate::progress::{Reporter, Verbosity};

pub(super) fn run(args: ExecutorArgs, context: &Context) -> Result<Status> {
    let name = args.name.unwrap_or_else(|| format!("{}-{}", host(), std::process::id()));
    check_name(&name)?;
    let own = args.scratch.is_none();
    let scratch =
        args.scratch.unwrap_or_else(|| std::env::temp_dir().join(format!("featlab-executor-{name}")));
    let scratch: PathBuf = std::path::absolute(&scratch).context("the scratch folder")?;
    crate::cluster::set_scratch(scratch.clone());
    // Says at once what would otherwise be refused at every poll: another version, a wrong token.
    drop(crate::cluster::connect(&args.scheduler, Duration::from_secs(args.patience))?);
    let near = ["127.0.0.1", "localhost"].iter().any(|host| args.scheduler.contains(host));
    let everywhere = if near { [127, 0, 0, 1] } else { [0, 0, 0, 0] };
    let options = ExecutorOptions {
        name: name.clone(),
        scheduler: args.scheduler.clone(),
        patience: Duration::from_secs(args.patience),
        bind: args.bind.unwrap_or_else(|| std::net::SocketAddr::from((everywhere, 0))),
        advertise: args.advertise,
        slots: args.slots.into(),
        scratch: scratch.join("results"),
        token: token()?,
        version: version(),
    };
    // Units are quiet: what they have to say goes to the driver.
    let worker = UnitWorker::new(Context {
        output: Output::new(false),
        reporter: Reporter::new(Verbosity::Quiet),
        interrupt: context.interrupt.clone(),
        local_copy: context.local_copy.clone(),
        cluster: None,
    });
    let started = |address: std::net::SocketAddr| {
        let value = json!({ "executor": name, "scheduler": args.scheduler, "results": address, "pid": std::process::id() });
        let _ = context.output.result(&value, |_| format!("executor {name}: works for {}", args.scheduler));
    };
    let interrupt = context.interrupt.clone();
    let ended = cluster::run_executor(options, Arc::new(worker), started, move || interrupt.requested());
    if own {
        let _ = std::fs::remove_dir_all(&scratch);
    }
    ended?;
    Ok(Status::Done)
}

fn host() -> String {
    let name = std::fs::read_to_string("/etc/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let name: String = name.unwrap_or_default().trim().chars().filter(char::is_ascii_alphanumeric).collect();
    if name.is_empty() { "executor".to_owned() } else { name }
}
