//! How the network tells the run of what it moves.
//!
//! The two do not know of each other, as with [`handshake`](crate::handshake): a stream adds to the
//! counts of its thread, and whoever polls user code there takes them before and after. What others
//! on the thread move meanwhile, as a test target, is in nobody's.

use std::cell::Cell;

/// Bytes of TCP payload, and connections that were opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Handed to the system to be sent: with TLS the encrypted bytes.
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) connections: u64,
}

impl Traffic {
    const NONE: Self = Self { sent: 0, received: 0, connections: 0 };

    #[inline]
    pub(crate) fn is_none(self) -> bool {
        self.sent | self.received | self.connections == 0
    }

    pub(crate) fn add(&mut self, part: Self) {
        self.sent = self.sent.saturating_add(part.sent);
        self.received = self.received.saturating_add(part.received);
        self.connections = self.connections.saturating_add(part.connections);
    }
}

thread_local! {
    /// One cell for each count: a stream then writes eight bytes, not all of them.
    static SENT: Cell<u64> = const { Cell::new(0) };
    static RECEIVED: Cell<u64> = const { Cell::new(0) };
    static CONNECTIONS: Cell<u64> = const { Cell::new(0) };
}

#[inline]
pub(crate) fn sent(bytes: usize) {
    SENT.set(SENT.get() + bytes as u64);
}

#[inline]
pub(crate) fn received(bytes: usize) {
    RECEIVED.set(RECEIVED.get() + bytes as u64);
}

pub(crate) fn connected() {
    CONNECTIONS.set(CONNECTIONS.get() + 1);
}

/// Starts to count anew; answers what was counted until now.
#[inline]
fn replace(traffic: Traffic) -> Traffic {
    Traffic {
        sent: SENT.replace(traffic.sent),
        received: RECEIVED.replace(traffic.received),
        connections: CONNECTIONS.replace(traffic.connections),
    }
}

/// What is moved from its making to its [end](Self::end) on this thread. Meters may be nested: what
/// an inner one has counted is in no outer one.
#[must_use]
pub(crate) struct Meter {
    outer: Traffic,
}

impl Meter {
    #[inline]
    pub(crate) fn start() -> Self {
        Self { outer: replace(Traffic::NONE) }
    }

    #[inline]
    pub(crate) fn end(self) -> Traffic {
        replace(self.outer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_counts_what_is_moved_while_it_runs_and_no_other_does() {
        sent(1_000);
        let outer = Meter::start();
        sent(1);
        connected();
        let inner = Meter::start();
        sent(20);
        received(300);
        assert_eq!(inner.end(), Traffic { sent: 20, received: 300, connections: 0 });
        sent(4);
        assert_eq!(outer.end(), Traffic { sent: 5, received: 0, connections: 1 });
        let idle = Meter::start();
        assert!(idle.end().is_none());
    }
}
