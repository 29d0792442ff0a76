//! SIGKILL: before and after every operation, and at any time.

use std::time::{Duration, Instant};

use featcache::Form;

use crate::bulk::{Bulk, draws, took};
use crate::faulty::Fault;
use crate::fixture::Bucket;
use crate::program::{Program, Site};
use crate::work::{Job, SHARDS, Work, is_reference, reference, whole};

/// Kills at every operation, until there are no more.
fn at_every_operation(name: &str, site: impl Fn(usize) -> Site<'static>) {
    let (_, expected) = reference(Form::Binary);
    let (begun, mut cases, mut operations, mut places) = (Instant::now(), 0, 0, 0);
    for fault in [Fault::Before, Fault::After] {
        for k in 1.. {
            places += 1;
            let site = site(places);
            let mut program = Program::struck(&site, k, fault);
            let said = program.listen();
            if said.as_deref() == Some("done") {
                break;
            }
            assert_eq!(said, Some(format!("struck {k}")), "{name}");
            let killed = program.kill();
            let (store, case) = (site.store(), format!("{name}: SIGKILL {fault:?} {k}"));
            let already = whole(&store, &expected);
            let job = Job::new(Form::Binary, Work::Fill);
            job.run(&store).unwrap();
            let again = job.computed();
            assert!(killed.in_time, "{case}");
            assert_eq!(again, SHARDS - already, "{case}: a whole shard was computed again");
            assert!(killed.computed + again <= SHARDS + 1, "{case}: {} and {again} shards", killed.computed);
            is_reference(&store, &expected, &case);
            cases += 1;
            operations = k;
        }
    }
    assert!(operations > 12 && cases == 2 * operations);
    println!(
        "{name}: SIGKILL before/after each of {operations} operations, {cases} cases: the same files each time; {}",
        took(begun)
    );
}

/// Kills at times that are drawn, of which many fall into the middle of a write.
fn at_any_time(name: &str, kills: usize, site: impl Fn(usize) -> Site<'static>) {
    let bulk = Bulk { shards: 30, side: 32 };
    let expected = bulk.reference();
    let begun = Instant::now();
    let mut whole_run = Program::bulk(&site(usize::MAX), bulk);
    whole_run.wait_for_work();
    let running = Instant::now();
    whole_run.end();
    let duration = running.elapsed();
    let (mut in_time, mut left, mut lost) = (0, 0, 0);
    for (case, draw) in draws(7).take(kills).enumerate() {
        let site = site(case);
        let mut program = Program::bulk(&site, bulk);
        program.wait_for_work();
        std::thread::sleep(duration.mul_f64(draw * 0.9));
        if case % 2 == 1 {
            wait_for_a_write(&site);
        }
        let killed = program.kill();
        let store = site.store();
        left += store.leftovers().unwrap().len();
        let already = whole(&store, &expected);
        let mut again = 0;
        bulk.fill(&store, &mut || again += 1).unwrap();
        let case = format!("{name}: case {case}, after {:.0} ms", 900.0 * draw * duration.as_secs_f64());
        assert!(again <= bulk.shards - already, "{case}: a whole shard was computed again");
        assert!(killed.computed + again <= bulk.shards + 1, "{case}: {} and {again}", killed.computed);
        is_reference(&store, &expected, &case);
        in_time += usize::from(killed.in_time);
        lost += killed.computed + again - bulk.shards;
    }
    assert!(in_time > 0, "{name}: no kill came in time");
    println!(
        "{name}: SIGKILL at {kills} times of a run of {} ms, {in_time} before its end: the same files each time; \
         {left} half-written files found, {lost} shards computed again, never more than one; {}",
        duration.as_millis(),
        took(begun)
    );
}

/// Until a file is being written, where that can be seen, or for a moment.
fn wait_for_a_write(site: &Site<'_>) {
    let Site::Folder(path) = site else { return };
    let begun = Instant::now();
    let is_written = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains('#'))
    };
    while begun.elapsed() < Duration::from_millis(20) && !std::fs::read_dir(path).unwrap().any(is_written) {}
}

fn folder() -> impl Fn(usize) -> Site<'static> {
    let root = tempfile::tempdir().unwrap();
    move |case| {
        let path = root.path().join(case.to_string());
        std::fs::create_dir(&path).unwrap();
        Site::Folder(path.to_str().unwrap().to_owned())
    }
}

fn s3() -> impl Fn(usize) -> Site<'static> {
    // Servers live as long as the tests.
    let bucket: &'static Bucket = Box::leak(Box::new(Bucket::new()));
    move |case| Site::S3(bucket, format!("killed/{case}"))
}

#[test]
fn killed_at_every_operation_on_a_folder() {
    at_every_operation("local folder", folder());
}

#[test]
fn killed_at_every_operation_on_s3() {
    at_every_operation("S3", s3());
}

#[test]
fn killed_at_any_time_on_a_folder() {
    at_any_time("local folder", 40, folder());
}

#[test]
fn killed_at_any_time_on_s3() {
    at_any_time("S3", 15, s3());
}
