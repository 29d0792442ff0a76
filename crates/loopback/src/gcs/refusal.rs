//! Why a request is not carried out: the status and the code that Google's server would answer with.

use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};

use super::xml::escape;

#[derive(Debug)]
pub(super) enum Refusal {
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    /// A part that was not uploaded, or not like this.
    InvalidPart,
    /// A part before the last that is smaller than 5 MiB.
    EntityTooSmall,
    PreconditionFailed,
    NotModified,
    InvalidRange,
    KeyTooLong,
    /// Whatever else is malformed, in words.
    Invalid(&'static str),
    /// What Google's server may know and this one does not.
    NotImplemented,
    Internal(io::Error),
}

impl Refusal {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchBucket => (StatusCode::NOT_FOUND, "NoSuchBucket"),
            Self::NoSuchKey => (StatusCode::NOT_FOUND, "NoSuchKey"),
            Self::NoSuchUpload => (StatusCode::NOT_FOUND, "NoSuchUpload"),
            Self::InvalidPart => (StatusCode::BAD_REQUEST, "InvalidPart"),
            Self::EntityTooSmall => (StatusCode::BAD_REQUEST, "EntityTooSmall"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
            Self::NotModified => (StatusCode::NOT_MODIFIED, "NotModified"),
            Self::InvalidRange => (StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
            Self::KeyTooLong => (StatusCode::BAD_REQUEST, "KeyTooLongError"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "InvalidArgument"),
            Self::NotImplemented => (StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NoSuchKey,
            io::ErrorKind::InvalidFilename => Self::KeyTooLong,
            _ => Self::Internal(error),
        }
    }
}

impl From<Refusal> for Response<Full<Bytes>> {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = refusal.status_and_code();
        let message = match &refusal {
            Refusal::Internal(error) => escape(&error.to_string()),
            Refusal::Invalid(why) => (*why).to_owned(),
            _ => status.to_string(),
        };
        let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        let mut response = Self::new(Full::from(body));
        *response.status_mut() = status;
        response
    }
}
