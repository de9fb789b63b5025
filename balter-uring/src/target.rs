//! An HTTP target on the same ring, for trying things out, for tests and for benches.
//!
//! It has a core, and with it a shard, of its own, and answers some 250 000 requests a second
//! there. Its knobs (delay, capacity, errors, stalls) make it behave like services that are not so
//! well.
//!
//! # Examples
//! ```no_run
//! use balter_uring::target::Target;
//!
//! let target = Target::builder().delay(std::time::Duration::from_millis(2)).start()?;
//! println!("load {}", target.url());
//! # Ok::<(), balter_uring::RunError>(())
//! ```

mod serve;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::clock::{Clock, nanoseconds};
use crate::engine::pool;
use crate::{PreflightError, RunError};

/// Configures a [`Target`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start` is called"]
pub struct TargetBuilder {
    address: SocketAddr,
    core: Option<usize>,
    knobs: Knobs,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Knobs {
    delay: Duration,
    capacity: u32,
    queueing: bool,
    error_rate: f64,
}

/// A running target. It stops when this is dropped.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    core: usize,
    shared: Arc<Shared>,
}

/// What the handle and the shard share: knobs that may be turned at any time, and counts.
#[derive(Debug, Default)]
struct Shared {
    delay_ns: AtomicU64,
    /// Requests a second, or 0 for no limit.
    capacity: AtomicU32,
    /// Beyond the capacity requests wait, instead of being refused with 503.
    queueing: AtomicBool,
    /// Share of requests that are answered with 500, in 2^-32.
    error_share: AtomicU64,
    /// Nothing is answered before this reading of the clock.
    stalled_until_ns: AtomicU64,
    stopped: AtomicBool,
    served: AtomicU64,
    connections: AtomicU64,
}

impl Target {
    /// Configures a target.
    pub fn builder() -> TargetBuilder {
        TargetBuilder {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            core: None,
            knobs: Knobs::default(),
            body: b"Hello world\n".to_vec(),
        }
    }

    /// A target without delays, limits or errors, on the last core that the process may use.
    ///
    /// # Errors
    /// As [`TargetBuilder::start`].
    pub fn start() -> Result<Self, RunError> {
        Self::builder().start()
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The core that it runs on, which runs leave alone unless told otherwise.
    #[must_use]
    pub fn core(&self) -> usize {
        self.core
    }

    /// Requests answered so far.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Answers nothing for so long, from now on, and then everything that has come meanwhile.
    pub fn stall(&self, duration: Duration) {
        let until = Clock::get().now().saturating_add(nanoseconds(duration));
        self.shared.stalled_until_ns.store(until, Ordering::Relaxed);
    }

    /// Waits so long before each answer.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay_ns.store(nanoseconds(delay), Ordering::Relaxed);
    }

    /// Answers at most so many requests a second, evenly; 0 for no limit.
    pub fn set_capacity(&self, requests_per_second: u32) {
        self.shared.capacity.store(requests_per_second, Ordering::Relaxed);
    }

    /// Answers this share of requests, 0 to 1, with status 500.
    ///
    /// # Panics
    /// If the share is not between 0 and 1.
    pub fn set_error_rate(&self, share: f64) {
        assert!((0.0..=1.0).contains(&share), "the share of errors must be between 0 and 1");
        let share = (share * 2_f64.powi(32)) as u64;
        self.shared.error_share.store(share, Ordering::Relaxed);
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl TargetBuilder {
    /// Listens on this address; a free port of 127.0.0.1 if not set.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Runs on this core; the last that the process may use if not set.
    pub fn core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Answers with this body. Requests for `/bytes/N` are answered with N bytes all the same, up
    /// to 16 MiB.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// See [`Target::set_delay`].
    pub fn delay(mut self, delay: Duration) -> Self {
        self.knobs.delay = delay;
        self
    }

    /// Answers at most so many requests a second, evenly, and refuses the rest with status 503.
    pub fn capacity(mut self, requests_per_second: u32) -> Self {
        self.knobs.capacity = requests_per_second;
        self.knobs.queueing = false;
        self
    }

    /// Answers at most so many requests a second, evenly; the rest wait for their turn.
    pub fn queueing_capacity(mut self, requests_per_second: u32) -> Self {
        self.knobs.capacity = requests_per_second;
        self.knobs.queueing = true;
        self
    }

    /// See [`Target::set_error_rate`].
    pub fn error_rate(mut self, share: f64) -> Self {
        self.knobs.error_rate = share;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// What keeps a shard from starting, or the address from being listened on.
    ///
    /// # Panics
    /// If the share of errors is not between 0 and 1.
    pub fn start(self) -> Result<Target, RunError> {
        let shard = pool::take(self.core)?;
        let core = shard.core;
        let shared = Arc::new(Shared::default());
        let mut target = Target { address: self.address, core, shared: Arc::clone(&shared) };
        target.set_delay(self.knobs.delay);
        target.set_capacity(self.knobs.capacity);
        target.set_error_rate(self.knobs.error_rate);
        shared.queueing.store(self.knobs.queueing, Ordering::Relaxed);
        let failed = |reason: String| PreflightError::Shard { core, reason };
        let (ready, started) = crossbeam_channel::bounded(1);
        let Self { address, body, .. } = self;
        pool::execute(&shard, move |shard| serve::start(shard, address, body, shared, &ready));
        match started.recv() {
            Ok(Ok(address)) => {
                target.address = address;
                Ok(target)
            }
            Ok(Err(error)) => Err(failed(format!("{}: {error}", self.address)).into()),
            Err(_) => Err(failed("its shard has ended".to_owned()).into()),
        }
    }
}
