//! A store that fails at its `k`-th operation, in one of the ways in which stores and processes do.

use std::fmt;
use std::future::ready;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What happens at the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not carried out; nor is anything after it.
    Before,
    /// It is carried out, but its answer is lost; nothing after it is carried out.
    After,
    /// Half of the bytes arrive: what is written is cut short and reported as failed, what is read is cut short without a word.
    Truncate,
    /// The process announces that it is there and waits to be killed, before the operation.
    WaitBefore,
    /// The same after it.
    WaitAfter,
    /// None, but every operation takes a while, another one each time, so that those of several threads pass one another.
    Delay,
}

/// Counts operations and fails one of them.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    at: usize,
    count: AtomicUsize,
}

/// What becomes of one operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    Lost,
    Unanswered,
    Truncated,
}

impl Faulty {
    /// Operation `at`, counted from 1, goes wrong.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, fault: Fault, at: usize) -> Self {
        Self { inner, state: Arc::new(State { fault, at, count: AtomicUsize::new(0) }) }
    }
}

impl Faulty {
    /// How many operations there were.
    pub(crate) fn operations(&self) -> usize {
        self.state.count.load(Ordering::SeqCst)
    }
}

impl State {
    fn fate(&self) -> Fate {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        match (self.fault, number.cmp(&self.at)) {
            (Fault::Delay, _) => {
                std::thread::sleep(Duration::from_micros((number as u64).wrapping_mul(2_654_435_761) % 3000));
                Fate::Fine
            }
            (_, std::cmp::Ordering::Less) => Fate::Fine,
            (Fault::Before, _) => Fate::Lost,
            (Fault::After, std::cmp::Ordering::Equal) => Fate::Unanswered,
            (Fault::After, _) => Fate::Lost,
            (Fault::Truncate, std::cmp::Ordering::Equal) => Fate::Truncated,
            (Fault::Truncate, _) => Fate::Fine,
            (Fault::WaitBefore, _) => {
                self.wait_to_be_killed();
                Fate::Lost
            }
            (Fault::WaitAfter, _) => Fate::Unanswered,
        }
    }

    fn wait_to_be_killed(&self) {
        println!("now");
        let _ = std::io::stdout().flush();
        std::thread::sleep(Duration::from_secs(600));
    }

    fn finish<T>(&self, fate: Fate, result: Result<T>) -> Result<T> {
        match fate {
            Fate::Fine => result,
            Fate::Lost | Fate::Unanswered | Fate::Truncated => {
                if self.fault == Fault::WaitAfter {
                    self.wait_to_be_killed();
                }
                Err(lost())
            }
        }
    }
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the connection is gone".into() }
}

fn half(payload: PutPayload) -> PutPayload {
    let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
    PutPayload::from(bytes[..bytes.len() / 2].to_vec())
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Written out as `async_trait` would, which saves a dependency.
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
            let fate = self.state.fate();
            let payload = if fate == Fate::Truncated { half(payload) } else { payload };
            match fate {
                Fate::Lost => Err(lost()),
                _ => self.state.finish(fate, self.inner.put_opts(path, payload, options).await),
            }
        })
    }

    fn get_opts<'s, 'p, 'a>(&'s self, path: &'p Path, options: GetOptions) -> Later<'a, GetResult>
    where
        's: 'a,
        'p: 'a,
    {
        Box::pin(async move {
            let fate = self.state.fate();
            match fate {
                Fate::Lost => Err(lost()),
                Fate::Truncated => {
                    let result = self.inner.get_opts(path, options).await?;
                    let (meta, range, attributes) =
                        (result.meta.clone(), result.range.clone(), result.attributes.clone());
                    let bytes = result.bytes().await?;
                    let cut = bytes.slice(..bytes.len() / 2);
                    let payload = GetResultPayload::Stream(stream::once(ready(Ok(cut))).boxed());
                    Ok(GetResult { payload, meta, range, attributes })
                }
                _ => self.state.finish(fate, self.inner.get_opts(path, options).await),
            }
        })
    }

    fn list_with_delimiter<'s, 'p, 'a>(&'s self, prefix: Option<&'p Path>) -> Later<'a, ListResult>
    where
        's: 'a,
        'p: 'a,
    {
        Box::pin(async move {
            match self.state.fate() {
                Fate::Lost => Err(lost()),
                fate => self.state.finish(fate, self.inner.list_with_delimiter(prefix).await),
            }
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
            let fate = self.state.fate();
            if fate == Fate::Lost {
                return Err(lost());
            }
            let inner = self.state.finish(fate, self.inner.put_multipart_opts(path, options).await)?;
            let upload: Box<dyn MultipartUpload> = Box::new(Parts { inner, state: self.state.clone() });
            Ok(upload)
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
            match self.state.fate() {
                Fate::Lost => Err(lost()),
                fate => self.state.finish(fate, self.inner.copy_opts(from, to, options).await),
            }
        })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let state = self.state.clone();
        let fate = state.fate();
        if fate == Fate::Lost {
            return stream::once(ready(Err(lost()))).boxed();
        }
        self.inner.delete_stream(paths).map(move |result| state.finish(fate, result)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
}

/// An upload in parts, each of which is an operation.
#[derive(Debug)]
struct Parts {
    inner: Box<dyn MultipartUpload>,
    state: Arc<State>,
}

impl MultipartUpload for Parts {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let fate = self.state.fate();
        if fate == Fate::Lost {
            return ready(Err(lost())).boxed();
        }
        let payload = if fate == Fate::Truncated { half(payload) } else { payload };
        let (part, state) = (self.inner.put_part(payload), self.state.clone());
        async move { state.finish(fate, part.await) }.boxed()
    }

    fn complete<'s, 'a>(&'s mut self) -> Later<'a, PutResult>
    where
        's: 'a,
    {
        Box::pin(async move {
            match self.state.fate() {
                Fate::Lost => Err(lost()),
                fate => {
                    let result = self.inner.complete().await;
                    self.state.finish(fate, result)
                }
            }
        })
    }

    fn abort<'s, 'a>(&'s mut self) -> Later<'a, ()>
    where
        's: 'a,
    {
        Box::pin(async move {
            match self.state.fate() {
                Fate::Lost => Err(lost()),
                fate => {
                    let result = self.inner.abort().await;
                    self.state.finish(fate, result)
                }
            }
        })
    }
}
