//! A connection as a protocol above sees it, with TLS or without.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::TcpStream;
#[cfg(feature = "tls")]
use super::tls::TlsStream;
use crate::ring::SendBuf;

/// Bytes come by [`poll_fill`](Self::poll_fill), lie in [`filled`](Self::filled), and are done
/// with by [`consume`](Self::consume).
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    /// In a box: a session is much larger than a stream.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
}

impl Transport {
    /// Waits for bytes; `false` after the peer's last.
    #[inline]
    pub(crate) fn poll_fill(&mut self, cx: &Context<'_>) -> Poll<io::Result<bool>> {
        match self {
            Self::Plain(stream) => stream.poll_fill(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.poll_fill(cx),
        }
    }

    /// Received and not consumed.
    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        match self {
            Self::Plain(stream) => stream.filled(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.filled(),
        }
    }

    /// Drops the first bytes from view.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        match self {
            Self::Plain(stream) => stream.consume(count),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.consume(count),
        }
    }

    /// Sends with the ring's next turn. The last send must be over. An error of the network shows
    /// at the next receive.
    ///
    /// # Errors
    /// If the TLS session has ended.
    pub(crate) fn send(&mut self, bytes: Outgoing<'_>) -> io::Result<()> {
        match self {
            Self::Plain(stream) => {
                stream.send(match bytes {
                    Outgoing::Shared(bytes) => SendBuf::Shared(Rc::clone(bytes)),
                    Outgoing::Borrowed(bytes) => {
                        let mut copy = stream.reclaim();
                        copy.extend_from_slice(bytes);
                        SendBuf::Owned(copy)
                    }
                });
                Ok(())
            }
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.send(match bytes {
                Outgoing::Shared(bytes) => bytes,
                Outgoing::Borrowed(bytes) => bytes,
            }),
        }
    }

    /// `true` while what was sent last is still being sent.
    pub(crate) fn is_sending(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_sending(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.is_sending(),
        }
    }

    /// Completes when the last send is over.
    pub(crate) fn poll_sent(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_sent(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.poll_sent(cx),
        }
    }

    /// An idle connection can carry another exchange: nothing has come that nobody asked for.
    pub(crate) fn is_usable(&mut self) -> bool {
        match self {
            Self::Plain(stream) => !stream.has_news(),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.is_usable(),
        }
    }
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outgoing<'a> {
    /// Encoded once, sent often: without TLS it is sent from where it lies.
    Shared(&'a Rc<[u8]>),
    /// Copied, or encrypted, into what the ring keeps.
    Borrowed(&'a [u8]),
}
