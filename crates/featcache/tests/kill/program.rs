//! A process of its own: this test program again, told to do one thing, and to be killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use featcache::{Cache, Form, Opened, Store};
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use crate::bulk::Bulk;
use crate::faulty::{Fault, Faulty, Script, Then, say};
use crate::fixture::Bucket;
use crate::work::{Job, Work};

/// Where the cache is.
#[derive(Clone)]
pub(crate) enum Site<'a> {
    Folder(String),
    S3(&'a Bucket, String),
}

impl Site<'_> {
    pub(crate) fn store(&self) -> Store {
        match self {
            Self::Folder(path) => Store::open(path).unwrap(),
            Self::S3(bucket, prefix) => bucket.store(prefix),
        }
    }
}

/// A running process.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    /// Shards that it began to compute.
    pub(crate) computed: usize,
}

impl Program {
    /// Starts one that fills the small cache and waits to be killed at operation `at`.
    pub(crate) fn struck(site: &Site<'_>, at: usize, fault: Fault) -> Self {
        Self::start(site, &format!("struck {at} {fault:?}"))
    }

    /// Starts one that fills a large cache.
    pub(crate) fn bulk(site: &Site<'_>, bulk: Bulk) -> Self {
        Self::start(site, &format!("bulk {} {}", bulk.shards, bulk.side))
    }

    /// Starts one that writes its part of a large cache and does not commit.
    pub(crate) fn task(site: &Site<'_>, bulk: Bulk, task: usize, tasks: usize) -> Self {
        Self::start(site, &format!("task {} {} {task} {tasks}", bulk.shards, bulk.side))
    }

    fn start(site: &Site<'_>, order: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "program::does_as_it_is_told", "--nocapture"]);
        command.env("FEATLAB_KILL_ORDER", order).stdout(Stdio::piped()).stderr(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        match site {
            Site::Folder(path) => command.env("FEATLAB_KILL_PLACE", path),
            Site::S3(bucket, prefix) => {
                command.env("FEATLAB_KILL_PLACE", format!("s3://bucket/{prefix}")).envs(bucket.environment())
            }
        };
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix('@') {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        Self { child, lines, computed: 0 }
    }

    /// The next thing that it says about something else than a shard; `None` when it has ended.
    pub(crate) fn listen(&mut self) -> Option<String> {
        loop {
            match self.lines.recv().ok()?.as_str() {
                "computing" => self.computed += 1,
                other => return Some(other.to_owned()),
            }
        }
    }

    /// Waits until it computes.
    pub(crate) fn wait_for_work(&mut self) {
        assert_eq!(self.lines.recv().unwrap(), "computing");
        self.computed += 1;
    }

    /// SIGKILL; whether it came in time.
    pub(crate) fn kill(mut self) -> Killed {
        let _ = self.child.kill();
        let in_time = !self.child.wait().unwrap().success();
        while self.listen().is_some() {}
        Killed { in_time, computed: self.computed }
    }

    pub(crate) fn end(mut self) {
        let last = std::iter::from_fn(|| self.listen()).last();
        assert!(self.child.wait().unwrap().success() && last.as_deref() == Some("done"), "{last:?}");
    }
}

pub(crate) struct Killed {
    pub(crate) in_time: bool,
    pub(crate) computed: usize,
}

/// The store that an order is about, by the operations of `object_store` that can be struck.
fn wrapped(place: &str, script: Arc<Script>) -> Store {
    let (inner, prefix): (Arc<dyn ObjectStore>, Path) = match place.strip_prefix("s3://bucket/") {
        Some(prefix) => {
            let client = AmazonS3Builder::from_env().with_bucket_name("bucket").build().unwrap();
            (Arc::new(client), Path::from(prefix))
        }
        None => (Arc::new(LocalFileSystem::new_with_prefix(place).unwrap()), Path::default()),
    };
    Store::from_object_store(Arc::new(Faulty { inner, script }), prefix, place)
}

/// A program that nobody kills fills its cache. In the program itself, which is told so, this is where it works.
#[test]
fn does_as_it_is_told() {
    if let Ok(order) = std::env::var("FEATLAB_KILL_ORDER") {
        return obey(&order);
    }
    let folder = tempfile::tempdir().unwrap();
    let site = Site::Folder(folder.path().to_str().unwrap().to_owned());
    Program::bulk(&site, Bulk { shards: 3, side: 4 }).end();
    let cache = Cache::open(site.store()).unwrap();
    assert_eq!((cache.manifest().shards.len(), cache.verify(&mut |_| {}).unwrap()), (3, vec![]));
}

/// What a [`Program`] does.
fn obey(order: &str) {
    let place = std::env::var("FEATLAB_KILL_PLACE").unwrap();
    let words: Vec<&str> = order.split(' ').collect();
    let number = |word: usize| words[word].parse::<usize>().unwrap();
    let mut computing = || say("computing");
    match words[0] {
        "struck" => {
            let fault = if words[2] == "After" { Fault::After } else { Fault::Before };
            let store = wrapped(&place, Arc::new(Script::new(number(1), fault, Then::Waits)));
            Job::new(Form::Binary, Work::Fill).aloud().run(&store).unwrap();
        }
        "bulk" => {
            let bulk = Bulk { shards: number(1), side: number(2) };
            bulk.fill(&Store::open(&place).unwrap(), &mut computing).unwrap();
        }
        "task" => {
            let bulk = Bulk { shards: number(1), side: number(2) };
            let Opened::Resume(writer) = bulk.open(&Store::open(&place).unwrap()).unwrap() else {
                panic!("nobody was to commit")
            };
            bulk.write(&writer, (number(3), number(4)), &mut computing).unwrap();
        }
        other => panic!("{other}"),
    }
    say("done");
}
