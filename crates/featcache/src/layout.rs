//! The shape of a row: what every shard of a cache has in common.
//!
//! One row is one view of one image: `t = gh * gw` patch tokens of `d` numbers, perhaps the class token and a label
//! map `[h, w]` of `u8` with 255 = ignore. The number format is part of the key, not of the layout.

use serde::{Deserialize, Serialize};

use crate::{Dtype, Error, Result};

/// Shapes and columns of a cache.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Patch grid `(gh, gw)`.
    pub grid: (usize, usize),
    /// Embedding dimension `d`.
    pub dim: usize,
    /// Label map `(h, w)`, the network's resolution.
    pub label_size: (usize, usize),
    /// Whether there is a class token per row.
    pub has_cls: bool,
    /// Whether there is a column of label maps (a single row may still lack one).
    pub has_label: bool,
    /// Whether there is a column with the picture as the network saw it, `[h, w, 3]` of `u8`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_image: bool,
    /// Names of further columns of tokens `[t, d]`: other layers and facets of the same pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
}

/// Names and colours of the label classes.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
pub struct Classes {
    /// One name per class; the index is the label value.
    pub names: Vec<String>,
    /// One RGB colour per class.
    pub palette: Vec<[u8; 3]>,
}

impl Layout {
    /// Patch tokens per row: `t = gh * gw`.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.grid.0 * self.grid.1
    }

    /// Bytes of one value in the column `tokens`.
    #[must_use]
    pub fn token_bytes(&self, dtype: Dtype) -> usize {
        self.tokens() * self.dim * dtype.size_bytes()
    }

    /// Bytes of one value in the column `label`: `h * w`.
    #[must_use]
    pub fn label_bytes(&self) -> usize {
        self.label_size.0 * self.label_size.1
    }

    /// Refuses empty shapes and those that Parquet's fixed-size binary cannot hold.
    pub(crate) fn check(&self, dtype: Dtype) -> Result<()> {
        let refuse = |reason: String| Err(Error::InvalidOption { option: "layout", reason });
        let sides = [self.grid.0, self.grid.1, self.dim];
        if sides.contains(&0) || ((self.has_label || self.has_image) && self.label_bytes() == 0) {
            return refuse(format!("has an empty shape: {self:?}"));
        }
        if self.grid.0.max(self.grid.1) > usize::from(u16::MAX) {
            return refuse(format!("has the grid {:?}, a side holds at most 65535 patches", self.grid));
        }
        let product =
            |sides: &[usize]| sides.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
        let tokens = product(&[self.grid.0, self.grid.1, self.dim, dtype.size_bytes()]);
        let image = product(&[self.label_size.0, self.label_size.1, 3]);
        let label = product(&[self.label_size.0, self.label_size.1]);
        let fits = |bytes: Option<usize>| bytes.is_some_and(|bytes| i32::try_from(bytes).is_ok());
        if !fits(tokens) || (self.has_label && !fits(label)) || (self.has_image && !fits(image)) {
            return refuse("needs more than 2 GiB per value".into());
        }
        let plain = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        let taken = |name: &str| RESERVED.contains(&name) || name.ends_with("_scale");
        for (i, name) in self.more.iter().enumerate() {
            if !plain(name) || taken(name) || self.more[..i].contains(name) {
                return refuse(format!("has a column {name:?}, which is no name or is taken"));
            }
        }
        Ok(())
    }

    /// Bytes of a row's stored values.
    #[must_use]
    pub fn row_bytes(&self, dtype: Dtype) -> usize {
        let columns = 1 + self.more.len();
        let scales = |vectors: usize| if dtype.is_scaled() { 4 * vectors } else { 0 };
        let tokens = columns * (self.token_bytes(dtype) + scales(self.tokens()));
        let cls = if self.has_cls { self.dim * dtype.size_bytes() + scales(1) } else { 0 };
        let pixels = usize::from(self.has_label) + 3 * usize::from(self.has_image);
        tokens + cls + pixels * self.label_bytes()
    }
}

/// Names of columns that every cache has or may have.
const RESERVED: [&str; 8] = ["image_id", "crop", "grid_h", "grid_w", "tokens", "cls", "label", "image"];

impl Classes {
    pub(crate) fn check(&self) -> Result<()> {
        if self.names.len() == self.palette.len() && self.names.len() < 256 {
            return Ok(());
        }
        let reason = format!(
            "have {} names and {} colours, expected as many of each and at most 255",
            self.names.len(),
            self.palette.len()
        );
        Err(Error::InvalidOption { option: "classes", reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout {
            grid: (28, 30),
            dim: 384,
            label_size: (224, 240),
            has_cls: true,
            has_label: true,
            ..Layout::default()
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(layout().tokens(), 840);
        assert_eq!(layout().token_bytes(Dtype::F16), 840 * 384 * 2);
        assert_eq!(layout().label_bytes(), 224 * 240);
        assert_eq!(layout().row_bytes(Dtype::F16), 841 * 384 * 2 + 224 * 240);
        let rich = Layout { has_image: true, more: vec!["key_11".into()], ..layout() };
        assert_eq!(rich.row_bytes(Dtype::Int8), (2 * 840 + 1) * (384 + 4) + 4 * 224 * 240);
        layout().check(Dtype::F32).unwrap();
    }

    #[test]
    fn impossible_layouts_are_usage_errors() {
        for broken in [
            Layout { dim: 0, ..layout() },
            Layout { grid: (70_000, 1), ..layout() },
            Layout { grid: (60_000, 60_000), dim: 384, ..layout() },
            Layout { label_size: (0, 4), ..layout() },
            Layout { more: vec!["cls".into()], ..layout() },
            Layout { more: vec!["key 11".into()], ..layout() },
            Layout { more: vec!["key_11".into(), "key_11".into()], ..layout() },
        ] {
            assert!(broken.check(Dtype::F32).unwrap_err().is_usage(), "{broken:?}");
        }
        Layout { label_size: (0, 0), has_label: false, ..layout() }.check(Dtype::F32).unwrap();
    }

    #[test]
    fn classes_need_a_colour_each() {
        let classes = Classes { names: vec!["sky".into()], palette: vec![] };
        assert!(classes.check().unwrap_err().is_usage());
    }
}
