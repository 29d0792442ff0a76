//! Every form holds the same bits, and every way of reading gives the same rows: whole shards, single rows, streams in
//! order and shuffled, from any store, with any number of threads.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod fixture;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use featcache::{
    Cache, DamageKind, Dtype, Error, Form, LocalCopy, Opened, Order, ReadOptions, Record, Row, Store,
    StreamOptions, Writer, WriterOptions, convert, shuffled,
};
use fixture::*;
use ndarray::Array2;

/// All there is to a row, in a form that can be compared: names, features, class token, label and picture.
type Contents = ((String, u8), Vec<Option<Array2<f32>>>, Option<Vec<f32>>, Vec<Option<Vec<u8>>>);

fn contents_of(record: &Record) -> Contents {
    let features = ["tokens", "key_11", "token_9"].map(|name| record.feature(name)).to_vec();
    let pixels = vec![
        record.label().map(|label| label.iter().copied().collect()),
        record.image().map(|image| image.iter().copied().collect()),
    ];
    ((record.image_id().into(), record.crop()), features, record.cls().map(|cls| cls.to_vec()), pixels)
}

fn streamed(cache: &Cache, options: &StreamOptions) -> Vec<Record> {
    cache.stream(options).unwrap().collect::<featcache::Result<_>>().unwrap()
}

fn memory(name: &str) -> Store {
    Store::open(&format!("memory://forms-{name}")).unwrap()
}

#[test]
fn every_form_and_dtype_and_every_way_of_reading() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::new();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8] {
        for form in Form::ALL {
            let name = format!("{dtype}-{form}");
            let local = Store::open(folder.path().join(&name).to_str().unwrap()).unwrap();
            for store in [local, memory(&name), bucket.store(&name)] {
                let cache = rich(&store, dtype, form, SHARD_ROWS);
                assert_eq!(cache.verify(&mut |_| {}).unwrap(), [], "{name}");
                let expected: Vec<Row> =
                    (0..SAMPLES).filter(|&i| i != UNREADABLE).flat_map(rows).map(enriched).collect();
                let all = streamed(&cache, &StreamOptions::default());
                assert_eq!(all.len(), expected.len());
                for (record, row) in all.iter().zip(&expected) {
                    assert_eq!((record.image_id(), record.crop()), (&*row.image_id, row.crop));
                    assert_eq!(record.label().map(|l| l.to_owned()), row.label);
                    assert_eq!(record.image().map(|i| i.to_owned()), row.image);
                    let features = [&row.tokens, &row.more[0], &row.more[1]];
                    for (name, values) in ["tokens", "key_11", "token_9"].into_iter().zip(features) {
                        let read = record.feature(name).unwrap();
                        let off = (&read - values).mapv(f32::abs).fold(0f32, |a, &b| a.max(b));
                        assert!(
                            off <= if dtype == Dtype::Int8 { 4.0 / 127.0 / 2.0 } else { 0.0 },
                            "{name}: {off}"
                        );
                    }
                }
                let all: Vec<_> = all.iter().map(contents_of).collect();
                let by_shard = (0..cache.manifest().shards.len())
                    .flat_map(|i| cache.read_shard(i, &ReadOptions::default()).unwrap().into_records());
                assert!(by_shard.map(|record| contents_of(&record)).eq(all.iter().cloned()));
                let places = [7, 3, 3, 109, 0, 41];
                let picked = cache.read_rows(&places, &ReadOptions::default()).unwrap();
                assert!(
                    picked.iter().map(contents_of).eq(places.iter().map(|&row| all[row].clone())),
                    "{name}"
                );
                let order = shuffled(110, cache.layout().row_bytes(dtype), 9, 1);
                let shuffled = StreamOptions {
                    order: Order::Shuffled { seed: 9, epoch: 1 },
                    ..StreamOptions::default()
                };
                let visited = streamed(&cache, &shuffled);
                assert!(
                    visited.iter().map(contents_of).eq(order.iter().map(|&row| all[row].clone())),
                    "{name}"
                );
                assert_eq!(cache.find("images/004.png").unwrap(), [20, 21, 22, 23, 24]);
                assert!(cache.find("images/005.png").unwrap().is_empty(), "it is unreadable");
            }
        }
    }
}

