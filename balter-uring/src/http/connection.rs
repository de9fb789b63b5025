//! One connection and the exchange on it, and the idle ones of an origin.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;

use super::Error;
use super::codec::{Decoder, Event, Framing, HeadRef, Limits, RequestKind};
use crate::failure::{self, FailureClass};
use crate::net::{TcpStream, resolve};
use crate::ring::{Chunk, SendBuf};

/// Where requests go: one host and port, as one client sees it on one shard.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) host: String,
    pub(super) port: u16,
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
    stream: TcpStream,
    decoder: Decoder,
    /// Received, and not yet decoded to its end.
    chunk: Option<Chunk>,
    /// The head of the current answer, kept for who asks for its headers. A copy of some hundred
    /// bytes into memory that is used again, so that the buffer it came in can go back.
    pub(super) raw_head: Vec<u8>,
    /// Has carried an answer before.
    reused: bool,
}

impl Origin {
    pub(super) fn new(host: String, port: u16, limits: Limits, max_idle: usize) -> Rc<Self> {
        Rc::new(Self {
            host,
            port,
            limits,
            max_idle,
            addresses: RefCell::new(Vec::new()),
            idle: RefCell::new(Vec::new()),
        })
    }

    /// Sends an encoded request and waits for the answer's head.
    ///
    /// A connection that was idle may be closed by the target just when it is used again. If it
    /// breaks without a byte of an answer, a request that may be repeated is sent once more, on a
    /// new connection.
    pub(super) async fn exchange(
        &self,
        mut bytes: Encoded,
        kind: RequestKind,
        repeatable: bool,
    ) -> Result<Answer, Error> {
        if let Some(mut connection) = self.idle_connection() {
            let noted = failure::noted();
            match connection.exchange(bytes.for_attempt(&connection), kind).await {
                Err(error) if repeatable && error.before_any_answer() => failure::renote(noted),
                Err(error) => return Err(error),
                Ok(head) => return Ok(Answer { connection, head }),
            }
        }
        let mut connection = self.connect().await?;
        let head = connection.exchange(bytes.for_attempt(&connection), kind).await?;
        Ok(Answer { connection, head })
    }

    fn idle_connection(&self) -> Option<Box<Connection>> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            // What comes without being asked for is the end, or nonsense.
            if !connection.stream.has_news() {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Box<Connection>, Error> {
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
                Ok(stream) => return Ok(Connection::new(stream, self.limits)),
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    return Err(Error::Timeout);
                }
                Err(_) if index + 1 < count => failure::renote(noted),
                Err(source) => {
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
        if !connection.decoder.can_reuse() || connection.chunk.is_some() {
            return;
        }
        // Answered before it was all sent: the target may never read the rest, and the next
        // request would wait behind it.
        if connection.stream.is_sending() {
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
    fn for_attempt(&mut self, connection: &Connection) -> SendBuf {
        match self {
            Self::Shared(bytes) => SendBuf::Shared(Rc::clone(bytes)),
            Self::Owned(bytes) => {
                let mut copy = connection.stream.reclaim();
                copy.extend_from_slice(bytes);
                SendBuf::Owned(copy)
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream, limits: Limits) -> Box<Self> {
        Box::new(Self {
            stream,
            decoder: Decoder::new(limits),
            chunk: None,
            raw_head: Vec::new(),
            reused: false,
        })
    }

    async fn exchange(&mut self, bytes: SendBuf, kind: RequestKind) -> Result<Head, Error> {
        if self.stream.is_sending() {
            poll_fn(|cx| self.stream.poll_sent(cx)).await.map_err(Error::io)?;
        }
        self.decoder.begin(kind);
        self.stream.send(bytes);
        let mut first = true;
        loop {
            let received = poll_fn(|cx| self.stream.poll_recv(cx)).await;
            let received = received.map_err(|error| match Error::io(error) {
                // Once a byte of the answer is in, the request must not be repeated.
                Error::Io(error) if !first => Error::Io(std::io::Error::other(error)),
                error => error,
            })?;
            let Some(chunk) = received else {
                self.decoder.finish_eof().map_err(Error::response)?;
                return Err(Error::response(super::codec::CodecError::ClosedBeforeResponse));
            };
            first = false;
            if let Some(head) = self.decode_head(chunk)? {
                return Ok(head);
            }
        }
    }

    fn decode_head(&mut self, mut chunk: Chunk) -> Result<Option<Head>, Error> {
        loop {
            let decoded = self.decoder.decode(&chunk).map_err(Error::response)?;
            let consumed = decoded.consumed;
            match decoded.event {
                Event::NeedMore => return Ok(None),
                Event::Head(head) => {
                    let known = known(&head);
                    self.raw_head.clear();
                    self.raw_head.extend_from_slice(head.raw);
                    chunk.advance(consumed);
                    self.chunk = (!chunk.is_empty()).then_some(chunk);
                    return Ok(Some(known));
                }
                // Not before a head.
                Event::Data(_) | Event::End => chunk.advance(consumed),
            }
        }
    }

    /// Reads on, up to the next piece of the body, which `take` is given; `false` at its end.
    pub(super) async fn next_data(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool, Error> {
        loop {
            if let Some(taken) = self.data_at_hand(&mut take)? {
                return Ok(taken);
            }
            match poll_fn(|cx| self.stream.poll_recv(cx)).await.map_err(Error::io)? {
                Some(chunk) => self.chunk = Some(chunk),
                None => self.decoder.finish_eof().map_err(Error::response)?,
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
            let input: &[u8] = self.chunk.as_deref().unwrap_or_default();
            let decoded = self.decoder.decode(input).map_err(Error::response)?;
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
            if let Some(chunk) = &mut self.chunk {
                chunk.advance(consumed);
                if chunk.is_empty() || event.is_none() {
                    self.chunk = None;
                }
            }
            return Ok(event);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.decoder.is_complete()
    }
}

fn known(head: &HeadRef<'_>) -> Head {
    if head.status.as_u16() >= 400 {
        failure::note(FailureClass::Status);
    }
    let content_length = match head.framing {
        Framing::None => Some(0),
        _ => head.content_length,
    };
    Head { status: head.status, version: head.version, content_length }
}
