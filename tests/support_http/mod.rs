//! What the tests of the network share: servers made of plain threads, a way to run code on a
//! shard, and the kernel's own view of who still has a connection open.
//!
//! Included by path into each test binary, which uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]

pub mod authority;
pub mod nginx;

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use balter_uring::prelude::*;
use futures_lite::{FutureExt, future};

/// Nothing in these tests takes so long, on the slowest machine: what does has hung.
pub const HUNG: Duration = Duration::from_secs(40);

/// What a closed peer gets to see, or a descriptor to go, in: longer than any pause of a busy
/// machine, and than the wait of an idle shard.
const SOON: Duration = Duration::from_secs(8);

type Work = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

#[scenario]
async fn once(work: Arc<Mutex<Option<Work>>>) {
    let work = work.lock().expect("nothing panics while it is locked").take();
    if let Some(work) = work {
        work().await;
    }
    // A scenario that returns starts over.
    future::pending::<()>().await;
}

/// Runs an async closure as the only instance of a scenario, on a shard, and gives its output. Its
/// panic is the caller's, so that it may assert.
///
/// It runs outside of any transaction: nothing in it has a deadline.
#[track_caller]
pub fn on_shard<T, F, Fut>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
{
    let (done, result) = channel();
    let work: Work = Box::new(move || {
        Box::pin(async move {
            let output = AssertUnwindSafe(async { work().await }).catch_unwind().await;
            let _ = done.send(output);
        })
    });
    let mut run =
        Box::pin(once(Arc::new(Mutex::new(Some(work)))).concurrency(1).outside_tps(100_000).run());
    // The first poll starts it, and dropping it ends it: nothing in between needs an executor.
    let begun = Instant::now();
    loop {
        if let Some(ended) = future::block_on(future::poll_once(&mut run)) {
            panic!("the run has ended by itself: {ended:?}");
        }
        match result.recv_timeout(Duration::from_millis(200)) {
            Ok(Ok(output)) => return output,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(RecvTimeoutError::Timeout) => {
                assert!(begun.elapsed() < HUNG, "the work on the shard has hung");
            }
            Err(RecvTimeoutError::Disconnected) => panic!("the work on the shard was dropped"),
        }
    }
}

/// Waits for a run on a thread of its own: one that never ends fails the test, not the suite.
#[track_caller]
pub fn finish(run: Scenario) -> RunStatistics {
    let (done, result) = channel();
    std::thread::spawn(move || {
        let _ = done.send(future::block_on(run.run()));
    });
    let statistics = result.recv_timeout(HUNG).expect("the run has hung").expect("it could start");
    assert!(statistics.counts.add_up(), "{:?}", statistics.counts);
    statistics
}

/// Waits for what another thread brings about.
#[track_caller]
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(soon(holds), "waited in vain for: {what}");
}

