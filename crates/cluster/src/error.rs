//! Why a job did not end well.

use thiserror::Error;

/// Result of the driver.
pub type Result<T> = std::result::Result<T, Error>;

/// What the driver cannot mend.
#[derive(Debug, Error)]
pub enum Error {
    /// The scheduler does not answer.
    #[error(
        "no scheduler answers at {url}: {reason}; start one with `featlab cluster scheduler`, or check --cluster"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What the last attempt said.
        reason: String,
    },
    /// The scheduler wants another token, or one at all.
    #[error(
        "the scheduler at {url} refuses this token; set FEATLAB_CLUSTER_TOKEN to the one that it was started with"
    )]
    Token {
        /// Which scheduler.
        url: String,
    },
    /// Driver, scheduler and executors must be of one version.
    #[error(
        "this is featlab {ours}, {peer} is {theirs}: a cluster is of one version, so that it computes the same bits"
    )]
    Version {
        /// Version of the driver.
        ours: String,
        /// Who differs.
        peer: String,
        /// Its version.
        theirs: String,
    },
    /// A unit that cannot be done, or was tried often enough.
    #[error("unit {unit} failed on {executor}{times}: {message}", times = times(*attempts))]
    Unit {
        /// Which one.
        unit: u64,
        /// Where it was tried last.
        executor: String,
        /// How often it was tried.
        attempts: u32,
        /// What the worker said.
        message: String,
        /// Exit code that the worker asks for.
        code: u8,
    },
    /// The engine gave the job up again and again.
    #[error("the cluster gave the job up {attempts} times, the last time because: {reason}")]
    Job {
        /// How often.
        attempts: u32,
        /// What the engine said last.
        reason: String,
    },
    /// The caller asked to stop; the job was cancelled.
    #[error("stopped, and the job on the cluster cancelled")]
    Cancelled,
    /// A server could not be started or ended with an error.
    #[error("{0}")]
    Server(String),
    /// The engine refused something that it should not.
    #[error("the engine: {0}")]
    Engine(String),
}

fn times(attempts: u32) -> String {
    if attempts > 1 { format!(" (tried {attempts} times)") } else { String::new() }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Self::Engine(error.to_string())
    }
}
