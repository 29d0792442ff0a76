//! A Google Cloud Storage server that speaks the XML API: what `object_store` asks of it, and no more.
//!
//! Objects are written, read (whole or a range), asked for, deleted, copied, listed page by page and put together from parts;
//! a write may be conditional on the object's generation. What it does not know it refuses (501) rather than ignores. Nobody is
//! authenticated: clients are told not to ask for tokens. The JSON API is not spoken.

mod api;
mod bucket;
mod listing;
mod refusal;
mod uploads;
mod xml;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;

use crate::server::{Server, any_port};
use bucket::Clock;
use refusal::Refusal;

/// A Google Cloud Storage server. It stops when this is dropped; connections that are open then are cut.
#[derive(Debug)]
pub struct Gcs {
    server: Server,
    account: PathBuf,
}

impl Gcs {
    /// Serves the folders below `root` as buckets, on a port that was free. Beside them it writes `service-account.json`, which
    /// tells clients where the server is.
    ///
    /// # Errors
    /// If the folder or the port cannot be used.
    pub fn start(root: &Path) -> io::Result<Self> {
        Self::start_at(root, any_port())
    }

    /// As [`Gcs::start`], at an address: where a server was before.
    ///
    /// # Errors
    /// As [`Gcs::start`].
    pub fn start_at(root: &Path, address: SocketAddr) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        let account = root.join("service-account.json");
        let clock = Arc::new(Clock::default());
        let server = Server::start(address, move |socket| {
            let (root, clock) = (root.clone(), clock.clone());
            async move {
                let service = service_fn(move |request| respond(root.clone(), clock.clone(), request));
                let http = Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(socket), service).await;
            }
        })?;
        replace(&account, &service_account(server.address()))?;
        Ok(Self { server, account })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The environment in which a program finds it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 1] {
        [("GOOGLE_SERVICE_ACCOUNT", self.account.display().to_string())]
    }
}

/// Puts a file in place whole: where the server was before, programs that look for it may be reading.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, file)
}

/// Names the server instead of Google's; the key is never looked at.
fn service_account(address: SocketAddr) -> String {
    format!(
        r#"{{"gcs_base_url": "http://{address}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#
    )
}

/// Takes the whole body in, then works on files away from the threads that talk. A body that is cut short changes nothing.
async fn respond(
    root: PathBuf,
    clock: Arc<Clock>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let answer = match body.collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            tokio::task::spawn_blocking(move || api::answer(&root, &clock, &head, &body)).await
        }
        Err(_) => Ok(Refusal::Invalid("the body is cut short").into()),
    };
    Ok(answer.unwrap_or_else(|panic| Refusal::Internal(io::Error::other(panic)).into()))
}
