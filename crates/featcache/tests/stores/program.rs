//! A program of its own opens the store by URL, with nothing but the environment to go by.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use featcache::{Cache, Store};

use crate::checks::Checks;
use crate::conformance::on_disk;
use crate::fixture::{assert_whole, contents, fill};
use crate::places::{Environment, Place};

const URL: &str = "FEATLAB_TEST_STORE";
/// Caches that are filled while a server goes away.
const ROUNDS: usize = 6;

/// A cache made there by another process is the cache that would have been made here.
pub(crate) fn finds(checks: &mut Checks, place: &Place) {
    for (way, environment) in place.environments.iter().enumerate() {
        let mut program = program("fills_by_url", &format!("{}/by%20url/{way}", place.url), environment);
        ended_well(checks, program.output().unwrap());
        checks.same("made by URL", contents(&place.store(&format!("by url/{way}"))), on_disk());
    }
}

/// Four writers fill caches while the server goes away and comes back all the time, cutting what is on its way.
pub(crate) fn survives(checks: &mut Checks, place: &mut Place) {
    if !place.restarts() {
        return;
    }
    let mut program =
        program("fills_together_by_url", &format!("{}/survives", place.url), &place.environments[0]);
    let mut running = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut times = 0;
    while running.try_wait().unwrap().is_none() {
        place.stop();
        std::thread::sleep(Duration::from_millis(10));
        place.start();
        std::thread::sleep(Duration::from_millis(100));
        times += 1;
    }
    ended_well(checks, running.wait_with_output().unwrap());
    checks.holds("the server was not away often enough", times > 3);
    for round in 0..ROUNDS {
        checks.same("made meanwhile", contents(&place.store(&format!("survives/{round}"))), on_disk());
    }
}

fn ended_well(checks: &mut Checks, output: Output) {
    let said = [output.stdout, output.stderr].concat();
    checks.holds(&String::from_utf8_lossy(&said), output.status.success());
}

/// This test program again, told to run one test alone, in no other environment than the given one.
fn program(test: &str, url: &str, environment: &Environment) -> Command {
    let mut program = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars_os() {
        let vendors = ["AWS_", "AZURE_", "AZURITE_", "GOOGLE_", "SERVICE_ACCOUNT"];
        if vendors.iter().any(|vendor| name.to_string_lossy().starts_with(vendor)) {
            program.env_remove(name);
        }
    }
    program.args(["--exact", &format!("program::{test}"), "--nocapture"]);
    program.env(URL, url).envs(environment.iter().cloned());
    program
}

/// Not a test by itself: what [`finds`] starts.
#[test]
fn fills_by_url() {
    let Ok(url) = std::env::var(URL) else { return };
    let store = Store::open(&url).unwrap();
    assert_eq!(fill(&store).unwrap(), 6);
    assert_eq!(fill(&store).unwrap(), 0);
    assert_whole(&Cache::open(store).unwrap());
}

/// Not a test by itself: what [`survives`] starts.
#[test]
fn fills_together_by_url() {
    let Ok(url) = std::env::var(URL) else { return };
    for round in 0..ROUNDS {
        let store = Store::open(&format!("{url}/{round}")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| fill(&store).unwrap());
            }
        });
        assert_whole(&Cache::open(store).unwrap());
    }
}
