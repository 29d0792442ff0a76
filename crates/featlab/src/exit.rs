//! How a run of the program ends: exit codes, and the errors that carry them.
//!
//! Libraries return typed errors; this file is the only place that turns them into a process exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed: an input/output error, nothing left to work on, or some cells of a sweep without a result (they are listed) |
//! | 2 | usage or configuration error |
//! | 3 | done, but inputs were skipped (they are listed) |
//! | 4 | integrity: cache, checkpoint or configuration do not match, or are damaged |
//! | 130, 143 | interrupted by SIGINT, SIGTERM; everything finished so far is committed |

use std::fmt;

/// Why the program ends other than with success, where the code is not the general 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Exit 2: the command line or a configuration file asks for something that cannot be.
    Usage,
    /// Exit 4: things that must belong together do not.
    Integrity,
    /// Exit 128 + signal.
    Interrupted(i32),
}

/// An error message with the exit code that it deserves.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Which exit code.
    pub kind: Kind,
    /// One line: what, expected, got, what to do.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// A usage error (exit 2).
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Failure { kind: Kind::Usage, message: message.into() }.into()
}

/// An integrity error (exit 4).
pub(crate) fn integrity(message: impl Into<String>) -> anyhow::Error {
    Failure { kind: Kind::Integrity, message: message.into() }.into()
}

/// How a command that did its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Status {
    /// Everything was done (exit 0).
    #[default]
    Done,
    /// Damage was found (exit 4).
    Damaged,
    /// Done, but some inputs were skipped and listed (exit 3).
    Skipped,
    /// Some of the work failed; the rest is done (exit 1).
    Incomplete,
}

impl Status {
    /// Exit code of a command that returned.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Damaged => 4,
            Self::Skipped => 3,
            Self::Incomplete => 1,
        }
    }
}

/// Exit code for an error: the first cause in the chain that knows its own kind decides; otherwise 1.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(classify).unwrap_or(1)
}

fn classify(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(match failure.kind {
            Kind::Usage => 2,
            Kind::Integrity => 4,
            Kind::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(130),
        });
    }
    let (usage, integrity) = if let Some(e) = cause.downcast_ref::<backbone::Error>() {
        (e.is_usage(), e.is_integrity())
    } else if let Some(e) = cause.downcast_ref::<featcache::Error>() {
        (e.is_usage(), e.is_integrity())
    } else if let Some(e) = cause.downcast_ref::<dataset::Error>() {
        (e.is_usage(), false)
    } else if let Some(e) = cause.downcast_ref::<dimred::Error>() {
        use dimred::Error::{Dimension, Format, Invalid, OtherDimension};
        (matches!(e, Dimension { .. } | OtherDimension { .. } | Invalid { .. }), matches!(e, Format(_)))
    } else if let Some(e) = cause.downcast_ref::<pretrain::Error>() {
        (e.is_usage(), e.is_integrity())
    } else {
        return None;
    };
    match (usage, integrity) {
        (true, _) => Some(2),
        (_, true) => Some(4),
        _ => None,
    }
}

/// The error chain as one line: `context: cause: root cause`, without repetitions.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_kind_survives_context() {
        assert_eq!(code(&usage("bad").context("reading sweep.toml")), 2);
        assert_eq!(code(&integrity("bad")), 4);
        assert_eq!(code(&anyhow::anyhow!("bad")), 1);
        let interrupted = Failure { kind: Kind::Interrupted(15), message: "stop".into() };
        assert_eq!(code(&interrupted.into()), 143);
    }

    #[test]
    fn a_chain_is_one_line_without_repetition() {
        let error = Err::<(), _>(anyhow::anyhow!("no\nspace")).context("writing x").unwrap_err();
        assert_eq!(one_line(&error), "writing x: no space");
        let twice = Err::<(), _>(anyhow::anyhow!("no space")).context("writing x: no space").unwrap_err();
        assert_eq!(one_line(&twice), "writing x: no space");
    }
}
