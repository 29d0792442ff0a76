//! Checking a whole cache: every byte, every number, every file.
//!
//! Finds what reading would find and more: NaN, images that occur twice, a plan that disagrees, surplus files.
//! It repairs nothing, and does not know what the numbers should be; for that there is the golden activation.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::cache::Check;
use crate::damage::{Damage, DamageKind, Flaw};
use crate::manifest::MANIFEST;
use crate::plan::{PLAN, Plan, shard_file};
use crate::{Cache, Error, Result, Shard};

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Shards looked at.
    pub shards: usize,
    /// Shards in all.
    pub total_shards: usize,
    /// Bytes of the shards looked at, as recorded.
    pub bytes: u64,
}

/// What was found in one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardCheck {
    /// What is wrong with it, and the particulars.
    flaws: Vec<(DamageKind, String)>,
    /// Name and crop of every row, so that doubles in other shards are found.
    images: Vec<(String, u8)>,
}

impl ShardCheck {
    fn of(shard: &Shard) -> Self {
        Self {
            flaws: non_finite(shard).map(|flaw| (flaw.kind, flaw.detail)).into_iter().collect(),
            images: shard.records().iter().map(|row| (row.image_id().to_owned(), row.crop())).collect(),
        }
    }

    /// What is wrong, given the shards of the images `seen` before.
    fn flaws<'a>(&'a self, index: usize, seen: &mut HashMap<&'a (String, u8), usize>) -> Vec<Flaw> {
        let mut flaws: Vec<Flaw> =
            self.flaws.iter().map(|(kind, detail)| Flaw::new(*kind, detail.clone())).collect();
        for image in &self.images {
            if let Some(other) = seen.insert(image, index) {
                let detail = format!("crop {} of image {} is in shard {other}, too", image.1, image.0);
                flaws.push(Flaw::new(DamageKind::Duplicate, detail));
            }
        }
        flaws
    }
}

impl Cache {
    /// Everything that is wrong with the cache; empty if nothing is. `progress` is called after each shard.
    ///
    /// # Errors
    /// [`Error::Io`] if the store refuses; damage is no error but the result.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Damage>> {
        let shards = &self.manifest().shards;
        let mut checks = Vec::with_capacity(shards.len());
        let mut bytes = 0;
        for (index, info) in shards.iter().enumerate() {
            checks.push(self.check_shard(index)?);
            bytes += info.bytes;
            progress(Progress { shards: index + 1, total_shards: shards.len(), bytes });
        }
        self.verify_checked(&checks)
    }

    /// Looks at every byte and number of shard `index`: the part of [`Cache::verify`] that many processes can share.
    ///
    /// # Errors
    /// [`Error::Io`] if the store refuses, [`Error::InvalidOption`] if there is no such shard.
    pub fn check_shard(&self, index: usize) -> Result<ShardCheck> {
        if index >= self.manifest().shards.len() {
            let reason = format!("is {index}, the cache has {}", self.manifest().shards.len());
            return Err(Error::InvalidOption { option: "shard", reason });
        }
        Ok(match self.load(index, Check::Full)? {
            Ok(shard) => ShardCheck::of(&shard),
            Err(flaw) => ShardCheck { flaws: vec![(flaw.kind, flaw.detail)], images: Vec::new() },
        })
    }

    /// Everything that is wrong with the cache, given what was found in each of its shards.
    ///
    /// # Errors
    /// [`Error::Io`] if the store refuses.
    pub fn verify_checked(&self, checks: &[ShardCheck]) -> Result<Vec<Damage>> {
        let mut damages = self.check_plan()?;
        let mut seen: HashMap<&(String, u8), usize> = HashMap::new();
        for (index, (check, info)) in checks.iter().zip(&self.manifest().shards).enumerate() {
            damages.extend(
                check.flaws(index, &mut seen).into_iter().map(|flaw| flaw.of(Some(index), &info.file)),
            );
        }
        damages.extend(self.orphans()?);
        Ok(damages)
    }

    /// Whether a shard is missing, damaged, or holds what is no number.
    pub(crate) fn is_broken(&self, index: usize) -> Result<bool> {
        Ok(match self.load(index, Check::Full)? {
            Ok(shard) => shard.first_non_finite().is_some(),
            Err(_) => true,
        })
    }

    /// The manifest against itself and against the plan.
    fn check_plan(&self) -> Result<Vec<Damage>> {
        let manifest = self.manifest();
        let mut flaws = Vec::new();
        let mut next = 0;
        for (index, info) in manifest.shards.iter().enumerate() {
            if info.file != shard_file(index, manifest.form)
                || info.samples.start != next
                || info.samples.is_empty()
            {
                flaws.push((MANIFEST, format!("shard {index} does not continue the one before it")));
            }
            next = info.samples.end;
        }
        let rows: usize = manifest.shards.iter().map(|info| info.rows).sum();
        if next != manifest.samples || rows != manifest.rows {
            flaws.push((MANIFEST, "its shards do not add up to its samples and rows".into()));
        }
        match Plan::read(self.store()) {
            Ok(None) => {} // it is no longer needed
            Ok(Some(plan)) => {
                if !plan.fits(manifest) {
                    flaws.push((PLAN, "it is not the plan of this manifest".into()));
                }
            }
            Err(error @ (Error::Corrupt { .. } | Error::UnsupportedVersion { .. })) => {
                flaws.push((PLAN, error.to_string()));
            }
            Err(error) => return Err(error),
        }
        let damage = |(file, detail): (&str, String)| Flaw::new(DamageKind::Plan, detail).of(None, file);
        Ok(flaws.into_iter().map(damage).collect())
    }

    /// Files under the prefix that belong to nothing.
    fn orphans(&self) -> Result<Vec<Damage>> {
        let shards = self.manifest().shards.iter().map(|info| info.file.as_str());
        let known: HashSet<&str> = shards.chain([MANIFEST, PLAN]).collect();
        let listed = self.store().list()?.into_iter().filter(|(file, _)| !known.contains(file.as_str()));
        let left = self.store().leftovers()?.into_iter().map(|leftover| (leftover.name, leftover.size_bytes));
        let damage = |(file, bytes): (String, u64)| {
            Flaw::new(DamageKind::Orphan, format!("{bytes} bytes that nothing refers to")).of(None, &file)
        };
        Ok(listed.chain(left).map(damage).collect())
    }
}

