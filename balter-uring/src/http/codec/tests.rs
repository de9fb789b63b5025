//! What must hold of the codec, in examples and over generated messages.

use super::head::parse_response_carefully;
use super::scan::scan_response;
use super::*;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// All that a caller can learn from one response.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Response {
    status: StatusCode,
    version: Version,
    framing: Framing,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    /// Bytes of the stream that it took.
    consumed: usize,
    reuse: bool,
}

/// Feeds `stream`, cut at `cuts`, to a fresh decoder until the response ends; then the peer closes.
///
/// Panics when a call makes no progress, or holds back input without saying so.
fn respond(
    limits: Limits,
    kind: RequestKind,
    stream: &[u8],
    cuts: &[usize],
) -> Result<Response, CodecError> {
    let mut decoder = Decoder::new(limits);
    decoder.begin(kind);
    respond_with(&mut decoder, stream, cuts)
}

fn respond_with(
    decoder: &mut Decoder,
    stream: &[u8],
    cuts: &[usize],
) -> Result<Response, CodecError> {
    let mut head = None;
    let mut body = Vec::new();
    let mut consumed = 0;
    for chunk in cut(stream, cuts).chain([&[][..]]) {
        let mut chunk = chunk;
        if consumed == stream.len() {
            decoder.finish_eof()?;
        }
        loop {
            let decoded = decoder.decode(chunk)?;
            chunk = &chunk[decoded.consumed..];
            consumed += decoded.consumed;
            match decoded.event {
                Event::NeedMore => {
                    assert!(chunk.is_empty(), "input was held back");
                    break;
                }
                Event::Head(found) => {
                    assert!(head.is_none(), "two heads for one request");
                    let headers = found.headers().expect("a yielded head has a map");
                    let headers = headers
                        .iter()
                        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                        .collect();
                    head = Some((found.status, found.version, found.framing, headers));
                }
                Event::Data(bytes) => {
                    assert!(!bytes.is_empty(), "an empty piece of a body");
                    body.extend_from_slice(bytes);
                }
                Event::End => {
                    let (status, version, framing, headers) = head.expect("no head before the end");
                    assert!(decoder.is_complete());
                    return Ok(Response {
                        status,
                        version,
                        framing,
                        headers,
                        body,
                        consumed,
                        reuse: decoder.can_reuse(),
                    });
                }
            }
        }
    }
    panic!("neither an end nor an error after the peer closed");
}

/// The pieces of `stream` between the sorted `cuts`, without empty ones.
fn cut<'a>(stream: &'a [u8], cuts: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    let pieces: Vec<_> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
    pieces.into_iter().filter(|piece| !piece.is_empty())
}

fn each_byte(stream: &[u8]) -> Vec<usize> {
    (0..stream.len()).collect()
}

/// The outcome for `stream` in one piece, checked to be the same byte by byte.
fn one(stream: &str) -> Result<Response, CodecError> {
    of_kind(RequestKind::Normal, stream)
}

fn of_kind(kind: RequestKind, stream: &str) -> Result<Response, CodecError> {
    let whole = respond(Limits::default(), kind, stream.as_bytes(), &[]);
    let bytes = respond(Limits::default(), kind, stream.as_bytes(), &each_byte(stream.as_bytes()));
    match (&whole, &bytes) {
        (Ok(whole), Ok(bytes)) => assert_eq!(whole, bytes, "{stream:?}"),
        (Err(_), Err(_)) => {}
        _ => panic!("{stream:?}: {whole:?} in one piece, {bytes:?} in many"),
    }
    whole
}

const NGINX: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.24.0\r\nDate: Tue, 14 Jan 2025 10:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 12\r\nLast-Modified: Mon, 13 Jan 2025 09:00:00 GMT\r\n\
    Connection: keep-alive\r\nETag: \"6784d0a0-c\"\r\nAccept-Ranges: bytes\r\n\r\nHello World!";

#[test]
fn an_ordinary_response_in_one_chunk_is_read_where_it_lies() {
    assert!(scan_response(NGINX.as_bytes(), 100).is_some(), "it must take the fast path");
    let mut decoder = Decoder::new(Limits::default());
    for _ in 0..3 {
        decoder.begin(RequestKind::Normal);
        let decoded = decoder.decode(NGINX.as_bytes()).unwrap();
        let Event::Head(head) = decoded.event else { panic!("{decoded:?}") };
        assert_eq!((head.status, head.version), (StatusCode::OK, Version::HTTP_11));
        assert_eq!((head.framing, head.content_length), (Framing::Length(12), Some(12)));
        assert!(head.keep_alive && !head.tunnel);
        assert_eq!(head.raw.as_ptr(), NGINX.as_ptr(), "the head was copied");
        assert_eq!(head.raw.len(), decoded.consumed);
        assert_eq!(head.headers().unwrap()["etag"], "\"6784d0a0-c\"");
        let consumed = decoded.consumed;
        assert_eq!((decoder.body_left(), decoder.is_complete()), (Some(12), false));
        let decoded = decoder.decode(&NGINX.as_bytes()[consumed..]).unwrap();
        assert_eq!(decoded, Decoded { consumed: 12, event: Event::Data(b"Hello World!") });
        assert!(decoder.can_reuse(), "complete with its last byte, not only with `End`");
    }
    assert_eq!(decoder.decode(b"").unwrap().event, Event::End);
    assert_eq!(decoder.decode(b"").unwrap().event, Event::NeedMore);
}

