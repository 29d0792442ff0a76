//! Filling a cache: exactly once, from any number of processes, across kills.
//!
//! `open` agrees with everybody else on the plan and looks at what is there already; `missing` says what remains;
//! each `write_shard` makes one immutable file; `commit` writes the manifest once every shard is there.
//! Two writers of the same shard are harmless: the first one's file stays. The writer computes no features and starts no threads
//! for it: the caller does, and may call `write_shard` from several.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::damage::Flaw;
use crate::encode::{Sums, encode};
use crate::manifest::{MANIFEST, Manifest};
use crate::plan::{PLAN, Plan, PlannedShard, shard_index};
use crate::schema::{Columns, ShardHead};
use crate::store::{PutOutcome, Store};
use crate::{
    Cache, Classes, DamageKind, Error, FeatureKey, Form, GoldenActivation, Layout, Record, Result, Row,
    Shard, ShardInfo, Tombstone, repair, rows, seal,
};

/// A temporary file untouched for this long has no living writer.
const ABANDONED: Duration = Duration::from_secs(3600);

/// How to write; the default is right for most.
#[derive(Debug, Clone, Default)]
pub struct WriterOptions {
    /// Samples per shard; by default as many as make about 32 MiB of tokens, at most 1024. A cache that was
    /// begun with another number keeps that one.
    pub shard_rows: Option<usize>,
    /// Delete whatever cache is there and begin anew.
    pub overwrite: bool,
    /// Check a finished cache, and reopen it where it is damaged: what is broken counts as missing then.
    pub repair: bool,
    /// Look at no shard that is there when opening: for one of many processes that are told which shards are theirs
    /// ([`Writer::finished`], [`Writer::know`]).
    pub join: bool,
    /// How values lie in the files; `None` takes what is there, else the default. Asking for another form than what
    /// is there is an error.
    pub form: Option<Form>,
    /// Goes into the manifest as it is.
    pub provenance: BTreeMap<String, String>,
    /// Names and colours of the label classes.
    pub classes: Option<Classes>,
    /// What the backbone at hand makes of the known picture: must agree with what was recorded, if anything was.
    pub golden: Option<GoldenActivation>,
}

/// What there was under the prefix.
#[derive(Debug)]
pub enum Opened {
    /// A finished cache with this very key: nothing to do.
    Complete(Cache),
    /// Nothing yet, or a part: go on with this.
    Resume(Writer),
}

/// A cache that is being filled. Can be shared by threads.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    plan: Box<Plan>,
    columns: Arc<Columns>,
    provenance: BTreeMap<String, String>,
    classes: Option<Classes>,
    done: Mutex<BTreeMap<usize, Done>>,
}

/// A shard that is there and whole: what a process that wrote it tells the one that commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The file.
    pub info: ShardInfo,
    /// Its images without rows.
    pub skipped: Vec<Tombstone>,
}

impl Writer {
    /// Begins, joins or finds the cache of `key` under `store`.
    ///
    /// Shards that are there are checked in full; those that are damaged count as missing.
    ///
    /// # Errors
    /// [`Error::KeyMismatch`] or [`Error::PlanMismatch`] if something else is there, [`Error::GoldenMismatch`] if the backbone
    /// computes something else, [`Error::Empty`] without samples, [`Error::InvalidKey`] and
    /// [`Error::InvalidOption`] for what cannot be, [`Error::Io`] if the store refuses.
    pub fn open(
        store: Store,
        key: FeatureKey,
        layout: Layout,
        sample_count: usize,
        options: WriterOptions,
    ) -> Result<Opened> {
        check_request(&key, &layout, sample_count, &options)?;
        let WriterOptions { shard_rows, overwrite, repair, join, form, provenance, classes, golden } =
            options;
        if overwrite {
            remove(&store)?;
        }
        let asked = Plan::new(key, layout, sample_count, shard_rows, form.unwrap_or_default(), golden);
        if repair {
            repair::prepare(&store, &asked)?;
        }
        if let Some(manifest) = Manifest::read(&store)? {
            agree(&store, &asked, &manifest.key, &manifest.layout, manifest.samples)?;
            agree_on_form(&store, form, manifest.form)?;
            check_golden(&store, asked.golden.as_ref(), Some(&manifest.golden))?;
            return Ok(Opened::Complete(Cache::new(store, manifest)));
        }
        let plan = match Plan::read(&store)? {
            Some(plan) => plan,
            None => asked.clone().establish(&store)?,
        };
        agree(&store, &asked, &plan.key, &plan.layout, plan.sample_count)?;
        agree_on_form(&store, form, plan.form)?;
        check_golden(&store, asked.golden.as_ref(), plan.golden.as_ref())?;
        sweep(&store, ABANDONED);
        let done = Mutex::default();
        let columns = Arc::new(Columns::new(&plan.layout, plan.key.dtype));
        let writer = Self { store, plan: Box::new(plan), columns, provenance, classes, done };
        if !join {
            writer.look()?;
        }
        Ok(Opened::Resume(writer))
    }

