//! A head that is spread over several chunks.

use super::CodecError;

/// Collects a head until its empty line has arrived.
///
/// Each byte is looked at once to find the end, and the parser runs over the whole only then: a peer
/// that sends a byte at a time costs linear work.
#[derive(Debug, Default)]
pub(super) struct Gather {
    bytes: Vec<u8>,
    line: Line,
}

/// Where in a line the last byte gathered stands. A head ends with LF LF or LF CR LF, which covers
/// the bare line feeds that `httparse` accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Inside,
    AfterLf,
    AfterLfCr,
}

/// What is kept of the buffer between messages, in bytes: one fat head must not cost each of ten
/// thousand connections its size for the rest of the run.
const KEPT_CAPACITY: usize = 4096;

impl Gather {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), line: Line::Inside }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the head, which nobody may have borrowed any more.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.line = Line::Inside;
        if self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = Vec::new();
        }
    }

    /// Takes bytes up to the end of the head; returns how many, and whether the end is among them.
    pub(super) fn push(&mut self, input: &[u8], limit: usize) -> Result<(usize, bool), CodecError> {
        let end = self.find_end(input);
        let taken = end.unwrap_or(input.len());
        let length = self.bytes.len().saturating_add(taken);
        // A head that fills the limit and has no end yet cannot end within it.
        if length > limit || (length == limit && end.is_none()) {
            return Err(CodecError::HeadTooLarge { limit });
        }
        self.bytes.extend_from_slice(&input[..taken]);
        Ok((taken, end.is_some()))
    }

    fn find_end(&mut self, input: &[u8]) -> Option<usize> {
        let mut line = self.line;
        for (at, &byte) in input.iter().enumerate() {
            line = match (line, byte) {
                (Line::AfterLf | Line::AfterLfCr, b'\n') => {
                    self.line = Line::Inside;
                    return Some(at + 1);
                }
                (_, b'\n') => Line::AfterLf,
                (Line::AfterLf, b'\r') => Line::AfterLfCr,
                _ => Line::Inside,
            };
        }
        self.line = line;
        None
    }
}

/// Empty lines ahead of a head, which some peers send after a body that they counted wrongly.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leading {
    seen: u8,
    after_cr: bool,
}

/// Bytes of empty lines that are let pass: four CRLF.
const MAX_LEADING: u8 = 8;

impl Leading {
    /// How many bytes at the start of `input` are empty lines.
    #[inline]
    pub(super) fn skip(&mut self, input: &[u8]) -> Result<usize, CodecError> {
        if !self.after_cr && !matches!(input.first(), Some(b'\r' | b'\n')) {
            return Ok(0);
        }
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match byte {
                b'\n' => self.after_cr = false,
                _ if self.after_cr => return Err(CodecError::BadHead { what: "line break" }),
                b'\r' => self.after_cr = true,
                _ => break,
            }
            at += 1;
            self.seen += 1;
            if self.seen > MAX_LEADING {
                return Err(CodecError::BadHead { what: "empty lines ahead of it" });
            }
        }
        Ok(at)
    }
}
