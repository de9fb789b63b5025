//! The target's side of its connections.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::Sender;
use futures_lite::future;

use super::Shared;
use crate::engine::shard::Shard;
use crate::engine::timers::SleepUntil;
use crate::http::codec::{Limits, RequestDecoder, RequestEvent};
use crate::net::{TcpListener, TcpStream};
use crate::ring::SendBuf;

/// A stopped target is noticed at this pace; its connections then close.
const STOP_CHECK: Duration = Duration::from_millis(20);

/// Largest body of `/bytes/N`.
const MAX_BYTES: usize = 16 << 20;

/// Requests may come ahead of an even spacing by so much before a limited target refuses them.
const BURST_NS: u64 = 10_000_000;

/// One target on its shard.
struct Server {
    shard: Rc<Shard>,
    shared: Arc<Shared>,
    plain: Rc<[u8]>,
    failure: Rc<[u8]>,
    refusal: Rc<[u8]>,
    /// Answers to `/bytes/N`.
    sized: RefCell<HashMap<usize, Rc<[u8]>>>,
    /// When the next request is within the capacity.
    next_slot_ns: Cell<u64>,
    random: Cell<u64>,
}

/// Listens, tells `ready` where, and serves for as long as the target lives.
pub(super) fn start(
    shard: &Rc<Shard>,
    address: SocketAddr,
    body: Vec<u8>,
    shared: Arc<Shared>,
    ready: &Sender<io::Result<SocketAddr>>,
) {
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(listener.address()));
    let server = Rc::new(Server {
        shard: Rc::clone(shard),
        shared,
        plain: answer("200 OK", &body),
        failure: answer("500 Internal Server Error", b"failed\n"),
        refusal: answer("503 Service Unavailable", b"too many\n"),
        sized: RefCell::new(HashMap::new()),
        next_slot_ns: Cell::new(0),
        random: Cell::new(0x9E37_79B9_7F4A_7C15),
    });
    shard.add_service();
    let owner = Rc::clone(shard);
    shard.spawn_service(async move {
        let stopped = stopped(Rc::clone(&server));
        future::or(stopped, accept(&server, &listener)).await;
        owner.remove_service();
    });
}

fn answer(status: &str, body: &[u8]) -> Rc<[u8]> {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes.into()
}

async fn stopped(server: Rc<Server>) {
    while !server.shared.stopped.load(Ordering::Relaxed) {
        let at = server.shard.now() + STOP_CHECK.as_nanos() as u64;
        SleepUntil::new(Rc::clone(&server.shard), at).await;
    }
}

async fn accept(server: &Rc<Server>, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                add(&server.shared.connections, 1);
                let connection = Rc::clone(server);
                server.shard.spawn_service(async move { connection.serve(stream).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a test target could not accept a connection");
                let at = server.shard.now() + STOP_CHECK.as_nanos() as u64;
                SleepUntil::new(Rc::clone(&server.shard), at).await;
            }
        }
    }
}

/// Only this shard writes the counts, so that a plain addition is enough.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// What a request is owed.
struct Answer {
    bytes: Rc<[u8]>,
    /// It has asked with `HEAD`.
    head_only: bool,
}

impl Server {
    async fn serve(self: Rc<Self>, stream: TcpStream) {
        let mut decoder = RequestDecoder::new(Limits::default());
        let mut answers: Option<Answer> = None;
        loop {
            let received = poll_fn(|cx| stream.poll_recv(cx)).await;
            let Ok(Some(mut chunk)) = received else { return };
            let mut keep_alive = true;
            while !chunk.is_empty() {
                let Ok(decoded) = decoder.decode(&chunk) else { return };
                let consumed = decoded.consumed;
                match decoded.event {
                    RequestEvent::Head(head) => {
                        keep_alive = head.keep_alive;
                        let bytes = self.answer_to(head.target);
                        answers = Some(Answer { bytes, head_only: head.method == "HEAD" });
                    }
                    RequestEvent::NeedMore => break,
                    RequestEvent::Data(_) => {}
                    RequestEvent::End => {
                        if let Some(answer) = answers.take()
                            && self.send(&stream, answer).await.is_err()
                        {
                            return;
                        }
                    }
                }
                chunk.advance(consumed);
            }
            drop(chunk);
            // A head without a body is complete with its last byte, and its end is not told
            // before it is asked for.
            if let Ok(decoded) = decoder.decode(&[])
                && matches!(decoded.event, RequestEvent::End)
                && let Some(answer) = answers.take()
                && self.send(&stream, answer).await.is_err()
            {
                return;
            }
            if !keep_alive || self.shared.stopped.load(Ordering::Relaxed) {
                let _ = poll_fn(|cx| stream.poll_sent(cx)).await;
                return;
            }
        }
    }

    async fn send(&self, stream: &TcpStream, answer: Answer) -> io::Result<()> {
        let mut bytes = self.after_the_knobs(answer.bytes).await;
        if answer.head_only {
            let end = bytes.windows(4).position(|end| end == b"\r\n\r\n");
            bytes = bytes[..end.map_or(bytes.len(), |end| end + 4)].into();
        }
        if stream.is_sending() {
            poll_fn(|cx| stream.poll_sent(cx)).await?;
        }
        stream.send(SendBuf::Shared(bytes));
        add(&self.shared.served, 1);
        Ok(())
    }

    /// Waits, refuses and fails as the knobs are set.
    async fn after_the_knobs(&self, bytes: Rc<[u8]>) -> Rc<[u8]> {
        let shared = &self.shared;
        let capacity = shared.capacity.load(Ordering::Relaxed);
        if capacity > 0 {
            let now = self.shard.now();
            let slot = self.next_slot_ns.get();
            let queueing = shared.queueing.load(Ordering::Relaxed);
            if slot > now.saturating_add(BURST_NS) && !queueing {
                return Rc::clone(&self.refusal);
            }
            // A target that was not asked for a while has saved up no more than a burst.
            let floor = if queueing { now } else { now.saturating_sub(BURST_NS) };
            let slot = slot.max(floor);
            self.next_slot_ns.set(slot + 1_000_000_000 / u64::from(capacity));
            self.wait_until(slot).await;
        }
        let delay = shared.delay_ns.load(Ordering::Relaxed);
        if delay > 0 {
            self.wait_until(self.shard.now() + delay).await;
        }
        // Again and again, since a stall may be prolonged while it is waited for.
        loop {
            let until = shared.stalled_until_ns.load(Ordering::Relaxed);
            if until <= self.shard.now() {
                break;
            }
            self.wait_until(until).await;
        }
        let errors = shared.error_share.load(Ordering::Relaxed);
        if errors > 0 && self.random() >> 32 < errors {
            return Rc::clone(&self.failure);
        }
        bytes
    }

    async fn wait_until(&self, at_ns: u64) {
        if at_ns > self.shard.now() {
            SleepUntil::new(Rc::clone(&self.shard), at_ns).await;
        }
    }

    fn answer_to(&self, target: &str) -> Rc<[u8]> {
        let Some(length) = target.strip_prefix("/bytes/") else { return Rc::clone(&self.plain) };
        let length = length.parse().unwrap_or(0_usize).min(MAX_BYTES);
        let mut sized = self.sized.borrow_mut();
        let sized = sized.entry(length).or_insert_with(|| answer("200 OK", &vec![b'x'; length]));
        Rc::clone(sized)
    }

    /// xorshift64*, seeded alike in every target: which request fails does not matter, only how
    /// many do.
    fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}
