//! Everything that can be wrong with a message.

/// Why a message could not be encoded or decoded.
///
/// Errors of encoding are the caller's and leave the output as it was. Errors of decoding are the
/// peer's (save [`OutOfTurn`](Self::OutOfTurn)): where the next message starts is no longer known,
/// so the decoder refuses all further input and the connection has to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The first line or a header field is not HTTP/1.x.
    #[error("malformed HTTP/1.1 head: {what}")]
    BadHead {
        /// The part that is malformed.
        what: &'static str,
    },
    /// No end of the head (or of the trailers) within the limit.
    #[error("head is larger than {limit} bytes; raise `max_head` if that is intended")]
    HeadTooLarge {
        /// [`Limits::max_head`](super::Limits::max_head), in bytes.
        limit: usize,
    },
    /// More header fields (or trailers) than allowed.
    #[error("more than {limit} header fields; raise `max_headers` if that is intended")]
    TooManyHeaders {
        /// [`Limits::max_headers`](super::Limits::max_headers).
        limit: usize,
    },
    /// A `Content-Length` that is not a decimal number below 2^64.
    #[error("content-length {value:?} is not a number of bytes")]
    BadContentLength {
        /// The value, cut to 32 bytes.
        value: String,
    },
    /// Two `Content-Length` values that differ.
    #[error("content-length is given as {first} and as {second}")]
    ConflictingContentLength {
        /// The value that came first, in bytes.
        first: u64,
        /// The one that contradicts it, in bytes.
        second: u64,
    },
    /// The body is to be chunked but its chunks or trailers are malformed.
    #[error("malformed chunked body: {what}")]
    BadChunk {
        /// The part that is malformed.
        what: &'static str,
    },
    /// A `Transfer-Encoding` other than exactly `chunked`.
    #[error(
        "the transfer-encoding is not `chunked`, the only one a client that sends no TE accepts"
    )]
    UnsupportedTransferEncoding,
    /// The body is, or announces that it will be, longer than allowed.
    #[error("body is larger than {limit} bytes; raise `max_body` if that is intended")]
    BodyTooLarge {
        /// [`Limits::max_body`](super::Limits::max_body), in bytes.
        limit: u64,
    },
    /// The peer closed in the middle of a message.
    #[error("connection closed in the middle of a message{}", missing_text(*.missing))]
    Truncated {
        /// Bytes still due, of the body or of the current chunk; `None` when only the peer knew.
        missing: Option<u64>,
    },
    /// The peer closed before the first byte of the response.
    ///
    /// On a reused connection this is the ordinary race with the server's idle timeout; a request
    /// that is safe to repeat may be sent again on a fresh one.
    #[error("connection closed before the first byte of the response")]
    ClosedBeforeResponse,
    /// Bytes arrived although no request was outstanding.
    #[error("the peer sent {len} bytes while no request was outstanding")]
    UnexpectedData {
        /// How many bytes, in the chunk at hand.
        len: usize,
    },
    /// Too many 1xx responses before the final one.
    #[error("more than {limit} interim (1xx) responses to one request")]
    TooManyInterim {
        /// How many are tolerated.
        limit: u8,
    },
    /// `101 Switching Protocols` although no upgrade was asked for.
    #[error("the peer switched protocols although the request asked for no upgrade")]
    UnexpectedUpgrade,
    /// The caller began a response while one was under way, or went on after an error.
    #[error("decoder used after an error, or before the previous response was complete")]
    OutOfTurn,
    /// The request target is empty or holds a space, a control character, or a character that is
    /// not ASCII.
    #[error("request target is empty or has characters that must be percent-encoded")]
    BadTarget,
    /// The host is empty or has characters that no authority has, or several hosts are given.
    #[error("host is empty, malformed, or given more than once")]
    BadHost,
    /// A `Content-Length` or `Transfer-Encoding` set by the user contradicts the body.
    #[error("header `{name}` contradicts the body of the request; leave it out, it is derived")]
    ConflictingHeader {
        /// The header's name.
        name: &'static str,
    },
}

fn missing_text(missing: Option<u64>) -> String {
    missing.map_or_else(String::new, |bytes| format!(", {bytes} bytes short"))
}
