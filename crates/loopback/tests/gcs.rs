//! The Google Cloud Storage server, as `object_store`'s client sees it.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use loopback::Gcs;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion,
};
use tempfile::TempDir;

struct Bucket {
    folder: TempDir,
    server: Option<Gcs>,
    client: GoogleCloudStorage,
}

impl Bucket {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("box")).unwrap();
        let server = Gcs::start(folder.path()).unwrap();
        let builder = server
            .environment()
            .into_iter()
            .fold(GoogleCloudStorageBuilder::new().with_bucket_name("box"), |builder, (name, value)| {
                builder.with_config(name.to_ascii_lowercase().parse().unwrap(), value)
            });
        Self { folder, server: Some(server), client: builder.build().unwrap() }
    }

    async fn bytes(&self, key: &str) -> Vec<u8> {
        self.client.get(&at(key)).await.unwrap().bytes().await.unwrap().to_vec()
    }
}

/// The key as it is; `Path::from` would percent-encode it.
fn at(key: &str) -> Path {
    Path::parse(key).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn a_program_finds_the_server_while_it_is_started_again() {
    let mut bucket = Bucket::new();
    let address = bucket.server.as_ref().unwrap().address();
    let account = bucket.folder.path().join("service-account.json");
    let before = std::fs::read(&account).unwrap();
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            let mut read = 0;
            while going.load(Ordering::Relaxed) {
                assert_eq!(std::fs::read(&account).unwrap(), before);
                read += 1;
            }
            read
        });
        for _ in 0..500 {
            drop(bucket.server.take());
            bucket.server = Some(Gcs::start_at(bucket.folder.path(), address).unwrap());
        }
        going.store(false, Ordering::Relaxed);
        assert!(read.join().unwrap() > 500);
    });
}

