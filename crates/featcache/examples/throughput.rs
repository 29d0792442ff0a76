//! Megabytes per second of tokens through a shard: `cargo run --release -p featcache --example throughput [DIR]`.
//!
//! 128 images of 784 tokens with 384 dimensions each, in one shard; without DIR in memory. Counted are the
//! stored bytes of the tokens; best of five. `read` is open + checksum + decode, `f32` widens every row besides.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::time::Instant;

use featcache::{
    Cache, Dtype, FORMAT_VERSION, FeatureKey, GoldenActivation, Layout, Opened, ReadOptions, Row, Store,
};
use featcache::{Writer, WriterOptions};
use ndarray::Array2;

const IMAGES: usize = 128;

fn main() -> featcache::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory://throughput".into());
    println!("{url}: {IMAGES} images, MB/s of stored tokens");
    println!("{:>6} {:>8} {:>8} {:>14} {:>8}", "dtype", "write", "read", "read unchecked", "f32");
    for dtype in [Dtype::F16, Dtype::Bf16, Dtype::F32] {
        measure(&Store::open(&url)?.join(&dtype.to_string()), dtype)?;
    }
    Ok(())
}

fn measure(store: &Store, dtype: Dtype) -> featcache::Result<()> {
    let layout =
        Layout { grid: (28, 28), dim: 384, label_size: (224, 224), has_cls: false, has_label: false };
    let megabytes = (IMAGES * layout.token_bytes(dtype)) as f64 / 1e6;
    let mut seconds = [f64::INFINITY; 4];
    let mut buffer = vec![0.0; layout.tokens() * layout.dim];
    for _ in 0..5 {
        let options = WriterOptions { shard_rows: Some(IMAGES), overwrite: true, ..WriterOptions::default() };
        let Opened::Resume(writer) =
            Writer::open(store.clone(), key(dtype), layout.clone(), IMAGES, options)?
        else {
            unreachable!("overwriting begins anew")
        };
        let rows: Vec<Row> = (0..IMAGES).map(row).collect();
        let mut clock =
            |slot: usize, start: Instant| seconds[slot] = start.elapsed().as_secs_f64().min(seconds[slot]);

        let start = Instant::now();
        writer.write_shard(&writer.missing()[0], rows, vec![])?;
        clock(0, start);
        let cache = writer.commit(GoldenActivation { tokens: vec![], shape: [0, 0] })?;

        let start = Instant::now();
        let shard = cache.read_shard(0, ReadOptions::default())?;
        clock(1, start);
        let start = Instant::now();
        Cache::open(store.clone())?.read_shard(0, ReadOptions { verify: false })?;
        clock(2, start);
        let start = Instant::now();
        (0..shard.len()).for_each(|row| shard.tokens_into(row, &mut buffer));
        clock(3, start);
    }
    let [write, read, unchecked, widen] = seconds.map(|seconds| megabytes / seconds);
    println!("{:>6} {write:>8.0} {read:>8.0} {unchecked:>14.0} {widen:>8.0}", dtype.to_string());
    Ok(())
}

/// Features that look random enough for a memory bus.
fn row(image: usize) -> Row {
    let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 4096) as f32 / 512.0 - 4.0;
    let tokens = Array2::from_shape_fn((784, 384), |(t, d)| value(image * 301_056 + t * 384 + d));
    Row { image_id: format!("{image:06}.png"), crop: 0, tokens, cls: None, label: None }
}

fn key(dtype: Dtype) -> FeatureKey {
    FeatureKey {
        format_version: FORMAT_VERSION,
        dataset: "throughput".into(),
        dataset_fingerprint: "0".into(),
        split: "all".into(),
        crop: "none".into(),
        crop_ratio: 1.0,
        res: 224,
        resize: "nearest".into(),
        antialias: false,
        mean: [0.5; 3],
        std: [0.5; 3],
        checkpoint_sha256: "0".into(),
        architecture: "vit_small_patch8".into(),
        layer: -1,
        facet: "token".into(),
        dtype,
        flip_average: false,
    }
}
