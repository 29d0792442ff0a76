//! Mean and scatter of a cache, by many: the sums of aligned groups of blocks of images, put together in order.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context as _, Result};
use dimred::{BLOCK_IMAGES, ImageMoments, Moments};
use featcache::Cache;

use super::{Cluster, Job};
use crate::Context;
use crate::stages::reduce::moments_of;

/// Units of a pass at most, beyond those that single blocks make: each sends a matrix `[d, d]` to the driver.
const UNITS: u64 = 256;

impl Cluster<'_> {
    /// What one process would find in one pass, to the bit.
    ///
    /// # Errors
    /// If a shard is damaged, a token is not finite, or the cluster fails.
    pub(crate) fn moments(&self, cache: &Cache) -> Result<Moments> {
        let blocks = group(cache.rows());
        let units = cache.rows().div_ceil(blocks as usize * BLOCK_IMAGES) as u64;
        let job = Job::Moments {
            cache: cache.store().display().to_owned(),
            column: cache.column().to_owned(),
            blocks,
        };
        let units: Vec<u64> = (0..units).collect();
        let mut sum = ImageMoments::new(cache.layout().dim);
        // Those that came before their turn.
        let (mut early, mut next) = (BTreeMap::new(), 0);
        self.each_unit(("moments", "groups of images"), &job, &units, |unit, part| {
            early.insert(unit, part);
            while let Some(part) = early.remove(&next) {
                sum.append(ImageMoments::from_bytes(&part)?)?;
                next += 1;
            }
            Ok(())
        })?;
        Ok(sum.finish())
    }
}

/// Blocks of a unit, of a cache of so many rows: a power of two.
fn group(rows: usize) -> u64 {
    let blocks = rows.div_ceil(BLOCK_IMAGES) as u64;
    blocks.div_ceil(UNITS).next_power_of_two().max(1)
}

fn rows_of(unit: u64, blocks: u64, rows: usize) -> Range<usize> {
    let images = blocks as usize * BLOCK_IMAGES;
    let first = (unit as usize).saturating_mul(images);
    first.min(rows)..first.saturating_add(images).min(rows)
}

/// The executor's half.
pub(super) fn unit(cache: &Cache, blocks: u64, unit: u64, context: &Context) -> Result<Vec<u8>> {
    let rows = rows_of(unit, blocks, cache.rows());
    let moments = moments_of(cache, rows.clone(), &|| {}, context);
    Ok(moments.with_context(|| format!("rows {rows:?}"))?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_cover_all_rows_in_aligned_groups() {
        for rows in [1, 64, 65, 701, 64 * 256, 64 * 256 + 1, 250_000] {
            let blocks = group(rows);
            let units = rows.div_ceil(blocks as usize * BLOCK_IMAGES) as u64;
            assert!(units <= UNITS && blocks.is_power_of_two(), "{rows}: {units} of {blocks}");
            let mut next = 0;
            for unit in 0..units {
                let part = rows_of(unit, blocks, rows);
                assert!(
                    part.start == next
                        && !part.is_empty()
                        && part.start.is_multiple_of(blocks as usize * BLOCK_IMAGES)
                );
                next = part.end;
            }
            assert_eq!(next, rows);
        }
    }
}
