//! SIGINT for the runs that asked for it: once ends them in good order, twice at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use super::aggregator::Control;
use super::pool;

/// Runs that want the signal now. At zero it does what it does by default.
static LISTENING: AtomicUsize = AtomicUsize::new(0);
static INSTALLED: OnceLock<bool> = OnceLock::new();
/// Signals that were for the runs, ever.
static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

pub(super) const DEAF: &str = "SIGINT cannot be taken: an interrupt ends the process at once";

/// While it lives, SIGINT is for the runs.
#[derive(Debug)]
pub(crate) struct Listening {
    is_deaf: bool,
    /// Interrupts before it began.
    before: usize,
}

impl Listening {
    pub(crate) fn new() -> Self {
        let before = INTERRUPTS.load(Ordering::SeqCst);
        LISTENING.fetch_add(1, Ordering::SeqCst);
        let is_deaf = !INSTALLED.get_or_init(install);
        if is_deaf {
            tracing::warn!("{DEAF}");
        }
        Self { is_deaf, before }
    }

    /// The signal could not be taken.
    pub(super) fn is_deaf(&self) -> bool {
        self.is_deaf
    }

    /// There was a signal since it began, whether or not a run was there to be ended.
    pub(crate) fn was_interrupted(&self) -> bool {
        INTERRUPTS.load(Ordering::SeqCst) != self.before
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENING.fetch_sub(1, Ordering::SeqCst);
    }
}

fn install() -> bool {
    let Ok(mut signals) = Signals::new([SIGINT]) else { return false };
    let listen = move || {
        for signal in &mut signals {
            if LISTENING.load(Ordering::SeqCst) > 0 {
                INTERRUPTS.fetch_add(1, Ordering::SeqCst);
                pool::aggregator().send(Control::Interrupt);
            } else {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        }
    };
    std::thread::Builder::new().name("balter-signals".to_owned()).spawn(listen).is_ok()
}
