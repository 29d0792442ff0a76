//! A round: some units given to the engine as one plan, waited for, and their reports fetched.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array as _, BinaryArray};
use ballista_core::client::BallistaClient;
use ballista_core::config::BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK;
use ballista_core::extension::BallistaConfigGrpcEndpoint;
use ballista_core::serde::protobuf::execute_query_params::Query;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    CancelJobParams, ExecuteQueryParams, GetJobStatusParams, KeyValuePair, PartitionLocation,
    execute_query_result, job_status,
};
use ballista_core::version::insert_version_header;
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::driver::{causes, endpoint, until};
use crate::scheduler::LARGEST_MESSAGE;
use crate::status::{JobStatus, Status};
use crate::token::on_endpoints;
use crate::unit_function::Order;
use crate::{Driver, Error, Report, Result, Watch, plan};

/// Time between two looks at a running round.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Reports that are fetched at a time.
const FETCHES: usize = 16;
/// Longest that the fetch of a report may take: its executor may be dead, or stopped.
const FETCH_WITHIN: Duration = Duration::from_secs(60);
/// Looks after which a scheduler that knows nothing of a round has forgotten it.
const UNKNOWN: usize = 50;

/// A run of a job: what its rounds share.
pub(crate) struct Course<'a> {
    driver: &'a Driver,
    order: Order,
    pub(crate) watch: &'a dyn Watch,
    /// Units whose reports were handed on.
    done: Cell<usize>,
    /// Units that are done in rounds under way, as the scheduler says.
    in_rounds: RefCell<HashMap<String, usize>>,
    executors: RefCell<Executors>,
}

/// How a round ended.
pub(crate) enum Ended {
    /// The reports there are, and why the others could not be fetched.
    Reports(Vec<Report>, String),
    /// The engine gave it up, or has forgotten it.
    InVain(String),
}

/// Since when a round has been at the same point, with executors that have nothing in hand.
struct Still {
    open: usize,
    since: Instant,
}

impl Still {
    /// Whether nobody will do what it waits for.
    fn is_lost(&mut self, job: Option<&JobStatus>, handover: Duration) -> bool {
        match job {
            Some(job) if job.missed > 0 && job.open() == self.open => self.since.elapsed() > handover,
            _ => {
                *self = Self { open: job.map_or(0, JobStatus::open), since: Instant::now() };
                false
            }
        }
    }
}

/// Executors that were seen, and how many of them are gone.
#[derive(Default)]
struct Executors {
    there: BTreeSet<String>,
    most: usize,
    gone: usize,
    /// Since when there are none.
    none_since: Option<Instant>,
}

impl<'a> Course<'a> {
    pub(crate) fn new(driver: &'a Driver, job: &str, watch: &'a dyn Watch) -> Self {
        let order = Order { version: driver.options.version.clone(), job: job.to_owned() };
        Self {
            driver,
            order,
            watch,
            done: Cell::new(0),
            in_rounds: RefCell::default(),
            executors: RefCell::default(),
        }
    }

    pub(crate) fn one_done(&self) {
        self.done.set(self.done.get() + 1);
    }

    /// Units that are done, their reports fetched or not.
    pub(crate) fn done(&self) -> usize {
        self.done.get() + self.in_rounds.borrow().values().sum::<usize>()
    }

    /// Does some units.
    pub(crate) async fn round(&self, units: &[u64]) -> Result<Ended> {
        let query = ExecuteQueryParams {
            query: Some(Query::PhysicalPlan(plan::encoded(&self.order, units)?)),
            // A task is a unit, however many slots are free.
            settings: vec![KeyValuePair {
                key: BALLISTA_SCHEDULER_MAX_PARTITIONS_PER_TASK.to_owned(),
                value: Some("1".to_owned()),
            }],
            session_id: uuid::Uuid::new_v4().to_string(),
            operation_id: uuid::Uuid::new_v4().to_string(),
        };
        let mut scheduler = self.scheduler().await?;
        let mut request = Request::new(query);
        insert_version_header(request.metadata_mut());
        let answer = match scheduler.execute_query(request).await {
            Ok(answer) => answer.into_inner().result,
            Err(status) => return self.refused(&status),
        };
        let id = match answer {
            Some(execute_query_result::Result::Success(accepted)) => accepted.job_id,
            Some(execute_query_result::Result::Failure(failure)) => {
                return Err(Error::Engine(format!("refuses the plan: {failure:?}")));
            }
            None => return Err(Error::Engine("an empty answer to a plan".into())),
        };
        let ended = self.wait(&id, units.len()).await;
        self.in_rounds.borrow_mut().remove(&id);
        match ended? {
            Ok(places) => self.fetch(places, units.len()).await,
            Err(reason) => Ok(Ended::InVain(reason)),
        }
    }

