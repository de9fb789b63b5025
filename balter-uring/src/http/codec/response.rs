//! The client's side: responses out of chunks.

use super::body::{Body, Found};
use super::gather::{Gather, Leading};
use super::head::{Coding, Framing, HeadRef, ResponseHead, parse_response};
use super::{CodecError, Limits};
use http::{StatusCode, Version};
use std::ops::Range;

/// What was asked, as far as it decides how the answer is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKind {
    /// Any request but the ones below.
    #[default]
    Normal,
    /// `HEAD`: the response has no body, whatever its fields say.
    Head,
    /// `CONNECT`: a 2xx response has no body and opens a tunnel.
    Connect,
    /// A request with `Upgrade`: `101 Switching Protocols` is a final response and opens a tunnel.
    Upgrade,
}

/// What [`Decoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing yet, and all of the input was taken.
    NeedMore,
    /// The final response's head; interim ones (1xx) are skipped.
    Head(HeadRef<'a>),
    /// A piece of the body, chunked framing removed; never empty.
    Data(&'a [u8]),
    /// The response is complete.
    End,
}

/// An [`Event`] and how much of the input led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Bytes at the start of the input that are done with; go on with those after them.
    pub consumed: usize,
    /// What they were.
    pub event: Event<'a>,
}

/// Interim responses before the final one that are tolerated.
const MAX_INTERIM: u8 = 16;

/// Decodes the responses on one connection, one after another.
///
/// [`begin`](Self::begin) for every request that was sent, then [`decode`](Self::decode) on each
/// chunk until [`Event::End`]. Bytes that are left over then belong to the next response: they are
/// an error unless a request is outstanding for them.
///
/// It owns no memory until a head arrives in pieces.
///
/// # Examples
///
/// ```ignore
/// # use balter_uring::http::codec::{Decoder, Event, Limits, RequestKind};
/// let mut decoder = Decoder::new(Limits::default());
/// decoder.begin(RequestKind::Normal);
/// let chunk = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// let mut rest = &chunk[..];
/// let mut body = Vec::new();
/// loop {
///     let decoded = decoder.decode(rest)?;
///     rest = &rest[decoded.consumed..];
///     match decoded.event {
///         Event::Head(head) => assert_eq!(head.status, 200),
///         Event::Data(bytes) => body.extend_from_slice(bytes),
///         Event::NeedMore => unreachable!("the response is all there"),
///         Event::End => break,
///     }
/// }
/// assert_eq!(body, b"hello");
/// assert!(decoder.can_reuse());
/// # Ok::<(), balter_uring::http::codec::CodecError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    gather: Gather,
    state: State,
    leading: Leading,
    interim: u8,
    kind: RequestKind,
    keep_alive: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// No request is outstanding.
    Idle,
    Head,
    Body(Body),
    /// All bytes are in; `End` is still to be told.
    Ending,
    Failed,
}

/// A head that was found, and where its bytes are.
struct Located {
    head: ResponseHead,
    place: Place,
}

enum Place {
    Input(Range<usize>),
    Gathered,
}

