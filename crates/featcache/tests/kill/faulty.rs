//! A store that counts its operations and does something to the one that it was told to.
//!
//! Everything that a store is asked for is an operation, each part of an upload included. The traits are written out as
//! `async_trait` would, which saves a dependency.

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What becomes of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not happen.
    Before,
    /// It happens, but its answer is lost.
    After,
    /// Half of the bytes are read, without an error, or half of them are written, with one.
    Half,
    /// A part of an upload is not stored, without an error; nothing happens to other operations.
    LostPart,
}

/// What becomes of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It goes on as it can: the next operations succeed.
    Goes,
    /// It is as good as dead: every later operation fails.
    Dies,
    /// It says so and waits to be killed.
    Waits,
}

/// What is to happen, and what has happened.
#[derive(Debug)]
pub(crate) struct Script {
    /// The operation that is struck, from 1.
    at: usize,
    fault: Fault,
    then: Then,
    /// Operations take small times, which follow from this.
    delays: Option<u64>,
    /// The operation waits here twice: to say that it is there, and to be let go.
    stall: Option<Arc<Barrier>>,
    begun: Mutex<Vec<&'static str>>,
    ended: AtomicUsize,
    overtaken: AtomicUsize,
}

impl Script {
    pub(crate) fn new(at: usize, fault: Fault, then: Then) -> Self {
        Self {
            at,
            fault,
            then,
            delays: None,
            stall: None,
            begun: Mutex::default(),
            ended: AtomicUsize::new(0),
            overtaken: AtomicUsize::new(0),
        }
    }

    /// Nothing but delays.
    pub(crate) fn slow(seed: u64) -> Self {
        Self::new(usize::MAX, Fault::Before, Then::Goes).slowly(seed)
    }

    /// Nothing but one operation that waits.
    pub(crate) fn stalling(at: usize, stall: Arc<Barrier>) -> Self {
        Self { stall: Some(stall), ..Self::new(at, Fault::Before, Then::Goes) }
    }

    /// The same, with delays.
    pub(crate) fn slowly(self, seed: u64) -> Self {
        Self { delays: Some(seed), ..self }
    }

    /// The names of the operations until now.
    pub(crate) fn operations(&self) -> Vec<&'static str> {
        self.begun.lock().unwrap().clone()
    }

    /// Whether it came to the operation that was to be struck.
    pub(crate) fn struck(&self) -> bool {
        self.begun.lock().unwrap().len() >= self.at
    }

    /// Operations that ended before one that had begun earlier.
    pub(crate) fn overtaken(&self) -> usize {
        self.overtaken.load(Ordering::SeqCst)
    }

    /// What is to happen to an operation that begins now, and its number.
    fn begin(&self, name: &'static str) -> (Option<Fault>, usize) {
        let number = {
            let mut begun = self.begun.lock().unwrap();
            begun.push(name);
            begun.len()
        };
        if let Some(stall) = &self.stall {
            if number == self.at {
                stall.wait();
                stall.wait();
            }
            return (None, number);
        }
        let dead = number > self.at && self.then != Then::Goes;
        let fault = match number == self.at {
            true => Some(self.fault),
            false => dead.then_some(Fault::Before),
        };
        if fault == Some(Fault::Before) {
            self.end_of_program(number);
        }
        (fault, number)
    }

    /// Where the program waits to be killed, if it is to.
    fn end_of_program(&self, number: usize) {
        if self.then == Then::Waits {
            say(&format!("struck {number}"));
            loop {
                std::thread::park();
            }
        }
    }

    async fn delay(&self, number: usize, is_part: bool) {
        let Some(seed) = self.delays else { return };
        let draw = (seed ^ number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) % 1000;
        if is_part {
            for _ in 0..draw % 16 {
                tokio::task::yield_now().await;
            }
        } else {
            // Every thread drives its own futures.
            std::thread::sleep(Duration::from_micros(draw));
        }
    }

    fn end(&self, number: usize) {
        let others = self.ended.fetch_add(1, Ordering::SeqCst);
        if others + 1 < number {
            self.overtaken.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Carries out one operation, or not; `half` is what is done instead if only half of it is to be.
    async fn run<T>(
        &self,
        name: &'static str,
        whole: impl Future<Output = Result<T>>,
        half: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (fault, number) = self.begin(name);
        self.finish((fault, number), name == "put part", whole, half).await
    }

    async fn finish<T>(
        &self,
        (fault, number): (Option<Fault>, usize),
        is_part: bool,
        whole: impl Future<Output = Result<T>>,
        half: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.delay(number, is_part).await;
        let result = match fault {
            None | Some(Fault::LostPart) => whole.await,
            Some(Fault::Before) => Err(broken()),
            Some(Fault::After) => {
                let _ = whole.await;
                self.end_of_program(number);
                Err(broken())
            }
            Some(Fault::Half) => half.await,
        };
        self.end(number);
        result
    }
}

/// A line for the process that started this one.
pub(crate) fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\n@{what}");
    let _ = out.flush();
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "broken".into() }
}

fn half_of(payload: &PutPayload) -> PutPayload {
    let all: Vec<u8> = payload.iter().flat_map(|bytes| bytes.to_vec()).collect();
    Bytes::from(all[..all.len() / 2].to_vec()).into()
}

