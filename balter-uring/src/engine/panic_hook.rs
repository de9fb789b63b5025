//! A scenario that panics does so again and again. Standard error gets its first message, and the
//! statistics count the rest.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{set_hook, take_hook};
use std::sync::{Mutex, MutexGuard, Once};

thread_local! {
    /// Number of the run whose code this thread runs, guarded; 0 for none.
    static RUN: Cell<u64> = const { Cell::new(0) };
}

/// Runs of which a message has been told.
static TOLD: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

fn told() -> MutexGuard<'static, BTreeSet<u64>> {
    TOLD.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Puts itself before the hook that the process has, once. A hook that is set later takes its place.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    if std::thread::panicking() {
        // The standard library does not allow it here. The next run does it.
        return;
    }
    INSTALLED.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            let run = RUN.get();
            if run == 0 || told().insert(run) {
                before(panic);
            }
        }));
    });
}

/// Code of a run is about to run on this thread, guarded; answers what is to be set when it has
/// returned. 0 for code of no run.
#[inline]
pub(super) fn set_run(run: u64) -> u64 {
    RUN.replace(run)
}

/// The run is over.
pub(super) fn forget(run: u64) {
    told().remove(&run);
}
