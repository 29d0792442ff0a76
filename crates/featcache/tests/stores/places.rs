//! The stores, each with a client in this process and with what another program needs to find it.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use featcache::Store;
use loopback::{Gcs, S3};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{ObjectStore, Result};
use tempfile::TempDir;

use crate::azurite::{ACCOUNT, Azurite, CONTAINER, KEY};

pub(crate) type Environment = Vec<(&'static str, String)>;

/// One store.
pub(crate) struct Place {
    pub(crate) name: &'static str,
    /// What [`Store::open`] takes, without a prefix; another process finds it there unless this is memory.
    pub(crate) url: String,
    /// The ways to tell a program where the store is.
    pub(crate) environments: Vec<Environment>,
    client: Option<Arc<dyn ObjectStore>>,
    server: Option<Box<dyn Any>>,
    restart: Option<(SocketAddr, Restart)>,
    folder: TempDir,
}

type Restart = fn(&std::path::Path, SocketAddr) -> std::io::Result<Box<dyn Any>>;

impl Place {
    pub(crate) fn local() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            environments: vec![Vec::new()],
            ..Self::new("local folder", format!("file://{}", folder.path().display()), folder)
        }
    }

    pub(crate) fn memory() -> Self {
        Self::new("memory", "memory://conformance".into(), tempfile::tempdir().unwrap())
    }

    pub(crate) fn s3() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("box")).unwrap();
        let server = S3::start(folder.path()).unwrap();
        let environment = Vec::from(server.environment());
        let builder = AmazonS3Builder::new().with_bucket_name("box");
        let client =
            configured(builder, &environment, |b, name, value| Ok(b.with_config(name.parse()?, value)));
        Self {
            client: Some(Arc::new(client.build().unwrap())),
            environments: vec![environment],
            restart: Some((server.address(), |root, address| Ok(Box::new(S3::start_at(root, address)?)))),
            server: Some(Box::new(server)),
            ..Self::new("S3", "s3://box".into(), folder)
        }
    }

    pub(crate) fn gcs() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("box")).unwrap();
        let server = Gcs::start(folder.path()).unwrap();
        let environment = Vec::from(server.environment());
        let builder = GoogleCloudStorageBuilder::new().with_bucket_name("box");
        let client =
            configured(builder, &environment, |b, name, value| Ok(b.with_config(name.parse()?, value)));
        Self {
            client: Some(Arc::new(client.build().unwrap())),
            environments: vec![environment],
            restart: Some((server.address(), |root, address| Ok(Box::new(Gcs::start_at(root, address)?)))),
            server: Some(Box::new(server)),
            ..Self::new("Google Cloud Storage", "gs://box".into(), folder)
        }
    }

    pub(crate) fn azure(server: Azurite) -> Self {
        // As for any server that is not Microsoft's, and the short way to an emulator.
        let environment = vec![
            ("AZURE_STORAGE_ENDPOINT", format!("{}/{ACCOUNT}", server.url())),
            ("AZURE_ALLOW_HTTP", "true".into()),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.into()),
            ("AZURE_STORAGE_ACCOUNT_KEY", KEY.into()),
        ];
        let emulator =
            vec![("AZURE_STORAGE_USE_EMULATOR", "true".into()), ("AZURITE_BLOB_STORAGE_URL", server.url())];
        let builder = MicrosoftAzureBuilder::new().with_container_name(CONTAINER);
        let client =
            configured(builder, &environment, |b, name, value| Ok(b.with_config(name.parse()?, value)));
        Self {
            client: Some(Arc::new(client.build().unwrap())),
            environments: vec![environment, emulator],
            server: Some(Box::new(server)),
            ..Self::new("Azure", format!("az://{CONTAINER}"), tempfile::tempdir().unwrap())
        }
    }

    /// The part of the store below `prefix`, which is taken literally.
    pub(crate) fn store(&self, prefix: &str) -> Store {
        let display = format!("{}/{prefix}", self.url);
        match &self.client {
            Some(client) => Store::from_object_store(client.clone(), Path::parse(prefix).unwrap(), &display),
            None => Store::open(&display).unwrap(),
        }
    }

    /// Whether it is a server that can go away and come back.
    pub(crate) fn restarts(&self) -> bool {
        self.restart.is_some()
    }

    /// Ends the server and cuts its connections.
    pub(crate) fn stop(&mut self) {
        self.server = None;
    }

    /// Starts it again where it was.
    pub(crate) fn start(&mut self) {
        let (address, start) = self.restart.unwrap();
        self.server = Some(start(self.folder.path(), address).unwrap());
    }

    fn new(name: &'static str, url: String, folder: TempDir) -> Self {
        Self { name, url, environments: Vec::new(), client: None, server: None, restart: None, folder }
    }
}

/// As the environment would configure a client.
fn configured<B>(builder: B, environment: &Environment, set: impl Fn(B, String, String) -> Result<B>) -> B {
    environment.iter().fold(builder, |builder, (name, value)| {
        set(builder, name.to_ascii_lowercase(), value.clone()).unwrap()
    })
}
