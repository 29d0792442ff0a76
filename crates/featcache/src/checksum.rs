//! XXH3: the checksums that readers compare.
//!
//! As fast as memory, which SHA-256 is not: a whole file has 128 bits in the manifest, a cell 64 in its shard's footer. Like
//! the seals, they guard against accidents, not against forgery.

use twox_hash::{XxHash3_64, XxHash3_128};

/// 32 hex digits.
pub(crate) fn of_file(bytes: &[u8]) -> String {
    format!("{:032x}", XxHash3_128::oneshot(bytes))
}

pub(crate) fn of_cell(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the test vectors of the xxHash specification: the empty input.
    #[test]
    fn known_digests() {
        assert_eq!(of_file(b""), "99aa06d3014798d86001c324468d497f");
        assert_eq!(of_cell(b""), 0x2d06_8005_38d3_94c2);
    }
}