fn soon(mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > SOON {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// A server of plain threads: what it does with a connection is up to the test.
pub struct Server {
    pub address: SocketAddr,
    stopped: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    /// Connections whose handler has not returned.
    busy: Arc<AtomicUsize>,
}

impl Server {
    /// Serves each connection on a thread of its own. Closing it is the handler's, by return.
    pub fn start(handler: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into(), handler)
    }

    pub fn start_on(
        address: SocketAddr,
        handler: impl Fn(&mut Peer) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("it is bound"),
            stopped: Arc::default(),
            accepted: Arc::default(),
            busy: Arc::default(),
        };
        let (stopped, accepted) = (Arc::clone(&server.stopped), Arc::clone(&server.accepted));
        let (busy, handler) = (Arc::clone(&server.busy), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let index = accepted.fetch_add(1, Ordering::SeqCst);
                busy.fetch_add(1, Ordering::SeqCst);
                let (busy, handler) = (Arc::clone(&busy), Arc::clone(&handler));
                std::thread::spawn(move || {
                    let mut peer = Peer::new(stream, index);
                    handler(&mut peer);
                    drop(peer);
                    busy.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    /// Answers every request with the same bytes, for as long as the client asks.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |peer| {
            while peer.request().is_some() {
                peer.send(&answer);
            }
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Asserts that nobody holds a connection to it any more, by what its own side sees (each
    /// handler that reads to the end has met it) and by the kernel's table.
    #[track_caller]
    pub fn assert_left_alone(&self) {
        assert!(
            soon(|| self.busy.load(Ordering::SeqCst) == 0),
            "{} of {} connections were not closed by the client",
            self.busy.load(Ordering::SeqCst),
            self.accepted(),
        );
        let mut open = Vec::new();
        let closed = soon(|| {
            open = clients_of(self.address.port());
            open.is_empty()
        });
        assert!(closed, "sockets that a client has not closed: {open:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Has `incoming` return.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

/// The server's end of one connection.
pub struct Peer {
    pub stream: TcpStream,
    /// How many connections came before this one.
    pub index: usize,
    unread: Vec<u8>,
}

/// A request as it came in.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// All values of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let named = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim()).collect()
    }
}

impl Peer {
    fn new(stream: TcpStream, index: usize) -> Self {
        // Each write is to leave as a segment of its own.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(HUNG));
        Self { stream, index, unread: Vec::new() }
    }

    /// The next request with its body, or `None` at the end of the connection.
    pub fn request(&mut self) -> Option<Request> {
        let length = loop {
            if let Some(at) = find(&self.unread, b"\r\n\r\n") {
                break at + 4;
            }
            self.receive()?;
        };
        let head = String::from_utf8_lossy(&self.unread[..length]).into_owned();
        self.unread.drain(..length);
        let mut request = Request { head, body: Vec::new() };
        let body = request
            .header("content-length")
            .first()
            .map_or(0, |length| length.parse().expect("our client sends lengths that are numbers"));
        while self.unread.len() < body {
            self.receive()?;
        }
        request.body = self.unread.drain(..body).collect();
        Some(request)
    }

    /// What comes first, whatever it is.
    pub fn some(&mut self) {
        self.receive();
    }

    /// Everything up to the client's end, so that the handler returns when the client closes.
    pub fn until_closed(&mut self) {
        while self.receive().is_some() {
            self.unread.clear();
        }
    }

    /// Sends what it can: a client that is gone is no failure of the server.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Has the close that comes with the handler's return be a reset in place of an end.
    pub fn reset(&self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn receive(&mut self) -> Option<()> {
        let mut buffer = [0; 64 << 10];
        loop {
            return match self.stream.read(&mut buffer) {
                Ok(0) => None,
                Ok(count) => {
                    self.unread.extend_from_slice(&buffer[..count]);
                    Some(())
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => None,
            };
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// `HTTP/1.1 200 OK` with this body.
pub fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    answer("200 OK", "", body)
}

/// An answer with a length; `headers` are whole lines, each with its line break.
pub fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len())
        .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A socket that is bound and does not listen: connecting to it is refused, and nobody else can
/// start to listen there.
pub fn refusing() -> (socket2::Socket, SocketAddr) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a descriptor is free");
    socket.bind(&address.into()).expect("a port is free");
    let address = socket.local_addr().expect("it is bound").as_socket().expect("an IPv4 address");
    (socket, address)
}

/// Sockets of this machine that are connected to a port and not closed by their owner, as
/// `/proc/net/tcp` tells it. The ring's sockets have no descriptor that could be counted.
pub fn clients_of(port: u16) -> Vec<String> {
    const ESTABLISHED: u8 = 0x01;
    const SYN_SENT: u8 = 0x02;
    const CLOSE_WAIT: u8 = 0x08;
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let text: String = tables.iter().flat_map(std::fs::read_to_string).collect();
    let held = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        let remote = fields.next().and_then(|remote| remote.rsplit(':').next());
        let remote = remote.and_then(|port| u16::from_str_radix(port, 16).ok());
        let state = fields.next().and_then(|state| u8::from_str_radix(state, 16).ok());
        remote == Some(port) && matches!(state, Some(ESTABLISHED | SYN_SENT | CLOSE_WAIT))
    };
    text.lines().filter(held).map(str::to_owned).collect()
}

/// Open descriptors of this process.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

pub fn has_ipv6() -> bool {
    TcpListener::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)).is_ok()
}

/// xorshift64*: bytes that are the same each time and compress to nothing.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Tells apart bodies that differ in content or order, which a length does not: FNV-1a over words.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = 0xCBF2_9CE4_8422_2325 ^ bytes.len() as u64;
    let mut add = |word: u64| hash = (hash ^ word).wrapping_mul(0x0100_0000_01B3).rotate_left(17);
    for word in words {
        add(u64::from_le_bytes(*word));
    }
    for &byte in rest {
        add(u64::from(byte));
    }
    hash
}
