//! One connection and the exchange on it, and the idle ones of an origin.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

#[cfg(feature = "tls")]
use rustls::pki_types::ServerName;

use super::Error;
use super::codec::{Decoder, Event, Framing, HeadRef, Limits, RequestKind};
use crate::failure;
#[cfg(feature = "tls")]
use crate::net::tls::{Connector, TlsStream, server_name};
use crate::net::{Outgoing, TcpStream, Transport, resolve};

/// Where requests go: one scheme, host and port, as one client sees it on one shard.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None` without TLS.
    #[cfg(feature = "tls")]
    tls: Option<(Connector, ServerName<'static>)>,
    limits: Limits,
    max_idle: usize,
    addresses: RefCell<Vec<SocketAddr>>,
    /// The one used last is used next: it is the least likely to have been closed.
    #[expect(
        clippy::vec_box,
        reason = "each request moves one out and in: a pointer, not 200 bytes"
    )]
    idle: RefCell<Vec<Box<Connection>>>,
}

/// What is known of an answer when its head is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) status: http::StatusCode,
    pub(super) version: http::Version,
    pub(super) content_length: Option<u64>,
}

/// An answer whose head is in, on the connection that it comes on.
pub(super) struct Answer {
    pub(super) connection: Box<Connection>,
    pub(super) head: Head,
}

#[derive(Debug)]
pub(super) struct Connection {
    transport: Transport,
    decoder: Decoder,
    /// The head of the current answer, kept for who asks for its headers. A copy of some hundred
    /// bytes into memory that is used again, so that the buffer it came in can go back.
    pub(super) raw_head: Vec<u8>,
    /// Has carried an answer before.
    reused: bool,
    peer: SocketAddr,
}

impl Origin {
    pub(super) fn new(host: String, port: u16, limits: Limits, max_idle: usize) -> Rc<Self> {
        Rc::new(Self {
            host,
            port,
            #[cfg(feature = "tls")]
            tls: None,
            limits,
            max_idle,
            addresses: RefCell::new(Vec::new()),
            idle: RefCell::new(Vec::new()),
        })
    }

    /// The same for `https`.
    ///
    /// # Errors
    /// If no certificate can have this host's name.
    #[cfg(feature = "tls")]
    pub(super) fn with_tls(
        host: String,
        port: u16,
        connector: Connector,
        limits: Limits,
        max_idle: usize,
    ) -> Result<Rc<Self>, Error> {
        let name = server_name(&host).map_err(Error::Tls)?;
        let mut origin = Self::new(host, port, limits, max_idle);
        if let Some(origin) = Rc::get_mut(&mut origin) {
            origin.tls = Some((connector, name));
        }
        Ok(origin)
    }

    pub(super) fn has_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Sends an encoded request and waits for the answer's head.
    ///
    /// A connection that was idle may be closed by the target just when it is used again. If it
    /// breaks without a byte of an answer, a request that may be repeated is sent once more, on a
    /// new connection.
    pub(super) async fn exchange(
        &self,
        bytes: Encoded,
        kind: RequestKind,
        repeatable: bool,
    ) -> Result<Answer, Error> {
        if let Some(mut connection) = self.idle_connection() {
            let noted = failure::noted();
            match connection.exchange(bytes.outgoing(), kind).await {
                Err(error) if repeatable && error.before_any_answer() => failure::renote(noted),
                Err(error) => return Err(error),
                Ok(head) => return Ok(Answer { connection, head }),
            }
        }
        let mut connection = self.connect().await?;
        let head = connection.exchange(bytes.outgoing(), kind).await?;
        Ok(Answer { connection, head })
    }

    fn idle_connection(&self) -> Option<Box<Connection>> {
        loop {
            let mut connection = self.idle.borrow_mut().pop()?;
            // What comes without being asked for is the end, or nonsense.
            if connection.transport.is_usable() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Box<Connection>, Error> {
        let (tcp, peer) = self.connect_tcp().await?;
        #[cfg(feature = "tls")]
        if let Some((connector, name)) = &self.tls {
            let stream = TlsStream::handshake(tcp, connector, name.clone()).await;
            let stream = stream.map_err(Error::io).inspect_err(|_| failure::note_peer(peer))?;
            return Ok(Connection::new(Transport::Tls(Box::new(stream)), self.limits, peer));
        }
        Ok(Connection::new(Transport::Plain(tcp), self.limits, peer))
    }

    async fn connect_tcp(&self) -> Result<(TcpStream, SocketAddr), Error> {
        if self.addresses.borrow().is_empty() {
            let resolved = resolve(&self.host, self.port).await;
            let resolved =
                resolved.map_err(|source| Error::Resolve { host: self.host.clone(), source })?;
            *self.addresses.borrow_mut() = resolved;
        }
        let count = self.addresses.borrow().len();
        let mut index = 0;
        loop {
            let address = self.addresses.borrow()[index.min(count - 1)];
            let noted = failure::noted();
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok((stream, address)),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    failure::note_peer(address);
                    return Err(Error::Timeout);
                }
                Err(_) if index + 1 < count => failure::renote(noted),
                Err(source) => {
                    failure::note_peer(address);
                    // Next time the name is asked for anew: the target may have moved.
                    self.addresses.borrow_mut().clear();
                    return Err(Error::Connect { address, source });
                }
            }
            index += 1;
        }
    }