impl Decoder {
    /// A decoder for a fresh connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            gather: Gather::new(),
            state: State::Idle,
            leading: Leading::default(),
            interim: 0,
            kind: RequestKind::Normal,
            keep_alive: true,
        }
    }

    /// Makes it as new, for another connection; its buffer is kept.
    pub fn reset(&mut self) {
        self.gather.clear();
        self.state = State::Idle;
        self.keep_alive = true;
    }

    /// A request was sent: expect the response to it.
    ///
    /// [`Event::End`] of the response before need not have been fetched, provided that
    /// [`is_complete`](Self::is_complete) holds. If it does not, the decoder fails, since it would
    /// take the rest of one response for the start of another.
    pub fn begin(&mut self, kind: RequestKind) {
        self.state = match self.state {
            State::Idle | State::Ending => State::Head,
            State::Head | State::Body(_) | State::Failed => State::Failed,
        };
        self.gather.clear();
        self.leading = Leading::default();
        self.interim = 0;
        self.kind = kind;
    }

    /// Looks at the next bytes from the peer, up to the first event.
    ///
    /// Call it again with the input after [`Decoded::consumed`], until [`Event::NeedMore`] or
    /// [`Event::End`].
    ///
    /// # Errors
    ///
    /// The response is malformed or breaks a limit. The decoder stays failed until
    /// [`reset`](Self::reset).
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a [u8]) -> Result<Decoded<'a>, CodecError> {
        let decoded = match self.state {
            State::Head => match self.head(input) {
                Ok((consumed, None)) => Ok(Decoded { consumed, event: Event::NeedMore }),
                Ok((consumed, Some(located))) => return self.begin_body(input, consumed, located),
                Err(error) => Err(error),
            },
            State::Body(ref mut body) => body.step(input, &self.limits).map(|step| {
                let event = match step.found {
                    Found::NeedMore => Event::NeedMore,
                    Found::Data { bytes, last } => {
                        if last {
                            self.state = State::Ending;
                        }
                        Event::Data(bytes)
                    }
                    Found::End => {
                        self.state = State::Idle;
                        Event::End
                    }
                };
                Decoded { consumed: step.consumed, event }
            }),
            State::Ending => {
                self.state = State::Idle;
                Ok(Decoded { consumed: 0, event: Event::End })
            }
            State::Idle if input.is_empty() => Ok(Decoded { consumed: 0, event: Event::NeedMore }),
            State::Idle => Err(CodecError::UnexpectedData { len: input.len() }),
            State::Failed => Err(CodecError::OutOfTurn),
        };
        if decoded.is_err() {
            self.state = State::Failed;
        }
        decoded
    }

    /// The peer closed its side.
    ///
    /// A body that is delimited by the close is complete then, and [`decode`](Self::decode) with
    /// empty input yields its [`Event::End`]. Closing while no request is outstanding is a peer's
    /// right.
    ///
    /// # Errors
    ///
    /// [`CodecError::ClosedBeforeResponse`] or [`CodecError::Truncated`].
    pub fn finish_eof(&mut self) -> Result<(), CodecError> {
        self.keep_alive = false;
        let error = match self.state {
            State::Idle | State::Ending => return Ok(()),
            State::Body(Body::UntilClose(_)) => {
                self.state = State::Ending;
                return Ok(());
            }
            State::Head if self.gather.is_empty() && self.interim == 0 => {
                CodecError::ClosedBeforeResponse
            }
            State::Head => CodecError::Truncated { missing: None },
            State::Body(ref body) => CodecError::Truncated { missing: body.left() },
            State::Failed => CodecError::OutOfTurn,
        };
        self.state = State::Failed;
        Err(error)
    }

    /// Whether all bytes of the response have been consumed (or none was begun). True before
    /// [`Event::End`] is fetched when the body's length was known.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Idle | State::Ending)
    }

    /// Whether the connection may carry another request: the last response is complete, was
    /// delimited by itself, and neither side said `close`.
    pub fn can_reuse(&self) -> bool {
        self.keep_alive && self.is_complete()
    }

    /// Body bytes known to be due: of the body, or of the chunk at hand. `None` outside a body, and
    /// where only the peer knows.
    pub fn body_left(&self) -> Option<u64> {
        match self.state {
            State::Body(ref body) => body.left(),
            _ => None,
        }
    }

    /// Bytes held back because the head they belong to is not complete.
    pub fn bytes_pending(&self) -> usize {
        match self.state {
            State::Head => self.gather.bytes().len(),
            _ => 0,
        }
    }

    /// Looks for the head of the final response, past the interim ones.
    fn head(&mut self, input: &[u8]) -> Result<(usize, Option<Located>), CodecError> {
        let mut at = 0;
        loop {
            let (consumed, located) = self.any_head(&input[at..])?;
            let Some(mut located) = located else {
                return Ok((at + consumed, None));
            };
            if let Place::Input(range) = &mut located.place {
                *range = range.start + at..range.end + at;
            }
            at += consumed;
            let status = located.head.status;
            if !status.is_informational() {
                return Ok((at, Some(located)));
            }
            if status == StatusCode::SWITCHING_PROTOCOLS {
                return match self.kind {
                    RequestKind::Upgrade => Ok((at, Some(located))),
                    _ => Err(CodecError::UnexpectedUpgrade),
                };
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(CodecError::TooManyInterim { limit: MAX_INTERIM });
            }
            self.gather.clear();
            self.leading = Leading::default();
        }
    }

    /// Looks for a head, at the start of the input or begun in earlier chunks.
    #[inline]
    fn any_head(&mut self, input: &[u8]) -> Result<(usize, Option<Located>), CodecError> {
        let Limits { max_head, max_headers, .. } = self.limits;
        let mut start = 0;
        if self.gather.is_empty() {
            start = self.leading.skip(input)?;
            if start == input.len() {
                return Ok((start, None));
            }
            if let Some(head) = parse_response(&input[start..], max_headers)? {
                if head.len > max_head {
                    return Err(CodecError::HeadTooLarge { limit: max_head });
                }
                let end = start + head.len;
                return Ok((end, Some(Located { head, place: Place::Input(start..end) })));
            }
        }
        let (taken, ended) = self.gather.push(&input[start..], max_head)?;
        check_start(self.gather.bytes())?;
        if !ended {
            return Ok((start + taken, None));
        }
        match parse_response(self.gather.bytes(), max_headers)? {
            Some(head) if head.len == self.gather.bytes().len() => {
                Ok((start + taken, Some(Located { head, place: Place::Gathered })))
            }
            _ => Err(CodecError::BadHead { what: "empty line" }),
        }
    }

    #[inline]
    fn begin_body<'a>(
        &'a mut self,
        input: &'a [u8],
        consumed: usize,
        located: Located,
    ) -> Result<Decoded<'a>, CodecError> {
        let Located { head, place } = located;
        let delimited = delimit(self.kind, &head)
            .and_then(|delimited| Ok((delimited, Body::new(delimited.framing, &self.limits)?)));
        let (delimited, body) = match delimited {
            Ok(delimited) => delimited,
            Err(error) => {
                self.state = State::Failed;
                return Err(error);
            }
        };
        self.keep_alive = delimited.keep_alive;
        self.state = body.map_or(State::Ending, State::Body);
        let raw = match place {
            Place::Input(range) => &input[range],
            Place::Gathered => self.gather.bytes(),
        };
        let head = HeadRef {
            status: head.status,
            version: head.version,
            framing: delimited.framing,
            content_length: head.fields.content_length,
            keep_alive: delimited.keep_alive,
            tunnel: delimited.tunnel,
            raw,
        };
        Ok(Decoded { consumed, event: Event::Head(head) })
    }
}

