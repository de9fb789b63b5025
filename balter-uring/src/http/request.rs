//! A request, from its URL to the bytes that are sent.

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::client::Client;
use super::codec::{BodyLen, RequestKind, encode_head};
use super::connection::{Answer, Encoded, Origin};
use super::{Error, Response};
use crate::outside::{self, Permission};

/// What stands before the host in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A request to be sent, or to be prepared.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: Client,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<Bytes>,
    /// The first thing that was wrong with it.
    error: Option<Error>,
}

/// A request that is encoded, for sending often. Sending it allocates nothing.
///
/// It belongs to the shard on which it was prepared, so prepare it inside the scenario.
#[derive(Clone, Debug)]
pub struct PreparedRequest {
    origin: Rc<Origin>,
    bytes: Rc<[u8]>,
    kind: RequestKind,
    repeatable: bool,
    max_body: usize,
}

/// The parts of a URL that a request needs.
#[derive(Debug)]
struct Url {
    scheme: Scheme,
    host: String,
    port: u16,
    /// As it goes into the `Host` header.
    authority: String,
    /// Path and query.
    target: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, Error> {
        let error = |reason: &str| Error::Url { url: text.to_owned(), reason: reason.to_owned() };
        // A fragment is for whoever shows the answer, and never sent.
        let sent = text.split_once('#').map_or(text, |(before, _)| before);
        let uri: Uri = sent.parse().map_err(|cause| error(&format!("{cause}")))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") if cfg!(feature = "tls") => Scheme::Https,
            Some("https") => return Err(Error::HttpsDisabled),
            Some(scheme) => return Err(Error::Scheme { scheme: scheme.to_owned() }),
            None => return Err(error("it has no scheme")),
        };
        let authority = uri.authority().ok_or_else(|| error("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(error("user names in URLs are not sent; set the authorization header"));
        }
        if authority.host().is_empty() {
            return Err(error("it has no host"));
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, digits)) if !digits.is_empty() && !digits.ends_with(']') => {
                authority.port_u16().ok_or_else(|| error("its port is not in 0..=65535"))?
            }
            _ => scheme.default_port(),
        };
        let host = authority.host().to_ascii_lowercase();
        let authority = match port == scheme.default_port() {
            true => host.clone(),
            false => format!("{host}:{port}"),
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = match target.starts_with('/') {
            true => target.to_owned(),
            // `http://host?query`
            false => format!("/{target}"),
        };
        Ok(Self { scheme, host, port, authority, target })
    }
}

impl RequestBuilder {
    pub(super) fn new(client: Client, method: Method, url: &str) -> Self {
        let headers = HeaderMap::new();
        Self { client, method, url: url.to_owned(), headers, body: None, error: None }
    }

    /// Adds a header. What is wrong with it shows when the request is sent or prepared.
    pub fn header<K, V>(mut self, name: K, value: V) -> Self
    where
        K: TryInto<HeaderName, Error: std::fmt::Display>,
        V: TryInto<HeaderValue, Error: std::fmt::Display>,
    {
        match (name.try_into(), value.try_into()) {
            (Ok(name), Ok(value)) => {
                self.headers.append(name, value);
            }
            (Ok(name), Err(error)) => self.fail_header(name.as_str(), &error),
            (Err(error), _) => self.fail_header("", &error),
        }
        self
    }

    /// Sets headers, in place of those of the same names.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        // Several values of one name stand together, the first with the name.
        for name in headers.keys() {
            self.headers.remove(name);
        }
        self.headers.extend(headers);
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets the body to `value` as JSON, and the content type with it.
    #[cfg(feature = "json")]
    pub fn json(mut self, value: &(impl serde::Serialize + ?Sized)) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => {
                let json = HeaderValue::from_static("application/json");
                self.headers.entry(http::header::CONTENT_TYPE).or_insert(json);
                self.body = Some(body.into());
            }
            Err(error) => {
                self.error.get_or_insert(Error::Json(error));
            }
        }
        self
    }

    /// Sends the request and waits for the head of the answer.
    ///
    /// # Errors
    /// What was wrong with the request, which is then not sent, or what came between it and its
    /// answer.
    pub async fn send(mut self) -> Result<Response, Error> {
        let (origin, bytes) = self.encode()?;
        let (kind, repeatable) = (kind(&self.method), self.method.is_idempotent());
        let bytes = Encoded::Owned(bytes);
        let (answer, permission) = exchange(&origin, bytes, kind, repeatable).await?;
        Ok(Response::new(answer, origin, self.client.inner().max_body, permission))
    }

    /// Encodes the request, for sending it often.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn prepare(mut self) -> Result<PreparedRequest, Error> {
        let (origin, bytes) = self.encode()?;
        Ok(PreparedRequest {
            origin,
            bytes: bytes.into(),
            kind: kind(&self.method),
            repeatable: self.method.is_idempotent(),
            max_body: self.client.inner().max_body,
        })
    }

    fn encode(&mut self) -> Result<(Rc<Origin>, Vec<u8>), Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let url = Url::parse(&self.url)?;
        let defaults = &self.client.inner().headers;
        let merged: HeaderMap;
        let headers = if defaults.is_empty() {
            &self.headers
        } else {
            let mut all = defaults.clone();
            for name in self.headers.keys() {
                all.remove(name);
            }
            all.extend(self.headers.clone());
            merged = all;
            &merged
        };
        let length = match &self.body {
            Some(body) => BodyLen::Known(body.len() as u64),
            None => BodyLen::None,
        };
        let mut bytes = Vec::with_capacity(256 + self.body.as_ref().map_or(0, Bytes::len));
        encode_head(&mut bytes, &self.method, &url.target, &url.authority, headers, length)
            .map_err(Error::Encode)?;
        if let Some(body) = &self.body {
            bytes.extend_from_slice(body);
        }
        Ok((self.client.origin(url.scheme, &url.host, url.port)?, bytes))
    }

    fn fail_header(&mut self, name: &str, reason: &dyn std::fmt::Display) {
        let (name, reason) = (name.to_owned(), reason.to_string());
        self.error.get_or_insert(Error::Header { name, reason });
    }
}

