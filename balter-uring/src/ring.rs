//! The shard's private io_uring: submissions in batches, multishot receive into provided buffers,
//! registered files.
//!
//! One ring belongs to one thread (`SINGLE_ISSUER | DEFER_TASKRUN`): completions are produced only
//! when that thread asks for them, inside [`Ring::turn`], and never interrupt a running task.
//! Everything that a socket does between two turns is queued and goes to the kernel in the one
//! `io_uring_enter` of the next.
//!
//! This is the only module with `unsafe`. Two promises carry all of it:
//! * memory that the kernel may read (bytes being sent, an address being connected to) is owned by
//!   the socket's slot from submission until the operation's last completion has been seen;
//! * memory that the kernel may write (the provided buffers) is owned by the pool, which lives as
//!   long as the ring, and is read only between the completion that filled it and its return.

mod buffers;
pub mod floor;
mod socket;
mod stamp;
#[cfg(test)]
mod tests;
mod token;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use io_uring::types::{CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::EventfdFlags;
use socket2::SockAddr;

use buffers::{BufferPool, GROUP};
use socket::{Filled, INBOX_LIMIT, Recv, Slot};
use stamp::Received;
use token::{Kind, Token};

pub(crate) use socket::{Chunk, SendBuf, Socket};

/// Submissions that fit before they must be handed over mid-turn.
const SQ_ENTRIES: u32 = 4096;

/// Completions that fit between two turns: a burst of one for each of 16 thousand connections.
/// More are kept by the kernel (`NODROP`), but end their multishot receives.
const CQ_ENTRIES: u32 = 4 * SQ_ENTRIES;

/// Registered files, unless the process may have fewer descriptors.
const MAX_SOCKETS: u32 = 1 << 17;

/// Raw value of `IORING_ENTER_GETEVENTS`, which this crate's user must pass to have deferred task
/// work run without waiting.
const ENTER_GETEVENTS: u32 = 1;

/// Completions that a call handles where nobody waits for more (`IO_LOCAL_TW_DEFAULT_MAX`).
const PASS: usize = 20;

/// Calls of one turn for what has come, beside the one that submits: for 640 completions, which
/// keep the tasks that they wake busy for a millisecond or two.
const MAX_PASSES: usize = 32;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Ring>>> = const { RefCell::new(None) };
}

/// The ring of the shard that this thread is, if it is one.
pub(crate) fn current() -> Option<Rc<Ring>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// Makes `ring` what [`current`] answers on this thread.
pub(crate) fn set_current(ring: Option<Rc<Ring>>) {
    CURRENT.with(|current| *current.borrow_mut() = ring);
}

/// How long a turn may wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Take what is there.
    No,
    /// Until one completion is there, or so many nanoseconds have passed.
    AtMost(u64),
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) submitted: usize,
    pub(crate) completed: usize,
    /// More had come than one turn takes: what is left may have been there before this turn.
    pub(crate) more: bool,
}

/// See the module's documentation.
pub(crate) struct Ring {
    inner: RefCell<Inner>,
    pool_base: *const u8,
    /// Sockets that wait for a buffer; looked at when one comes back.
    starving: Cell<bool>,
    /// Wakers of a turn are called after `inner` is free again: waking may run a task's drop,
    /// which may close a socket. Kept here for its allocation.
    woken: RefCell<Vec<Side>>,
    idle_hooks: RefCell<Vec<fn()>>,
    /// Stamped sockets that are open.
    stamped: Cell<u32>,
    /// When the kernel received what was read last, in nanoseconds since the epoch; 0 if it does not
    /// say, or that has been forgotten.
    receipt_ns: Cell<u64>,
}

/// Ends a wait of the ring from any thread.
#[derive(Clone, Debug)]
pub(crate) struct RingWaker {
    eventfd: Arc<OwnedFd>,
}

impl RingWaker {
    /// Has the ring's turn, this or the next, return.
    pub(crate) fn wake(&self) {
        // Fails only when the counter is full, and then it is far from zero.
        let _ = rustix::io::write(&*self.eventfd, &1_u64.to_ne_bytes());
    }
}

struct Inner {
    /// First, so that it is dropped before the memory that it points to.
    io: IoUring,
    /// Polled by the ring, written by other threads' wakers.
    eventfd: Arc<OwnedFd>,
    watching: bool,
    pool: BufferPool,
    /// What the receives of stamped sockets ask for: the same for all of them.
    header: Box<libc::msghdr>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    starved: VecDeque<u32>,
    max_slots: u32,
}

