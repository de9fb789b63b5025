//! chitchat's messages in sealed datagrams.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use tokio::net::UdpSocket;

use super::frame::{MAX_DATAGRAM, Opener, Refusal, Sealer};
use super::keys::Key;

/// After an error of the socket, so that one that stays does not keep the thread busy.
const PAUSE: Duration = Duration::from_millis(100);

/// Senders about whom a line of the log is written. Addresses can be forged; the log is bounded.
const MAX_REMARKS: usize = 256;

/// Datagrams of gossip that were refused, by reason.
#[derive(Debug, Default)]
pub(crate) struct GossipCounters {
    /// Shorter than any.
    pub(crate) too_short: AtomicU64,
    /// Longer than any.
    pub(crate) too_long: AtomicU64,
    /// No gossip of this format.
    pub(crate) bad_magic: AtomicU64,
    /// Another token or cluster, or changed on the way.
    pub(crate) bad_tag: AtomicU64,
    /// Heard before.
    pub(crate) replayed: AtomicU64,
    /// Of a clock that is more than a minute off, or a minute old.
    pub(crate) stale: AtomicU64,
    /// Authentic, and not to be read.
    pub(crate) malformed: AtomicU64,
    /// This node's own.
    pub(crate) own: AtomicU64,
}

impl GossipCounters {
    /// Reasons and counts, as a metric with a label shows them.
    pub(crate) fn by_reason(&self) -> [(&'static str, u64); 8] {
        [
            ("too_short", &self.too_short),
            ("too_long", &self.too_long),
            ("bad_magic", &self.bad_magic),
            ("bad_tag", &self.bad_tag),
            ("replayed", &self.replayed),
            ("stale", &self.stale),
            ("malformed", &self.malformed),
            ("own", &self.own),
        ]
        .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    fn of(&self, refusal: Refusal) -> &AtomicU64 {
        match refusal {
            Refusal::TooShort => &self.too_short,
            Refusal::TooLong => &self.too_long,
            Refusal::BadMagic => &self.bad_magic,
            Refusal::BadTag => &self.bad_tag,
            Refusal::Own => &self.own,
            Refusal::Stale { .. } => &self.stale,
            Refusal::Replayed => &self.replayed,
        }
    }
}

/// One bound socket and all that belongs to it. chitchat opens it as often as it has to be started:
/// what was sent and seen before stays known.
pub(super) struct Wire(Arc<Shared>);

struct Shared {
    socket: UdpSocket,
    is_ipv6: bool,
    // Never contended: chitchat sends and receives on one task.
    sealer: Mutex<Sealer>,
    opener: Mutex<Opener>,
    counters: Arc<GossipCounters>,
    remarks: Mutex<HashSet<(IpAddr, &'static str)>>,
}

impl Wire {
    pub(super) async fn bind(
        listen: SocketAddr,
        key: Key,
        boot: u64,
        counters: Arc<GossipCounters>,
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind(listen).await?;
        Ok(Self(Arc::new(Shared {
            socket,
            is_ipv6: listen.is_ipv6(),
            sealer: Mutex::new(Sealer::new(key.clone(), boot)),
            opener: Mutex::new(Opener::new(key, boot)),
            counters,
            remarks: Mutex::default(),
        })))
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket.local_addr()
    }
}

#[async_trait::async_trait]
impl Transport for Wire {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(Opened {
            shared: Arc::clone(&self.0),
            sending: Vec::new(),
            // One byte more, so that what is too long is not taken for what is not.
            receiving: vec![0; MAX_DATAGRAM + 1].into_boxed_slice(),
        }))
    }
}

struct Opened {
    shared: Arc<Shared>,
    sending: Vec<u8>,
    receiving: Box<[u8]>,
}

/// No error is ever returned: one of `recv` would end chitchat's loop, and one of `send` a line of
/// the log for every datagram to a node that is gone.
#[async_trait::async_trait]
impl Socket for Opened {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let Some(to) = self.shared.reachable(to) else {
            tracing::debug!(%to, "gossip of a socket of IPv4 does not reach IPv6");
            return Ok(());
        };
        let sealed = lock(&self.shared.sealer)
            .seal(now_ms(), &mut self.sending, |datagram| message.serialize(datagram));
        if sealed.is_err() {
            // chitchat fills datagrams to the last byte and does not know of the frame. The next
            // has other nodes in it, as they are drawn at random.
            tracing::debug!(%to, "a message of gossip is too long for a datagram");
            return Ok(());
        }
        if let Err(error) = self.shared.socket.send_to(&self.sending, to).await {
            tracing::debug!(%to, %error, "gossip could not be sent");
        }
        Ok(())
    }

