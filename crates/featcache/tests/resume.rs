//! Exactly once: after interruptions, and with any number of writers, the same files come to be (`kill/` stops them at every operation).

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod fixture;

use std::time::{Duration, SystemTime};

use featcache::{Cache, Dtype, Error, GoldenActivation, Opened, Store, Writer, WriterOptions};
use fixture::*;

/// What an uninterrupted run leaves.
fn reference(name: &str) -> std::collections::BTreeMap<String, Vec<u8>> {
    let store = Store::open(&format!("memory://reference-{name}")).unwrap();
    fill(&store).unwrap();
    contents(&store)
}

#[test]
fn a_server_that_goes_away_for_a_while_costs_nothing_but_time() {
    let expected = reference("away");
    let mut bucket = Bucket::new();
    let store = bucket.store("away");
    let first = writer(&store);
    write(&first, &first.missing()[0]).unwrap();
    bucket.stop();
    std::thread::scope(|scope| {
        let rest = scope.spawn(|| fill(&store).unwrap());
        std::thread::sleep(Duration::from_millis(400));
        bucket.start();
        assert_eq!(rest.join().unwrap(), 5);
    });
    assert_eq!(contents(&store), expected);
    assert_whole(&Cache::open(store).unwrap());
}

#[test]
fn a_local_writer_dropped_after_each_shard_leaves_no_trace() {
    let expected = reference("dropped");
    for written in 0..=6 {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let first = writer(&store);
        for planned in first.missing().iter().take(written) {
            write(&first, planned).unwrap();
        }
        drop(first);
        // What a kill in the middle of a write leaves behind.
        std::fs::write(folder.path().join(format!("shard-{written:05}.parquet#1")), "half a sh").unwrap();
        assert_eq!(fill(&store).unwrap(), 6 - written);
        assert_eq!(contents(&store), expected);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), expected.len(), "leftovers remain");
    }
}

#[test]
fn only_abandoned_leftovers_are_swept_before_the_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    for (name, hours) in [("shard-00001.parquet#1", 0), ("shard-00002.parquet#7", 2), ("notes#1", 2)] {
        let file = std::fs::File::create(folder.path().join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600 * hours)).unwrap();
    }
    writer(&store);
    let left: Vec<String> = store.leftovers().unwrap().into_iter().map(|leftover| leftover.name).collect();
    assert_eq!(left, ["notes#1", "shard-00001.parquet#1"]);
}

#[test]
fn unfinished_caches_say_what_is_missing() {
    let store = Store::open("memory://unfinished").unwrap();
    let writer = writer(&store);
    for index in [0, 3] {
        write(&writer, &writer.missing()[index]).unwrap();
    }
    let expect = |error: Error| match error {
        Error::Incomplete { total, missing, .. } => assert_eq!((total, missing), (Some(6), vec![1, 2, 3, 5])),
        other => panic!("{other}"),
    };
    expect(writer.commit(golden()).unwrap_err());
    let error = Cache::open(store.clone()).unwrap_err();
    assert!(error.to_string().contains("4 of 6 shards are missing (1-3, 5)"), "{error}");
    assert!(error.is_integrity());
    expect(error);
    for planned in writer.missing() {
        write(&writer, &planned).unwrap();
    }
    let error = Cache::open(store).unwrap_err().to_string();
    assert!(error.contains("only the commit is missing"), "{error}");
}

#[test]
fn two_writers_at_once_make_one_cache() {
    let expected = reference("two");
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::new();
    let local = Store::open(folder.path().to_str().unwrap()).unwrap();
    let stores = [local, Store::open("memory://two-writers").unwrap(), bucket.store("two-writers")];
    for (round, store) in stores.into_iter().enumerate() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| fill(&store).unwrap());
            }
        });
        assert_eq!(contents(&store), expected, "round {round}");
        assert_whole(&Cache::open(store).unwrap());
    }
}

