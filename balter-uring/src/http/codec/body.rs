//! Bodies: counting down a length, taking chunked framing away.

use super::head::Framing;
use super::{CodecError, Limits};

/// The body of the message at hand.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// Bytes left.
    Length(u64),
    Chunked(Chunked),
    /// Bytes seen.
    UntilClose(u64),
}

/// What a step through the body found. It took `consumed` bytes of its input, always all of it for
/// `NeedMore`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) consumed: usize,
    pub(super) found: Found<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    NeedMore,
    /// A piece of the body, never empty; `last` when the message is complete with it.
    Data {
        bytes: &'a [u8],
        last: bool,
    },
    End,
}

impl Body {
    /// `None` when there is no body to read.
    #[inline]
    pub(super) fn new(framing: Framing, limits: &Limits) -> Result<Option<Self>, CodecError> {
        Ok(match framing {
            Framing::None | Framing::Length(0) => None,
            Framing::Length(length) if length > limits.max_body => {
                return Err(CodecError::BodyTooLarge { limit: limits.max_body });
            }
            Framing::Length(length) => Some(Self::Length(length)),
            Framing::Chunked => Some(Self::Chunked(Chunked::new())),
            Framing::UntilClose => Some(Self::UntilClose(0)),
        })
    }

    #[inline]
    pub(super) fn step<'a>(
        &mut self,
        input: &'a [u8],
        limits: &Limits,
    ) -> Result<Step<'a>, CodecError> {
        match self {
            Self::Chunked(chunked) => chunked.step(input, limits),
            _ if input.is_empty() => Ok(Step { consumed: 0, found: Found::NeedMore }),
            Self::Length(left) => {
                let bytes = at_most(input, *left);
                *left -= bytes.len() as u64;
                Ok(Step { consumed: bytes.len(), found: Found::Data { bytes, last: *left == 0 } })
            }
            Self::UntilClose(seen) => {
                *seen = seen.saturating_add(input.len() as u64);
                if *seen > limits.max_body {
                    return Err(CodecError::BodyTooLarge { limit: limits.max_body });
                }
                Ok(Step { consumed: input.len(), found: Found::Data { bytes: input, last: false } })
            }
        }
    }

    /// Bytes that are known to be due: of the body, or of the chunk at hand.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(Chunked { at: At::Data { left }, .. }) => Some(*left),
            Self::Chunked(_) | Self::UntilClose(_) => None,
        }
    }
}

fn at_most(input: &[u8], most: u64) -> &[u8] {
    match usize::try_from(most) {
        Ok(most) if most < input.len() => &input[..most],
        _ => input,
    }
}

/// The chunked framing, a byte at a time save for the data itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunked {
    at: At,
    /// Bytes of body that all chunk sizes so far announce.
    announced: u64,
    /// Bytes of chunk extensions, and later of trailers.
    overhead: u32,
    /// Trailer fields.
    trailers: u32,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Size {
        value: u64,
        digits: u8,
    },
    /// White space after a size.
    Padding {
        value: u64,
    },
    Extension {
        value: u64,
    },
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the start of a line that is a trailer field or the empty line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// Bytes of chunk extensions in one body. Nobody uses them, and each is work that the peer gets for
/// a byte of body; RFC 9112, 7.1.1 asks for a bound over the whole message.
const MAX_EXTENSIONS: u32 = 16 * 1024;

impl Chunked {
    fn new() -> Self {
        Self { at: At::Size { value: 0, digits: 0 }, announced: 0, overhead: 0, trailers: 0 }
    }

