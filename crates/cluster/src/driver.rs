//! The driver: gives a job's units to the cluster in rounds, and hands on a report of each as it comes back.
//!
//! What can go wrong on the way, and how often it may:
//!
//! | what | what the driver does |
//! |---|---|
//! | an executor dies or falls silent | the engine gives its units to others; said, and borne so often that it cannot go on forever |
//! | a report is lost with its executor | that unit is given out again, [`DriverOptions::attempts`] times in all |
//! | a unit fails in a way that may pass | the same |
//! | a unit fails for good, or the versions differ | the job ends with that error |
//! | a task is lost with a cut connection: its executor has nothing in hand ([`pulse`](crate::pulse)) | its round is given out again, the same |
//! | the engine gives a round up, or a scheduler that was started again has forgotten it | the round is given out again, as often without any progress |
//! | the scheduler does not answer, or there are no executors | it is waited for, [`DriverOptions::patience`] long |
//! | the caller wants to stop | what is under way is cancelled |
//!
//! A round ([`round`](crate::round)) is a few units per slot, so that what can be lost is small; two are under way at a time, so that executors have
//! work while the last reports of one are waited for.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use tonic::transport::Endpoint;

use crate::round::{Course, Ended};
use crate::status::{PATH, Status};
use crate::token::user_agent;
use crate::{Error, Report, Result, UnitFailure};

/// Rounds under way.
const ROUNDS: usize = 2;
/// Units of a round for each slot of the cluster.
const UNITS_PER_SLOT: usize = 4;
/// And at least, and at most.
const ROUND: std::ops::RangeInclusive<usize> = 16..=2048;

/// How a driver behaves.
#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// Token of the cluster.
    pub token: Option<String>,
    /// Version of the program.
    pub version: String,
    /// How often a unit, or a round, is given out at most.
    pub attempts: u32,
    /// How long a scheduler that stops answering, or the first executor, is waited for.
    pub patience: Duration,
    /// How long a task may be on its way to an executor, with its plan, before it is lost if the executor has nothing in hand.
    pub handover: Duration,
}

/// Units to be done.
#[derive(Debug, Clone)]
pub struct Units<'a> {
    /// What the worker understands.
    pub job: &'a str,
    /// Which of them, in the order in which they are given out.
    pub units: &'a [u64],
}

/// Who looks on.
pub trait Watch {
    /// Whether to stop.
    fn cancelled(&self) -> bool;
    /// Something that a user should know: what was tried again, and why.
    fn note(&self, line: String);
    /// So many units are done; what the executors are busy with.
    fn progress(&self, done: usize, status: Option<&Status>);
}

/// A connection to a cluster.
#[derive(Debug)]
pub struct Driver {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) options: DriverOptions,
}

/// A round with its units.
type UnderWay<'a> = LocalBoxFuture<'a, (Vec<u64>, Result<Ended>)>;

impl Driver {
    /// Finds the scheduler at `url`, for at most `wait`, and compares versions.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Token`], [`Error::Version`].
    pub fn connect(url: &str, options: DriverOptions, wait: Duration) -> Result<Self> {
        let url = address(url);
        let http = http_client(options.token.as_deref())?;
        let driver = Self { runtime: runtime()?, http, url, options };
        let status = driver.runtime.block_on(driver.status_within(wait, &|| false))?;
        if status.version != driver.options.version {
            return Err(driver.other_version("the scheduler".to_owned(), status.version));
        }
        Ok(driver)
    }

    /// What the cluster is doing.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Token`].
    pub fn status(&self) -> Result<Status> {
        self.runtime.block_on(self.ask_status())
    }

    /// Does all units. `each` is given every report once, in the order in which they arrive.
    ///
    /// # Errors
    /// What the table in this file's head says, and the first error of `each`. Reports that were handed on by then are done.
    pub fn run<E: From<Error>>(
        &self,
        units: &Units<'_>,
        watch: &dyn Watch,
        mut each: impl FnMut(Report) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let course = Course::new(self, units.job, watch);
        self.runtime.block_on(self.rounds(&course, units.units, &mut each))
    }

