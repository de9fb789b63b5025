//! Heads: the few fields that framing depends on, found without building a map.

use super::CodecError;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use std::mem::MaybeUninit;

/// How the body of a message is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body: the message ends with its head.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks, up to the empty one.
    Chunked,
    /// Everything until the peer closes.
    UntilClose,
}

/// The head of a response: what decides about body and connection is extracted, the rest is raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadRef<'a> {
    /// The status, 100 to 999.
    pub status: StatusCode,
    /// `HTTP_10` or `HTTP_11`.
    pub version: Version,
    /// How the body of this very response is delimited, the kind of the request considered.
    pub framing: Framing,
    /// What `Content-Length` says, in bytes. In the answer to a HEAD request it describes the body
    /// that a GET would have had.
    pub content_length: Option<u64>,
    /// Whether the connection can carry another request once the body is complete.
    pub keep_alive: bool,
    /// HTTP ends here: after a `CONNECT` or an upgrade, what follows is the tunnel's.
    pub tunnel: bool,
    /// The bytes of the head, first line and empty line included.
    pub raw: &'a [u8],
}

impl HeadRef<'_> {
    /// Builds the header map. This allocates; see [`parse_headers`].
    ///
    /// # Errors
    ///
    /// As [`parse_headers`]; under the default limits never for a head that a decoder yielded. (A
    /// [`HeaderMap`] holds 24 576 names of less than 64 KiB.)
    pub fn headers(&self) -> Result<HeaderMap, CodecError> {
        parse_headers(self.raw)
    }
}

/// Builds a map of all header fields out of the raw head of a response.
///
/// # Errors
///
/// [`CodecError::BadHead`] or [`CodecError::TooManyHeaders`] when `raw` is not a complete head.
pub fn parse_headers(raw: &[u8]) -> Result<HeaderMap, CodecError> {
    with_response(raw, usize::MAX, |response| {
        let mut map = HeaderMap::with_capacity(response.headers.len().min(MANY));
        for header in &*response.headers {
            let name = HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| CodecError::BadHead { what: "header name" })?;
            let value = HeaderValue::from_bytes(header.value)
                .map_err(|_| CodecError::BadHead { what: "header value" })?;
            map.try_append(name, value)
                .map_err(|_| CodecError::TooManyHeaders { limit: map.len() })?;
        }
        Ok(map)
    })?
    .map_or(Err(CodecError::BadHead { what: "it is incomplete" }), |(map, _)| Ok(map))
}

/// A parsed head of a response, before the kind of the request is considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) version: Version,
    pub(super) fields: Fields,
    /// Bytes from the start of the head to the byte after its empty line.
    pub(super) len: usize,
}

/// The header fields on which framing and reuse depend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) content_length: Option<u64>,
    pub(super) coding: Coding,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
}

/// What `Transfer-Encoding` says, all its fields together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coding {
    #[default]
    Absent,
    Chunked,
    Unsupported,
}

impl Fields {
    /// Whether a name is of a length that [`note`](Self::note) looks for: saves the hot path the call
    /// for the others.
    #[inline]
    pub(super) fn may_note(name: &[u8]) -> bool {
        matches!(name.len(), 6 | 10 | 14 | 17)
    }