#[derive(Clone, Copy)]
enum Side {
    Reader(u32),
    Writer(u32),
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

/// Builds an `IoUring` with the features that the ring stands on; also what preflight tries.
///
/// # Errors
/// The error of `io_uring_setup`: `EPERM` or `ENOSYS` where io_uring is blocked, `EINVAL` before
/// Linux 6.1, `ENOMEM` and `EMFILE` at the limits.
pub(crate) fn build(sq_entries: u32, cq_entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(cq_entries)
        .build(sq_entries)
}

impl Ring {
    /// A ring for the calling thread. `max_sockets` bounds the registered files.
    ///
    /// # Errors
    /// As [`build`], or when files or buffers cannot be registered.
    pub(crate) fn new(max_sockets: u32) -> io::Result<Rc<Self>> {
        let io = build(SQ_ENTRIES, CQ_ENTRIES)?;
        let max_slots = max_sockets.clamp(1, MAX_SOCKETS);
        io.submitter().register_files_sparse(max_slots)?;
        let pool = BufferPool::register(&io)?;
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let pool_base = pool.base();
        Ok(Rc::new(Self {
            inner: RefCell::new(Inner {
                io,
                eventfd: Arc::new(eventfd),
                watching: false,
                pool,
                header: stamp::header(),
                slots: Vec::new(),
                free: Vec::new(),
                starved: VecDeque::new(),
                max_slots,
            }),
            pool_base,
            starving: Cell::new(false),
            woken: RefCell::new(Vec::with_capacity(256)),
            idle_hooks: RefCell::new(Vec::new()),
            stamped: Cell::new(0),
            receipt_ns: Cell::new(0),
        }))
    }

    /// Takes a socket into the table. The descriptor itself is closed: from here on the kernel
    /// knows the socket by its slot, so that it costs the process none.
    ///
    /// # Errors
    /// `ENFILE` when the table is full.
    pub(crate) fn adopt(self: &Rc<Self>, fd: OwnedFd) -> io::Result<Socket> {
        let mut inner = self.inner.borrow_mut();
        let slot = match inner.free.pop() {
            Some(slot) => slot,
            None if (inner.slots.len() as u32) < inner.max_slots => {
                inner.slots.push(Slot::new());
                (inner.slots.len() - 1) as u32
            }
            None => return Err(io::Error::from_raw_os_error(libc::ENFILE)),
        };
        if let Err(error) = inner.io.submitter().register_files_update(slot, &[fd.as_raw_fd()]) {
            inner.free.push(slot);
            return Err(error);
        }
        inner.slots[slot as usize].in_use = true;
        drop(inner);
        Ok(Socket { ring: Rc::clone(self), slot })
    }

    /// As [`adopt`](Self::adopt), for a socket that is to be connected. The kernel is asked to say
    /// of some of these when it received what they read: of one in so many that are open, so that
    /// there is always one.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt).
    pub(crate) fn adopt_client(self: &Rc<Self>, fd: OwnedFd) -> io::Result<Socket> {
        let wanted =
            self.stamped.get().saturating_mul(stamp::EVERY) as usize <= self.open_sockets();
        let stamped = wanted && stamp::enable(fd.as_fd());
        let socket = self.adopt(fd)?;
        if stamped {
            self.stamped.set(self.stamped.get() + 1);
            self.with_slot(socket.slot, |slot| slot.stamped = true);
        }
        Ok(socket)
    }

    /// Forgets when what was read last came, so that it is not taken for the end of something else.
    #[inline]
    pub(crate) fn forget_receipt(&self) {
        self.receipt_ns.set(0);
    }

    /// How long before now the kernel received what was read last, since the last call of this and of
    /// [`forget_receipt`](Self::forget_receipt). `None` if nothing was, or it is not known.
    #[inline]
    pub(crate) fn take_receive_delay_ns(&self) -> Option<u64> {
        match self.receipt_ns.get() {
            0 => None,
            received_ns => {
                self.forget_receipt();
                stamp::since_ns(received_ns)
            }
        }
    }

