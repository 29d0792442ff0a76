//! Requests whose connection breaks are sent again, whatever they ask.
//!
//! `object_store` repeats a request that may have reached the store only if doing it twice is doing it once. It does not
//! count a conditional create among those, since the second attempt may find what the first one made. To a cache that is no
//! difference: what it creates is the same bytes whoever does, and finding them there is as good as having written them.
//! The other requests of a cache may be repeated anyway. So a broken connection is reported here as a request that was not sent,
//! and so is one that was gone before the request was on it, which `object_store` does not recognise.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

/// Makes clients that report every broken connection as one that may be tried again.
#[derive(Debug, Default)]
pub(super) struct Repeating(ReqwestConnector);

impl HttpConnector for Repeating {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Service(HttpClient);

type Later<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

/// Written out as `async_trait` would, which saves a dependency.
impl HttpService for Service {
    fn call<'s, 'a>(&'s self, request: HttpRequest) -> Later<'a>
    where
        's: 'a,
    {
        Box::pin(async move { self.0.execute(request).await.map_err(repeatable) })
    }
}

fn repeatable(error: HttpError) -> HttpError {
    let broken = match error.kind() {
        HttpErrorKind::Interrupted | HttpErrorKind::Timeout => true,
        // The connection ended after it was picked and before the request was on it.
        HttpErrorKind::Unknown => was_canceled(&error),
        _ => false,
    };
    if broken { HttpError::new(HttpErrorKind::Request, error) } else { error }
}

fn was_canceled(error: &HttpError) -> bool {
    let first: Option<&(dyn Error + 'static)> = error.source();
    let mut causes = std::iter::successors(first, |cause| (*cause).source());
    causes.any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled))
}
