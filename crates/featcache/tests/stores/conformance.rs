//! What every store must do, from single objects to whole caches.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::time::Duration;

use bytes::Bytes;
use featcache::{Cache, Error, PutOutcome, Store};

use crate::checks::Checks;
use crate::fixture::{assert_whole, contents, fill, write, writer};
use crate::places::Place;

/// Reading, writing, replacing, creating, deleting, listing.
pub(crate) fn objects(checks: &mut Checks, store: &Store) {
    let names =
        |list: &[(&str, u64)]| list.iter().map(|(n, size)| ((*n).to_owned(), *size)).collect::<Vec<_>>();
    absent(checks, store, "a.txt");
    checks.same("an empty listing", store.list().unwrap(), []);
    checks.same("no prefixes", store.prefixes().unwrap(), [""; 0]);
    store.delete("a.txt").unwrap();

    store.put("a.txt", "one".into()).unwrap();
    checks.same("what was put", store.get("a.txt").unwrap(), "one");
    checks.same("exists", store.exists("a.txt").unwrap(), true);
    store.put("a.txt", "longer".into()).unwrap();
    checks.same("what was put over it", store.get("a.txt").unwrap(), "longer");
    checks.same("create", store.put_if_absent("b.txt", "b".into()).unwrap(), PutOutcome::Created);
    checks.same("create again", store.put_if_absent("b.txt", "c".into()).unwrap(), PutOutcome::Existed);
    checks.same("what was created", store.get("b.txt").unwrap(), "b");
    checks.same("create none", store.put_if_absent("empty", Bytes::new()).unwrap(), PutOutcome::Created);
    checks.same("nothing", store.get("empty").unwrap(), "");

    store.put("sub/deep/x", "x".into()).unwrap();
    store.join("sub").put("y", "yy".into()).unwrap();
    let expected = names(&[("a.txt", 6), ("b.txt", 1), ("empty", 0)]);
    checks.same("the listing", store.list().unwrap(), expected);
    checks.same("the prefixes", store.prefixes().unwrap(), ["sub"]);
    checks.same("the listing below", store.join("sub").list().unwrap(), names(&[("y", 2)]));
    checks.same("the prefixes below", store.join("sub").prefixes().unwrap(), ["deep"]);
    checks.same("two steps down", store.join("sub").join("deep").get("x").unwrap(), "x");
    // s3s-fs has a folder there and answers 500; Amazon has nothing there.
    if checks.store() != "S3" {
        absent(checks, store, "sub");
    }
    absent(checks, &store.join("none"), "x");
    checks.same("a listing of nothing", store.join("none").list().unwrap(), []);

    store.delete("a.txt").unwrap();
    store.delete("a.txt").unwrap();
    absent(checks, store, "a.txt");
    checks.same(
        "create after deleting",
        store.put_if_absent("a.txt", "2".into()).unwrap(),
        PutOutcome::Created,
    );
    checks.same("no leftovers", store.leftovers().unwrap().len(), 0);
}

fn absent(checks: &mut Checks, store: &Store, name: &str) {
    checks.same("exists", store.exists(name).unwrap(), false);
    let error = store.get(name).unwrap_err();
    checks.holds(&format!("{error:?}"), matches!(error, Error::NotFound { .. }));
}

/// Names as data sets have them.
pub(crate) fn names(checks: &mut Checks, store: &Store) {
    let odd = odd_names();
    for name in odd {
        checks.same(name, store.put_if_absent(name, name.into()).unwrap(), PutOutcome::Created);
    }
    for name in odd {
        checks.same(name, store.get(name).unwrap(), name);
        checks.same(name, store.put_if_absent(name, "".into()).unwrap(), PutOutcome::Existed);
    }
    let listed: Vec<String> = store.list().unwrap().into_iter().map(|(name, _)| name).collect();
    checks.same("the listing", listed, odd);
    for name in odd {
        store.delete(name).unwrap();
        checks.same(name, store.exists(name).unwrap(), false);
    }
}

/// The same names as prefixes: what [`Store::join`] is given is what [`Store::prefixes`] lists.
pub(crate) fn prefixes(checks: &mut Checks, store: &Store) {
    for name in odd_names() {
        store.join(name).put("inside", name.into()).unwrap();
    }
    checks.same("the prefixes", store.prefixes().unwrap(), odd_names());
    for name in store.prefixes().unwrap() {
        checks.same(&name, store.join(&name).get("inside").unwrap(), name.as_str());
    }
}

