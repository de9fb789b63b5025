//! The least that HTTP on io_uring can cost: the loops that one writes by hand when nothing else
//! matters, for benches to compare with.
//!
//! They have the ring's set-up flags, registered files, provided buffers and multishot receives,
//! and nothing else: no executor, no tasks, no parser, no clock for each request. [`ask`] takes a
//! response for complete when as many bytes have come as the first one had, [`answer`] a request
//! when what came ends with an empty line. Both hold for benches alone: the target always answers
//! alike, and requests have no bodies and come one at a time. Sends post a completion only when
//! they fail.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};

use super::buffers::{BUFFER_SIZE, BufferPool, GROUP};

/// Room for two entries of each connection in one turn: its send, and its receive armed anew.
const ENTRIES: u32 = 1 << 14;

/// Most connections of one loop.
pub const MAX_CONNECTIONS: usize = ENTRIES as usize / 2;

/// Longest wait for a completion, so that the end is noticed when nothing comes.
const LONGEST_WAIT_MS: u32 = 10;

/// In `user_data`: the completion of a send, which comes only when it failed.
const SEND: u64 = 1 << 32;

/// In `user_data`: the completion of the listener's accept.
const ACCEPT: u64 = 1 << 33;

/// What [`ask`] asks, and of whom.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The target.
    pub address: SocketAddr,
    /// Connections, each with one request in flight: at most [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// One whole request.
    pub request: &'a [u8],
    /// Length of each whole response, in bytes.
    pub response_len: usize,
}

/// Asks for so long, on the calling thread. Answers how many whole responses have come.
///
/// # Errors
/// What the kernel answers; [`InvalidInput`](io::ErrorKind::InvalidInput) for too many connections
/// or an empty response, [`InvalidData`](io::ErrorKind::InvalidData) when a response has another
/// length than was said, and [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when the target closes
/// a connection.
pub fn ask(exchange: &Exchange<'_>, duration: Duration) -> io::Result<u64> {
    if exchange.connections > MAX_CONNECTIONS || exchange.response_len == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let streams = (0..exchange.connections)
        .map(|_| {
            let stream = TcpStream::connect(exchange.address)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let files: Vec<_> = streams.iter().map(AsRawFd::as_raw_fd).collect();
    let mut bare = Bare::new(exchange.request)?;
    bare.io.submitter().register_files(&files)?;
    for connection in 0..files.len() as u32 {
        bare.receive(connection);
        bare.send(connection);
    }
    // Bytes of the current response that have come, by connection.
    let mut received = vec![0; files.len()];
    let mut completions = Vec::with_capacity(ENTRIES as usize);
    let mut responses = 0;
    let end = Instant::now() + duration;
    while Instant::now() < end {
        bare.turn(&mut completions)?;
        for completion in &completions {
            let (connection, result) = (completion.user_data() as u32, completion.result());
            if completion.user_data() & SEND != 0 {
                // It failed, or fell short, which WAITALL makes a failure.
                return Err(error(result, libc::EPIPE));
            }
            if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                bare.pool.recycle(buffer);
            }
            if !cqueue::more(completion.flags()) {
                bare.rearm(connection, result)?;
            }
            if result <= 0 {
                continue;
            }
            let received = &mut received[connection as usize];
            *received += result as usize;
            if *received > exchange.response_len {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if *received == exchange.response_len {
                *received = 0;
                responses += 1;
                bare.send(connection);
            }
        }
    }
    Ok(responses)
}

/// Answers each request with `response`, on the calling thread, until `stop` is set. Counts the
/// answers in `served`, whose only writer it is.
///
/// # Errors
/// What the kernel answers, except of connections that end.
pub fn answer(
    listener: &TcpListener,
    response: &[u8],
    served: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut bare = Bare::new(response)?;
    bare.io.submitter().register_files_sparse(MAX_CONNECTIONS as u32)?;
    bare.accept(listener);
    // Kept open by their slots; the kernel uses them by their registered index.
    let mut streams: Vec<Option<OwnedFd>> = (0..MAX_CONNECTIONS).map(|_| None).collect();
    let mut free: Vec<_> = (0..MAX_CONNECTIONS as u32).rev().collect();
    let mut completions = Vec::with_capacity(ENTRIES as usize);
    while !stop.load(Ordering::Relaxed) {
        bare.turn(&mut completions)?;
        let mut answered = 0;
        for completion in &completions {
            let (connection, result) = (completion.user_data() as u32, completion.result());
            if completion.user_data() & ACCEPT != 0 {
                if !cqueue::more(completion.flags()) {
                    bare.accept(listener);
                }
                if result < 0 {
                    return Err(error(result, libc::EIO));
                }
                // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
                let stream = TcpStream::from(unsafe { OwnedFd::from_raw_fd(result) });
                stream.set_nodelay(true)?;
                // With no slot left it is closed here, which its client notices.
                let Some(connection) = free.pop() else { continue };
                bare.io.submitter().register_files_update(connection, &[stream.as_raw_fd()])?;
                streams[connection as usize] = Some(stream.into());
                bare.receive(connection);
                continue;
            }
            if completion.user_data() & SEND != 0 {
                // The client has gone, which its receive tells as well.
                continue;
            }
            if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                if bare.ends_with_empty_line(buffer, result) {
                    bare.send(connection);
                    answered += 1;
                }
                bare.pool.recycle(buffer);
            }
            if !cqueue::more(completion.flags()) && bare.rearm(connection, result).is_err() {
                // Closed, or reset: an end of this connection alone.
                bare.io.submitter().register_files_update(connection, &[-1])?;
                streams[connection as usize] = None;
                free.push(connection);
            }
        }
        served.store(served.load(Ordering::Relaxed) + answered, Ordering::Relaxed);
    }
    Ok(())
}

/// The result of an operation that failed, or `short` where it only did too little.
fn error(result: i32, short: i32) -> io::Error {
    io::Error::from_raw_os_error(if result < 0 { -result } else { short })
}

/// A ring, its buffers, and the only bytes that are ever sent.
struct Bare<'a> {
    /// First, so that it is closed before the memory that it was told of goes.
    io: IoUring,
    pool: BufferPool,
    message: &'a [u8],
}

