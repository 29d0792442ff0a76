//! Four processes share a cache; one of them is killed, the others finish, it comes back, anyone commits.

use std::time::{Duration, Instant};

use featcache::Opened;

use crate::bulk::{Bulk, draws, took};
use crate::fixture::{Bucket, golden};
use crate::program::{Program, Site};
use crate::work::is_reference;

const TASKS: usize = 4;

fn share(name: &str, rounds: usize, site: impl Fn(usize) -> Site<'static>) {
    let bulk = Bulk { shards: 60, side: 16 };
    let expected = bulk.reference();
    let (begun, mut in_time, mut lost) = (Instant::now(), 0, 0);
    for (round, draw) in draws(11).take(rounds).enumerate() {
        let site = site(round);
        let mut programs: Vec<_> = (0..TASKS).map(|task| Program::task(&site, bulk, task, TASKS)).collect();
        let mut victim = programs.remove(round % TASKS);
        victim.wait_for_work();
        std::thread::sleep(Duration::from_micros((draw * 30_000.0) as u64));
        let killed = victim.kill();
        programs.into_iter().for_each(Program::end);
        let Opened::Resume(writer) = bulk.open(&site.store()).unwrap() else {
            panic!("nobody has committed")
        };
        let missing = writer.missing();
        let part = bulk.shards / TASKS;
        assert!(missing.iter().all(|planned| planned.index % TASKS == round % TASKS), "{name} {round}");
        assert!(killed.computed + missing.len() <= part + 1, "{name} {round}: more than one shard lost");
        if !missing.is_empty() {
            writer.commit(golden()).unwrap_err();
        }
        // It comes back, and somebody who knew nothing of what it wrote commits.
        Program::task(&site, bulk, round % TASKS, TASKS).end();
        writer.commit(golden()).unwrap();
        is_reference(&site.store(), &expected, &format!("{name}, round {round}"));
        in_time += usize::from(killed.in_time);
        lost += killed.computed + missing.len() - part;
    }
    assert!(in_time > 0);
    println!(
        "{name}: {rounds} caches by {TASKS} processes, one of them killed ({in_time} before its end): one cache each \
         time, the same files; {lost} shards computed again; {}",
        took(begun)
    );
}

#[test]
fn one_of_four_processes_is_killed_on_a_folder() {
    let root = tempfile::tempdir().unwrap();
    share("local folder", 8, |round| {
        Site::Folder(root.path().join(round.to_string()).to_str().unwrap().to_owned())
    });
}

#[test]
fn one_of_four_processes_is_killed_on_s3() {
    let bucket: &'static Bucket = Box::leak(Box::new(Bucket::new()));
    share("S3", 8, |round| Site::S3(bucket, format!("tasks/{round}")));
}