#[test]
fn an_idle_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 128, "{}", size_of::<Decoder>());
}

#[test]
fn bodies_are_delimited_by_the_rules_of_rfc_9112() {
    let body = |stream| one(stream).map(|response| (response.body, response.reuse)).unwrap();
    let text = |text: &str, reuse| (text.as_bytes().to_vec(), reuse);
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), text("", true));
    assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nto the end"), text("to the end", false));
    assert_eq!(body("HTTP/1.1 200 OK\r\n\r\n"), text("", false));
    assert_eq!(body("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n"), text("", true));
    assert_eq!(body("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"), text("", true));
    assert_eq!(body("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab"), text("ab", false));
    assert_eq!(
        body("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nab"),
        text("ab", true)
    );
    assert_eq!(
        body("HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\nContent-Length: 2\r\n\r\nab"),
        text("ab", false)
    );
    assert_eq!(body("HTTP/1.1 200 OK\nContent-Length:\t2 \n\nab"), text("ab", true));
    assert_eq!(
        body(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\nA;x=\"y\"\r\n0123456789\r\n01 \r\n!\r\n000\r\nT: v\r\n\r\n"
        ),
        text("0123456789!", true)
    );
}

#[test]
fn a_response_to_head_has_no_body_but_tells_its_length() {
    let stream = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n";
    assert_eq!(of_kind(RequestKind::Head, stream).unwrap().body, b"");
    let mut decoder = Decoder::new(Limits { max_body: 10, ..Limits::default() });
    decoder.begin(RequestKind::Head);
    let Event::Head(head) = decoder.decode(stream.as_bytes()).unwrap().event else { panic!() };
    assert_eq!((head.content_length, head.framing), (Some(99), Framing::None));
    assert!(decoder.can_reuse());
}

#[test]
fn lengths_that_agree_are_one_length_and_others_are_errors() {
    let with = |fields: &str| one(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nabc"));
    assert_eq!(with("Content-Length: 3\r\nContent-Length: 3").unwrap().body, b"abc");
    assert_eq!(with("Content-Length: 3, 03").unwrap().body, b"abc");
    let conflict = CodecError::ConflictingContentLength { first: 3, second: 2 };
    assert_eq!(with("Content-Length: 3\r\nContent-Length: 2").unwrap_err(), conflict);
    assert_eq!(with("Content-Length: 3, 2").unwrap_err(), conflict);
    for bad in ["", "+3", "-3", "3 3", "0x3", "3,", "18446744073709551616", "٣"] {
        let error = with(&format!("Content-Length: {bad}")).unwrap_err();
        assert!(matches!(error, CodecError::BadContentLength { .. }), "{bad:?}: {error:?}");
    }
}

#[test]
fn chunked_beside_a_length_wins_and_ends_the_connection() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked",
    ] {
        let response = one(&format!("{head}\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).unwrap();
        assert_eq!((response.body, response.reuse), (b"abc".to_vec(), false), "{head}");
    }
}

#[test]
fn any_other_transfer_encoding_is_refused() {
    for coding in ["gzip", "gzip, chunked", "chunked, gzip", "identity", "", "chunked;q=1"] {
        let stream = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n");
        assert_eq!(one(&stream).unwrap_err(), CodecError::UnsupportedTransferEncoding, "{coding}");
    }
    let twice =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(one(twice).unwrap_err(), CodecError::UnsupportedTransferEncoding);
}

#[test]
fn interim_responses_are_skipped_up_to_a_bound() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(one(&format!("{}{last}", interim.repeat(16))).unwrap().body, b"x");
    assert_eq!(
        one(&format!("{}{last}", interim.repeat(17))).unwrap_err(),
        CodecError::TooManyInterim { limit: 16 }
    );
    assert_eq!(one(interim).unwrap_err(), CodecError::Truncated { missing: None });
}

#[test]
fn tunnels_open_only_when_asked_for() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x01raw";
    assert_eq!(one(switch).unwrap_err(), CodecError::UnexpectedUpgrade);
    let connect = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\x01raw";
    for (kind, stream) in [(RequestKind::Upgrade, switch), (RequestKind::Connect, connect)] {
        let response = of_kind(kind, stream).unwrap();
        assert_eq!((response.consumed, response.reuse), (stream.len() - 4, false));
    }
    let refused = "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno";
    assert_eq!(of_kind(RequestKind::Connect, refused).unwrap().body, b"no");
    assert_eq!(of_kind(RequestKind::Upgrade, refused).unwrap().body, b"no");
}

