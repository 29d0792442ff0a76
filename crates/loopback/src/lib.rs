//! Object stores on this machine, for tests: real servers, spoken to over HTTP.
//!
//! [`S3`] keeps its objects in a folder, so that a test may stop it, look at or damage what lies there, and start it again on
//! the same data. Requests are signed and the signatures are checked.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread::JoinHandle;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::sync::oneshot;

const KEY: &str = "loopback";
const SECRET: &str = "loopback-secret";

/// An S3 server. It stops when this is dropped; connections that are open then are cut.
#[derive(Debug)]
pub struct S3 {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3 {
    /// Serves the folders below `root` as buckets, on a port that was free.
    ///
    /// # Errors
    /// If the folder or the port cannot be used.
    pub fn start(root: &Path) -> io::Result<Self> {
        Self::start_at(root, "127.0.0.1:0".parse().map_err(io::Error::other)?)
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
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("loopback S3".into())
            .spawn(move || serve(service, listener, stopped))?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The environment in which a program finds it.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
        ]
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Accepts connections until the other end of `stopped` is gone; the runtime takes open ones with it.
fn serve(service: S3Service, listener: TcpListener, stopped: oneshot::Receiver<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
    else {
        return;
    };
    runtime.block_on(async {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        let server = Builder::new(TokioExecutor::new());
        let accept = async {
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let connection = server.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
                tokio::spawn(async move {
                    let _ = connection.await;
                });
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
    runtime.shutdown_background();
}
