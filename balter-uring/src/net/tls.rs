//! TLS over a stream of the ring.
//!
//! rustls is given the ring's own buffers to decrypt in, and encrypts into the vector that the
//! ring sends. A record costs one allocation in each direction, which is rustls' own.

mod connector;
mod error;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use rustls::HandshakeKind;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};

use super::TcpStream;
use crate::failure;
use crate::handshake::{self, Handshake};
use crate::ring::{Chunk, SendBuf};

pub use connector::Certificate;
pub(crate) use connector::{Connector, Trust, server_name};
pub use error::TlsError;

/// What a record of TLS 1.2 or 1.3 holds at most, and what its head, nonce and tag add to that.
const RECORD: usize = 16 << 10;
const RECORD_OVERHEAD: usize = 64;

/// Room for one message of a handshake, most of the time.
const MESSAGE: usize = 1024;

/// Records after which a connection carries no more requests. TLS 1.2 has no way to change keys
/// under way, and ends after 2^24 records with the best known ciphers.
const MOST_RECORDS: u64 = 1 << 23;

/// A client's TLS connection.
pub(crate) struct TlsStream {
    tcp: TcpStream,
    session: UnbufferedClientConnection,
    /// Received, and not understood before its end has come: less than a record, or than a message
    /// of a handshake.
    incoming: Vec<u8>,
    /// To go out as soon as nothing is being sent, or with what is sent next.
    outgoing: Vec<u8>,
    /// Decrypted; `read` of it has been consumed.
    plaintext: Vec<u8>,
    read: usize,
    /// The target has announced that nothing more comes.
    ended: bool,
    /// A session that has failed must not be given anything any more: rustls panics when it refuses
    /// the same bytes twice.
    failed: Option<rustls::Error>,
    records: u64,
}

/// What a session wants when it has understood all that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// More of the handshake.
    Handshake,
    /// To be used.
    Traffic,
    /// Nothing: both sides have closed it.
    Nothing,
}

impl TlsStream {
    /// Shakes hands on a connection, and tells the [observer](handshake::observe) of it.
    ///
    /// # Errors
    /// A [`TlsError`] in an [`io::Error`], or the stream's own. Ends at the transaction's deadline.
    pub(crate) async fn handshake(
        tcp: TcpStream,
        connector: &Connector,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let begun = Instant::now();
        let session = UnbufferedClientConnection::new(connector.config(), name);
        let mut stream = Self {
            tcp,
            session: session.map_err(|error| TlsError::from(error).noted())?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            plaintext: Vec::new(),
            read: 0,
            ended: false,
            failed: None,
            records: 0,
        };
        if let Err(error) = stream.shake_hands().await {
            stream.say_goodbye().await;
            return Err(error);
        }
        let resumed = stream.session.handshake_kind() == Some(HandshakeKind::Resumed);
        handshake::note(Handshake { time: begun.elapsed(), resumed });
        Ok(stream)
    }

    async fn shake_hands(&mut self) -> io::Result<()> {
        let mut wants = self.advance(None)?;
        loop {
            match wants {
                // Our last message, if it is the last of all, goes out with the first request.
                Wants::Traffic => return Ok(()),
                Wants::Nothing => return Err(TlsError::ClosedInHandshake.noted()),
                Wants::Handshake => {}
            }
            if self.ended {
                return Err(TlsError::ClosedInHandshake.noted());
            }
            let received = poll_fn(|cx| {
                self.flush(cx);
                self.tcp.poll_recv(cx)
            });
            wants = match received.await {
                Ok(Some(chunk)) => self.understand(chunk)?,
                Ok(None) => return Err(TlsError::ClosedInHandshake.noted()),
                // Which of both it is depends on whether the target has read what we sent.
                Err(error) if is_closed(&error) => {
                    return Err(TlsError::ClosedInHandshake.noted());
                }
                Err(error) => return Err(error),
            };
        }
    }