impl PreparedRequest {
    /// Sends the request and waits for the head of the answer.
    ///
    /// # Errors
    /// What came between it and its answer.
    pub async fn send(&self) -> Result<Response, Error> {
        let bytes = Encoded::Shared(Rc::clone(&self.bytes));
        let (answer, permission) =
            exchange(&self.origin, bytes, self.kind, self.repeatable).await?;
        Ok(Response::new(answer, Rc::clone(&self.origin), self.max_body, permission))
    }
}

/// Sends a request when it may be sent, which inside of a transaction is now, and waits for the
/// answer's head.
async fn exchange(
    origin: &Origin,
    bytes: Encoded,
    kind: RequestKind,
    repeatable: bool,
) -> Result<(Answer, Permission), Error> {
    let mut permission = outside::ask();
    permission.admitted().await;
    // In its place: it is not moved again.
    let exchange = pin!(origin.exchange(bytes, kind, repeatable));
    let answer = permission.within(exchange).await.unwrap_or(Err(Error::Timeout));
    let failed = answer.as_ref().map_or(true, |answer| answer.head.status.as_u16() >= 400);
    permission.answered(failed);
    Ok((answer?, permission))
}

fn kind(method: &Method) -> RequestKind {
    match *method {
        Method::HEAD => RequestKind::Head,
        Method::CONNECT => RequestKind::Connect,
        _ => RequestKind::Normal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect(text)
    }

    #[test]
    fn a_url_is_taken_apart() {
        let plain = url("http://Example.org");
        assert_eq!((plain.host.as_str(), plain.port), ("example.org", 80));
        assert_eq!((plain.authority.as_str(), plain.target.as_str()), ("example.org", "/"));
        let full = url("http://[::1]:8080/a/b?c=d#e");
        assert_eq!((full.host.as_str(), full.port), ("[::1]", 8080));
        assert_eq!((full.authority.as_str(), full.target.as_str()), ("[::1]:8080", "/a/b?c=d"));
        assert_eq!(url("http://h?q=1").target, "/?q=1");
    }

    #[test]
    fn what_is_no_url_says_why() {
        for text in
            ["", "/path", "host:80", "http://", "http:///x", "http://a b/", "http://h:99999/"]
        {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
        assert!(matches!(Url::parse("ftp://h/"), Err(Error::Scheme { .. })));
        assert!(matches!(Url::parse("http://user@h/"), Err(Error::Url { .. })));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn https_has_a_port_of_its_own() {
        let plain = url("https://Example.org/a");
        assert_eq!((plain.scheme, plain.port), (Scheme::Https, 443));
        assert_eq!(plain.authority, "example.org");
        assert_eq!(url("https://h:80/").authority, "h:80");
        assert_eq!(url("http://h:443/").authority, "h:443");
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn https_without_tls_says_which_feature_is_missing() {
        let error = Url::parse("https://h/").expect_err("there is no TLS");
        assert!(matches!(error, Error::HttpsDisabled));
        assert!(error.to_string().contains("`tls`"), "{error}");
    }

    #[test]
    fn a_header_with_a_newline_is_an_error_before_anything_is_sent() {
        let request = Client::new().get("http://127.0.0.1/").header("x", "a\r\nb: c");
        assert!(matches!(request.prepare(), Err(Error::Header { .. })));
        let request = Client::new().get("http://127.0.0.1/").header("a\nb", "c");
        assert!(matches!(request.prepare(), Err(Error::Header { .. })));
    }
}
