//! TCP streams through the traits of `futures-io`: every byte arrives, in order, also where the
//! reader is late and the shard's buffers run short.

#[path = "support_http/mod.rs"]
mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use balter_uring::net::TcpStream;
use balter_uring::prelude::*;
use balter_uring::{FailureClass, time};
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};

use support::{Random, Server, checksum, eventually, finish, on_shard, refusing};

/// Sends back what comes in.
fn echo() -> Server {
    Server::start(|peer| {
        let mut stream = peer.stream.try_clone().expect("a descriptor is free");
        let _ = std::io::copy(&mut peer.stream, &mut stream);
    })
}

/// Sends this at once and counts what the kernel has taken, then waits for the client's end.
fn pouring(bytes: Arc<Vec<u8>>) -> (Server, Arc<AtomicUsize>) {
    let poured = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&poured);
    let server = Server::start(move |peer| {
        for piece in bytes.chunks(16 << 10) {
            if !peer.send(piece) {
                return;
            }
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        peer.until_closed();
    });
    (server, poured)
}

#[test]
fn what_is_written_comes_back() {
    let server = echo();
    let address = server.address;
    on_shard(async move || {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        for length in [1, 2, 100, 16_384, 100_000] {
            let sent = Random(length as u64).bytes(length);
            stream.write_all(&sent).await.expect("it is open");
            stream.flush().await.expect("it is open");
            let mut received = vec![0; length];
            stream.read_exact(&mut received).await.expect("it is open");
            assert!(received == sent, "{length} bytes");
        }
        stream.close().await.expect("it is open");
        assert_eq!(stream.read(&mut [0; 10]).await.expect("an end"), 0);
        assert_eq!(stream.read(&mut [0; 10]).await.expect("an end, again"), 0);
    });
    server.assert_left_alone();
}

/// Each side writes more than all buffers on the way hold, so that neither could go on if the other
/// only wrote.
#[test]
fn large_transfers_go_both_ways_at_once() {
    const SIZE: usize = 24 << 20;
    let server = echo();
    let address = server.address;
    let (sent, received) = on_shard(async move || {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let (mut reader, mut writer) = futures_lite::io::split(stream);
        let sent = Random(3).bytes(SIZE);
        let write = async {
            writer.write_all(&sent).await.expect("it is open");
            writer.close().await.expect("it is open");
        };
        let mut received = Vec::with_capacity(SIZE);
        let read = async {
            // Not `read_to_end`: it fills all that is left of the vector with zeros at each poll.
            let mut buffer = vec![0; 64 << 10];
            loop {
                match reader.read(&mut buffer).await.expect("it is open") {
                    0 => return,
                    count => received.extend_from_slice(&buffer[..count]),
                }
            }
        };
        future::zip(write, read).await;
        ((sent.len(), checksum(&sent)), (received.len(), checksum(&received)))
    });
    assert_eq!(received, sent);
    server.assert_left_alone();
}

/// Memory is bounded for a reader that stalls: its peer is stopped.
#[test]
fn a_reader_that_stalls_stops_its_peer_and_loses_nothing() {
    const SIZE: usize = 48 << 20;
    let bytes = Arc::new(Random(4).bytes(SIZE));
    let expected = checksum(&bytes);
    let (server, poured) = pouring(bytes);
    let address = server.address;
    let seen = Arc::clone(&poured);
    let (held, received, sum) = on_shard(async move || {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let mut body = vec![0];
        stream.read_exact(&mut body).await.expect("a first byte");
        let mut held = 0;
        // Until the peer has stood still for a while.
        loop {
            time::sleep(Duration::from_millis(300)).await;
            match seen.load(Ordering::SeqCst) {
                now if now == held => break,
                now => held = now,
            }
        }
        stream.read_to_end_of(SIZE, &mut body).await;
        (held, body.len(), checksum(&body))
    });
    // The kernel's buffers of both sides (some 10 MiB at most) and 1 MiB of the stream's own.
    assert!(held < SIZE - (16 << 20), "{held} bytes were taken for a reader that sleeps");
    assert_eq!((received, sum), (SIZE, expected));
    server.assert_left_alone();
}

