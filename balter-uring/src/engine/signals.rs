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

/// While it lives, SIGINT is for the runs.
#[derive(Debug)]
pub(crate) struct Listening;

impl Listening {
    pub(crate) fn new() -> Self {
        LISTENING.fetch_add(1, Ordering::SeqCst);
        if !INSTALLED.get_or_init(install) {
            tracing::warn!("SIGINT cannot be taken: an interrupt will end the process at once");
        }
        Self
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
                pool::aggregator().send(Control::Interrupt);
            } else {
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        }
    };
    std::thread::Builder::new().name("balter-signals".to_owned()).spawn(listen).is_ok()
}