    /// Takes note of one header field, whose name is known to be a token.
    #[inline]
    pub(super) fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), CodecError> {
        match name.len() {
            6 if is(name, b"expect") => {
                self.expect_continue |= trim(value).eq_ignore_ascii_case(b"100-continue");
            }
            10 if is(name, b"connection") => self.note_connection(value),
            14 if is(name, b"content-length") => {
                // One plain number is what everybody sends; all else is for the careful path.
                match (self.content_length, parse_decimal(value)) {
                    (None, Some(length)) => self.content_length = Some(length),
                    _ => self.note_length(value)?,
                }
            }
            17 if is(name, b"transfer-encoding") => {
                // A list, or a second field, applies a coding below or above `chunked`. We send no
                // TE, so nobody may do that, and we would hand out the coded bytes as the body.
                let chunked = trim(value).eq_ignore_ascii_case(b"chunked");
                self.coding = match self.coding {
                    Coding::Absent if chunked => Coding::Chunked,
                    _ => Coding::Unsupported,
                };
            }
            _ => {}
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) {
        for token in value.split(|&byte| byte == b',').map(trim) {
            self.close |= token.len() == 5 && is(token, b"close");
            self.keep_alive |= token.len() == 10 && token.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    #[cold]
    fn note_length(&mut self, value: &[u8]) -> Result<(), CodecError> {
        // `12, 12` is what proxies make of a repeated field; RFC 9110, 8.6 lets it pass.
        for part in value.split(|&byte| byte == b',') {
            let Some(length) = parse_decimal(trim(part)) else {
                let cut = &value[..value.len().min(32)];
                let value = String::from_utf8_lossy(cut).into_owned();
                return Err(CodecError::BadContentLength { value });
            };
            match self.content_length {
                Some(first) if first != length => {
                    return Err(CodecError::ConflictingContentLength { first, second: length });
                }
                _ => self.content_length = Some(length),
            }
        }
        Ok(())
    }

    /// Whether the peer wants to keep the connection, going by version and `Connection`.
    pub(super) fn wants_reuse(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

/// Parses the head at the start of `input`; `None` when it is not complete yet.
#[inline]
pub(super) fn parse_response(
    input: &[u8],
    max_headers: usize,
) -> Result<Option<ResponseHead>, CodecError> {
    match super::scan::scan_response(input, max_headers) {
        Some(head) => Ok(Some(head)),
        None => parse_response_carefully(input, max_headers),
    }
}

/// The same through `httparse`, which decides on everything out of the ordinary.
#[cold]
pub(super) fn parse_response_carefully(
    input: &[u8],
    max_headers: usize,
) -> Result<Option<ResponseHead>, CodecError> {
    let parsed = with_response(input, max_headers, |response| {
        let (Some(code), Some(minor)) = (response.code, response.version) else {
            return Err(CodecError::BadHead { what: "status line" });
        };
        let status =
            StatusCode::from_u16(code).map_err(|_| CodecError::BadHead { what: "status code" })?;
        let mut fields = Fields::default();
        for header in &*response.headers {
            fields.note(header.name.as_bytes(), header.value)?;
        }
        Ok(ResponseHead { status, version: version(minor), fields, len: 0 })
    })?;
    Ok(parsed.map(|(head, len)| ResponseHead { len, ..head }))
}

pub(super) fn version(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// Header fields that are parsed into an array on the stack, 32 bytes each and not initialised; more
/// than that takes an allocation, and happens only to targets that send that many.
pub(super) const MANY: usize = 64;

fn with_response<T>(
    input: &[u8],
    max_headers: usize,
    mut then: impl FnMut(&httparse::Response<'_, '_>) -> Result<T, CodecError>,
) -> Result<Option<(T, usize)>, CodecError> {
    let config = httparse::ParserConfig::default();
    let mut few = [const { MaybeUninit::uninit() }; MANY];
    let mut response = httparse::Response::new(&mut []);
    let room = max_headers.min(MANY);
    let mut outcome =
        config.parse_response_with_uninit_headers(&mut response, input, &mut few[..room]);
    let mut many;
    if outcome == Err(httparse::Error::TooManyHeaders) && max_headers > MANY {
        many = vec![MaybeUninit::uninit(); most_headers(input, max_headers)];
        response = httparse::Response::new(&mut []);
        outcome = config.parse_response_with_uninit_headers(&mut response, input, &mut many);
    }
    match outcome {
        Ok(httparse::Status::Complete(len)) => Ok(Some((then(&response)?, len))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(bad_head(error, max_headers)),
    }
}

/// A header field takes three bytes at least (`a:` and a line feed), which bounds the allocation by
/// the input even when the limit is off.
pub(super) fn most_headers(input: &[u8], max_headers: usize) -> usize {
    max_headers.min(input.len() / 3 + 1)
}

pub(super) fn bad_head(error: httparse::Error, max_headers: usize) -> CodecError {
    let what = match error {
        httparse::Error::HeaderName => "header name",
        httparse::Error::HeaderValue => "header value",
        httparse::Error::NewLine => "line break",
        httparse::Error::Status => "status line",
        httparse::Error::Token => "method or target",
        httparse::Error::Version => "version",
        httparse::Error::TooManyHeaders => {
            return CodecError::TooManyHeaders { limit: max_headers };
        }
    };
    CodecError::BadHead { what }
}

/// Compares a token with a lower-case name of the same length, regardless of case.
///
/// Setting bit 5 makes a letter lower-case, and among token characters it maps none onto a letter or
/// a hyphen that is not one; so whole words are compared, which `eq_ignore_ascii_case` does not do.
#[inline]
fn is<const N: usize>(token: &[u8], name: &[u8; N]) -> bool {
    let mut differ = 0;
    match token.first_chunk::<N>() {
        Some(token) => {
            for (byte, expected) in token.iter().zip(name) {
                differ |= (byte | 0x20) ^ expected;
            }
            differ == 0
        }
        None => false,
    }
}

/// Digits only: no sign, no space, nothing that `str::parse` is generous about.
pub(super) fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, &digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Without the optional white space (space and tab) at both ends.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