    /// Sends the alert that says why we give up, where there is one: the target's log then has it.
    async fn say_goodbye(&mut self) {
        let noted = failure::noted();
        if self.failed.is_some() {
            // What it has to send comes before what it was given, and is one record.
            let UnbufferedStatus { state, .. } =
                self.session.process_tls_records(&mut self.incoming);
            if let Ok(ConnectionState::EncodeTlsData(message)) = state {
                encode(message, &mut self.outgoing);
            }
        }
        if !self.outgoing.is_empty() {
            let sent = poll_fn(|cx| {
                ready!(self.tcp.poll_sent(cx))?;
                if self.outgoing.is_empty() {
                    return Poll::Ready(Ok::<_, io::Error>(()));
                }
                self.flush(cx);
                self.tcp.poll_sent(cx)
            });
            // It was a courtesy.
            let _ = sent.await;
        }
        failure::renote(noted);
    }

    /// Encrypts bytes and sends them with the ring's next turn. The last send must be over.
    ///
    /// # Errors
    /// If the session has ended; nothing was sent then.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.records += bytes.len().div_ceil(RECORD) as u64;
        self.advance(Some(bytes))?;
        self.send_outgoing();
        Ok(())
    }

    /// Waits for bytes, which [`filled`](Self::filled) then has; `false` at the target's orderly
    /// end.
    ///
    /// # Errors
    /// [`TlsError::Truncated`] at an end that is none; other [`TlsError`]s, and the stream's own.
    pub(crate) fn poll_fill(&mut self, cx: &Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if !self.filled().is_empty() {
                return Poll::Ready(Ok(true));
            }
            if self.ended {
                return Poll::Ready(Ok(false));
            }
            self.flush(cx);
            match ready!(self.tcp.poll_recv(cx))? {
                Some(chunk) => self.understand(chunk)?,
                None => return Poll::Ready(Err(TlsError::Truncated.noted())),
            };
        }
    }

    /// Decrypted and not yet consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.plaintext[self.read..]
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.read += count;
        debug_assert!(self.read <= self.plaintext.len(), "no more than is filled");
        if self.read == self.plaintext.len() {
            self.plaintext.clear();
            self.read = 0;
        }
    }

    /// `true` while what was sent last is still being sent.
    pub(crate) fn is_sending(&self) -> bool {
        self.tcp.is_sending()
    }

    /// Completes when the last send is over.
    pub(crate) fn poll_sent(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_sent(cx)
    }

    /// An idle connection can carry another request. What has come meanwhile and is no data, as a
    /// ticket for a later session, is taken in.
    pub(crate) fn is_usable(&mut self) -> bool {
        let mut is_sound = true;
        while is_sound && self.tcp.has_news() {
            let noted = failure::noted();
            let received = self.tcp.poll_recv(&Context::from_waker(Waker::noop()));
            is_sound = match received {
                Poll::Ready(Ok(Some(chunk))) => self.understand(chunk).is_ok(),
                _ => false,
            };
            // Nothing has failed: a connection that is no longer wanted has ended.
            failure::renote(noted);
        }
        is_sound && !self.ended && self.filled().is_empty() && self.records < MOST_RECORDS
    }

    /// Has the session understand what was received, where it lies if nothing is left from before.
    fn understand(&mut self, mut chunk: Chunk) -> io::Result<Wants> {
        if !self.incoming.is_empty() {
            self.incoming.extend_from_slice(&chunk);
            drop(chunk);
            return self.advance(None);
        }
        let (used, result) = self.drive(&mut chunk, None);
        self.incoming.extend_from_slice(&chunk[used..]);
        result.map_err(|error| TlsError::from(error).noted())
    }

    /// Has the session do what it can with what was left over, and encrypt `data` if it can.
    fn advance(&mut self, data: Option<&[u8]>) -> io::Result<Wants> {
        let mut incoming = std::mem::take(&mut self.incoming);
        let (used, result) = self.drive(&mut incoming, data);
        incoming.drain(..used);
        self.incoming = incoming;
        result.map_err(|error| TlsError::from(error).noted())
    }

    /// Answers how much of `bytes` is done with, and what the session wants next.
    fn drive(
        &mut self,
        bytes: &mut [u8],
        data: Option<&[u8]>,
    ) -> (usize, Result<Wants, rustls::Error>) {
        if let Some(error) = &self.failed {
            return (0, Err(error.clone()));
        }
        let (used, result) = self.drive_sound(bytes, data);
        self.failed = result.as_ref().err().cloned();
        (used, result)
    }

    fn drive_sound(
        &mut self,
        bytes: &mut [u8],
        data: Option<&[u8]>,
    ) -> (usize, Result<Wants, rustls::Error>) {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.session.process_tls_records(&mut bytes[used..]);
            let wants = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = match record {
                            Ok(record) => record,
                            Err(error) => return (used, Err(error)),
                        };
                        discard += record.discard;
                        self.plaintext.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(message)) => {
                    encode(message, &mut self.outgoing);
                    None
                }
                // It lies in `outgoing`, whose owner sends it.
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    None
                }
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    let written = data.map(|data| encrypt(traffic, data, &mut self.outgoing));
                    Some(written.unwrap_or(Ok(())).map(|()| Wants::Traffic))
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Ok(Wants::Handshake)),
                Ok(ConnectionState::Closed) => Some(Ok(Wants::Nothing)),
                // Early data is a server's to read; there is no other state in this version.
                Ok(_) => Some(Err(rustls::Error::General("a state of no client".to_owned()))),
                Err(error) => Some(Err(error)),
            };
            used += discard;
            if let Some(wants) = wants {
                return (used, wants);
            }
        }
    }

    /// Sends what waits for that; `cx` is woken when what is being sent is.
    fn flush(&mut self, cx: &Context<'_>) {
        // An error of the last send shows at the next receive.
        if !self.outgoing.is_empty() && self.tcp.poll_sent(cx).is_ready() {
            self.send_outgoing();
        }
    }

    fn send_outgoing(&mut self) {
        let next = self.tcp.reclaim();
        self.tcp.send(SendBuf::Owned(std::mem::replace(&mut self.outgoing, next)));
    }
}

