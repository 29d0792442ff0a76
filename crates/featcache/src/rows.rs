//! What a caller hands over for one shard, and the check that it is what was planned.
//!
//! The planned samples must all be accounted for: each either as the same number of consecutive rows, one per
//! view, or as one tombstone. That is what "once each" means; the rest is shapes.

use std::collections::HashSet;

use ndarray::{Array1, Array2, Array3};
use serde::{Deserialize, Serialize};

use crate::{Error, Layout, PlannedShard, Record, Result};

/// One view of one image.
#[derive(Debug, Clone, PartialEq, Default)]
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
    /// The picture as the network saw it, `[h, w, 3]`.
    pub image: Option<Array3<u8>>,
    /// Further tokens, `[t, d]` each, in the order of the layout's `more`.
    pub more: Vec<Array2<f32>>,
}

/// An image that could not be read, and why.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Name of the image.
    pub image_id: String,
    /// Why there are no features of it.
    pub reason: String,
}

/// Checks that `rows` and `skipped` account for every planned sample once.
pub(crate) fn check(planned: &PlannedShard, rows: &[Record], skipped: &[Tombstone]) -> Result<()> {
    let refuse = |reason: String| Err(Error::InvalidRows { shard: planned.index, reason });
    let images: Vec<&[Record]> = rows.chunk_by(|a, b| a.image_id == b.image_id).collect();
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

/// What is wrong with the shapes of a row.
pub(crate) fn misshapen(row: &Row, layout: &Layout) -> Option<String> {
    let name = &row.image_id;
    let tokens = (layout.tokens(), layout.dim);
    if row.more.len() != layout.more.len() {
        let (got, expected) = (row.more.len(), layout.more.len());
        return Some(format!("image {name} has {got} further columns of tokens, expected {expected}"));
    }
    let columns = [("tokens", &row.tokens)].into_iter();
    for (column, values) in columns.chain(layout.more.iter().map(String::as_str).zip(&row.more)) {
        if values.dim() != tokens {
            let got = values.dim();
            return Some(format!("{column} of image {name} have shape {got:?}, expected {tokens:?}"));
        }
    }
    let image = row.image.as_ref().map(|image| image.dim());
    let expected = layout.has_image.then_some((layout.label_size.0, layout.label_size.1, 3));
    if image != expected {
        return Some(format!("the picture of image {name} has shape {image:?}, expected {expected:?}"));
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
    use crate::Dtype;

    fn row(image_id: &str, crop: u8) -> Row {
        let tokens = Array2::zeros((6, 4));
        Row { image_id: image_id.into(), crop, tokens, label: Some(Array2::zeros((3, 2))), ..Row::default() }
    }

    fn layout() -> Layout {
        Layout { grid: (2, 3), dim: 4, label_size: (3, 2), has_label: true, ..Layout::default() }
    }

    fn stone(image_id: &str) -> Tombstone {
        Tombstone { image_id: image_id.into(), reason: "unreadable".into() }
    }

    fn refusal(samples: usize, rows: &[Row], skipped: &[Tombstone]) -> String {
        let planned = PlannedShard { index: 3, samples: 10..10 + samples };
        let records: Result<Vec<_>> =
            rows.iter().map(|row| Record::new(row, &layout(), Dtype::F32)).collect();
        let checked = records.and_then(|records| check(&planned, &records, skipped));
        checked.map_or_else(|error| error.to_string(), |()| String::new())
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
        let wrong = Row { more: vec![Array2::zeros((6, 4))], ..row("a", 0) };
        assert!(refusal(1, &[wrong], &[]).contains("image a has 1 further columns"));
        let wrong = Row { image: Some(Array3::zeros((3, 2, 3))), ..row("a", 0) };
        assert!(
            refusal(1, &[wrong], &[]).contains("picture of image a has shape Some((3, 2, 3)), expected None")
        );
        let wrong = Row { label: Some(Array2::zeros((2, 3))), ..row("a", 0) };
        assert!(refusal(1, &[wrong], &[]).contains("label of image a has shape (2, 3)"));
        assert_eq!(refusal(1, &[Row { label: None, ..row("a", 0) }], &[]), "");
    }
}