#[test]
fn a_subset_of_columns_is_all_that_is_read() {
    for form in Form::ALL {
        let store = memory(&format!("subset-{form}"));
        let cache = rich(&store, Dtype::Int8, form, SHARD_ROWS);
        let only = |names: &[&str]| ReadOptions {
            columns: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            ..ReadOptions::default()
        };
        for order in [Order::Stored, Order::Shuffled { seed: 0, epoch: 0 }] {
            let options =
                StreamOptions { order, read: only(&["label", "key_11"]), ..StreamOptions::default() };
            for record in streamed(&cache, &options) {
                assert!(record.feature("key_11").is_some() && record.feature("token_9").is_none());
                assert!(record.cls().is_none() && record.image().is_none());
                let label = if record.label().is_some() { 24 } else { 0 };
                assert_eq!(record.stored_bytes(), 6 * 5 + 6 * 4 + label);
            }
        }
        let error = cache.read_rows(&[0], &only(&["lable"])).unwrap_err();
        assert!(
            error.is_usage()
                && error.to_string().contains("\"lable\" is not in the cache, which has tokens, "),
            "{error}"
        );
        assert!(cache.read_rows(&[110], &ReadOptions::default()).unwrap_err().is_usage());
    }
}

#[test]
fn a_shuffled_stream_is_one_permutation_whatever_the_threads_shards_and_form() {
    let mut orders = Vec::new();
    for (form, shard_rows, threads) in [
        (Form::Binary, 4, 1),
        (Form::Binary, 1, 5),
        (Form::Packed, 23, 2),
        (Form::Arrow, 7, 3),
        (Form::List, 3, 0),
    ] {
        let cache = rich(&memory(&format!("order-{form}-{shard_rows}")), Dtype::F16, form, shard_rows);
        let order = Order::Shuffled { seed: 5, epoch: 0 };
        for ahead_bytes in [1, 0] {
            let options = StreamOptions { order, threads, ahead_bytes, ..StreamOptions::default() };
            let names = streamed(&cache, &options)
                .iter()
                .map(|r| (r.image_id().to_owned(), r.crop()))
                .collect::<Vec<_>>();
            orders.push(names);
        }
    }
    assert!(orders.windows(2).all(|pair| pair[0] == pair[1]));
    let once: BTreeMap<_, _> = orders[0].iter().map(|name| (name, ())).collect();
    assert_eq!((once.len(), orders[0].len()), (110, 110));
    assert!(!orders[0].is_sorted());
}

#[test]
fn converted_to_any_form_and_back_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Int8] {
        let reference: Vec<_> = Form::ALL
            .iter()
            .map(|&form| {
                let store = memory(&format!("convert-{dtype}-{form}"));
                (form, rich(&store, dtype, form, SHARD_ROWS), contents(&store))
            })
            .collect();
        for (from, source, _) in &reference {
            for (to, _, expected) in &reference {
                let place = folder.path().join(format!("{dtype}-{from}-{to}"));
                let target = Store::open(place.to_str().unwrap()).unwrap();
                // Interrupted after every shard, and gone on with.
                let mut sessions = 1;
                while convert(source, target.clone(), *to, &mut |_| ControlFlow::Break(())).unwrap().is_none()
                {
                    sessions += 1;
                }
                assert_eq!(sessions, 7, "six shards and the commit");
                assert_eq!(&contents(&target), expected, "{dtype} {from} to {to}");
            }
        }
    }
}

#[test]
fn asking_for_another_form_than_what_is_there_is_an_error_that_says_so() {
    let store = memory("another");
    rich(&store, Dtype::F16, Form::Packed, 4);
    let cache = Cache::open(store.clone()).unwrap();
    let open = |form| {
        let manifest = cache.manifest();
        let options = WriterOptions { form, ..options() };
        Writer::open(store.clone(), manifest.key.clone(), manifest.layout.clone(), SAMPLES, options)
    };
    assert!(matches!(open(None).unwrap(), Opened::Complete(_)));
    assert!(matches!(open(Some(Form::Packed)).unwrap(), Opened::Complete(_)));
    let error = open(Some(Form::Arrow)).unwrap_err();
    assert!(error.is_integrity() && error.to_string().contains("asked for arrow, found packed"), "{error}");
}

