//! A bucket is a folder, an object a file in it whose name is the percent-encoded key.
//!
//! A file is written beside its place and then linked (created only if there is none) or renamed into it, so that an object is
//! there whole or not at all, whatever happens to the server. The file's time of modification, in microseconds and never the
//! same twice, is the object's generation. Names with a dot in front are the server's own.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::refusal::Refusal;

/// What may stand in a file's name as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// Gives out generations, and one turn at a time to those whose condition must hold while they replace.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: AtomicU64,
    turn: Mutex<()>,
}

impl Clock {
    /// Microseconds since 1970, but later than any time given out before.
    pub(super) fn tick(&self) -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let next = |last: u64| Some(now.max(last + 1));
        let last = self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        now.max(last.unwrap_or_default() + 1)
    }
}

/// What must be true of the object that is there before it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    None,
    Absent,
    Generation(u64),
}

/// What is known of an object besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) generation: u64,
    pub(super) size: u64,
}

impl Object {
    pub(super) fn of(meta: &fs::Metadata) -> io::Result<Self> {
        let age = meta.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let generation = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        Ok(Self { generation, size: meta.len() })
    }

    pub(super) fn etag(&self) -> String {
        format!("\"{:x}-{:x}\"", self.generation, self.size)
    }

    pub(super) fn modified(&self) -> DateTime<Utc> {
        DateTime::from(SystemTime::UNIX_EPOCH + Duration::from_micros(self.generation))
    }
}

#[derive(Debug)]
pub(super) struct Bucket<'a> {
    folder: PathBuf,
    clock: &'a Clock,
}

impl<'a> Bucket<'a> {
    pub(super) fn open(root: &Path, name: &str, clock: &'a Clock) -> Result<Self, Refusal> {
        let folder = root.join(name);
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        if plain && folder.is_dir() { Ok(Self { folder, clock }) } else { Err(Refusal::NoSuchBucket) }
    }

    /// A name in the bucket's folder that no object has.
    pub(super) fn private(&self, name: &str) -> PathBuf {
        self.folder.join(format!(".{name}"))
    }

    pub(super) fn tick(&self) -> u64 {
        self.clock.tick()
    }

    /// The object, and its file for [`read`].
    pub(super) fn open_object(&self, key: &str) -> Result<(Object, File), Refusal> {
        let file = File::open(self.path_of(key))?;
        Ok((Object::of(&file.metadata()?)?, file))
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), Refusal> {
        Ok(fs::remove_file(self.path_of(key))?)
    }

    /// Writes the object with what `fill` puts into its file.
    pub(super) fn put(
        &self,
        key: &str,
        condition: Condition,
        fill: impl FnOnce(&mut File) -> Result<(), Refusal>,
    ) -> Result<Object, Refusal> {
        self.write(&self.path_of(key), condition, fill)
    }

    /// As [`Bucket::put`], at a place of its own.
    pub(super) fn write(
        &self,
        place: &Path,
        condition: Condition,
        fill: impl FnOnce(&mut File) -> Result<(), Refusal>,
    ) -> Result<Object, Refusal> {
        let (beside, mut file) = self.beside()?;
        let object = fill(&mut file).and_then(|()| self.place(&beside, &file, place, condition));
        let _ = fs::remove_file(beside);
        object
    }

    /// Keys and objects, sorted by key.
    pub(super) fn objects(&self) -> Result<Vec<(String, Object)>, Refusal> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            // A file that vanishes between listing and asking was deleted meanwhile.
            let Ok(meta) = entry.metadata() else { continue };
            let Ok(key) = percent_decode_str(name).decode_utf8() else { continue };
            found.push((key.into_owned(), Object::of(&meta)?));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    fn path_of(&self, key: &str) -> PathBuf {
        self.folder.join(utf8_percent_encode(key, PLAIN).to_string())
    }

    fn beside(&self) -> io::Result<(PathBuf, File)> {
        loop {
            let path = self.private(&format!("beside-{}", self.clock.tick()));
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                file => return file.map(|file| (path, file)),
            }
        }
    }

    fn place(
        &self,
        beside: &Path,
        file: &File,
        place: &Path,
        condition: Condition,
    ) -> Result<Object, Refusal> {
        let _turn = self.clock.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Condition::Generation(expected) = condition {
            let there = fs::metadata(place).and_then(|meta| Object::of(&meta));
            if there.ok().is_none_or(|there| there.generation != expected) {
                return Err(Refusal::PreconditionFailed);
            }
        }
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_micros(self.clock.tick()))?;
        let object = Object::of(&file.metadata()?)?;
        if condition == Condition::Absent {
            // Not by looking first: a request that outlived its server may be writing too.
            fs::hard_link(beside, place).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Refusal::PreconditionFailed,
                _ => error.into(),
            })?;
        } else {
            fs::rename(beside, place)?;
        }
        Ok(object)
    }
}

/// The bytes of a range of an object.
pub(super) fn read(file: &mut File, range: Range<u64>) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or_default());
    file.take(range.end - range.start).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn fill(bytes: &'static str) -> impl FnOnce(&mut File) -> Result<(), Refusal> {
        move |file| Ok(file.write_all(bytes.as_bytes())?)
    }

    #[test]
    fn generations_differ_and_guard() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("box")).unwrap();
        let clock = Clock::default();
        let bucket = Bucket::open(root.path(), "box", &clock).unwrap();
        let first = bucket.put("a/b", Condition::Absent, fill("1")).unwrap();
        assert!(matches!(bucket.put("a/b", Condition::Absent, fill("2")), Err(Refusal::PreconditionFailed)));
        let second = bucket.put("a/b", Condition::None, fill("3")).unwrap();
        assert!(second.generation > first.generation);
        let stale = bucket.put("a/b", Condition::Generation(first.generation), fill("4"));
        assert!(matches!(stale, Err(Refusal::PreconditionFailed)));
        bucket.put("a/b", Condition::Generation(second.generation), fill("5")).unwrap();
        let absent = bucket.put("c", Condition::Generation(1), fill("6"));
        assert!(matches!(absent, Err(Refusal::PreconditionFailed)));
        let (object, mut file) = bucket.open_object("a/b").unwrap();
        assert_eq!(read(&mut file, 0..1).unwrap(), b"5");
        assert_eq!(bucket.open_object("a/b").unwrap().0, object);
        assert_eq!(bucket.objects().unwrap(), [("a/b".to_owned(), object)]);
        assert_eq!(fs::read_dir(root.path().join("box")).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn any_key_is_a_name() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("box")).unwrap();
        let clock = Clock::default();
        let bucket = Bucket::open(root.path(), "box", &clock).unwrap();
        let keys = ["%2F", ".", "..", "a b#c?d", "a/b", "été/画像"];
        for key in keys {
            bucket.put(key, Condition::None, fill("x")).unwrap();
        }
        let found: Vec<String> = bucket.objects().unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(found, keys);
        let long = "x".repeat(300);
        assert!(matches!(bucket.put(&long, Condition::None, fill("x")), Err(Refusal::KeyTooLong)));
        for name in ["", ".", "..", "none", "a/b"] {
            assert!(matches!(Bucket::open(root.path(), name, &clock), Err(Refusal::NoSuchBucket)), "{name}");
        }
    }
}