#[test]
fn tasks_share_the_shards_and_anyone_commits() {
    let expected = reference("tasks");
    let store = Store::open("memory://tasks").unwrap();
    let writers: Vec<Writer> = (0..3).map(|_| writer(&store)).collect();
    for (task, writer) in writers.iter().enumerate() {
        for planned in writer.missing().iter().filter(|planned| planned.index % 3 == task) {
            write(writer, planned).unwrap();
        }
    }
    assert_whole(&writers[1].commit(golden()).unwrap());
    assert_whole(&writers[0].commit(golden()).unwrap());
    assert_eq!(contents(&store), expected);
}

#[test]
fn another_shard_size_adopts_the_plan() {
    let expected = reference("adopts");
    let store = Store::open("memory://adopts").unwrap();
    write(&writer(&store), &writer(&store).missing()[2]).unwrap();
    let options = WriterOptions { shard_rows: Some(9), ..options() };
    let Opened::Resume(second) =
        Writer::open(store.clone(), key(Dtype::F16), layout(), SAMPLES, options).unwrap()
    else {
        panic!("not complete");
    };
    assert_eq!((second.total_shards(), second.missing().len()), (6, 5));
    for planned in second.missing() {
        write(&second, &planned).unwrap();
    }
    second.commit(golden()).unwrap();
    assert_eq!(contents(&store), expected);
}

#[test]
fn another_key_is_refused_with_its_differences() {
    for (name, complete) in [("half", false), ("whole", true)] {
        let store = Store::open(&format!("memory://other-key-{name}")).unwrap();
        if complete {
            fill(&store).map(|_| ()).unwrap()
        } else {
            drop(writer(&store))
        }
        let mut other = key(Dtype::F32);
        other.layer = 3;
        let ask = |options| Writer::open(store.clone(), other.clone(), layout(), SAMPLES, options);
        let error = ask(options()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("layer: asked for 3, found -1"), "{text}");
        assert!(text.contains("dtype: asked for \"f32\", found \"f16\""), "{text}");
        let Error::KeyMismatch { differences, .. } = &error else { panic!("{error}") };
        assert_eq!(differences.len(), 2);
        assert!(error.is_integrity());
        let fewer =
            Writer::open(store.clone(), key(Dtype::F16), layout(), SAMPLES - 1, options()).unwrap_err();
        assert!(matches!(fewer, Error::PlanMismatch { what: "sample count", .. }), "{fewer}");
        // Overwriting takes only what is ours.
        store.put("notes.txt", "mine".into()).unwrap();
        let Opened::Resume(anew) = ask(WriterOptions { overwrite: true, ..options() }).unwrap() else {
            panic!("nothing is left")
        };
        assert_eq!(anew.missing().len(), 6);
        assert_eq!(contents(&store).into_keys().collect::<Vec<_>>(), ["notes.txt", "plan.json"]);
    }
}

#[test]
fn another_backbone_is_refused() {
    let store = Store::open("memory://golden").unwrap();
    let mut off = golden();
    off.tokens[1] += 0.02;
    let with = |golden: GoldenActivation| {
        let options = WriterOptions { golden: Some(golden), ..options() };
        Writer::open(store.clone(), key(Dtype::F16), layout(), SAMPLES, options)
    };
    let writer = writer(&store);
    assert!(matches!(with(off.clone()).unwrap_err(), Error::GoldenMismatch { .. }));
    assert!(writer.check_golden(&off).unwrap_err().is_integrity());
    let mut close = golden();
    close.tokens[1] += 0.002;
    writer.check_golden(&close).unwrap();
    for planned in writer.missing() {
        write(&writer, &planned).unwrap();
    }
    assert!(writer.commit(off.clone()).is_err());
    assert_eq!(writer.commit(close).unwrap().manifest().golden, golden(), "the first one is recorded");
    assert!(matches!(with(off).unwrap_err(), Error::GoldenMismatch { .. }));
    let Error::GoldenMismatch { detail, .. } =
        with(GoldenActivation { tokens: vec![1.0], shape: [1, 1] }).unwrap_err()
    else {
        panic!()
    };
    assert!(detail.contains("shape"), "{detail}");
}