/// Not a single byte of a cell or a footer can change without being noticed by who reads only that.
#[test]
fn rows_that_are_read_alone_are_checked_alone() {
    for form in [Form::Binary, Form::Packed] {
        let store = memory(&format!("alone-{form}"));
        rich(&store, Dtype::F16, form, SHARD_ROWS);
        let file = "shard-00001.parquet";
        let good = store.get(file).unwrap();
        let (mut hit, mut missed) = (0, 0);
        for position in (0..good.len()).step_by(17) {
            let mut bytes = good.to_vec();
            bytes[position] ^= 1 << (position % 8);
            store.put(file, bytes.into()).unwrap();
            let cache = Cache::open(store.clone()).unwrap();
            let sound = contents_of(&cache.read_rows(&[0], &ReadOptions::default()).unwrap()[0]);
            assert_eq!(sound.0.0, "images/000.png", "another shard");
            match cache.read_rows(&(20..35).collect::<Vec<_>>(), &ReadOptions::default()) {
                Err(Error::Damaged { kind: DamageKind::Checksum, .. }) => hit += 1,
                Err(other) => panic!("{other}"),
                Ok(rows) => {
                    let expected: Vec<_> = rows.iter().map(contents_of).collect();
                    store.put(file, good.clone()).unwrap();
                    let rows =
                        cache.read_rows(&(20..35).collect::<Vec<_>>(), &ReadOptions::default()).unwrap();
                    assert!(rows.iter().map(contents_of).eq(expected), "byte {position}");
                    missed += 1; // between the cells: page headers, indexes, the columns of names
                }
            }
        }
        assert!(hit > missed && hit > 50, "{form}: {hit} {missed}");
    }
}

#[test]
fn a_local_copy_is_filled_once_kept_within_its_limit_and_mended() {
    let bucket = Bucket::new();
    let store = bucket.store("copied");
    let cache = rich(&store, Dtype::F32, Form::Binary, SHARD_ROWS);
    let total: u64 = cache.manifest().shards.iter().map(|shard| shard.bytes).sum();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("copy");
    let files = || std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let kept = || files().iter().map(|path| path.metadata().unwrap().len()).sum::<u64>();
    let expected: Vec<_> = streamed(&cache, &StreamOptions::default()).iter().map(contents_of).collect();

    let copy = LocalCopy::new(&place, 1 << 30);
    let near = cache.clone().with_local_copy(copy.clone());
    for _ in 0..3 {
        assert!(streamed(&near, &StreamOptions::default()).iter().map(contents_of).eq(expected.clone()));
        near.read_rows(&[0, 50, 109], &ReadOptions::default()).unwrap();
        assert_eq!((copy.fetched_bytes(), kept()), (total, total), "each shard once");
    }
    // A copy that was damaged is fetched again, and put right.
    let victim = &files()[0];
    std::fs::write(victim, vec![7; victim.metadata().unwrap().len() as usize]).unwrap();
    assert!(streamed(&near, &StreamOptions::default()).iter().map(contents_of).eq(expected.clone()));
    assert!(copy.fetched_bytes() > total && kept() == total);

    let limit = total / 2;
    let small = LocalCopy::new(folder.path().join("small"), limit);
    let near = cache.clone().with_local_copy(small.clone());
    let options = StreamOptions {
        order: Order::Shuffled { seed: 0, epoch: 0 },
        threads: 4,
        ..StreamOptions::default()
    };
    assert_eq!(streamed(&near, &options).len(), expected.len());
    let size: u64 = std::fs::read_dir(folder.path().join("small"))
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size <= limit, "{size} of {limit}");
    // Where nothing can be kept, reading goes on.
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let nowhere = cache.with_local_copy(LocalCopy::new(folder.path().join("file/below"), 1 << 30));
    assert!(streamed(&nowhere, &StreamOptions::default()).iter().map(contents_of).eq(expected));
}
