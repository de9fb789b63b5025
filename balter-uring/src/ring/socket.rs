//! What the ring knows of one socket, and the handle that the `net` room holds.

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use socket2::SockAddr;

use super::Ring;
use super::buffers::BUFFER_SIZE;
use super::token::{Kind, Token};
use crate::waker::remember;

/// Chunks that a socket may hold unread before its reception is stopped (1 MiB). A reader that
/// stalls then fills its own window and the peer's, not the pool that all sockets share.
pub(super) const INBOX_LIMIT: usize = 64;

/// Bytes to send. The ring keeps them until the kernel is done with them.
#[derive(Debug)]
pub(crate) enum SendBuf {
    /// Encoded once, sent often.
    Shared(Rc<[u8]>),
    /// Handed back by [`Socket::reclaim`] once sent, so that its allocation serves again.
    Owned(Vec<u8>),
}

impl SendBuf {
    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A filled buffer that waits to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) buffer: u16,
    /// Where the bytes begin in the buffer.
    pub(super) start: u32,
    pub(super) len: u32,
    /// When the kernel received them, in nanoseconds since the epoch; 0 where it was not asked.
    pub(super) received_ns: u64,
}

/// Where the multishot receive of a socket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recv {
    Idle,
    Armed,
    /// The pool ran dry; armed again when buffers come back.
    Starved,
    /// Cancelled because the inbox is full; its last completion is still to come.
    Stopping,
    /// The peer closed its side.
    Eof,
    Failed(i32),
}

/// One slot of the registered-files table.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) generation: u32,
    /// Operations whose last completion has not come yet. The slot's file is closed only at zero,
    /// and what they point to is kept until then.
    pub(super) outstanding: u32,
    pub(super) in_use: bool,
    /// What it receives is stamped with the time.
    pub(super) stamped: bool,
    /// The handle is gone; the slot waits for `outstanding` to fall.
    pub(super) closing: bool,
    pub(super) recv: Recv,
    pub(super) inbox: VecDeque<Filled>,
    pub(super) reader: Option<Waker>,
    /// Being sent: the kernel may read it.
    pub(super) sending: Option<SendBuf>,
    /// Sent, for `reclaim`.
    pub(super) spare: Option<Vec<u8>>,
    pub(super) sent: Option<Result<(), i32>>,
    pub(super) writer: Option<Waker>,
    /// The kernel may read it until the connect has completed.
    pub(super) address: Option<Box<SockAddr>>,
    pub(super) connected: Option<i32>,
    /// Connections accepted, or the error that ended accepting.
    pub(super) accepted: VecDeque<Result<OwnedFd, i32>>,
    pub(super) accepting: bool,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            generation: 0,
            outstanding: 0,
            in_use: false,
            stamped: false,
            closing: false,
            recv: Recv::Idle,
            inbox: VecDeque::new(),
            reader: None,
            sending: None,
            spare: None,
            sent: None,
            writer: None,
            address: None,
            connected: None,
            accepted: VecDeque::new(),
            accepting: false,
        }
    }

    /// Ready for the next socket. Allocations stay.
    pub(super) fn reset(&mut self) {
        let inbox = std::mem::take(&mut self.inbox);
        debug_assert!(inbox.is_empty(), "buffers are recycled before a slot is freed");
        let spare = self.spare.take();
        let generation = (self.generation + 1) & super::token::GENERATION_MASK;
        *self = Self { generation, inbox, spare, ..Self::new() };
    }

    /// What a receive of nothing means. The system tells of a reset once: a send that was told
    /// leaves the receive with what looks like the peer's orderly end.
    pub(super) fn ended(&self) -> Recv {
        match self.sent {
            Some(Err(libc::ECONNRESET)) => Recv::Failed(libc::ECONNRESET),
            _ => Recv::Eof,
        }
    }

    pub(super) fn token(&self, kind: Kind, slot: u32) -> u64 {
        Token { kind, generation: self.generation, slot }.encode()
    }
}

/// A stream socket or a listener, owned. Dropping it cancels what is in flight and closes it.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(super) ring: Rc<Ring>,
    pub(super) slot: u32,
}

impl Socket {
    /// Starts to connect; `poll_connect` tells how it went.
    pub(crate) fn connect(&self, address: SockAddr) {
        self.ring.start_connect(self.slot, address);
    }

