//! What every server here has in common: a thread of its own that accepts connections until it is told to stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// A listening thread. It stops when this is dropped; connections that are open then are cut.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `address` (port 0: one that is free) and spawns `talk` for each connection.
    pub(crate) fn start<F>(
        address: SocketAddr,
        talk: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread =
            std::thread::Builder::new().name("loopback".into()).spawn(|| serve(listener, stopped, talk))?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Any port of this machine that is free.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Accepts connections until the other end of `stopped` is gone. Open ones are cut first and the runtime ends after them: what
/// still talks while its runtime ends would answer nonsense. Once this returns, nothing touches the folder any more.
fn serve<F>(listener: TcpListener, mut stopped: oneshot::Receiver<()>, talk: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
    else {
        return;
    };
    runtime.block_on(async {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => {
                    let Ok((socket, _)) = accepted else { continue };
                    // Answers are small; none waits for the acknowledgement of the one before.
                    let _ = socket.set_nodelay(true);
                    connections.spawn(talk(socket));
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
}
