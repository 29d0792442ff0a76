//! Being stopped politely: SIGINT and SIGTERM set a flag that long loops look at between two units of work.
//!
//! What is finished is already on the store when the flag is seen (shards and run records are written one by one), so
//! stopping only means not starting the next unit. A second signal ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::exit::{Failure, Kind};

/// A handle on the "please stop" flag; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// If the operating system refuses a handler.
    pub(crate) fn install() -> std::io::Result<Self> {
        let flag = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that on the *second* signal the flag is already set and the process ends.
            let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
            signal_hook::flag::register(signal, armed)?;
            signal_hook::flag::register_usize(signal, flag.0.clone(), signal as usize)?;
        }
        Ok(flag)
    }

    /// Whether a signal asked us to stop.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Returns an error that carries exit code 130 or 143 once a signal has arrived.
    ///
    /// # Errors
    /// [`Failure`] of kind [`Kind::Interrupted`].
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(Failure {
                kind: Kind::Interrupted(signal as i32),
                message: "interrupted; finished work is saved, the same command resumes".into(),
            }
            .into()),
        }
    }
}
