//! Makes the small cache of format version 1 under `tests/compat/v1`, which later versions must still read:
//! `cargo run -p featcache --example compat_v1 -- tests/compat/v1`.
//!
//! Run it never again once the format has moved on: what is checked in is the proof.

use std::collections::BTreeMap;

use featcache::{
    Classes, Dtype, FeatureKey, GoldenActivation, Layout, Opened, Row, Store, Tombstone, Writer,
};
use featcache::{Error, WriterOptions};
use ndarray::{Array1, Array2};

fn main() -> featcache::Result<()> {
    let folder = std::env::args().nth(1).ok_or(Error::NotFound { path: "the folder argument".into() })?;
    let key = FeatureKey {
        format_version: 1,
        dataset: "compat".into(),
        dataset_fingerprint: "f11e".into(),
        split: "val".into(),
        crop: "none".into(),
        crop_ratio: 1.0,
        res: 16,
        resize: "nearest".into(),
        antialias: false,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        checkpoint_sha256: "c0ffee".into(),
        architecture: "vit_tiny_patch8".into(),
        layer: -1,
        facet: "token".into(),
        dtype: Dtype::F16,
        flip_average: false,
    };
    let layout = Layout { grid: (2, 1), dim: 3, label_size: (2, 2), has_cls: true, has_label: true };
    let options = WriterOptions {
        shard_rows: Some(2),
        provenance: BTreeMap::from([("device".into(), "cpu".into())]),
        classes: Some(Classes {
            names: vec!["sky".into(), "road".into()],
            palette: vec![[0, 0, 255], [90, 90, 90]],
        }),
        ..WriterOptions::default()
    };
    let Opened::Resume(writer) = Writer::open(Store::open(&folder)?, key, layout, 3, options)? else {
        return Ok(());
    };
    let [first, second] = &writer.missing()[..] else { unreachable!("three samples, two per shard") };
    let skipped = Tombstone { image_id: "b.png".into(), reason: "not a picture".into() };
    writer.write_shard(first, vec![row("a.png", 0.0)], vec![skipped])?;
    writer.write_shard(second, vec![row("c.png", 10.0)], vec![])?;
    writer.commit(GoldenActivation { tokens: vec![0.5, -1.25], shape: [1, 2] }).map(|_| ())
}

/// Tokens `base + 3t + d + 0.5`, class token `-base - d`, label `[[0, 1], [255, 1]]` for the first image only.
fn row(image_id: &str, base: f32) -> Row {
    Row {
        image_id: image_id.into(),
        crop: 0,
        tokens: Array2::from_shape_fn((2, 3), |(t, d)| base + (3 * t + d) as f32 + 0.5),
        cls: Some(Array1::from_shape_fn(3, |d| -base - d as f32)),
        label: (base == 0.0).then(|| ndarray::array![[0, 1], [255, 1]]),
    }
}
