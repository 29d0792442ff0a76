//! An S3 server: `s3s` speaks the protocol, `s3s-fs` keeps the objects. Requests are signed and the signatures are checked.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;

use crate::server::{Server, any_port};

const KEY: &str = "loopback";
const SECRET: &str = "loopback-secret";

/// An S3 server. It stops when this is dropped; connections that are open then are cut.
#[derive(Debug)]
pub struct S3 {
    server: Server,
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
        let server = Server::start(address, move |socket| {
            let service = service.clone();
            async move {
                let http = Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(socket), service).await;
            }
        })?;
        Ok(Self { server })
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
