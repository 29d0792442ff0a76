//! Damage of every kind is found by `verify`, refused by readers, and mended by a writer that resumes.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod fixture;

use bytes::Bytes;
use featcache::{Cache, Damage, DamageKind, Error, ReadOptions, Store};
use fixture::*;

const SHARD: &str = "shard-00002.parquet";

fn whole(name: &str) -> (Store, Cache) {
    let store = Store::open(&format!("memory://{name}")).unwrap();
    fill(&store).unwrap();
    (store.clone(), Cache::open(store).unwrap())
}

fn damages(cache: &Cache) -> Vec<Damage> {
    cache.verify(&mut |_| {}).unwrap()
}

fn flipped(bytes: &Bytes, position: usize, bit: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[position] ^= 1 << bit;
    bytes.into()
}

#[test]
fn a_whole_cache_has_no_damage_and_reports_progress() {
    let (_, cache) = whole("sound");
    let mut seen = Vec::new();
    assert_eq!(cache.verify(&mut |progress| seen.push(progress)).unwrap(), []);
    assert_eq!(seen.iter().map(|progress| progress.shards).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let bytes: u64 = cache.manifest().shards.iter().map(|shard| shard.bytes).sum();
    assert_eq!((seen[5].bytes, seen[5].total_shards), (bytes, 6));
}

#[test]
fn missing_truncated_and_flipped_shards_are_found_and_refused() {
    let (store, cache) = whole("damage");
    let good = store.get(SHARD).unwrap();
    let expect = |kind: DamageKind| {
        let found = damages(&cache);
        assert_eq!((found.len(), found[0].kind, found[0].shard), (1, kind, Some(2)), "{found:?}");
        let error = cache.read_shard(2, &ReadOptions::default()).unwrap_err();
        assert!(matches!(&error, Error::Damaged { kind: refused, .. } if *refused == kind), "{error}");
        assert!(error.is_integrity() && error.to_string().contains(SHARD));
        cache.read_shard(1, &ReadOptions::default()).unwrap();
    };
    store.delete(SHARD).unwrap();
    expect(DamageKind::Missing);
    for length in [0, 4, good.len() / 2, good.len() - 1] {
        store.put(SHARD, good.slice(..length)).unwrap();
        expect(DamageKind::Truncated);
    }
    for position in (0..good.len()).step_by(97) {
        store.put(SHARD, flipped(&good, position, position % 8)).unwrap();
        expect(DamageKind::Checksum);
    }
    store.put(SHARD, good).unwrap();
    assert_whole(&cache);
}

#[test]
fn a_damaged_manifest_is_no_manifest() {
    let (store, _) = whole("manifest");
    let good = store.get("manifest.json").unwrap();
    for position in (0..good.len()).step_by(7) {
        store.put("manifest.json", flipped(&good, position, position % 7)).unwrap();
        let error = Cache::open(store.clone()).unwrap_err();
        assert!(error.is_integrity(), "byte {position}: {error}");
    }
    for length in [0, 1, good.len() - 2] {
        store.put("manifest.json", good.slice(..length)).unwrap();
        assert!(matches!(Cache::open(store.clone()).unwrap_err(), Error::Corrupt { .. }));
    }
}

#[test]
fn surplus_files_and_foreign_plans_are_listed() {
    let (store, cache) = whole("surplus");
    store.put("shard-00006.parquet", "x".into()).unwrap();
    store.put("notes.txt", "mine".into()).unwrap();
    let found: Vec<_> = damages(&cache).into_iter().map(|damage| (damage.file, damage.kind)).collect();
    let orphan = |file: &str| (file.to_owned(), DamageKind::Orphan);
    assert_eq!(found, [orphan("notes.txt"), orphan("shard-00006.parquet")]);
    let plan = store.get("plan.json").unwrap();
    store.put("plan.json", flipped(&plan, plan.len() / 2, 0)).unwrap();
    assert_eq!((damages(&cache)[0].kind, damages(&cache)[0].file.as_str()), (DamageKind::Plan, "plan.json"));
}

/// Shards of another cache, or in another's place, are whole but not the planned ones.
#[test]
fn swapped_shards_are_found_even_without_checksums() {
    let (store, cache) = whole("swapped");
    let other = store.get("shard-00001.parquet").unwrap();
    store.put("shard-00000.parquet", other).unwrap();
    let unchecked = &ReadOptions { verify: false, ..ReadOptions::default() };
    match cache.read_shard(0, unchecked).unwrap_err() {
        // Shard 1 lacks the unreadable image, so that its size differs; shards 2 and 3 have the same shape.
        Error::Damaged { kind: DamageKind::Truncated | DamageKind::Plan, .. } => {}
        other => panic!("{other}"),
    }
    let other = store.get("shard-00003.parquet").unwrap();
    store.put("shard-00004.parquet", other).unwrap();
    let error = cache.read_shard(4, unchecked).unwrap_err();
    assert!(error.to_string().contains("its footer does not match its checksum"), "{error}");
}

/// Before the commit no checksum is recorded anywhere but in the shard itself.
#[test]
fn a_resumed_writer_replaces_damaged_shards() {
    let (reference, _) = whole("mend-reference");
    let expected = contents(&reference);
    let good = reference.get(SHARD).unwrap();
    let other = reference.get("shard-00003.parquet").unwrap();
    let broken = [
        good.slice(..0),
        good.slice(..good.len() - 9),
        Bytes::from(vec![0; good.len()]),
        flipped(&good, good.len() / 3, 4),
        flipped(&good, good.len() - 300, 1),
        other,
    ];
    for (case, broken) in broken.into_iter().enumerate() {
        let store = Store::open(&format!("memory://mend-{case}")).unwrap();
        let first = writer(&store);
        for planned in first.missing() {
            write(&first, &planned).unwrap();
        }
        store.put(SHARD, broken).unwrap();
        assert_eq!(fill(&store).unwrap(), 1, "case {case}");
        assert_eq!(contents(&store), expected, "case {case}");
    }
}
