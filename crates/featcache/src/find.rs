//! Finding the caches below a place, for listings.
//!
//! A prefix with a manifest is a finished cache, one with a plan only an unfinished one. Nothing below a cache
//! is looked at, and nothing deeper than three levels.

use crate::Result;
use crate::manifest::MANIFEST;
use crate::plan::PLAN;
use crate::store::Store;

/// Levels below the root that are searched.
const DEPTH: usize = 3;

/// A cache below a root.
#[derive(Debug, Clone)]
pub struct Found {
    /// Path relative to the root; empty for the root itself.
    pub path: String,
    /// Where it is.
    pub store: Store,
    /// Whether it was committed.
    pub complete: bool,
}

/// The caches at and below `root`, in the order of their paths.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the store cannot be listed.
pub fn find(root: &Store) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    search(root.clone(), String::new(), DEPTH, &mut found)?;
    Ok(found)
}

fn search(store: Store, path: String, depth: usize, found: &mut Vec<Found>) -> Result<()> {
    let files = store.list()?;
    let has = |name: &str| files.iter().any(|(file, _)| file == name);
    let complete = has(MANIFEST);
    if complete || has(PLAN) {
        found.push(Found { path, store, complete });
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    for name in store.prefixes()? {
        let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
        search(store.join(&name), below, depth - 1, found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_levels_and_not_into_caches() {
        let root = Store::open("memory://find").unwrap();
        for file in [
            "a/manifest.json",
            "a/plan.json",
            "a/inner/plan.json",
            "b/c/d/plan.json",
            "b/c/d/e/f/plan.json",
            "x/y/z/w/plan.json",
            "n/n",
        ] {
            root.put(file, "{}".into()).unwrap();
        }
        let found: Vec<_> = find(&root).unwrap().into_iter().map(|f| (f.path, f.complete)).collect();
        assert_eq!(found, [("a".to_owned(), true), ("b/c/d".to_owned(), false)]);
        let at = find(&root.join("a")).unwrap();
        assert_eq!((at.len(), at[0].path.as_str()), (1, ""));
    }
}
