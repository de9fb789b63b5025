//! How the network tells the run of a TLS handshake.
//!
//! The two do not know of each other: whoever runs on a thread installs a function there, and a
//! stream calls it when it has shaken hands. Nothing is asked of who does not.

use std::cell::Cell;
use std::time::Duration;

/// A handshake that has succeeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handshake {
    /// From the first byte made for it to the last one understood; the TCP connection stood before.
    pub(crate) time: Duration,
    /// It went on with an earlier session, without certificates.
    pub(crate) resumed: bool,
}

thread_local! {
    static OBSERVER: Cell<Option<fn(Handshake)>> = const { Cell::new(None) };
}

/// Has `observer` told of the handshakes of this thread, in the polls that they end in.
pub(crate) fn observe(observer: fn(Handshake)) {
    OBSERVER.set(Some(observer));
}

/// Tells of a handshake.
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "nothing shakes hands without TLS"))]
pub(crate) fn note(handshake: Handshake) {
    if let Some(observer) = OBSERVER.get() {
        observer(handshake);
    }
}
