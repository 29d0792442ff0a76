//! Mending a cache: what is broken goes, what is whole stays, and there is no commit until all is there again.
//!
//! [`prepare`] takes the commit back before it touches anything, so that a reader, or a kill in the middle, finds an unfinished
//! cache and never a wrong one. A writer then fills the gaps as after any interruption. [`gc`] removes what belongs to nothing.

use std::time::Duration;

use rayon::prelude::*;

use crate::manifest::{MANIFEST, Manifest};
use crate::plan::{PLAN, Plan, shard_index};
use crate::store::Store;
use crate::writer::agree;
use crate::{Cache, Error, FeatureKey, Layout, Result};

/// Removes the damaged parts of the cache that `asked` describes, and its commit if there were any.
///
/// # Errors
/// If something else is there ([`Error::KeyMismatch`], [`Error::PlanMismatch`]), or the store refuses.
pub(crate) fn prepare(store: &Store, asked: &Plan) -> Result<()> {
    let manifest = sound(store, MANIFEST, Manifest::read(store))?;
    let plan = sound(store, PLAN, Plan::read(store))?;
    // A manifest that is gone leaves the plan; what the writer finds damaged counts as missing.
    let Some(manifest) = manifest else { return Ok(()) };
    agree(store, asked, &manifest.key, &manifest.layout, manifest.samples)?;
    let cache = Cache::new(store.clone(), manifest.clone());
    let broken = (0..manifest.shards.len()).into_par_iter().map(|index| Ok((index, cache.is_broken(index)?)));
    let broken: Vec<(usize, bool)> = broken.collect::<Result<_>>()?;
    let broken: Vec<usize> = broken.into_iter().filter(|(_, is_broken)| *is_broken).map(|(i, _)| i).collect();
    if plan.is_none_or(|plan| !plan.fits(&manifest)) {
        store.delete(PLAN)?;
        Plan::of(&manifest).establish(store)?;
    }
    if !broken.is_empty() {
        store.delete(MANIFEST)?;
    }
    broken.into_iter().try_for_each(|index| store.delete(&manifest.shards[index].file))
}

/// The key of what is at this place, finished or not; of a damaged cache, what is left of it.
///
/// # Errors
/// [`Error::NotFound`] if there is neither manifest nor plan, [`Error::Corrupt`] if neither is whole.
pub fn key_at(store: &Store) -> Result<FeatureKey> {
    plan_at(store).map(|plan| plan.key)
}

/// Shapes and columns of what is at this place.
///
/// # Errors
/// As [`key_at`].
pub fn layout_at(store: &Store) -> Result<Layout> {
    plan_at(store).map(|plan| plan.layout)
}

fn plan_at(store: &Store) -> Result<Plan> {
    let manifest = Manifest::read(store);
    if let Ok(Some(manifest)) = &manifest {
        return Ok(Plan::of(manifest));
    }
    match (Plan::read(store)?, manifest) {
        (Some(plan), _) => Ok(plan),
        (None, Err(error)) => Err(error),
        (None, Ok(_)) => Err(Error::NotFound { path: store.display().to_owned() }),
    }
}

/// The document, if it is there and whole; one that is damaged is deleted.
fn sound<T>(store: &Store, name: &str, read: Result<Option<T>>) -> Result<Option<T>> {
    match read {
        Err(Error::Corrupt { path, reason }) => {
            tracing::warn!(path, reason, "a damaged document is removed");
            store.delete(name).map(|()| None)
        }
        read => read,
    }
}

/// Removes what belongs to nothing in the cache under `store`, and returns names and bytes: shards that the manifest does
/// not know, and temporary files that nobody has touched for `min_age`. Other files are never removed.
///
/// * `dry_run`: only say what would go.
///
/// # Errors
/// [`Error::Io`] if the store refuses, [`Error::Corrupt`] if the manifest is damaged: then nothing is removed.
pub fn gc(store: &Store, min_age: Duration, dry_run: bool) -> Result<Vec<(String, u64)>> {
    let mut garbage = Vec::new();
    // Without a commit every shard may still be wanted.
    if let Some(manifest) = Manifest::read(store)? {
        let is_known = |file: &str| manifest.shards.iter().any(|info| info.file == file);
        let surplus = |file: &str| shard_index(file).is_some() && !is_known(file);
        garbage.extend(store.list()?.into_iter().filter(|(file, _)| surplus(file)));
        if !dry_run {
            garbage.iter().try_for_each(|(file, _)| store.delete(file))?;
        }
    }
    let ours = |file: &str| file == PLAN || file == MANIFEST || shard_index(file).is_some();
    let left = store.leftovers()?.into_iter().filter(|one| one.age >= min_age && ours(one.target()));
    garbage.extend(left.map(|one| (one.name, one.size_bytes)));
    if !dry_run {
        store.sweep(min_age, ours)?;
    }
    Ok(garbage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_a_cache_has_no_garbage() {
        let store = Store::open("memory://gc-nothing").unwrap();
        store.put("shard-00001.parquet", "x".into()).unwrap();
        assert!(gc(&store, Duration::ZERO, false).unwrap().is_empty());
        assert!(store.exists("shard-00001.parquet").unwrap());
    }
}
