//! What can go wrong with a request.

use std::io;

use http::StatusCode;

use super::codec::CodecError;
use crate::failure::{self, FailureClass};
#[cfg(feature = "tls")]
use crate::net::TlsError;

/// Why a request got no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL cannot be used. Nothing was sent.
    #[error("`{url}` is no URL to send a request to: {reason}; write it as http://host:port/path")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The URL's scheme is not spoken here. Nothing was sent.
    #[error("the scheme `{scheme}` is not supported: only http and https are")]
    Scheme {
        /// What was given.
        scheme: String,
    },
    /// The URL's scheme is `https`, and this crate was built without TLS. Nothing was sent.
    #[error(
        "https is not built in: enable the feature `tls` of balter-uring, which `default-features = false` leaves out"
    )]
    HttpsDisabled,
    /// TLS failed: the certificate is not accepted, the target sent an alert, or ended the
    /// connection where it must not.
    #[cfg(feature = "tls")]
    #[error("no TLS with the target, or no longer: {0}")]
    Tls(#[source] TlsError),
    /// A header's name or value has bytes that it must not have. Nothing was sent.
    #[error("the header `{name}` cannot be sent: {reason}")]
    Header {
        /// Its name, as far as it could be read.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request cannot be encoded. Nothing was sent.
    #[error("the request cannot be encoded: {0}")]
    Encode(#[source] CodecError),
    /// The target's name has no address.
    #[error("`{host}` could not be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// No connection could be opened.
    #[error("no connection to {address}: {source}")]
    Connect {
        /// The address tried last.
        address: std::net::SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The deadline of the transaction passed, or that of a request outside of one.
    #[error("the transaction's deadline passed")]
    Timeout,
    /// The connection failed after it had been opened.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
    /// The answer broke the protocol, ended early, or passed a limit.
    #[error("the answer cannot be read: {0}")]
    Response(#[source] CodecError),
    /// The body is larger than what the client collects.
    #[error(
        "the body is larger than {limit} bytes: raise ClientBuilder::max_body, or read it with Response::chunk or Response::discard"
    )]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The answer's status is 400 or above; see `Response::error_for_status`.
    #[error("the answer has the status {0}")]
    Status(StatusCode),
    /// The body is no text in UTF-8.
    #[error("the body is not UTF-8: {0}")]
    Text(#[source] std::str::Utf8Error),
    /// The body could not be made of JSON, or into it.
    #[cfg(feature = "json")]
    #[error("the body is not the JSON that was expected: {0}")]
    Json(#[source] serde_json::Error),
}

impl Error {
    pub(super) fn io(error: io::Error) -> Self {
        #[cfg(feature = "tls")]
        let error = match error.downcast() {
            Ok(error) => return Self::Tls(error),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }

    /// The connection has failed before a byte of the answer. A target that closes it then has cut
    /// nothing, and need not have said so.
    pub(super) fn before_answer(error: io::Error) -> Self {
        match Self::io(error) {
            #[cfg(feature = "tls")]
            Self::Tls(TlsError::Truncated) => Self::response(CodecError::ClosedBeforeResponse),
            error => error,
        }
    }

    /// An answer that cannot be read; notes whose fault that is.
    pub(super) fn response(error: CodecError) -> Self {
        failure::note(match error {
            CodecError::Truncated { .. } | CodecError::ClosedBeforeResponse => FailureClass::Reset,
            _ => FailureClass::Protocol,
        });
        Self::Response(error)
    }

    /// The connection broke without a byte of an answer: on one that had been idle, it may have
    /// been closed before the request came.
    pub(super) fn before_any_answer(&self) -> bool {
        match self {
            Self::Response(CodecError::ClosedBeforeResponse) => true,
            Self::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionAborted
            ),
            _ => false,
        }
    }
}
