//! The fast way through a response head, for the shape that nearly all of them have.
//!
//! It accepts a subset of what `httparse` accepts: a complete head, CRLF everywhere, names of
//! letters, digits and hyphens, values without tabs. Of such a head it says exactly what the careful
//! path says; for every other input it says nothing, and the careful path decides. Property tests
//! hold the two together.
//!
//! Measured with the eight fields that nginx sends (248 bytes with the body), the whole decoder takes
//! 80 ns a response over this path and 130 ns over the careful one; with a length alone, 35 and 51.

use super::head::{Fields, ResponseHead, version};
use http::StatusCode;

/// `None`: ask the careful path.
#[inline]
pub(super) fn scan_response(input: &[u8], max_headers: usize) -> Option<ResponseHead> {
    let (start, _) = input.split_first_chunk::<13>()?;
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor, b' ', a, b, c, b' '] = *start else {
        return None;
    };
    let minor = minor.wrapping_sub(b'0');
    let (a, b, c) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'), c.wrapping_sub(b'0'));
    if minor > 1 || a > 9 || b > 9 || c > 9 {
        return None;
    }
    let code = u16::from(a) * 100 + u16::from(b) * 10 + u16::from(c);
    let status = StatusCode::from_u16(code).ok()?;

    let mut fields = Fields::default();
    let mut at = line_end(input, start.len())?;
    // Once more than there may be fields, for the empty line.
    for _ in 0..=max_headers {
        if let Some([b'\r', b'\n']) = input.get(at..at + 2) {
            return Some(ResponseHead { status, version: version(minor), fields, len: at + 2 });
        }
        let colon = name_end(input, at)?;
        let end = line_end(input, colon + 1)?;
        let name = &input[at..colon];
        if Fields::may_note(name) {
            let value = &input[colon + 1..end - 2];
            // One space is the rule; `note` takes care of others where they matter.
            let value = value.strip_prefix(b" ").unwrap_or(value);
            fields.note(name, value).ok()?;
        }
        at = end;
    }
    None
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// The position after the CRLF that ends the line, if nothing but visible text and spaces precedes
/// it.
#[inline]
fn line_end(input: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let Some(word) = input.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return line_end_slow(input, at);
        };
        let word = u64::from_le_bytes(*word);
        // The lowest set bit is exact: a borrow can only spoil bytes above a hit.
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let del = word ^ (ONES * 0x7f);
        let is_del = del.wrapping_sub(ONES) & !del;
        let stops = (below_space | is_del) & HIGHS;
        if stops != 0 {
            at += (stops.trailing_zeros() / 8) as usize;
            break;
        }
        at += 8;
    }
    matches!(input.get(at..at + 2), Some(b"\r\n")).then_some(at + 2)
}

#[cold]
fn line_end_slow(input: &[u8], from: usize) -> Option<usize> {
    let stop = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
    let at = from + input.get(from..)?.iter().position(stop)?;
    matches!(input.get(at..at + 2), Some(b"\r\n")).then_some(at + 2)
}

/// Which bytes this path accepts in a name.
static NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let it = byte as u8;
        table[byte] = it.is_ascii_alphanumeric() || it == b'-';
        byte += 1;
    }
    table
};

#[inline]
fn name_end(input: &[u8], from: usize) -> Option<usize> {
    let name = &input.get(from..)?;
    let len = name.iter().position(|&byte| !NAME[usize::from(byte)])?;
    (len > 0 && name[len] == b':').then_some(from + len)
}
