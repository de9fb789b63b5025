//! What a machine must allow before the first executor starts.
//!
//! glommio panics where a limit is too low and ends the process where io_uring is missing, so each
//! condition is checked here first and answered with an error that says the remedy.

use std::io;

use io_uring::{Probe, opcode};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::ring;

/// Locked memory that glommio demands for an executor.
const MEMLOCK_BYTES: u64 = 512 << 10;

/// Descriptors that a shard takes for itself: four of glommio's executor, the ring, its eventfd,
/// and some that are open only while it starts.
const DESCRIPTORS_PER_SHARD: u64 = 16;

/// Descriptors for everything else in the process: standard streams, the user's files.
const DESCRIPTORS_OF_PROCESS: u64 = 32;

/// Why this machine cannot run a load test, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum PreflightError {
    /// A security policy forbids io_uring.
    #[error(
        "io_uring is blocked ({reason}): a seccomp filter (Docker's default profile has one) or \
         the sysctl kernel.io_uring_disabled forbids it. Run the container with a profile that \
         allows io_uring_setup, io_uring_enter and io_uring_register, or set `sysctl -w \
         kernel.io_uring_disabled=0`"
    )]
    Blocked {
        /// The system's answer.
        reason: String,
    },
    /// The kernel has no io_uring, or one without the operations needed.
    #[error("this kernel's io_uring lacks {missing}: Linux 6.1 or later is needed")]
    KernelTooOld {
        /// What is missing.
        missing: String,
    },
    /// The limit of locked memory is too low.
    #[error(
        "the limit of locked memory is {limit} bytes, {needed} are needed: raise it with `ulimit \
         -l {}` or LimitMEMLOCK={needed} in the unit, or grant CAP_IPC_LOCK",
        needed / 1024
    )]
    LockedMemory {
        /// `RLIMIT_MEMLOCK`, in bytes.
        limit: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The limit of file descriptors is too low.
    #[error(
        "the process may open {limit} file descriptors, {needed} are needed for {shards} shards: \
         raise the hard limit with `ulimit -Hn {needed}` or LimitNOFILE={needed} in the unit, or \
         use fewer cores"
    )]
    Descriptors {
        /// The hard limit; the soft one has been raised to it.
        limit: u64,
        /// Descriptors needed.
        needed: u64,
        /// Shards that need them.
        shards: usize,
    },
    /// A core was asked for that the process may not use.
    #[error(
        "core {core} is not among those that this process may use ({allowed}): see `taskset -p` and the cgroup's cpuset"
    )]
    CoreNotAllowed {
        /// The core asked for.
        core: usize,
        /// The cores allowed, as a list of ranges.
        allowed: String,
    },
    /// The list of cores could not be read.
    #[error("`{text}` is no list of cores: write it as 1,3-5 (from {origin})")]
    CoreList {
        /// What was given.
        text: String,
        /// Where it was given.
        origin: String,
    },
    /// No core is left.
    #[error(
        "no core is left to run on: all that the process may use ({allowed}) are taken by test targets; name cores with .cores() or BALTER_CORES"
    )]
    NoCores {
        /// The cores allowed, as a list of ranges.
        allowed: String,
    },
    /// A resource of the system ran out while a shard started.
    #[error("a shard could not start on core {core}: {reason}")]
    Shard {
        /// The core it was for.
        core: usize,
        /// The system's answer.
        reason: String,
    },
    /// The runtime of the feature `tokio` could not start.
    #[error("the tokio runtime for the code of scenarios could not start: {reason}")]
    Tokio {
        /// The system's answer.
        reason: String,
    },
}

/// Checks that `shards` shards can run, raising the soft limit of descriptors to the hard one.
/// Answers how many descriptors are left for connections.
///
/// # Errors
/// The first condition that does not hold.
pub(crate) fn check(shards: usize) -> Result<u32, PreflightError> {
    let descriptors = check_descriptors(shards)?;
    check_locked_memory()?;
    check_io_uring()?;
    Ok(descriptors)
}