#[test]
fn malformed_heads_are_errors() {
    for stream in [
        "SSH-2.0-OpenSSH_9.6\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 2000 High\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\n folded: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nNo colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
        "\rHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let error = one(stream).unwrap_err();
        assert!(matches!(error, CodecError::BadHead { .. }), "{stream:?}: {error:?}");
    }
}

#[test]
fn empty_lines_ahead_of_a_head_are_tolerated_up_to_a_bound() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert!(one(&format!("{}{head}", "\r\n".repeat(4))).is_ok());
    assert!(one(&format!("\n{head}")).is_ok());
    assert!(matches!(one(&format!("{}{head}", "\r\n".repeat(5))), Err(CodecError::BadHead { .. })));
}

#[test]
fn a_peer_that_does_not_speak_http_is_told_by_its_first_wrong_byte() {
    let mut decoder = Decoder::new(Limits::default());
    decoder.begin(RequestKind::Normal);
    assert!(matches!(decoder.decode(b"S"), Err(CodecError::BadHead { .. })));
    assert_eq!(decoder.decode(b"S"), Err(CodecError::OutOfTurn));
    decoder.reset();
    decoder.begin(RequestKind::Normal);
    assert_eq!(decoder.decode(b"HT").unwrap().event, Event::NeedMore);
    assert!(matches!(decoder.decode(b"M"), Err(CodecError::BadHead { .. })));
}

#[test]
fn malformed_chunks_are_errors() {
    let long_extension = format!("1;{}\r\nx", "e".repeat(17 * 1024));
    for body in [
        "\r\n",
        "g\r\n",
        "-1\r\n",
        " 1\r\nx\r\n",
        "0x1\r\n",
        "1\nx\r\n",
        "1\rx",
        "1\r\nxy\r\n",
        "1\r\nx\n",
        "1\r\nx\rz",
        "00000000000000001\r\nx\r\n",
        "1 2\r\nx\r\n",
        "1;a\0\r\nx\r\n",
        "1;a\nx\r\n",
        "0\r\nNo colon\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\nA: b\r\n folded\r\n\r\n",
        "0\r\nA: \0\r\n\r\n",
        "0\r\n\rx",
        &long_extension,
    ] {
        let stream = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let error = one(&stream).unwrap_err();
        assert!(matches!(error, CodecError::BadChunk { .. }), "{body:?}: {error:?}");
    }
}

#[test]
fn limits_hold_to_the_byte_however_the_head_arrives() {
    let head = "HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nContent-Length: 0\r\n\r\n";
    let run = |limits, cuts: &[usize]| respond(limits, RequestKind::Normal, head.as_bytes(), cuts);
    for cuts in [vec![], each_byte(head.as_bytes()), vec![head.len() - 1]] {
        let limits = Limits { max_head: head.len(), max_headers: 3, ..Limits::default() };
        assert!(run(limits, &cuts).is_ok());
        let small = Limits { max_head: head.len() - 1, ..limits };
        let limit = small.max_head;
        assert_eq!(run(small, &cuts), Err(CodecError::HeadTooLarge { limit }));
        let few = Limits { max_headers: 2, ..limits };
        assert_eq!(run(few, &cuts), Err(CodecError::TooManyHeaders { limit: 2 }));
    }
}

#[test]
fn many_headers_are_fine_when_the_limit_says_so() {
    let fields: String = (0..500).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let stream = format!("HTTP/1.1 204 No Content\r\n{fields}X_slow: path\r\n\r\n");
    let limits = |max_headers| Limits { max_headers, ..Limits::default() };
    for max_headers in [501, usize::MAX] {
        let response =
            respond(limits(max_headers), RequestKind::Normal, stream.as_bytes(), &[]).unwrap();
        assert_eq!(response.headers.len(), 501);
    }
    assert_eq!(
        respond(limits(500), RequestKind::Normal, stream.as_bytes(), &[]),
        Err(CodecError::TooManyHeaders { limit: 500 })
    );
}