    /// Completes when the connection stands.
    pub(crate) fn poll_connect(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.ring.with_slot(self.slot, |slot| match slot.connected {
            Some(0) => Poll::Ready(Ok(())),
            Some(errno) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            None => {
                remember(&mut slot.writer, cx);
                Poll::Pending
            }
        })
    }

    /// Hands bytes to the kernel with the next turn of the ring, all or an error.
    ///
    /// # Panics
    /// While an earlier send is in flight: bytes of a stream have an order.
    pub(crate) fn send(&self, bytes: SendBuf) {
        self.ring.start_send(self.slot, bytes);
    }

    /// Completes when the last send is done; at once when there was none.
    pub(crate) fn poll_sent(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.ring.with_slot(self.slot, |slot| match (slot.sent, &slot.sending) {
            (_, Some(_)) => {
                remember(&mut slot.writer, cx);
                Poll::Pending
            }
            (None | Some(Ok(())), None) => Poll::Ready(Ok(())),
            (Some(Err(errno)), None) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
        })
    }

    /// `true` while the kernel still reads what was sent last.
    pub(crate) fn is_sending(&self) -> bool {
        self.ring.with_slot(self.slot, |slot| slot.sending.is_some())
    }

    /// An empty vector, with the allocation of what was sent before where there is one.
    pub(crate) fn reclaim(&self) -> Vec<u8> {
        let mut bytes =
            self.ring.with_slot(self.slot, |slot| slot.spare.take()).unwrap_or_default();
        bytes.clear();
        bytes
    }

    /// The next bytes received, or `None` after the peer's last.
    pub(crate) fn poll_recv(&self, cx: &Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        self.ring.poll_recv(self.slot, |place| remember(place, cx)).map(|result| match result {
            Ok(Some(filled)) => {
                self.ring.receipt_ns.set(filled.received_ns);
                Ok(Some(Chunk {
                    ring: Rc::clone(&self.ring),
                    buffer: filled.buffer,
                    start: filled.start,
                    end: filled.start + filled.len,
                }))
            }
            Ok(None) => Ok(None),
            Err(errno) => Err(io::Error::from_raw_os_error(errno)),
        })
    }

    /// `true` if bytes, the end or an error are there already: an idle connection in this state
    /// must not carry another request.
    pub(crate) fn has_news(&self) -> bool {
        self.ring.with_slot(self.slot, |slot| {
            !slot.inbox.is_empty() || matches!(slot.recv, Recv::Eof | Recv::Failed(_))
        })
    }

    /// Tells the peer that nothing more will be sent.
    pub(crate) fn finish(&self) {
        self.ring.shutdown(self.slot, libc::SHUT_WR);
    }

    /// The next connection of a listener.
    pub(crate) fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<OwnedFd>> {
        self.ring.poll_accept(self.slot, |place| remember(place, cx))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.ring.close(self.slot);
    }
}

/// Bytes that arrived, in the buffer that the kernel wrote them to. Dropping it gives the buffer
/// back, so hold it only while reading.
#[derive(Debug)]
pub(crate) struct Chunk {
    ring: Rc<Ring>,
    buffer: u16,
    start: u32,
    end: u32,
}

impl Chunk {
    /// Drops the first `count` bytes from view.
    pub(crate) fn advance(&mut self, count: usize) {
        assert!(count <= self.len(), "advance past the end of a chunk");
        self.start += count as u32;
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        debug_assert!(self.start <= self.end && self.end as usize <= BUFFER_SIZE);
        let offset = self.buffer as usize * BUFFER_SIZE + self.start as usize;
        // SAFETY: the kernel wrote `end` bytes to this buffer before it posted the completion that
        // made this chunk, and writes to it no more until it is given back, which only `drop`
        // does. `ring` keeps the pool's memory allocated; the slice borrows `self`.
        unsafe {
            std::slice::from_raw_parts(
                self.ring.pool_base().add(offset),
                (self.end - self.start) as usize,
            )
        }
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        let offset = self.buffer as usize * BUFFER_SIZE + self.start as usize;
        // SAFETY: as for `deref`. A buffer that was filled belongs to one chunk, and `self` is
        // borrowed for as long as the slice lives, so that nothing else reads or writes these
        // bytes; the pool's memory was allocated to be written to.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.ring.pool_base().cast_mut().add(offset),
                (self.end - self.start) as usize,
            )
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.ring.recycle(self.buffer);
    }
}
