//! `featlab cluster local`: a scheduler and executors as processes of their own on this machine.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::Context;
use crate::cli::LocalArgs;
use crate::exit::{Status, usage};

/// Processes that end with this one, and the folder of their temporary files.
struct Processes {
    children: Vec<(String, Child)>,
    scratch: PathBuf,
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

pub(super) fn run(args: &LocalArgs, context: &Context) -> Result<Status> {
    if args.bind.port() == 0 {
        return Err(usage("--bind needs a port that executors can be told"));
    }
    let program = std::env::current_exe().context("finding this program")?;
    let url = format!("http://{}", args.bind);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / usize::from(args.executors)).max(1);
    let scratch = std::env::temp_dir().join(format!("featlab-cluster-{}", std::process::id()));
    let mut processes = Processes { children: Vec::new(), scratch: scratch.clone() };
    let mut start = |name: String, command: &mut Command| -> Result<()> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        processes.children.push((name.clone(), child.with_context(|| format!("starting the {name}"))?));
        Ok(())
    };
    let bind = args.bind.to_string();
    start("scheduler".into(), Command::new(&program).args(["cluster", "scheduler", "--bind", &bind]))?;
    for i in 0..args.executors {
        let name = format!("local-{i}");
        let mut command = Command::new(&program);
        command.args(["cluster", "executor", "--scheduler", &url, "--name", &name]);
        command.arg("--scratch").arg(scratch.join(&name));
        command.env("RAYON_NUM_THREADS", threads.to_string());
        start(format!("executor {name}"), &mut command)?;
    }
    let value = json!({ "scheduler": url, "executors": args.executors, "threads_each": threads });
    context.output.result(&value, |_| {
        format!(
            "cluster at {url}: {} executors of {threads} threads; in another terminal: featlab demo --cluster {url}\n\
             stop it with Ctrl-C",
            args.executors
        )
    })?;
    loop {
        if context.interrupt.requested() {
            return Ok(Status::Done);
        }
        for (name, child) in &mut processes.children {
            if let Some(status) = child.try_wait().context("watching the processes")? {
                bail!("the {name} ended ({status})");
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
