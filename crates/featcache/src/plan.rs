//! The plan: how the sample list is cut into shards, fixed by whoever comes first.
//!
//! Shard `i` holds samples `i * shard_rows .. (i + 1) * shard_rows` of the list, the last one what remains.
//! `plan.json` is created conditionally before the first shard, so that restarts and parallel writers agree
//! whatever shard size they were started with. It is no commit: that is the manifest alone.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::manifest::Manifest;
use crate::seal::{from_sealed_json, to_sealed_json};
use crate::store::{PutOutcome, Store};
use crate::{Dtype, Error, FeatureKey, Form, GoldenActivation, Layout, Result};

pub(crate) const PLAN: &str = "plan.json";
const FORMAT: &str = "featlab-plan";
/// Bytes of tokens in a shard, unless the caller says how many samples: large enough that opening a file costs
/// nothing, small enough that losing one to a kill costs little and a few fit in memory.
const SHARD_BYTES: usize = 32 << 20;

/// One shard to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedShard {
    /// Index of the shard.
    pub index: usize,
    /// Which entries of the sample list it holds. Rows = samples × views − skipped ones.
    pub samples: Range<usize>,
}

/// `plan.json`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    format: String,
    version: u32,
    pub(crate) cache_id: String,
    pub(crate) key: FeatureKey,
    pub(crate) layout: Layout,
    pub(crate) sample_count: usize,
    /// Samples per shard.
    pub(crate) shard_rows: usize,
    /// How values lie in the files.
    #[serde(default, skip_serializing_if = "Form::is_default")]
    pub(crate) form: Form,
    pub(crate) golden: Option<GoldenActivation>,
}

impl Plan {
    pub(crate) fn new(
        key: FeatureKey,
        layout: Layout,
        sample_count: usize,
        shard_rows: Option<usize>,
        form: Form,
        golden: Option<GoldenActivation>,
    ) -> Self {
        let fitting = || default_shard_rows(&layout, key.dtype, key.views());
        let shard_rows = shard_rows.unwrap_or_else(fitting);
        Self {
            format: FORMAT.into(),
            version: crate::FORMAT_VERSION,
            cache_id: key.fingerprint(),
            key,
            layout,
            sample_count,
            shard_rows,
            form,
            golden,
        }
    }

    /// The plan that a finished cache was written by.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let first = manifest.shards.first().map(|info| info.samples.len());
        let (key, layout) = (manifest.key.clone(), manifest.layout.clone());
        Self::new(key, layout, manifest.samples, first, manifest.form, Some(manifest.golden.clone()))
    }

    /// Whether a finished cache was written by this plan.
    pub(crate) fn fits(&self, manifest: &Manifest) -> bool {
        self.key == manifest.key
            && self.layout == manifest.layout
            && self.form == manifest.form
            && self.sample_count == manifest.samples
            && self.shards() == manifest.shards.len()
    }

    /// The plan under the prefix, if there is one.
    pub(crate) fn read(store: &Store) -> Result<Option<Self>> {
        match store.get(PLAN) {
            Ok(bytes) => from_sealed_json(&store.name_of(PLAN), FORMAT, &bytes).map(Some),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `self` the plan, unless another writer was first: then theirs is returned.
    pub(crate) fn establish(self, store: &Store) -> Result<Self> {
        let bytes: Bytes = to_sealed_json(&self);
        match store.put_if_absent(PLAN, bytes)? {
            PutOutcome::Created => Ok(self),
            PutOutcome::Existed => {
                Self::read(store)?.ok_or_else(|| Error::NotFound { path: store.name_of(PLAN) })
            }
        }
    }

    pub(crate) fn shards(&self) -> usize {
        self.sample_count.div_ceil(self.shard_rows)
    }

    /// The file of shard `index`.
    pub(crate) fn file(&self, index: usize) -> String {
        shard_file(index, self.form)
    }

    pub(crate) fn shard(&self, index: usize) -> PlannedShard {
        let start = index * self.shard_rows;
        PlannedShard { index, samples: start..self.sample_count.min(start + self.shard_rows) }
    }
}

/// `shard-00042.parquet`.
pub(crate) fn shard_file(index: usize, form: Form) -> String {
    format!("shard-{index:05}.{}", form.extension())
}

/// The index of a shard's file name, whatever its form; `None` for any other name.
pub(crate) fn shard_index(file: &str) -> Option<usize> {
    let (index, _) = file.strip_prefix("shard-")?.rsplit_once('.')?;
    let index = index.parse().ok()?;
    Form::ALL.into_iter().any(|form| shard_file(index, form) == file).then_some(index)
}

fn default_shard_rows(layout: &Layout, dtype: Dtype, views: usize) -> usize {
    let columns = 1 + layout.more.len();
    (SHARD_BYTES / (columns * layout.token_bytes(dtype) * views)).clamp(1, 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::key;

    fn plan(samples: usize, shard_rows: Option<usize>) -> Plan {
        let layout = Layout { grid: (28, 28), dim: 384, label_size: (224, 224), ..Layout::default() };
        Plan::new(key(), layout, samples, shard_rows, Form::Binary, None)
    }

    #[test]
    fn shards_partition_the_samples() {
        let plan = plan(10, Some(4));
        let shards: Vec<_> = (0..plan.shards()).map(|index| plan.shard(index).samples).collect();
        assert_eq!(shards, [0..4, 4..8, 8..10]);
    }

    #[test]
    fn default_size_is_about_32_mib() {
        assert_eq!(plan(1000, None).shard_rows, 55);
        let tiny = Layout { grid: (1, 1), dim: 1, ..plan(1, None).layout };
        assert_eq!(default_shard_rows(&tiny, Dtype::F32, 1), 1024);
        let wide = Layout { more: vec!["key_11".into()], ..plan(1, None).layout };
        assert_eq!(default_shard_rows(&wide, Dtype::F16, 1), 27);
        let huge = Layout { grid: (200, 200), dim: 1536, ..tiny };
        assert_eq!(default_shard_rows(&huge, Dtype::F32, 5), 1);
    }

    #[test]
    fn names_round_trip_and_nothing_else_parses() {
        assert_eq!(shard_index(&shard_file(42, Form::Binary)), Some(42));
        assert_eq!(shard_index(&shard_file(123_456, Form::Arrow)), Some(123_456));
        for other in ["shard-42.parquet", "shard-00042.parquet#1", "shard-+0042.parquet", "manifest.json"] {
            assert_eq!(shard_index(other), None, "{other}");
        }
    }

    #[test]
    fn the_first_plan_wins() {
        let store = Store::open("memory://plan-first").unwrap();
        assert_eq!(Plan::read(&store).unwrap(), None);
        plan(10, Some(4)).establish(&store).unwrap();
        assert_eq!(plan(10, Some(7)).establish(&store).unwrap().shard_rows, 4);
    }
}
