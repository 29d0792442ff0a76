//! Data sets whose files lie in a store: the same samples as from a folder, and failures that are told apart.
//!
//! The store is a map in memory of flat keys, as a bucket has them.

#![expect(clippy::unwrap_used, reason = "a test file: helpers outside `#[test]` panic too")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dataset::{
    Dataset, Error, Files, Keys, Kind, Listed, Listing, Memo, OpenOptions, Opener, Result, Split, open,
    open_with,
};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};

type Contents = BTreeMap<String, Vec<u8>>;

#[derive(Debug)]
struct Store {
    url: String,
    keys: Keys,
    contents: Contents,
    down: AtomicBool,
    reads: AtomicUsize,
}

impl Store {
    fn new(contents: &Contents, tag: impl Fn(&[u8]) -> Option<String>) -> Arc<Self> {
        let key = |(path, bytes): (&String, &Vec<u8>)| Listed {
            path: path.clone(),
            bytes: bytes.len() as u64,
            tag: tag(bytes),
        };
        Arc::new(Self {
            url: "mem://bucket/set".into(),
            keys: Keys::new(contents.iter().map(key)),
            contents: contents.clone(),
            down: AtomicBool::new(false),
            reads: AtomicUsize::new(0),
        })
    }

    fn untagged(contents: &Contents) -> Arc<Self> {
        Self::new(contents, |_| None)
    }

    fn tagged(contents: &Contents) -> Arc<Self> {
        Self::new(contents, |bytes| Some(format!("\"{bytes:?}\"")))
    }

    fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::Relaxed)
    }
}

impl Files for Store {
    fn place(&self, path: &str) -> PathBuf {
        format!("{}/{path}", self.url).trim_end_matches('/').into()
    }

    fn kind(&self, path: &str) -> Result<Kind> {
        Ok(self.keys.kind(path))
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        Ok(self.keys.folders(folder))
    }

    fn list(&self, folder: &str, extensions: &[&str]) -> Result<Listing> {
        match self.keys.kind(folder) {
            Kind::Folder => Ok(self.keys.list(folder, extensions)),
            _ => Err(Error::NotFound { path: self.place(folder) }),
        }
    }

    fn read(&self, file: &Listed) -> Result<Vec<u8>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let path = self.place(&file.path);
        if self.down.load(Ordering::Relaxed) {
            return Err(Error::Store { path, source: "connection reset".into() });
        }
        let bytes = self.contents.get(&file.path).cloned();
        bytes.ok_or_else(|| Error::File { path, reason: "no such key".into() })
    }

    fn readers(&self) -> usize {
        7
    }
}

fn opener(store: &Arc<Store>) -> impl Fn(&str) -> Result<Arc<dyn Files>> {
    let store = Arc::clone(store);
    move |root| {
        assert_eq!(root, store.url, "the opener gets the root as it was typed");
        Ok(store.clone())
    }
}

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn picture(shade: u8) -> Vec<u8> {
    encoded(RgbImage::from_fn(6, 5, |x, y| Rgb([shade, x as u8 * 40, y as u8 * 40])), ImageFormat::Png)
}

fn contents(files: &[(&str, Vec<u8>)]) -> Contents {
    files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect()
}

/// Pictures, a cut-off JPEG, an empty file, words, hidden files.
fn photos() -> Contents {
    let jpeg = encoded(RgbImage::from_pixel(16, 16, Rgb([9, 90, 200])), ImageFormat::Jpeg);
    contents(&[
        ("b/two.PNG", picture(2)),
        ("b-1.png", picture(1)),
        ("a.jpg", jpeg.clone()),
        ("cut.jpg", jpeg[..jpeg.len() / 2].to_vec()),
        ("empty.png", vec![]),
        ("words.png", b"words".to_vec()),
        ("notes.txt", b"no picture".to_vec()),
        (".hidden/x.png", picture(3)),
    ])
}

