//! What is written is read back, on every store and in every dtype; what must not be written is refused.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod fixture;

use featcache::{
    Cache, Dtype, Error, Layout, Opened, PutOutcome, ReadOptions, Row, Store, Tombstone, Writer,
    WriterOptions, find,
};
use fixture::*;
use ndarray::Array2;

fn folder() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("a #1 cache%20").to_str().unwrap()).unwrap();
    (folder, store)
}

/// One image per shard, tokens only.
fn bare(name: &str, dtype: Dtype, samples: usize) -> (Store, Writer) {
    let store = Store::open(&format!("memory://{name}")).unwrap();
    let layout = Layout { has_cls: false, has_label: false, ..layout() };
    let options = WriterOptions { shard_rows: Some(1), ..WriterOptions::default() };
    match Writer::open(store.clone(), key(dtype), layout, samples, options).unwrap() {
        Opened::Resume(writer) => (store, writer),
        Opened::Complete(_) => panic!("fresh store"),
    }
}

fn row(tokens: Array2<f32>) -> Row {
    Row { image_id: "street.png".into(), tokens, ..Row::default() }
}

#[test]
fn memory_and_disk_hold_the_same_bytes() {
    let (_folder, local) = folder();
    let memory = Store::open("memory://same-bytes/deep/er").unwrap();
    for store in [&local, &memory] {
        assert_eq!(fill(store).unwrap(), 6);
        assert_whole(&Cache::open(store.clone()).unwrap());
        assert!(matches!(open(store).unwrap(), Opened::Complete(_)));
    }
    assert_eq!(contents(&local), contents(&memory));
    assert_eq!(contents(&local).len(), 8);
    // Another handle on the same host sees the same store.
    Cache::open(Store::open("memory://same-bytes/").unwrap().join("deep/er")).unwrap();
}

#[test]
fn every_dtype_round_trips() {
    let tokens = Array2::from_shape_fn((6, 5), |(t, d)| (t as f32 - 2.7) * 1.37_f32.powi(d as i32));
    for (name, dtype, relative) in
        [("f32", Dtype::F32, 0.0), ("f16", Dtype::F16, 1. / 2048.), ("bf16", Dtype::Bf16, 1. / 256.)]
    {
        let (store, writer) = bare(&format!("dtype-{name}"), dtype, 1);
        // A view that is not contiguous, as it comes from a permuted tensor.
        let turned = tokens.t().as_standard_layout().into_owned().reversed_axes();
        writer.write_shard(&writer.missing()[0], vec![row(turned)], vec![]).unwrap();
        writer.commit(golden()).unwrap();
        let shard = Cache::open(store).unwrap().read_shard(0, &ReadOptions::default()).unwrap();
        assert_eq!(shard.token_bytes(0).len(), 30 * dtype.size_bytes());
        assert_eq!((shard.cls(0), shard.label(0)), (None, None));
        let read = shard.tokens_f32(0);
        for (read, wrote) in read.iter().zip(&tokens) {
            assert!((read - wrote).abs() <= relative * wrote.abs(), "{name}: {read} {wrote}");
        }
        assert!(dtype == Dtype::F32 || read != tokens, "{name} is stored in full precision");
    }
}

#[test]
fn nan_and_overflow_are_refused_naming_the_image() {
    let (store, writer) = bare("unfit", Dtype::F16, 1);
    let planned = writer.missing()[0].clone();
    let mut tokens = Array2::zeros((6, 5));
    for (value, overflow) in [(f32::NAN, false), (f32::NEG_INFINITY, false), (1e6, true)] {
        tokens[[3, 4]] = value;
        let error = writer.write_shard(&planned, vec![row(tokens.clone())], vec![]).unwrap_err();
        assert_eq!(matches!(error, Error::Overflow { .. }), overflow);
        assert_eq!(matches!(error, Error::NonFinite { .. }), !overflow);
        assert!(error.to_string().contains("tokens of image street.png"), "{error}");
    }
    assert_eq!(store.list().unwrap().len(), 1, "only the plan");
    let (_, writer) = bare("fits", Dtype::Bf16, 1);
    writer.write_shard(&planned, vec![row(tokens)], vec![]).unwrap();
}