    /// Hands over what is queued, takes what has completed, wakes whom it concerns.
    ///
    /// # Errors
    /// What `io_uring_enter` answers, except the usual ends of a wait.
    pub(crate) fn turn(&self, wait: Wait) -> io::Result<Turn> {
        let mut woken = self.woken.take();
        let turn = {
            let mut inner = self.inner.borrow_mut();
            inner.watch();
            let submitted = inner.enter(wait)?;
            let more = inner.take_more()?;
            let completed = inner.reap(&mut woken);
            if !inner.starved.is_empty() {
                inner.feed();
                self.starving.set(!inner.starved.is_empty());
            }
            Turn { submitted, completed, more }
        };
        for side in woken.drain(..) {
            self.wake(side);
        }
        self.woken.replace(woken);
        Ok(turn)
    }

    /// Lets other threads end a wait of this ring.
    pub(crate) fn waker(&self) -> RingWaker {
        RingWaker { eventfd: Arc::clone(&self.inner.borrow().eventfd) }
    }

    /// Sockets open now, with those that are being closed.
    pub(crate) fn open_sockets(&self) -> usize {
        let inner = self.inner.borrow();
        inner.slots.len() - inner.free.len()
    }

    fn wake(&self, side: Side) {
        let take = |inner: &mut Inner| match side {
            Side::Reader(slot) => inner.slots[slot as usize].reader.take(),
            Side::Writer(slot) => inner.slots[slot as usize].writer.take(),
        };
        // Woken by reference and put back: the next poll of the same task then finds its waker
        // here and need not clone it.
        let waker: Option<Waker> = take(&mut self.inner.borrow_mut());
        let Some(waker) = waker else { return };
        waker.wake_by_ref();
        let mut inner = self.inner.borrow_mut();
        let (index, place): (u32, fn(&mut Slot) -> &mut Option<Waker>) = match side {
            Side::Reader(slot) => (slot, |slot| &mut slot.reader),
            Side::Writer(slot) => (slot, |slot| &mut slot.writer),
        };
        let slot = &mut inner.slots[index as usize];
        if slot.in_use && !slot.closing && place(slot).is_none() {
            *place(slot) = Some(waker);
        } else {
            drop(inner);
            drop(waker);
        }
    }

    fn with_slot<T>(&self, slot: u32, read: impl FnOnce(&mut Slot) -> T) -> T {
        read(&mut self.inner.borrow_mut().slots[slot as usize])
    }

    fn start_connect(&self, slot: u32, address: SockAddr) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let state = &mut inner.slots[slot as usize];
        state.connected = None;
        let address = state.address.insert(Box::new(address));
        let entry = opcode::Connect::new(Fixed(slot), address.as_ptr().cast(), address.len())
            .build()
            .user_data(Token { kind: Kind::Connect, generation: state.generation, slot }.encode());
        state.outstanding += 1;
        // SAFETY: the address is boxed, and the slot keeps it until the connect has completed.
        unsafe { push(&mut inner.io, &entry) };
    }

    fn start_send(&self, slot: u32, bytes: SendBuf) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let state = &mut inner.slots[slot as usize];
        assert!(state.sending.is_none(), "one send at a time");
        // What has failed once stays failed, with its first error.
        state.sent = state.sent.filter(Result::is_err);
        let token = state.token(Kind::Send, slot);
        let bytes = state.sending.insert(bytes).as_slice();
        // WAITALL has the kernel send the rest of a short send by itself.
        let entry = opcode::Send::new(Fixed(slot), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(token);
        state.outstanding += 1;
        // SAFETY: the bytes are on the heap, owned by the slot's `sending`, which is neither
        // changed nor dropped until the send has completed.
        unsafe { push(&mut inner.io, &entry) };
    }