fn check_descriptors(shards: usize) -> Result<u32, PreflightError> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Where it cannot be raised, the soft limit is what counts.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let current = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = DESCRIPTORS_OF_PROCESS + DESCRIPTORS_PER_SHARD * shards as u64;
    if current < needed {
        return Err(PreflightError::Descriptors { limit: current, needed, shards });
    }
    Ok(u32::try_from(current - needed).unwrap_or(u32::MAX).max(1))
}

fn check_locked_memory() -> Result<(), PreflightError> {
    // As glommio does it: the limit is looked at whatever the capabilities are.
    let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    if limit < MEMLOCK_BYTES {
        return Err(PreflightError::LockedMemory { limit, needed: MEMLOCK_BYTES });
    }
    Ok(())
}

fn check_io_uring() -> Result<(), PreflightError> {
    let io = ring::build(8, 16).map_err(|error| classify(&error))?;
    let mut probe = Probe::new();
    io.submitter().register_probe(&mut probe).map_err(|error| classify(&error))?;
    // Ours, then what glommio would end the process for.
    let needed = [
        ("IORING_OP_SEND", opcode::Send::CODE),
        ("IORING_OP_RECV", opcode::Recv::CODE),
        ("IORING_OP_CONNECT", opcode::Connect::CODE),
        ("IORING_OP_ACCEPT", opcode::Accept::CODE),
        ("IORING_OP_CLOSE", opcode::Close::CODE),
        ("IORING_OP_ASYNC_CANCEL", opcode::AsyncCancel::CODE),
        ("IORING_OP_POLL_ADD", opcode::PollAdd::CODE),
        ("IORING_OP_NOP", opcode::Nop::CODE),
        ("IORING_OP_READV", opcode::Readv::CODE),
        ("IORING_OP_WRITEV", opcode::Writev::CODE),
        ("IORING_OP_READ", opcode::Read::CODE),
        ("IORING_OP_WRITE", opcode::Write::CODE),
        ("IORING_OP_READ_FIXED", opcode::ReadFixed::CODE),
        ("IORING_OP_WRITE_FIXED", opcode::WriteFixed::CODE),
        ("IORING_OP_FSYNC", opcode::Fsync::CODE),
        ("IORING_OP_SENDMSG", opcode::SendMsg::CODE),
        ("IORING_OP_RECVMSG", opcode::RecvMsg::CODE),
        ("IORING_OP_TIMEOUT", opcode::Timeout::CODE),
        ("IORING_OP_TIMEOUT_REMOVE", opcode::TimeoutRemove::CODE),
        ("IORING_OP_LINK_TIMEOUT", opcode::LinkTimeout::CODE),
        ("IORING_OP_FALLOCATE", opcode::Fallocate::CODE),
        ("IORING_OP_OPENAT", opcode::OpenAt::CODE),
        ("IORING_OP_STATX", opcode::Statx::CODE),
        ("IORING_OP_POLL_REMOVE", opcode::PollRemove::CODE),
    ];
    for (name, code) in needed {
        if !probe.is_supported(code) {
            return Err(PreflightError::KernelTooOld { missing: name.to_owned() });
        }
    }
    Ok(())
}

fn classify(error: &io::Error) -> PreflightError {
    match error.raw_os_error() {
        Some(libc::EINVAL) => {
            PreflightError::KernelTooOld { missing: "SINGLE_ISSUER and DEFER_TASKRUN".to_owned() }
        }
        Some(libc::ENOMEM) => PreflightError::LockedMemory {
            limit: getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX),
            needed: MEMLOCK_BYTES,
        },
        Some(libc::EMFILE | libc::ENFILE) => PreflightError::Descriptors {
            limit: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            needed: DESCRIPTORS_OF_PROCESS + DESCRIPTORS_PER_SHARD,
            shards: 1,
        },
        // EPERM and EACCES from a filter or the sysctl; ENOSYS from a filter that hides the call,
        // or from a kernel built without it.
        _ => PreflightError::Blocked { reason: error.to_string() },
    }
}
