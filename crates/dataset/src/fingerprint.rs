//! One hash over everything that identifies a data set's inputs.
//!
//! A sequence of texts and numbers goes in, each with its length or width in front, so that no two sequences
//! share their bytes. Two data sets with equal fingerprints count as the same in the cache key.

use sha2::{Digest, Sha256};

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

    /// 64 hexadecimal digits.
    pub(crate) fn hex(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
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
    fn moving_a_boundary_changes_it() {
        let hash = |a, b| Fingerprint::new("x").text(a).text(b).hex();
        assert_ne!(hash("ab", "c"), hash("a", "bc"));
    }
}
