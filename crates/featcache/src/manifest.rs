//! The manifest: what a finished cache holds. Its presence is the commit.
//!
//! `manifest.json` is created conditionally, after every shard: a crash leaves garbage, never a lie. It is sealed, so a
//! flipped bit in it is an error and not another number.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::encode::Sums;
use crate::plan::Plan;
use crate::seal::{from_sealed_json, to_sealed_json};
use crate::store::{PutOutcome, Store};
use crate::{Classes, Error, FeatureKey, Form, GoldenActivation, Layout, Result, Tombstone};

pub(crate) const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "featlab-cache";

/// What a finished cache holds.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Manifest {
    /// `featlab-cache`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Fingerprint of the key.
    pub cache_id: String,
    /// Everything that changes the numbers.
    pub key: FeatureKey,
    /// Shapes and columns.
    pub layout: Layout,
    /// How values lie in the files.
    #[serde(default, skip_serializing_if = "Form::is_default")]
    pub form: Form,
    /// Names and colours of the label classes, if there are labels.
    pub classes: Option<Classes>,
    /// Length of the sample list, skipped images included.
    pub samples: usize,
    /// Number of rows in all shards.
    pub rows: usize,
    /// The shards, in order.
    pub shards: Vec<ShardInfo>,
    /// Images without features, and why.
    pub skipped: Vec<Tombstone>,
    /// What the backbone made of a known picture.
    pub golden: GoldenActivation,
    /// The program that committed, e.g. `featlab 0.1.0`.
    pub created_with: String,
    /// Anything worth knowing that does not change the numbers: device, host, command line.
    pub provenance: BTreeMap<String, String>,
}

/// What the manifest knows of one shard.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct ShardInfo {
    /// File name.
    pub file: String,
    /// Number of rows.
    pub rows: usize,
    /// Which entries of the sample list.
    pub samples: Range<usize>,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// XXH3-128 of the file, in hex: what readers compare, because it is as fast as memory. Caches of the first
    /// versions have none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub xxh3: String,
    /// The end of the file, from which single rows are found; not every form has one that helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<FooterInfo>,
}

/// The footer of a shard.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct FooterInfo {
    /// Its length: the last bytes of the file.
    pub bytes: u64,
    /// Its XXH3-128, in hex.
    pub xxh3: String,
}

impl ShardInfo {
    pub(crate) fn new(file: String, rows: usize, samples: Range<usize>, bytes: u64, sums: Sums) -> Self {
        let Sums { sha256, xxh3, footer } = sums;
        let footer = footer.map(|(bytes, xxh3)| FooterInfo { bytes, xxh3 });
        Self { file, rows, samples, bytes, sha256, xxh3, footer }
    }
}

impl Manifest {
    pub(crate) fn new(
        plan: &Plan,
        shards: Vec<ShardInfo>,
        skipped: Vec<Tombstone>,
        golden: GoldenActivation,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            version: crate::FORMAT_VERSION,
            cache_id: plan.cache_id.clone(),
            key: plan.key.clone(),
            layout: plan.layout.clone(),
            form: plan.form,
            classes: None,
            samples: plan.sample_count,
            rows: shards.iter().map(|shard| shard.rows).sum(),
            shards,
            skipped,
            golden,
            created_with: concat!("featlab ", env!("CARGO_PKG_VERSION")).into(),
            provenance: BTreeMap::new(),
        }
    }

    /// The manifest under the prefix, if the cache was committed.
    pub(crate) fn read(store: &Store) -> Result<Option<Self>> {
        let bytes = match store.get(MANIFEST) {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let path = store.name_of(MANIFEST);
        let manifest: Self = from_sealed_json(&path, FORMAT, &bytes)?;
        if manifest.cache_id != manifest.key.fingerprint() {
            return Err(Error::Corrupt { path, reason: "its cache id is not that of its key".into() });
        }
        Ok(Some(manifest))
    }

    /// The commit.
    pub(crate) fn write(&self, store: &Store) -> Result<PutOutcome> {
        store.put_if_absent(MANIFEST, to_sealed_json(self))
    }
}
