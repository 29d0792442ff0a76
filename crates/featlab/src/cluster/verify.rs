//! Checking a cache, and removing what belongs to nothing, by many.

use std::time::Duration;

use anyhow::Result;
use featcache::{Cache, Damage, ShardCheck};

use super::{Cluster, Job, to_json};

impl Cluster<'_> {
    /// Everything that is wrong with a cache.
    ///
    /// # Errors
    /// If the store refuses, or the cluster fails.
    pub(crate) fn verify(&self, cache: &Cache) -> Result<Vec<Damage>> {
        let place = cache.store().display().to_owned();
        let units: Vec<u64> = (0..cache.manifest().shards.len() as u64).collect();
        let found = self.units(("verify", "shards"), &Job::CheckShard { cache: place.clone() }, &units)?;
        let shards = found.into_values().map(|check| Ok(serde_json::from_slice(&check)?));
        let shards = shards.collect::<Result<Vec<ShardCheck>>>()?;
        self.one("verify", &Job::CheckCache { cache: place, shards })
    }

    /// What was removed below a place, with sizes.
    ///
    /// # Errors
    /// As [`Cluster::verify`].
    pub(crate) fn gc(&self, place: &str, min_age: Duration, dry_run: bool) -> Result<Vec<(String, u64)>> {
        self.one("gc", &Job::Gc { place: super::paths::absolute(place), min_age: min_age.as_secs(), dry_run })
    }
}

/// The executor's half: one shard.
pub(super) fn shard(cache: &Cache, unit: u64) -> Result<Vec<u8>> {
    to_json(&cache.check_shard(unit as usize)?)
}

/// The executor's half: all that is not in one shard.
pub(super) fn rest(cache: &Cache, shards: &[ShardCheck]) -> Result<Vec<u8>> {
    to_json(&cache.verify_checked(shards)?)
}