    fn step<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Result<Step<'a>, CodecError> {
        let mut consumed = 0;
        while let Some(&byte) = input.get(consumed) {
            if let At::Data { left } = self.at {
                let bytes = at_most(&input[consumed..], left);
                let left = left - bytes.len() as u64;
                self.at = if left == 0 { At::DataCr } else { At::Data { left } };
                let found = Found::Data { bytes, last: false };
                return Ok(Step { consumed: consumed + bytes.len(), found });
            }
            consumed += 1;
            match self.framing_byte(byte, limits)? {
                Some(at) => self.at = at,
                None => return Ok(Step { consumed, found: Found::End }),
            }
        }
        Ok(Step { consumed, found: Found::NeedMore })
    }

    /// Takes one byte that is not data; `None` when it was the last of the body.
    fn framing_byte(&mut self, byte: u8, limits: &Limits) -> Result<Option<At>, CodecError> {
        let bad = |what| Err(CodecError::BadChunk { what });
        Ok(Some(match (self.at, byte) {
            (At::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // 16 digits fill a u64, so leading zeros are bounded by the same test.
                if digits == 16 {
                    return bad("size does not fit 64 bits");
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                At::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (At::Size { digits: 0, .. }, _) => return bad("size is not a hexadecimal number"),
            (At::Size { value, .. } | At::Padding { value }, b' ' | b'\t') => {
                self.count_extension()?;
                At::Padding { value }
            }
            (At::Size { value, .. } | At::Padding { value }, b';') => {
                self.count_extension()?;
                At::Extension { value }
            }
            (At::Size { value, .. } | At::Padding { value } | At::Extension { value }, b'\r') => {
                At::SizeLf { value }
            }
            (At::Size { .. } | At::Padding { .. }, _) => {
                return bad("size is not a hexadecimal number");
            }
            (At::Extension { value }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extension()?;
                At::Extension { value }
            }
            (At::Extension { .. }, _) => return bad("extension has a control character"),
            (At::SizeLf { value: 0 }, b'\n') => {
                self.overhead = 0;
                At::Trailer
            }
            (At::SizeLf { value }, b'\n') => self.begin_data(value, limits)?,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size { value: 0, digits: 0 },
            (At::DataCr | At::DataLf, _) => return bad("data is longer than its size says"),
            (At::Trailer, b'\r') => At::EndLf,
            (At::Trailer | At::EndLf, b'\n') => return Ok(None),
            (At::SizeLf { .. } | At::EndLf | At::TrailerLf, _) if byte != b'\n' => {
                return bad("line break");
            }
            (at, _) => self.trailer_byte(at, byte, limits)?,
        }))
    }

    /// Trailers obey the rules of header fields and are then forgotten.
    fn trailer_byte(&mut self, at: At, byte: u8, limits: &Limits) -> Result<At, CodecError> {
        self.overhead = self.overhead.saturating_add(1);
        if self.overhead as usize > limits.max_head {
            return Err(CodecError::HeadTooLarge { limit: limits.max_head });
        }
        match (at, byte) {
            (At::Trailer, _) if is_token(byte) => {
                self.trailers = self.trailers.saturating_add(1);
                if self.trailers as usize > limits.max_headers {
                    return Err(CodecError::TooManyHeaders { limit: limits.max_headers });
                }
                Ok(At::TrailerName)
            }
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::TrailerName, _) if is_token(byte) => Ok(At::TrailerName),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue | At::TrailerLf, b'\n') => Ok(At::Trailer),
            (At::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(At::TrailerValue),
            _ => Err(CodecError::BadChunk { what: "trailer field" }),
        }
    }

    fn begin_data(&mut self, size: u64, limits: &Limits) -> Result<At, CodecError> {
        match self.announced.checked_add(size) {
            Some(announced) if announced <= limits.max_body => {
                self.announced = announced;
                Ok(At::Data { left: size })
            }
            _ => Err(CodecError::BodyTooLarge { limit: limits.max_body }),
        }
    }

    fn count_extension(&mut self) -> Result<(), CodecError> {
        self.overhead += 1;
        if self.overhead > MAX_EXTENSIONS {
            return Err(CodecError::BadChunk { what: "extensions are too long" });
        }
        Ok(())
    }
}

/// The `tchar` of RFC 9110, 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
