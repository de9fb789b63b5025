//! Code and values of users where no shard guards them: on the aggregator's thread, and where the
//! engine lets go of them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code of a user, whose panic ends it and nothing else: `None` then. The thread that calls it
/// leads all runs.
///
/// What the code has changed by then is not to be used any more, except to be [dropped](let_go).
pub(crate) fn call<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).map_err(forget).ok()
}

/// Drops a value of a user, whose destructor may panic.
pub(crate) fn let_go<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        forget(payload);
    }
}

/// Leaks the payload of a panic: its destructor is the user's too, and nothing is left to guard
/// that with.
pub(crate) fn forget(payload: Box<dyn Any + Send>) {
    std::mem::forget(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when dropped.
    struct Sour;

    impl Drop for Sour {
        fn drop(&mut self) {
            panic!("a sour drop");
        }
    }

    #[test]
    fn neither_a_panic_nor_its_payload_nor_a_destructor_gets_out() {
        assert_eq!(call(|| 7), Some(7));
        assert_eq!(call(|| std::panic::panic_any(Sour)), None::<()>);
        let_go(Sour);
    }
}