#[test]
fn a_shard_may_hold_tombstones_only() {
    let (store, writer) = bare("tombstones", Dtype::F32, 2);
    let stone = Tombstone { image_id: "broken.jpg".into(), reason: "it says \"no\"".into() };
    writer.write_shard(&writer.missing()[0], vec![], vec![stone.clone()]).unwrap();
    writer.write_shard(&writer.missing()[0], vec![row(Array2::zeros((6, 5)))], vec![]).unwrap();
    let cache = writer.commit(golden()).unwrap();
    assert_eq!((cache.rows(), cache.manifest().samples), (1, 2));
    assert_eq!(cache.manifest().skipped, [stone]);
    assert!(cache.read_shard(0, &ReadOptions::default()).unwrap().is_empty());
    assert_eq!(Cache::open(store).unwrap().verify(&mut |_| {}).unwrap(), []);
}

#[test]
fn rows_that_are_not_planned_are_refused() {
    let store = Store::open("memory://unplanned").unwrap();
    let writer = writer(&store);
    let planned = writer.missing()[0].clone();
    let (mut rows, skipped) = shard_of(&planned);
    rows.pop();
    let error = writer.write_shard(&planned, rows.clone(), skipped.clone()).unwrap_err();
    assert!(matches!(error, Error::InvalidRows { shard: 0, .. }), "{error}");
    let mut elsewhere = planned;
    elsewhere.samples.end += 1;
    assert!(writer.write_shard(&elsewhere, rows, skipped).is_err());
}

#[test]
fn requests_that_cannot_be() {
    let store = Store::open("memory://impossible").unwrap();
    let ask = |samples: usize, options: WriterOptions| {
        Writer::open(store.clone(), key(Dtype::F16), layout(), samples, options).unwrap_err()
    };
    assert!(matches!(ask(0, options()), Error::Empty));
    assert!(ask(3, WriterOptions { shard_rows: Some(0), ..options() }).is_usage());
    assert!(matches!(Cache::open(store.clone()).unwrap_err(), Error::NotFound { .. }));
    assert!(store.list().unwrap().is_empty(), "nothing was begun");
}

#[test]
fn a_file_in_the_way_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("cache")] {
        let store = Store::open(path.to_str().unwrap()).unwrap();
        let error = open(&store).unwrap_err();
        assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("notes.txt"), "{error}");
        assert!(!error.is_integrity());
    }
}

#[test]
fn stores_keep_their_promises() {
    let (_folder, local) = folder();
    let s3 = Bucket::new();
    for store in [local, Store::open("memory://promises/x").unwrap(), s3.store("promises/x")] {
        assert!(matches!(store.get("a").unwrap_err(), Error::NotFound { .. }));
        assert!(store.list().unwrap().is_empty() && !store.exists("a").unwrap());
        assert_eq!(store.put_if_absent("a", "one".into()).unwrap(), PutOutcome::Created);
        assert_eq!(store.put_if_absent("a", "two".into()).unwrap(), PutOutcome::Existed);
        assert_eq!(store.get("a").unwrap(), "one");
        store.put("a", "three".into()).unwrap();
        store.join("b").put("c", "x".into()).unwrap();
        assert_eq!(store.get("b/c").unwrap(), "x");
        assert_eq!(store.list().unwrap(), [("a".to_owned(), 5)]);
        assert_eq!(store.prefixes().unwrap(), ["b"]);
        store.delete("a").unwrap();
        store.delete("a").unwrap();
        assert!(!store.exists("a").unwrap());
        assert!(store.get("../a").unwrap_err().is_usage());
    }
}

#[test]
fn caches_are_found_below_a_folder() {
    let (_folder, root) = folder();
    assert!(find(&root).unwrap().is_empty());
    fill(&root.join("scenes/val")).unwrap();
    writer(&root.join("scenes/train"));
    let found: Vec<_> = find(&root).unwrap().into_iter().map(|f| (f.path, f.complete)).collect();
    assert_eq!(found, [("scenes/train".to_owned(), false), ("scenes/val".to_owned(), true)]);
}