    /// The shards that remain to be written, as far as this writer knows.
    #[must_use]
    pub fn missing(&self) -> Vec<PlannedShard> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        (0..self.total_shards())
            .filter(|index| !done.contains_key(index))
            .map(|i| self.plan.shard(i))
            .collect()
    }

    /// Shard `index` of the plan.
    #[must_use]
    pub fn planned(&self, index: usize) -> PlannedShard {
        self.plan.shard(index)
    }

    /// Shard `index`, if it is there and whole: as this writer knows, or as a look at it shows.
    ///
    /// # Errors
    /// [`Error::Io`] if the store refuses.
    pub fn finished(&self, index: usize) -> Result<Option<Done>> {
        let known = self.done.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let found = self.inspect(index)?.ok();
        if let Some(done) = &found {
            self.know(index, done.clone());
        }
        Ok(found)
    }

    /// Believes another process that shard `index` is whole; commits need not look at it then.
    pub fn know(&self, index: usize, done: Done) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, done);
    }

    /// Number of shards in the plan.
    #[must_use]
    pub fn total_shards(&self) -> usize {
        self.plan.shards()
    }

    /// Checks a backbone against the one that began the cache.
    ///
    /// # Errors
    /// [`Error::GoldenMismatch`] if they disagree; a plan without golden activation agrees with everything.
    pub fn check_golden(&self, golden: &GoldenActivation) -> Result<()> {
        check_golden(&self.store, Some(golden), self.plan.golden.as_ref())
    }

    /// Writes one shard: `rows` in sample order, all views of an image together, and the images without rows.
    ///
    /// If another writer was faster, theirs stays and is what is returned.
    ///
    /// # Errors
    /// [`Error::InvalidRows`] if these are not the planned samples, once each, in the right shapes;
    /// [`Error::NonFinite`] and [`Error::Overflow`] name the image; [`Error::Io`] if the store refuses.
    pub fn write_shard(
        &self,
        planned: &PlannedShard,
        rows: Vec<Row>,
        skipped: Vec<Tombstone>,
    ) -> Result<ShardInfo> {
        if let Some(reason) = rows.iter().find_map(|row| rows::misshapen(row, &self.plan.layout)) {
            return Err(Error::InvalidRows { shard: planned.index, reason });
        }
        let records = rows.into_par_iter().map(|row| self.record(&row)).collect::<Result<_>>()?;
        self.write_records(planned, records, skipped)
    }

    /// The stored form of a row of this cache: a third or less of its size, for callers that gather a shard.
    ///
    /// # Errors
    /// As [`Record::new`].
    pub fn record(&self, row: &Row) -> Result<Record> {
        Record::with_columns(row, &self.columns)
    }

    /// As [`Writer::write_shard`], of rows that are in their stored form already.
    ///
    /// # Errors
    /// As [`Writer::write_shard`].
    pub fn write_records(
        &self,
        planned: &PlannedShard,
        records: Vec<Record>,
        skipped: Vec<Tombstone>,
    ) -> Result<ShardInfo> {
        let PlannedShard { index, samples } = planned.clone();
        if index >= self.total_shards() || *planned != self.plan.shard(index) {
            let reason = format!("samples {samples:?} are not in the plan");
            return Err(Error::InvalidRows { shard: index, reason });
        }
        if records.iter().any(|record| record.columns != self.columns) {
            let reason = "have other columns than the cache".into();
            return Err(Error::InvalidRows { shard: index, reason });
        }
        rows::check(planned, &records, &skipped)?;
        let head = ShardHead { key: self.plan.cache_id.clone(), index, samples: samples.clone(), skipped };
        let encoded = encode(&head, &self.columns, self.plan.form, &records)?;
        let (file, row_count) = (self.plan.file(index), records.len());
        drop(records);
        let bytes = bytes::Bytes::from(encoded.bytes);
        let size = bytes.len() as u64;
        let ours = Done {
            info: ShardInfo::new(file.clone(), row_count, samples, size, encoded.sums),
            skipped: head.skipped,
        };
        let done = match self.store.put_if_absent(&file, bytes.clone())? {
            PutOutcome::Created => ours,
            PutOutcome::Existed => match self.inspect(index)? {
                Ok(theirs) => theirs,
                Err(flaw) => {
                    self.still_ours()?;
                    tracing::warn!(file, kind = %flaw.kind, detail = flaw.detail, "replacing a damaged shard");
                    self.store.put(&file, bytes)?;
                    ours
                }
            },
        };
        let info = done.info.clone();
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, done);
        Ok(info)
    }

    /// Refuses to replace a file once the cache was begun anew, with another key or cut, or was committed: a writer may have been
    /// stopped for long.
    fn still_ours(&self) -> Result<()> {
        let there = Plan::read(&self.store)?;
        if there.is_none_or(|plan| plan != *self.plan) || Manifest::read(&self.store)?.is_some() {
            return Err(Error::PlanMismatch {
                location: self.store.display().to_owned(),
                what: "plan",
                asked: format!("that of cache {} with {} shards", self.plan.cache_id, self.total_shards()),
                found: "another one, or a finished cache: it was begun anew meanwhile".into(),
            });
        }
        Ok(())
    }

    /// Writes the manifest. Any writer of the cache can, once every shard is there.
    ///
    /// The golden activation of the plan, if it has one, is the one that is recorded.
    ///
    /// # Errors
    /// [`Error::Incomplete`] with the shards that are missing, [`Error::GoldenMismatch`], [`Error::Io`].
    pub fn commit(&self, golden: GoldenActivation) -> Result<Cache> {
        self.check_golden(&golden)?;
        self.look()?; // other writers may have finished theirs
        let missing: Vec<usize> = self.missing().iter().map(|shard| shard.index).collect();
        if !missing.is_empty() {
            let (location, total) = (self.store.display().to_owned(), Some(self.total_shards()));
            return Err(Error::Incomplete { location, total, missing });
        }
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let skipped = done.values().flat_map(|done| done.skipped.clone()).collect();
        let shards = done.into_values().map(|done| done.info).collect();
        let golden = self.plan.golden.clone().unwrap_or(golden);
        let mut manifest = Manifest::new(&self.plan, shards, skipped, golden);
        manifest.classes.clone_from(&self.classes);
        manifest.provenance.clone_from(&self.provenance);
        manifest.write(&self.store)?; // that somebody else was faster is fine
        sweep(&self.store, Duration::ZERO);
        let cache = Cache::open(self.store.clone())?;
        let found = cache.manifest();
        agree(&self.store, &self.plan, &found.key, &found.layout, found.samples)?;
        Ok(cache)
    }

    /// Checks every shard that is there and not yet known to be whole.
    fn look(&self) -> Result<()> {
        let open: Vec<usize> = self.missing().iter().map(|shard| shard.index).collect();
        let there: HashSet<String> = self.store.list()?.into_iter().map(|(file, _)| file).collect();
        let news: Vec<usize> =
            open.into_iter().filter(|&index| there.contains(&self.plan.file(index))).collect();
        let seen = news.par_iter().map(|&index| Ok((index, self.inspect(index)?)));
        for (index, found) in seen.collect::<Result<Vec<_>>>()? {
            match found {
                Ok(done) => {
                    self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(index, done);
                }
                Err(flaw) => {
                    let file = self.plan.file(index);
                    tracing::warn!(file, kind = %flaw.kind, detail = flaw.detail, "a damaged shard counts as missing");
                }
            }
        }
        Ok(())
    }

    /// Reads a shard that is there: whole and ours, or what is wrong with it.
    fn inspect(&self, index: usize) -> Result<std::result::Result<Done, Flaw>> {
        let file = self.plan.file(index);
        let bytes = match self.store.map(&file) {
            Ok(bytes) => bytes,
            Err(Error::NotFound { path }) => return Ok(Err(Flaw::new(DamageKind::Missing, path))),
            Err(error) => return Err(error),
        };
        Ok(self.examine(index, file, bytes))
    }

    fn examine(&self, index: usize, file: String, bytes: bytes::Bytes) -> std::result::Result<Done, Flaw> {
        let size = bytes.len() as u64;
        let sha256 = seal::check(&bytes).map_err(|reason| Flaw::new(DamageKind::Checksum, reason))?;
        let form = self.plan.form;
        let shard = Shard::decode(&bytes, &self.columns, form)?;
        let planned = self.plan.shard(index);
        shard.head().expect(&self.plan.cache_id, index, &planned.samples)?;
        let sums = Sums::new(&bytes, form, sha256);
        let info = ShardInfo::new(file, shard.len(), planned.samples, size, sums);
        Ok(Done { info, skipped: shard.skipped().to_vec() })
    }
}

