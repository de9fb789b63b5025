//! The ring on a plain thread, against sockets of the standard library: whatever is opened, sent
//! and closed in whatever order, bytes arrive whole and in place, and nothing is left over.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake};
use std::thread;
use std::time::{Duration, Instant};

use super::buffers::BUFFER_SIZE;
use super::*;

/// Nothing here takes so long: what does has lost a wake-up.
const HUNG: Duration = Duration::from_secs(20);

const MILLISECOND: Wait = Wait::AtMost(1_000_000);

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Turns the ring until `poll` is ready. As an executor does, it polls again only when woken.
#[track_caller]
fn pump<T>(ring: &Ring, mut poll: impl FnMut(&Context<'_>) -> Poll<T>) -> T {
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&flag));
    let begun = Instant::now();
    loop {
        if flag.0.swap(false, Ordering::SeqCst)
            && let Poll::Ready(output) = poll(&Context::from_waker(&waker))
        {
            return output;
        }
        ring.turn(MILLISECOND).expect("the ring works");
        assert!(begun.elapsed() < HUNG, "nobody woke it");
    }
}

/// Turns the ring until something holds that no socket would wake for.
#[track_caller]
fn turn_until(ring: &Ring, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        ring.turn(MILLISECOND).expect("the ring works");
        assert!(begun.elapsed() < HUNG, "waited in vain for: {what}");
    }
}

#[track_caller]
fn assert_all_closed(ring: &Ring) {
    turn_until(ring, "every slot to be free", || ring.open_sockets() == 0);
}

/// A source of bytes that any reader can check from any place: a pattern whose period no buffer
/// size divides, begun elsewhere for each stream.
struct Pattern {
    bytes: Vec<u8>,
}

const PERIOD: usize = 65_521;

impl Pattern {
    fn new() -> Self {
        let mut random = Random(0x2545_F491);
        let once: Vec<u8> = (0..PERIOD).map(|_| random.next() as u8).collect();
        Self { bytes: once.repeat(5) }
    }

    /// `length` bytes (up to four periods) of a stream, from a place in it.
    fn at(&self, stream: u64, from: usize, length: usize) -> &[u8] {
        let start = (stream as usize * 7919 + from) % PERIOD;
        &self.bytes[start..start + length]
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    /// Small as a rule, now and then more than the kernel's buffers take at once.
    fn size(&mut self) -> usize {
        let limit = if self.below(4) == 0 { 200_000 } else { 2_000 };
        1 + self.below(limit)
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

thread_local! {
    /// Of so many sockets of this test one is stamped, the first among them; 0 for none.
    static STAMPED_EVERY: Cell<u32> = const { Cell::new(0) };
    static SOCKETS: Cell<u32> = const { Cell::new(0) };
}

/// A socket of the ring that is not connected, and the address that its peer will see.
fn socket(ring: &Rc<Ring>) -> io::Result<(Socket, SocketAddr)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket.local_addr()?.as_socket().expect("an IPv4 address");
    let (every, count) = (STAMPED_EVERY.get(), SOCKETS.get());
    SOCKETS.set(count + 1);
    if every == 0 || !count.is_multiple_of(every) {
        return Ok((ring.adopt(socket.into())?, address));
    }
    let before = ring.stamped.replace(0);
    let adopted = ring.adopt_client(socket.into());
    ring.stamped.set(before + ring.stamped.get());
    Ok((adopted?, address))
}

/// A connected pair: the ring's end, and the standard library's, which never blocks.
fn pair(ring: &Rc<Ring>, listener: &TcpListener) -> (Socket, TcpStream) {
    let (socket, _) = socket(ring).expect("a free slot");
    socket.connect(listener.local_addr().expect("it is bound").into());
    pump(ring, |cx| socket.poll_connect(cx)).expect("it listens");
    let (peer, _) = listener.accept().expect("a connection");
    peer.set_nonblocking(true).expect("it is open");
    (socket, peer)
}

/// Writes as much of a stream as goes without waiting, up to `limit`; answers how much.
fn write_some(
    pattern: &Pattern,
    peer: &mut TcpStream,
    stream: u64,
    from: usize,
    limit: usize,
) -> usize {
    let mut written = 0;
    while written < limit {
        match peer.write(pattern.at(stream, from + written, (limit - written).min(PERIOD))) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => break,
        }
    }
    written
}

// ---- The stress ----------------------------------------------------------------------------------

/// One connection of the stress, both ends.
struct Link {
    id: u64,
    socket: Option<Socket>,
    connected: bool,
    peer: Option<TcpStream>,
    /// Bytes given to the ring, and taken by the peer.
    sent: usize,
    peer_read: usize,
    /// Bytes given to the peer's socket, and read from the ring.
    peer_sent: usize,
    read: usize,
    failed: bool,
}

struct Stress {
    ring: Rc<Ring>,
    listener: TcpListener,
    pattern: Pattern,
    random: Random,
    links: Vec<Link>,
    by_address: HashMap<SocketAddr, u64>,
    next_id: u64,
    refused: usize,
    transferred: usize,
}

/// Fewer than there are links, so that every slot is used again and again.
const SLOTS: u32 = 12;

impl Stress {
    fn new(seed: u64) -> Self {
        let (listener, _) = listener();
        listener.set_nonblocking(true).expect("it is open");
        Self {
            ring: Ring::new(SLOTS).expect("io_uring is there"),
            listener,
            pattern: Pattern::new(),
            random: Random(seed),
            links: Vec::new(),
            by_address: HashMap::new(),
            next_id: 0,
            refused: 0,
            transferred: 0,
        }
    }

