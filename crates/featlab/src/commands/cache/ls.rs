//! `featlab cache ls`: the caches below a place.

use anyhow::{Context as _, Result};
use featcache::{Cache, Store};
use serde_json::json;

use super::{bytes, stored};
use crate::Context;
use crate::exit::Status;

pub(super) fn run(url: &str, context: &Context) -> Result<Status> {
    let found = featcache::find(&Store::open(url)?).with_context(|| format!("listing {url}"))?;
    if found.is_empty() {
        context.reporter.say(format!("no caches below {url}"));
    }
    let mut status = Status::Done;
    for one in found {
        if !one.complete {
            let value = json!({ "path": one.path, "complete": false });
            context.output.result(&value, |_| format!("{:40}  incomplete", one.path))?;
            continue;
        }
        let cache = match Cache::open(one.store) {
            Ok(cache) => cache,
            Err(error) => {
                if error.is_integrity() {
                    status = Status::Damaged;
                }
                let value = json!({ "path": one.path, "complete": false, "error": error.to_string() });
                context.output.result(&value, |_| format!("{:40}  {error}", one.path))?;
                continue;
            }
        };
        let m = cache.manifest();
        let value = json!({ "path": one.path, "complete": true, "cache_id": m.cache_id, "key": m.key, "rows": m.rows, "bytes": stored(m) });
        context.output.result(&value, |_| {
            let (key, size) = (&m.key, bytes(stored(m)));
            format!(
                "{:40}  {} {} {} px  {} {} {}  {} rows  {size}",
                one.path, key.dataset, key.split, key.res, key.architecture, key.facet, key.dtype, m.rows
            )
        })?;
    }
    Ok(status)
}
