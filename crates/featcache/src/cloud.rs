//! Clients of object stores, from a URL and the usual environment variables.
//!
//! `s3://bucket/prefix` reads `AWS_*` (access keys, `AWS_REGION`, `AWS_ENDPOINT` for servers that are not Amazon's,
//! `AWS_ALLOW_HTTP`; else a web identity, a container's or an instance's role), `gs://bucket/prefix` reads `GOOGLE_*` or the
//! application default credentials, `az://container/prefix` reads `AZURE_STORAGE_*`. Names are those of `object_store`, which follow
//! each vendor's own tools. Servers that are not Google's are named by `gcs_base_url` in the file of `GOOGLE_SERVICE_ACCOUNT`, those that
//! are not Microsoft's by `AZURE_STORAGE_ENDPOINT` and `AZURE_ALLOW_HTTP`, an emulator by `AZURE_STORAGE_USE_EMULATOR` and
//! `AZURITE_BLOB_STORAGE_URL`.
//!
//! Requests that fail on the way, or that the store asks to repeat, are repeated with growing pauses for up to a minute.

mod repeat;

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3CopyIfNotExists};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use repeat::Repeating;

/// Whose store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vendor {
    /// Amazon S3 and whatever speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Vendor {
    /// By the scheme of a URL, in lower case.
    pub(crate) fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "gs" | "gcs" => Some(Self::Gcs),
            "az" | "azure" | "adl" | "abfs" | "abfss" => Some(Self::Azure),
            _ => None,
        }
    }

    /// A client for the bucket of `url`; nothing is asked of the store yet.
    ///
    /// # Errors
    /// If the URL or the environment cannot be, such as an Azure URL without an account.
    pub(crate) fn connect(self, url: &str) -> object_store::Result<Arc<dyn ObjectStore>> {
        let http = Repeating::default();
        Ok(match self {
            Self::S3 => {
                let mut builder = AmazonS3Builder::from_env().with_url(url);
                if builder.get_config_value(&AmazonS3ConfigKey::CopyIfNotExists).is_none() {
                    builder = builder.with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
                }
                Arc::new(builder.with_http_connector(http).with_retry(retry()).build()?)
            }
            Self::Gcs => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(url);
                Arc::new(builder.with_http_connector(http).with_retry(retry()).build()?)
            }
            Self::Azure => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(url);
                Arc::new(builder.with_http_connector(http).with_retry(retry()).build()?)
            }
        })
    }
}

/// What to look at when a store in a bucket does not answer as it should; nothing for other places.
pub(crate) fn hint(url: &str) -> &'static str {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    match Vendor::of_scheme(&scheme) {
        Some(Vendor::S3) => {
            "; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (for other servers also AWS_ENDPOINT, and \
             AWS_ALLOW_HTTP=true for http)"
        }
        Some(Vendor::Gcs) => "; check GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
        Some(Vendor::Azure) => {
            "; check AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY (for other servers also AZURE_STORAGE_ENDPOINT, and \
             AZURE_ALLOW_HTTP=true for http)"
        }
        None => "",
    }
}

/// Pauses of 0.1 s that double up to 10 s, for at most a minute.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            base: 2.0,
        },
        max_retries: 8,
        retry_timeout: Duration::from_secs(60),
    }
}
