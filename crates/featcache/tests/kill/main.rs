//! The kill matrix: an extraction that is stopped at any of its operations, and run again, leaves the files of one that was not.
//!
//! Stopped by a fault of the store (`faulty.rs`), or by SIGKILL: then this program runs itself as a child, which announces operation `k`
//! and waits to be killed there. After every case: what is there before the second run is not computed again, the files are the same to the
//! byte, and garbage is what `gc` takes for it.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]
#![allow(clippy::print_stdout, reason = "the child announces itself, and the matrix says how large it was")]

mod faulty;
#[path = "../fixture/mod.rs"]
mod fixture;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use faulty::{Fault, Faulty};
use featcache::{Cache, Dtype, Form, Layout, Opened, Row, Store, Writer, WriterOptions, gc};
use fixture::*;
use loopback::S3;
use ndarray::Array2;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;

type Files = BTreeMap<String, Vec<u8>>;
/// A store, and a prefix in it.
type Place = (Arc<dyn ObjectStore>, Path);
/// The environment in which a child finds its store, and the store as we see it.
type ChildPlace = (Vec<(&'static str, String)>, Store);

/// A cache that is written in this form, of objects that are uploaded in parts if there are to be any.
#[derive(Debug, Clone, Copy)]
struct Way {
    form: Form,
    part_bytes: Option<usize>,
}

const PLAIN: Way = Way { form: Form::Binary, part_bytes: None };
/// A shard of the fixture has some thousand bytes: several parts.
const IN_PARTS: Way = Way { form: Form::Binary, part_bytes: Some(1500) };

/// One shard of three rows of 4 MiB, in parts of the smallest size that S3 takes.
const LARGE: Way = Way { form: Form::Packed, part_bytes: Some(5 << 20) };

/// Writes what is missing and commits; the shards that were written.
fn run(store: &Store, way: Way) -> featcache::Result<Vec<usize>> {
    run_with(store, way, false)
}

/// The same, mending what is damaged if asked to.
fn run_with(store: &Store, way: Way, repair: bool) -> featcache::Result<Vec<usize>> {
    if way.part_bytes == LARGE.part_bytes {
        return run_large(store, repair);
    }
    let store = way.part_bytes.map_or(store.clone(), |bytes| store.clone().with_part_bytes(bytes));
    let options = WriterOptions { form: Some(way.form), repair, ..options() };
    let opened = Writer::open(store, key(Dtype::F16), layout(), SAMPLES, options)?;
    let Opened::Resume(writer) = opened else { return Ok(Vec::new()) };
    let missing = writer.missing();
    missing.iter().try_for_each(|planned| write(&writer, planned))?;
    writer.commit(golden())?;
    Ok(missing.into_iter().map(|planned| planned.index).collect())
}

fn run_large(store: &Store, repair: bool) -> featcache::Result<Vec<usize>> {
    let store = store.clone().with_part_bytes(5 << 20);
    let layout = Layout { grid: (32, 32), dim: 1024, ..Layout::default() };
    let options = WriterOptions { shard_rows: Some(3), repair, ..WriterOptions::default() };
    let opened = Writer::open(store, key(Dtype::F32), layout, 3, options)?;
    let Opened::Resume(writer) = opened else { return Ok(Vec::new()) };
    let missing = writer.missing();
    for planned in &missing {
        let row = |i: usize| Row {
            image_id: i.to_string(),
            tokens: Array2::from_shape_fn((1024, 1024), |(t, d)| ((t * 31 + d * 7 + i) % 251) as f32),
            ..Row::default()
        };
        writer.write_shard(planned, planned.samples.clone().map(row).collect(), vec![])?;
    }
    writer.commit(golden())?;
    Ok(missing.into_iter().map(|planned| planned.index).collect())
}

fn reference(way: Way) -> Files {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = Store::from_object_store(inner, Path::default(), "reference");
    run(&store, way).unwrap();
    contents(&store)
}

/// Runs again and compares.
fn resume(store: &Store, way: Way, expected: &Files, case: &str) {
    let whole =
        |(name, bytes): (&String, &Vec<u8>)| name.starts_with("shard-") && expected.get(name) == Some(bytes);
    let there = contents(store);
    let already: Vec<String> = there.iter().filter(|one| whole(*one)).map(|(name, _)| name.clone()).collect();
    // A plan or manifest that was cut short is refused, and mended when asked.
    let again = match run(store, way) {
        Err(error) if error.is_integrity() && case.contains("Truncate") => run_with(store, way, true),
        other => other,
    };
    let written = again.unwrap_or_else(|error| panic!("{case}: {error}"));
    for index in &written {
        let file = expected.keys().find(|name| name.starts_with(&format!("shard-{index:05}"))).unwrap();
        assert!(!already.contains(file), "{case}: {file} was there and computed again");
    }
    let shards = expected.keys().filter(|name| name.starts_with("shard-")).count();
    assert!(there.contains_key("manifest.json") || written.len() == shards - already.len(), "{case}");
    gc(store, Duration::ZERO, false).unwrap();
    assert_eq!(&contents(store), expected, "{case}");
    assert!(store.leftovers().unwrap().is_empty(), "{case}");
    assert_eq!(Cache::open(store.clone()).unwrap().verify(&mut |_| {}).unwrap(), [], "{case}");
}

/// Every fault at every operation; the number of operations.
fn faults_everywhere(name: &str, way: Way, fresh: &dyn Fn(&str) -> Place) {
    let expected = reference(way);
    let (mut cases, mut operations) = (0, 0);
    for fault in [Fault::Before, Fault::After, Fault::Truncate] {
        for k in 1.. {
            let case = format!("{fault:?}-{k}");
            let (inner, prefix) = fresh(&case);
            let faulty = Arc::new(Faulty::new(inner.clone(), fault, k));
            let first = run(&Store::from_object_store(faulty.clone(), prefix.clone(), "faulty"), way);
            resume(
                &Store::from_object_store(inner, prefix, "survivor"),
                way,
                &expected,
                &format!("{name} {case}"),
            );
            cases += 1;
            if faulty.operations() < k {
                assert!(first.is_ok(), "{case}: nothing went wrong");
                operations = k - 1;
                break;
            }
        }
    }
    assert!(operations > 12, "only {operations} operations were seen");
    println!(
        "{name}, {way:?}: {operations} operations, {cases} cases (fails before, after, truncates): the same files each time"
    );
}

#[test]
fn faults_in_memory_in_every_form() {
    for form in Form::ALL {
        faults_everywhere("memory", Way { form, ..PLAIN }, &|_| (Arc::new(InMemory::new()), Path::default()));
    }
    faults_everywhere("memory", IN_PARTS, &|_| (Arc::new(InMemory::new()), Path::default()));
}

#[test]
fn faults_in_a_local_folder() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = |case: &str| -> Place {
        let place = folder.path().join(case);
        std::fs::create_dir(&place).unwrap();
        (Arc::new(LocalFileSystem::new_with_prefix(place).unwrap()), Path::default())
    };
    faults_everywhere("local folder", PLAIN, &fresh);
}

#[test]
fn faults_on_s3() {
    for way in [PLAIN, LARGE] {
        let bucket = Bucket::new();
        faults_everywhere("S3", way, &|case| (bucket.client(), Path::from(case)));
    }
}

#[test]
fn operations_that_pass_one_another() {
    for way in [PLAIN, IN_PARTS] {
        let expected = reference(way);
        let bucket = Bucket::new();
        for round in 0..3 {
            let remote = if way.part_bytes.is_none() { bucket.client() } else { Arc::new(InMemory::new()) };
            for inner in [Arc::new(InMemory::new()) as Arc<dyn ObjectStore>, remote] {
                let prefix = Path::from(format!("round-{round}"));
                std::thread::scope(|scope| {
                    for _ in 0..4 {
                        let slow = Faulty::new(inner.clone(), Fault::Delay, 0);
                        let store = Store::from_object_store(Arc::new(slow), prefix.clone(), "slow");
                        scope.spawn(move || run(&store, way).unwrap());
                    }
                });
                let store = Store::from_object_store(inner, prefix, "after");
                gc(&store, Duration::ZERO, false).unwrap();
                assert_eq!(contents(&store), expected, "round {round}");
            }
        }
    }
    println!("four writers on stores that delay and reorder, 12 rounds: the same files each time");
}

const AT: &str = "FEATLAB_TEST_KILL_AT";
const FAULT: &str = "FEATLAB_TEST_KILL_FAULT";
const FOLDER: &str = "FEATLAB_TEST_KILL_FOLDER";
const PREFIX: &str = "FEATLAB_TEST_KILL_PREFIX";
const PARTS: &str = "FEATLAB_TEST_KILL_PARTS";
const ROWS: &str = "FEATLAB_TEST_KILL_ROWS";
const TASK: &str = "FEATLAB_TEST_KILL_TASK";

/// What a child does: an extraction, on a store that stops at an operation if one is named.
#[test]
#[ignore = "the other side of the tests that kill"]
fn child() {
    let variable = |name: &str| std::env::var(name).ok();
    let number = |name: &str| variable(name).and_then(|text| text.parse::<usize>().ok());
    let way = if variable(PARTS).is_some() { IN_PARTS } else { PLAIN };
    let Some(at) = number(AT) else {
        let store = Store::open(&variable(FOLDER).unwrap()).unwrap();
        let options = WriterOptions { shard_rows: number(ROWS), ..options() };
        let opened = Writer::open(store, key(Dtype::F16), layout(), SAMPLES, options).unwrap();
        let Opened::Resume(writer) = opened else { return };
        let mine = |index: usize| number(TASK).is_none_or(|task| index % 4 == task);
        for planned in writer.missing().into_iter().filter(|planned| mine(planned.index)) {
            write(&writer, &planned).unwrap();
        }
        let _ = writer.commit(golden()); // another task may have shards to write yet
        return;
    };
    let inner: Arc<dyn ObjectStore> = match variable(FOLDER) {
        Some(folder) => Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap()),
        None => Arc::new(AmazonS3Builder::from_env().with_bucket_name("bucket").build().unwrap()),
    };
    let fault = if variable(FAULT).unwrap() == "before" { Fault::WaitBefore } else { Fault::WaitAfter };
    let prefix = Path::from(variable(PREFIX).unwrap());
    let faulty = Arc::new(Faulty::new(inner, fault, at));
    let store = Store::from_object_store(faulty, prefix, "child");
    run(&store, way).unwrap();
}