    fn open(&mut self) {
        let (socket, address) = match socket(&self.ring) {
            Ok(opened) => opened,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENFILE), "{error}");
                assert_eq!(self.ring.open_sockets(), SLOTS as usize);
                self.refused += 1;
                return;
            }
        };
        socket.connect(self.listener.local_addr().expect("it is bound").into());
        let id = self.next_id;
        self.next_id += 1;
        self.by_address.insert(address, id);
        self.links.push(Link {
            id,
            socket: Some(socket),
            connected: false,
            peer: None,
            sent: 0,
            peer_read: 0,
            peer_sent: 0,
            read: 0,
            failed: false,
        });
    }

    fn accept(&mut self) {
        while let Ok((peer, address)) = self.listener.accept() {
            peer.set_nonblocking(true).expect("it is open");
            let id = self.by_address[&address];
            // Its link may be gone, if it was closed while it was connecting.
            if let Some(link) = self.links.iter_mut().find(|link| link.id == id) {
                link.peer = Some(peer);
            }
        }
    }

    fn step(&mut self, at: usize) {
        let Self { random, pattern, links, transferred, .. } = self;
        let link = &mut links[at];
        let cx = Context::from_waker(Waker::noop());
        match random.below(12) {
            0..=2 => {
                let size = random.size();
                if let Some(socket) = &link.socket
                    && link.connected
                    && !link.failed
                    && !socket.is_sending()
                {
                    let mut bytes = socket.reclaim();
                    bytes.extend_from_slice(pattern.at(2 * link.id, link.sent, size));
                    socket.send(SendBuf::Owned(bytes));
                    link.sent += size;
                }
            }
            3..=5 => {
                let Some(peer) = &mut link.peer else { return };
                let mut buffer = vec![0; 1 + random.below(100_000)];
                // An end or an error is the ring's side gone; what came before it was in order.
                if let Ok(count) = peer.read(&mut buffer) {
                    let expected = pattern.at(2 * link.id, link.peer_read, count);
                    assert!(buffer[..count] == *expected, "what the ring sent of {}", link.id);
                    link.peer_read += count;
                    *transferred += count;
                }
            }
            6..=7 => {
                let size = random.size();
                let Some(peer) = &mut link.peer else { return };
                link.peer_sent += write_some(pattern, peer, 2 * link.id + 1, link.peer_sent, size);
            }
            8..=10 => {
                let Some(socket) = &link.socket else { return };
                if !link.connected {
                    if let Poll::Ready(result) = socket.poll_connect(&cx) {
                        result.expect("it listens");
                        link.connected = true;
                    }
                    return;
                }
                for _ in 0..random.below(8) {
                    match socket.poll_recv(&cx) {
                        Poll::Ready(Ok(Some(chunk))) => {
                            let expected = pattern.at(2 * link.id + 1, link.read, chunk.len());
                            assert!(*chunk == *expected, "what the peer sent of {}", link.id);
                            link.read += chunk.len();
                            *transferred += chunk.len();
                        }
                        Poll::Ready(Ok(None)) => {
                            assert!(link.peer.is_none(), "an end that the peer did not send");
                            assert_eq!(link.read, link.peer_sent, "bytes lost before the end");
                            return;
                        }
                        Poll::Ready(Err(_)) => {
                            assert!(link.peer.is_none(), "an error that the peer did not cause");
                            link.failed = true;
                            return;
                        }
                        Poll::Pending => return,
                    }
                }
            }
            _ => match random.below(6) {
                0 => link.peer = None,
                1 | 2 => link.socket = None,
                _ => {}
            },
        }
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.links.len() < 20 && self.random.below(3) == 0 {
                self.open();
            }
            if self.random.below(4) == 0 {
                self.accept();
            }
            if !self.links.is_empty() {
                let at = self.random.below(self.links.len());
                self.step(at);
                self.links.retain(|link| link.socket.is_some() || link.peer.is_some());
            }
            // Sometimes many operations go to the kernel in one turn, sometimes each in its own.
            if self.random.below(5) == 0 {
                self.ring.turn(Wait::No).expect("the ring works");
            }
        }
    }
}

