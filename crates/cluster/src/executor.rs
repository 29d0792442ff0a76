//! An executor: polls the scheduler for units, works on them, and keeps their reports until they are fetched.
//!
//! Put together of the engine's parts (poll loop, Flight service) rather than started by its `start_executor_process`, which has no
//! place for a token.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use ballista_core::extension::SessionConfigExt as _;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::protobuf::ExecutorStoppedParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::{BallistaCodec, BallistaLogicalExtensionCodec, BallistaPhysicalExtensionCodec};
use ballista_core::utils::{GrpcServerConfig, create_grpc_server, default_config_producer};
use ballista_executor::execution_engine::DefaultExecutionEngine;
use ballista_executor::execution_loop::poll_loop;
use ballista_executor::executor::Executor;
use ballista_executor::executor_process::{ExecutorProcessConfig, structure_executor_metadata};
use ballista_executor::flight_service::BallistaFlightService;
use ballista_executor::metrics::LoggingMetricsCollector;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tokio::sync::Semaphore;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::pulse;
use crate::scheduler::LARGEST_MESSAGE;
use crate::status::unique;
use crate::token::{Guard, on_endpoints};
use crate::unit_function::{Hand, unit_function};
use crate::{Error, Result, Worker};

/// How long reports are kept at most.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How an executor is run.
#[derive(Debug, Clone)]
pub struct ExecutorOptions {
    /// What people know it by; reports carry it.
    pub name: String,
    /// `http://host:port` of the scheduler.
    pub scheduler: String,
    /// How long the scheduler is waited for at the start.
    pub patience: Duration,
    /// Address that its results are fetched from.
    pub bind: SocketAddr,
    /// Host that others reach it under, if not as it is seen by the scheduler.
    pub advertise: Option<String>,
    /// Units that it works on at a time.
    pub slots: usize,
    /// Folder for its reports and shuffles.
    pub scratch: PathBuf,
    /// Token of the cluster.
    pub token: Option<String>,
    /// Version of the program.
    pub version: String,
}

/// Runs an executor until `stop` says so. `started` is called once it polls.
///
/// # Errors
/// If there is no scheduler, the address cannot be listened on, or one of its loops ends.
pub fn run_executor(
    options: ExecutorOptions,
    worker: Arc<dyn Worker>,
    started: impl FnOnce(SocketAddr) + Send,
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<()> {
    let runtime = crate::driver::runtime()?;
    // Nobody fetches what an earlier process left.
    let _ = std::fs::remove_dir_all(&options.scratch);
    std::fs::create_dir_all(&options.scratch)
        .map_err(|error| Error::Server(format!("scratch folder {}: {error}", options.scratch.display())))?;
    let ended = runtime.block_on(serve(options, worker, started, stop));
    // A unit in work is left: its task goes to another executor.
    runtime.shutdown_background();
    ended
}

async fn serve(
    options: ExecutorOptions,
    worker: Arc<dyn Worker>,
    started: impl FnOnce(SocketAddr),
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(options.bind).await;
    let listener =
        listener.map_err(|error| Error::Server(format!("cannot listen on {}: {error}", options.bind)))?;
    let address = listener.local_addr().map_err(|error| Error::Server(error.to_string()))?;
    let channel = connect(&options).await?;
    let mut scheduler = SchedulerGrpcClient::new(channel)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let scratch = options.scratch.display().to_string();
    let flight = FlightServiceServer::new(BallistaFlightService::new(scratch.clone()))
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let flight = InterceptedService::new(flight, Guard::new(options.token.as_deref()));
    let flight = create_grpc_server(&GrpcServerConfig::default())
        .add_service(flight)
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    let codec = BallistaCodec::<LogicalPlanNode, PhysicalPlanNode>::new(
        Arc::new(BallistaLogicalExtensionCodec::default()),
        Arc::new(BallistaPhysicalExtensionCodec::default()),
    );
    let id = unique(&options.name);
    let executor = Arc::new(executor(&options, &id, worker, address, &scratch));
    let free = Arc::new(Semaphore::new(options.slots));
    let polls = poll_loop(scheduler.clone(), executor, codec, None, Some(free.clone()), Default::default());
    let http = crate::driver::http_client(options.token.as_deref())?;
    let pulse =
        pulse::beat(http, crate::driver::address(&options.scheduler), id.clone(), options.slots, free);
    started(address);
    let old = scratch_of_old_jobs(options.scratch.clone());
    let failed = tokio::select! {
        ended = polls => Some(format!("stopped asking for work: {ended:?}")),
        ended = flight => Some(format!("stopped serving results: {ended:?}")),
        () = old => None,
        () = pulse => None,
        () = crate::driver::until(stop) => None,
    };
    let goodbye = ExecutorStoppedParams { executor_id: id, reason: "it was stopped".into() };
    let _ = tokio::time::timeout(Duration::from_secs(2), scheduler.executor_stopped(goodbye)).await;
    failed.map_or(Ok(()), |reason| Err(Error::Server(reason)))
}

/// Removes, every hour, what jobs left that the scheduler has forgotten: reports are fetched within minutes.
async fn scratch_of_old_jobs(scratch: PathBuf) {
    loop {
        tokio::time::sleep(KEPT / 24).await;
        let Ok(jobs) = std::fs::read_dir(&scratch) else { continue };
        for job in jobs.flatten() {
            let age = job.metadata().and_then(|data| data.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > KEPT) {
                let _ = std::fs::remove_dir_all(job.path());
            }
        }
    }
}

fn executor(
    options: &ExecutorOptions,
    id: &str,
    worker: Arc<dyn Worker>,
    address: SocketAddr,
    scratch: &str,
) -> Executor {
    let process = ExecutorProcessConfig {
        executor_id: id.to_owned(),
        external_host: options.advertise.clone(),
        port: address.port(),
        grpc_port: address.port(),
        ..ExecutorProcessConfig::default()
    };
    let hand = Hand {
        executor: options.name.clone(),
        version: options.version.clone(),
        worker,
        failures: Arc::default(),
    };
    let (folder, token) = (scratch.to_owned(), options.token.clone());
    Executor::new(
        structure_executor_metadata(&Arc::new(process), options.slots as u32),
        scratch,
        Arc::new(move |_| {
            Ok(Arc::new(RuntimeEnvBuilder::new().with_temp_file_path(folder.clone()).build()?))
        }),
        Arc::new(move || {
            default_config_producer()
                .with_ballista_override_create_grpc_client_endpoint(on_endpoints(token.as_deref()))
        }),
        Arc::new(registry(hand)),
        Arc::new(LoggingMetricsCollector::default()),
        options.slots,
        Arc::new(DefaultExecutionEngine::new()),
    )
}

/// The engine's functions, and the one that works.
fn registry(hand: Hand) -> BallistaFunctionRegistry {
    let mut registry = BallistaFunctionRegistry::default();
    let function = Arc::new(unit_function(Some(hand)));
    registry.scalar_functions.insert(function.name().to_owned(), function);
    registry
}

/// A connection to the scheduler, which may come up later than this executor.
async fn connect(options: &ExecutorOptions) -> Result<Channel> {
    let started = Instant::now();
    loop {
        match crate::driver::endpoint(&options.scheduler, options.token.as_deref())?.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if started.elapsed() > options.patience => {
                return Err(Error::Unreachable {
                    url: options.scheduler.clone(),
                    reason: crate::driver::causes(&error),
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
        }
    }
}