#[derive(Clone, Copy)]
struct Delimited {
    framing: Framing,
    keep_alive: bool,
    tunnel: bool,
}

/// The rules of RFC 9112, 6.3, in their order.
#[inline]
fn delimit(kind: RequestKind, head: &ResponseHead) -> Result<Delimited, CodecError> {
    let fields = &head.fields;
    let keep_alive = fields.wants_reuse(head.version);
    let tunnel = match kind {
        RequestKind::Connect => head.status.is_success(),
        RequestKind::Upgrade => head.status == StatusCode::SWITCHING_PROTOCOLS,
        RequestKind::Normal | RequestKind::Head => false,
    };
    if tunnel {
        return Ok(Delimited { framing: Framing::None, keep_alive: false, tunnel });
    }
    let bodiless = kind == RequestKind::Head
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodiless {
        return Ok(Delimited { framing: Framing::None, keep_alive, tunnel });
    }
    let (framing, sound) = match (fields.coding, fields.content_length) {
        (Coding::Unsupported, _) => return Err(CodecError::UnsupportedTransferEncoding),
        // With a length beside it, or under HTTP/1.0, somebody on the way may have framed this
        // message differently: read it as the RFC says, but trust nothing that comes after it.
        (Coding::Chunked, length) => {
            (Framing::Chunked, length.is_none() && head.version == Version::HTTP_11)
        }
        (Coding::Absent, Some(length)) => (Framing::Length(length), true),
        (Coding::Absent, None) => (Framing::UntilClose, false),
    };
    Ok(Delimited { framing, keep_alive: keep_alive && sound, tunnel })
}

/// Tells at once, not at the end of a head that may never come, that the peer does not speak HTTP/1.
fn check_start(bytes: &[u8]) -> Result<(), CodecError> {
    const START: &[u8] = b"HTTP/1.";
    let known = bytes.len().min(START.len());
    if bytes[..known] == START[..known] {
        Ok(())
    } else {
        Err(CodecError::BadHead { what: "version" })
    }
}