#[test]
fn any_order_of_operations_keeps_every_byte_and_no_slot() {
    let (mut opened, mut refused, mut transferred) = (0, 0, 0);
    for seed in 1..=12 {
        let mut stress = Stress::new(seed);
        stress.run(15_000);
        (opened, refused) = (opened + stress.next_id, refused + stress.refused);
        transferred += stress.transferred;
        stress.links.clear();
        assert_all_closed(&stress.ring);
    }
    // It was a stress: slots were used many times over, the table was full, and data flowed.
    assert!(opened > 12 * 10 * u64::from(SLOTS), "{opened} opened");
    assert!(refused > 0, "the table never was full");
    assert!(transferred > 20 << 20, "{transferred} bytes");
}

// ---- Buffers -------------------------------------------------------------------------------------

/// A ring whose pool has all its buffers, as after a burst.
fn grown(max_sockets: usize) -> Rc<Ring> {
    let ring = Ring::new(max_sockets as u32).expect("io_uring is there");
    while ring.inner.borrow_mut().pool.grow() {}
    ring
}

/// A reader that stalls stops its peer; then it gets every byte.
#[test]
fn unread_data_is_bounded_and_not_lost() {
    let ring = grown(8);
    let (listener, pattern) = (listener().0, Pattern::new());
    let (socket, mut peer) = pair(&ring, &listener);
    // Small kernel buffers, so that what the peer can write is what the ring takes.
    socket2::SockRef::from(&peer).set_send_buffer_size(64 << 10).expect("it is open");
    assert!(socket.poll_recv(&Context::from_waker(Waker::noop())).is_pending());

    let (mut sent, mut received) = (0, 0);
    for round in 0..3 {
        let mut quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(150) {
            let count = write_some(&pattern, &mut peer, 5, sent, 1 << 20);
            sent += count;
            if count > 0 {
                quiet = Instant::now();
            }
            ring.turn(MILLISECOND).expect("the ring works");
            let held = ring.with_slot(socket.slot, |slot| slot.inbox.len());
            assert!(held <= INBOX_LIMIT + 32, "{held} buffers are held for a reader that sleeps");
        }
        assert!(sent - received > INBOX_LIMIT * 1024, "round {round}: it held {}", sent - received);
        while received < sent {
            let chunk = pump(&ring, |cx| socket.poll_recv(cx)).expect("it is open");
            let chunk = chunk.expect("the peer has not closed");
            assert!(*chunk == *pattern.at(5, received, chunk.len()), "at {received}");
            received += chunk.len();
        }
    }
    drop(peer);
    assert!(pump(&ring, |cx| socket.poll_recv(cx)).expect("an end").is_none());
    drop(socket);
    assert_all_closed(&ring);
}

