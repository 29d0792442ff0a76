//! What is in the files of a data set: one SHA-256 a file, many files at once, from memory where nothing changed.
//!
//! A file that cannot be read counts as [`Content::Unreadable`], as it will give no sample; a source that fails is an
//! error. With a [`Memo`](crate::Memo), a file whose stamp is known is not read.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use crate::memo::Known;
use crate::source::Source;
use crate::{Listed, Result};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Bytes of this hash.
    Sha256([u8; 32]),
    /// Nothing that could be read.
    Unreadable,
}

impl Source {
    /// `files` with their contents, in the same order.
    pub(crate) fn contents<'a>(&self, files: &[&'a Listed]) -> Result<Vec<(&'a Listed, Content)>> {
        let known = self.memo.as_ref().and_then(|memo| Some(memo.of(&self.files.identity()?)));
        let contents = self.in_parallel(files, known.as_ref());
        if let Some(known) = known {
            known.close();
        }
        Ok(files.iter().copied().zip(contents?).collect())
    }

    fn in_parallel(&self, files: &[&Listed], known: Option<&Known>) -> Result<Vec<Content>> {
        let (next, readers) = (AtomicUsize::new(0), self.files.readers().clamp(1, files.len().max(1)));
        let reader = || self.reader(files, &next, known);
        let parts = thread::scope(|scope| {
            let readers: Vec<_> = (0..readers).map(|_| scope.spawn(reader)).collect();
            let parts = readers.into_iter().map(|reader| reader.join().unwrap_or_else(|e| resume_unwind(e)));
            parts.collect::<Result<Vec<_>>>()
        })?;
        let mut contents = vec![Content::Unreadable; files.len()];
        parts.into_iter().flatten().for_each(|(i, content)| contents[i] = content);
        Ok(contents)
    }

    /// Takes file after file until none is left, or one fails.
    fn reader(
        &self,
        files: &[&Listed],
        next: &AtomicUsize,
        known: Option<&Known>,
    ) -> Result<Vec<(usize, Content)>> {
        let mut contents = Vec::new();
        while let i = next.fetch_add(1, Ordering::Relaxed)
            && i < files.len()
        {
            match self.content(files[i], known) {
                Ok(content) => contents.push((i, content)),
                Err(error) => {
                    next.store(files.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(contents)
    }

    fn content(&self, file: &Listed, known: Option<&Known>) -> Result<Content> {
        let Some(known) = known else { return self.hash(file) };
        let (now, stamp) = (known.now(), self.files.stamp(file));
        if let Some(hash) = stamp.as_ref().and_then(|stamp| known.get(&file.path, stamp)) {
            return Ok(Content::Sha256(hash));
        }
        let content = self.hash(file)?;
        // Only what was quiet before it was read, and while it was, may be remembered.
        if let (Content::Sha256(hash), Some(stamp)) = (content, stamp)
            && stamp.is_settled(now)
            && self.files.stamp(file).as_ref() == Some(&stamp)
        {
            known.add(&file.path, &stamp, hash);
        }
        Ok(content)
    }

    fn hash(&self, file: &Listed) -> Result<Content> {
        match self.bytes(file) {
            Ok(bytes) => Ok(Content::Sha256(Sha256::digest(bytes).into())),
            Err(error) if error.is_sample() => Ok(Content::Unreadable),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{Error, Files, Kind, Listing, Local, Memo, OpenOptions, Split, Stamp};

    /// A folder that counts what is read of it, and may suffer an edit right after.
    #[derive(Debug)]
    struct Counted {
        local: Local,
        reads: Arc<AtomicUsize>,
        edited: Option<&'static str>,
    }

    impl Files for Counted {
        fn place(&self, path: &str) -> PathBuf {
            self.local.place(path)
        }

        fn kind(&self, path: &str) -> Result<Kind> {
            self.local.kind(path)
        }

        fn folders(&self, folder: &str) -> Result<Vec<String>> {
            self.local.folders(folder)
        }

        fn list(&self, folder: &str, extensions: &[&str]) -> Result<Listing> {
            self.local.list(folder, extensions)
        }

        fn read(&self, file: &Listed) -> Result<Vec<u8>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let bytes = self.local.read(file);
            if self.edited == Some(file.path.as_str()) {
                fs::write(self.place(&file.path), "changed").unwrap();
            }
            bytes
        }

        fn identity(&self) -> Option<String> {
            self.local.identity()
        }

        fn stamp(&self, file: &Listed) -> Option<Stamp> {
            self.local.stamp(file)
        }
    }

    /// Fingerprint of a folder, and the number of files read for it.
    fn look(root: &Path, memo: Option<&Memo>) -> (String, usize) {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = |root: &str| -> Result<Arc<dyn Files>> {
            let root = root.trim_start_matches("counted://");
            Ok(Arc::new(Counted { local: Local::new(root), reads: Arc::clone(&reads), edited: None }))
        };
        let options = OpenOptions::new().opener(&counted).memo(memo.cloned());
        let dataset = options.open(&format!("folder:counted://{}", root.display()), Split::All).unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 0, "listing reads nothing");
        let fingerprint = dataset.fingerprint().unwrap();
        let read = reads.load(Ordering::Relaxed);
        assert_eq!(dataset.fingerprint().unwrap(), fingerprint);
        assert_eq!(reads.load(Ordering::Relaxed), read, "once per opened data set");
        (fingerprint, read)
    }

    /// 20 files of 7 bytes; their contents do not have to be pictures.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        (0..20).for_each(|n| fs::write(folder.path().join(name(n)), format!("file {n:02}")).unwrap());
        folder
    }

    fn name(n: usize) -> String {
        if n < 10 { format!("{n}.png") } else { format!("sub/{n}.jpg") }
    }

    fn touch(path: &Path) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(1000)).unwrap();
    }

    #[test]
    fn an_edit_of_the_same_length_is_seen_with_and_without_memo() {
        let (folder, memory) = (folder(), tempfile::tempdir().unwrap());
        let memo = Memo::of_tomorrow(memory.path());
        let before = look(folder.path(), None);
        assert_eq!(before.1, 20);
        assert_eq!(look(folder.path(), Some(&memo)), before);
        assert_eq!(look(folder.path(), Some(&memo)), (before.0.clone(), 0), "warm: no file is read");
        fs::write(folder.path().join(name(3)), "FILE 03").unwrap();
        let after = look(folder.path(), None);
        assert_ne!(before.0, after.0);
        assert_eq!(look(folder.path(), Some(&memo)), (after.0.clone(), 1), "only what changed is read");
        assert_eq!(look(folder.path(), Some(&memo)), (after.0, 0));
    }

    #[test]
    fn times_and_places_do_not_count() {
        let (folder, memory) = (folder(), tempfile::tempdir().unwrap());
        let memo = Memo::of_tomorrow(memory.path());
        let before = look(folder.path(), Some(&memo));
        touch(&folder.path().join(name(11)));
        assert_eq!(look(folder.path(), None), before);
        assert_eq!(look(folder.path(), Some(&memo)), (before.0.clone(), 1));
        let copy = self::folder();
        assert_eq!(look(copy.path(), Some(&memo)), before, "a memo is of one place");
        fs::rename(copy.path().join(name(1)), copy.path().join("1b.png")).unwrap();
        assert_ne!(look(copy.path(), None).0, before.0);
    }

    #[test]
    fn young_files_are_never_remembered() {
        let (folder, memory) = (folder(), tempfile::tempdir().unwrap());
        let memo = Memo::in_folder(memory.path());
        for _ in 0..2 {
            assert_eq!(look(folder.path(), Some(&memo)).1, 20);
        }
    }

    #[test]
    fn a_damaged_memo_is_harmless() {
        let (folder, memory) = (folder(), tempfile::tempdir().unwrap());
        let memo = Memo::of_tomorrow(memory.path());
        let (expected, _) = look(folder.path(), Some(&memo));
        let path = fs::read_dir(memory.path()).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&path).unwrap();
        let damaged = [&whole[..whole.len() / 2], b"\xff\0 no line at all \n\n", &whole[..40]].concat();
        fs::write(&path, damaged).unwrap();
        let (fingerprint, reads) = look(folder.path(), Some(&memo));
        assert_eq!(fingerprint, expected);
        assert!((9..=11).contains(&reads), "{reads}");
        assert_eq!(look(folder.path(), Some(&memo)), (expected, 0));
    }

    #[test]
    fn two_contents_that_change_places_are_seen() {
        let (folder, memory) = (folder(), tempfile::tempdir().unwrap());
        let memo = Memo::of_tomorrow(memory.path());
        let (before, _) = look(folder.path(), Some(&memo));
        let path = |n: usize| folder.path().join(name(n));
        fs::rename(path(0), path(0).with_extension("aside")).unwrap();
        fs::rename(path(1), path(0)).unwrap();
        fs::rename(path(0).with_extension("aside"), path(1)).unwrap();
        let (after, reads) = look(folder.path(), Some(&memo));
        assert_eq!((after.clone(), reads), (look(folder.path(), None).0, 2));
        assert_ne!(before, after);
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_remembered() {
        let (folder, memory) = (folder(), tempfile::tempdir().unwrap());
        let memo = Memo::of_tomorrow(memory.path());
        std::thread::sleep(Duration::from_millis(20)); // a tick of the file system's clock
        let (local, reads) = (Local::new(folder.path()), Arc::default());
        let files = local.list("", &["png", "jpg"]).unwrap().files;
        let source = Source {
            files: Arc::new(Counted { local, reads, edited: Some("3.png") }),
            memo: Some(memo.clone()),
        };
        source.contents(&files.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(look(folder.path(), Some(&memo)), (look(folder.path(), None).0, 1));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_gone_after_listing_counts_as_unreadable() {
        let folder = folder();
        let source = Source::local(folder.path());
        let files = source.list("", &["png", "jpg"]).unwrap().files;
        fs::remove_file(folder.path().join(name(0))).unwrap();
        let contents = source.contents(&files.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(contents.iter().filter(|(_, content)| *content == Content::Unreadable).count(), 1);
        assert_eq!((contents[0].0.path.as_str(), contents[0].1), ("0.png", Content::Unreadable));
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let source = Source::local(Path::new("nowhere"));
        let file = Listed { path: "x.png".into(), bytes: 1 << 40, tag: None };
        let error = source.bytes(&file).unwrap_err();
        assert!(matches!(error, Error::File { .. }) && error.to_string().contains("more than"), "{error}");
    }
}
