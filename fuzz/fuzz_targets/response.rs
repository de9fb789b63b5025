//! Responses, in one piece and in many: no panic, no call without progress, and where the stream is
//! cut decides nothing about what a response is.
//!
//! `cargo +nightly fuzz run response corpus/response seeds/response` searches;
//! `cargo run --bin response -- seeds/response/*` runs what is there, on any toolchain.
//!
//! The first byte of an input picks the kind of request, the second how the rest is cut.

#![no_main]

use http::codec::{CodecError, Decoder, Event, Limits, RequestKind};
use libfuzzer_sys::fuzz_target;

// The sources themselves, so that neither glommio nor a public module is needed.
#[allow(dead_code, missing_docs, unused_imports)]
#[path = "../../balter-uring/src/http"]
mod http {
    pub mod codec;
}

const LIMITS: Limits = Limits { max_head: 2048, max_headers: 70, max_body: 1 << 16 };

#[derive(Debug, PartialEq)]
struct Response {
    head: Vec<u8>,
    status: u16,
    body: Vec<u8>,
    consumed: usize,
    reuse: bool,
}

fuzz_target!(|input: &[u8]| {
    let [kind, cut, stream @ ..] = input else { return };
    let kind = match kind % 4 {
        0 => RequestKind::Normal,
        1 => RequestKind::Head,
        2 => RequestKind::Connect,
        _ => RequestKind::Upgrade,
    };
    let whole = respond(kind, stream, &[usize::MAX]);
    for sizes in [[usize::from(cut % 16) + 1, usize::from(cut / 16) + 1], [1, 1]] {
        match (&whole, &respond(kind, stream, &sizes)) {
            (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
            (Err(_), Err(_)) => {}
            (whole, pieces) => panic!("{whole:?} in one piece, {pieces:?} in many"),
        }
    }
});

/// Feeds pieces of these sizes, in turn, and closes after the last.
fn respond(kind: RequestKind, stream: &[u8], sizes: &[usize]) -> Result<Response, CodecError> {
    let mut decoder = Decoder::new(LIMITS);
    decoder.begin(kind);
    let mut head = None;
    let mut body = Vec::new();
    let mut consumed = 0;
    let mut sizes = sizes.iter().cycle();
    loop {
        let rest = &stream[consumed..];
        if rest.is_empty() {
            decoder.finish_eof()?;
        }
        let mut piece = &rest[..rest.len().min(*sizes.next().expect("a cycle"))];
        loop {
            let decoded = decoder.decode(piece)?;
            piece = &piece[decoded.consumed..];
            consumed += decoded.consumed;
            match decoded.event {
                Event::NeedMore => {
                    assert!(piece.is_empty(), "input was held back");
                    break;
                }
                Event::Head(found) => {
                    assert!(head.is_none(), "two heads for one request");
                    found.headers().expect("a yielded head has a map");
                    head = Some((found.raw.to_vec(), found.status.as_u16()));
                }
                Event::Data(bytes) => {
                    assert!(!bytes.is_empty(), "an empty piece of a body");
                    body.extend_from_slice(bytes);
                }
                Event::End => {
                    let (head, status) = head.expect("no head before the end");
                    let reuse = decoder.can_reuse();
                    return Ok(Response { head, status, body, consumed, reuse });
                }
            }
        }
    }
}
