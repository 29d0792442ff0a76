//! The one place where async ends.
//!
//! Every operation on a store is a future driven to its end by a small current-thread runtime that the process
//! makes once. Several threads may wait at the same time: each drives its own future. Callers see
//! blocking functions only, and must not themselves be inside an async runtime.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

/// Runs `future` to its end on the calling thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime without I/O drivers needs no resource that could be refused")
        })
        .block_on(future)
}