trait ReadToEndOf {
    async fn read_to_end_of(&mut self, size: usize, body: &mut Vec<u8>);
}

impl ReadToEndOf for TcpStream {
    /// As `read_to_end` where the peer does not close first.
    async fn read_to_end_of(&mut self, size: usize, body: &mut Vec<u8>) {
        let have = body.len();
        body.resize(size, 0);
        self.read_exact(&mut body[have..]).await.expect("it is open");
    }
}

/// A newcomer is served while others hold half of the shard's buffers and do not read, and when
/// these read on, each gets every byte.
#[test]
fn stalled_readers_do_not_starve_the_others() {
    const CONNECTIONS: usize = 50;
    const SIZE: usize = 3 << 19;
    let bytes = Arc::new(Random(5).bytes(SIZE));
    let expected = checksum(&bytes);
    let (server, _) = pouring(bytes);
    let echo = echo();
    let (address, echo_address) = (server.address, echo.address);
    on_shard(async move || {
        let mut stalled = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            let mut body = vec![0];
            stream.read_exact(&mut body).await.expect("a first byte");
            stalled.push((stream, body));
        }
        time::sleep(Duration::from_millis(300)).await;
        let newcomer = async {
            let mut stream = TcpStream::connect(echo_address).await.expect("it listens");
            stream.write_all(b"hello").await.expect("it is open");
            stream.read_exact(&mut [0; 5]).await.expect("it is open");
            true
        };
        let late = async {
            time::sleep(Duration::from_secs(10)).await;
            false
        };
        assert!(future::or(newcomer, late).await, "it was starved by those that do not read");
        // One after the other, the last first: the rest stall until it is their turn.
        while let Some((mut stream, mut body)) = stalled.pop() {
            stream.read_to_end_of(SIZE, &mut body).await;
            assert_eq!(checksum(&body), expected, "with {} left", stalled.len());
        }
    });
    server.assert_left_alone();
    echo.assert_left_alone();
}

#[test]
fn outside_of_a_scenario_there_is_no_stream() {
    let server = echo();
    let error = future::block_on(TcpStream::connect(server.address)).expect_err("no ring is here");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_refused_connection_is_an_error() {
    let (_socket, address) = refusing();
    let error = on_shard(async move || TcpStream::connect(address).await.expect_err("refused"));
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_reset_is_an_error_to_reader_and_writer() {
    let server = Server::start(|peer| {
        let mut first = [0];
        let _ = std::io::Read::read(&mut peer.stream, &mut first);
        peer.reset();
    });
    let address = server.address;
    on_shard(async move || {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"hello").await.expect("it is open");
        let error = stream.read(&mut [0; 10]).await.expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // The first write may be taken before the reset is known; the next cannot.
        let mut failed = false;
        for _ in 0..3 {
            let written = stream.write_all(b"more").await;
            failed |= written.is_err() || stream.flush().await.is_err();
        }
        assert!(failed, "nobody could receive it");
    });
    server.assert_left_alone();
}

// ---- Deadlines -----------------------------------------------------------------------------------

#[scenario]
async fn listeners(address: SocketAddr) {
    loop {
        let _ = listen(address).await;
    }
}

#[transaction]
async fn listen(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"hello").await?;
    let error = stream.read_exact(&mut [0; 6]).await.expect_err("only five come back");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    Err(error)
}

#[test]
fn a_read_ends_at_the_transactions_deadline() {
    let server = echo();
    let run = listeners(server.address).tps(20).duration(Duration::from_millis(500));
    let statistics = finish(run.timeout(Duration::from_millis(300)));
    assert_eq!(statistics.failures, [(FailureClass::Timeout, statistics.counts.failed)]);
    assert_eq!((statistics.panics, statistics.counts.succeeded), (0, 0));
    assert!(statistics.counts.failed > 3, "{:?}", statistics.counts);
    server.assert_left_alone();
    eventually("nothing is held", || support::clients_of(server.address.port()).is_empty());
}
