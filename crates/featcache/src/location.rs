//! From what a user types to a place: plain paths, `file://` and `memory://`.
//!
//! `file:///a%20b` is percent-decoded, a plain path is taken literally. Object stores (`s3://` …) are
//! recognised and refused with an error that says so, because a folder called `s3:` helps nobody.
//! Credentials in a URL never reach a message.

use std::path::PathBuf;

use object_store::path::Path;

use crate::{Error, Result};

/// A parsed location.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A folder on a local disk; it may not exist yet.
    Local(PathBuf),
    /// A prefix in a named store in memory.
    Memory { host: String, prefix: Path },
}

impl Location {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(invalid(text, "it is empty")),
                path => Ok(Self::Local(PathBuf::from(path))),
            };
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" => local(text, rest),
            "memory" => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let prefix = Path::from_url_path(path).map_err(|error| invalid(text, error))?;
                Ok(Self::Memory { host: host.into(), prefix })
            }
            _ => Err(Error::UnsupportedScheme { scheme: scheme.into(), url: redacted(text) }),
        }
    }
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
    fn object_stores_are_refused_by_name_without_credentials() {
        for scheme in ["s3", "gs", "gcs", "az", "abfs", "http", "https"] {
            let error = Location::parse(&format!("{scheme}://me:secret@bucket/x?sig=secret")).unwrap_err();
            assert!(matches!(&error, Error::UnsupportedScheme { scheme: found, .. } if found == scheme));
            let text = error.to_string();
            assert!(text.contains(&format!("{scheme}://bucket/x")) && !text.contains("secret"), "{text}");
        }
    }
}
