//! The feature key: everything that changes the numbers, and nothing else.
//!
//! Two caches with the same key hold the same features; its fingerprint is the cache id. Batch size, worker
//! count, shard size and device are deliberately absent: changing them never invalidates anything.
//! The key is made of plain values, so this crate needs to know neither data sets nor networks.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Dtype, Error, Result};

/// The version of the cache format that this crate writes.
pub const FORMAT_VERSION: u32 = 1;

/// What is read of the backbone for one column besides `tokens`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// `token`, `key`, `query` or `value`.
    pub facet: String,
    /// Block, counted from 0.
    pub layer: i64,
}

impl Reading {
    /// The name of its column, e.g. `key_11`.
    #[must_use]
    pub fn column(&self) -> String {
        format!("{}_{}", self.facet, self.layer)
    }
}

/// Everything that changes the numbers in a cache.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct FeatureKey {
    /// Version of the cache format: [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Name of the data set, e.g. `camvid`.
    pub dataset: String,
    /// Hash over the list of files and their contents or sizes.
    pub dataset_fingerprint: String,
    /// `train`, `val`, `test` or `all`.
    pub split: String,
    /// `center`, `five`, `random` or `none`.
    pub crop: String,
    /// Side of a crop as a fraction of the image's.
    pub crop_ratio: f64,
    /// Side of the network's input in pixels.
    pub res: u32,
    /// Resize filter, e.g. `nearest`.
    pub resize: String,
    /// Whether the resize filter is widened when shrinking.
    pub antialias: bool,
    /// Channel means subtracted from pixels in `[0, 1]`, RGB.
    pub mean: [f32; 3],
    /// Channel standard deviations divided by, RGB.
    pub std: [f32; 3],
    /// SHA-256 of the checkpoint.
    pub checkpoint_sha256: String,
    /// Architecture, e.g. `vit_small_patch8`.
    pub architecture: String,
    /// Transformer block that is read; negative counts from the end.
    pub layer: i64,
    /// `token`, `key`, `query` or `value`; what was done to it afterwards stands behind it
    /// ([`Projected`](crate::Projected)).
    pub facet: String,
    /// Number format of the stored features.
    pub dtype: Dtype,
    /// Whether the features are the mean over the image and its mirror image.
    pub flip_average: bool,
    /// Further layers and facets, a column each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<Reading>,
}

/// One element in which two keys differ; values as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the element.
    pub field: &'static str,
    /// What was asked for.
    pub asked: String,
    /// What is there.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: asked for {}, found {}", self.field, self.asked, self.found)
    }
}

impl FeatureKey {
    /// The cache id: the first 16 bytes, in hex, of the SHA-256 of the key as JSON with sorted names and
    /// no spaces.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut fields = self.fields();
        fields.sort_unstable();
        let body: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let digest = Sha256::digest(format!("{{{}}}", body.join(",")));
        digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The elements in which `self` (asked for) differs from `found`, in the order of declaration.
    #[must_use]
    pub fn diff(&self, found: &Self) -> Vec<Difference> {
        let found = found.fields();
        let absent = || "nothing".to_owned();
        let there =
            |field: &str| found.iter().find(|(name, _)| *name == field).map(|(_, value)| value.clone());
        let mut differences: Vec<Difference> = (self.fields().into_iter())
            .map(|(field, asked)| Difference { field, asked, found: there(field).unwrap_or_else(absent) })
            .filter(|one| one.asked != one.found)
            .collect();
        if let (true, Some(found)) = (self.more.is_empty(), there("more")) {
            differences.push(Difference { field: "more", asked: absent(), found });
        }
        differences
    }

    /// Views (crops) per image: 5 for the `five` and the `random` crops, else 1.
    #[must_use]
    pub fn views(&self) -> usize {
        if matches!(self.crop.as_str(), "five" | "random") { 5 } else { 1 }
    }

