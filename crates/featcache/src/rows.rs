//! What a caller hands over for one shard, and the check that it is what was planned.
//!
//! The planned samples must all be accounted for: each either as the same number of consecutive rows, one per
//! view, or as one tombstone. That is what "once each" means; the rest is shapes.

use std::collections::HashSet;

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

use crate::{Error, Layout, PlannedShard, Result};

/// One view of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Name of the image, unique in the data set.
    pub image_id: String,
    /// Which crop: 0 if there is only one.
    pub crop: u8,
    /// Patch tokens, `[t, d]`.
    pub tokens: Array2<f32>,
    /// Class token, `[d]`.
    pub cls: Option<Array1<f32>>,
    /// Label map, `[h, w]`, 255 = ignore.
    pub label: Option<Array2<u8>>,
}

/// An image that could not be read, and why.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Name of the image.
    pub image_id: String,
    /// Why there are no features of it.
    pub reason: String,
}

/// Checks shapes and that `rows` and `skipped` account for every planned sample once.
pub(crate) fn check(
    planned: &PlannedShard,
    layout: &Layout,
    rows: &[Row],
    skipped: &[Tombstone],
) -> Result<()> {
    let refuse = |reason: String| Err(Error::InvalidRows { shard: planned.index, reason });
    if let Some(reason) = rows.iter().find_map(|row| misshapen(row, layout)) {
        return refuse(reason);
    }
    let images: Vec<&[Row]> = rows.chunk_by(|a, b| a.image_id == b.image_id).collect();
    let mut seen = HashSet::new();
    let names =
        images.iter().map(|views| &views[0].image_id).chain(skipped.iter().map(|stone| &stone.image_id));
    if let Some(twice) = names.into_iter().find(|name| !seen.insert(name.as_str())) {
        return refuse(format!("image {twice} occurs twice"));
    }
    for views in &images {
        let (name, expected) = (&views[0].image_id, images[0].len());
        if views.len() != expected {
            return refuse(format!("image {name} has {} crops, the first one {expected}", views.len()));
        }
        if !views.is_sorted_by(|a, b| a.crop < b.crop) {
            return refuse(format!("the crops of image {name} are not in order"));
        }
    }
    let (expected, got) = (planned.samples.len(), seen.len());
    if got != expected {
        return refuse(format!("expected {expected} images, got {got} ({} of them skipped)", skipped.len()));
    }
    Ok(())
}

fn misshapen(row: &Row, layout: &Layout) -> Option<String> {
    let name = &row.image_id;
    let tokens = (layout.tokens(), layout.dim);
    if row.tokens.dim() != tokens {
        return Some(format!(
            "tokens of image {name} have shape {:?}, expected {tokens:?}",
            row.tokens.dim()
        ));
    }
    let cls = row.cls.as_ref().map(|cls| cls.len());
    let expected = layout.has_cls.then_some(layout.dim);
    if cls != expected {
        return Some(format!("the class token of image {name} has length {cls:?}, expected {expected:?}"));
    }
    let size = row.label.as_ref()?.dim();
    if !layout.has_label {
        return Some(format!("image {name} has a label, the cache has no column for it"));
    }
    let expected = layout.label_size;
    (size != expected).then(|| format!("the label of image {name} has shape {size:?}, expected {expected:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(image_id: &str, crop: u8) -> Row {
        let tokens = Array2::zeros((6, 4));
        Row { image_id: image_id.into(), crop, tokens, cls: None, label: Some(Array2::zeros((3, 2))) }
    }

    fn layout() -> Layout {
        Layout { grid: (2, 3), dim: 4, label_size: (3, 2), has_cls: false, has_label: true }
    }

    fn stone(image_id: &str) -> Tombstone {
        Tombstone { image_id: image_id.into(), reason: "unreadable".into() }
    }

    fn refusal(samples: usize, rows: &[Row], skipped: &[Tombstone]) -> String {
        let planned = PlannedShard { index: 3, samples: 10..10 + samples };
        check(&planned, &layout(), rows, skipped).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn every_sample_is_accounted_for_once() {
        let two = [row("a", 0), row("a", 1), row("b", 0), row("b", 1)];
        assert_eq!(refusal(2, &two, &[]), "");
        assert_eq!(refusal(3, &two, &[stone("c")]), "");
        assert_eq!(refusal(1, &[], &[stone("c")]), "");
        assert!(refusal(3, &two, &[]).contains("expected 3 images, got 2"));
        assert!(refusal(3, &two, &[stone("a")]).contains("image a occurs twice"));
        assert!(refusal(3, &[row("a", 0), row("b", 0), row("a", 0)], &[]).contains("occurs twice"));
        assert!(refusal(2, &two[..3], &[]).contains("image b has 1 crops, the first one 2"));
        assert!(refusal(1, &[row("a", 0), row("a", 0)], &[]).contains("not in order"));
    }

    #[test]
    fn shapes_are_checked_and_the_image_named() {
        let wrong = Row { tokens: Array2::zeros((4, 6)), ..row("a", 0) };
        assert!(refusal(1, &[wrong], &[]).contains("tokens of image a have shape (4, 6), expected (6, 4)"));
        let wrong = Row { cls: Some(Array1::zeros(4)), ..row("a", 0) };
        assert!(refusal(1, &[wrong], &[]).contains("class token of image a"));
        let wrong = Row { label: Some(Array2::zeros((2, 3))), ..row("a", 0) };
        assert!(refusal(1, &[wrong], &[]).contains("label of image a has shape (2, 3)"));
        assert_eq!(refusal(1, &[Row { label: None, ..row("a", 0) }], &[]), "");
    }
}
