//! How fast a cache is written and read in each form:
//! `cargo run --release -p featcache --example cache_io -- CACHE WORK [ROUNDS] [FORM …]`.
//!
//! CACHE is any finished cache on a local disk. Its tokens alone are written into folders below WORK, from rows of `f32` in memory, a shard
//! per core at a time, and read back from the page cache: in order, shuffled, and 200 single rows. Numbers are megabytes per second of
//! stored tokens, the best of ROUNDS (default 3); every read is checked and touches every byte, by its checksum. `map` is the ceiling: the
//! files mapped and their words added up, by as many threads.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Instant;

use featcache::{
    Cache, Form, Layout, Opened, Order, ReadOptions, Record, Result, Row, Store, StreamOptions, Writer,
    WriterOptions, shuffled,
};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, cache, work, rest @ ..] = &arguments[..] else {
        println!("usage: cache_io CACHE WORK [ROUNDS] [FORM …]");
        return Ok(());
    };
    let rounds = rest.first().and_then(|text| text.parse().ok()).unwrap_or(3);
    let forms: Result<Vec<Form>> = rest.iter().skip(1).map(|text| text.parse()).collect();
    let forms = if rest.len() > 1 { forms? } else { Form::ALL.to_vec() };
    let source = Cache::open(Store::open(cache)?)?;
    let layout = source.layout();
    let megabytes = (source.rows() * layout.token_bytes(source.manifest().key.dtype)) as f64 / 1e6;
    println!(
        "{cache}: {} rows of {} x {}, {megabytes:.0} MB of tokens",
        source.rows(),
        layout.tokens(),
        layout.dim
    );
    println!(
        "{:>8} {:>7} {:>7} {:>7} {:>9} {:>7} {:>10}",
        "form", "size", "write", "read", "shuffled", "map", "one row"
    );
    for form in forms {
        let place = format!("{work}/{form}");
        let store = Store::open(&place)?;
        let mut write = f64::INFINITY;
        for _ in 0..rounds.min(2) {
            write = write.min(rewrite(&source, &store, form)?);
        }
        let cache = Cache::open(store)?;
        let size: u64 = cache.manifest().shards.iter().map(|shard| shard.bytes).sum();
        let best = |work: &mut dyn FnMut() -> Result<()>| -> Result<f64> {
            let mut best = f64::INFINITY;
            for _ in 0..rounds {
                let start = Instant::now();
                work()?;
                best = best.min(start.elapsed().as_secs_f64());
            }
            Ok(best)
        };
        let read = best(&mut || scan(&cache, Order::Stored))?;
        let mixed = best(&mut || scan(&cache, Order::Shuffled { seed: 0, epoch: 0 }))?;
        let map = best(&mut || {
            map(&cache, &place);
            Ok(())
        })?;
        let places: Vec<usize> = shuffled(cache.rows(), 1 << 30, 1, 0).into_iter().take(200).collect();
        let single = best(&mut || {
            for row in &places {
                cache.read_rows(std::slice::from_ref(row), &ReadOptions::default())?;
            }
            Ok(())
        })?;
        println!(
            "{:>8} {:>7.3} {:>7.0} {:>7.0} {:>9.0} {:>7.0} {:>7.2} ms",
            form.to_string(),
            size as f64 / 1e6 / megabytes,
            megabytes / write,
            megabytes / read,
            megabytes / mixed,
            megabytes / map,
            single * 1e3 / places.len() as f64
        );
    }
    Ok(())
}

/// Seconds that writing took; making the rows is not counted.
fn rewrite(source: &Cache, store: &Store, form: Form) -> Result<f64> {
    let manifest = source.manifest();
    let options = WriterOptions {
        shard_rows: manifest.shards.first().map(|shard| shard.samples.len()),
        form: Some(form),
        overwrite: true,
        ..WriterOptions::default()
    };
    let (key, layout) = (manifest.key.clone(), tokens_only(&manifest.layout));
    let Opened::Resume(writer) = Writer::open(store.clone(), key, layout, manifest.samples, options)? else {
        unreachable!("overwriting begins anew")
    };
    let mut seconds = 0.0;
    for several in writer.missing().chunks(std::thread::available_parallelism().map_or(1, usize::from)) {
        let rows = several.iter().map(|planned| {
            let shard = source.read_shard(planned.index, &ReadOptions::default())?;
            Ok((shard.records().iter().map(row).collect(), shard.skipped().to_vec()))
        });
        let rows: Vec<(Vec<Row>, Vec<_>)> = rows.collect::<Result<_>>()?;
        let start = Instant::now();
        std::thread::scope(|scope| {
            let write = |(planned, (rows, skipped))| writer.write_shard(planned, rows, skipped).map(|_| ());
            let threads: Vec<_> =
                several.iter().zip(rows).map(|one| scope.spawn(move || write(one))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("writing does not panic"))
        })?;
        seconds += start.elapsed().as_secs_f64();
    }
    let start = Instant::now();
    writer.commit(manifest.golden.clone())?;
    Ok(seconds + start.elapsed().as_secs_f64())
}

/// The layout without class tokens, labels and pictures, which would blur the comparison with others.
fn tokens_only(layout: &Layout) -> Layout {
    Layout { grid: layout.grid, dim: layout.dim, label_size: layout.label_size, ..Layout::default() }
}

fn row(record: &Record) -> Row {
    let image_id = record.image_id().to_owned();
    Row { image_id, crop: record.crop(), tokens: record.tokens_f32(), ..Row::default() }
}

fn scan(cache: &Cache, order: Order) -> Result<()> {
    let mut bytes = 0;
    for record in cache.stream(&StreamOptions { order, ..StreamOptions::default() })? {
        bytes += std::hint::black_box(record?.token_bytes()).len();
    }
    assert_eq!(bytes, cache.rows() * cache.layout().token_bytes(cache.manifest().key.dtype));
    Ok(())
}

/// The files mapped by hand, their words added up.
fn map(cache: &Cache, place: &str) {
    let files: Vec<_> =
        cache.manifest().shards.iter().map(|shard| format!("{place}/{}", shard.file)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let mine = files.iter().skip(thread).step_by(threads);
            scope.spawn(move || {
                for file in mine {
                    let bytes = Store::open(place)
                        .and_then(|store| store.map(file.rsplit('/').next().unwrap_or_default()));
                    let words = bytes.as_deref().map_or(&[][..], |bytes| bytes.as_chunks::<8>().0);
                    std::hint::black_box(
                        words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word))),
                    );
                }
            });
        }
    });
}
