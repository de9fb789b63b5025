//! Requests, pipelined, in one piece and in many: no panic, no call without progress, and where the
//! stream is cut decides nothing about what the requests are.
//!
//! `cargo +nightly fuzz run request corpus/request seeds/request` searches;
//! `cargo run --bin request -- seeds/request/*` runs what is there, on any toolchain.
//!
//! The first byte of an input decides how the rest is cut.

#![no_main]

use http::codec::{CodecError, Limits, RequestDecoder, RequestEvent};
use libfuzzer_sys::fuzz_target;

// The sources themselves, so that neither glommio nor a public module is needed.
#[allow(dead_code, missing_docs, unused_imports)]
#[path = "../../balter-uring/src/http"]
mod http {
    pub mod codec;
}

const LIMITS: Limits = Limits { max_head: 2048, max_headers: 70, max_body: 1 << 16 };

#[derive(Debug, PartialEq)]
struct Request {
    head: Vec<u8>,
    method: String,
    target: String,
    keep_alive: bool,
    body: Vec<u8>,
}

fuzz_target!(|input: &[u8]| {
    let [cut, stream @ ..] = input else { return };
    let whole = requests(stream, &[usize::MAX]);
    for sizes in [[usize::from(cut % 16) + 1, usize::from(cut / 16) + 1], [1, 1]] {
        match (&whole, &requests(stream, &sizes)) {
            (Ok(whole), Ok(pieces)) => assert_eq!(whole, pieces),
            (Err(_), Err(_)) => {}
            (whole, pieces) => panic!("{whole:?} in one piece, {pieces:?} in many"),
        }
    }
});

/// Feeds pieces of these sizes, in turn, and closes after the last.
fn requests(stream: &[u8], sizes: &[usize]) -> Result<Vec<Request>, CodecError> {
    let mut decoder = RequestDecoder::new(LIMITS);
    let mut requests: Vec<Request> = Vec::new();
    let mut rest = stream;
    for size in sizes.iter().cycle() {
        let mut piece;
        (piece, rest) = rest.split_at(rest.len().min(*size));
        loop {
            let decoded = decoder.decode(piece)?;
            piece = &piece[decoded.consumed..];
            match decoded.event {
                RequestEvent::NeedMore => {
                    assert!(piece.is_empty(), "input was held back");
                    break;
                }
                RequestEvent::Head(head) => requests.push(Request {
                    head: head.raw.to_vec(),
                    method: head.method.to_string(),
                    target: head.target.to_string(),
                    keep_alive: head.keep_alive,
                    body: Vec::new(),
                }),
                RequestEvent::Data(bytes) => {
                    assert!(!bytes.is_empty(), "an empty piece of a body");
                    requests.last_mut().expect("a head").body.extend_from_slice(bytes);
                }
                RequestEvent::End => assert!(!requests.is_empty(), "an end without a head"),
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    decoder.finish_eof()?;
    Ok(requests)
}