#[test]
fn body_limits_hold_for_every_framing() {
    let limits = Limits { max_body: 4, ..Limits::default() };
    let too_large = Err(CodecError::BodyTooLarge { limit: 4 });
    for (head, fits, over) in [
        ("Content-Length: 4", "abcd", None),
        ("Content-Length: 5", "", Some("abcde")),
        ("Transfer-Encoding: chunked", "1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n", None),
        ("Transfer-Encoding: chunked", "", Some("1\r\na\r\n4\r\nbcde\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked", "", Some("1\r\na\r\nffffffffffffffff\r\n")),
        ("X: y", "abcd", None),
        ("X: y", "", Some("abcde")),
    ] {
        let stream = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{}", over.unwrap_or(fits));
        for cuts in [vec![], each_byte(stream.as_bytes())] {
            let outcome = respond(limits, RequestKind::Normal, stream.as_bytes(), &cuts);
            match over {
                None => assert_eq!(outcome.unwrap().body, b"abcd"),
                Some(_) => assert_eq!(outcome, too_large),
            }
        }
    }
    let off = Limits { max_body: u64::MAX, ..limits };
    let stream =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nffffffffffffffff\r\n";
    let error = respond(off, RequestKind::Normal, stream, &[]).unwrap_err();
    assert_eq!(error, CodecError::BodyTooLarge { limit: u64::MAX }, "the sum must not wrap");
}

#[test]
fn trailers_have_bounds_of_their_own() {
    let run = |trailers: &str, limits: Limits| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let stream = format!("{head}0\r\n{trailers}\r\n");
        respond(limits, RequestKind::Normal, stream.as_bytes(), &[])
    };
    let limits = Limits { max_head: 64, max_headers: 3, ..Limits::default() };
    assert!(run(&"A: b\r\n".repeat(3), limits).is_ok());
    assert_eq!(run(&"A: b\r\n".repeat(4), limits), Err(CodecError::TooManyHeaders { limit: 3 }));
    let long = format!("A: {}\r\n", "b".repeat(64));
    assert_eq!(run(&long, limits), Err(CodecError::HeadTooLarge { limit: 64 }));
    let stream = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\na\r\n0\r\nA: b\r\n\r\n",
        "e".repeat(64)
    );
    let outcome = respond(limits, RequestKind::Normal, stream.as_bytes(), &[]);
    assert_eq!(outcome.unwrap().body, b"a", "extensions are not trailers");
}

#[test]
fn an_endless_head_in_single_bytes_costs_linear_time() {
    // Parsing again at every byte would look at 2^43 bytes here, and the test would not end.
    let limits = Limits { max_head: 4 << 20, ..Limits::default() };
    let mut decoder = Decoder::new(limits);
    decoder.begin(RequestKind::Normal);
    let endless = b"HTTP/1.1 200 OK\r\n".iter().chain(b"A: b\r\n".iter().cycle());
    let mut bytes = 0;
    let error = endless
        .map(|byte| {
            bytes += 1;
            decoder.decode(std::slice::from_ref(byte)).map(|decoded| decoded.event).err()
        })
        .find_map(|error| error);
    assert_eq!(error, Some(CodecError::HeadTooLarge { limit: 4 << 20 }));
    assert_eq!(bytes, 4 << 20);
}

#[test]
fn a_close_is_judged_by_what_was_due() {
    let closed = |stream: &[u8]| {
        let mut decoder = Decoder::new(Limits::default());
        decoder.begin(RequestKind::Normal);
        let mut at = 0;
        while at < stream.len() {
            at += decoder.decode(&stream[at..]).unwrap().consumed;
        }
        let outcome = decoder.finish_eof();
        assert!(!decoder.can_reuse(), "a closed connection cannot be reused");
        outcome
    };
    assert_eq!(closed(b""), Err(CodecError::ClosedBeforeResponse));
    assert_eq!(closed(b"\r\n"), Err(CodecError::ClosedBeforeResponse));
    assert_eq!(closed(b"HTTP/1.1 2"), Err(CodecError::Truncated { missing: None }));
    let known = closed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab");
    assert_eq!(known, Err(CodecError::Truncated { missing: Some(3) }));
    assert!(known.unwrap_err().to_string().ends_with("message, 3 bytes short"));
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab";
    assert_eq!(closed(chunked), Err(CodecError::Truncated { missing: Some(3) }));
    let undelimited = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n";
    assert_eq!(closed(undelimited), Err(CodecError::Truncated { missing: None }));
    assert_eq!(closed(b"HTTP/1.1 200 OK\r\n\r\nab"), Ok(()));
    assert_eq!(closed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Ok(()));
}

#[test]
fn bytes_nobody_asked_for_are_an_error() {
    let mut decoder = Decoder::new(Limits::default());
    assert_eq!(decoder.decode(b"").unwrap().event, Event::NeedMore);
    let error = decoder.decode(b"HTTP/1.1 408 Timeout\r\n\r\n").unwrap_err();
    assert_eq!(error, CodecError::UnexpectedData { len: 24 });
    assert!(!decoder.can_reuse());
}

