//! HTTP/1.1 without any I/O: bytes in, events out, and request heads into a buffer.
//!
//! Nothing here knows a socket, a clock or an executor. The caller hands every chunk that the ring
//! delivers to [`Decoder::decode`] and acts on what comes back; a chunk is parsed where it lies and
//! is copied only when a head is spread over several of them.
//!
//! | piece | what it does |
//! |---|---|
//! | [`encode_head`] | writes a request head, with the fields that HTTP/1.1 asks for |
//! | [`Decoder`] | the client's side: one response after another on one connection |
//! | [`RequestDecoder`] | the server's side, for targets that live in tests and benches |
//!
//! Three promises hold for both decoders, whatever the peer sends:
//!
//! - they do not panic, and they hold at most [`Limits::max_head`] bytes;
//! - every call either consumes input, yields an event, or returns [`Event::NeedMore`]; the last
//!   means that *all* of the input was taken, so the chunk can be given back;
//! - where the chunks were cut makes no difference to what a well-formed message decodes to.
//!
//! Where RFC 9112 leaves a choice, the strict side was taken: a load generator that guesses what a
//! broken target meant reports numbers about its guesses.

mod body;
mod encode;
mod error;
mod gather;
mod head;
mod request;
mod response;
mod scan;
#[cfg(test)]
mod tests;

pub use self::encode::{BodyLen, LAST_CHUNK, encode_chunk, encode_head};
pub use self::error::CodecError;
pub use self::head::{Framing, HeadRef, parse_headers};
pub use self::request::{DecodedRequest, RequestDecoder, RequestEvent, RequestHead};
pub use self::response::{Decoded, Decoder, Event, RequestKind};

/// What one message may cost before the decoder gives up on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one head, from its first line to the empty line, both included. The trailer section
    /// of a chunked body has the same bound of its own. The default, 64 KiB, is eight times what
    /// common servers are willing to send.
    pub max_head: usize,
    /// Header fields in one head, and in one trailer section. 100 by default.
    pub max_headers: usize,
    /// Bytes of one body, after chunked framing is removed; `u64::MAX` switches the limit off.
    ///
    /// Bodies pass through and are never stored here, so this bounds time, not memory: it is what
    /// ends a body that has no end. The default, 1 GiB, keeps a 10 Gbit/s link busy for about a
    /// second, so it is out of the way of honest downloads. Whoever *collects* a body needs a far
    /// smaller limit of their own.
    pub max_body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_head: 64 * 1024, max_headers: 100, max_body: 1 << 30 }
    }
}
