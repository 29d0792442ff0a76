//! `featlab cluster`: the processes of a cluster, and what they are doing.

mod executor;
mod local;
mod status;

use std::time::Duration;

use anyhow::Result;
use cluster::SchedulerOptions;
use serde_json::json;

use crate::Context;
use crate::cli::{ClusterCommand, SchedulerArgs};
use crate::cluster::{token, version};
use crate::exit::{Status, usage};

pub(crate) fn run(command: ClusterCommand, context: &Context) -> Result<Status> {
    match command {
        ClusterCommand::Scheduler(args) => scheduler(&args, context),
        ClusterCommand::Executor(args) => executor::run(args, context),
        ClusterCommand::Status { url } => status::run(&url, context),
        ClusterCommand::Local(args) => local::run(&args, context),
    }
}

fn scheduler(args: &SchedulerArgs, context: &Context) -> Result<Status> {
    let options = SchedulerOptions {
        bind: args.bind,
        token: token()?,
        executor_timeout: Duration::from_secs(args.executor_timeout),
        version: version(),
    };
    if options.token.is_none() && !args.bind.ip().is_loopback() {
        context
            .reporter
            .warn("no token is set (FEATLAB_CLUSTER_TOKEN): whoever reaches this address can run jobs");
    }
    let started = |address: std::net::SocketAddr| {
        let value = json!({ "scheduler": format!("http://{address}"), "pid": std::process::id() });
        let _ = context.output.result(&value, |_| format!("scheduler: http://{address}"));
    };
    let interrupt = context.interrupt.clone();
    cluster::run_scheduler(options, started, move || interrupt.requested())?;
    Ok(Status::Done)
}

/// Refuses names that a report or a table could not show.
fn check_name(name: &str) -> Result<()> {
    let sound = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match !name.is_empty() && name.chars().all(sound) {
        true => Ok(()),
        false => Err(usage(format!("--name {name:?}: a name is of letters, digits, '-', '_' and '.'"))),
    }
}