/// More than the pool has is closed unread. A buffer lost each time would leave it empty at last.
#[test]
fn buffers_of_closed_sockets_are_used_again() {
    let ring = Ring::new(8).expect("io_uring is there");
    let (listener, pattern) = (listener().0, Pattern::new());
    let mut buffers = 0;
    const HELD: usize = 30;
    while buffers < 10_000 {
        let (socket, mut peer) = pair(&ring, &listener);
        assert!(socket.poll_recv(&Context::from_waker(Waker::noop())).is_pending());
        let mut sent = 0;
        turn_until(&ring, "unread data", || {
            sent += write_some(&pattern, &mut peer, 1, sent, 1 << 20);
            ring.with_slot(socket.slot, |slot| slot.inbox.len()) >= HELD
        });
        buffers += HELD;
    }
    let (socket, mut peer) = pair(&ring, &listener);
    peer.write_all(b"still there").expect("it fits");
    let chunk = pump(&ring, |cx| socket.poll_recv(cx)).expect("it is open").expect("data");
    assert_eq!(*chunk, *b"still there");
    drop((chunk, socket));
    assert_all_closed(&ring);
}

/// Readers that all stall take the whole pool. The ring then waits, and whoever reads on gets every
/// byte, also while the others go on stalling.
#[test]
fn a_pool_that_runs_dry_starves_nobody_who_reads() {
    const SOCKETS: usize = 150;
    const EACH: usize = 1_200_000;
    let ring = grown(SOCKETS + 1);
    let (listener, pattern) = (listener().0, Pattern::new());
    let mut links: Vec<_> = (0..SOCKETS).map(|_| (pair(&ring, &listener), 0, 0)).collect();
    for ((socket, _), ..) in &links {
        assert!(socket.poll_recv(&Context::from_waker(Waker::noop())).is_pending());
    }
    turn_until(&ring, "all to be written", || {
        let mut all = true;
        for (id, ((_, peer), sent, _)) in links.iter_mut().enumerate() {
            *sent += write_some(&pattern, peer, id as u64, *sent, EACH - *sent);
            all &= *sent == EACH;
        }
        all && !ring.inner.borrow().pool.has_free()
    });
    // A newcomer has nothing to read yet, and nowhere to put it.
    let (newcomer, mut newcomers_peer) = pair(&ring, &listener);
    assert!(newcomer.poll_recv(&Context::from_waker(Waker::noop())).is_pending());
    newcomers_peer.write_all(b"a few bytes").expect("they fit");
    for _ in 0..20 {
        ring.turn(MILLISECOND).expect("the ring works");
    }
    // Nothing can happen now, so a turn waits for its time instead of trying in vain.
    for _ in 0..100 {
        ring.turn(Wait::No).expect("the ring works");
    }
    let turn = ring.turn(Wait::AtMost(10_000_000)).expect("the ring works");
    assert_eq!(turn.completed, 0, "sockets are armed without a buffer to fill");

    for (id, ((socket, _), _, received)) in links.iter_mut().enumerate().rev() {
        if id == SOCKETS / 2 {
            let chunk = pump(&ring, |cx| newcomer.poll_recv(cx)).expect("it is open");
            assert_eq!(*chunk.expect("data"), *b"a few bytes");
        }
        while *received < EACH {
            let chunk = pump(&ring, |cx| socket.poll_recv(cx)).expect("it is open");
            let chunk = chunk.expect("the peer has not closed");
            assert!(*chunk == *pattern.at(id as u64, *received, chunk.len()), "{id}");
            *received += chunk.len();
        }
    }
    drop((links, newcomer));
    assert_all_closed(&ring);
}

/// The sockets that hold the pool are closed, not read: that gives buffers, too.
#[test]
fn closing_the_hoarders_feeds_the_starving() {
    const HOARDERS: usize = 140;
    let ring = grown(HOARDERS + 1);
    let (listener, pattern) = (listener().0, Pattern::new());
    let mut hoarders: Vec<_> = (0..HOARDERS).map(|_| pair(&ring, &listener)).collect();
    for (socket, _) in &hoarders {
        assert!(socket.poll_recv(&Context::from_waker(Waker::noop())).is_pending());
    }
    turn_until(&ring, "the pool to run dry", || {
        for (_, peer) in &mut hoarders {
            write_some(&pattern, peer, 1, 0, PERIOD);
        }
        !ring.inner.borrow().pool.has_free()
    });
    let (socket, mut peer) = pair(&ring, &listener);
    peer.write_all(b"a few bytes").expect("they fit");
    for _ in 0..20 {
        assert!(socket.poll_recv(&Context::from_waker(Waker::noop())).is_pending());
        ring.turn(MILLISECOND).expect("the ring works");
    }
    drop(hoarders);
    let chunk = pump(&ring, |cx| socket.poll_recv(cx)).expect("it is open").expect("data");
    assert_eq!(*chunk, *b"a few bytes");
    drop((chunk, socket));
    assert_all_closed(&ring);
}