    /// May be cancelled: nothing is awaited between a datagram's arrival and its return.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            match self.shared.socket.recv_from(&mut self.receiving).await {
                Ok((length, from)) => {
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    if let Some(message) = self.shared.accept(from, &self.receiving[..length]) {
                        return Ok((from, message));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "gossip could not be received");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Shared {
    /// The address as this socket takes it.
    fn reachable(&self, to: SocketAddr) -> Option<SocketAddr> {
        match (to, self.is_ipv6) {
            (SocketAddr::V4(to), true) => Some((to.ip().to_ipv6_mapped(), to.port()).into()),
            (SocketAddr::V6(_), false) => None,
            _ => Some(to),
        }
    }

    /// The message, if it is one of this cluster.
    fn accept(&self, from: SocketAddr, datagram: &[u8]) -> Option<ChitchatMessage> {
        let now_ms = now_ms();
        let opened = lock(&self.opener).open(now_ms, datagram);
        match opened {
            Ok(payload) => {
                let message = decode(payload);
                if message.is_none() {
                    self.counters.malformed.fetch_add(1, Ordering::Relaxed);
                    self.remark(from.ip(), "it cannot be read: run the same version on all nodes");
                }
                message
            }
            Err(refusal) => {
                self.counters.of(refusal).fetch_add(1, Ordering::Relaxed);
                match refusal {
                    Refusal::BadTag => self.remark(
                        from.ip(),
                        "its token or the name of its cluster is another: give all nodes the same",
                    ),
                    Refusal::Stale { sender_ms } => {
                        let off_s = sender_ms.abs_diff(now_ms) / 1000;
                        tracing::debug!(%from, off_s, "gossip of another time");
                        self.remark(
                            from.ip(),
                            "its clock and this node's are more than a minute apart: synchronise \
                             clocks",
                        );
                    }
                    _ => {}
                }
                None
            }
        }
    }

    /// Warns once of each address.
    fn remark(&self, from: IpAddr, why: &'static str) {
        let mut remarks = lock(&self.remarks);
        if remarks.len() < MAX_REMARKS && remarks.insert((from, why)) {
            tracing::warn!(%from, "gossip is refused: {why}");
        }
    }
}

/// What an authentic datagram says. chitchat's decoder sees no other; even so, its panic is not to
/// end the node.
fn decode(mut payload: &[u8]) -> Option<ChitchatMessage> {
    let decoded = catch_unwind(AssertUnwindSafe(|| ChitchatMessage::deserialize(&mut payload)));
    decoded.ok()?.ok().filter(|_| payload.is_empty())
}

/// Milliseconds of Unix time.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_authentic_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
            // Behind chitchat's own magic and each of its messages.
            for kind in 0..4 {
                if bytes.len() >= 4 {
                    bytes[..3].copy_from_slice(&[0x53, 0xB0, 0]);
                    bytes[3] = kind;
                }
                let _ = decode(&bytes);
            }
        }
    }

    #[test]
    fn what_follows_a_message_makes_it_none() {
        let mut bytes = Vec::new();
        ChitchatMessage::BadCluster.serialize(&mut bytes);
        assert_eq!(decode(&bytes), Some(ChitchatMessage::BadCluster));
        bytes.push(0);
        assert_eq!(decode(&bytes), None);
    }
}
