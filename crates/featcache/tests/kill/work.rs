//! What is interrupted: filling a cache of any form, mending one, converting one; and what must be there in the end.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use featcache::{Cache, Dtype, Form, Opened, Result, Store, Writer, WriterOptions, convert, gc};
use object_store::path::Path;

use crate::faulty::say;
use crate::fixture::{SAMPLES, contents, golden, key, layout, options, write};

pub(crate) const SHARDS: usize = 6;
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A way to make the cache.
#[derive(Clone)]
pub(crate) enum Work {
    Fill,
    /// Looks for damage first.
    Mend,
    Convert(Cache),
}

/// How a cache is made, and how many shards that computed.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) form: Form,
    pub(crate) work: Work,
    computed: Arc<AtomicUsize>,
    aloud: bool,
}

impl Job {
    pub(crate) fn new(form: Form, work: Work) -> Self {
        Self { form, work, computed: Arc::default(), aloud: false }
    }

    /// Says so before each shard, for another process.
    pub(crate) fn aloud(self) -> Self {
        Self { aloud: true, ..self }
    }

    /// Counts a shard.
    pub(crate) fn computing(&self) {
        self.computed.fetch_add(1, Ordering::SeqCst);
        if self.aloud {
            say("computing");
        }
    }

    /// The shards that were computed since the last time.
    pub(crate) fn computed(&self) -> usize {
        self.computed.swap(0, Ordering::SeqCst)
    }

    /// Does all that remains.
    pub(crate) fn run(&self, store: &Store) -> Result<()> {
        if let Work::Convert(source) = &self.work {
            return convert(source, store.clone(), self.form, &mut |_| {
                self.computing();
                ControlFlow::Continue(())
            })
            .map(|_| ());
        }
        let opened = self.open(store, matches!(self.work, Work::Mend))?;
        let Opened::Resume(writer) = opened else { return Ok(()) };
        for planned in writer.missing() {
            self.computing();
            write(&writer, &planned)?;
        }
        writer.commit(golden()).map(|_| ())
    }

    pub(crate) fn open(&self, store: &Store, repair: bool) -> Result<Opened> {
        let options = WriterOptions { form: Some(self.form), repair, ..options() };
        Writer::open(store.clone(), key(Dtype::F16), layout(), SAMPLES, options)
    }

    /// The same in the end, with a look for damage.
    pub(crate) fn mending(&self) -> Self {
        Self { work: Work::Mend, ..self.clone() }
    }
}

/// What an uninterrupted run leaves.
pub(crate) fn reference(form: Form) -> (Cache, Files) {
    let inner = Arc::new(object_store::memory::InMemory::new());
    let store = Store::from_object_store(inner, Path::default(), "reference");
    Job::new(form, Work::Fill).run(&store).unwrap();
    (Cache::open(store.clone()).unwrap(), contents(&store))
}

/// The shards that are there, byte for byte.
pub(crate) fn whole(store: &Store, expected: &Files) -> usize {
    let there = contents(store);
    expected
        .iter()
        .filter(|(name, bytes)| name.starts_with("shard") && there.get(*name) == Some(bytes))
        .count()
}

/// After `gc` there is nothing but the reference, and `verify` finds nothing.
pub(crate) fn is_reference(store: &Store, expected: &Files, case: &str) {
    gc(store, Duration::ZERO, false).unwrap();
    let found = contents(store);
    assert!(found.keys().eq(expected.keys()), "{case}: {:?}", found.keys());
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{case}: {name} has other bytes");
    }
    assert!(store.leftovers().unwrap().is_empty(), "{case}: leftovers");
    let all = store.walk().unwrap();
    assert_eq!(all.len(), expected.len(), "{case}: {all:?}");
    let cache = Cache::open(store.clone()).unwrap();
    assert_eq!(cache.verify(&mut |_| {}).unwrap(), [], "{case}");
}