    /// Refuses keys that could not have made a number.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |field, reason: &str| Err(Error::InvalidKey { field, reason: reason.into() });
        if self.format_version != FORMAT_VERSION {
            return refuse("format_version", "is not the version this build writes");
        }
        if self.checkpoint_sha256.is_empty() {
            return refuse("checkpoint_sha256", "is empty");
        }
        if self.dataset_fingerprint.is_empty() {
            return refuse("dataset_fingerprint", "is empty");
        }
        if !self.crop_ratio.is_finite() {
            return refuse("crop_ratio", "is not a number");
        }
        if !self.mean.iter().chain(&self.std).all(|value| value.is_finite()) {
            return refuse("mean and std", "are not all numbers");
        }
        Ok(())
    }

    /// Name and JSON text of every element. The pattern is exhaustive, so that a new element cannot be
    /// forgotten here, and each value is printed on its own, so that no map order can creep in.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let Self {
            format_version,
            dataset,
            dataset_fingerprint,
            split,
            crop,
            crop_ratio,
            res,
            resize,
            antialias,
            mean,
            std,
            checkpoint_sha256,
            architecture,
            layer,
            facet,
            dtype,
            flip_average,
            more,
        } = self;
        let mut fields = vec![
            ("format_version", json(format_version)),
            ("dataset", json(dataset)),
            ("dataset_fingerprint", json(dataset_fingerprint)),
            ("split", json(split)),
            ("crop", json(crop)),
            ("crop_ratio", json(crop_ratio)),
            ("res", json(res)),
            ("resize", json(resize)),
            ("antialias", json(antialias)),
            ("mean", json(mean)),
            ("std", json(std)),
            ("checkpoint_sha256", json(checkpoint_sha256)),
            ("architecture", json(architecture)),
            ("layer", json(layer)),
            ("facet", json(facet)),
            ("dtype", json(dtype)),
            ("flip_average", json(flip_average)),
        ];
        // Keys of caches with one column are what they were before there could be several.
        if !more.is_empty() {
            fields.push(("more", json(more)));
        }
        fields
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and strings always have a JSON form")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn key() -> FeatureKey {
        FeatureKey {
            format_version: FORMAT_VERSION,
            dataset: "scenes".into(),
            dataset_fingerprint: "5eed".into(),
            split: "train".into(),
            crop: "center".into(),
            crop_ratio: 0.55,
            res: 224,
            resize: "nearest".into(),
            antialias: false,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            checkpoint_sha256: "c0ffee".into(),
            architecture: "vit_small_patch8".into(),
            layer: -1,
            facet: "token".into(),
            dtype: Dtype::F16,
            flip_average: false,
            more: vec![],
        }
    }

    /// Computed with Python: `sha256(json.dumps(key, sort_keys=True, separators=(",", ":")))[:32]`.
    #[test]
    fn fingerprint_is_pinned() {
        assert_eq!(key().fingerprint(), "e13b79092bd2b50bb9280f0fbb8173eb");
    }

    #[test]
    fn json_round_trip_keeps_the_fingerprint() {
        let mut odd = key();
        odd.crop_ratio = 0.1 + 0.2;
        odd.mean[0] = f32::from_bits(0x3ef8_51ed);
        let back: FeatureKey = serde_json::from_str(&serde_json::to_string(&odd).unwrap()).unwrap();
        assert_eq!(back, odd);
        assert_eq!(back.fingerprint(), odd.fingerprint());
    }

    #[test]
    fn every_element_changes_the_fingerprint_and_is_named() {
        let base = serde_json::to_value(key()).unwrap();
        let names: Vec<String> = base.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names.len(), 17);
        for name in names {
            let mut changed = base.clone();
            let value = &mut changed[&name];
            *value = match value {
                serde_json::Value::String(_) if name == "dtype" => "bf16".into(),
                serde_json::Value::String(text) => format!("{text}x").into(),
                serde_json::Value::Bool(flag) => (!*flag).into(),
                serde_json::Value::Array(_) => serde_json::json!([0.5, 0.5, 0.5]),
                ref number => (number.as_f64().unwrap() as i64 + 7).into(),
            };
            let changed: FeatureKey = serde_json::from_value(changed).unwrap();
            assert_ne!(changed.fingerprint(), key().fingerprint(), "{name}");
            let differences = key().diff(&changed);
            assert_eq!(differences.len(), 1, "{name}");
            assert_eq!(differences[0].field, name);
        }
        assert!(key().diff(&key()).is_empty());
    }

    #[test]
    fn more_columns_are_another_key_in_both_directions() {
        let more = vec![Reading { facet: "key".into(), layer: 11 }];
        let wide = FeatureKey { more, ..key() };
        assert_ne!(wide.fingerprint(), key().fingerprint());
        let found = "[{\"facet\":\"key\",\"layer\":11}]";
        let [difference] = &wide.diff(&key())[..] else { panic!("one difference") };
        assert_eq!((difference.field, &*difference.asked, &*difference.found), ("more", found, "nothing"));
        let [difference] = &key().diff(&wide)[..] else { panic!("one difference") };
        assert_eq!((difference.field, &*difference.asked, &*difference.found), ("more", "nothing", found));
    }

    #[test]
    fn impossible_keys_are_refused() {
        let mut broken = key();
        broken.checkpoint_sha256.clear();
        assert!(broken.check().unwrap_err().is_usage());
        let mut broken = key();
        broken.crop_ratio = f64::NAN;
        assert!(broken.check().is_err());
        let mut broken = key();
        broken.std[1] = f32::INFINITY;
        assert!(broken.check().is_err());
        key().check().unwrap();
    }
}
