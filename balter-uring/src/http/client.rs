//! The client: its configuration, and its connections on each shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
#[cfg(feature = "tls")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use http::{HeaderMap, Method};

use super::Error;
use super::codec::Limits;
use super::connection::Origin;
use super::request::{RequestBuilder, Scheme};
#[cfg(feature = "tls")]
use crate::net::TlsError;
#[cfg(feature = "tls")]
use crate::net::tls::{Certificate, Connector, Trust};
use crate::ring;

/// An HTTP/1.1 client.
///
/// Cheap to clone; clones share their connections, on each shard apart. Made once in a scenario,
/// each instance has connections of its own, as a user has; made outside and given to the scenario
/// as an argument, all instances of a shard draw from one set.
///
/// # Examples
/// ```
/// let client = balter_uring::http::Client::new();
/// let request = client.get("http://127.0.0.1:8080/").header("accept", "text/html");
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    id: u64,
    pub(super) headers: HeaderMap,
    limits: Limits,
    pub(super) max_body: usize,
    max_idle: usize,
    #[cfg(feature = "tls")]
    tls: Tls,
}

/// TLS as a client has it: made when it is first needed, and shared by all of its connections, so
/// that they resume each other's sessions.
#[cfg(feature = "tls")]
#[derive(Debug)]
struct Tls {
    trust: Trust,
    connector: OnceLock<Result<Connector, TlsError>>,
}

#[cfg(feature = "tls")]
impl Tls {
    fn connector(&self) -> Result<Connector, Error> {
        let connector = self.connector.get_or_init(|| Connector::new(&self.trust, &[b"http/1.1"]));
        connector.clone().map_err(Error::Tls)
    }
}

/// Configures a [`Client`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ClientBuilder {
    headers: HeaderMap,
    limits: Limits,
    max_body: usize,
    max_idle: usize,
    #[cfg(feature = "tls")]
    trust: Trust,
}

/// The connections of one client on one shard.
#[derive(Debug)]
struct Connections {
    owner: Weak<Inner>,
    origins: Vec<Rc<Origin>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static CONNECTIONS: RefCell<HashMap<u64, Connections>> = RefCell::new(HashMap::new());
}

impl Client {
    /// A client with the defaults of [`ClientBuilder`].
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Configures a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            headers: HeaderMap::new(),
            limits: Limits::default(),
            max_body: 64 << 20,
            max_idle: usize::MAX,
            #[cfg(feature = "tls")]
            trust: Trust::default(),
        }
    }

    /// A request with any method. What is wrong with the URL shows when it is sent.
    pub fn request(&self, method: Method, url: impl AsRef<str>) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, url.as_ref())
    }

    /// A GET request.
    pub fn get(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// A HEAD request.
    pub fn head(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// A POST request.
    pub fn post(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// A PUT request.
    pub fn put(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// A PATCH request.
    pub fn patch(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// A DELETE request.
    pub fn delete(&self, url: impl AsRef<str>) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// This client's hold on a host, on this shard.
    pub(super) fn origin(
        &self,
        scheme: Scheme,
        host: &str,
        port: u16,
    ) -> Result<Rc<Origin>, Error> {
        let has_tls = scheme == Scheme::Https;
        CONNECTIONS.with_borrow_mut(|all| {
            if all.is_empty()
                && let Some(ring) = ring::current()
            {
                ring.when_idle(close_ownerless);
            }
            let mine = all.entry(self.inner.id).or_insert_with(|| Connections {
                owner: Arc::downgrade(&self.inner),
                origins: Vec::new(),
            });
            // A client talks to a handful of hosts; looking through them beats hashing.
            let known = mine.origins.iter().find(|origin| {
                origin.port == port && origin.has_tls() == has_tls && origin.host == host
            });
            if let Some(known) = known {
                return Ok(Rc::clone(known));
            }
            let origin = self.new_origin(has_tls, host, port)?;
            mine.origins.push(Rc::clone(&origin));
            Ok(origin)
        })
    }

    fn new_origin(&self, has_tls: bool, host: &str, port: u16) -> Result<Rc<Origin>, Error> {
        let Inner { limits, max_idle, .. } = *self.inner;
        if !has_tls {
            return Ok(Origin::new(host.to_owned(), port, limits, max_idle));
        }
        #[cfg(feature = "tls")]
        return Origin::with_tls(
            host.to_owned(),
            port,
            self.inner.tls.connector()?,
            limits,
            max_idle,
        );
        // No URL comes so far.
        #[cfg(not(feature = "tls"))]
        Err(Error::HttpsDisabled)
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The usual case: an instance ends on the shard that it lived on. Elsewhere, and while
        // the thread ends, the connections wait for `close_ownerless`. They are dropped outside
        // of the borrow.
        let mine = CONNECTIONS
            .try_with(|all| all.try_borrow_mut().ok().and_then(|mut all| all.remove(&self.id)));
        drop(mine);
    }
}

/// Closes what clients that are gone have left on this shard.
fn close_ownerless() {
    let gone: Vec<_> = CONNECTIONS.with_borrow_mut(|all| {
        all.extract_if(|_, connections| connections.owner.strong_count() == 0).collect()
    });
    drop(gone);
}

impl ClientBuilder {
    /// Headers that every request has, unless it has its own.
    pub fn default_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// Largest body that `bytes`, `text` and `json` collect, in bytes: 64 MiB if not set.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Largest head of an answer, in bytes: 64 KiB if not set.
    pub fn max_head(mut self, bytes: usize) -> Self {
        self.limits.max_head = bytes;
        self
    }

    /// Idle connections that a shard keeps for a host: any number if not set. With 0 every request
    /// opens a connection of its own.
    pub fn max_idle_per_host(mut self, connections: usize) -> Self {
        self.max_idle = connections;
        self
    }

    /// Trusts another authority, beside the system's.
    #[cfg(feature = "tls")]
    pub fn add_root_certificate(mut self, certificate: Certificate) -> Self {
        self.trust.roots.push(certificate);
        self
    }

    /// Whether the system's root certificates are trusted: they are if this is not set. They are
    /// read once a process, at its first `https` URL.
    #[cfg(feature = "tls")]
    pub fn tls_built_in_root_certs(mut self, trusted: bool) -> Self {
        self.trust.built_in_roots = trusted;
        self
    }

    /// Accepts any certificate for any name: expired, self-signed, somebody else's. Whoever is on
    /// the way can then read and change everything, so this is for targets of one's own.
    #[cfg(feature = "tls")]
    pub fn danger_accept_invalid_certs(mut self, accepted: bool) -> Self {
        self.trust.accept_invalid = accepted;
        self
    }

    /// The client.
    #[must_use]
    pub fn build(self) -> Client {
        let inner = Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            headers: self.headers,
            limits: self.limits,
            max_body: self.max_body,
            max_idle: self.max_idle,
            #[cfg(feature = "tls")]
            tls: Tls { trust: self.trust, connector: OnceLock::new() },
        };
        Client { inner: Arc::new(inner) }
    }
}