    /// `remember` is called, with the place of the reader's waker, when there is nothing yet.
    fn poll_recv(
        &self,
        slot: u32,
        remember: impl FnOnce(&mut Option<Waker>),
    ) -> Poll<Result<Option<Filled>, i32>> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let state = &mut inner.slots[slot as usize];
        if let Some(filled) = state.inbox.pop_front() {
            return Poll::Ready(Ok(Some(filled)));
        }
        match state.recv {
            Recv::Eof => return Poll::Ready(Ok(None)),
            Recv::Failed(errno) => return Poll::Ready(Err(errno)),
            Recv::Idle => inner.arm_recv(slot),
            Recv::Armed | Recv::Starved | Recv::Stopping => {}
        }
        remember(&mut inner.slots[slot as usize].reader);
        Poll::Pending
    }

    fn poll_accept(
        &self,
        slot: u32,
        remember: impl FnOnce(&mut Option<Waker>),
    ) -> Poll<io::Result<OwnedFd>> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let state = &mut inner.slots[slot as usize];
        if let Some(accepted) = state.accepted.pop_front() {
            return Poll::Ready(accepted.map_err(io::Error::from_raw_os_error));
        }
        remember(&mut state.reader);
        if !state.accepting {
            state.accepting = true;
            state.outstanding += 1;
            let entry = opcode::AcceptMulti::new(Fixed(slot))
                .flags(libc::SOCK_CLOEXEC)
                .build()
                .user_data(state.token(Kind::Accept, slot));
            // SAFETY: a multishot accept without an address points to no memory of ours.
            unsafe { push(&mut inner.io, &entry) };
        }
        Poll::Pending
    }

    fn close(&self, slot: u32) {
        let mut borrowed = self.inner.borrow_mut();
        let inner = &mut *borrowed;
        let state = &mut inner.slots[slot as usize];
        state.closing = true;
        if state.stamped {
            self.stamped.set(self.stamped.get() - 1);
        }
        let (reader, writer) = (state.reader.take(), state.writer.take());
        while let Some(filled) = state.inbox.pop_front() {
            inner.pool.recycle(filled.buffer);
        }
        if state.outstanding == 0 {
            inner.close_file(slot);
        } else {
            let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fixed(slot)).all())
                .build()
                .user_data(state.token(Kind::Cancel, slot));
            state.outstanding += 1;
            // SAFETY: a cancellation points to no memory of ours.
            unsafe { push(&mut inner.io, &entry) };
        }
        // Only now that the slots are free again: a waker's drop may drop a task, and with it a
        // socket.
        drop(borrowed);
        drop((reader, writer));
    }

    fn shutdown(&self, slot: u32, how: libc::c_int) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let state = &mut inner.slots[slot as usize];
        let entry = opcode::Shutdown::new(Fixed(slot), how)
            .build()
            .user_data(state.token(Kind::Cancel, slot));
        state.outstanding += 1;
        // SAFETY: shutting down points to no memory of ours.
        unsafe { push(&mut inner.io, &entry) };
    }

    /// Calls `hook` whenever the shard goes idle, for rooms that keep things open between uses.
    /// Asking for the same again changes nothing.
    pub(crate) fn when_idle(&self, hook: fn()) {
        let mut hooks = self.idle_hooks.borrow_mut();
        if !hooks.iter().any(|&known| std::ptr::fn_addr_eq(known, hook)) {
            hooks.push(hook);
        }
    }

    /// The shard has gone idle.
    pub(crate) fn idle(&self) {
        for hook in self.idle_hooks.borrow().iter() {
            hook();
        }
    }

    fn pool_base(&self) -> *const u8 {
        self.pool_base
    }

    fn recycle(&self, buffer: u16) {
        let mut inner = self.inner.borrow_mut();
        inner.pool.recycle(buffer);
        if self.starving.get() {
            inner.feed();
            self.starving.set(!inner.starved.is_empty());
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing the ring's descriptor cancels what is in flight, but later, from a kernel
        // thread. Waiting for it here is what lets the fields' memory go.
        let inner = self.inner.get_mut();
        let _ = inner.io.submitter().register_sync_cancel(None, CancelBuilder::any());
    }
}

/// The result of `io_uring_enter`, of which the usual ends of a wait are no failures.
fn unless_usual(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(submitted) => Ok(submitted),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(0),
            _ => Err(error),
        },
    }
}

/// Queues an entry, handing over what is queued first where the queue is full.
///
/// # Safety
/// What `entry` points to must stay valid and in place until its last completion.
unsafe fn push(io: &mut IoUring, entry: &squeue::Entry) {
    loop {
        // SAFETY: the caller's promise.
        if unsafe { io.submission().push(entry) }.is_ok() {
            return;
        }
        // EBUSY says that completions must be taken first, but they cannot be taken here: their
        // wakers may want the ring. The kernel keeps what overflows, so this makes progress.
        if let Err(error) = io.submit() {
            assert!(
                matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)),
                "io_uring_enter: {error}"
            );
            std::thread::yield_now();
        }
    }
}

