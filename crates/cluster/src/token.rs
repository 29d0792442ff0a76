//! The token of a cluster: who does not have it is not answered.
//!
//! The engine's clients can be given a user agent everywhere and a header of their own only in some places; so the token travels
//! at the end of the user agent. The engine's servers speak plain HTTP/2: on a network that is not trusted, put TLS before them.

use std::sync::Arc;
use std::time::Duration;

use ballista_core::extension::EndpointOverrideFn;
use tonic::service::Interceptor;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

/// What a token follows in the user agent.
const MARK: &str = "featlab-token=";

/// Lets through what carries the token; everything if there is none.
#[derive(Debug, Clone)]
pub(crate) struct Guard(Option<Arc<str>>);

impl Guard {
    pub(crate) fn new(token: Option<&str>) -> Self {
        Self(token.map(Arc::from))
    }

    /// Whether a user agent carries the token.
    pub(crate) fn lets(&self, user_agent: Option<&str>) -> bool {
        let Some(token) = &self.0 else { return true };
        let given =
            user_agent.and_then(|text| text.split_whitespace().find_map(|word| word.strip_prefix(MARK)));
        // Compared in full whatever differs, so that the time tells nothing.
        given.is_some_and(|given| {
            given.len() == token.len()
                && given.bytes().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
        })
    }
}

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let agent = request.metadata().get("user-agent").and_then(|value| value.to_str().ok());
        if self.lets(agent) { Ok(request) } else { Err(Status::unauthenticated("wrong token, or none")) }
    }
}

/// What the engine's clients call themselves.
pub(crate) fn user_agent(token: Option<&str>) -> String {
    match token {
        Some(token) => format!("featlab {MARK}{token}"),
        None => "featlab".to_owned(),
    }
}

/// Puts the token on every connection that the engine opens.
pub(crate) fn on_endpoints(token: Option<&str>) -> EndpointOverrideFn {
    let agent = user_agent(token);
    Arc::new(move |endpoint: Endpoint| {
        Ok(endpoint.user_agent(agent.clone())?.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let guard = Guard::new(Some("secret"));
        let given = |token: &str| format!("{} tonic/0.14", user_agent(Some(token)));
        assert!(guard.lets(Some(&given("secret"))));
        for other in ["secreT", "secre", "secrets", ""] {
            assert!(!guard.lets(Some(&given(other))), "{other}");
        }
        assert!(!guard.lets(Some("featlab tonic/0.14")) && !guard.lets(None));
        assert!(Guard::new(None).lets(None));
    }
}
