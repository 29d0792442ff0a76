//! Requests to operations on a bucket, and their results to responses.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::http::request::Parts;
use hyper::http::response::Builder;
use hyper::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;

use super::bucket::{Bucket, Clock, Condition, Object, read};
use super::listing::{Page, Wanted};
use super::refusal::Refusal;
use super::{uploads, xml};

type Answer = Result<Response<Full<Bytes>>, Refusal>;

/// Carries a request out.
pub(super) fn answer(root: &Path, clock: &Clock, head: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
    route(root, clock, head, body).unwrap_or_else(Into::into)
}

fn route(root: &Path, clock: &Clock, head: &Parts, body: &Bytes) -> Answer {
    let path = head.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let (bucket, key) = (decode(bucket)?, decode(key)?);
    let bucket = Bucket::open(root, &bucket, clock)?;
    let query = parse_query(head.uri.query().unwrap_or_default())?;
    let condition = condition(head)?;
    let upload = query.get("uploadId");
    match (&head.method, key.as_str(), upload) {
        (&Method::GET, "", None) => list(&bucket, &query),
        (_, "", _) => Err(Refusal::NotImplemented),
        (&Method::GET | &Method::HEAD, key, None) => get(&bucket, key, &query, head),
        (&Method::PUT, key, None) => put(&bucket, key, root, clock, condition, head, body),
        (&Method::DELETE, key, None) => {
            bucket.delete(key)?;
            finish(Response::builder().status(StatusCode::NO_CONTENT), Bytes::new())
        }
        (&Method::POST, key, None) if query.contains_key("uploads") => {
            finish(Response::builder(), xml::initiated(&uploads::initiate(&bucket, key)?))
        }
        (&Method::PUT, key, Some(id)) if condition == Condition::None => {
            let number = query.get("partNumber").map_or("", String::as_str);
            let part = uploads::put_part(&bucket, key, id, number, body)?;
            finish(Response::builder().header("ETag", part.etag()), Bytes::new())
        }
        (&Method::POST, key, Some(id)) => {
            let parts = std::str::from_utf8(body).ok().and_then(xml::parts);
            let parts = parts.ok_or(Refusal::Invalid("the list of parts is malformed"))?;
            let object = uploads::complete(&bucket, key, id, &parts)?;
            finish(described(&object), xml::completed(&object.etag()))
        }
        (&Method::DELETE, key, Some(id)) => {
            uploads::abort(&bucket, key, id)?;
            finish(Response::builder().status(StatusCode::NO_CONTENT), Bytes::new())
        }
        _ => Err(Refusal::NotImplemented),
    }
}

fn list(bucket: &Bucket<'_>, query: &HashMap<String, String>) -> Answer {
    if query.get("list-type").is_none_or(|version| version != "2") {
        return Err(Refusal::NotImplemented);
    }
    let text = |name| query.get(name).cloned().unwrap_or_default();
    let limit = query.get("max-keys").map(|limit| limit.parse()).transpose();
    let wanted = Wanted {
        prefix: text("prefix"),
        delimiter: query.get("delimiter").filter(|delimiter| !delimiter.is_empty()).cloned(),
        after: text("continuation-token").max(text("start-after")),
        limit: limit.map_err(|_| Refusal::Invalid("max-keys is not a number"))?,
    };
    finish(Response::builder(), xml::listed(&Page::of(bucket.objects()?, &wanted)))
}

fn get(bucket: &Bucket<'_>, key: &str, query: &HashMap<String, String>, head: &Parts) -> Answer {
    let (object, mut file) = bucket.open_object(key)?;
    if query.get("generation").is_some_and(|asked| *asked != object.generation.to_string()) {
        return Err(Refusal::NoSuchKey);
    }
    let names = |header| text_of(head, header).map(|tags| matches_any(tags, &object.etag()));
    if names("if-match") == Some(false) {
        return Err(Refusal::PreconditionFailed);
    }
    if names("if-none-match") == Some(true) {
        return Err(Refusal::NotModified);
    }
    let response = described(&object).header("Accept-Ranges", "bytes");
    if head.method == Method::HEAD {
        return finish(response.header("Content-Length", object.size), Bytes::new());
    }
    match text_of(head, "range") {
        None => finish(response, read(&mut file, 0..object.size)?),
        Some(asked) => {
            let Range { start, end } = range(asked, object.size).ok_or(Refusal::InvalidRange)?;
            let response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header("Content-Range", format!("bytes {start}-{}/{}", end - 1, object.size));
            finish(response, read(&mut file, start..end)?)
        }
    }
}