// ---- Sending -------------------------------------------------------------------------------------

#[test]
fn a_large_send_is_whole_however_slowly_it_is_read() {
    const SIZE: usize = 250_000;
    let ring = Ring::new(8).expect("io_uring is there");
    let (listener, pattern) = (listener().0, Pattern::new());
    let (socket, peer) = pair(&ring, &listener);
    socket2::SockRef::from(&peer).set_recv_buffer_size(32 << 10).expect("it is open");
    for round in 0..4 {
        let mut bytes = socket.reclaim();
        assert_eq!(
            (bytes.len(), bytes.capacity() >= SIZE),
            (0, round > 0),
            "the allocation serves again"
        );
        bytes.extend_from_slice(pattern.at(3, round * SIZE, SIZE));
        socket.send(SendBuf::Owned(bytes));
        assert!(socket.is_sending());
        let mut received = 0;
        let mut buffer = vec![0; 30_000];
        turn_until(&ring, "all to be read", || {
            if let Ok(count) = (&peer).read(&mut buffer) {
                assert!(buffer[..count] == *pattern.at(3, round * SIZE + received, count));
                received += count;
            }
            received == SIZE
        });
        pump(&ring, |cx| socket.poll_sent(cx)).expect("all was taken");
        assert!(!socket.is_sending());
    }
    socket.finish();
    turn_until(&ring, "the end", || matches!((&peer).read(&mut [0; 1]), Ok(0)));
    drop(socket);
    assert_all_closed(&ring);
}

#[test]
fn a_send_to_a_peer_that_is_gone_fails() {
    let ring = Ring::new(8).expect("io_uring is there");
    let (socket, peer) = pair(&ring, &listener().0);
    socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("it is open");
    drop(peer);
    socket.send(SendBuf::Shared(Rc::from(vec![1; 1 << 20])));
    pump(&ring, |cx| socket.poll_sent(cx)).expect_err("the peer has reset the connection");
    drop(socket);
    assert_all_closed(&ring);
}