fn check_request(key: &FeatureKey, layout: &Layout, samples: usize, options: &WriterOptions) -> Result<()> {
    key.check()?;
    layout.check(key.dtype)?;
    options.classes.as_ref().map_or(Ok(()), Classes::check)?;
    if samples == 0 {
        return Err(Error::Empty);
    }
    if options.shard_rows == Some(0) {
        return Err(Error::InvalidOption {
            option: "shard_rows",
            reason: "is 0, expected at least 1".into(),
        });
    }
    Ok(())
}

/// Refuses to mix what was asked for with something else that is there.
pub(crate) fn agree(
    store: &Store,
    asked: &Plan,
    key: &FeatureKey,
    layout: &Layout,
    samples: usize,
) -> Result<()> {
    let location = store.display().to_owned();
    let differences = asked.key.diff(key);
    if !differences.is_empty() {
        return Err(Error::KeyMismatch { location, differences });
    }
    let (what, asked, found) = if asked.layout != *layout {
        ("layout", format!("{:?}", asked.layout), format!("{layout:?}"))
    } else if asked.sample_count != samples {
        ("sample count", asked.sample_count.to_string(), samples.to_string())
    } else {
        return Ok(());
    };
    Err(Error::PlanMismatch { location, what, asked, found })
}

fn check_golden(
    store: &Store,
    ours: Option<&GoldenActivation>,
    recorded: Option<&GoldenActivation>,
) -> Result<()> {
    let (Some(ours), Some(recorded)) = (ours, recorded) else { return Ok(()) };
    let tolerance = GoldenActivation::TOLERANCE;
    if recorded.agrees(ours, tolerance) {
        return Ok(());
    }
    let detail = if recorded.shape == ours.shape {
        format!(
            "it deviates by {:.1e} of the largest value, tolerance {tolerance:.0e}",
            recorded.deviation(ours)
        )
    } else {
        format!("its shape is {:?}, recorded {:?}", ours.shape, recorded.shape)
    };
    Err(Error::GoldenMismatch { location: store.display().to_owned(), detail })
}

fn agree_on_form(store: &Store, asked: Option<Form>, found: Form) -> Result<()> {
    match asked {
        Some(asked) if asked != found => Err(Error::PlanMismatch {
            location: store.display().to_owned(),
            what: "form of files",
            asked: asked.to_string(),
            found: found.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Deletes a cache: first the commit, so that no reader sees a half-deleted one as whole; the plan last.
///
/// # Errors
/// [`Error::Io`] if the store refuses.
pub fn remove(store: &Store) -> Result<()> {
    store.delete(MANIFEST)?;
    for (file, _) in store.list()? {
        if shard_index(&file).is_some() {
            store.delete(&file)?;
        }
    }
    store.delete(PLAN)
}

/// Removes temporary files of dead writers. They do no harm, so that failing to is no error.
fn sweep(store: &Store, min_age: Duration) {
    let ours = |file: &str| file == PLAN || file == MANIFEST || shard_index(file).is_some();
    if let Err(error) = store.sweep(min_age, ours) {
        tracing::warn!(%error, "could not remove leftovers of killed writers");
    }
}