impl fmt::Debug for TlsStream {
    /// Without the session, which has secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionReset | ConnectionAborted | BrokenPipe)
}

/// Appends a message of the handshake, or an alert.
fn encode<Data>(mut message: EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) {
    append(outgoing, MESSAGE, |room| match message.encode(room) {
        Ok(written) => Ok(written),
        Err(EncodeError::InsufficientSize(error)) => Err(error.required_size),
        // It is encoded once, here.
        Err(EncodeError::AlreadyEncoded) => Ok(0),
    });
}

fn encrypt<Data>(
    mut traffic: WriteTraffic<'_, Data>,
    data: &[u8],
    outgoing: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    let mut exhausted = false;
    let room = data.len() + (data.len().div_ceil(RECORD) + 1) * RECORD_OVERHEAD;
    append(outgoing, room, |room| match traffic.encrypt(data, room) {
        Ok(written) => Ok(written),
        Err(EncryptError::InsufficientSize(error)) => Err(error.required_size),
        Err(EncryptError::EncryptExhausted) => {
            exhausted = true;
            Ok(0)
        }
    });
    if exhausted { Err(rustls::Error::EncryptError) } else { Ok(()) }
}

/// Has `write` append to a vector, with so much room, or with as much as it then asks for.
fn append(
    bytes: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>,
) {
    let before = bytes.len();
    loop {
        bytes.resize(before + room, 0);
        match write(&mut bytes[before..]) {
            Ok(written) => return bytes.truncate(before + written),
            Err(required) => room = required,
        }
    }
}
