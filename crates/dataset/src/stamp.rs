//! What is known of a file's contents without reading them.
//!
//! A tag of the source, or length, modification time, inode and (on Unix) change time of a file of this machine. Equal stamps
//! mean equal contents *unless* a file was changed twice within one tick of the clock; so a stamp younger than two
//! seconds, the coarsest tick of file systems in use, says nothing yet ([`Stamp::is_settled`]).
//!
//! What goes unnoticed: an edit that keeps the length, in place, after which the modification time is set back. On Unix the
//! change time gives that away as well, unless the machine's clock was turned back; elsewhere nothing does.

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fingerprint::short;

/// Time after a change in which another one might leave the same stamp.
const SETTLING: Duration = Duration::from_secs(2);

/// Equal stamps of one path mean equal contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// One word.
    version: String,
    changed: Option<SystemTime>,
}

impl Stamp {
    /// From the length of a file and what its source says of the contents.
    #[must_use]
    pub fn of_tag(bytes: u64, tag: &str) -> Self {
        Self { version: format!("tag:{bytes}:{}", short(tag)), changed: None }
    }

    /// From what the file system says of a file; `None` if it keeps no times.
    #[must_use]
    pub fn of_file(about: &Metadata) -> Option<Self> {
        let modified = about.modified().ok()?;
        let (inode, changed) = inode(about);
        let version = format!("file:{}:{}:{inode}:{}", about.len(), nanos(modified)?, nanos(changed)?);
        Some(Self { version, changed: Some(modified.max(changed)) })
    }

    /// Whether a change after `now` would be sure to show.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        self.changed.is_none_or(|changed| changed + SETTLING < now)
    }

    /// The stamp as a word without spaces.
    pub(crate) fn word(&self) -> &str {
        &self.version
    }
}

fn nanos(time: SystemTime) -> Option<u128> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_nanos())
}

/// Inode and change time.
#[cfg(unix)]
fn inode(about: &Metadata) -> (u64, SystemTime) {
    use std::os::unix::fs::MetadataExt;
    let seconds = Duration::from_secs(u64::try_from(about.ctime()).unwrap_or(0));
    let rest = Duration::from_nanos(u64::try_from(about.ctime_nsec()).unwrap_or(0));
    (about.ino(), UNIX_EPOCH + seconds + rest)
}

/// There is neither.
#[cfg(not(unix))]
fn inode(_: &Metadata) -> (u64, SystemTime) {
    (0, UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_one_word_whatever_the_tag() {
        let stamp = Stamp::of_tag(5, "W/\"a b\n\"");
        assert!(!stamp.word().contains(char::is_whitespace));
        assert_ne!(stamp, Stamp::of_tag(5, "W/\"a c\n\""));
        assert_ne!(stamp, Stamp::of_tag(6, "W/\"a b\n\""));
        assert!(stamp.is_settled(UNIX_EPOCH), "a tag needs no time");
    }

    #[test]
    fn a_young_file_or_one_of_the_future_is_not_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "x").unwrap();
        let stamp = || Stamp::of_file(&std::fs::metadata(&path).unwrap()).unwrap();
        let now = SystemTime::now();
        assert!(!stamp().is_settled(now) && stamp().is_settled(now + 2 * SETTLING));
        let set =
            |time| std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let first = stamp();
        set(now + Duration::from_secs(3600));
        assert_ne!(first, stamp());
        assert!(!stamp().is_settled(now + 2 * SETTLING));
    }

    #[cfg(unix)]
    #[test]
    fn setting_the_times_back_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "one").unwrap();
        let before = std::fs::metadata(&path).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(&path, "two").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!((before.len(), before.modified().unwrap()), (after.len(), after.modified().unwrap()));
        assert_ne!(Stamp::of_file(&before), Stamp::of_file(&after));
    }
}
