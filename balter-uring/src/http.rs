//! An HTTP/1.1 client on the shard's ring, in the manner of reqwest.
//!
//! ```no_run
//! # use balter_uring::prelude::*;
//! use balter_uring::http::{Client, Error};
//!
//! #[transaction]
//! async fn search(client: &Client) -> Result<String, Error> {
//!     let response = client.get("http://127.0.0.1:8080/search?q=a").send().await?;
//!     response.error_for_status()?.text().await
//! }
//! ```
//!
//! A request that is sent often is encoded once:
//!
//! ```no_run
//! # use balter_uring::prelude::*;
//! use balter_uring::http::{Client, Error, PreparedRequest};
//!
//! #[scenario]
//! async fn visitor() {
//!     let page = Client::new().get("http://127.0.0.1:8080/").prepare().expect("a good URL");
//!     loop {
//!         let _ = visit(&page).await;
//!     }
//! }
//!
//! #[transaction]
//! async fn visit(page: &PreparedRequest) -> Result<(), Error> {
//!     page.send().await?.error_for_status()?.discard().await?;
//!     Ok(())
//! }
//! ```
//!
//! `https` URLs are spoken to in TLS 1.2 or 1.3, with certificates that the system trusts, others
//! that the [`ClientBuilder`] is given, or any. A client's connections resume each other's
//! sessions. [`RunStatistics::handshakes`](crate::RunStatistics::handshakes) tells how long
//! handshakes took.
//!
//! Connections are kept and used again, never by another shard. Redirects are not followed,
//! cookies not kept and bodies not decompressed: a load test measures one exchange at a time.

mod client;
#[doc(hidden)]
pub mod codec;
mod connection;
mod error;
mod request;
mod response;

#[cfg(feature = "tls")]
pub use crate::net::tls::Certificate;
pub use client::{Client, ClientBuilder};
pub use codec::CodecError;
pub use error::Error;
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
pub use request::{PreparedRequest, RequestBuilder};
pub use response::Response;
