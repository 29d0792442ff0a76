//! Single rows: exactly their bytes, by their place in the cache or the name of their image.
//!
//! From a shard with a directory only the footer (once) and the cells that were asked for are read, and each is checked against its
//! own checksum; of other shards the whole is read. A row's place is its number in the order of the cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rayon::prelude::*;

use crate::cache::Check;
use crate::damage::Flaw;
use crate::found::Footer;
use crate::schema::ShardHead;
use crate::{Cache, DamageKind, Error, ReadOptions, Record, Result, Shard, checksum, parquet_file};

impl Cache {
    /// Reads the rows at these places, in this order; a place may occur more than once. Several shards are read at a time.
    ///
    /// # Errors
    /// As [`Cache::read_shard`]; [`Error::InvalidOption`] if there is no such row.
    pub fn read_rows(&self, rows: &[usize], options: &ReadOptions) -> Result<Vec<Record>> {
        let selected = self.select(options.columns.as_deref())?;
        let mut by_shard: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (slot, &row) in rows.iter().enumerate() {
            if row >= self.rows() {
                let reason = format!("is {row}, the cache has {}", self.rows());
                return Err(Error::InvalidOption { option: "row", reason });
            }
            let (shard, row) = self.found().place(row);
            by_shard.entry(shard).or_default().push((row, slot));
        }
        let read = by_shard.into_par_iter().map(|(shard, wanted)| {
            let rows: Vec<usize> = wanted.iter().map(|&(row, _)| row).collect();
            let records = self.rows_of(shard, &rows, &selected, options.verify)?;
            Ok(wanted.into_iter().map(|(_, slot)| slot).zip(records).collect::<Vec<_>>())
        });
        let mut records: Vec<(usize, Record)> =
            read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        records.sort_by_key(|&(slot, _)| slot);
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    /// The places of an image's rows, one per crop; none if it is not in the cache. Reads the footers of the shards, or
    /// the shards themselves where those do not name their rows.
    ///
    /// # Errors
    /// As [`Cache::read_shard`].
    pub fn find(&self, image_id: &str) -> Result<Vec<usize>> {
        let shards = 0..self.manifest().shards.len();
        let places = shards.into_par_iter().map(|index| {
            let start = self.found().start(index);
            let places = |names: &mut dyn Iterator<Item = &str>| -> Vec<usize> {
                names.enumerate().filter(|(_, name)| *name == image_id).map(|(row, _)| start + row).collect()
            };
            Ok(match self.footer(index)? {
                Some(footer) => places(&mut footer.directory.rows.iter().map(|row| &*row.image_id)),
                None => {
                    let shard = self.read_shard(index, &ReadOptions::default())?;
                    places(&mut shard.records().iter().map(Record::image_id))
                }
            })
        });
        Ok(places.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Which columns of cells are meant by these names.
    pub(crate) fn select(&self, names: Option<&[String]>) -> Result<Vec<bool>> {
        let list = &self.columns().list;
        let Some(names) = names else { return Ok(vec![true; list.len()]) };
        if let Some(unknown) = names.iter().find(|name| list.iter().all(|column| column.name != **name)) {
            let known: Vec<&str> = list.iter().map(|column| &*column.name).collect();
            let reason = format!("{unknown:?} is not in the cache, which has {}", known.join(", "));
            return Err(Error::InvalidOption { option: "column", reason });
        }
        // Values mean nothing without their scales.
        let wanted = |name: &str| names.iter().any(|one| one == name.strip_suffix("_scale").unwrap_or(name));
        Ok(list.iter().map(|column| wanted(&column.name)).collect())
    }

    /// Some rows of one shard.
    pub(crate) fn rows_of(
        &self,
        shard: usize,
        rows: &[usize],
        selected: &[bool],
        verify: bool,
    ) -> Result<Vec<Record>> {
        if self.manifest().shards[shard].footer.is_some() {
            return Ok(self.pick(shard, Some(rows), selected, verify)?.1);
        }
        let check = if verify { Check::Bytes } else { Check::Shape };
        let mut whole = self.load(shard, check)?.map_err(|flaw| self.damaged(shard, flaw))?;
        whole.keep(selected);
        Ok(rows.iter().map(|&row| whole.records()[row].clone()).collect())
    }

    /// Rows of a shard with a directory, by default all.
    pub(crate) fn pick(
        &self,
        index: usize,
        rows: Option<&[usize]>,
        selected: &[bool],
        verify: bool,
    ) -> Result<(ShardHead, Vec<Record>)> {
        let wrong = |detail: &str| self.damaged(index, Flaw::new(DamageKind::Schema, detail));
        let footer = self.footer(index)?.ok_or_else(|| wrong("its footer has no directory"))?;
        let all: Vec<usize>;
        let rows = match rows {
            Some(rows) => rows,
            None => {
                all = (0..footer.directory.rows.len()).collect();
                &all
            }
        };
        let mut ranges = Vec::new();
        let mut extents = Vec::new();
        for &row in rows {
            for (cell, extent) in footer.directory.rows[row].cells.iter().enumerate() {
                if let (Some(extent), true) = (extent, selected[cell]) {
                    ranges.push(extent.range.clone());
                    extents.push(extent);
                }
            }
        }
        let read = self.ranges(index, &ranges)?;
        if verify
            && let Some((_, extent)) = read.iter().zip(extents).find(|(bytes, extent)| !extent.holds(bytes))
        {
            let detail = format!("bytes {:?} do not match their checksum", extent.range);
            return Err(self.damaged(index, Flaw::new(DamageKind::Checksum, detail)));
        }
        let mut read = read.into_iter();
        let take = |&row: &usize| {
            let row = &footer.directory.rows[row];
            let cells = row
                .cells
                .iter()
                .zip(selected)
                .map(|(extent, selected)| if extent.is_some() && *selected { read.next() } else { None });
            (row, cells.collect::<Vec<Option<Bytes>>>())
        };
        let stored: Vec<_> = rows.iter().map(take).collect();
        let form = self.manifest().form;
        let records =
            stored.into_iter().map(|(row, cells)| parquet_file::record(row, cells, self.columns(), form));
        let records =
            records.collect::<std::result::Result<_, _>>().map_err(|flaw| self.damaged(index, flaw))?;
        Ok((footer.head.clone(), records))
    }

    /// The footer of a shard, checked; `None` if its form has none that helps.
    fn footer(&self, index: usize) -> Result<Option<Arc<Footer>>> {
        if let Some(known) = self.found().footer(index) {
            return Ok(Some(known));
        }
        let info = &self.manifest().shards[index];
        let Some(expected) = &info.footer else { return Ok(None) };
        let start = info.bytes.saturating_sub(expected.bytes);
        let bytes = self.ranges(index, std::slice::from_ref(&(start..info.bytes)))?.swap_remove(0);
        if checksum::of_file(&bytes) != expected.xxh3 {
            let flaw = Flaw::new(DamageKind::Checksum, "its footer does not match its checksum");
            return Err(self.damaged(index, flaw));
        }
        let manifest = self.manifest();
        let read = Shard::read_footer(&bytes, self.columns(), manifest.form, info.bytes);
        let (head, directory) = read
            .and_then(|(head, directory)| {
                head.expect(&manifest.cache_id, index, &info.samples).map(|()| (head, directory))
            })
            .map_err(|flaw| self.damaged(index, flaw))?;
        let Some(directory) = directory else { return Ok(None) };
        if directory.rows.len() != info.rows {
            let detail = format!("it has {} rows, expected {}", directory.rows.len(), info.rows);
            return Err(self.damaged(index, Flaw::new(DamageKind::RowCount, detail)));
        }
        let footer = Arc::new(Footer { head, directory });
        self.found().keep(index, footer.clone());
        Ok(Some(footer))
    }

    /// Bytes of a shard's file; of the whole file's local copy, where there is to be one.
    fn ranges(&self, index: usize, ranges: &[std::ops::Range<u64>]) -> Result<Vec<Bytes>> {
        let info = &self.manifest().shards[index];
        let missing = |error| match error {
            Error::NotFound { .. } => {
                let detail = "the manifest lists it, but it is not there";
                self.damaged(index, Flaw::new(DamageKind::Missing, detail))
            }
            other => other,
        };
        let Some(copy) = self.local_copy() else {
            return self.store().get_ranges(&info.file, ranges).map_err(missing);
        };
        let file = copy.fetch(self.store(), info).map_err(missing)?;
        Ok(ranges.iter().map(|range| file.slice(range.start as usize..range.end as usize)).collect())
    }
}
