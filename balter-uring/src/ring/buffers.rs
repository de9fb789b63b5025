//! The provided buffers: memory that the kernel fills on its own when data arrives.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// One buffer holds a usual response many times over, and a large body arrives in few pieces.
pub(crate) const BUFFER_SIZE: usize = 16 << 10;

/// Room for so many; memory is touched only when a buffer is first lent out.
const CAPACITY: u16 = 8192;

/// Lent to the kernel at the start: 512 KiB, which stays in a core's second-level cache. The kernel
/// takes buffers in the order in which they came back, so it walks through all it has been lent:
/// the fewer, the warmer.
const INITIAL: u16 = 32;

/// The buffer group of the shard's only pool.
pub(super) const GROUP: u16 = 0;

const PAGE: usize = 4096;

/// A ring of buffers shared with the kernel, grown by doubling when it runs dry.
pub(super) struct BufferPool {
    /// `CAPACITY` entries of the ring that the kernel reads. Page-aligned.
    entries: NonNull<BufRingEntry>,
    /// `CAPACITY * BUFFER_SIZE` bytes. Buffer `i` starts at `i * BUFFER_SIZE`.
    memory: NonNull<u8>,
    /// Our copy of the ring's tail; the kernel reads the shared one.
    tail: u16,
    /// Buffers `0..lent` are in circulation: with the kernel, or with a `Chunk`.
    lent: u16,
    /// Of those, filled and not given back yet, as far as completions have been seen.
    filled: u16,
}

fn entries_layout() -> Layout {
    Layout::from_size_align(CAPACITY as usize * size_of::<BufRingEntry>(), PAGE)
        .expect("a constant size and alignment, in range")
}

fn memory_layout() -> Layout {
    Layout::from_size_align(CAPACITY as usize * BUFFER_SIZE, PAGE)
        .expect("a constant size and alignment, in range")
}

impl BufferPool {
    /// Registers a pool with the ring, which must outlive it (`Ring` drops the ring first, and
    /// with it the kernel's claim on this memory).
    pub(super) fn register(io: &IoUring) -> io::Result<Self> {
        // SAFETY: both layouts have a non-zero size.
        let (entries, memory) = unsafe { (alloc_zeroed(entries_layout()), alloc(memory_layout())) };
        let (Some(entries), Some(memory)) = (NonNull::new(entries), NonNull::new(memory)) else {
            handle_alloc_error(memory_layout());
        };
        let mut pool = Self { entries: entries.cast(), memory, tail: 0, lent: 0, filled: 0 };
        // SAFETY: `entries` is page-aligned, zeroed, holds `CAPACITY` (a power of two) entries and
        // stays allocated until the pool is dropped, which is after the ring has been closed.
        unsafe {
            io.submitter().register_buf_ring_with_flags(
                pool.entries.as_ptr() as u64,
                CAPACITY,
                GROUP,
                0,
            )?;
        }
        for id in 0..INITIAL {
            pool.offer(id);
        }
        pool.lent = INITIAL;
        pool.publish();
        Ok(pool)
    }

    /// Base address of the buffers, for [`Chunk`](super::Chunk)'s reads.
    pub(super) fn base(&self) -> *const u8 {
        self.memory.as_ptr()
    }

    /// The first `len` bytes of a buffer.
    ///
    /// # Safety
    /// The kernel has filled as many bytes of this buffer, and it has not been given back since.
    pub(super) unsafe fn filled(&self, id: u16, len: usize) -> &[u8] {
        debug_assert!(id < self.lent && len <= BUFFER_SIZE);
        // SAFETY: `memory` has a buffer for each number that was lent out. The bytes were written, by
        // the caller's promise, and nothing writes to them before they are given back, which takes
        // a `&mut self`.
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr().add(id as usize * BUFFER_SIZE), len)
        }
    }

    /// Twice as many buffers in circulation; `false` when there is no more room.
    pub(super) fn grow(&mut self) -> bool {
        if self.lent == CAPACITY {
            return false;
        }
        let more = self.lent.saturating_mul(2).min(CAPACITY);
        for id in self.lent..more {
            self.offer(id);
        }
        self.lent = more;
        self.publish();
        true
    }

    /// The kernel has filled a buffer.
    pub(super) fn took(&mut self) {
        self.filled += 1;
    }

    /// The kernel has buffers to fill, or has filled some whose completions are still to come.
    pub(super) fn has_free(&self) -> bool {
        self.filled < self.lent
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn recycle(&mut self, id: u16) {
        debug_assert!(id < self.lent, "buffer {id} was never lent out");
        self.filled -= 1;
        self.offer(id);
        self.publish();
    }

    fn offer(&mut self, id: u16) {
        let index = (self.tail & (CAPACITY - 1)) as usize;
        // SAFETY: `index < CAPACITY`, and the kernel does not read an entry before the tail that
        // covers it is published. Only this thread writes entries. `memory` has `CAPACITY`
        // buffers and `id < CAPACITY`. The entry's fourth field, which in entry 0 is the shared
        // tail, is not written by these setters.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(self.memory.as_ptr().add(id as usize * BUFFER_SIZE) as u64);
            entry.set_len(BUFFER_SIZE as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: `tail` points into entry 0, which is allocated and aligned for a `u16`; it is
        // shared with the kernel alone, which only reads it. The release store makes the entries
        // written before visible to it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: allocated in `register` with these layouts. The kernel no longer writes to them:
        // the ring they were registered with is closed (see `Inner`'s field order), and no chunk
        // is left, since each holds the ring alive.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout());
            dealloc(self.memory.as_ptr(), memory_layout());
        }
    }
}
