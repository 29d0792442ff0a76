//! What executors say of themselves: how many tasks they have in hand, every second, `POST /featlab/pulse`.
//!
//! The engine counts a task as running from the answer that hands it out until the message that it is done. If a connection is cut with one of
//! these on its way, nobody works on the task and everybody waits for it; only the executor's own word tells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::token::Guard;

/// The path that is told.
pub(crate) const PATH: &str = "/featlab/pulse";
/// Time between two pulses.
const EVERY: Duration = Duration::from_secs(1);
/// A pulse older than this says nothing of an executor.
const STALE: Duration = Duration::from_secs(5);
/// How long an executor must have had nothing in hand before tasks that the engine counts there are missed.
const IDLE: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pulse {
    /// The engine's name of the executor.
    executor: String,
    /// Tasks in hand.
    busy: usize,
}

/// The last ones, as the scheduler keeps them.
#[derive(Debug, Clone)]
pub(crate) struct Pulses {
    guard: Guard,
    last: Arc<Mutex<HashMap<String, Heard>>>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    idle_since: Option<Instant>,
}

impl Pulses {
    pub(crate) fn new(guard: Guard) -> Self {
        Self { guard, last: Arc::default() }
    }

    /// Whether an executor has just said, and for a while, that it has nothing in hand.
    pub(crate) fn idle(&self, executor: &str) -> bool {
        let Ok(last) = self.last.lock() else { return false };
        last.get(executor).is_some_and(|heard| {
            heard.at.elapsed() < STALE && heard.idle_since.is_some_and(|since| since.elapsed() >= IDLE)
        })
    }

    fn hear(&self, pulse: Pulse) {
        let Ok(mut last) = self.last.lock() else { return };
        let now = Instant::now();
        last.retain(|_, heard| heard.at.elapsed() < STALE);
        let before = last.get(&pulse.executor).and_then(|heard| heard.idle_since);
        let idle_since = (pulse.busy == 0).then(|| before.unwrap_or(now));
        last.insert(pulse.executor, Heard { at: now, idle_since });
    }
}

/// The scheduler's side.
pub(crate) async fn hear(State(pulses): State<Pulses>, headers: HeaderMap, pulse: Json<Pulse>) -> StatusCode {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    if !pulses.guard.lets(agent) {
        return StatusCode::UNAUTHORIZED;
    }
    pulses.hear(pulse.0);
    StatusCode::NO_CONTENT
}

/// The executor's side, which never ends. One that is not heard does no harm.
///
/// * `url`: of the scheduler; `free`: its `slots`, less what it has in hand.
pub(crate) async fn beat(
    http: reqwest::Client,
    url: String,
    executor: String,
    slots: usize,
    free: Arc<Semaphore>,
) {
    loop {
        tokio::time::sleep(EVERY).await;
        let busy = slots.saturating_sub(free.available_permits());
        let pulse = Pulse { executor: executor.clone(), busy };
        let _ = http.post(format!("{url}{PATH}")).json(&pulse).send().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pulse_that_is_fresh_and_idle_for_long_counts() {
        let pulses = Pulses::new(Guard::new(None));
        let say = |busy| pulses.hear(Pulse { executor: "e".into(), busy });
        let age = |by: Duration| {
            let mut last = pulses.last.lock().expect("one thread");
            let heard = last.get_mut("e").expect("heard of");
            heard.at -= by;
            heard.idle_since = heard.idle_since.map(|since| since - by);
        };
        assert!(!pulses.idle("e"), "unknown");
        say(0);
        assert!(!pulses.idle("e"), "just idle");
        age(IDLE / 2);
        say(0);
        age(IDLE / 2);
        say(0);
        assert!(pulses.idle("e"), "for long");
        say(1);
        say(0);
        assert!(!pulses.idle("e"), "had work in between");
        age(IDLE);
        assert!(!pulses.idle("e"), "silent since");
    }
}
