//! Files that carry their own checksum.
//!
//! Somewhere near its end a sealed file holds `featlab-seal:` and 64 hex digits: the SHA-256 of the
//! file with these digits set to `0`. Any changed, lost or added byte breaks the seal, so a shard or a JSON
//! document found after a crash is whole or recognised as broken before anything parses it.
//! A seal is no signature: it protects against accidents, not against forgery.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::{Error, Result};

const MARK: &str = "featlab-seal:";
const DIGITS: usize = 64;

/// What an unsealed file holds in the place of its seal.
pub(crate) fn placeholder() -> String {
    format!("{MARK}{}", "0".repeat(DIGITS))
}

/// Puts the seal in the place of the last [`placeholder`]; returns the plain SHA-256 of the sealed file.
pub(crate) fn seal(bytes: &mut [u8]) -> String {
    let at = find(bytes).expect("the caller has written a placeholder");
    let before = Sha256::new_with_prefix(&bytes[..at]);
    let sealed = zeroed(before.clone(), &bytes[at + DIGITS..]);
    bytes[at..at + DIGITS].copy_from_slice(sealed.as_bytes());
    plain(before, &bytes[at..])
}

/// The plain SHA-256 of a file whose seal holds; otherwise what is wrong.
pub(crate) fn check(bytes: &[u8]) -> std::result::Result<String, String> {
    let at = find(bytes).ok_or("it has no seal, so it was cut short or is no file of ours")?;
    // What comes before the seal is nearly everything: it is hashed once for both digests.
    let before = Sha256::new_with_prefix(&bytes[..at]);
    let sealed = zeroed(before.clone(), &bytes[at + DIGITS..]);
    if bytes[at..at + DIGITS] == *sealed.as_bytes() {
        Ok(plain(before, &bytes[at..]))
    } else {
        Err("its checksum does not match its contents".into())
    }
}

/// The plain SHA-256 of `bytes`, in hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

/// Pretty-printed JSON of `document` with its seal as the last field.
pub(crate) fn to_sealed_json(document: &impl Serialize) -> Bytes {
    #[derive(Serialize)]
    struct Sealed<'a, T> {
        #[serde(flatten)]
        document: &'a T,
        seal: String,
    }
    let sealed = Sealed { document, seal: placeholder() };
    let mut bytes = serde_json::to_vec_pretty(&sealed).expect("documents are plain structs");
    bytes.push(b'\n');
    seal(&mut bytes);
    bytes.into()
}

/// Reads a sealed document back; `path` is for messages only.
pub(crate) fn from_sealed_json<T: DeserializeOwned>(path: &str, format: &str, bytes: &[u8]) -> Result<T> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: String,
        version: u32,
    }
    let corrupt = |reason: String| Error::Corrupt { path: path.into(), reason };
    // The version comes first: a later one may well seal its files in another way.
    let head: Head = serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))?;
    if head.format != format {
        return Err(corrupt(format!("its format is {:?}, expected {format:?}", head.format)));
    }
    if head.version > crate::FORMAT_VERSION {
        let supported = crate::FORMAT_VERSION;
        return Err(Error::UnsupportedVersion { path: path.into(), found: head.version, supported });
    }
    check(bytes).map_err(corrupt)?;
    serde_json::from_slice(bytes).map_err(|error| corrupt(error.to_string()))
}

/// Position of the digits of the last mark.
fn find(bytes: &[u8]) -> Option<usize> {
    let last = bytes.len().checked_sub(MARK.len() + DIGITS)?;
    let at = (0..=last).rev().find(|&at| bytes[at..].starts_with(MARK.as_bytes()))?;
    Some(at + MARK.len())
}

/// The digest of a file whose digits are zeroed.
fn zeroed(before: Sha256, after: &[u8]) -> String {
    hex(before.chain_update([b'0'; DIGITS]).chain_update(after).finalize().as_slice())
}

/// The digest of a file as it is.
fn plain(before: Sha256, rest: &[u8]) -> String {
    hex(before.chain_update(rest).finalize().as_slice())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, serde::Deserialize, PartialEq, Debug)]
    struct Note {
        format: String,
        version: u32,
        text: String,
    }

    fn note() -> Note {
        Note { format: "note".into(), version: 1, text: "grüße".into() }
    }

    #[test]
    fn sealed_json_round_trips() {
        let bytes = to_sealed_json(&note());
        assert_eq!(from_sealed_json::<Note>("x", "note", &bytes).unwrap(), note());
        assert_eq!(check(&bytes).unwrap(), sha256_hex(&bytes));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = to_sealed_json(&note());
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[position] ^= 1 << bit;
                assert!(check(&flipped).is_err(), "bit {bit} of byte {position}");
                assert!(from_sealed_json::<Note>("x", "note", &flipped).is_err());
            }
            assert!(check(&bytes[..position]).is_err(), "cut at {position}");
        }
        assert!(check(&[&bytes[..], b" "].concat()).is_err());
    }

    #[test]
    fn newer_versions_are_told_apart_from_damage() {
        let newer = Note { version: 2, ..note() };
        let error = from_sealed_json::<Note>("x", "note", &to_sealed_json(&newer)).unwrap_err();
        assert!(matches!(error, Error::UnsupportedVersion { found: 2, .. }));
        let error = from_sealed_json::<Note>("x", "other", &to_sealed_json(&note())).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }));
    }

    /// A text that looks like a seal does not confuse: the last mark counts.
    #[test]
    fn marks_inside_the_contents_are_ignored() {
        let tricky = Note { text: placeholder(), ..note() };
        let bytes = to_sealed_json(&tricky);
        assert_eq!(from_sealed_json::<Note>("x", "note", &bytes).unwrap(), tricky);
    }
}
