//! `featlab cache info`: one cache described, or compared with what an extraction asks for.

use anyhow::{Context as _, Result};
use featcache::{FeatureKey, Store};
use serde_json::json;

use super::{bytes, stored};
use crate::Context;
use crate::cli::InfoArgs;
use crate::commands::asked::Asked;
use crate::exit::{Status, usage};

pub(super) fn run(args: InfoArgs, context: &Context) -> Result<Status> {
    if args.explain {
        return explain(&args.url, &Asked::open(args.features, context)?, context);
    }
    if args.features.dataset.is_some() || args.features.backbone.is_some() {
        return Err(usage("the options of an extraction are for --explain"));
    }
    describe(&args.url, context)
}

fn describe(url: &str, context: &Context) -> Result<Status> {
    let cache = context.cache(url)?;
    let manifest = cache.manifest();
    context.output.result(manifest, |m| {
        let mut lines = vec![
            format!("cache      {}", m.cache_id),
            format!("rows       {} in {} shards, {}", m.rows, m.shards.len(), bytes(stored(m))),
            format!(
                "tokens     [{}, {}] {} on a {} × {} grid",
                m.layout.tokens(),
                m.layout.dim,
                m.key.dtype,
                m.layout.grid.0,
                m.layout.grid.1
            ),
        ];
        lines.push(format!("form       {}", m.form));
        let extras =
            [("cls", m.layout.has_cls), ("label", m.layout.has_label), ("image", m.layout.has_image)];
        let extras = extras.iter().filter(|(_, there)| *there).map(|(name, _)| *name);
        let columns: Vec<_> =
            ["tokens"].into_iter().chain(m.layout.more.iter().map(String::as_str)).chain(extras).collect();
        lines.push(format!("columns    {}", columns.join(", ")));
        if let Ok(serde_json::Value::Object(key)) = serde_json::to_value(&m.key) {
            lines.extend(key.iter().map(|(name, value)| format!("key        {name} = {value}")));
        }
        lines.extend(m.provenance.iter().map(|(name, value)| format!("from       {name} = {value}")));
        lines.extend(m.skipped.iter().map(|t| format!("skipped    {}: {}", t.image_id, t.reason)));
        lines.push(format!("written by {}", m.created_with));
        lines.join("\n")
    })?;
    Ok(Status::Done)
}

/// Every element of the key: what is asked for, what is there.
fn explain(url: &str, asked: &Asked, context: &Context) -> Result<Status> {
    let asked = asked.job()?.key()?;
    let found = featcache::key_at(&Store::open(url)?).with_context(|| format!("cache {url}"))?;
    let differences = asked.diff(&found);
    let value = json!({
        "cache": url,
        "asked": { "cache_id": asked.fingerprint(), "key": asked },
        "found": { "cache_id": found.fingerprint(), "key": found },
        "differ": differences.iter().map(|one| one.field).collect::<Vec<_>>(),
    });
    context.output.result(&value, |_| {
        let mut lines = vec![format!("{:20} {:34} {}", "", "asked for", "there")];
        for (name, asked, found) in side_by_side(&asked, &found) {
            let mark = if asked == found { ' ' } else { '!' };
            lines.push(format!("{mark} {name:18} {asked:34} {found}"));
        }
        lines.push(format!("  {:18} {:34} {}", "cache id", asked.fingerprint(), found.fingerprint()));
        lines.push(match differences.len() {
            0 => format!("{url} is the cache of that extraction"),
            n => format!("{url} is not the cache of that extraction: {n} of its elements differ (!)"),
        });
        lines.join("\n")
    })?;
    Ok(if differences.is_empty() { Status::Done } else { Status::Damaged })
}

/// Name and both values of every element of either key.
fn side_by_side(asked: &FeatureKey, found: &FeatureKey) -> Vec<(String, String, String)> {
    let fields = |key: &FeatureKey| match serde_json::to_value(key) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (asked, found) = (fields(asked), fields(found));
    let more = found.keys().filter(|name| !asked.contains_key(*name));
    let text = |fields: &serde_json::Map<_, _>, name: &String| {
        fields.get(name).map_or_else(|| "nothing".to_owned(), serde_json::Value::to_string)
    };
    asked.keys().chain(more).map(|name| (name.clone(), text(&asked, name), text(&found, name))).collect()
}
