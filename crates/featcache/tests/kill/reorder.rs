//! Four threads on a store whose operations take their time and overtake each other.

use std::sync::Arc;
use std::time::Instant;

use featcache::{Form, Opened, Result, Store};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::faulty::{Fault, Faulty, Script, Then};
use crate::fixture::{Bucket, golden, write};
use crate::work::{Files, Job, SHARDS, Work, is_reference, reference, whole};

const THREADS: usize = 4;
const PART_BYTES: usize = 3000;

/// Several threads of one writer, each with its own shards.
fn share(job: &Job, store: &Store) -> Result<()> {
    let Opened::Resume(writer) = job.open(store, false)? else { return Ok(()) };
    let missing = writer.missing();
    let (writer, missing) = (&writer, &missing);
    std::thread::scope(|scope| {
        let mine = |thread: usize| {
            missing.iter().skip(thread).step_by(THREADS).try_for_each(|planned| {
                job.computing();
                write(writer, planned)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || mine(thread))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    writer.commit(golden()).map(|_| ())
}

/// Several writers, each of which does everything that it finds missing.
fn race(job: &Job, store: &Store) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| job.run(store))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })
}

fn slow(
    name: &str,
    seeds: u64,
    parts: &[usize],
    mut fresh: impl FnMut() -> (Arc<dyn ObjectStore>, Path),
    expected: &Files,
) {
    let (begun, mut cases, mut operations, mut overtaken) = (Instant::now(), 0, 0, 0);
    for seed in 0..seeds {
        for &parts in parts {
            for (way, work) in [("sharing", share as fn(&Job, &Store) -> Result<()>), ("racing", race)] {
                let (inner, prefix) = fresh();
                let script = Arc::new(Script::slow(seed));
                let faulty = Arc::new(Faulty { inner: inner.clone(), script: script.clone() });
                let store = Store::from_object_store(faulty, prefix.clone(), "slow").with_part_bytes(parts);
                let case = format!("{name}, seed {seed}, {way}, parts of {parts}");
                work(&Job::new(Form::Binary, Work::Fill), &store).unwrap_or_else(|e| panic!("{case}: {e}"));
                let calm = Store::from_object_store(inner.clone(), prefix.clone(), "calm");
                is_reference(&calm, expected, &case);
                cases += 1;
                operations += script.operations().len();
                overtaken += script.overtaken();
            }
        }
    }
    assert!(overtaken > cases);
    println!(
        "{name}: {cases} caches by {THREADS} threads, {operations} delayed operations, {overtaken} of them \
         overtaking others: the same files each time; {:.1} s",
        begun.elapsed().as_secs_f32()
    );
}

#[test]
fn delayed_and_reordered_operations_change_nothing() {
    let (_, expected) = reference(Form::Binary);
    slow("memory", 60, &[usize::MAX, PART_BYTES], || (Arc::new(InMemory::new()), Path::default()), &expected);
}

#[test]
fn delayed_and_reordered_operations_on_s3_change_nothing() {
    let (bucket, (_, expected)) = (Bucket::new(), reference(Form::Binary));
    let client = bucket.client();
    let mut case = 0;
    let fresh = || {
        case += 1;
        (client.clone(), Path::from(format!("slow-{case}")))
    };
    slow("S3", 8, &[usize::MAX], fresh, &expected);
}

/// Four threads are stopped at once; each may lose the shard that it was at.
#[test]
fn four_threads_stopped_at_every_operation_lose_one_shard_each_at_most() {
    let (_, expected) = reference(Form::Binary);
    let (begun, mut cases) = (Instant::now(), 0);
    for parts in [usize::MAX, PART_BYTES] {
        for fault in [Fault::Before, Fault::After, Fault::Half] {
            for k in 1.. {
                let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                let script = Arc::new(Script::new(k, fault, Then::Dies).slowly(k as u64));
                let faulty = Arc::new(Faulty { inner: inner.clone(), script: script.clone() });
                let store =
                    |inner| Store::from_object_store(inner, Path::default(), "x").with_part_bytes(parts);
                let job = Job::new(Form::Binary, Work::Fill);
                let first = share(&job, &store(faulty));
                if !script.struck() {
                    first.unwrap();
                    break;
                }
                let case = format!("four threads, parts of {parts}, {fault:?} at {k}");
                let (computed, already) = (job.computed(), whole(&store(inner.clone()), &expected));
                if let Err(error) = job.run(&store(inner.clone())) {
                    assert!(error.is_integrity() && fault == Fault::Half, "{case}: {error}");
                    job.mending().run(&store(inner.clone())).unwrap();
                }
                let again = job.computed();
                assert_eq!(again, SHARDS - already, "{case}");
                assert!(computed + again <= SHARDS + THREADS, "{case}");
                is_reference(&store(inner.clone()), &expected, &case);
                cases += 1;
            }
        }
    }
    println!(
        "memory, {THREADS} threads: {cases} cases: the same files each time; {:.1} s",
        begun.elapsed().as_secs_f32()
    );
}