/// A regression: the system tells of a reset once, and when a send was told, the receive took it
/// for the peer's orderly end.
#[test]
fn a_reset_that_a_send_was_told_of_is_a_reset_to_the_receive() {
    let ring = Ring::new(8).expect("io_uring is there");
    let listener = listener().0;
    for _ in 0..20 {
        let (socket, mut peer) = pair(&ring, &listener);
        socket.send(SendBuf::Owned(vec![1; 32 << 20]));
        ring.turn(MILLISECOND).expect("the ring works");
        peer.write_all(b"the beginning").expect("it fits");
        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("it is open");
        drop(peer);
        pump(&ring, |cx| socket.poll_sent(cx)).expect_err("the peer has reset the connection");
        let mut last = Ok(None);
        for _ in 0..2 {
            last =
                pump(&ring, |cx| socket.poll_recv(cx)).map(|chunk| chunk.map(|chunk| chunk.len()));
            if !matches!(last, Ok(Some(_))) {
                break;
            }
        }
        let error = last.expect_err("it is no orderly end");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_all_closed(&ring);
}

// ---- Closing -------------------------------------------------------------------------------------

#[test]
fn a_socket_may_be_closed_in_the_middle_of_anything() {
    let ring = Ring::new(8).expect("io_uring is there");
    let (listener, address) = listener();
    for turns in 0..3 {
        let turn = || {
            for _ in 0..turns {
                ring.turn(Wait::No).expect("the ring works");
            }
        };
        // Never used.
        drop(socket(&ring).expect("a free slot"));
        // Connecting; at 0 turns the connect and its cancellation go to the kernel together.
        let (connecting, _) = socket(&ring).expect("a free slot");
        connecting.connect(address.into());
        turn();
        drop(connecting);
        while listener.set_nonblocking(true).is_ok() && listener.accept().is_ok() {}
        listener.set_nonblocking(false).expect("it is open");
        // Receiving.
        let (receiving, peer) = pair(&ring, &listener);
        assert!(receiving.poll_recv(&Context::from_waker(Waker::noop())).is_pending());
        turn();
        drop(receiving);
        drop(peer);
        // Sending more than is taken.
        let (sending, peer) = pair(&ring, &listener);
        sending.send(SendBuf::Owned(vec![1; 32 << 20]));
        turn();
        drop(sending);
        drop(peer);
        // Finishing.
        let (finishing, peer) = pair(&ring, &listener);
        finishing.finish();
        turn();
        drop(finishing);
        assert_all_closed(&ring);
        drop(peer);
    }
}

/// A connect that nobody answers has nothing else to end it.
#[test]
fn a_connect_without_an_answer_can_be_closed() {
    let ring = Ring::new(64).expect("io_uring is there");
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a descriptor is free");
    full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    full.listen(0).expect("it is bound");
    let address = full.local_addr().expect("it is bound");
    let sockets: Vec<_> = (0..10)
        .map(|_| {
            let (socket, _) = socket(&ring).expect("a free slot");
            socket.connect(address.clone());
            socket
        })
        .collect();
    for _ in 0..20 {
        ring.turn(MILLISECOND).expect("the ring works");
    }
    let cx = Context::from_waker(Waker::noop());
    let pending = sockets.iter().filter(|socket| socket.poll_connect(&cx).is_pending()).count();
    assert!(pending > 0, "its queue holds but one connection");
    drop(sockets);
    assert_all_closed(&ring);
}

/// Since Linux 6.13 the kernel handles no more than 20 of them in a call. What is left waits for the
/// next turn, and counts as read then.
#[test]
fn one_turn_takes_all_that_has_come() {
    // As many as there are buffers to begin with.
    const SOCKETS: usize = 32;
    let ring = Ring::new(SOCKETS as u32).expect("io_uring is there");
    let listener = listener().0;
    let mut links: Vec<_> = (0..SOCKETS).map(|_| pair(&ring, &listener)).collect();
    for (socket, _) in &links {
        assert!(socket.poll_recv(&Context::from_waker(Waker::noop())).is_pending());
    }
    ring.turn(Wait::No).expect("the ring works");
    for (_, peer) in &mut links {
        peer.write_all(b"an answer").expect("it fits");
    }
    let turn = ring.turn(Wait::No).expect("the ring works");
    assert!(turn.completed >= SOCKETS && !turn.more, "{turn:?}");
    for (socket, _) in &links {
        let polled = socket.poll_recv(&Context::from_waker(Waker::noop()));
        assert!(polled.is_ready(), "it was there before the turn");
    }
    drop(links);
    assert_all_closed(&ring);
}

/// What is on its way to one socket must not reach the next in its slot.
#[test]
fn a_slots_next_socket_meets_nothing_of_the_last() {
    let ring = Ring::new(1).expect("io_uring is there");
    let listener = listener().0;
    for round in 0..200_u32 {
        let (socket, mut peer) = pair(&ring, &listener);
        assert!(socket.poll_recv(&Context::from_waker(Waker::noop())).is_pending());
        ring.turn(Wait::No).expect("the ring works");
        let mine = round.to_be_bytes();
        peer.write_all(&mine).expect("it fits");
        if round % 2 == 0 {
            // Its completions come when it is already closed.
            socket.send(SendBuf::Owned(vec![0; 1000]));
            drop(socket);
        } else {
            let chunk = pump(&ring, |cx| socket.poll_recv(cx)).expect("it is open");
            assert_eq!(*chunk.expect("data"), mine);
            assert!(socket.poll_sent(&Context::from_waker(Waker::noop())).is_ready());
            drop(socket);
        }
        assert_eq!(ring.open_sockets(), 1, "closing takes a turn");
        assert_all_closed(&ring);
    }
}

thread_local! {
    static LAST_WISH: RefCell<Option<Socket>> = const { RefCell::new(None) };
}

/// Closes another socket when it is dropped, as the waker of a task that owns one may.
struct Owner;

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(LAST_WISH.with(|socket| socket.borrow_mut().take()));
    }
}

/// A regression: the wakers of a closed socket were dropped while its table was borrowed.
#[test]
fn a_waker_dropped_by_a_closing_may_close_another_socket() {
    let ring = Ring::new(8).expect("io_uring is there");
    let listener = listener().0;
    let (first, _first) = pair(&ring, &listener);
    let (second, _second) = pair(&ring, &listener);
    LAST_WISH.with(|socket| *socket.borrow_mut() = Some(second));
    let waker = Waker::from(Arc::new(Owner));
    assert!(first.poll_recv(&Context::from_waker(&waker)).is_pending());
    drop(waker);
    drop(first);
    assert_all_closed(&ring);
}