    /// Takes back a connection whose answer has been read to its end.
    pub(super) fn put_back(&self, mut connection: Box<Connection>) {
        if !connection.decoder.can_reuse() || !connection.transport.filled().is_empty() {
            return;
        }
        // Answered before it was all sent: the target may never read the rest, and the next
        // request would wait behind it.
        if connection.transport.is_sending() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.max_idle {
            connection.reused = true;
            idle.push(connection);
        }
    }
}

/// A request in bytes, for one or two attempts.
pub(super) enum Encoded {
    Shared(Rc<[u8]>),
    Owned(Vec<u8>),
}

impl Encoded {
    fn outgoing(&self) -> Outgoing<'_> {
        match self {
            Self::Shared(bytes) => Outgoing::Shared(bytes),
            Self::Owned(bytes) => Outgoing::Borrowed(bytes),
        }
    }
}

impl Connection {
    fn new(transport: Transport, limits: Limits, peer: SocketAddr) -> Box<Self> {
        Box::new(Self {
            peer,
            transport,
            decoder: Decoder::new(limits),
            raw_head: Vec::new(),
            reused: false,
        })
    }

    async fn exchange(&mut self, bytes: Outgoing<'_>, kind: RequestKind) -> Result<Head, Error> {
        let head = self.send_and_receive(bytes, kind).await;
        head.inspect_err(|_| failure::note_peer(self.peer))
    }

    async fn send_and_receive(
        &mut self,
        bytes: Outgoing<'_>,
        kind: RequestKind,
    ) -> Result<Head, Error> {
        if self.transport.is_sending() {
            poll_fn(|cx| self.transport.poll_sent(cx)).await.map_err(Error::io)?;
        }
        self.decoder.begin(kind);
        self.transport.send(bytes).map_err(Error::io)?;
        let mut first = true;
        loop {
            let received = poll_fn(|cx| self.transport.poll_fill(cx)).await;
            let received = received.map_err(|error| match first {
                true => Error::before_answer(error),
                false => match Error::io(error) {
                    // Once a byte of the answer is in, the request must not be repeated.
                    Error::Io(error) => Error::Io(std::io::Error::other(error)),
                    error => error,
                },
            })?;
            if !received {
                self.decoder.finish_eof().map_err(Error::response)?;
                return Err(Error::response(super::codec::CodecError::ClosedBeforeResponse));
            }
            first = false;
            if let Some(head) = self.decode_head()? {
                return Ok(head);
            }
        }
    }

    fn decode_head(&mut self) -> Result<Option<Head>, Error> {
        loop {
            let decoded = self.decoder.decode(self.transport.filled()).map_err(Error::response)?;
            let consumed = decoded.consumed;
            let decoded = match decoded.event {
                // All of the input has been consumed.
                Event::NeedMore => Some(None),
                Event::Head(head) => {
                    let known = known(&head, self.peer);
                    self.raw_head.clear();
                    self.raw_head.extend_from_slice(head.raw);
                    Some(Some(known))
                }
                // Not before a head.
                Event::Data(_) | Event::End => None,
            };
            self.transport.consume(consumed);
            if let Some(head) = decoded {
                return Ok(head);
            }
        }
    }

    /// Reads on, up to the next piece of the body, which `take` is given; `false` at its end.
    pub(super) async fn next_data(&mut self, take: impl FnMut(&[u8])) -> Result<bool, Error> {
        let more = self.receive_data(take).await;
        more.inspect_err(|_| failure::note_peer(self.peer))
    }

    async fn receive_data(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool, Error> {
        loop {
            if let Some(taken) = self.data_at_hand(&mut take)? {
                return Ok(taken);
            }
            if !poll_fn(|cx| self.transport.poll_fill(cx)).await.map_err(Error::io)? {
                self.decoder.finish_eof().map_err(Error::response)?;
            }
        }
    }

    /// The next piece of the body without waiting: `Some(false)` at its end, `None` if more must
    /// be received.
    pub(super) fn data_at_hand(
        &mut self,
        take: &mut impl FnMut(&[u8]),
    ) -> Result<Option<bool>, Error> {
        loop {
            if self.decoder.is_complete() {
                return Ok(Some(false));
            }
            let decoded = self.decoder.decode(self.transport.filled()).map_err(Error::response)?;
            let consumed = decoded.consumed;
            let event = match decoded.event {
                Event::Data(data) => {
                    take(data);
                    Some(true)
                }
                Event::End => Some(false),
                Event::NeedMore => None,
                Event::Head(_) => continue,
            };
            self.transport.consume(consumed);
            return Ok(event);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.decoder.is_complete()
    }
}

fn known(head: &HeadRef<'_>, peer: SocketAddr) -> Head {
    let status = head.status.as_u16();
    if status >= 400 {
        failure::note_status(status, peer);
    }
    let content_length = match head.framing {
        Framing::None => Some(0),
        _ => head.content_length,
    };
    Head { status: head.status, version: head.version, content_length }
}
