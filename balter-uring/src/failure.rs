//! Why a transaction failed: a finite set of classes, each the target's or the generator's.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why a transaction failed.
///
/// The target's classes count in [`error_rate`](crate::RunStatistics::error_rate). The generator's
/// ([`is_generator`](Self::is_generator)) do not: they say that this machine could not send, which
/// is no property of the target. They show in the [verdict](crate::Verdict) instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[repr(u8)]
#[non_exhaustive]
pub enum FailureClass {
    /// The transaction returned its failure side without an error of the network below it.
    Application,
    /// The connection was refused.
    Refused,
    /// The connection was reset or closed before the answer was complete.
    Reset,
    /// The transaction's deadline passed.
    Timeout,
    /// The answer had a status of 400 or above, and the transaction returned its failure side.
    Status,
    /// The answer broke the protocol, or a limit set for it.
    Protocol,
    /// TLS failed: a certificate that is not accepted, an alert, an end in the handshake, or one in
    /// mid-answer that the target did not announce.
    Tls,
    /// The target's name could not be resolved.
    Resolve,
    /// No route to the target, or the network is down.
    Unreachable,
    /// Generator: the process has no file descriptors left.
    Descriptors,
    /// Generator: the machine has no local ports left for this target.
    Ports,
    /// Generator: no memory for sockets.
    Memory,
    /// Generator: the scenario or the transaction panicked.
    Panic,
}

impl FailureClass {
    /// All classes, in the order of [`index`](Self::index).
    pub const ALL: [Self; 13] = [
        Self::Application,
        Self::Refused,
        Self::Reset,
        Self::Timeout,
        Self::Status,
        Self::Protocol,
        Self::Tls,
        Self::Resolve,
        Self::Unreachable,
        Self::Descriptors,
        Self::Ports,
        Self::Memory,
        Self::Panic,
    ];

    /// How many classes there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Position in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// `true` if this machine is at fault, not the target.
    #[must_use]
    pub const fn is_generator(self) -> bool {
        matches!(self, Self::Descriptors | Self::Ports | Self::Memory | Self::Panic)
    }

    /// The class of an error of the operating system.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => return Self::Refused,
            Some(libc::EMFILE | libc::ENFILE) => return Self::Descriptors,
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => return Self::Ports,
            Some(libc::ENOMEM | libc::ENOBUFS) => return Self::Memory,
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EHOSTDOWN) => {
                return Self::Unreachable;
            }
            Some(libc::ETIMEDOUT) => return Self::Timeout,
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof => Self::Reset,
            io::ErrorKind::InvalidData => Self::Protocol,
            _ => Self::Application,
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Application => "application",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Protocol => "protocol",
            Self::Tls => "tls",
            Self::Resolve => "resolve",
            Self::Unreachable => "unreachable",
            Self::Descriptors => "descriptors",
            Self::Ports => "ports",
            Self::Memory => "memory",
            Self::Panic => "panic",
        })
    }
}

/// How many of these failures, counted by [`FailureClass::index`], are this machine's own.
pub(crate) fn generator_faults(failures: &[u64; FailureClass::COUNT]) -> u64 {
    let own = FailureClass::ALL.iter().filter(|class| class.is_generator());
    own.map(|class| failures[class.index()]).sum()
}

/// What the transaction that is being polled and the network below it tell each other.
///
/// The two do not know of each other: a client notes why its operation failed, and the transaction,
/// if it then returns its failure side, finds the class here. The transaction tells that its
/// deadline has passed, and the client's operations end with an error of their own.
///
/// One word, since it is put in force and taken out again at each poll of a transaction: a [`Note`],
/// and in its two spare bits whether the deadline has passed, and that a transaction is being polled
/// at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope(u32);

impl Scope {
    const EXPIRED: u32 = 0x80;
    const IN_FORCE: u32 = 0x40;
    const FLAGS: u32 = Self::EXPIRED | Self::IN_FORCE;

    /// What was noted last.
    pub(crate) fn note(self) -> Note {
        Note(self.0 & !Self::FLAGS)
    }

    pub(crate) fn noted(self) -> Option<FailureClass> {
        self.note().class()
    }

    fn with(self, note: Note) -> Self {
        Self(self.0 & Self::FLAGS | note.0)
    }

    #[inline]
    pub(crate) fn is_expired(self) -> bool {
        self.0 & Self::EXPIRED != 0
    }

    pub(crate) fn expire(&mut self) {
        self.0 |= Self::EXPIRED;
    }
}

/// Why the last operation failed, and against whom: the index of the class plus one in the low six
/// bits (0 for none), the number of the peer in the second byte, the status of the answer in the
/// two highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note(u32);

impl Note {
    const CLASS: u32 = 0x3F;

    fn new(class: FailureClass, status: u16, peer: u8) -> Self {
        Self((class.index() as u32 + 1) | (u32::from(peer) << 8) | (u32::from(status) << 16))
    }

    fn class(self) -> Option<FailureClass> {
        let index = (self.0 & Self::CLASS).checked_sub(1)?;
        FailureClass::ALL.get(index as usize).copied()
    }

