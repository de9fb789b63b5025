//! Who may ask for what, before anything is done.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout};

use super::Api;
use super::idempotency::Idempotency;
use super::problem::Problem;
use crate::runtime::membership::GossipCounters;
use crate::runtime::node::Node;
use crate::runtime::service;

/// Time for a request to come, beside its head.
const PATIENCE: Duration = Duration::from_secs(10);

/// Served without a token: probes have none, and the page asks for it.
const OPEN: [&str; 4] = ["/health", "/", "/app.js", "/app.css"];

/// What is known of requests before they are looked into.
pub(in crate::runtime) struct Guard {
    /// Names and addresses that this node may be addressed by, without a port.
    hosts: Vec<String>,
    rate: Mutex<Bucket>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    pub(super) gossip: Arc<GossipCounters>,
    pub(super) idempotency: Idempotency,
}

/// So many requests a second, and as many at once.
struct Bucket {
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * self.rate).min(self.rate.max(1.0));
        self.filled = now;
        let has_one = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(has_one));
        has_one
    }
}

impl Guard {
    pub(in crate::runtime) fn new(
        node: &Node,
        local: SocketAddr,
        advertised: SocketAddr,
        gossip: Arc<GossipCounters>,
    ) -> Self {
        let mut hosts = vec!["localhost".to_owned()];
        let mut addresses = vec![local.ip(), advertised.ip()];
        addresses
            .extend(["127.0.0.1", "::1"].into_iter().filter_map(|ip| ip.parse::<IpAddr>().ok()));
        hosts.extend(addresses.iter().map(|address| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }));
        hosts.extend(node.config.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()));
        let rate = f64::from(node.config.limits.max_requests);
        Self {
            hosts,
            rate: Mutex::new(Bucket { rate, tokens: rate.max(1.0), filled: Instant::now() }),
            refused: Mutex::default(),
            gossip,
            idempotency: Idempotency::default(),
        }
    }

    pub(super) fn refused(&self, reason: &'static str) {
        let mut refused = self.refused.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *refused.entry(reason).or_default() += 1;
    }

    /// Requests that were refused, by reason.
    pub(super) fn all_refused(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// A page of another site can have a browser send requests here under that site's name, if that
    /// name leads here by now (DNS rebinding).
    fn is_ours(&self, host: &str) -> bool {
        let host = without_port(host).to_ascii_lowercase();
        self.hosts.contains(&host)
    }

    fn examine(&self, request: &Request, node: &Node) -> Result<(), Problem> {
        let headers = request.headers();
        let path = request.uri().path();
        let from_uri = request.uri().authority().map(|authority| authority.as_str());
        let from_header = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = from_uri.or(from_header).unwrap_or("");
        if path != "/health" && !self.is_ours(host) {
            let detail = format!(
                "the request is for the host {host:?}, which is none of this node's names; allow \
                 it with --allow-host"
            );
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let of_page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            if !of_page.is_some_and(|(_, of_page)| of_page.eq_ignore_ascii_case(host)) {
                let detail = "pages of other sites may not use this node";
                return Err(Problem::new(StatusCode::FORBIDDEN, detail));
            }
        }
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if !OPEN.contains(&path) && !node.config.is_authorized(given) {
            let detail = "send the token of the cluster: `Authorization: Bearer …`";
            return Err(Problem::unauthorized(detail));
        }
        // Nodes connect in numbers, and start nothing by it that a client has not asked for.
        if request.method() == Method::POST && path != service::PATH {
            let mut rate = self.rate.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if !rate.take(Instant::now()) {
                let detail = "too many requests that change something; try again in a second";
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
                return Err(problem.retry_after(1));
            }
        }
        Ok(())
    }
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

/// Refuses what is not allowed, counts what was refused anywhere, and adds the headers that keep
/// browsers from doing more with answers than they should.
pub(super) async fn check(State(api): State<Api>, request: Request, next: Next) -> Response {
    let response = match api.guard.examine(&request, &api.node) {
        // What streams has answered by then, and goes on.
        Ok(()) => timeout(PATIENCE, next.run(request)).await.unwrap_or_else(|_| {
            let detail = "the body of the request did not come";
            Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response()
        }),
        Err(problem) => problem.into_response(),
    };
    let mut response = as_problem(response);
    if let Some(reason) = reason(response.status()) {
        api.guard.refused(reason);
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src \
             'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What the framework refuses by itself is told as the rest is.
fn as_problem(response: Response) -> Response {
    let detail = match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => "a body may have 64 KiB at most",
        StatusCode::BAD_REQUEST => "the request cannot be read",
        _ => return response,
    };
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind == "application/problem+json") {
        return response;
    }
    Problem::new(response.status(), detail).into_response()
}

fn reason(status: StatusCode) -> Option<&'static str> {
    Some(match status {
        StatusCode::BAD_REQUEST => "malformed",
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "origin",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => "method",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::REQUEST_TIMEOUT => "timeout",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "media_type",
        StatusCode::MISDIRECTED_REQUEST => "host",
        StatusCode::UNPROCESSABLE_ENTITY => "unfit",
        StatusCode::TOO_MANY_REQUESTS => "too_many",
        _ if status.is_client_error() => "other",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_told_from_an_address() {
        let hosts = ["localhost:7621", "localhost", "10.0.0.1:80", "[::1]:7621", "[::1]", ""];
        let without = hosts.map(without_port);
        assert_eq!(without, ["localhost", "localhost", "10.0.0.1", "[::1]", "[::1]", ""]);
    }

    #[test]
    fn a_bucket_gives_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket { rate: 10.0, tokens: 10.0, filled: start };
        let at = |bucket: &mut Bucket, ms| {
            let now = start + Duration::from_millis(ms);
            (0..100).filter(|_| bucket.take(now)).count()
        };
        assert_eq!([0, 0, 100, 550, 5_000].map(|ms| at(&mut bucket, ms)), [10, 0, 1, 4, 10]);
    }
}