fn odd_names() -> [&'static str; 11] {
    let mut odd =
        ["a b.txt", "a+b", "a#b", "50%", "%20", "été", "画像.png", "q?x=1&y", "(1)[2]{3}", "it's", "x=y;z,~"];
    odd.sort_unstable();
    odd
}

/// Of eight that create at the same moment, one does, and its bytes are there.
pub(crate) fn races(checks: &mut Checks, store: &Store) {
    for round in 0..8 {
        let (name, start) = (format!("{round}.json"), Barrier::new(8));
        let race = |racer: u8| {
            start.wait();
            store.put_if_absent(&name, vec![racer; 10_000].into()).unwrap() == PutOutcome::Created
        };
        let won: Vec<bool> = std::thread::scope(|scope| {
            let racers = [0, 1, 2, 3, 4, 5, 6, 7].map(|racer| scope.spawn(move || race(racer)));
            racers.map(|racer| racer.join().unwrap()).to_vec()
        });
        checks.same("winners", won.iter().filter(|won| **won).count(), 1);
        let winner = won.iter().position(|won| *won).unwrap();
        checks.holds("the winner's bytes", store.get(&name).unwrap() == vec![winner as u8; 10_000]);
    }
}

/// 40 MB, no two pages of which are alike.
pub(crate) fn large(checks: &mut Checks, store: &Store) {
    let bytes: Bytes = (0..10_000_000_u32).flat_map(|i| i.wrapping_mul(0x9E37_79B1).to_le_bytes()).collect();
    checks.same("create", store.put_if_absent("large", bytes.clone()).unwrap(), PutOutcome::Created);
    checks.holds("40 MB", store.get("large").unwrap() == bytes);
    checks.same("create again", store.put_if_absent("large", bytes.slice(1..)).unwrap(), PutOutcome::Existed);
    store.put("large", bytes.slice(4..)).unwrap();
    checks.holds("40 MB replaced", store.get("large").unwrap() == bytes.slice(4..));
    checks.same("the listing", store.list().unwrap(), [("large".to_owned(), 39_999_996)]);
}

/// More objects than a page of a listing holds on S3 and at Google's.
pub(crate) fn many(checks: &mut Checks, store: &Store) {
    let names: Vec<String> = (0..1100).map(|index| format!("shard-{index:05}.parquet")).collect();
    std::thread::scope(|scope| {
        for some in names.chunks(140) {
            scope.spawn(move || some.iter().for_each(|name| store.put(name, "12345".into()).unwrap()));
        }
    });
    let expected: Vec<(String, u64)> = names.into_iter().map(|name| (name, 5)).collect();
    checks.same("the listing", store.list().unwrap(), expected);
}

/// A cache has the bytes that it has on a local disk, however many write it.
pub(crate) fn caches(checks: &mut Checks, store: &Store) {
    let expected = on_disk();
    let one = store.join("one");
    checks.same("shards written", fill(&one).unwrap(), 6);
    checks.same("the cache", contents(&one), expected.clone());
    assert_whole(&Cache::open(one.clone()).unwrap());
    checks.same("shards written again", fill(&one).unwrap(), 0);
    let shared = store.join("shared");
    std::thread::scope(|scope| {
        let writers = [(); 4].map(|()| scope.spawn(|| fill(&shared).unwrap()));
        for writer in writers {
            writer.join().unwrap();
        }
    });
    checks.same("the cache of four writers", contents(&shared), expected);
    assert_whole(&Cache::open(shared).unwrap());
    let found = featcache::find(store).unwrap();
    checks.same("caches found", found.len(), 2);
}

/// A server that goes away for a while, between two shards, costs time and nothing else.
pub(crate) fn restarts(checks: &mut Checks, place: &mut Place) {
    if !place.restarts() {
        return;
    }
    let expected = on_disk();
    let store = place.store("restarts");
    let first = writer(&store);
    write(&first, &first.missing()[0]).unwrap();
    place.stop();
    std::thread::scope(|scope| {
        let rest = scope.spawn(|| fill(&store).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        place.start();
        checks.same("shards written", rest.join().unwrap(), 5);
    });
    checks.same("the cache", contents(&store), expected.clone());
    assert_whole(&Cache::open(store).unwrap());
}

/// What a fill leaves in a folder.
pub(crate) fn on_disk() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    fill(&Store::open(folder.path().to_str().unwrap()).unwrap()).unwrap();
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    std::fs::read_dir(folder.path()).unwrap().map(read).collect()
}
