//! A TCP connection, and the listener that test targets accept on.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};
use socket2::SockAddr;

use super::{current_ring, listening_socket, stream_socket, watched};
use crate::ring::{Chunk, SendBuf, Socket};
use crate::traffic;

/// What one write through [`AsyncWrite`] takes at most.
const WRITE_SIZE: usize = 64 << 10;

/// A TCP connection on the shard's ring.
///
/// Implements the traits of `futures-io`, for TLS, WebSocket and database clients. Data arrives by
/// multishot receive into buffers that all connections of the shard share.
#[derive(Debug)]
pub struct TcpStream {
    socket: Socket,
    /// Partly read.
    chunk: Option<Chunk>,
}

impl TcpStream {
    /// Connects to an address.
    ///
    /// # Errors
    /// What the system answers; [`TimedOut`](io::ErrorKind::TimedOut) at the transaction's
    /// deadline; [`Unsupported`](io::ErrorKind::Unsupported) outside of a scenario.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let opened =
            current_ring().and_then(|ring| ring.adopt_client(stream_socket(address)?.into()));
        // Through `watched`, so that a lack of descriptors is noted.
        let Poll::Ready(opened) = watched(Poll::Ready(opened)) else { unreachable!("it is ready") };
        let socket = opened?;
        socket.connect(SockAddr::from(address));
        poll_fn(|cx| watched(socket.poll_connect(cx))).await?;
        traffic::connected();
        Ok(Self { socket, chunk: None })
    }

    /// Queues bytes for the ring's next turn. An error shows at the next receive.
    ///
    /// The last send must be over: see [`poll_sent`](Self::poll_sent).
    pub(crate) fn send(&self, bytes: SendBuf) {
        traffic::sent(bytes.len());
        self.socket.send(bytes);
    }

    /// `true` while what was sent last is still being sent.
    pub(crate) fn is_sending(&self) -> bool {
        self.socket.is_sending()
    }

    /// Completes when the last send is over.
    pub(crate) fn poll_sent(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        watched(self.socket.poll_sent(cx))
    }

    /// An empty vector, with the allocation of what was sent before where there is one.
    pub(crate) fn reclaim(&self) -> Vec<u8> {
        self.socket.reclaim()
    }

    /// The next bytes, or `None` after the peer's last.
    #[inline]
    pub(crate) fn poll_recv(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        let polled = watched(self.socket.poll_recv(cx));
        if let Poll::Ready(Ok(Some(chunk))) = &polled {
            traffic::received(chunk.len());
        }
        polled
    }

    /// Waits for bytes, which [`filled`](Self::filled) then has; `false` after the peer's last.
    #[inline]
    pub(crate) fn poll_fill(&mut self, cx: &Context<'_>) -> Poll<io::Result<bool>> {
        if self.chunk.is_none() {
            self.chunk = ready!(self.poll_recv(cx))?;
        }
        Poll::Ready(Ok(self.chunk.is_some()))
    }

    /// Received and not consumed.
    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        self.chunk.as_deref().unwrap_or_default()
    }

    /// Drops bytes from view. The buffer they came in goes back with the last.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        if let Some(chunk) = &mut self.chunk {
            chunk.advance(count);
            if chunk.is_empty() {
                self.chunk = None;
            }
        }
    }

    /// Data, an end or an error has come that nobody asked for.
    pub(crate) fn has_news(&self) -> bool {
        self.socket.has_news()
    }

    fn adopt(fd: std::os::fd::OwnedFd) -> io::Result<Self> {
        socket2::SockRef::from(&fd).set_tcp_nodelay(true)?;
        Ok(Self { socket: current_ring()?.adopt(fd)?, chunk: None })
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_fill(cx))?;
        // Nothing is filled after the peer's last.
        let count = self.filled().len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.filled()[..count]);
        self.consume(count);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(cx))?;
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let count = buffer.len().min(WRITE_SIZE);
        let mut bytes = self.reclaim();
        bytes.extend_from_slice(&buffer[..count]);
        self.send(SendBuf::Owned(bytes));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_sent(cx))?;
        self.socket.finish();
        Poll::Ready(Ok(()))
    }
}

/// Accepts connections on a shard.
#[derive(Debug)]
pub(crate) struct TcpListener {
    socket: Socket,
    address: SocketAddr,
}

impl TcpListener {
    /// Listens on an address; port 0 takes a free one.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let fd = listening_socket(address)?;
        let address = socket2::SockRef::from(&fd).local_addr()?;
        let address = address.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { socket: current_ring()?.adopt(fd)?, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        TcpStream::adopt(poll_fn(|cx| self.socket.poll_accept(cx)).await?)
    }
}