impl<'a> Bare<'a> {
    fn new(message: &'a [u8]) -> io::Result<Self> {
        let io = super::build(ENTRIES, 4 * ENTRIES)?;
        let pool = BufferPool::register(&io)?;
        Ok(Self { io, pool, message })
    }

    /// Hands over what is queued and waits until something has completed, for a moment at most.
    #[inline]
    fn turn(&mut self, completions: &mut Vec<cqueue::Entry>) -> io::Result<()> {
        let limit = Timespec::new().nsec(LONGEST_WAIT_MS * 1_000_000);
        match self.io.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit)) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => return Err(error),
            },
        }
        // Copied, 16 bytes each, since handling them queues entries of the same ring.
        completions.clear();
        completions.extend(self.io.completion());
        Ok(())
    }

    /// A receive has ended with `result`: goes on, with more buffers where it ran out of them.
    #[cold]
    fn rearm(&mut self, connection: u32, result: i32) -> io::Result<()> {
        match result {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            result if result == -libc::ENOBUFS => {
                self.pool.grow();
            }
            failed if failed < 0 => return Err(error(failed, 0)),
            _ => {}
        }
        self.receive(connection);
        Ok(())
    }

    fn receive(&mut self, connection: u32) {
        let entry = opcode::RecvMulti::new(Fixed(connection), GROUP)
            .build()
            .user_data(u64::from(connection));
        // SAFETY: a receive with buffer selection writes to the pool alone, which outlives the
        // ring: it is the later of the two fields, and `drop` has waited for what was in flight.
        unsafe { super::push(&mut self.io, &entry) };
    }

    fn send(&mut self, connection: u32) {
        let message = self.message;
        let entry = opcode::Send::new(Fixed(connection), message.as_ptr(), message.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(SEND | u64::from(connection));
        // SAFETY: the message is borrowed for longer than this lives, and `drop` waits for the
        // end of what was in flight.
        unsafe { super::push(&mut self.io, &entry) };
    }

    fn accept(&mut self, listener: &TcpListener) {
        let entry = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(ACCEPT);
        // SAFETY: a multishot accept without an address points to no memory of ours.
        unsafe { super::push(&mut self.io, &entry) };
    }

    /// `true` if the `len` bytes that a completion says are in a buffer end a head.
    fn ends_with_empty_line(&self, buffer: u16, len: i32) -> bool {
        let len = usize::try_from(len).unwrap_or(0).min(BUFFER_SIZE);
        // SAFETY: the kernel wrote `len` bytes to this buffer before it posted the completion
        // that named it, and writes to it no more until it is given back, after this call. The
        // pool has a buffer for each number that it has lent, of `BUFFER_SIZE` bytes.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.pool.base().add(buffer as usize * BUFFER_SIZE), len)
        };
        bytes.ends_with(b"\r\n\r\n")
    }
}

impl Drop for Bare<'_> {
    fn drop(&mut self) {
        // Closing the ring alone would end what is in flight later, from a kernel thread, when
        // the buffers are gone. What is queued and not handed over yet is never looked at.
        let _ = self.io.submitter().register_sync_cancel(None, CancelBuilder::any());
    }
}
