//! Progress on stderr, and nowhere else: a bar on a terminal, one log line every few seconds otherwise.
//!
//! Libraries know nothing of this; they hand back control between units of work and the caller ticks. Quiet mode shows nothing.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How much the user wants to read on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Verbosity {
    /// Errors only.
    Quiet,
    /// What happens, and progress.
    #[default]
    Normal,
    /// Everything, including the libraries' debug messages.
    Verbose,
}

/// Makes progress displays and prints what a reader should know; results go elsewhere (stdout).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reporter {
    verbosity: Verbosity,
}

/// Seconds between two log lines when stderr is not a terminal.
const LOG_EVERY: Duration = Duration::from_secs(5);

impl Reporter {
    /// A reporter of the given verbosity.
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        Self { verbosity }
    }

    /// One line for the reader, unless quiet.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        if self.verbosity > Verbosity::Quiet {
            write_line(line.as_ref());
        }
    }

    /// One line that is shown even in quiet mode: inputs skipped, numbers to be read with care.
    pub(crate) fn warn(&self, line: impl AsRef<str>) {
        write_line(&format!("warning: {}", line.as_ref()));
    }

    /// The one line that says why the program ends.
    pub(crate) fn error(&self, line: &str) {
        write_line(&format!("error: {line}"));
    }

    /// A display for `total` units of `unit` (plural), e.g. `reporter.start("extract train", 367, "images")`.
    pub(crate) fn start(&self, what: &str, total: u64, unit: &'static str) -> Progress {
        let shown = self.verbosity > Verbosity::Quiet;
        let bar = (shown && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total);
            let template = "{prefix:24} {bar:30} {pos}/{len} {unit} · {per_sec} · {elapsed} · ETA {eta}{msg}"
                .replace("{unit}", unit);
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar.set_prefix(what.to_owned());
            bar
        });
        let now = Instant::now();
        Progress {
            what: what.to_owned(),
            total,
            unit,
            bar,
            log: shown,
            state: Mutex::new(State { done: 0, started: now, logged: now }),
        }
    }
}

fn write_line(line: &str) {
    // A closed stderr must not end the work.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A display in use; dropping it clears the bar.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    total: u64,
    unit: &'static str,
    bar: Option<ProgressBar>,
    log: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    done: u64,
    started: Instant,
    logged: Instant,
}

impl Progress {
    /// `n` more units are done. Can be called from any thread.
    pub(crate) fn tick(&self, n: u64) {
        self.tick_with(n, String::new);
    }

    /// As [`Progress::tick`], with something to say at the end of the line.
    pub(crate) fn tick_with(&self, n: u64, note: impl FnOnce() -> String) {
        let shown = |note: String| if note.is_empty() { note } else { format!(" · {note}") };
        if let Some(bar) = &self.bar {
            bar.inc(n);
            bar.set_message(shown(note()));
            return;
        }
        let Ok(mut state) = self.state.lock() else { return };
        state.done += n;
        if self.log && state.logged.elapsed() >= LOG_EVERY {
            state.logged = Instant::now();
            let line = log_line(&self.what, state.done, self.total, self.unit, state.started.elapsed());
            write_line(&(line + &shown(note())));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn log_line(what: &str, done: u64, total: u64, unit: &str, elapsed: Duration) -> String {
    if done == 0 {
        return format!("{what}: 0/{total} {unit} after {}", duration(elapsed.as_secs_f64()));
    }
    let rate = done as f64 / elapsed.as_secs_f64().max(1e-9);
    let eta = (total.saturating_sub(done)) as f64 / rate.max(1e-9);
    format!("{what}: {done}/{total} {unit} · {rate:.1} {unit}/s · ETA {}", duration(eta))
}

/// Seconds as people read them: `42s`, `3m07s`, `2h05m`.
pub(crate) fn duration(seconds: f64) -> String {
    let s = seconds.round().max(0.0) as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_tell_rate_and_eta() {
        let line = log_line("extract", 50, 200, "images", Duration::from_secs(10));
        assert_eq!(line, "extract: 50/200 images · 5.0 images/s · ETA 30s");
        assert_eq!(
            log_line("extract", 0, 200, "images", Duration::from_secs(10)),
            "extract: 0/200 images after 10s"
        );
        assert_eq!(duration(187.0), "3m07s");
        assert_eq!(duration(7500.0), "2h05m");
    }
}