fn spawn(environment: &[(&str, String)]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture"]);
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills the child once it has announced its operation; false if it came to its end before.
fn kill_when_there(mut child: Child) -> bool {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let there = lines.map_while(Result::ok).any(|line| line.ends_with("now"));
    if there {
        child.kill().unwrap(); // SIGKILL
    }
    let status = child.wait().unwrap();
    assert!(there || status.success(), "the child failed by itself");
    there
}

/// SIGKILL before and after every operation; `place` says where case `name` lies, to the child and to us.
fn killed_everywhere(name: &str, way: Way, place: &dyn Fn(&str) -> ChildPlace) {
    let expected = reference(way);
    let mut cases = 0;
    for fault in ["before", "after"] {
        for k in 1.. {
            let case = format!("{fault}-{k}");
            let (mut environment, store) = place(&case);
            environment.extend([(AT, k.to_string()), (FAULT, fault.into()), (PREFIX, case.clone())]);
            environment.extend(way.part_bytes.map(|_| (PARTS, "yes".to_owned())));
            let killed = kill_when_there(spawn(&environment));
            resume(&store, way, &expected, &format!("{name} {case}"));
            cases += 1;
            if !killed {
                assert!(k > 12, "only {k} operations were seen");
                break;
            }
        }
    }
    println!(
        "{name}, {way:?}: SIGKILL before and after each operation, {cases} cases: the same files each time"
    );
}

#[test]
fn sigkill_at_every_operation_in_a_local_folder() {
    let folder = tempfile::tempdir().unwrap();
    killed_everywhere("local folder", PLAIN, &|case| {
        let place = folder.path().join(case);
        std::fs::create_dir(&place).unwrap();
        let store = Store::open(place.to_str().unwrap()).unwrap();
        (vec![(FOLDER, folder.path().display().to_string())], store)
    });
}

#[test]
fn sigkill_at_every_operation_on_s3() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("bucket")).unwrap();
    let server = S3::start(folder.path()).unwrap();
    let builder = server.environment().into_iter().fold(AmazonS3Builder::new(), |builder, (name, value)| {
        builder.with_config(name.to_ascii_lowercase().parse().unwrap(), value)
    });
    let client: Arc<dyn ObjectStore> = Arc::new(builder.with_bucket_name("bucket").build().unwrap());
    killed_everywhere("S3", PLAIN, &|case| {
        let store = Store::from_object_store(client.clone(), Path::from(case), "s3");
        (server.environment().into(), store)
    });
}

