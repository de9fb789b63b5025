//! How the HTTP client asks the run about a request that stands outside of a transaction: a log-in,
//! say.
//!
//! The two do not know of each other: whoever runs on a thread installs a function there, and the
//! client asks it before it sends. Nothing is asked inside of a transaction, which has had its
//! permit, nor of who does not run scenarios.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::failure;

/// A request outside of a transaction, as the run sees it. Dropped before its end, it was given up.
pub(crate) trait Visit {
    /// Ready when the request may be sent.
    fn poll_admitted(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Ready when the deadline of a request that may be sent has passed.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The head of its answer is in, or will not come.
    fn answered(&mut self, failed: bool);
}

/// Gives the visit of a request that is about to be sent, unless it needs no permission.
type Gate = fn() -> Option<Box<dyn Visit>>;

thread_local! {
    static GATE: Cell<Option<Gate>> = const { Cell::new(None) };
}

/// Has `gate` asked for every request that is sent on this thread, outside of a transaction.
pub(crate) fn install(gate: Gate) {
    GATE.set(Some(gate));
}

/// Asks for the permission to send a request.
#[inline]
pub(crate) fn ask() -> Permission {
    if failure::in_transaction() {
        return Permission(None);
    }
    Permission(GATE.get().and_then(|gate| gate()))
}

/// The deadline of a request outside of a transaction has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expired;

/// What bounds a request; nothing, inside of a transaction.
pub(crate) struct Permission(Option<Box<dyn Visit>>);

impl Permission {
    /// Waits until the request may be sent.
    pub(crate) async fn admitted(&mut self) {
        if let Some(visit) = &mut self.0 {
            poll_fn(|cx| visit.poll_admitted(cx)).await;
        }
    }

    /// `work` until the request's deadline.
    pub(crate) async fn within<F: Future>(
        &mut self,
        mut work: Pin<&mut F>,
    ) -> Result<F::Output, Expired> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => match &mut self.0 {
                Some(visit) => visit.poll_expired(cx).map(|()| Err(Expired)),
                None => Poll::Pending,
            },
        })
        .await
    }

    /// The head of the answer is in, or will not come.
    #[inline]
    pub(crate) fn answered(&mut self, failed: bool) {
        if let Some(visit) = &mut self.0 {
            visit.answered(failed);
        }
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permission").field("needed", &self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;
    use crate::failure::{Scope, with_scope};

    struct Never;

    impl Visit for Never {
        fn poll_admitted(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
        fn poll_expired(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
        fn answered(&mut self, _: bool) {}
    }

    #[test]
    fn nobody_is_asked_inside_of_a_transaction() {
        install(|| Some(Box::new(Never)));
        let cx = &mut Context::from_waker(Waker::noop());
        let mut outside = ask();
        assert!(pin!(outside.admitted()).poll(cx).is_pending());
        let mut inside = with_scope(&mut Scope::default(), ask);
        assert!(pin!(inside.admitted()).poll(cx).is_ready());
        let endless = pin!(std::future::pending::<()>());
        assert!(pin!(inside.within(endless)).poll(cx).is_pending(), "it has no deadline here");
    }

    #[test]
    fn what_is_ready_is_taken_after_the_deadline_too() {
        install(|| Some(Box::new(Never)));
        let cx = &mut Context::from_waker(Waker::noop());
        let mut outside = ask();
        let ready = pin!(std::future::ready(7));
        assert_eq!(pin!(outside.within(ready)).poll(cx), Poll::Ready(Ok(7)));
        let endless = pin!(std::future::pending::<()>());
        assert_eq!(pin!(outside.within(endless)).poll(cx), Poll::Ready(Err(Expired)));
    }
}
