//! Contents that were hashed before: a file per root, a line per file, so that a warm start reads no picture.
//!
//! ```text
//! path    32 hex digits of SHA-256 of root and path
//! stamp   file:LENGTH:MTIME_NS:INODE:CTIME_NS, or tag:LENGTH:HASH_OF_TAG
//! content 64 hex digits of SHA-256
//! check   8 hex digits of SHA-256 of the three before
//! ```
//!
//! Lines are appended, in one write each time, and the last one of a path counts. Any number of processes may do so: a line that was
//! torn or damaged fails its check and is as good as absent. When most lines are outdated, the file is written anew
//! beside its place and renamed; what another process appends in that moment is lost and hashed again. A memo can only
//! save time: one that cannot be read or written is ignored.
//!
//! What a memo misses is what its [`Stamp`] misses: see there.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::Stamp;
use crate::fingerprint::{hex, short};

/// Bytes of new lines that are worth a write.
const BATCH: usize = 1 << 16;
/// Outdated lines that are not worth cleaning up.
const SLACK: usize = 1000;
/// Files written anew by this process, so that no two share a name.
static CLEANED: AtomicUsize = AtomicUsize::new(0);

/// A folder that remembers the hashes of files' contents.
///
/// With one, [`Dataset::fingerprint`](crate::Dataset::fingerprint) reads only files that are new or look changed: other
/// length, modification time, inode or (on Unix) change time, or another tag of the source. An edit in place that keeps all
/// of these goes unnoticed until the folder is removed. Files changed less than two seconds before they are read are
/// not remembered.
#[derive(Debug, Clone)]
pub struct Memo {
    folder: PathBuf,
    clock: fn() -> SystemTime,
}

impl Memo {
    /// A memo in `folder`, which is made when there is something to remember. Several processes may share it.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), clock: SystemTime::now }
    }

    /// What is remembered of the files below one root.
    pub(crate) fn of(&self, root: &str) -> Known {
        let path = self.folder.join(format!("{}.contents", short(root)));
        let (lines, known) = read(&path);
        Known { root: root.into(), clock: self.clock, path, lines, known, fresh: Mutex::default() }
    }
}

type Entries = HashMap<String, Entry>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    stamp: String,
    content: [u8; 32],
}

/// What is remembered of one root, and what was learnt since.
#[derive(Debug)]
pub(crate) struct Known {
    root: String,
    clock: fn() -> SystemTime,
    path: PathBuf,
    /// Lines of the file, damaged ones too.
    lines: usize,
    known: Entries,
    /// Lines to be written.
    fresh: Mutex<String>,
}

impl Known {
    pub(crate) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// The hash of a file's contents, if the file looked like this when it was taken.
    pub(crate) fn get(&self, path: &str, stamp: &Stamp) -> Option<[u8; 32]> {
        let entry = self.known.get(&self.key(path))?;
        (entry.stamp == stamp.word()).then_some(entry.content)
    }

    pub(crate) fn add(&self, path: &str, stamp: &Stamp, content: [u8; 32]) {
        let line = line(&self.key(path), &Entry { stamp: stamp.word().into(), content });
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.push_str(&line);
        if fresh.len() >= BATCH {
            let _ = append(&self.path, &std::mem::take(&mut *fresh)); // a memo only saves time
        }
    }

    /// Writes what is not written yet, and cleans up if that is worth it.
    pub(crate) fn close(self) {
        let fresh = self.fresh.into_inner().unwrap_or_else(PoisonError::into_inner);
        let _ = append(&self.path, &fresh);
        if self.lines > 2 * self.known.len() + SLACK {
            let _ = clean(&self.path);
        }
    }

    fn key(&self, path: &str) -> String {
        short(&format!("{}\0{path}", self.root))
    }
}

fn line(key: &str, entry: &Entry) -> String {
    let line = format!("{key} {} {}", entry.stamp, hex(&entry.content));
    format!("{line} {}\n", &short(&line)[..8])
}

/// Number of lines, and what the good ones say.
fn read(path: &Path) -> (usize, Entries) {
    let bytes = fs::read(path).unwrap_or_default();
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let mut count = 0;
    let entries =
        lines.inspect(|_| count += 1).filter_map(|line| parse(str::from_utf8(line).ok()?)).collect();
    (count, entries)
}

