//! The server's side: requests out of chunks, for targets that live in tests and benches.

use super::body::{Body, Found};
use super::gather::{Gather, Leading};
use super::head::{Coding, Fields, Framing, MANY, bad_head, most_headers, version};
use super::{CodecError, Limits};
use http::Version;
use std::mem::MaybeUninit;
use std::ops::Range;

/// The head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The request target, as sent: path and query in general.
    pub target: &'a str,
    /// `HTTP_10` or `HTTP_11`.
    pub version: Version,
    /// How the body is delimited; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the client wants to send another request on this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The bytes of the head, first line and empty line included.
    pub raw: &'a [u8],
}

/// What [`RequestDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestEvent<'a> {
    /// Nothing yet, and all of the input was taken.
    NeedMore,
    /// A request's head.
    Head(RequestHead<'a>),
    /// A piece of its body, chunked framing removed; never empty.
    Data(&'a [u8]),
    /// The request is complete and wants its answer. The next one may follow in the same input.
    End,
}

/// A [`RequestEvent`] and how much of the input led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodedRequest<'a> {
    /// Bytes at the start of the input that are done with; go on with those after them.
    pub consumed: usize,
    /// What they were.
    pub event: RequestEvent<'a>,
}

/// Decodes the requests on one connection, one after another, pipelined ones included.
///
/// The counterpart of [`Decoder`](super::Decoder), under the same limits and rules; it needs no
/// `begin`, because a client may send a request whenever it likes.
#[derive(Debug)]
pub struct RequestDecoder {
    limits: Limits,
    gather: Gather,
    state: State,
    leading: Leading,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    Body(Body),
    Ending,
    Failed,
}

/// A parsed head, its borrowed parts as ranges, so that it can outlive the borrow of its bytes.
struct Parsed {
    method: Range<usize>,
    target: Range<usize>,
    version: Version,
    fields: Fields,
    len: usize,
}

struct Located {
    head: Parsed,
    place: Place,
}

enum Place {
    Input(Range<usize>),
    Gathered,
}

impl RequestDecoder {
    /// A decoder for a fresh connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, gather: Gather::new(), state: State::Head, leading: Leading::default() }
    }

    /// Makes it as new, for another connection; its buffer is kept.
    pub fn reset(&mut self) {
        self.gather.clear();
        self.leading = Leading::default();
        self.state = State::Head;
    }

    /// Looks at the next bytes from the client, up to the first event.
    ///
    /// Call it again with the input after [`DecodedRequest::consumed`], until
    /// [`RequestEvent::NeedMore`].
    ///
    /// # Errors
    ///
    /// The request is malformed or breaks a limit. The decoder stays failed until
    /// [`reset`](Self::reset).
    #[inline]
    pub fn decode<'a>(&'a mut self, input: &'a [u8]) -> Result<DecodedRequest<'a>, CodecError> {
        let decoded = match self.state {
            State::Head => match self.head(input) {
                Ok((consumed, None)) => {
                    Ok(DecodedRequest { consumed, event: RequestEvent::NeedMore })
                }
                Ok((consumed, Some(located))) => return self.begin_body(input, consumed, located),
                Err(error) => Err(error),
            },
            State::Body(ref mut body) => body.step(input, &self.limits).map(|step| {
                let event = match step.found {
                    Found::NeedMore => RequestEvent::NeedMore,
                    Found::Data { bytes, last } => {
                        if last {
                            self.state = State::Ending;
                        }
                        RequestEvent::Data(bytes)
                    }
                    Found::End => {
                        self.expect_head();
                        RequestEvent::End
                    }
                };
                DecodedRequest { consumed: step.consumed, event }
            }),
            State::Ending => {
                self.expect_head();
                Ok(DecodedRequest { consumed: 0, event: RequestEvent::End })
            }
            State::Failed => Err(CodecError::OutOfTurn),
        };
        if decoded.is_err() {
            self.state = State::Failed;
        }
        decoded
    }

    /// The client closed its side. Between two requests that is its right.
    ///
    /// # Errors
    ///
    /// [`CodecError::Truncated`] in the middle of a request.
    pub fn finish_eof(&mut self) -> Result<(), CodecError> {
        let missing = match self.state {
            State::Ending => return Ok(()),
            State::Head if self.gather.is_empty() => return Ok(()),
            State::Head => None,
            State::Body(ref body) => body.left(),
            State::Failed => return Err(CodecError::OutOfTurn),
        };
        self.state = State::Failed;
        Err(CodecError::Truncated { missing })
    }

    /// The head was lent out up to now; only here may its bytes go.
    #[inline]
    fn expect_head(&mut self) {
        self.gather.clear();
        self.state = State::Head;
        self.leading = Leading::default();
    }

    #[inline]
    fn head(&mut self, input: &[u8]) -> Result<(usize, Option<Located>), CodecError> {
        let Limits { max_head, max_headers, .. } = self.limits;
        let mut start = 0;
        if self.gather.is_empty() {
            start = self.leading.skip(input)?;
            if start == input.len() {
                return Ok((start, None));
            }
            if let Some(head) = parse_request(&input[start..], max_headers)? {
                if head.len > max_head {
                    return Err(CodecError::HeadTooLarge { limit: max_head });
                }
                let end = start + head.len;
                return Ok((end, Some(Located { head, place: Place::Input(start..end) })));
            }
        }
        let (taken, ended) = self.gather.push(&input[start..], max_head)?;
        if !ended {
            return Ok((start + taken, None));
        }
        match parse_request(self.gather.bytes(), max_headers)? {
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
    ) -> Result<DecodedRequest<'a>, CodecError> {
        let Located { head, place } = located;
        let raw = match place {
            Place::Input(range) => &input[range],
            Place::Gathered => self.gather.bytes(),
        };
        let begun = delimit(&head).and_then(|(framing, sound)| {
            let body = Body::new(framing, &self.limits)?;
            Ok((framing, sound, body, text(raw, head.method)?, text(raw, head.target)?))
        });
        let (framing, sound, body, method, target) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                self.state = State::Failed;
                return Err(error);
            }
        };
        self.state = body.map_or(State::Ending, State::Body);
        let head = RequestHead {
            method,
            target,
            version: head.version,
            framing,
            keep_alive: head.fields.wants_reuse(head.version) && sound,
            expect_continue: head.fields.expect_continue && body.is_some(),
            raw,
        };
        Ok(DecodedRequest { consumed, event: RequestEvent::Head(head) })
    }
}

