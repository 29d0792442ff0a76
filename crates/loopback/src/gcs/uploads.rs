//! Objects that come in parts: a folder of its own per upload, which holds the key and one file per part.
//!
//! Completing joins the parts that are named into one object and forgets the upload; completing it again is then an error,
//! as it is at Google's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use super::bucket::{Bucket, Condition, Object};
use super::refusal::Refusal;

/// Every part but the last is at least this long.
const SMALLEST: u64 = 5 << 20;

/// Begins an upload; the answer names it.
pub(super) fn initiate(bucket: &Bucket<'_>, key: &str) -> Result<String, Refusal> {
    let id = format!("{:x}", bucket.tick());
    let folder = bucket.private(&format!("upload-{id}"));
    fs::create_dir(&folder)?;
    fs::write(folder.join("key"), key)?;
    Ok(id)
}

/// Writes a part; one of the same number is replaced.
pub(super) fn put_part(
    bucket: &Bucket<'_>,
    key: &str,
    id: &str,
    number: &str,
    bytes: &[u8],
) -> Result<Object, Refusal> {
    let folder = folder(bucket, key, id)?;
    let number: u32 = number.parse().map_err(|_| Refusal::Invalid("partNumber is not a number"))?;
    if !(1..=10_000).contains(&number) {
        return Err(Refusal::Invalid("partNumber is not between 1 and 10000"));
    }
    bucket.write(&folder.join(number.to_string()), Condition::None, |file| Ok(file.write_all(bytes)?))
}

/// Makes the object out of `parts` (number, ETag), which ascend.
pub(super) fn complete(
    bucket: &Bucket<'_>,
    key: &str,
    id: &str,
    parts: &[(u32, String)],
) -> Result<Object, Refusal> {
    let folder = folder(bucket, key, id)?;
    if parts.is_empty() || !parts.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(Refusal::Invalid("parts are missing or out of order"));
    }
    let object = bucket.put(key, Condition::None, |file| {
        for (place, (number, etag)) in parts.iter().enumerate() {
            let mut part = File::open(folder.join(number.to_string())).map_err(|_| Refusal::InvalidPart)?;
            let known = Object::of(&part.metadata()?)?;
            if known.etag() != *etag {
                return Err(Refusal::InvalidPart);
            }
            if known.size < SMALLEST && place + 1 < parts.len() {
                return Err(Refusal::EntityTooSmall);
            }
            io::copy(&mut part, file)?;
        }
        Ok(())
    })?;
    fs::remove_dir_all(folder)?;
    Ok(object)
}

/// Ends an upload without an object.
pub(super) fn abort(bucket: &Bucket<'_>, key: &str, id: &str) -> Result<(), Refusal> {
    Ok(fs::remove_dir_all(folder(bucket, key, id)?)?)
}

/// The folder of an upload of `key` that has begun and not ended.
fn folder(bucket: &Bucket<'_>, key: &str, id: &str) -> Result<PathBuf, Refusal> {
    let folder = bucket.private(&format!("upload-{id}"));
    let begun = id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && fs::read(folder.join("key")).is_ok_and(|of| of == key.as_bytes());
    if begun { Ok(folder) } else { Err(Refusal::NoSuchUpload) }
}
