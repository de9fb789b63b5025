//! When the kernel received bytes, by its own clock: for a sample of the connections.
//!
//! A stamped socket receives by multishot `recvmsg` in place of `recv`. Each buffer then holds a
//! header, a control message with the time stamp, and the bytes.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use io_uring::types::RecvMsgOut;

/// One open connection in so many is stamped: enough for a distribution, and little of what a stamped
/// receive costs more.
pub(super) const EVERY: u32 = 16;

/// Space of a control message with three `timespec`s, of which the first is the one by software.
const CONTROL_LEN: usize = TIMES_START + 3 * 16;

/// A control message begins with its length (8 bytes), its level and its type (4 each).
const TIMES_START: usize = 16;

/// Before the bytes in a buffer: `struct io_uring_recvmsg_out`, no name, and the control message.
const HEADER_LEN: usize = 16 + CONTROL_LEN;

/// `SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE` of linux/net_tstamp.h: stamp what is
/// received, and tell of it.
const SOFTWARE: libc::c_int = 1 << 3 | 1 << 4;

/// A longer delay is a clock that was set meanwhile.
const LONGEST: Duration = Duration::from_secs(10);

/// Has the kernel stamp what this socket receives. `false` where it does not.
pub(super) fn enable(fd: BorrowedFd<'_>) -> bool {
    // Elsewhere a control message is laid out otherwise.
    if !cfg!(target_pointer_width = "64") {
        return false;
    }
    let option = SOFTWARE;
    // SAFETY: the descriptor is open, and the option is an integer that the kernel reads while the
    // call lasts.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPING,
            (&raw const option).cast(),
            size_of_val(&option) as libc::socklen_t,
        )
    };
    result == 0
}

/// What a stamped receive asks for: no name, and room for the time stamp. The kernel reads it when
/// the receive is armed.
pub(super) fn header() -> Box<libc::msghdr> {
    // SAFETY: integers and pointers, for which zero is a value: none, and null.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_controllen = CONTROL_LEN as _;
    Box::new(header)
}

/// Where the bytes of a stamped receive are in their buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) start: u32,
    pub(super) len: u32,
    /// Since the epoch, when the last of them came; 0 if the kernel does not say.
    pub(super) at_ns: u64,
}

impl Received {
    /// Reads a buffer as far as it was filled. `None` if it does not hold a whole header.
    pub(super) fn parse(buffer: &[u8], header: &libc::msghdr) -> Option<Self> {
        let message = RecvMsgOut::parse(buffer, header).ok()?;
        let len = message.payload_data().len() as u32;
        let at_ns = stamp_ns(message.control_data()).unwrap_or(0);
        Some(Self { start: HEADER_LEN as u32, len, at_ns })
    }
}

/// The time in the first control message, if it is one of stamps.
fn stamp_ns(control: &[u8]) -> Option<u64> {
    let level = i32::from_ne_bytes(*control.get(8..)?.first_chunk()?);
    let kind = i32::from_ne_bytes(*control.get(12..)?.first_chunk()?);
    if (level, kind) != (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING) {
        return None;
    }
    let seconds = i64::from_ne_bytes(*control.get(TIMES_START..)?.first_chunk()?);
    let nanoseconds = i64::from_ne_bytes(*control.get(TIMES_START + 8..)?.first_chunk()?);
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add_signed(nanoseconds)
}

/// How long ago that was, by the clock that the kernel stamps with. `None` if there is no telling,
/// since that clock has been set.
pub(super) fn since_ns(at_ns: u64) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let delay = now.checked_sub(Duration::from_nanos(at_ns))?;
    (delay <= LONGEST).then_some(delay.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer as the kernel fills it.
    fn buffer(
        kind: i32,
        control_len: u32,
        seconds: i64,
        nanoseconds: i64,
        bytes: &[u8],
    ) -> Vec<u8> {
        let mut buffer = Vec::new();
        for part in [0, control_len, bytes.len() as u32, 0] {
            buffer.extend_from_slice(&part.to_ne_bytes());
        }
        buffer.extend_from_slice(&64_u64.to_ne_bytes());
        buffer.extend_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        buffer.extend_from_slice(&kind.to_ne_bytes());
        for part in [seconds, nanoseconds, 0, 0, 0, 0] {
            buffer.extend_from_slice(&part.to_ne_bytes());
        }
        buffer.extend_from_slice(bytes);
        buffer
    }

    #[test]
    fn the_stamp_and_the_bytes_are_found() {
        let header = header();
        let whole = buffer(libc::SCM_TIMESTAMPING, 64, 7, 5, b"bytes");
        let received = Received::parse(&whole, &header).expect("whole");
        assert_eq!(received, Received { start: 80, len: 5, at_ns: 7_000_000_005 });
        assert_eq!(whole[80..], *b"bytes");
        // The end of the stream has no bytes.
        let end = buffer(libc::SCM_TIMESTAMPING, 0, 7, 5, b"");
        let received = Received::parse(&end, &header).expect("whole");
        assert_eq!(received, Received { start: 80, len: 0, at_ns: 0 });
    }

    #[test]
    fn what_is_no_stamp_is_none() {
        let header = header();
        let stamp = |buffer: &[u8]| Received::parse(buffer, &header).expect("whole").at_ns;
        assert_eq!(stamp(&buffer(libc::SCM_RIGHTS, 64, 7, 5, b"bytes")), 0);
        assert_eq!(stamp(&buffer(libc::SCM_TIMESTAMPING, 20, 7, 5, b"bytes")), 0);
        assert_eq!(stamp(&buffer(libc::SCM_TIMESTAMPING, 64, -7, 5, b"bytes")), 0);
        assert_eq!(stamp(&buffer(libc::SCM_TIMESTAMPING, 64, i64::MAX, 5, b"bytes")), 0);
        assert_eq!(
            Received::parse(&buffer(libc::SCM_TIMESTAMPING, 64, 7, 5, b"")[..79], &header),
            None
        );
    }

    #[test]
    fn a_clock_that_was_set_tells_nothing() {
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
        assert!(since_ns(now - 1_000).is_some_and(|delay| delay >= 1_000));
        assert_eq!(since_ns(now + 3_600_000_000_000), None);
        assert_eq!(since_ns(now - 3_600_000_000_000), None);
    }
}
