//! What an executor does with a unit.

use std::fmt::Debug;

use crate::UnitFailure;

/// The work itself. One worker serves all units of an executor, several at a time if it has several slots.
pub trait Worker: Debug + Send + Sync + 'static {
    /// Does unit `unit` of `job`, and returns what the driver is to know of it.
    ///
    /// A unit may be done twice, also at the same time by two executors: it must come to the same result then and leave
    /// nothing twice.
    ///
    /// # Errors
    /// Why it could not be done, and whether trying again may help.
    fn run(&self, job: &str, unit: u64) -> Result<Vec<u8>, UnitFailure>;
}
