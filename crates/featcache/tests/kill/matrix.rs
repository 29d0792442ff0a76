//! Faults at every operation, of every kind of work, on memory, a folder and S3.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use featcache::{Cache, Form, Opened, Store};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;

use crate::faulty::{Fault, Faulty, Script, Then};
use crate::fixture::{Bucket, write};
use crate::work::{Files, Job, SHARDS, Work, is_reference, reference, whole};

/// Small enough for several parts of a shard, and of the manifest.
const PART_BYTES: usize = 3000;
const EVERY: [(Fault, Then); 6] = [
    (Fault::Before, Then::Dies),
    (Fault::After, Then::Dies),
    (Fault::Half, Then::Dies),
    (Fault::Before, Then::Goes),
    (Fault::After, Then::Goes),
    (Fault::Half, Then::Goes),
];

/// What is there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Nothing,
    /// Some of the shards.
    Shards(usize),
    /// All of the cache, with two flipped bits.
    Damaged,
}

/// Where one case happens.
struct Place {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    _keep: Option<tempfile::TempDir>,
}

impl Place {
    fn memory() -> Self {
        Self { inner: Arc::new(InMemory::new()), prefix: Path::default(), _keep: None }
    }

    fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inner = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        Self { inner, prefix: Path::default(), _keep: Some(folder) }
    }

    fn store(&self, inner: Arc<dyn ObjectStore>, parts: bool) -> Store {
        let store = Store::from_object_store(inner, self.prefix.clone(), "place");
        if parts { store.with_part_bytes(PART_BYTES) } else { store }
    }
}

/// One column of the matrix.
struct Column {
    form: Form,
    work: Work,
    start: Start,
    parts: bool,
}

/// What was seen.
#[derive(Default)]
struct Tally {
    cases: usize,
    operations: BTreeMap<&'static str, usize>,
    /// Plain restarts that refused a damaged plan or manifest, and were told to repair.
    refused: usize,
    /// Shards computed again, and cases in which one was.
    again: usize,
}

impl Tally {
    fn print(&self, name: &str, begun: Instant) {
        let operations: Vec<String> = self.operations.iter().map(|(name, n)| format!("{n} {name}")).collect();
        println!(
            "{name}: {} cases ({}): the same files each time; one shard computed again in {} of them, \
             never more; {} restarts refused a cut plan or manifest until told to repair; {:.1} s",
            self.cases,
            operations.join(", "),
            self.again,
            self.refused,
            begun.elapsed().as_secs_f32()
        );
    }
}

fn prepare(store: &Store, column: &Column, expected: &Files) -> usize {
    match column.start {
        Start::Nothing => SHARDS,
        Start::Shards(count) => {
            let Opened::Resume(writer) = Job::new(column.form, Work::Fill).open(store, false).unwrap() else {
                panic!("fresh")
            };
            writer.missing()[..count].iter().for_each(|planned| write(&writer, planned).unwrap());
            SHARDS - count
        }
        Start::Damaged => {
            for (index, (name, bytes)) in expected.iter().enumerate() {
                let mut bytes = bytes.clone();
                if name.starts_with("shard") && [3, 4].contains(&index) {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 4;
                }
                store.put(name, bytes.into()).unwrap();
            }
            2
        }
    }
}

impl Column {
    /// Strikes at each operation until there are no more.
    fn run(
        &self,
        (fault, then): (Fault, Then),
        fresh: &mut dyn FnMut() -> Place,
        expected: &Files,
        tally: &mut Tally,
    ) {
        for k in 1.. {
            let place = fresh();
            let survivor = place.store(place.inner.clone(), self.parts);
            let missing = prepare(&place.store(place.inner.clone(), false), self, expected);
            let script = Arc::new(Script::new(k, fault, then));
            let faulty = Arc::new(Faulty { inner: place.inner.clone(), script: script.clone() });
            let job = Job::new(self.form, self.work.clone());
            let first = job.run(&place.store(faulty, self.parts));
            if !script.struck() {
                first.unwrap();
                break;
            }
            let operation = script.operations()[k - 1];
            let case = format!(
                "{} {:?} parts {}, {fault:?} {then:?} at {k} ({operation})",
                self.form, self.start, self.parts
            );
            self.restart(&job, &survivor, fault, (expected, missing), &case, tally);
            is_reference(&survivor, expected, &case);
            *tally.operations.entry(operation).or_default() += 1;
            tally.cases += 1;
        }
    }