impl Inner {
    /// Keeps a poll of the eventfd in flight.
    fn watch(&mut self) {
        if self.watching {
            return;
        }
        self.watching = true;
        let entry = opcode::PollAdd::new(Fd(self.eventfd.as_raw_fd()), libc::POLLIN as u32)
            .build()
            .user_data(Token { kind: Kind::Wake, generation: 0, slot: 0 }.encode());
        // SAFETY: a poll points to no memory of ours.
        unsafe { push(&mut self.io, &entry) };
    }

    fn enter(&mut self, wait: Wait) -> io::Result<usize> {
        let result = match wait {
            Wait::No => {
                let mut queue = self.io.submission();
                queue.sync();
                let queued = queue.len() as u32;
                let work = queue.taskrun() || queue.cq_overflow();
                drop(queue);
                if queued == 0 && !work {
                    return Ok(0);
                }
                // SAFETY: no argument is passed, and every queued entry keeps the promise that it
                // was pushed with.
                unsafe { self.io.submitter().enter::<()>(queued, 0, ENTER_GETEVENTS, None) }
            }
            Wait::AtMost(nanoseconds) => {
                let limit = Timespec::new()
                    .sec(nanoseconds / 1_000_000_000)
                    .nsec((nanoseconds % 1_000_000_000) as u32);
                self.io.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        unless_usual(result)
    }

    /// Since Linux 6.13 one call handles no more than [`PASS`] of what has come. Has the kernel go on
    /// until all is handled that had come by then. `true` if it is not all after [`MAX_PASSES`].
    fn take_more(&mut self) -> io::Result<bool> {
        for _ in 0..MAX_PASSES {
            if !self.io.submission().taskrun() {
                return Ok(false);
            }
            let before = self.io.completion().len();
            // SAFETY: no argument is passed, and no entry is handed over.
            let result = unsafe { self.io.submitter().enter::<()>(0, 0, ENTER_GETEVENTS, None) };
            unless_usual(result)?;
            if self.io.completion().len() < before + PASS {
                // What has come meanwhile is for the next turn.
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn reap(&mut self, woken: &mut Vec<Side>) -> usize {
        let mut count = 0;
        // The queue is read anew for each completion, as handling one may queue entries.
        loop {
            let next = self.io.completion().next();
            let Some(completion) = next else { return count };
            count += 1;
            self.complete(&completion, woken);
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry, woken: &mut Vec<Side>) {
        let Some(token) = Token::decode(completion.user_data()) else { return };
        if token.kind == Kind::Wake {
            self.watching = false;
            let _ = rustix::io::read(&*self.eventfd, &mut [0; 8]);
            return;
        }
        let index = token.slot as usize;
        let live = self.slots.get(index).is_some_and(|slot| slot.generation == token.generation);
        debug_assert!(live, "a slot is freed only after its last completion");
        if !live {
            return;
        }
        let last = !cqueue::more(completion.flags());
        let result = completion.result();
        let slot = &mut self.slots[index];
        if last {
            slot.outstanding -= 1;
        }
        match token.kind {
            Kind::Recv => self.received(token.slot, completion, last, woken),
            Kind::Send => {
                let expected = slot.sending.as_ref().map_or(0, |bytes| bytes.as_slice().len());
                slot.sent.get_or_insert(match result {
                    error if error < 0 => Err(-error),
                    // Only an error ends such a send early, and its number is lost.
                    sent if (sent as usize) < expected => Err(libc::ECONNRESET),
                    _ => Ok(()),
                });
                if let Some(SendBuf::Owned(bytes)) = slot.sending.take() {
                    slot.spare = Some(bytes);
                }
                if slot.writer.is_some() {
                    woken.push(Side::Writer(token.slot));
                }
            }
            Kind::Connect => {
                slot.connected = Some(-result);
                slot.address = None;
                woken.push(Side::Writer(token.slot));
            }
            Kind::Accept => {
                slot.accepting &= !last;
                if slot.closing {
                    if result >= 0 {
                        // SAFETY: the kernel has just made this descriptor for us.
                        drop(unsafe { OwnedFd::from_raw_fd(result) });
                    }
                } else {
                    slot.accepted.push_back(if result >= 0 {
                        // SAFETY: as above; it is owned by nobody else.
                        Ok(unsafe { OwnedFd::from_raw_fd(result) })
                    } else {
                        Err(-result)
                    });
                    woken.push(Side::Reader(token.slot));
                }
            }
            Kind::Cancel | Kind::Wake => {}
            Kind::Close => {
                slot.reset();
                self.free.push(token.slot);
                return;
            }
        }
        let slot = &self.slots[index];
        if slot.closing && slot.outstanding == 0 {
            self.close_file(token.slot);
        }
    }

    fn received(
        &mut self,
        index: u32,
        completion: &cqueue::Entry,
        last: bool,
        woken: &mut Vec<Side>,
    ) {
        let slot = &mut self.slots[index as usize];
        let mut result = completion.result();
        let buffer = cqueue::buffer_select(completion.flags());
        if buffer.is_some() {
            self.pool.took();
        }
        if last {
            slot.recv = Recv::Idle;
        }
        let (mut start, mut received_ns) = (0, 0);
        if slot.stamped
            && result > 0
            && let Some(buffer) = buffer
        {
            // SAFETY: the kernel has just said that it filled so much of this buffer, which nobody
            // else has been told of yet.
            let filled = unsafe { self.pool.filled(buffer, result as usize) };
            match Received::parse(filled, &self.header) {
                Some(received) => {
                    (result, start, received_ns) =
                        (received.len as i32, received.start, received.at_ns);
                }
                None => result = -libc::EIO,
            }
        }
        match (result, buffer) {
            (len, Some(buffer)) if len > 0 && !slot.closing => {
                slot.inbox.push_back(Filled { buffer, start, len: len as u32, received_ns });
                if slot.inbox.len() >= INBOX_LIMIT && slot.recv == Recv::Armed {
                    self.stop_recv(index);
                }
            }
            (_, Some(buffer)) => {
                self.pool.recycle(buffer);
                if result == 0 {
                    slot.recv = slot.ended();
                } else if result < 0 {
                    slot.recv = Recv::Failed(-result);
                }
            }
            (0, None) => slot.recv = slot.ended(),
            // Ended by ourselves: the inbox was full, or the socket is closing.
            (errno, None) if -errno == libc::ECANCELED => {}
            (errno, None) if -errno == libc::ENOBUFS => {
                // One with unread data is armed when that has been read (`last` has made it idle):
                // readers that stall must not take what others wait for.
                if slot.inbox.is_empty() && !slot.closing {
                    slot.recv = Recv::Starved;
                    self.starved.push_back(index);
                }
                return;
            }
            (errno, None) => slot.recv = Recv::Failed(-errno),
        }
        let slot = &mut self.slots[index as usize];
        if slot.closing {
            return;
        }
        if slot.recv == Recv::Idle && slot.inbox.is_empty() {
            // Stopped for a full inbox that has been emptied meanwhile.
            self.arm_recv(index);
        } else if slot.reader.is_some() {
            woken.push(Side::Reader(index));
        }
    }

    /// Arms the sockets that ran out of buffers, if there are buffers again or can be more.
    /// Otherwise they would run out again at once, turn after turn.
    fn feed(&mut self) {
        if !self.pool.has_free() && !self.pool.grow() {
            return;
        }
        for _ in 0..self.starved.len() {
            let Some(index) = self.starved.pop_front() else { return };
            let slot = &mut self.slots[index as usize];
            if slot.recv == Recv::Starved && !slot.closing {
                self.arm_recv(index);
            }
        }
    }

    fn arm_recv(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.recv = Recv::Armed;
        slot.outstanding += 1;
        let entry = if slot.stamped {
            opcode::RecvMsgMulti::new(Fixed(index), &raw const *self.header, GROUP).build()
        } else {
            opcode::RecvMulti::new(Fixed(index), GROUP).build()
        };
        let entry = entry.user_data(slot.token(Kind::Recv, index));
        // SAFETY: a receive with buffer selection writes to the pool alone. The header of a stamped
        // one is only read, is boxed, has no pointers, and lives as long as the ring.
        unsafe { push(&mut self.io, &entry) };
    }

    fn stop_recv(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.recv = Recv::Stopping;
        slot.outstanding += 1;
        let entry = opcode::AsyncCancel::new(slot.token(Kind::Recv, index))
            .build()
            .user_data(slot.token(Kind::Cancel, index));
        // SAFETY: a cancellation points to no memory of ours.
        unsafe { push(&mut self.io, &entry) };
    }

    fn close_file(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.outstanding += 1;
        let entry =
            opcode::Close::new(Fixed(index)).build().user_data(slot.token(Kind::Close, index));
        // SAFETY: closing points to no memory of ours.
        unsafe { push(&mut self.io, &entry) };
    }
}