fn camvid() -> Contents {
    let label = |value| encoded(GrayImage::from_pixel(6, 5, Luma([value])), ImageFormat::Png);
    let wrong = encoded(GrayImage::new(9, 9), ImageFormat::Png);
    contents(&[
        ("images/train/x.png", picture(1)),
        ("labels/train/x.png", label(3)),
        ("images/train/deep/y.png", picture(2)),
        ("labels/train/deep/y.png", label(11)),
        ("images/train/alone.png", picture(3)),
        ("labels/train/lost.png", label(1)),
        ("images/val/x.png", picture(4)),
        ("labels/val/x.png", label(99)),
        ("images/val/z.png", picture(4)),
        ("labels/val/z.png", wrong),
        ("images/test/q.png", picture(5)),
    ])
}

fn write(root: &Path, contents: &Contents) {
    for (path, bytes) in contents {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), bytes).unwrap();
    }
}

/// Everything that a data set says, with places cut out of messages.
fn all(dataset: &dyn Dataset, root: &str) -> Vec<String> {
    let sample = |i: usize| match dataset.load(i) {
        Ok(sample) => format!("{sample:?}"),
        Err(error) => format!("{} {}", error.is_sample(), error.to_string().replace(root, "ROOT")),
    };
    let mut said = vec![dataset.fingerprint().unwrap(), format!("{:?}", dataset.problems())];
    said.push(format!("{} {:?}", dataset.name(), dataset.classes()));
    said.extend((0..dataset.len()).flat_map(|i| [dataset.id(i).to_owned(), sample(i)]));
    said
}

#[test]
fn a_store_gives_what_a_folder_gives() {
    for (kind, contents, split, len) in [
        ("folder", photos(), Split::All, 6),
        ("camvid", camvid(), Split::Train, 2),
        ("camvid", camvid(), Split::Test, 1),
        ("camvid", camvid(), Split::All, 5),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &contents);
        let root = folder.path().to_str().unwrap();
        let here = open(&format!("{kind}:{root}"), split).unwrap();
        for store in [Store::untagged(&contents), Store::tagged(&contents)] {
            let there = open_with(&format!("{kind}:{}", store.url), split, &opener(&store)).unwrap();
            assert_eq!(there.len(), len);
            assert_eq!(all(&*here, root), all(&*there, &store.url), "{kind} {split}");
        }
    }
}

/// Every file below a folder.
fn read_all(root: &Path) -> Contents {
    let mut contents = Contents::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                    contents.insert(name, fs::read(path).unwrap());
                }
            }
        }
    }
    contents
}

#[test]
fn published_layouts_are_read_from_a_store_as_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let small = dataset::stand_in::StandIn { train: 2, val: 1, size: 16, seed: 0 };
    dataset::stand_in::all(folder.path(), &small).unwrap();
    fs::remove_file(folder.path().join("potsdam/gt/1.mat")).unwrap();
    let root = folder.path().to_str().unwrap();
    let store = Store::tagged(&read_all(folder.path()));
    for kind in ["cocostuff27", "cityscapes27", "potsdam3"] {
        for split in [Split::Train, Split::Val, Split::All] {
            let here = open(&format!("{kind}:{root}"), split).unwrap();
            let there = open_with(&format!("{kind}:{}", store.url), split, &opener(&store)).unwrap();
            assert_eq!(all(&*here, root), all(&*there, &store.url), "{kind} {split}");
        }
    }
    store.down.store(true, Ordering::Relaxed);
    let error = open_with(&format!("cocostuff27:{}", store.url), Split::Val, &opener(&store)).err().unwrap();
    assert!(matches!(error, Error::Store { .. }), "{error}");
}

#[test]
fn class_folders_of_a_store_are_those_of_a_folder() {
    let mut contents = contents(&[
        ("train/dog/b.png", picture(1)),
        ("train/dog/deep/a.png", picture(2)),
        ("train/ant/z.png", picture(3)),
        ("val/cat/q.png", picture(4)),
    ]);
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &contents);
    fs::create_dir(folder.path().join("train/bee")).unwrap();
    contents.insert("train/bee/".into(), vec![]); // a marker: a folder with nothing in it
    let (root, store) = (folder.path().to_str().unwrap(), Store::untagged(&contents));
    for split in [Split::Train, Split::Val, Split::All] {
        let here = dataset::ClassFolder::open(folder.path(), split).unwrap();
        let there = opener(&store);
        let there = OpenOptions::new().opener(&there).open_classes(&store.url, split).unwrap();
        assert_eq!(all(&here, root), all(&there, &store.url));
        assert_eq!(here.class_names(), there.class_names());
        assert!((0..here.len()).all(|i| here.class(i) == there.class(i)));
    }
    let there = opener(&store);
    let error = OpenOptions::new().opener(&there).open_classes(&store.url, Split::Test).err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("found train, val"), "{error}");
}