#[test]
fn a_full_table_says_so_and_has_room_after_a_closing() {
    let ring = Ring::new(2).expect("io_uring is there");
    let first = socket(&ring).expect("a free slot");
    let _second = socket(&ring).expect("a free slot");
    let error = socket(&ring).expect_err("there is no third");
    assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
    drop(first);
    turn_until(&ring, "a free slot", || ring.open_sockets() == 1);
    socket(&ring).expect("a free slot");
}

// ---- Listening, waking, idling -------------------------------------------------------------------

#[test]
fn a_listener_hands_out_every_connection() {
    let ring = Ring::new(8).expect("io_uring is there");
    let (listener, address) = listener();
    let listener = ring.adopt(listener.into()).expect("a free slot");
    let clients: Vec<_> = (0..5_u8)
        .map(|id| {
            let mut client = TcpStream::connect(address).expect("it listens");
            client.write_all(&[id]).expect("it fits");
            client
        })
        .collect();
    let mut seen = Vec::new();
    for _ in &clients {
        let fd = pump(&ring, |cx| listener.poll_accept(cx)).expect("a connection");
        let socket = ring.adopt(fd).expect("a free slot");
        let chunk = pump(&ring, |cx| socket.poll_recv(cx)).expect("it is open").expect("data");
        seen.extend_from_slice(&chunk);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    drop(listener);
    assert_all_closed(&ring);
}

#[test]
fn another_thread_ends_a_wait() {
    let ring = Ring::new(8).expect("io_uring is there");
    for _ in 0..3 {
        let waker = ring.waker();
        let begun = Instant::now();
        let waking = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        ring.turn(Wait::AtMost(u64::from(HUNG.subsec_nanos()) + 15_000_000_000)).expect("it works");
        assert!(begun.elapsed() < Duration::from_secs(10), "it waited for its time");
        waking.join().expect("it does not panic");
    }
}

#[test]
fn a_wait_without_news_ends_with_its_time() {
    let ring = Ring::new(8).expect("io_uring is there");
    let begun = Instant::now();
    let turn = ring.turn(Wait::AtMost(30_000_000)).expect("the ring works");
    assert_eq!(turn.completed, 0);
    assert!(begun.elapsed() >= Duration::from_millis(30), "{:?}", begun.elapsed());
    assert_eq!(ring.turn(Wait::No).expect("the ring works"), Turn::default());
}

/// A regression: each client that was the only one of its shard asked anew, for as long as the
/// process lived.
#[test]
fn a_hook_is_called_once_however_often_it_was_asked_for() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    fn hook() {
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
    let ring = Ring::new(8).expect("io_uring is there");
    for _ in 0..5 {
        ring.when_idle(hook);
    }
    ring.idle();
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}

#[test]
fn a_chunk_outlives_its_socket_and_its_handle_to_the_ring() {
    let ring = Ring::new(8).expect("io_uring is there");
    let (socket, mut peer) = pair(&ring, &listener().0);
    peer.write_all(&[7; BUFFER_SIZE / 2]).expect("it fits");
    let mut chunk = pump(&ring, |cx| socket.poll_recv(cx)).expect("it is open").expect("data");
    drop(socket);
    assert_all_closed(&ring);
    drop(ring);
    chunk.advance(1);
    assert!(chunk.iter().all(|&byte| byte == 7));
}

// ---- Time stamps ---------------------------------------------------------------------------------

#[test]
fn whatever_holds_for_sockets_holds_for_stamped_ones() {
    STAMPED_EVERY.set(1);
    unread_data_is_bounded_and_not_lost();
    buffers_of_closed_sockets_are_used_again();
    closing_the_hoarders_feeds_the_starving();
    a_reset_that_a_send_was_told_of_is_a_reset_to_the_receive();
    a_socket_may_be_closed_in_the_middle_of_anything();
    a_connect_without_an_answer_can_be_closed();
    a_slots_next_socket_meets_nothing_of_the_last();
    a_chunk_outlives_its_socket_and_its_handle_to_the_ring();
}

/// Slots change between stamped sockets and others.
#[test]
fn any_order_of_operations_keeps_every_byte_of_stamped_sockets_and_others() {
    STAMPED_EVERY.set(2);
    any_order_of_operations_keeps_every_byte_and_no_slot();
}

#[test]
fn every_size_arrives_whole_over_a_stamped_connection() {
    STAMPED_EVERY.set(1);
    let ring = Ring::new(8).expect("io_uring is there");
    let pattern = Pattern::new();
    let (socket, mut peer) = pair(&ring, &listener().0);
    assert!(ring.with_slot(socket.slot, |slot| slot.stamped), "the kernel stamps what it receives");
    let around = |size: usize| size - 2..size + 3;
    let sizes = (1..100).chain(around(BUFFER_SIZE - 80)).chain(around(BUFFER_SIZE));
    let mut sent = 0;
    for size in sizes.chain([60_000, 200_000]) {
        let (mut written, mut received) = (0, 0);
        while received < size {
            written += write_some(&pattern, &mut peer, 9, sent + written, size - written);
            let chunk = pump(&ring, |cx| socket.poll_recv(cx)).expect("it is open").expect("data");
            assert!(*chunk == *pattern.at(9, sent + received, chunk.len()), "of {size}");
            received += chunk.len();
        }
        assert_eq!(received, size);
        sent += size;
    }
    drop(peer);
    assert!(pump(&ring, |cx| socket.poll_recv(cx)).expect("an end").is_none());
    assert!(socket.has_news());
    drop(socket);
    assert_all_closed(&ring);
}

#[test]
fn a_stamp_tells_how_long_bytes_lay_unread() {
    const LAIN: Duration = Duration::from_millis(30);
    STAMPED_EVERY.set(2);
    let ring = Ring::new(8).expect("io_uring is there");
    let listener = listener().0;
    let (stamped, mut peer) = pair(&ring, &listener);
    let (plain, mut plains_peer) = pair(&ring, &listener);
    let read = |socket: &Socket| {
        let chunk = pump(&ring, |cx| socket.poll_recv(cx)).expect("it is open").expect("data");
        assert_eq!(*chunk, *b"an answer");
    };
    let begun = Instant::now();
    let delay = loop {
        let written = Instant::now();
        peer.write_all(b"an answer").expect("it fits");
        thread::sleep(LAIN);
        read(&stamped);
        // The kernel begins to stamp a moment after it was asked to.
        if let Some(delay) = ring.take_receive_delay_ns() {
            let delay = Duration::from_nanos(delay);
            // A clock that is set forward meanwhile may be off, by little as a rule.
            assert!(delay <= written.elapsed() + LAIN / 3, "{delay:?}");
            break delay;
        }
        assert!(begun.elapsed() < HUNG, "nothing was stamped");
    };
    assert!(delay >= LAIN * 2 / 3, "{delay:?}");
    assert_eq!(ring.take_receive_delay_ns(), None, "it is told once");

    // Of what another socket reads it says nothing, and what is forgotten is not told.
    peer.write_all(b"an answer").expect("it fits");
    plains_peer.write_all(b"an answer").expect("it fits");
    read(&stamped);
    read(&plain);
    assert_eq!(ring.take_receive_delay_ns(), None);
    peer.write_all(b"an answer").expect("it fits");
    read(&stamped);
    ring.forget_receipt();
    assert_eq!(ring.take_receive_delay_ns(), None);
    drop((stamped, plain));
    assert_all_closed(&ring);
}

/// One in so many of those that are open, and always one.
#[test]
fn a_sample_of_the_clients_is_stamped() {
    let ring = Ring::new(64).expect("io_uring is there");
    let client = || {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        ring.adopt_client(socket.into()).expect("a free slot")
    };
    let is_stamped = |socket: &Socket| ring.with_slot(socket.slot, |slot| slot.stamped);
    let sockets: Vec<_> = (0..2 * stamp::EVERY).map(|_| client()).collect();
    let stamped: Vec<_> = (0_u32..)
        .zip(&sockets)
        .filter(|(_, socket)| is_stamped(socket))
        .map(|(at, _)| at)
        .collect();
    assert_eq!(stamped, [0, stamp::EVERY]);
    // Others take the places of those that are closed.
    drop(sockets);
    assert_all_closed(&ring);
    for _ in 0..3 {
        let socket = client();
        assert!(is_stamped(&socket), "it is the only one");
        drop(socket);
        assert_all_closed(&ring);
    }
}
