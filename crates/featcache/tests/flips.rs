//! Flipped bits: every one is found by `verify`, refused by readers, and harmless to those who read without checking.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]
#![allow(clippy::print_stdout, reason = "the test says how many bits it flipped")]

mod fixture;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use featcache::{
    Cache, Dtype, Error, Form, Opened, ReadOptions, Store, StreamOptions, Writer, WriterOptions,
};
use fixture::*;

const FLIPS: usize = 1000;

fn filled(name: &str, form: Form) -> Store {
    let store = Store::open(&format!("memory://flips-{name}")).unwrap();
    let options = WriterOptions { form: Some(form), ..options() };
    let Opened::Resume(writer) =
        Writer::open(store.clone(), key(Dtype::F16), layout(), SAMPLES, options).unwrap()
    else {
        panic!("fresh store")
    };
    for planned in writer.missing() {
        write(&writer, &planned).unwrap();
    }
    writer.commit(golden()).unwrap();
    store
}

/// Reads everything in every way, without checks: errors are fine, wrong numbers as well, panics are not.
fn read_unchecked(cache: &Cache) -> Result<(), Error> {
    let read = ReadOptions { verify: false, ..ReadOptions::default() };
    for index in 0..cache.manifest().shards.len() {
        let _ = cache
            .read_shard(index, &read)
            .map(|shard| shard.records().iter().for_each(|r| drop(r.tokens_f32())));
    }
    let _ = cache.read_rows(&(0..cache.rows()).collect::<Vec<_>>(), &read);
    let _ = cache.find("images/003.png");
    cache.stream(&StreamOptions { read, ..StreamOptions::default() })?.for_each(drop);
    Ok(())
}

#[test]
fn a_thousand_flipped_bits_in_every_form() {
    for form in Form::ALL {
        let store = filled(&form.to_string(), form);
        let files: Vec<(String, Bytes)> =
            contents(&store).into_iter().map(|(name, bytes)| (name, bytes.into())).collect();
        let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut found = 0;
        for flip in 0..FLIPS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Every fifth hits the manifest, every other fifth the last 3000 bytes of a shard, where the footers are.
            let name_of = |index: u64| format!("shard-{:05}.", index % 6);
            let pick = (random >> 33) as usize;
            let (file, position) = match flip % 5 {
                0 => (files.iter().find(|(name, _)| name == "manifest.json").unwrap(), pick),
                1 => {
                    let file =
                        files.iter().find(|(name, _)| name.starts_with(&name_of(random >> 40))).unwrap();
                    (file, file.1.len() - 1 - pick % file.1.len().min(3000))
                }
                _ => {
                    let mut at = pick % total;
                    let hit = files.iter().find(|(_, bytes)| {
                        let hit = at < bytes.len();
                        at = if hit { at } else { at - bytes.len() };
                        hit
                    });
                    (hit.unwrap(), at)
                }
            };
            let (name, good) = file;
            let position = position % good.len();
            let mut bad = good.to_vec();
            bad[position] ^= 1 << (random % 8);
            store.put(name, bad.into()).unwrap();
            let what = format!("{form}: bit {} of byte {position} of {name}", random % 8);

            match Cache::open(store.clone()) {
                Err(error) => assert!(name == "manifest.json" && error.is_integrity(), "{what}: {error}"),
                Ok(cache) => {
                    assert_ne!(cache.verify(&mut |_| {}).unwrap(), [], "{what} went unnoticed");
                    let checked =
                        cache.stream(&StreamOptions::default()).unwrap().collect::<Result<Vec<_>, _>>();
                    assert_eq!(checked.is_err(), name.starts_with("shard-"), "{what}");
                    let unchecked = catch_unwind(AssertUnwindSafe(|| read_unchecked(&cache)));
                    assert!(unchecked.is_ok(), "{what}: a reader panicked");
                }
            }
            found += 1;
            store.put(name, good.clone()).unwrap();
        }
        assert_whole(&Cache::open(store).unwrap());
        println!("{form}: {found} of {FLIPS} flipped bits were found, no reader crashed");
    }
}