/// Opens with a look for damage, writes what is missing, commits; returns the shards that were written.
fn mend(store: &Store) -> featcache::Result<Vec<usize>> {
    let options = WriterOptions { repair: true, ..options() };
    let opened = Writer::open(store.clone(), key(Dtype::F16), layout(), SAMPLES, options)?;
    let Opened::Resume(writer) = opened else { return Ok(Vec::new()) };
    let missing = writer.missing();
    missing.iter().try_for_each(|planned| write(&writer, planned))?;
    writer.commit(golden())?;
    Ok(missing.into_iter().map(|planned| planned.index).collect())
}

fn flip(store: &Store, name: &str) {
    let mut bytes = store.get(name).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 8;
    store.put(name, bytes.into()).unwrap();
}

#[test]
fn only_what_is_broken_is_computed_again() {
    let expected = reference("mended");
    let cut = |store: &Store, name: &str| {
        let bytes = store.get(name).unwrap();
        store.put(name, bytes.slice(..bytes.len() - 9)).unwrap();
    };
    type Harm<'a> = &'a dyn Fn(&Store);
    let cases: [(&str, Harm<'_>, &[usize]); 8] = [
        ("nothing", &|_| (), &[]),
        ("flipped", &|store| flip(store, "shard-00002.parquet"), &[2]),
        ("missing", &|store| store.delete("shard-00004.parquet").unwrap(), &[4]),
        ("cut", &|store| cut(store, "shard-00001.parquet"), &[1]),
        ("manifest", &|store| flip(store, "manifest.json"), &[]),
        ("plan", &|store| flip(store, "plan.json"), &[]),
        ("no plan", &|store| store.delete("plan.json").unwrap(), &[]),
        (
            "all at once",
            &|store| {
                flip(store, "manifest.json");
                flip(store, "shard-00000.parquet");
                cut(store, "shard-00005.parquet");
            },
            &[0, 5],
        ),
    ];
    let bucket = Bucket::new();
    for (name, harm, broken) in cases {
        for store in [Store::open(&format!("memory://mended-{name}")).unwrap(), bucket.store(name)] {
            fill(&store).unwrap();
            harm(&store);
            assert_eq!(mend(&store).unwrap(), broken, "{name}");
            assert_eq!(contents(&store), expected, "{name}");
            assert_whole(&Cache::open(store.clone()).unwrap());
            assert!(mend(&store).unwrap().is_empty(), "{name}: there is nothing left to mend");
        }
    }
}

#[test]
fn garbage_is_what_belongs_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    fill(&store).unwrap();
    let expected = contents(&store);
    for name in ["shard-00009.parquet", "shard-00001.parquet#1", "notes.txt", "notes#1"] {
        std::fs::write(folder.path().join(name), "12345").unwrap();
    }
    let garbage = [("shard-00009.parquet".to_owned(), 5), ("shard-00001.parquet#1".to_owned(), 5)];
    assert_eq!(featcache::gc(&store, Duration::ZERO, true).unwrap(), garbage);
    let hour = Duration::from_secs(3600);
    assert_eq!(featcache::gc(&store, hour, true).unwrap(), garbage[..1], "somebody may be writing the other");
    assert_eq!(featcache::gc(&store, Duration::ZERO, false).unwrap(), garbage);
    assert!(featcache::gc(&store, Duration::ZERO, false).unwrap().is_empty());
    let mut left = contents(&store);
    assert_eq!(left.remove("notes.txt").unwrap(), b"12345");
    assert_eq!(left, expected);
    assert!(folder.path().join("notes#1").exists());
    // An unfinished cache may still want every shard.
    store.delete("manifest.json").unwrap();
    store.put("shard-00009.parquet", "x".into()).unwrap();
    assert!(featcache::gc(&store, Duration::ZERO, false).unwrap().is_empty());
}