    async fn rounds<E: From<Error>>(
        &self,
        course: &Course<'_>,
        units: &[u64],
        each: &mut impl FnMut(Report) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut waiting: VecDeque<u64> = units.iter().copied().collect();
        let (mut tries, mut in_vain) = (HashMap::new(), 0);
        let mut under_way: FuturesUnordered<UnderWay<'_>> = FuturesUnordered::new();
        loop {
            while under_way.len() < ROUNDS && !waiting.is_empty() {
                let part: Vec<u64> = waiting.drain(..self.round_size().await.min(waiting.len())).collect();
                under_way.push(Box::pin(async move {
                    let ended = course.round(&part).await;
                    (part, ended)
                }));
            }
            let Some((part, ended)) = under_way.next().await else { return Ok(()) };
            let again = match ended? {
                Ended::Reports(reports, lost) => {
                    let before = waiting.len() + part.len();
                    let mut reports: HashMap<u64, Report> =
                        reports.into_iter().map(|report| (report.unit, report)).collect();
                    let mut again = Vec::new();
                    for unit in part {
                        match self.judge(unit, reports.remove(&unit), &lost, &mut tries, course.watch)? {
                            Some(report) => {
                                each(report)?;
                                course.one_done();
                            }
                            None => again.push(unit),
                        }
                    }
                    if waiting.len() + again.len() < before {
                        in_vain = 0;
                    }
                    again
                }
                Ended::InVain(reason) => {
                    in_vain += 1;
                    if in_vain >= self.options.attempts {
                        return Err(Error::Job { attempts: in_vain, reason }.into());
                    }
                    course.watch.note(format!("{} units are given out again: {reason}", part.len()));
                    part
                }
            };
            waiting.extend(again);
            course.watch.progress(course.done(), None);
        }
    }

    /// A report that is good, or nothing if the unit is to be tried again.
    fn judge(
        &self,
        unit: u64,
        report: Option<Report>,
        lost: &str,
        tries: &mut HashMap<u64, u32>,
        watch: &dyn Watch,
    ) -> Result<Option<Report>> {
        let (executor, failure) = match report {
            Some(report) if report.version != self.options.version => {
                return Err(self.other_version(format!("executor {}", report.executor), report.version));
            }
            Some(Report { failure: Some(failure), executor, .. }) => (executor, failure),
            Some(report) => return Ok(Some(report)),
            None => {
                let message = format!("its report was lost ({lost})");
                ("an executor that is gone".to_owned(), UnitFailure { message, code: 1, again: true })
            }
        };
        let attempts = tries.entry(unit).or_insert(0);
        *attempts += 1;
        if !failure.again || *attempts >= self.options.attempts {
            let (message, code) = (failure.message, failure.code);
            return Err(Error::Unit { unit, executor, attempts: *attempts, message, code });
        }
        watch.note(format!("unit {unit} failed on {executor} and is tried again: {}", failure.message));
        Ok(None)
    }

    /// Units of a round.
    async fn round_size(&self) -> usize {
        let status = self.ask_status().await;
        let slots = status.map_or(0, |status| status.executors.iter().map(|e| e.slots as usize).sum());
        (UNITS_PER_SLOT * slots).clamp(*ROUND.start(), *ROUND.end())
    }

    /// The status, once there is one.
    pub(crate) async fn status_within(&self, patience: Duration, stop: &dyn Fn() -> bool) -> Result<Status> {
        let started = Instant::now();
        loop {
            match self.ask_status().await {
                Err(Error::Unreachable { .. }) if started.elapsed() < patience => {
                    if stop() {
                        return Err(Error::Cancelled);
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                other => return other,
            }
        }
    }

    pub(crate) async fn ask_status(&self) -> Result<Status> {
        let unreachable =
            |error: reqwest::Error| Error::Unreachable { url: self.url.clone(), reason: causes(&error) };
        let answer = self.http.get(format!("{}{PATH}", self.url)).send().await.map_err(unreachable)?;
        match answer.status().as_u16() {
            200 => answer.json().await.map_err(unreachable),
            401 => Err(Error::Token { url: self.url.clone() }),
            code => Err(Error::Unreachable {
                url: self.url.clone(),
                reason: format!("something else is there: it answers with HTTP status {code}"),
            }),
        }
    }

    fn other_version(&self, peer: String, theirs: String) -> Error {
        Error::Version { ours: self.options.version.clone(), peer, theirs }
    }
}

/// What asks and tells the scheduler besides the engine.
pub(crate) fn http_client(token: Option<&str>) -> Result<reqwest::Client> {
    let client = reqwest::Client::builder()
        .user_agent(user_agent(token))
        .timeout(Duration::from_secs(10))
        .no_proxy()
        .build();
    client.map_err(|error| Error::Engine(causes(&error)))
}

/// A runtime for servers and clients.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Error::Server(format!("no threads for the network: {error}")))
}

/// Ready once `stop` says so.
pub(crate) async fn until(stop: impl Fn() -> bool) {
    while !stop() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `host:port`, with or without a scheme, as a URL.
pub(crate) fn address(url: &str) -> String {
    let rest = url.strip_prefix("df://").or_else(|| url.strip_prefix("http://")).unwrap_or(url);
    format!("http://{}", rest.trim_end_matches('/'))
}

/// Where and how a scheduler is spoken to.
pub(crate) fn endpoint(url: &str, token: Option<&str>) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(address(url))
        .and_then(|endpoint| endpoint.user_agent(user_agent(token)))
        .map_err(|error| Error::Server(format!("{url} is no address of a scheduler: {}", causes(&error))))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true))
}

/// An error and what is behind it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_have_addresses_as_people_write_them() {
        for text in ["http://host:50050/", "host:50050", "df://host:50050"] {
            assert_eq!(address(text), "http://host:50050", "{text}");
        }
    }
}