    /// Status of the answer, where it was that; else 0.
    pub(crate) fn status(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Number of the peer on this thread, for [`peer`].
    pub(crate) fn peer(self) -> u8 {
        (self.0 >> 8) as u8
    }
}

/// A peer's number on this thread, for as long as the thread lives; 0 beyond the first 255, whose
/// failures are told without an address.
fn number_of(address: SocketAddr) -> u8 {
    PEERS.with_borrow_mut(|peers| {
        let known = peers.iter().position(|&peer| peer == address);
        let index = known.unwrap_or(peers.len());
        if index == peers.len() && index < usize::from(u8::MAX) {
            peers.push(address);
        }
        u8::try_from(index + 1).unwrap_or(0)
    })
}

/// The address of a peer that a [`Note`] names.
pub(crate) fn peer(number: u8) -> Option<SocketAddr> {
    let index = usize::from(number).checked_sub(1)?;
    PEERS.with_borrow(|peers| peers.get(index).copied())
}

thread_local! {
    /// Those that operations have failed against, by their number less one.
    static PEERS: RefCell<Vec<SocketAddr>> = const { RefCell::new(Vec::new()) };
    static SCOPE: Cell<Scope> = const { Cell::new(Scope(0)) };
}

/// Runs `poll` with `scope` in force, and keeps there what was noted.
#[inline]
pub(crate) fn with_scope<T>(scope: &mut Scope, poll: impl FnOnce() -> T) -> T {
    /// Restores the outer scope even when `poll` unwinds.
    struct Restore<'a> {
        outer: Scope,
        inner: &'a mut Scope,
    }
    impl Drop for Restore<'_> {
        #[inline]
        fn drop(&mut self) {
            *self.inner = SCOPE.replace(self.outer);
        }
    }
    let outer = SCOPE.replace(Scope(scope.0 | Scope::IN_FORCE));
    let _restore = Restore { outer, inner: scope };
    poll()
}

/// Notes why an operation below the transaction failed. The last note counts, but a bad status
/// never hides an error of the network.
pub(crate) fn note(class: FailureClass) {
    if class != FailureClass::Status || noted().class().is_none() {
        renote(Note::new(class, 0, 0));
    }
}

/// Notes that an answer had a status of 400 or above, and from whom. It never hides an error of the
/// network.
pub(crate) fn note_status(status: u16, peer: SocketAddr) {
    if matches!(noted().class(), None | Some(FailureClass::Status)) {
        renote(Note::new(FailureClass::Status, status, number_of(peer)));
    }
}

/// Adds to what is noted whom it was about.
#[cold]
pub(crate) fn note_peer(peer: SocketAddr) {
    let Note(noted) = noted();
    renote(Note((noted & !0xFF00) | (u32::from(number_of(peer)) << 8)));
}

/// What is noted now, for [`renote`].
pub(crate) fn noted() -> Note {
    SCOPE.get().note()
}

/// Goes back to what was noted before an attempt that another has made good.
pub(crate) fn renote(noted: Note) {
    SCOPE.set(SCOPE.get().with(noted));
}

/// `true` if a transaction is being polled.
#[inline]
pub(crate) fn in_transaction() -> bool {
    SCOPE.get().0 & Scope::IN_FORCE != 0
}

/// `true` if the deadline of the transaction that is being polled has passed.
pub(crate) fn expired() -> bool {
    SCOPE.get().is_expired()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_all_agree() {
        for (index, class) in FailureClass::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), index);
        }
    }

    #[test]
    fn a_scope_keeps_its_notes_apart_from_the_outer_one() {
        let (mut outer, mut inner) = (Scope::default(), Scope::default());
        inner.expire();
        assert!(!in_transaction());
        with_scope(&mut outer, || {
            assert!(in_transaction());
            note(FailureClass::Reset);
            with_scope(&mut inner, || {
                assert!(expired());
                note(FailureClass::Timeout);
                note(FailureClass::Status);
            });
            assert!(!expired());
        });
        assert!(!in_transaction());
        assert_eq!(outer.noted(), Some(FailureClass::Reset));
        assert_eq!(inner.noted(), Some(FailureClass::Timeout));
        assert!(inner.is_expired() && !outer.is_expired());
    }

    #[test]
    fn a_note_has_the_status_and_the_peer_of_the_last_failure() {
        let peers = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let mut scope = Scope::default();
        scope.expire();
        with_scope(&mut scope, || {
            note_status(404, peers[0]);
            note_status(503, peers[1]);
        });
        assert!(scope.is_expired());
        assert_eq!(scope.noted(), Some(FailureClass::Status));
        assert_eq!((scope.note().status(), peer(scope.note().peer())), (503, Some(peers[1])));
        with_scope(&mut scope, || {
            note(FailureClass::Reset);
            note_peer(peers[0]);
            note_status(500, peers[1]);
        });
        assert_eq!(scope.noted(), Some(FailureClass::Reset));
        assert_eq!((scope.note().status(), peer(scope.note().peer())), (0, Some(peers[0])));
    }

    #[test]
    fn peers_beyond_the_last_number_have_no_address() {
        for port in 1..1_000 {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let expected = (port <= 255).then_some(address);
            assert_eq!(peer(number_of(address)), expected);
            assert_eq!(peer(number_of(address)), expected);
        }
        assert_eq!(peer(0), None);
    }

    #[test]
    fn the_operating_systems_errors_have_the_class_of_whose_fault_they_are() {
        for (errno, class) in [
            (libc::ECONNREFUSED, FailureClass::Refused),
            (libc::ECONNRESET, FailureClass::Reset),
            (libc::EPIPE, FailureClass::Reset),
            (libc::EMFILE, FailureClass::Descriptors),
            (libc::EADDRNOTAVAIL, FailureClass::Ports),
            (libc::EHOSTUNREACH, FailureClass::Unreachable),
        ] {
            assert_eq!(FailureClass::of_io(&io::Error::from_raw_os_error(errno)), class);
        }
    }
}