/// An opener that is a type of its own rather than a function.
struct Bucket(Arc<Store>);

impl Opener for Bucket {
    fn files(&self, _: &str) -> Result<Arc<dyn Files>> {
        Ok(self.0.clone())
    }
}

#[test]
fn a_bare_url_is_a_folder_of_pictures() {
    let store = Store::untagged(&photos());
    let photos = open_with(&store.url, Split::All, &Bucket(store.clone())).unwrap();
    assert_eq!((photos.name(), photos.id(0)), ("folder", "a"));
}

#[test]
fn what_is_not_there_is_a_usage_error_that_names_the_url() {
    let store = Store::untagged(&Contents::new());
    for kind in ["folder", "camvid"] {
        let spec = format!("{kind}:{}", store.url);
        let error = open_with(&spec, Split::Train, &opener(&store)).err().unwrap();
        assert!(error.is_usage(), "{error}");
        assert_eq!(error.to_string(), "there is no folder mem://bucket/set");
    }
    let refuse = |root: &str| -> Result<Arc<dyn Files>> { Err(Error::NoSource { root: root.into() }) };
    assert!(open_with("folder:gopher://x", Split::All, &refuse).err().unwrap().is_usage());
    assert!(open("folder:mem://bucket/set", Split::All).err().unwrap().is_usage());
}

#[test]
fn a_store_that_is_down_blames_no_sample_and_a_missing_file_does() {
    let contents = contents(&[("x.png", picture(1)), ("y.png", picture(2))]);
    let store = Store::untagged(&contents);
    let spec = format!("folder:{}", store.url);
    let dataset = open_with(&spec, Split::All, &opener(&store)).unwrap();
    store.down.store(true, Ordering::Relaxed);
    for error in [dataset.load(0).unwrap_err(), dataset.fingerprint().unwrap_err()] {
        assert!(matches!(error, Error::Store { .. }) && !error.is_sample() && !error.is_usage(), "{error}");
        assert!(error.to_string().contains("mem://bucket/set/"), "{error}");
    }
    store.down.store(false, Ordering::Relaxed);
    let whole = dataset.fingerprint().unwrap();

    let listed = Store::untagged(&contents);
    let gone = Arc::new(Store {
        url: listed.url.clone(),
        keys: listed.keys.clone(),
        contents: self::contents(&[("y.png", picture(2))]),
        down: AtomicBool::new(false),
        reads: AtomicUsize::new(0),
    });
    let dataset = open_with(&spec, Split::All, &opener(&gone)).unwrap();
    let error = dataset.load(0).unwrap_err();
    assert!(error.is_sample());
    assert_eq!(error.to_string(), "cannot read image mem://bucket/set/x.png: no such key");
    assert_ne!(dataset.fingerprint().unwrap(), whole);
}

#[test]
fn a_memo_knows_files_by_their_tags_and_not_without() {
    let memory = tempfile::tempdir().unwrap();
    let fingerprint = |store: &Arc<Store>, memo: bool| {
        let opener = opener(store);
        let memo = memo.then(|| Memo::in_folder(memory.path()));
        let options = OpenOptions::new().opener(&opener).memo(memo);
        let dataset = options.open(&format!("camvid:{}", store.url), Split::Train).unwrap();
        (dataset.fingerprint().unwrap(), store.reads())
    };
    let mut contents = camvid();
    let (first, reads) = fingerprint(&Store::tagged(&contents), true);
    assert_eq!(reads, 4);
    assert_eq!(fingerprint(&Store::tagged(&contents), true), (first.clone(), 0));
    assert_eq!(fingerprint(&Store::untagged(&contents), true), (first.clone(), 4));
    let label = contents.get_mut("labels/train/x.png").unwrap();
    *label.last_mut().unwrap() ^= 1; // the same length
    let (second, reads) = fingerprint(&Store::tagged(&contents), true);
    assert_eq!(reads, 1);
    assert_ne!(first, second);
    assert_eq!(fingerprint(&Store::tagged(&contents), false), (second, 4));
}
