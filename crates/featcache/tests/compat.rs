//! Caches written by earlier versions stay readable, number by number.

use featcache::{Cache, Dtype, GoldenActivation, ReadOptions, Store};
use ndarray::array;

#[test]
fn version_1() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/compat/v1");
    let cache = Cache::open(Store::open(folder).unwrap()).unwrap();
    let manifest = cache.manifest();
    assert_eq!((manifest.version, manifest.key.dtype, manifest.key.layer), (1, Dtype::F16, -1));
    assert_eq!(manifest.cache_id, manifest.key.fingerprint());
    assert_eq!((cache.rows(), manifest.samples, manifest.shards.len()), (2, 3, 2));
    assert_eq!(manifest.skipped[0].image_id, "b.png");
    assert_eq!(manifest.golden, GoldenActivation { tokens: vec![0.5, -1.25], shape: [1, 2] });
    assert_eq!(cache.classes().unwrap().names, ["sky", "road"]);
    assert_eq!(cache.verify(&mut |_| {}).unwrap(), []);

    let first = cache.read_shard(0, &ReadOptions::default()).unwrap();
    assert_eq!((first.len(), first.image_id(0), first.crop(0)), (1, "a.png", 0));
    assert_eq!(first.tokens_f32(0), array![[0.5, 1.5, 2.5], [3.5, 4.5, 5.5]]);
    assert_eq!(first.cls(0).unwrap(), array![0.0, -1.0, -2.0]);
    assert_eq!(first.label(0).unwrap(), array![[0, 1], [255, 1]]);

    let second = cache.read_shard(1, &ReadOptions::default()).unwrap();
    assert_eq!(second.tokens_f32(0), array![[10.5, 11.5, 12.5], [13.5, 14.5, 15.5]]);
    assert_eq!(second.cls(0).unwrap(), array![-10.0, -11.0, -12.0]);
    assert_eq!(second.label(0), None);
}