/// A wrapper around any store.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) script: Arc<Script>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

impl ObjectStore for Faulty {
    fn put_opts<'s, 'p, 'a>(
        &'s self,
        path: &'p Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Later<'a, PutResult>
    where
        's: 'a,
        'p: 'a,
    {
        Box::pin(async move {
            let (cut, same) = (half_of(&payload), options.clone());
            let half = async {
                self.inner.put_opts(path, cut, same).await?;
                Err(broken())
            };
            self.script.run("put", self.inner.put_opts(path, payload, options), half).await
        })
    }

    fn get_opts<'s, 'p, 'a>(&'s self, path: &'p Path, options: GetOptions) -> Later<'a, GetResult>
    where
        's: 'a,
        'p: 'a,
    {
        Box::pin(async move {
            let (name, same) = (if options.head { "head" } else { "get" }, options.clone());
            let half = async {
                if same.head {
                    return Err(broken());
                }
                let GetResult { meta, range, attributes, payload } = self.inner.get_opts(path, same).await?;
                let whole = GetResult { meta: meta.clone(), range: range.clone(), attributes, payload };
                let attributes = whole.attributes.clone();
                let bytes = whole.bytes().await?;
                let cut = bytes.slice(..bytes.len() / 2);
                let payload = GetResultPayload::Stream(futures::stream::once(async move { Ok(cut) }).boxed());
                Ok(GetResult { payload, meta, range, attributes })
            };
            self.script.run(name, self.inner.get_opts(path, options), half).await
        })
    }

    fn get_ranges<'s, 'p, 'r, 'a>(&'s self, path: &'p Path, ranges: &'r [Range<u64>]) -> Later<'a, Vec<Bytes>>
    where
        's: 'a,
        'p: 'a,
        'r: 'a,
    {
        Box::pin(async move {
            let half = async {
                let whole = self.inner.get_ranges(path, ranges).await?;
                Ok(whole.into_iter().map(|bytes| bytes.slice(..bytes.len() / 2)).collect())
            };
            self.script.run("get ranges", self.inner.get_ranges(path, ranges), half).await
        })
    }

    fn list_with_delimiter<'s, 'p, 'a>(&'s self, prefix: Option<&'p Path>) -> Later<'a, ListResult>
    where
        's: 'a,
        'p: 'a,
    {
        Box::pin(async move {
            let half = async { Err(broken()) }; // the half of a listing is no listing
            self.script.run("list", self.inner.list_with_delimiter(prefix), half).await
        })
    }

    fn put_multipart_opts<'s, 'p, 'a>(
        &'s self,
        path: &'p Path,
        options: PutMultipartOptions,
    ) -> Later<'a, Box<dyn MultipartUpload>>
    where
        's: 'a,
        'p: 'a,
    {
        Box::pin(async move {
            let half = async { Err(broken()) };
            let begun = self.inner.put_multipart_opts(path, options);
            let inner = self.script.run("begin upload", begun, half).await?;
            Ok(Box::new(Upload { inner, script: self.script.clone() }) as Box<dyn MultipartUpload>)
        })
    }

    fn copy_opts<'s, 'f, 't, 'a>(
        &'s self,
        from: &'f Path,
        to: &'t Path,
        options: CopyOptions,
    ) -> Later<'a, ()>
    where
        's: 'a,
        'f: 'a,
        't: 'a,
    {
        Box::pin(async move {
            let half = async {
                let bytes = self.inner.get(from).await?.bytes().await?;
                self.inner.put(to, bytes.slice(..bytes.len() / 2).into()).await?;
                Err(broken())
            };
            self.script.run("copy", self.inner.copy_opts(from, to, options), half).await
        })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, script) = (self.inner.clone(), self.script.clone());
        let delete = move |path: Result<Path>| {
            let (inner, script) = (inner.clone(), script.clone());
            async move {
                let path = path?;
                let half = async { Err(broken()) };
                script.run("delete", inner.delete(&path), half).await.map(|()| path.clone())
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix) // nothing that writes a cache uses it
    }
}

#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    script: Arc<Script>,
}

impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let script = self.script.clone();
        let (fault, number) = script.begin("put part");
        let part = match fault {
            Some(Fault::Before) => return Box::pin(async { Err(broken()) }),
            Some(Fault::LostPart) => return Box::pin(async { Ok(()) }),
            Some(Fault::Half) => {
                let part = self.inner.put_part(half_of(&data));
                return Box::pin(async move { part.await.and(Err(broken())) });
            }
            Some(Fault::After) | None => self.inner.put_part(data),
        };
        Box::pin(async move { script.finish((fault, number), true, part, async { Err(broken()) }).await })
    }

    fn complete<'s, 'a>(&'s mut self) -> Later<'a, PutResult>
    where
        's: 'a,
    {
        Box::pin(async move {
            let half = async { Err(broken()) };
            self.script.clone().run("complete", self.inner.complete(), half).await
        })
    }

    fn abort<'s, 'a>(&'s mut self) -> Later<'a, ()>
    where
        's: 'a,
    {
        Box::pin(async move {
            let half = async { Err(broken()) };
            self.script.clone().run("abort", self.inner.abort(), half).await
        })
    }
}
