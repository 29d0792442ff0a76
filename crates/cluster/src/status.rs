//! What a cluster is doing, asked over HTTP: `GET /featlab/status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{get, post};
use axum::{Json, Router};
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use serde::{Deserialize, Serialize};

use crate::pulse::{self, Pulses};
use crate::token::Guard;

pub(crate) type Scheduler = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// A cluster at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the scheduler.
    pub version: String,
    /// Executors that are alive, by name.
    pub executors: Vec<ExecutorStatus>,
    /// Jobs that run or wait.
    pub jobs: Vec<JobStatus>,
}

/// An executor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecutorStatus {
    /// Name.
    pub name: String,
    /// `host:port` of its results.
    pub address: String,
    /// Units that it works on at a time.
    pub slots: u32,
    /// Seconds since it was heard of.
    pub silent_s: Option<u64>,
    /// Tasks that it has at the moment.
    pub running: usize,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// The engine's name for it.
    pub id: String,
    /// Units that no executor has yet.
    pub waiting: usize,
    /// Units that are worked on, by executor.
    pub running: BTreeMap<String, usize>,
    /// How many of these are at executors that say they have nothing in hand.
    pub missed: usize,
}

impl JobStatus {
    /// Units that are not done.
    pub(crate) fn open(&self) -> usize {
        self.waiting + self.running.values().sum::<usize>()
    }
}

/// What stands between an executor's name and what makes it unique.
const MARK: char = '~';

/// A name for the engine that no other process ever has: what it knows of a dead executor must not be taken for the next one's.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}{MARK}{}", uuid::Uuid::new_v4().simple())
}

/// The name that was given.
fn shown(id: &str) -> &str {
    id.split(MARK).next().unwrap_or(id)
}

/// What the route needs to know.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) version: String,
    pub(crate) guard: Guard,
    pub(crate) pulses: Pulses,
}

/// The path that is asked for.
pub(crate) const PATH: &str = "/featlab/status";

pub(crate) fn route(source: Source) -> Router {
    let pulses = Router::new().route(pulse::PATH, post(pulse::hear)).with_state(source.pulses.clone());
    Router::new().route(PATH, get(answer)).with_state(source).merge(pulses)
}

async fn answer(State(source): State<Source>, headers: HeaderMap) -> Result<Json<Status>, StatusCode> {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    if !source.guard.lets(agent) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let state = &source.scheduler.state;
    let mut jobs = Vec::new();
    for (id, job) in state.task_manager.get_running_job_cache().iter() {
        let graph = job.execution_graph.read().await;
        let (mut running, mut missed) = (BTreeMap::new(), 0);
        for task in graph.running_tasks() {
            *running.entry(shown(&task.executor_id).to_owned()).or_insert(0) += 1;
            missed += usize::from(source.pulses.idle(&task.executor_id));
        }
        jobs.push(JobStatus { id: id.to_string(), waiting: graph.available_tasks(), running, missed });
    }
    jobs.sort_by(|a, b| a.id.cmp(&b.id));
    let known = state.executor_manager.get_executors_state().await;
    let known = known.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let executors = known.into_iter().map(|(executor, seen, _)| ExecutorStatus {
        address: format!("{}:{}", executor.host, executor.port),
        slots: executor.specification.vcores,
        silent_s: seen.map(|seen| now.saturating_sub(seen).as_secs()),
        running: jobs.iter().filter_map(|job| job.running.get(shown(&executor.id))).sum(),
        name: shown(&executor.id).to_owned(),
    });
    let mut executors: Vec<_> = executors.collect();
    executors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(Status { version: source.version, executors, jobs }))
}
