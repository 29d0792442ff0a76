//! Azurite, Microsoft's emulator of Azure's storage, as a child process: `npm install azurite`, and name its `azurite-blob` in
//! `FEATLAB_AZURITE` or have it on `PATH`. It keeps everything in memory, and ends with this value.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub(crate) const ACCOUNT: &str = "devstoreaccount1";
/// The key of every Azurite; it is published, and opens nothing else.
pub(crate) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
pub(crate) const CONTAINER: &str = "box";

/// A shared access signature to create containers. Account and key never change, so it was computed once: the base64 of the
/// HMAC-SHA256 under `KEY` of `devstoreaccount1`, `cw`, `b`, `c`, nothing, `2099-01-01T00:00:00Z`, nothing, nothing, `2019-12-12`,
/// each with a line feed behind it.
const MAY_CREATE: &str = "sv=2019-12-12&ss=b&srt=c&sp=cw&se=2099-01-01T00:00:00Z&sig=pj7iPWsxrQ7%2BFx6eKvYkKuPpD9r2qXnhM6TuvwOWRi8%3D";

pub(crate) struct Azurite {
    process: Child,
    address: SocketAddr,
}

impl Azurite {
    /// Starts one on a free port and creates [`CONTAINER`]; `None` if it is not installed.
    pub(crate) fn start() -> Option<Self> {
        let mut process = Command::new(program()?)
            .args(["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"])
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once("listens on http://").map(|(_, address)| address.trim().parse().unwrap())
        });
        // So that it never waits for somebody to read what it says.
        std::thread::spawn(move || lines.count());
        let server = Self { process, address: address.expect("Azurite ended before it listened") };
        server.create_container();
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn create_container(&self) {
        let mut socket = TcpStream::connect(self.address).unwrap();
        let request = format!("PUT /{ACCOUNT}/{CONTAINER}?restype=container&{MAY_CREATE} HTTP/1.1");
        write!(
            socket,
            "{request}\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("FEATLAB_AZURITE").map(PathBuf::from) {
        assert!(named.is_file(), "FEATLAB_AZURITE is {}, which is not a file", named.display());
        return Some(named);
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("azurite-blob")).find(|program| program.is_file())
}
