//! An S3 server: `s3s` speaks the protocol, `s3s-fs` keeps the objects. Requests are signed and the signatures are checked.
//!
//! `s3s-fs` looks whether there is an object and then writes it, so that of several conditional creates more than one could
//! win. Here they take turns.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{HttpError, HttpResponse};
use s3s_fs::FileSystem;
use tokio::sync::Mutex;

use crate::server::{Server, any_port};

const KEY: &str = "loopback";
const SECRET: &str = "loopback-secret";

/// An S3 server. It stops when this is dropped; connections that are open then are cut.
#[derive(Debug)]
pub struct S3 {
    server: Server,
    /// Milliseconds that every answer waits.
    delay: Arc<AtomicU64>,
}

impl S3 {
    /// Serves the folders below `root` as buckets, on a port that was free.
    ///
    /// # Errors
    /// If the folder or the port cannot be used.
    pub fn start(root: &Path) -> io::Result<Self> {
        Self::start_at(root, any_port())
    }

    /// As [`S3::start`], at an address: where a server was before.
    ///
    /// # Errors
    /// As [`S3::start`].
    pub fn start_at(root: &Path, address: SocketAddr) -> io::Result<Self> {
        let files = FileSystem::new(root).map_err(|e| io::Error::other(format!("{e:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let turn = Arc::new(Mutex::new(()));
        let delay = Arc::new(AtomicU64::new(0));
        let waits = delay.clone();
        let server = Server::start(address, move |socket| {
            let (service, turn, waits) = (service.clone(), turn.clone(), waits.clone());
            let respond = service_fn(move |request| {
                let wait = tokio::time::sleep(Duration::from_millis(waits.load(Ordering::Relaxed)));
                let answer = respond(service.clone(), turn.clone(), request);
                async move {
                    wait.await;
                    answer.await
                }
            });
            async move {
                let http = Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(socket), respond).await;
            }
        })?;
        Ok(Self { server, delay })
    }

    /// From now on every answer takes so much longer: a store that is far away, or busy.
    pub fn slow_down(&self, delay: Duration) {
        self.delay.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The environment in which a program finds it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address())),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
        ]
    }
}

/// Lets conditional writes in one at a time, everything else at once.
async fn respond(
    service: S3Service,
    turn: Arc<Mutex<()>>,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpError> {
    let writes = [Method::PUT, Method::POST].contains(request.method());
    let conditional = ["if-none-match", "if-match"].iter().any(|name| request.headers().contains_key(*name));
    let _turn = if writes && conditional { Some(turn.lock().await) } else { None };
    Service::call(&service, request).await
}