    fn restart(
        &self,
        job: &Job,
        store: &Store,
        fault: Fault,
        (expected, missing): (&Files, usize),
        case: &str,
        tally: &mut Tally,
    ) {
        let first = job.computed();
        let already = whole(store, expected);
        match job.run(store) {
            Ok(()) => {}
            Err(error) => {
                assert!(error.is_integrity() && fault == Fault::Half, "{case}: {error}");
                tally.refused += 1;
                job.mending().run(store).unwrap();
            }
        }
        let second = job.computed();
        assert_eq!(second, SHARDS - already, "{case}: a whole shard was computed again");
        assert!(first + second <= missing + 1, "{case}: {first} and {second} shards of {missing}");
        tally.again += first + second - missing.min(first + second);
    }
}

fn columns(form: Form, cache: &Cache) -> Vec<Column> {
    let column = |work, start, parts| Column { form, work, start, parts };
    vec![
        column(Work::Fill, Start::Nothing, false),
        column(Work::Fill, Start::Nothing, true),
        column(Work::Fill, Start::Shards(4), false),
        column(Work::Fill, Start::Shards(SHARDS), false),
        column(Work::Mend, Start::Damaged, false),
        column(Work::Mend, Start::Damaged, true),
        column(Work::Convert(cache.clone()), Start::Nothing, false),
    ]
}

#[test]
fn memory_at_every_operation_in_every_form() {
    let (begun, mut tally) = (Instant::now(), Tally::default());
    let references = Form::ALL.map(|form| (form, reference(form)));
    for (i, (form, (_, expected))) in references.iter().enumerate() {
        let source = &references[(i + 1) % references.len()].1.0;
        for column in columns(*form, source) {
            for fault in EVERY {
                column.run(fault, &mut Place::memory, expected, &mut tally);
            }
        }
    }
    tally.print("memory", begun);
}

#[test]
fn a_folder_at_every_operation() {
    let (begun, mut tally) = (Instant::now(), Tally::default());
    let (cache, expected) = reference(Form::Binary);
    for column in columns(Form::Binary, &cache) {
        for fault in EVERY.into_iter().filter(|fault| *fault != (Fault::Before, Then::Goes)) {
            column.run(fault, &mut Place::folder, &expected, &mut tally);
        }
    }
    tally.print("local folder", begun);
}

#[test]
fn s3_at_every_operation() {
    let (begun, mut tally) = (Instant::now(), Tally::default());
    let (bucket, (cache, expected)) = (Bucket::new(), reference(Form::Binary));
    let client = bucket.client();
    let mut case = 0;
    let mut fresh = || {
        case += 1;
        Place { inner: client.clone(), prefix: Path::from(format!("case-{case}")), _keep: None }
    };
    // Its parts have at least 5 MiB.
    for column in columns(Form::Binary, &cache).into_iter().filter(|column| !column.parts) {
        for fault in &EVERY[..3] {
            column.run(*fault, &mut fresh, &expected, &mut tally);
        }
    }
    tally.print("S3", begun);
}

/// A store that says it has a part, and has not: `verify` says which shard it is, and repairing computes that one.
#[test]
fn a_part_that_the_store_loses_is_found_and_mended() {
    let (mut cases, mut cut) = (0, 0);
    for form in Form::ALL {
        let (_, expected) = reference(form);
        for k in 1.. {
            let place = Place::memory();
            let script = Arc::new(Script::new(k, Fault::LostPart, Then::Goes));
            let faulty = Arc::new(Faulty { inner: place.inner.clone(), script: script.clone() });
            let job = Job::new(form, Work::Fill);
            let first = job.run(&place.store(faulty, true));
            if !script.struck() {
                break;
            }
            if script.operations()[k - 1] != "put part" {
                continue;
            }
            let store = place.store(place.inner.clone(), true);
            let case = format!("{form}: part {k} lost");
            match Cache::open(store.clone()) {
                Ok(cache) => assert_eq!(cache.verify(&mut |_| {}).unwrap().len(), 1, "{case}"),
                Err(error) => {
                    assert!(first.is_err() && error.is_integrity(), "{case}: {error}");
                    cut += 1;
                }
            }
            job.computed();
            job.mending().run(&store).unwrap();
            assert!(job.computed() <= 1, "{case}");
            is_reference(&store, &expected, &case);
            cases += 1;
        }
    }
    println!(
        "memory: {cases} parts lost without a word: found and mended each time, {cut} of them of the manifest"
    );
}
