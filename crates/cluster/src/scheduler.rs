//! The scheduler: Ballista's, with featlab's functions, a token and a page of status.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use ballista_core::utils::default_session_builder;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::{SchedulerConfig, TaskDistributionPolicy};
use ballista_scheduler::scheduler_process::create_scheduler;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use tonic::service::RoutesBuilder;
use tonic::service::interceptor::InterceptedService;

use crate::pulse::Pulses;
use crate::status::{self, Scheduler, Source};
use crate::token::{Guard, on_endpoints};
use crate::unit_function::unit_function;
use crate::{Error, Result};

/// Largest message between the processes of a cluster: plans with their jobs, and reports.
pub(crate) const LARGEST_MESSAGE: usize = 256 << 20;

/// How a scheduler is run.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// Address that it listens on.
    pub bind: SocketAddr,
    /// What drivers and executors must know.
    pub token: Option<String>,
    /// Silence after which an executor counts as lost. A busy executor is heard of every 5 s.
    pub executor_timeout: Duration,
    /// Version of the program.
    pub version: String,
}

/// Runs a scheduler until `stop` is ready. `started` is called with the address once it listens.
///
/// # Errors
/// If the address cannot be listened on.
pub fn run_scheduler(
    options: SchedulerOptions,
    started: impl FnOnce(SocketAddr) + Send,
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<()> {
    let runtime = crate::driver::runtime()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(options.bind).await;
        let listener =
            listener.map_err(|error| Error::Server(format!("cannot listen on {}: {error}", options.bind)))?;
        let address = listener.local_addr().map_err(|error| Error::Server(error.to_string()))?;
        let server = server(&options, address).await?;
        let guard = Guard::new(options.token.as_deref());
        let rpc = SchedulerGrpcServer::new(server.clone())
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(LARGEST_MESSAGE);
        let mut routes = RoutesBuilder::default();
        routes.add_service(InterceptedService::new(rpc, guard.clone()));
        let pulses = Pulses::new(guard.clone());
        let version = options.version.clone();
        let source = Source { scheduler: Arc::new(server), version, guard, pulses };
        let app = routes.routes().into_axum_router().merge(status::route(source));
        started(address);
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(crate::driver::until(stop))
            .await
            .map_err(|error| Error::Server(error.to_string()))
    })
}

async fn server(options: &SchedulerOptions, address: SocketAddr) -> Result<Scheduler> {
    let seconds = options.executor_timeout.as_secs().max(1);
    let token = options.token.clone();
    let config = SchedulerConfig {
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        external_host: address.ip().to_string(),
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        // Executors that poll each take what they have slots for; the fewest units in hand of a slow one.
        task_distribution: TaskDistributionPolicy::RoundRobin,
        executor_timeout_seconds: seconds,
        expire_dead_executor_interval_seconds: seconds.div_ceil(4),
        no_executors_grace_period_seconds: seconds * 2,
        grpc_server_max_decoding_message_size: LARGEST_MESSAGE as u32,
        grpc_server_max_encoding_message_size: LARGEST_MESSAGE as u32,
        grpc_client_max_message_size: LARGEST_MESSAGE as u32,
        override_session_builder: Some(Arc::new(session)),
        override_create_grpc_client_endpoint: Some(on_endpoints(token.as_deref())),
        ..SchedulerConfig::default()
    };
    let engine = |error: ballista_core::error::BallistaError| Error::Server(error.to_string());
    let cluster = BallistaCluster::new_from_config(&config).await.map_err(engine)?;
    create_scheduler(cluster, Arc::new(config)).await.map_err(engine)
}

/// A session that knows the unit function by name.
fn session(config: SessionConfig) -> datafusion::error::Result<SessionState> {
    let state = default_session_builder(config)?;
    let mut functions: Vec<_> = state.scalar_functions().values().cloned().collect();
    functions.push(Arc::new(unit_function(None)));
    Ok(SessionStateBuilder::from(state).with_scalar_functions(functions).build())
}
