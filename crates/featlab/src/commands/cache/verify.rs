//! `featlab cache verify`: whether every byte is what was written, and whether a backbone computes the same.

use anyhow::{Context as _, Result};
use featcache::{Cache, Damage, DamageKind};
use serde_json::json;

use super::repair::{forward_of, with_precision_of};
use crate::Context;
use crate::cli::VerifyArgs;
use crate::commands::asked::load;
use crate::exit::{Status, integrity, usage};

pub(super) fn run(args: VerifyArgs, context: &Context) -> Result<Status> {
    let cache = context.cache(&args.url)?;
    let sound = bytes(&args.url, &cache, context)?;
    if let Some(backbone) = &args.backbone {
        let key = &cache.manifest().key;
        if !key.projections()?.is_empty() {
            return Err(usage(format!(
                "{}: its features were projected, no backbone computes them; verify the cache that they came from, and this \
                 one without --backbone",
                args.url
            )));
        }
        let (loaded, device) = load(backbone, &with_precision_of(key, args.loading), context)?;
        golden(&cache, &forward_of(key, &loaded, device)?, context)
            .with_context(|| format!("cache {}", args.url))?;
    }
    Ok(sound)
}

/// Compares what the backbone makes of the known picture with what is recorded.
fn golden(cache: &Cache, forward: &crate::stages::extract::Forward<'_>, context: &Context) -> Result<()> {
    let manifest = cache.manifest();
    let (key, loaded) = (&manifest.key, forward.backbone);
    if loaded.fingerprint != key.checkpoint_sha256 {
        return Err(integrity(format!(
            "its features are those of checkpoint {} ({}), backbone {} is checkpoint {}",
            key.checkpoint_sha256, key.architecture, loaded.name, loaded.fingerprint
        )));
    }
    let again = forward.golden()?;
    let deviation = manifest.golden.deviation(&again);
    if !manifest.golden.agrees(&again, featcache::GoldenActivation::TOLERANCE) {
        return Err(integrity(format!(
            "backbone {} computes something else than when the cache was made: the golden activation deviates by {deviation:.1e} of its largest value",
            loaded.name
        )));
    }
    context.reporter.say(format!("golden activation: reproduced, largest deviation {deviation:.1e}"));
    Ok(())
}

fn bytes(url: &str, cache: &Cache, context: &Context) -> Result<Status> {
    let shards = cache.manifest().shards.len();
    let damage = found(cache, context)?;
    let (orphans, damage): (Vec<_>, Vec<_>) =
        damage.into_iter().partition(|one| one.kind == DamageKind::Orphan);
    for one in &orphans {
        context.reporter.say(format!("note: {one}"));
    }
    for one in &damage {
        context.reporter.warn(one.to_string());
    }
    let again = match cache.manifest().key.projections()?.is_empty() {
        true => format!("`featlab cache repair {url}` computes them again"),
        false => format!("`featlab cache project … --out {url} --repair` projects them again"),
    };
    let said = |all: &[Damage]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let value = json!({ "cache": url, "cache_id": cache.manifest().cache_id, "shards": shards, "damage": said(&damage), "orphans": said(&orphans) });
    context.output.result(&value, |_| match damage.len() {
        0 => format!("{url}: sound, {} rows in {shards} shards", cache.rows()),
        n => format!("{url}: {n} problems in {shards} shards; {again}"),
    })?;
    Ok(if damage.is_empty() { Status::Done } else { Status::Damaged })
}

/// Here, or on the cluster: everything that is wrong.
fn found(cache: &Cache, context: &Context) -> Result<Vec<Damage>> {
    #[cfg(feature = "cluster")]
    if let Some(cluster) = crate::cluster::Cluster::of(context)? {
        return cluster.verify(cache);
    }
    let progress = context.reporter.start("verify", cache.manifest().shards.len() as u64, "shards");
    let mut stopped = Ok(());
    let damage = cache.verify(&mut |_| {
        progress.tick(1);
        stopped = context.interrupt.check();
    })?;
    stopped.map(|()| damage)
}