fn put(
    bucket: &Bucket<'_>,
    key: &str,
    root: &Path,
    clock: &Clock,
    condition: Condition,
    head: &Parts,
    body: &Bytes,
) -> Answer {
    let Some(source) = text_of(head, "x-goog-copy-source") else {
        let object = bucket.put(key, condition, |file| Ok(file.write_all(body)?))?;
        return finish(described(&object), Bytes::new());
    };
    let source = source.trim_start_matches('/');
    let (from, of) =
        source.split_once('/').ok_or(Refusal::Invalid("x-goog-copy-source is not bucket/object"))?;
    let (_, mut original) = Bucket::open(root, &decode(from)?, clock)?.open_object(&decode(of)?)?;
    let object = bucket.put(key, condition, |file| {
        io::copy(&mut original, file)?;
        Ok(())
    })?;
    finish(described(&object), xml::copied(&object.etag(), &object.modified().to_rfc3339()))
}

/// A response that tells what is known of an object.
fn described(object: &Object) -> Builder {
    Response::builder()
        .header("ETag", object.etag())
        .header("Last-Modified", object.modified().format("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .header("x-goog-generation", object.generation)
}

fn finish(response: Builder, body: impl Into<Bytes>) -> Answer {
    response.body(Full::new(body.into())).map_err(|error| Refusal::Internal(io::Error::other(error)))
}

/// The condition of a write. Other conditions than on a generation, and on other requests, are refused: to ignore them would
/// let a test pass that Google's server fails.
fn condition(head: &Parts) -> Result<Condition, Refusal> {
    const WRITE: &str = "x-goog-if-generation-match";
    let unknown = head.headers.keys().map(|name| name.as_str()).any(|name| {
        name.starts_with("x-goog-if-") && (name != WRITE || head.method != Method::PUT)
            || matches!(name, "if-modified-since" | "if-unmodified-since" | "if-range")
    });
    if unknown {
        return Err(Refusal::NotImplemented);
    }
    match text_of(head, WRITE).map(str::parse) {
        None => Ok(Condition::None),
        Some(Ok(0)) => Ok(Condition::Absent),
        Some(Ok(generation)) => Ok(Condition::Generation(generation)),
        Some(Err(_)) => Err(Refusal::Invalid("the generation to match is not a number")),
    }
}

/// `a-b`, `a-` or `-n` of `size` bytes, as HTTP counts them; `None` if nothing of it is there.
fn range(asked: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = asked.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", last) => size.saturating_sub(last.parse().ok()?)..size,
        (first, "") => first.parse().ok()?..size,
        (first, last) => first.parse().ok()?..last.parse::<u64>().ok()?.saturating_add(1).min(size),
    };
    (range.start < range.end).then_some(range)
}

fn matches_any(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag)
}

fn text_of<'a>(head: &'a Parts, header: &str) -> Option<&'a str> {
    head.headers.get(header)?.to_str().ok()
}

fn decode(text: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| Refusal::Invalid("a name is not UTF-8"))?.into_owned())
}

fn parse_query(query: &str) -> Result<HashMap<String, String>, Refusal> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(&value.replace('+', " "))?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (asked, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=2-", Some(2..10)),
            ("bytes=2-99", Some(2..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-30", Some(0..10)),
            ("bytes=10-", None),
            ("bytes=5-4", None),
            ("bytes=-0", None),
            ("bytes=0-1,3-4", None),
            ("rows=0-1", None),
        ] {
            assert_eq!(range(asked, 10), expected, "{asked}");
        }
    }

    #[test]
    fn queries() {
        let query = parse_query("list-type=2&prefix=a+b%2F%C3%A9&uploads").unwrap();
        assert_eq!(query["prefix"], "a b/é");
        assert_eq!(query["uploads"], "");
        assert!(parse_query("prefix=%ff").is_err());
    }
}