fn non_finite(shard: &Shard) -> Option<Flaw> {
    let row = shard.first_non_finite()?;
    let detail = format!("row {row} (image {}) holds NaN or an infinity", shard.image_id(row));
    Some(Flaw::new(DamageKind::NonFinite, detail))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::encode::encode;
    use crate::schema::{Columns, ShardHead};
    use crate::{Dtype, Form, Layout, Record, Row};
    use ndarray::{Array1, Array2};

    const MARKED: f32 = 1234.5;

    fn columns() -> Arc<Columns> {
        let layout = Layout { grid: (1, 1), dim: 2, has_cls: true, ..Layout::default() };
        Arc::new(Columns::new(&layout, Dtype::F32))
    }

    /// A shard of nine rows in f32, in which every value of the last one is [`MARKED`].
    fn bytes(form: Form) -> Vec<u8> {
        let row = |crop: u8| {
            let value = if crop == 8 { MARKED } else { 1.0 };
            let tokens = Array2::from_elem((1, 2), value);
            Row {
                image_id: "a".into(),
                crop,
                tokens,
                cls: Some(Array1::from_elem(2, value)),
                ..Row::default()
            }
        };
        let head = ShardHead { key: "k".into(), index: 4, samples: 0..1, skipped: vec![] };
        let rows: Vec<Record> =
            (0..9).map(|crop| Record::with_columns(&row(crop), &columns()).unwrap()).collect();
        encode(&head, &columns(), form, &rows).unwrap().bytes
    }

    #[test]
    fn numbers_that_are_none_are_found_in_tokens_and_class_token() {
        for form in [Form::Binary, Form::List, Form::Arrow] {
            let good = bytes(form);
            let marks: Vec<usize> =
                (0..good.len() - 4).filter(|&at| good[at..at + 4] == MARKED.to_le_bytes()).collect();
            assert_eq!(marks.len(), 4, "two tokens, two of the class token");
            for at in marks {
                let mut broken = good.clone();
                broken[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
                let shard = Shard::decode(&broken.into(), &columns(), form).unwrap();
                let check = ShardCheck::of(&shard);
                let flaws = check.flaws(4, &mut HashMap::new());
                assert_eq!((flaws.len(), flaws[0].kind), (1, DamageKind::NonFinite));
                assert!(flaws[0].detail.contains("row 8 (image a)"), "{}", flaws[0].detail);
            }
        }
    }

    #[test]
    fn an_image_in_two_shards_is_found() {
        let shard = Shard::decode(&bytes(Form::Binary).into(), &columns(), Form::Binary).unwrap();
        let before = [("a".to_owned(), 3), ("b".to_owned(), 3)];
        let mut seen = before.iter().map(|image| (image, 1)).collect();
        let check = ShardCheck::of(&shard);
        let flaws = check.flaws(4, &mut seen);
        assert_eq!((flaws.len(), flaws[0].kind), (1, DamageKind::Duplicate));
        assert_eq!(flaws[0].detail, "crop 3 of image a is in shard 1, too");
    }
}
