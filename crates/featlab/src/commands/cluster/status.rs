//! `featlab cluster status`.

use std::time::Duration;

use anyhow::Result;

use crate::Context;
use crate::exit::Status;

pub(super) fn run(url: &str, context: &Context) -> Result<Status> {
    let status = crate::cluster::connect(url, Duration::ZERO)?.status()?;
    context.output.result(&status, |status| {
        let mut lines = vec![format!("scheduler {url}, featlab {}", status.version)];
        lines.push(format!("{} executors", status.executors.len()));
        for executor in &status.executors {
            let heard = executor.silent_s.map_or_else(|| "never".to_owned(), |s| format!("{s} s ago"));
            lines.push(format!(
                "  {:24} {:24} {} of {} slots at work, heard of {heard}",
                executor.name, executor.address, executor.running, executor.slots
            ));
        }
        lines.push(format!("{} jobs", status.jobs.len()));
        for job in &status.jobs {
            let running: usize = job.running.values().sum();
            lines.push(format!("  {:24} {} units wait, {running} are worked on", job.id, job.waiting));
        }
        lines.join("\n")
    })?;
    Ok(Status::Done)
}