/// Also in the middle of an operation: a child that writes 23 shards, killed at a time that differs each time.
#[test]
fn sigkill_at_any_moment_in_a_local_folder() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = |name: &str| {
        let place = folder.path().join(name);
        (place.clone(), Store::open(place.to_str().unwrap()).unwrap())
    };
    let environment =
        |place: &std::path::Path| vec![(FOLDER, place.display().to_string()), (ROWS, "1".to_owned())];
    let (place, store) = fresh("reference");
    assert!(spawn(&environment(&place)).wait().unwrap().success());
    let expected = contents(&store);
    let mut interrupted = 0;
    for case in 0..40u64 {
        let (place, store) = fresh(&format!("case-{case}"));
        let mut child = spawn(&environment(&place));
        std::thread::sleep(Duration::from_micros(1000 + case * 1777 % 30_000));
        let _ = child.kill();
        child.wait().unwrap();
        let before = if place.exists() { contents(&store) } else { Files::new() };
        interrupted += usize::from(!before.contains_key("manifest.json"));
        assert!(spawn(&environment(&place)).wait().unwrap().success(), "case {case}");
        gc(&store, Duration::ZERO, false).unwrap();
        assert_eq!(contents(&store), expected, "case {case}");
        assert!(
            before.iter().all(|(name, bytes)| expected[name] == *bytes),
            "case {case}: half a file was there"
        );
    }
    println!(
        "local folder: SIGKILL at 40 moments, {interrupted} of them before the commit: the same files each time"
    );
}

#[test]
fn four_tasks_of_which_one_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    for case in 0..8u64 {
        let place = folder.path().join(format!("case-{case}"));
        let store = Store::open(place.to_str().unwrap()).unwrap();
        let task = |i: usize| {
            let place = place.display().to_string();
            spawn(&[(FOLDER, place), (ROWS, "1".to_owned()), (TASK, i.to_string())])
        };
        let mut tasks: Vec<Child> = (0..4).map(task).collect();
        let mut victim = tasks.remove((case % 4) as usize);
        std::thread::sleep(Duration::from_micros(2000 + case * 3001 % 20_000));
        let _ = victim.kill();
        victim.wait().unwrap();
        assert!(tasks.into_iter().all(|mut task| task.wait().unwrap().success()));
        assert!(task((case % 4) as usize).wait().unwrap().success());
        gc(&store, Duration::ZERO, false).unwrap();
        let cache = Cache::open(store).unwrap();
        assert_whole(&cache);
        assert_eq!(cache.manifest().shards.len(), SAMPLES, "case {case}");
    }
    println!("four tasks, one of them killed, 8 times: one whole cache each time");
}