fn parse(text: &str) -> Option<(String, Entry)> {
    let (front, _) = text.rsplit_once(' ')?;
    let [key, stamp, content] = front.split(' ').collect::<Vec<_>>()[..] else { return None };
    let digits: Vec<u8> = content
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<_>>()?;
    let entry = Entry { stamp: stamp.into(), content: digits.try_into().ok()? };
    (line(key, &entry).trim_end() == text).then(|| (key.into(), entry))
}

/// Adds lines in one write; the line break in front ends what another process may have left unfinished.
fn append(path: &Path, lines: &str) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::options().create(true).append(true).open(path)?;
    file.write_all(format!("\n{lines}").as_bytes())
}

/// One line a path, put in place whole.
fn clean(path: &Path) -> io::Result<()> {
    let (_, entries) = read(path);
    let lines: String = entries.iter().map(|(key, entry)| line(key, entry)).collect();
    let number = CLEANED.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{number}.new", std::process::id()));
    let renamed = fs::write(&beside, lines).and_then(|()| fs::rename(&beside, path));
    renamed.inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    impl Memo {
        /// One for which every file of now is old.
        pub(crate) fn of_tomorrow(folder: &Path) -> Self {
            let clock = || SystemTime::now() + Duration::from_secs(86_400);
            Self { folder: folder.into(), clock }
        }
    }

    fn stamp(number: u64) -> Stamp {
        Stamp::of_tag(number, "tag")
    }

    fn file(folder: &Path) -> PathBuf {
        fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
    }

    #[test]
    fn what_was_added_is_there_for_its_root_path_and_stamp_alone() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::in_folder(folder.path().join("made"));
        let known = memo.of("/root");
        known.add("a.png", &stamp(1), [1; 32]);
        known.add("b.png", &stamp(1), [2; 32]);
        known.close();
        let known = memo.of("/root");
        assert_eq!(known.get("a.png", &stamp(1)), Some([1; 32]));
        assert_eq!(known.get("b.png", &stamp(1)), Some([2; 32]));
        assert_eq!((known.get("a.png", &stamp(2)), known.get("c.png", &stamp(1))), (None, None));
        assert_eq!(memo.of("/root2").get("a.png", &stamp(1)), None);
    }

    #[test]
    fn no_damage_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::in_folder(folder.path());
        let known = memo.of("r");
        known.add("a", &stamp(1), [0xab; 32]);
        known.add("b", &stamp(1), [0xcd; 32]);
        known.close();
        let path = file(folder.path());
        let whole = fs::read(&path).unwrap();
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let known = memo.of("r");
            let (a, b) = (known.get("a", &stamp(1)), known.get("b", &stamp(1)));
            assert!(a.is_none_or(|a| a == [0xab; 32]) && b.is_none_or(|b| b == [0xcd; 32]), "{place}");
            assert!(
                a.is_some() || b.is_some() || whole[place] == b'\n',
                "one line's damage is its own: {place}"
            );
        }
    }

    #[test]
    fn a_torn_line_costs_nothing_but_itself() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::in_folder(folder.path());
        let add = |path: &str| {
            let known = memo.of("r");
            known.add(path, &stamp(1), [7; 32]);
            known.close();
        };
        add("a");
        let path = file(folder.path());
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        add("b");
        let known = memo.of("r");
        assert_eq!((known.get("a", &stamp(1)), known.get("b", &stamp(1))), (None, Some([7; 32])));
    }

    #[test]
    fn many_writers_at_once_lose_nothing_that_was_whole() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::in_folder(folder.path());
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let memo = &memo;
                scope.spawn(move || {
                    let known = memo.of("r");
                    (0..1000).for_each(|n| known.add(&format!("{writer}/{n}"), &stamp(n), [writer; 32]));
                    known.close();
                });
            }
        });
        let known = memo.of("r");
        for (writer, n) in (0..4).flat_map(|writer| (0..1000).map(move |n| (writer, n))) {
            assert_eq!(known.get(&format!("{writer}/{n}"), &stamp(n)), Some([writer; 32]));
        }
    }

    #[test]
    fn outdated_lines_are_cleaned_up() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::in_folder(folder.path());
        let known = memo.of("r");
        (0..=SLACK as u64 + 3).for_each(|n| known.add("a", &stamp(n), [1; 32]));
        known.close();
        memo.of("r").close();
        let known = memo.of("r");
        assert_eq!(known.lines, 1);
        assert_eq!(known.get("a", &stamp(SLACK as u64 + 3)), Some([1; 32]), "the last line counts");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_memo_that_cannot_be_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let known = Memo::in_folder(folder.path().join("file")).of("r");
        known.add("a", &stamp(1), [1; 32]);
        known.close();
    }
}
