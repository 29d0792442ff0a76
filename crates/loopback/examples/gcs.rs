//! A Google Cloud Storage server over a folder, until it is interrupted: `cargo run -p featlab-loopback --example gcs -- FOLDER`.
//!
//! Folders below FOLDER are buckets. Prints the environment in which a program finds it, as a shell reads it.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::io;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: gcs FOLDER"))?;
    std::fs::create_dir_all(folder.join("bucket"))?;
    let server = loopback::Gcs::start(&folder)?;
    for (name, value) in server.environment() {
        println!("export {name}={value}");
    }
    println!("# serving {}; the bucket is gs://bucket", folder.display());
    loop {
        std::thread::park();
    }
}