    /// What an error of the scheduler means.
    fn refused(&self, status: &tonic::Status) -> Result<Ended> {
        match status.code() {
            Code::Unauthenticated => Err(Error::Token { url: self.driver.url.clone() }),
            Code::OutOfRange | Code::ResourceExhausted => Err(Error::Engine(format!(
                "the job is larger than the {} MiB that the processes of a cluster send one another: {}",
                LARGEST_MESSAGE >> 20,
                status.message()
            ))),
            _ => Ok(Ended::InVain(status.message().to_owned())),
        }
    }

    /// A connection, once the scheduler answers.
    async fn scheduler(&self) -> Result<SchedulerGrpcClient<Channel>> {
        let (url, token) = (&self.driver.url, self.driver.options.token.as_deref());
        let started = Instant::now();
        let mut said = false;
        loop {
            match endpoint(url, token)?.connect().await {
                Ok(channel) => {
                    return Ok(SchedulerGrpcClient::new(channel)
                        .max_decoding_message_size(LARGEST_MESSAGE)
                        .max_encoding_message_size(LARGEST_MESSAGE));
                }
                Err(_) if self.watch.cancelled() => return Err(Error::Cancelled),
                Err(error) if started.elapsed() > self.driver.options.patience => {
                    return Err(Error::Unreachable { url: url.clone(), reason: causes(&error) });
                }
                Err(error) => {
                    if !said {
                        self.watch.note(format!("waiting for the scheduler: {}", causes(&error)));
                        said = true;
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    /// Waits for the engine; where the reports are, or why there are none.
    async fn wait(
        &self,
        id: &str,
        units: usize,
    ) -> Result<std::result::Result<Vec<PartitionLocation>, String>> {
        let mut scheduler = self.scheduler().await?;
        let (mut looked, mut unknown) = (Instant::now(), 0);
        let mut still = Still { open: units, since: Instant::now() };
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.watch.cancelled() {
                let _ = scheduler.cancel_job(CancelJobParams { job_id: id.to_owned() }).await;
                return Err(Error::Cancelled);
            }
            let status = scheduler.get_job_status(GetJobStatusParams { job_id: id.to_owned() }).await;
            match status.map(|answer| answer.into_inner().status.and_then(|status| status.status)) {
                Ok(Some(job_status::Status::Successful(job))) => return Ok(Ok(job.partition_location)),
                Ok(Some(job_status::Status::Failed(job))) => return Ok(Err(job.error)),
                Ok(Some(_)) => unknown = 0,
                // Just given, or given to a scheduler that was started again since.
                Ok(None) => unknown += 1,
                Err(status) if status.code() == Code::Unauthenticated => {
                    return Err(Error::Token { url: self.driver.url.clone() });
                }
                // The round may still be at work there: the same one is asked for again.
                Err(_) => {
                    scheduler = self.scheduler().await?;
                    unknown += 1;
                }
            }
            if unknown > UNKNOWN {
                return Ok(Err("the scheduler was started again and has forgotten them".into()));
            }
            if looked.elapsed() > Duration::from_secs(1) {
                looked = Instant::now();
                if let Ok(status) = self.driver.ask_status().await {
                    self.look(&status, id, units)?;
                    let job = status.jobs.iter().find(|job| job.id == id);
                    if still.is_lost(job, self.driver.options.handover) {
                        let _ = scheduler.cancel_job(CancelJobParams { job_id: id.to_owned() }).await;
                        return Ok(Err("a message between scheduler and executor was lost".into()));
                    }
                }
            }
        }
    }

    /// Notes how far a round is, and who is there.
    fn look(&self, status: &Status, id: &str, units: usize) -> Result<()> {
        if let Some(job) = status.jobs.iter().find(|job| job.id == id) {
            self.in_rounds.borrow_mut().insert(id.to_owned(), units.saturating_sub(job.open()));
            self.watch.progress(self.done(), Some(status));
        }
        let mut executors = self.executors.borrow_mut();
        let there: BTreeSet<String> = status.executors.iter().map(|executor| executor.name.clone()).collect();
        for name in executors.there.difference(&there) {
            self.watch.note(format!("executor {name} is gone; others get its units"));
        }
        executors.gone += executors.there.difference(&there).count();
        executors.most = executors.most.max(there.len());
        executors.none_since = match there.is_empty() {
            true => executors.none_since.or_else(|| {
                let line = "the cluster has no executors; start some with `featlab cluster executor`";
                self.watch.note(line.to_owned());
                Some(Instant::now())
            }),
            false => None,
        };
        executors.there = there;
        let attempts = self.driver.options.attempts;
        let patience = self.driver.options.patience;
        if executors.gone > attempts as usize * executors.most.max(2) {
            let reason = format!("{} executors were lost; see why they end (memory?)", executors.gone);
            return Err(Error::Job { attempts, reason });
        }
        if executors.none_since.is_some_and(|since| since.elapsed() > patience) {
            let reason = format!("there were no executors for {} s", patience.as_secs());
            return Err(Error::Job { attempts: 1, reason });
        }
        Ok(())
    }

    /// What there is to fetch until every unit has a report.
    async fn fetch(&self, places: Vec<PartitionLocation>, units: usize) -> Result<Ended> {
        let mut reports: HashMap<u64, Report> = HashMap::new();
        let mut lost = "it did not come back".to_owned();
        // Places of tasks that were repeated are there twice, the latest last.
        let fetches = places.into_iter().rev().map(|place| async {
            let fetched = tokio::time::timeout(FETCH_WITHIN, self.fetch_one(place)).await;
            fetched.unwrap_or_else(|_| {
                Err(format!("its executor did not send it in {} s", FETCH_WITHIN.as_secs()))
            })
        });
        let mut fetched = futures::stream::iter(fetches).buffer_unordered(FETCHES);
        while reports.len() < units {
            let part = tokio::select! {
                part = fetched.next() => part,
                () = until(|| self.watch.cancelled()) => return Err(Error::Cancelled),
            };
            match part {
                Some(Ok(part)) => reports.extend(part.into_iter().map(|report| (report.unit, report))),
                Some(Err(reason)) => lost = reason,
                None => break,
            }
        }
        Ok(Ended::Reports(reports.into_values().collect(), lost))
    }

    async fn fetch_one(&self, place: PartitionLocation) -> std::result::Result<Vec<Report>, String> {
        let layout = place.layout();
        let (Some(executor), Some(partition)) = (place.executor_meta, place.partition_id) else {
            return Err("the engine does not say where it is".into());
        };
        let (host, port) = (executor.host.as_str(), executor.port as u16);
        let token = self.driver.options.token.as_deref();
        let endpoint = Some(Arc::new(BallistaConfigGrpcEndpoint::new(on_endpoints(token))));
        let said = |error: ballista_core::error::BallistaError| error.to_string();
        let mut client = BallistaClient::try_new(host, port, LARGEST_MESSAGE, false, endpoint, 1, 0, 0, 0)
            .await
            .map_err(said)?;
        let batches = client
            .fetch_partition_proxied(&executor.id, &partition.into(), place.file_id, layout, host, port, true)
            .await
            .map_err(said)?;
        let batches: Vec<_> = batches.try_collect().await.map_err(|error| error.to_string())?;
        let mut reports = Vec::new();
        for batch in batches {
            let column =
                batch.columns().first().and_then(|column| column.as_any().downcast_ref::<BinaryArray>());
            for bytes in column.ok_or("a result that is no report")?.iter().flatten() {
                reports.push(Report::decode(bytes).ok_or("a damaged report")?);
            }
        }
        Ok(reports)
    }
}
