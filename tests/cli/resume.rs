//! Interruption: a killed run leaves whole shards and whole records, and the same command finishes the work.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::{Scratch, expect, extract, featlab, shards, sweep_file};

/// Waits until `ready` holds; false if the process ended before.
fn wait_until(child: &mut Child, ready: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if ready() {
            return true;
        }
        if child.try_wait().expect("a process").is_some() {
            return ready();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("nothing happened within a minute");
}

fn signal(child: &Child, name: &str) {
    let status = std::process::Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

fn shard_count(folder: &Path) -> usize {
    if folder.exists() { shards(folder).len() } else { 0 }
}

/// Shards, byte for byte, of an extraction that nobody interrupted.
fn reference(scratch: &Scratch, dataset: &str) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let out = scratch.path("reference");
    expect(extract(dataset, &out).args(["--shard-rows", "2"]), 0);
    shards(&out)
}

#[test]
fn extraction_survives_signals() {
    let scratch = Scratch::new();
    let root = scratch.camvid(40, 0);
    let dataset = format!("camvid:{}", root.display());
    let whole = reference(&scratch, &dataset);
    assert_eq!(whole.len(), 20);
    for (name, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let out = scratch.path(name);
        let mut command = extract(&dataset, &out);
        command
            .args(["--shard-rows", "2"])
            .env("RAYON_NUM_THREADS", "1")
            .stderr(Stdio::null())
            .stdout(Stdio::null());
        let mut child = command.spawn().expect("the binary runs");
        assert!(wait_until(&mut child, || shard_count(&out) >= 3), "{name}: ended too early");
        signal(&child, name);
        let status = child.wait().expect("a process");
        if status.success() {
            continue; // The machine was faster than the signal; the other signals still test this.
        }
        assert_eq!(status.code(), code, "{name}");
        assert!(!out.join("manifest.json").exists(), "{name}: committed half a cache");
        let kept = shards(&out);
        assert!(
            kept.len() >= 3 && kept.iter().all(|shard| whole.contains(shard)),
            "{name}: a torn shard was left"
        );

        let (_, stderr) = expect(&mut extract(&dataset, &out), 0); // adopts the plan's shard size
        assert!(stderr.contains("resuming"), "{name}: {stderr}");
        assert_eq!(shards(&out), whole, "{name}");
        expect(featlab().args(["cache", "verify"]).arg(&out), 0);
    }
}

#[test]
fn an_interrupted_sweep_goes_on_in_the_middle_of_its_bank() {
    let scratch = Scratch::new();
    let root = scratch.camvid(8, 3);
    let file = sweep_file(&scratch, &root);
    let sweep = |out: &Path, steps: usize| {
        let mut command = featlab();
        command.arg("sweep").arg(&file).args(["--set", &format!("probe.steps={steps}"), "--out"]).arg(out);
        command
    };
    let entries = |folder: &Path, start: &str| {
        std::fs::read_dir(folder).map_or(0, |entries| {
            entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(start)).count()
        })
    };
    let results = |out: &Path| {
        let csv = std::fs::read_to_string(out.join("results.csv")).unwrap();
        csv.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    // Long enough for the signal to come in the middle, whatever the machine.
    for steps in [1000, 10_000] {
        let out = scratch.path(&format!("out-{steps}"));
        let (projections, runs) = (out.join("projections"), out.join("runs"));
        let mut child =
            sweep(&out, steps).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
        wait_until(&mut child, || entries(&projections, "rp") > 0);
        std::thread::sleep(Duration::from_millis(500));
        if child.try_wait().expect("a process").is_some() {
            continue; // The machine was faster than the signal.
        }
        signal(&child, "INT");
        match child.wait().expect("a process").code() {
            Some(0) => continue,
            code => assert_eq!(code, Some(130)),
        }
        assert_eq!(entries(&runs, "bank-"), 1, "the state of the training");
        let (_, stderr) = expect(&mut sweep(&out, steps), 0);
        assert!(stderr.contains("goes on at step"), "{stderr}");
        assert_eq!(entries(&runs, "bank-"), 0, "a state that nobody needs");
        let whole = scratch.path("whole");
        expect(&mut sweep(&whole, steps), 0);
        assert_eq!(results(&out), results(&whole));
        let (_, stderr) = expect(&mut sweep(&out, steps), 0);
        assert!(stderr.contains("nothing to compute"), "{stderr}");
        return;
    }
    panic!("no training was interrupted");
}

#[test]
fn two_processes_at_once_write_one_cache() {
    let scratch = Scratch::new();
    let root = scratch.camvid(24, 0);
    let dataset = format!("camvid:{}", root.display());
    let whole = reference(&scratch, &dataset);
    let out = scratch.path("shared");
    let spawn =
        || extract(&dataset, &out).args(["--shard-rows", "2"]).stdout(Stdio::null()).spawn().expect("runs");
    let (mut a, mut b) = (spawn(), spawn());
    assert!(a.wait().expect("a process").success() && b.wait().expect("a process").success());
    assert_eq!(shards(&out), whole);
    expect(featlab().args(["cache", "verify"]).arg(&out), 0);
}
