//! Request heads, and the framing of chunked request bodies.

use super::CodecError;
use http::header::{
    ACCEPT, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use http::method::Method;

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLen {
    /// No body. `POST`, `PUT` and `PATCH` say so with `Content-Length: 0`.
    None,
    /// A body of this many bytes.
    Known(u64),
    /// A body of unknown length: pieces through [`encode_chunk`], then [`LAST_CHUNK`].
    Chunked,
}

/// What ends a chunked body: the empty chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

const DEFAULT_AGENT: &[u8] =
    concat!("User-Agent: balter-uring/", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes();

/// Appends the head of a request to `out`, the empty line included.
///
/// `target` is the path and query (for `CONNECT`, the authority); `host` the authority without a
/// default port. A `Host` among the headers replaces `host`. Added unless given: `User-Agent`,
/// `Accept: */*`, and the field that frames the body.
///
/// A head depends on nothing but its arguments: callers that repeat a request encode it once.
///
/// # Errors
///
/// [`CodecError::BadTarget`] and [`CodecError::BadHost`] when they could not stand in a head
/// unharmed, [`CodecError::ConflictingHeader`] when a `Content-Length` or `Transfer-Encoding` among
/// the headers contradicts `body`. `out` is unchanged then.
pub fn encode_head(
    out: &mut Vec<u8>,
    method: &Method,
    target: &str,
    host: &str,
    headers: &HeaderMap,
    body: BodyLen,
) -> Result<(), CodecError> {
    // All checks come first, so that an error never leaves half a head in the connection's buffer.
    // Header names and values need none: their types admit no line break.
    if !is_visible_ascii(target.as_bytes()) {
        return Err(CodecError::BadTarget);
    }
    let host = host_value(host, headers)?;
    check_framing(headers, body)?;

    out.reserve(128 + target.len() + host.len() + headers.len() * 48);
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(host);
    out.extend_from_slice(b"\r\n");
    if !headers.contains_key(USER_AGENT) {
        out.extend_from_slice(DEFAULT_AGENT);
    }
    if !headers.contains_key(ACCEPT) {
        out.extend_from_slice(b"Accept: */*\r\n");
    }
    for (name, value) in headers {
        if *name == HOST || *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    match body {
        BodyLen::Known(length) => push_content_length(out, length),
        BodyLen::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        BodyLen::None if has_content_by_default(method) || headers.contains_key(CONTENT_LENGTH) => {
            push_content_length(out, 0);
        }
        BodyLen::None => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends one chunk of a chunked body to `out`. Empty data appends nothing, because an empty chunk
/// would end the body.
pub fn encode_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = data.len();
    while rest > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest % 16];
        rest /= 16;
    }
    out.reserve(data.len() + digits.len() + 4);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

fn host_value<'a>(host: &'a str, headers: &'a HeaderMap) -> Result<&'a [u8], CodecError> {
    let mut given = headers.get_all(HOST).iter();
    let value = match (given.next(), given.next()) {
        (None, _) => host.as_bytes(),
        (Some(value), None) => value.as_bytes(),
        // A server must answer two Host fields with 400, so they are never what was meant.
        (Some(_), Some(_)) => return Err(CodecError::BadHost),
    };
    if is_visible_ascii(value) { Ok(value) } else { Err(CodecError::BadHost) }
}

fn check_framing(headers: &HeaderMap, body: BodyLen) -> Result<(), CodecError> {
    let expected = match body {
        BodyLen::None => Some(0),
        BodyLen::Known(length) => Some(length),
        BodyLen::Chunked => None,
    };
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if !lengths.all(|value| expected.is_some() && decimal(value) == expected) {
        return Err(CodecError::ConflictingHeader { name: "content-length" });
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = body == BodyLen::Chunked;
    if !codings.all(|value| chunked && value.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(CodecError::ConflictingHeader { name: "transfer-encoding" });
    }
    Ok(())
}

fn decimal(value: &HeaderValue) -> Option<u64> {
    super::head::parse_decimal(value.as_bytes())
}

fn has_content_by_default(method: &Method) -> bool {
    *method == Method::POST || *method == Method::PUT || *method == Method::PATCH
}

fn is_visible_ascii(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic)
}

fn push_content_length(out: &mut Vec<u8>, length: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        // A remainder of ten fits a byte.
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}
