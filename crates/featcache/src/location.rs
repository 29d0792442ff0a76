//! From what a user types to a place: plain paths, `file://`, `memory://` and the URLs of object stores.
//!
//! `file:///a%20b` is percent-decoded, a plain path is taken literally. An unknown scheme is refused with an error that
//! says so, because a folder called `http:` helps nobody. Credentials have no place in a URL and never reach a message.

use std::path::PathBuf;

use object_store::path::Path;

use crate::cloud::Vendor;
use crate::{Error, Result};

/// A parsed location.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A folder on a local disk; it may not exist yet.
    Local(PathBuf),
    /// A prefix in a named store in memory.
    Memory { host: String, prefix: Path },
    /// A prefix in a bucket; `url` names the bucket alone.
    Bucket { vendor: Vendor, url: String, prefix: Path },
}

impl Location {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(invalid(text, "it is empty")),
                path => Ok(Self::Local(PathBuf::from(path))),
            };
        };
        let scheme = scheme.to_ascii_lowercase();
        if let Some(vendor) = Vendor::of_scheme(&scheme) {
            return bucket(text, vendor, &scheme, rest);
        }
        match scheme.as_str() {
            "file" => local(text, rest),
            "memory" => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let prefix = Path::from_url_path(path).map_err(|error| invalid(text, error))?;
                Ok(Self::Memory { host: host.into(), prefix })
            }
            _ => Err(Error::UnsupportedScheme { scheme, url: redacted(text) }),
        }
    }
}

/// The path that a local place stands for, a plain path or a `file://` URL; `None` for any other place.
///
/// # Errors
/// [`Error::InvalidUrl`] and [`Error::UnsupportedScheme`], which do not repeat secrets.
pub fn local_path(text: &str) -> Result<Option<PathBuf>> {
    Ok(match Location::parse(text)? {
        Location::Local(path) => Some(path),
        _ => None,
    })
}

fn bucket(text: &str, vendor: Vendor, scheme: &str, rest: &str) -> Result<Location> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // abfss://container@account.dfs.core.windows.net is the one form with something before an @.
    let is_container =
        vendor == Vendor::Azure && authority.matches('@').count() == 1 && !authority.contains(':');
    if rest.contains(['?', '#']) || authority.contains('@') && !is_container {
        let reason = "keys and signatures do not belong in a URL; set the environment variables of the store";
        return Err(invalid(text, reason));
    }
    if authority.is_empty() {
        return Err(invalid(text, format!("the bucket is missing; write {scheme}://bucket/prefix")));
    }
    let prefix = Path::from_url_path(path).map_err(|error| invalid(text, error))?;
    // The store's client knows Google's buckets by one name only.
    let scheme = if vendor == Vendor::Gcs { "gs" } else { scheme };
    Ok(Location::Bucket { vendor, url: format!("{scheme}://{authority}"), prefix })
}

fn local(url: &str, rest: &str) -> Result<Location> {
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !matches!(host, "" | "localhost") {
        return Err(invalid(url, format!("file URLs cannot name a host ({host}); write file:///folder")));
    }
    let path = Path::from_url_path(path).map_err(|error| invalid(url, error))?;
    if path.is_root() {
        return Err(invalid(url, "the path is missing"));
    }
    Ok(Location::Local(PathBuf::from(format!("/{path}"))))
}

fn invalid(url: &str, reason: impl ToString) -> Error {
    Error::InvalidUrl { url: redacted(url), reason: reason.to_string() }
}

/// The URL without `user:password@` and without its query, both of which may hold secrets.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.into();
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(path: &str) -> Location {
        Location::Local(PathBuf::from(path))
    }

    #[test]
    fn paths_and_file_urls() {
        for (text, path) in [
            ("cache", "cache"),
            ("../a b%20", "../a b%20"),
            ("/data/x#1", "/data/x#1"),
            ("file:///data/a%20b", "/data/a b"),
            ("file://localhost/data/x", "/data/x"),
            ("FILE:///data/x/", "/data/x"),
        ] {
            assert_eq!(Location::parse(text).unwrap(), local(path), "{text}");
        }
    }

    #[test]
    fn memory_urls() {
        let parsed = Location::parse("memory://host/a/b/").unwrap();
        assert_eq!(parsed, Location::Memory { host: "host".into(), prefix: Path::from("a/b") });
        let parsed = Location::parse("memory://host").unwrap();
        assert_eq!(parsed, Location::Memory { host: "host".into(), prefix: Path::default() });
    }

    #[test]
    fn malformed_locations_are_usage_errors() {
        for text in ["", "file://elsewhere/data", "file://", "memory://host/a/../b"] {
            assert!(Location::parse(text).unwrap_err().is_usage(), "{text}");
        }
    }

    #[test]
    fn buckets() {
        let abfss = "abfss://box@account.dfs.core.windows.net";
        for (text, vendor, url, prefix) in [
            ("s3://bucket/a/b%20c/", Vendor::S3, "s3://bucket", "a/b c"),
            ("S3://bucket", Vendor::S3, "s3://bucket", ""),
            ("gs://bucket/a", Vendor::Gcs, "gs://bucket", "a"),
            ("gcs://bucket/a", Vendor::Gcs, "gs://bucket", "a"),
            ("az://box/a", Vendor::Azure, "az://box", "a"),
            (&format!("{abfss}/a"), Vendor::Azure, abfss, "a"),
        ] {
            let expected = Location::Bucket { vendor, url: url.into(), prefix: Path::from(prefix) };
            assert_eq!(Location::parse(text).unwrap(), expected, "{text}");
        }
        for bad in ["s3://", "s3:///x", "gs://bucket/../x"] {
            assert!(Location::parse(bad).unwrap_err().is_usage(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_refused_and_not_repeated() {
        for scheme in ["s3", "gs", "gcs", "az", "abfs", "http", "https"] {
            for rest in ["me:secret@bucket/x", "bucket/x?sig=secret"] {
                let error = Location::parse(&format!("{scheme}://{rest}")).unwrap_err();
                let text = error.to_string();
                assert!(error.is_usage() && text.contains(&format!("{scheme}://bucket/x")), "{text}");
                assert!(!text.contains("secret"), "{text}");
            }
        }
    }
}
