//! The hook that `#[transaction]` calls: permit, clock, record.

#[doc(hidden)]
pub mod outcome;

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::engine::instance::{self, Attempt};
use outcome::Judged;

/// What is known of a transaction at compile time. One `static` for each `#[transaction]`.
#[derive(Debug)]
pub struct TransactionMeta {
    name: &'static str,
    module: &'static str,
    /// Index of its entry in every table of statistics, plus one; 0 until it first runs.
    id: AtomicUsize,
}

/// Name and module of each transaction that has an id, by that.
static REGISTERED: Mutex<Vec<(&str, &str)>> = Mutex::new(Vec::new());

/// Whether a transaction of the same name in another module was the first of that name to run in
/// this process.
#[cfg(feature = "metrics")]
pub(crate) fn is_later_namesake(name: &str, module: &str) -> bool {
    let registered = REGISTERED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let first = registered.iter().find(|(other, _)| *other == name);
    first.is_some_and(|&(_, other)| other != module)
}

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
        registered.push((self.name, self.module));
        self.id.store(registered.len(), Ordering::Relaxed);
        registered.len() - 1
    }
}

pin_project! {
    /// `work` as one transaction of the scenario instance that polls it: waits for its permit,
    /// takes its times, records its outcome. Outside a scenario it is just `work`.
    #[doc(hidden)]
    #[must_use = "futures do nothing unless awaited"]
    pub struct Transaction<F: Future> {
        meta: &'static TransactionMeta,
        judge: fn(&F::Output) -> Judged<'_>,
        // Before `work`, so that dropping it early takes its time before `work` is dropped.
        stage: Stage,
        #[pin]
        work: F,
    }
}

enum Stage {
    New,
    Outside,
    Inside(Attempt),
}

#[doc(hidden)]
pub fn transaction<F: Future>(
    meta: &'static TransactionMeta,
    work: F,
    judge: fn(&F::Output) -> Judged<'_>,
) -> Transaction<F> {
    Transaction { meta, judge, stage: Stage::New, work }
}

impl<F: Future> Future for Transaction<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Stage::New = this.stage {
            *this.stage = match instance::current() {
                Some(instance) => Stage::Inside(Attempt::new(instance, this.meta)),
                None => Stage::Outside,
            };
        }
        match this.stage {
            Stage::Inside(attempt) => {
                let output = ready!(attempt.poll(cx, this.work));
                attempt.finish((this.judge)(&output));
                Poll::Ready(output)
            }
            Stage::New | Stage::Outside => this.work.poll(cx),
        }
    }
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