/// The framing of a request, and whether it is beyond doubt.
#[inline]
fn delimit(head: &Parsed) -> Result<(Framing, bool), CodecError> {
    match (head.fields.coding, head.fields.content_length) {
        (Coding::Unsupported, _) => Err(CodecError::UnsupportedTransferEncoding),
        (Coding::Chunked, length) => {
            Ok((Framing::Chunked, length.is_none() && head.version == Version::HTTP_11))
        }
        (Coding::Absent, Some(length)) => Ok((Framing::Length(length), true)),
        (Coding::Absent, None) => Ok((Framing::None, true)),
    }
}

fn text(raw: &[u8], range: Range<usize>) -> Result<&str, CodecError> {
    std::str::from_utf8(&raw[range]).map_err(|_| CodecError::BadHead { what: "method or target" })
}

/// Parses the head at the start of `input`; `None` when it is not complete yet.
#[inline]
fn parse_request(input: &[u8], max_headers: usize) -> Result<Option<Parsed>, CodecError> {
    let mut few = [const { MaybeUninit::uninit() }; MANY];
    let mut request = httparse::Request::new(&mut []);
    let room = max_headers.min(MANY);
    let mut outcome = request.parse_with_uninit_headers(input, &mut few[..room]);
    let mut many;
    if outcome == Err(httparse::Error::TooManyHeaders) && max_headers > MANY {
        many = vec![MaybeUninit::uninit(); most_headers(input, max_headers)];
        request = httparse::Request::new(&mut []);
        outcome = request.parse_with_uninit_headers(input, &mut many);
    }
    let len = match outcome {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(bad_head(error, max_headers)),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(CodecError::BadHead { what: "request line" });
    };
    let mut fields = Fields::default();
    for header in &*request.headers {
        fields.note(header.name.as_bytes(), header.value)?;
    }
    // The method is at the very start and one space follows it: `httparse` takes exactly one unless
    // told otherwise, and empty lines were skipped before it ran.
    let target_at = method.len() + 1;
    Ok(Some(Parsed {
        method: 0..method.len(),
        target: target_at..target_at + target.len(),
        version: version(minor),
        fields,
        len,
    }))
}
