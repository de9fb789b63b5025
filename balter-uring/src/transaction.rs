//! The hook that `#[transaction]` calls: permit, clock, record.

#[doc(hidden)]
pub mod outcome;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::engine::instance;

/// What is known of a transaction at compile time. One `static` for each `#[transaction]`.
#[derive(Debug)]
pub struct TransactionMeta {
    name: &'static str,
    module: &'static str,
    /// Index of its entry in every table of statistics, plus one; 0 until it first runs.
    id: AtomicUsize,
}

/// How many transactions have an id.
static REGISTERED: Mutex<usize> = Mutex::new(0);

impl TransactionMeta {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(name: &'static str, module: &'static str) -> Self {
        Self { name, module, id: AtomicUsize::new(0) }
    }

    /// Name of the function.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Path of the module that the function stands in.
    #[must_use]
    pub const fn module(&self) -> &'static str {
        self.module
    }

    /// A small number that is this transaction's alone for the life of the process, so that the
    /// hot path finds its record by index.
    #[inline]
    pub(crate) fn id(&self) -> usize {
        match self.id.load(Ordering::Relaxed) {
            0 => self.register(),
            id => id - 1,
        }
    }

    #[cold]
    fn register(&self) -> usize {
        let mut registered = REGISTERED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let known = self.id.load(Ordering::Relaxed);
        if known != 0 {
            return known - 1;
        }
        *registered += 1;
        self.id.store(*registered, Ordering::Relaxed);
        *registered - 1
    }
}

/// Runs `work` as one transaction of the scenario instance that polls it: waits for its permit,
/// takes its times, records its outcome. Outside a scenario it just runs `work`.
#[doc(hidden)]
pub async fn transaction<F: Future>(
    meta: &'static TransactionMeta,
    work: F,
    failed: fn(&F::Output) -> bool,
) -> F::Output {
    let mut work = pin!(work);
    let Some(instance) = instance::current() else { return work.await };
    let mut active = instance.start(meta).await;
    let output = poll_fn(|cx| active.poll(cx, work.as_mut())).await;
    active.finish(failed(&output));
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_small_and_stay() {
        static A: TransactionMeta = TransactionMeta::new("a", "tests");
        static B: TransactionMeta = TransactionMeta::new("b", "tests");
        let (a, b) = (A.id(), B.id());
        assert_ne!(a, b);
        assert_eq!((A.id(), B.id()), (a, b));
    }
}