#[test]
fn objects_and_their_generations() {
    run(async {
        let bucket = Bucket::new();
        let (client, path) = (&bucket.client, at("a b/ü#1"));
        assert!(matches!(client.get(&path).await, Err(Error::NotFound { .. })));
        assert!(matches!(client.delete(&path).await, Err(Error::NotFound { .. })));
        let first = client.put_opts(&path, "one".into(), PutMode::Create.into()).await.unwrap();
        let again = client.put_opts(&path, "two".into(), PutMode::Create.into()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        let meta = client.head(&path).await.unwrap();
        assert_eq!((meta.size, &meta.e_tag, &meta.version), (3, &first.e_tag, &first.version));
        let second = client.put(&path, "three".into()).await.unwrap();
        let update = |of: &object_store::PutResult| PutMode::Update(UpdateVersion::from(of.clone())).into();
        let stale = client.put_opts(&path, "four".into(), update(&first)).await;
        assert!(matches!(stale, Err(Error::Precondition { .. })));
        client.put_opts(&path, "five".into(), update(&second)).await.unwrap();
        assert_eq!(bucket.bytes("a b/ü#1").await, b"five");
        let old = GetOptions { version: second.version, ..GetOptions::default() };
        assert!(matches!(client.get_opts(&path, old).await, Err(Error::NotFound { .. })));
        let etag = client.head(&path).await.unwrap().e_tag;
        let unchanged = GetOptions { if_none_match: etag.clone(), ..GetOptions::default() };
        assert!(matches!(client.get_opts(&path, unchanged).await, Err(Error::NotModified { .. })));
        let changed = GetOptions { if_match: second.e_tag, ..GetOptions::default() };
        assert!(matches!(client.get_opts(&path, changed).await, Err(Error::Precondition { .. })));
        client.delete(&path).await.unwrap();
        assert!(matches!(client.head(&path).await, Err(Error::NotFound { .. })));
    });
}

#[test]
fn ranges() {
    run(async {
        let bucket = Bucket::new();
        let (client, path) = (&bucket.client, at("x"));
        client.put(&path, "0123456789".into()).await.unwrap();
        for (range, expected) in [
            (GetRange::Bounded(2..5), "234"),
            (GetRange::Bounded(8..99), "89"),
            (GetRange::Offset(7), "789"),
            (GetRange::Suffix(2), "89"),
        ] {
            let options = GetOptions { range: Some(range), ..GetOptions::default() };
            let got = client.get_opts(&path, options).await.unwrap();
            assert_eq!(got.meta.size, 10);
            assert_eq!(got.bytes().await.unwrap(), expected);
        }
        assert!(client.get_range(&path, 10..12).await.is_err());
        let some = client.get_ranges(&path, &[0..1, 4..6]).await.unwrap();
        assert_eq!(some, ["0", "45"]);
        let client = bucket.client.clone();
        client.put(&path, PutPayload::new()).await.unwrap();
        assert_eq!(bucket.bytes("x").await, b"");
    });
}

#[test]
fn parts_become_an_object() {
    run(async {
        let bucket = Bucket::new();
        let (client, path) = (&bucket.client, at("large/object"));
        let part = |byte: u8, len: usize| PutPayload::from(vec![byte; len]);
        let mut upload = client.put_multipart(&path).await.unwrap();
        let parts = [part(1, 5 << 20), part(2, 6 << 20), part(3, 7)].map(|bytes| upload.put_part(bytes));
        for done in join_all(parts).await {
            done.unwrap();
        }
        assert!(matches!(client.head(&path).await, Err(Error::NotFound { .. })), "not before it is complete");
        assert_eq!(client.list(None).count().await, 0, "parts are nobody's objects");
        let done = upload.complete().await.unwrap();
        assert_eq!(client.head(&path).await.unwrap().e_tag, done.e_tag);
        let bytes = bucket.bytes("large/object").await;
        assert_eq!(bytes, [vec![1; 5 << 20], vec![2; 6 << 20], vec![3; 7]].concat());

        let mut aborted = client.put_multipart(&at("aborted")).await.unwrap();
        aborted.put_part(part(1, 9)).await.unwrap();
        aborted.abort().await.unwrap();
        assert!(aborted.complete().await.is_err());
        let mut small = client.put_multipart(&at("small")).await.unwrap();
        small.put_part(part(1, 9)).await.unwrap();
        small.put_part(part(1, 9)).await.unwrap();
        let error = small.complete().await.unwrap_err();
        assert!(format!("{error:?}").contains("EntityTooSmall"), "{error:?}");
        assert_eq!(client.list(None).count().await, 1);
    });
}

/// The status of a request that the client cannot be made to send.
fn status(bucket: &Bucket, request: &str) -> u16 {
    let mut socket = TcpStream::connect(bucket.server.as_ref().unwrap().address()).unwrap();
    let request = request.replace('\n', "\r\n");
    write!(socket, "{request}\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// By hand: the client of `object_store` 0.13.2 makes the plain copy conditional and the conditional one plain.
#[test]
fn copies() {
    run(async {
        let bucket = Bucket::new();
        let copy = "PUT /box/to%2F%C3%A9 HTTP/1.1\nx-goog-copy-source: box/from%20%C3%A4";
        let create = &format!("{copy}\nx-goog-if-generation-match: 0");
        assert_eq!(status(&bucket, copy), 404);
        bucket.client.put(&at("from ä"), "one".into()).await.unwrap();
        assert_eq!(status(&bucket, create), 200);
        bucket.client.put(&at("from ä"), "two".into()).await.unwrap();
        assert_eq!(status(&bucket, create), 412);
        assert_eq!(bucket.bytes("to/é").await, b"one");
        assert_eq!(status(&bucket, copy), 200);
        assert_eq!(bucket.bytes("to/é").await, b"two");
        bucket.client.copy(&at("from ä"), &at("new")).await.unwrap();
        assert_eq!(bucket.bytes("new").await, b"two");
    });
}

#[test]
fn what_is_not_known_is_refused() {
    run(async {
        let bucket = Bucket::new();
        bucket.client.put(&at("x"), "x".into()).await.unwrap();
        for (request, expected) in [
            ("GET /elsewhere/x HTTP/1.1", 404),
            ("GET /box HTTP/1.1", 501),
            ("PUT /box HTTP/1.1", 501),
            ("DELETE /box/x HTTP/1.1\nx-goog-if-generation-match: 1", 501),
            ("PUT /box/x HTTP/1.1\nx-goog-if-metageneration-match: 1", 501),
            ("GET /box/x HTTP/1.1\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 501),
            ("PUT /box/x HTTP/1.1\nx-goog-if-generation-match: none", 400),
            ("GET /box/x HTTP/1.1\nRange: bytes=1-", 416),
            ("PUT /box/x?partNumber=1&uploadId=../x HTTP/1.1", 404),
            ("GET /box/../service-account.json HTTP/1.1", 404),
            ("GET /../service-account.json HTTP/1.1", 404),
        ] {
            assert_eq!(status(&bucket, request), expected, "{request}");
        }
        assert_eq!(bucket.bytes("x").await, b"x");
    });
}

#[test]
fn listings_of_several_pages() {
    run(async {
        let bucket = Bucket::new();
        // Not through the client: a page is a thousand.
        for index in 0..2100 {
            let name = format!("many%2F{index:04}%20%26%C3%A9");
            std::fs::write(bucket.folder.path().join("box").join(name), "x").unwrap();
        }
        for name in ["many%2Fbelow%2Fa", "many%2Fbelow%2Fb", "manyother"] {
            std::fs::write(bucket.folder.path().join("box").join(name), "x").unwrap();
        }
        let many = at("many");
        let listed = bucket.client.list_with_delimiter(Some(&many)).await.unwrap();
        assert_eq!(listed.objects.len(), 2100);
        assert_eq!(listed.objects[7].location, at("many/0007 &é"));
        assert_eq!(listed.common_prefixes, [at("many/below")]);
        assert_eq!(bucket.client.list(Some(&many)).count().await, 2102);
        assert_eq!(bucket.client.list(None).count().await, 2103);
        let offset = at("many/2098 &é");
        let late: Vec<_> = bucket.client.list_with_offset(Some(&many), &offset).try_collect().await.unwrap();
        assert_eq!(late.len(), 3);
    });
}

#[test]
fn of_racing_creators_one_wins_and_a_restart_forgets_nothing() {
    run(async {
        let mut bucket = Bucket::new();
        for round in 0..20 {
            let path = at(&format!("race/{round}"));
            let racers = (0..8).map(|racer: u8| {
                let (client, path) = (bucket.client.clone(), path.clone());
                tokio::spawn(async move {
                    client.put_opts(&path, vec![racer; 999].into(), PutMode::Create.into()).await.is_ok()
                })
            });
            let won: Vec<bool> = join_all(racers).await.into_iter().map(|racer| racer.unwrap()).collect();
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
            let winner = won.iter().position(|won| *won).unwrap();
            assert_eq!(bucket.bytes(path.as_ref()).await, [winner as u8; 999]);
        }
        let before: Vec<_> = bucket.client.list(None).try_collect().await.unwrap();
        let address = bucket.server.take().unwrap().address();
        bucket.server = Some(Gcs::start_at(bucket.folder.path(), address).unwrap());
        let after: Vec<_> = bucket.client.list(None).try_collect().await.unwrap();
        assert_eq!(before, after);
        assert_eq!(before.len(), 20);
    });
}