#[test]
fn beginning_in_the_middle_of_a_response_fails() {
    let mut decoder = Decoder::new(Limits::default());
    decoder.begin(RequestKind::Normal);
    decoder.decode(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap();
    decoder.begin(RequestKind::Normal);
    assert_eq!(decoder.decode(b"HTTP/1.1 200 OK\r\n\r\n"), Err(CodecError::OutOfTurn));
}

#[test]
fn a_head_begun_in_one_chunk_is_taken_up_in_the_next_and_its_rest_is_left() {
    let stream = NGINX.as_bytes();
    let mut decoder = Decoder::new(Limits::default());
    for _ in 0..2 {
        decoder.begin(RequestKind::Normal);
        assert_eq!(decoder.decode(&stream[..100]).unwrap().event, Event::NeedMore);
        assert_eq!(decoder.bytes_pending(), 100);
        let decoded = decoder.decode(&stream[100..]).unwrap();
        let Event::Head(head) = decoded.event else { panic!("{decoded:?}") };
        assert_eq!(head.raw, &stream[..stream.len() - 12]);
        assert_eq!(decoded.consumed, stream.len() - 12 - 100);
        assert_eq!(decoder.decode(b"Hello World!").unwrap().event, Event::Data(b"Hello World!"));
    }
}

// ---- generated responses ----

#[derive(Clone, Debug)]
struct Generated {
    kind: RequestKind,
    stream: Vec<u8>,
    /// Where the response ends in the stream; what comes after it is another's.
    len: usize,
    status: u16,
    body: Vec<u8>,
    fields: Vec<(String, Vec<u8>)>,
    reuse: bool,
}

fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
    let value = prop_oneof![
        "[!-~]([ -~]{0,40}[!-~])?".prop_map(String::into_bytes),
        vec(prop_oneof![0x21..=0x7e_u8, 0x80..=0xff_u8], 1..20),
        Just(Vec::new()),
    ];
    // Names with an `x-` never collide with those that decide about framing.
    ("[xX]-[a-zA-Z0-9!#$%&'*+.^_`|~-]{0,20}", value)
}

fn text_of(fields: &[(String, Vec<u8>)], newline: &str) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, value) in fields {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(newline.as_bytes());
    }
    text
}

/// Chunked framing with sizes out of `sizes`, extensions and trailers.
fn chunk(body: &[u8], sizes: &[usize], extension: &str, trailers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut rest = body;
    for size in sizes.iter().copied().chain(std::iter::repeat(1000)) {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.clamp(1, rest.len()));
        text.extend_from_slice(format!("{:02X}{extension}\r\n", piece.len()).as_bytes());
        text.extend_from_slice(piece);
        text.extend_from_slice(b"\r\n");
        rest = after;
    }
    text.extend_from_slice(b"0\r\n");
    text.extend_from_slice(&text_of(trailers, "\r\n"));
    text.extend_from_slice(b"\r\n");
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Length,
    Chunked,
    Close,
    NoContent,
    NotModified,
    ToHead,
}

fn response() -> impl Strategy<Value = Generated> {
    let shape = select(vec![
        Shape::Length,
        Shape::Chunked,
        Shape::Close,
        Shape::NoContent,
        Shape::NotModified,
        Shape::ToHead,
    ]);
    let around = (0..3_usize, 0..3_usize, any::<bool>(), any::<bool>(), select(vec!["\r\n", "\n"]));
    let chunks =
        (vec(1..30_usize, 0..6), select(vec!["", ";a", " ; a=\"b c\"", "\t"]), vec(field(), 0..3));
    let leftover = vec(any::<u8>(), 0..20);
    let content = (vec(field(), 0..8), vec(any::<u8>(), 0..200), 200..600_u16);
    (shape, around, chunks, content, leftover).prop_map(
        |(shape, around, (sizes, extension, trailers), (fields, body, status), leftover)| {
            let (leading, interims, old, close, newline) = around;
            let status = match shape {
                Shape::NoContent => 204,
                Shape::NotModified => 304,
                _ if status == 204 || status == 304 => 200,
                _ => status,
            };
            let mut framing = Vec::new();
            match shape {
                Shape::Length | Shape::ToHead | Shape::NotModified => {
                    let length = body.len().to_string().into_bytes();
                    framing.push(("CONTENT-length".to_string(), length));
                }
                Shape::Chunked => {
                    framing.push(("transfer-Encoding".to_string(), b"CHUNKED".to_vec()));
                }
                Shape::Close | Shape::NoContent => {}
            }
            if close || old {
                let value = if close { "x, Close" } else { "keep-alive" };
                framing.push(("Connection".to_string(), value.into()));
            }
            let mut all = fields;
            let middle = all.len() / 2;
            all.splice(middle..middle, framing);

            let mut stream = "\r\n".repeat(leading).into_bytes();
            for _ in 0..interims {
                stream.extend_from_slice(b"HTTP/1.1 102 Processing\r\nX-Interim: yes\r\n\r\n");
            }
            let minor = if old { 0 } else { 1 };
            stream.extend_from_slice(format!("HTTP/1.{minor} {status} Fine{newline}").as_bytes());
            stream.extend_from_slice(&text_of(&all, newline));
            stream.extend_from_slice(newline.as_bytes());
            let body = match shape {
                Shape::Length | Shape::Close => {
                    stream.extend_from_slice(&body);
                    body
                }
                Shape::Chunked => {
                    stream.extend_from_slice(&chunk(&body, &sizes, extension, &trailers));
                    body
                }
                Shape::NoContent | Shape::NotModified | Shape::ToHead => Vec::new(),
            };
            let len = stream.len();
            if shape != Shape::Close {
                stream.extend_from_slice(&leftover);
            }
            let sound = shape != Shape::Close && !(shape == Shape::Chunked && old);
            Generated {
                kind: if shape == Shape::ToHead { RequestKind::Head } else { RequestKind::Normal },
                stream,
                len,
                status,
                body,
                fields: all,
                reuse: !close && sound,
            }
        },
    )
}

