//! One hash over everything that identifies a data set's inputs.
//!
//! A sequence of texts and numbers goes in, each with its length or width in front, so that no two sequences
//! share their bytes. Two data sets with equal fingerprints count as the same in the cache key.

use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::contents::Content;
use crate::{Listed, Result};

/// A hash in progress.
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    pub(crate) fn new(kind: &str) -> Self {
        Self(Sha256::new()).text(kind)
    }

    pub(crate) fn text(self, text: &str) -> Self {
        let mut this = self.number(text.len() as u64);
        this.0.update(text.as_bytes());
        this
    }

    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.update(number.to_le_bytes());
        self
    }

    /// Files by their paths and contents; not by lengths, times or places.
    pub(crate) fn files(self, files: &[(&Listed, Content)]) -> Self {
        files.iter().fold(self, |hash, (file, content)| match content {
            Content::Sha256(content) => hash.text(&file.path).text(&hex(content)),
            Content::Unreadable => hash.text(&file.path).text("unreadable"),
        })
    }

    /// 64 hexadecimal digits.
    pub(crate) fn hex(self) -> String {
        hex(&self.0.finalize())
    }
}

/// A fingerprint that is computed when it is first asked for, and once.
#[derive(Default)]
pub(crate) struct Once(Mutex<Option<String>>);

impl Once {
    /// The fingerprint; whoever asks while it is being computed waits for it. A failure is not kept.
    pub(crate) fn get(&self, compute: impl FnOnce() -> Result<String>) -> Result<String> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known {
            return Ok(known.clone());
        }
        Ok(known.insert(compute()?).clone())
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 32 hexadecimal digits of a text's SHA-256: a name for something that is only compared.
pub(crate) fn short(text: &str) -> String {
    hex(&Sha256::digest(text)[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_sha256_of_the_written_bytes() {
        // sha256 of u64 LE 1, "a", u64 LE 7, by python's hashlib.
        let hash = Fingerprint::new("a").number(7).hex();
        assert_eq!(hash, "e418c4ebb7b4c705b85d3661f47139ad5cbc4c6ca9536208cb61047c85c02921");
    }

    #[test]
    fn it_is_computed_once_and_a_failure_is_tried_again() {
        let once = Once::default();
        assert!(once.get(|| Err(crate::Error::OutOfRange { index: 1, len: 1 })).is_err());
        assert_eq!(once.get(|| Ok("first".into())).unwrap(), "first");
        assert_eq!(once.get(|| panic!("it is known")).unwrap(), "first");
    }

    #[test]
    fn moving_a_boundary_changes_it() {
        let hash = |a, b| Fingerprint::new("x").text(a).text(b).hex();
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
    }
}