/// Header fields as a map would list them: lower-case, sorted, because a map keeps the order only
/// among fields of one name.
fn normal(fields: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> =
        fields.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
    fields.sort();
    fields
}

/// Small edits that keep most of a message intact, which is where decoders break.
fn mutate(stream: &mut Vec<u8>, edits: &[(usize, u8, u8)]) {
    const LIKELY: &[u8] = b"\r\n\t :;,-0123fF\0\x7f\x80";
    for &(at, action, byte) in edits {
        let at = at % (stream.len() + 1);
        let byte = if action & 4 == 0 { byte } else { LIKELY[usize::from(byte) % LIKELY.len()] };
        match action % 4 {
            0 => stream.insert(at, byte),
            1 if at < stream.len() => drop(stream.remove(at)),
            2 if at < stream.len() => stream[at] = byte,
            _ => stream.truncate(at.max(stream.len() / 2)),
        }
    }
}

fn edits() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6)
}

fn agree(stream: &[u8], max_headers: usize) {
    if let Some(fast) = scan_response(stream, max_headers) {
        assert_eq!(parse_response_carefully(stream, max_headers), Ok(Some(fast)));
    }
}

#[test]
fn the_fast_path_agrees_on_every_byte_at_every_place() {
    // The short ones end within the last word that is looked at as a whole.
    for head in [NGINX, "HTTP/1.1 200 OK\r\nA: bc\r\n\r\n", "HTTP/1.0 404 \r\nA: bcdefg\r\n\r\n"] {
        for at in 0..head.len() {
            agree(&head.as_bytes()[..at], 100);
            for byte in 0..=255 {
                let mut stream = head.as_bytes().to_vec();
                stream[at] = byte;
                agree(&stream, 100);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn a_valid_response_decodes_to_what_was_encoded_wherever_it_is_cut(
        message in response(),
        cuts in vec(any::<usize>(), 0..12),
        again in vec(any::<usize>(), 0..4),
    ) {
        let mut decoder = Decoder::new(Limits::default());
        for cuts in [cuts, again, Vec::new(), each_byte(&message.stream)] {
            decoder.reset();
            decoder.begin(message.kind);
            let response = respond_with(&mut decoder, &message.stream, &cuts).unwrap();
            prop_assert_eq!(response.status.as_u16(), message.status);
            prop_assert_eq!(normal(&response.headers), normal(&message.fields));
            prop_assert_eq!(&response.body, &message.body);
            prop_assert_eq!(response.consumed, message.len);
            prop_assert_eq!(response.reuse, message.reuse);
        }
    }

    #[test]
    fn broken_input_neither_panics_nor_stalls_and_cuts_do_not_make_it_valid(
        message in response(),
        edits in edits(),
        cuts in vec(any::<usize>(), 0..12),
        max_head in 20..400_usize,
        max_headers in 0..12_usize,
        max_body in 0..300_u64,
    ) {
        let mut stream = message.stream;
        mutate(&mut stream, &edits);
        for limits in [Limits::default(), Limits { max_head, max_headers, max_body }] {
            let whole = respond(limits, message.kind, &stream, &[]);
            for cuts in [&cuts[..], &each_byte(&stream)] {
                match (&whole, &respond(limits, message.kind, &stream, cuts)) {
                    (Ok(whole), Ok(pieces)) => prop_assert_eq!(whole, pieces),
                    (Err(_), Err(_)) => {}
                    (whole, pieces) => prop_assert!(false, "{:?} but {:?}", whole, pieces),
                }
            }
        }
    }

    #[test]
    fn noise_neither_panics_nor_stalls(
        stream in vec(any::<u8>(), 0..300),
        start in select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
        cuts in vec(any::<usize>(), 0..12),
    ) {
        let stream = [start.as_bytes(), &stream].concat();
        let _ = respond(Limits::default(), RequestKind::Normal, &stream, &cuts);
        let _ = request_stream(&stream, &cuts);
        let _ = parse_headers(&stream);
    }

    #[test]
    fn the_fast_path_says_what_the_careful_path_says(
        message in response(),
        edits in edits(),
        max_headers in 0..12_usize,
    ) {
        let mut stream = message.stream;
        agree(&stream, max_headers);
        mutate(&mut stream, &edits);
        agree(&stream, 100);
    }

    #[test]
    fn the_fast_path_agrees_on_the_fields_that_frame(
        fields in vec((
            select(vec!["Content-Length", "transfer-encoding", "CONNECTION", "Expect", "Content_Length", "Content\rLength"]),
            select(vec!["1", " 1", "1 ", "1, 1", "1,2", "", "chunked", " CHUNKED", "gzip", "close", "keep-alive,close", "\tclose", "100-continue"]),
        ), 0..5),
    ) {
        let mut stream = b"HTTP/1.1 200 \r\n".to_vec();
        for (name, value) in fields {
            stream.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
        }
        stream.extend_from_slice(b"\r\n");
        agree(&stream, 100);
    }
}

// ---- requests ----

type Request = (String, String, Vec<u8>, bool);

fn request_stream(stream: &[u8], cuts: &[usize]) -> Result<Vec<Request>, CodecError> {
    let mut decoder = RequestDecoder::new(Limits::default());
    let mut requests = Vec::new();
    let mut request = None;
    for mut chunk in cut(stream, cuts) {
        loop {
            let decoded = decoder.decode(chunk)?;
            chunk = &chunk[decoded.consumed..];
            match decoded.event {
                RequestEvent::NeedMore => {
                    assert!(chunk.is_empty(), "input was held back");
                    break;
                }
                RequestEvent::Head(head) => {
                    assert!(request.is_none(), "two heads for one request");
                    assert!(head.raw.starts_with(head.method.as_bytes()));
                    let (method, target) = (head.method.to_string(), head.target.to_string());
                    request = Some((method, target, Vec::new(), head.keep_alive));
                }
                RequestEvent::Data(bytes) => {
                    assert!(!bytes.is_empty(), "an empty piece of a body");
                    request.as_mut().unwrap().2.extend_from_slice(bytes);
                }
                RequestEvent::End => requests.push(request.take().unwrap()),
            }
        }
    }
    decoder.finish_eof()?;
    Ok(requests)
}

fn encoded(method: &Method, target: &str, headers: &HeaderMap, body: BodyLen) -> String {
    let mut out = Vec::new();
    encode_head(&mut out, method, target, "example.org:8080", headers, body).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_head_has_what_http_1_1_asks_for() {
    let none = HeaderMap::new();
    let agent = concat!("User-Agent: balter-uring/", env!("CARGO_PKG_VERSION"), "\r\n");
    assert_eq!(
        encoded(&Method::GET, "/a?b=c", &none, BodyLen::None),
        format!("GET /a?b=c HTTP/1.1\r\nHost: example.org:8080\r\n{agent}Accept: */*\r\n\r\n")
    );
    for method in [Method::POST, Method::PUT, Method::PATCH] {
        let head = encoded(&method, "/", &none, BodyLen::None);
        assert!(head.ends_with("Content-Length: 0\r\n\r\n"), "{head}");
    }
    let known = encoded(&Method::GET, "/", &none, BodyLen::Known(u64::MAX));
    assert!(known.ends_with("Content-Length: 18446744073709551615\r\n\r\n"), "{known}");
    let zero = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
    let zero = encoded(&Method::GET, "/", &zero, BodyLen::None);
    assert!(zero.ends_with("Content-Length: 0\r\n\r\n"), "{zero}");
    let chunked = encoded(&Method::POST, "/", &none, BodyLen::Chunked);
    assert!(chunked.ends_with("Transfer-Encoding: chunked\r\n\r\n"), "{chunked}");
    assert!(!chunked.contains("Length"));
}

#[test]
fn what_the_user_sets_replaces_the_defaults_and_stands_once() {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("other"));
    headers.insert("user-agent", HeaderValue::from_static("mine"));
    headers.insert("accept", HeaderValue::from_static("text/html"));
    headers.append("x-a", HeaderValue::from_static("1"));
    headers.append("x-a", HeaderValue::from_static("2"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
    let head = encoded(&Method::POST, "/", &headers, BodyLen::Known(3)).to_lowercase();
    for once in [
        "host: other\r\n",
        "user-agent: mine\r\n",
        "accept: text/html\r\n",
        "content-length: 3\r\n",
    ] {
        let name = &once[..=once.find(':').unwrap()];
        assert_eq!((head.matches(name).count(), head.matches(once).count()), (1, 1), "{head}");
    }
    assert!(head.contains("x-a: 1\r\n") && head.contains("x-a: 2\r\n"));
    headers.remove(CONTENT_LENGTH);
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    let head = encoded(&Method::POST, "/", &headers, BodyLen::Chunked).to_lowercase();
    assert_eq!(head.matches("transfer-encoding").count(), 1);
}

#[test]
fn a_head_that_would_lie_or_inject_is_refused_and_leaves_nothing_behind() {
    let refuse = |target, host, headers: &HeaderMap, body| {
        let mut out = b"before".to_vec();
        let error = encode_head(&mut out, &Method::POST, target, host, headers, body).unwrap_err();
        assert_eq!(out, b"before");
        error
    };
    let none = HeaderMap::new();
    for target in ["", "/a b", "/\r\nX: y", "/\0", "/é", "/\x7f"] {
        assert_eq!(refuse(target, "h", &none, BodyLen::None), CodecError::BadTarget, "{target:?}");
    }
    for host in ["", "a b", "a\r\nX: y"] {
        assert_eq!(refuse("/", host, &none, BodyLen::None), CodecError::BadHost, "{host:?}");
    }
    let with = |name: &'static str, value: &'static str| {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))])
    };
    let length = CodecError::ConflictingHeader { name: "content-length" };
    for (value, body) in [
        ("4", BodyLen::Known(3)),
        ("+3", BodyLen::Known(3)),
        ("3", BodyLen::None),
        ("3", BodyLen::Chunked),
    ] {
        assert_eq!(refuse("/", "h", &with("content-length", value), body), length, "{value}");
    }
    let coding = CodecError::ConflictingHeader { name: "transfer-encoding" };
    for (value, body) in [
        ("chunked", BodyLen::Known(3)),
        ("chunked", BodyLen::None),
        ("gzip", BodyLen::Chunked),
        ("gzip, chunked", BodyLen::Chunked),
    ] {
        assert_eq!(refuse("/", "h", &with("transfer-encoding", value), body), coding, "{value}");
    }
    let mut hosts = with("host", "a");
    hosts.append(HOST, HeaderValue::from_static("b"));
    assert_eq!(refuse("/", "h", &hosts, BodyLen::None), CodecError::BadHost);
}

#[test]
fn requests_are_told_apart_wherever_they_are_cut() {
    let none = HeaderMap::new();
    let mut stream = encoded(&Method::GET, "/one", &none, BodyLen::None).into_bytes();
    stream.extend_from_slice(encoded(&Method::POST, "/two", &none, BodyLen::Known(3)).as_bytes());
    stream.extend_from_slice(b"abc\r\n");
    stream.extend_from_slice(encoded(&Method::PUT, "/three", &none, BodyLen::Chunked).as_bytes());
    encode_chunk(&mut stream, b"0123456789abcdef0");
    encode_chunk(&mut stream, b"");
    encode_chunk(&mut stream, b"!");
    stream.extend_from_slice(LAST_CHUNK);
    stream.extend_from_slice(
        b"GET /four HTTP/1.0\r\n\r\nGET /five HTTP/1.1\r\nconnection: close\r\n\r\n",
    );
    let expected: Vec<Request> = [
        ("GET", "/one", "", true),
        ("POST", "/two", "abc", true),
        ("PUT", "/three", "0123456789abcdef0!", true),
        ("GET", "/four", "", false),
        ("GET", "/five", "", false),
    ]
    .map(|(method, target, body, reuse)| (method.into(), target.into(), body.into(), reuse))
    .into();
    assert_eq!(request_stream(&stream, &[]).unwrap(), expected);
    assert_eq!(request_stream(&stream, &each_byte(&stream)).unwrap(), expected);
    for at in 0..stream.len() {
        assert_eq!(request_stream(&stream, &[at]).unwrap(), expected);
    }
}

#[test]
fn broken_requests_are_errors() {
    for (stream, expected) in [
        ("GET / HTTP/1.1\r\nA: b", CodecError::Truncated { missing: None }),
        (
            "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\na",
            CodecError::Truncated { missing: Some(2) },
        ),
        (
            "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\na",
            CodecError::UnsupportedTransferEncoding,
        ),
        ("GET  / HTTP/1.1\r\n\r\n", CodecError::BadHead { what: "method or target" }),
    ] {
        assert_eq!(request_stream(stream.as_bytes(), &[]).unwrap_err(), expected, "{stream:?}");
        let bytes = each_byte(stream.as_bytes());
        assert_eq!(request_stream(stream.as_bytes(), &bytes).unwrap_err(), expected, "{stream:?}");
    }
    let mut decoder = RequestDecoder::new(Limits::default());
    decoder.decode(b"GET / HTT").unwrap();
    assert!(matches!(decoder.decode(b"P/1.1\r\n\r\n").unwrap().event, RequestEvent::Head(_)));
    assert_eq!(decoder.decode(b"").unwrap().event, RequestEvent::End);
    assert_eq!(decoder.finish_eof(), Ok(()), "a head that is done with is not a truncated one");

    let expecting = b"PUT / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
    let mut decoder = RequestDecoder::new(Limits::default());
    let RequestEvent::Head(head) = decoder.decode(expecting).unwrap().event else { panic!() };
    assert!(head.expect_continue);
}

proptest! {
    #[test]
    fn broken_requests_neither_panic_nor_stall(
        edits in edits(),
        cuts in vec(any::<usize>(), 0..12),
    ) {
        let mut stream = b"POST /a?b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nContent-Length: 2\r\n\r\nab".to_vec();
        mutate(&mut stream, &edits);
        let whole = request_stream(&stream, &[]);
        let pieces = request_stream(&stream, &cuts);
        match (whole, pieces) {
            (Ok(whole), Ok(pieces)) => prop_assert_eq!(whole, pieces),
            (Err(_), Err(_)) => {}
            (whole, pieces) => prop_assert!(false, "{:?} but {:?}", whole, pieces),
        }
    }
}
