//! Tasks that a scenario starts beside itself.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_channel::oneshot;

use crate::engine::instance::{self, Role};

/// Starts a task on the shard of the scenario that calls this. Transactions in it belong to the
/// same run: they wait for its permits and count in its statistics. The task is dropped when the
/// run ends; until then it goes on even if the handle is dropped.
///
/// # Panics
/// Outside of a scenario: there is no run that it could belong to.
///
/// # Examples
/// ```no_run
/// # use balter_uring::prelude::*;
/// # #[transaction] async fn one() {}
/// # #[transaction] async fn other() {}
/// #[scenario]
/// async fn two_at_a_time() {
///     loop {
///         let other = balter_uring::spawn(other());
///         one().await;
///         other.await;
///     }
/// }
/// ```
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let instance = instance::current().expect("balter_uring::spawn is for code inside a scenario");
    let (done, result) = oneshot::channel();
    let work = async move { drop(done.send(future.await)) };
    // Its transactions are this instance's, which may have none of its own.
    instance.run.set_starting(&instance, false);
    instance.run.spawn(Role::Child, Some(Box::pin(work)));
    JoinHandle { result }
}

/// Waits for a task: its output, or `None` if it panicked (which is counted) or was dropped by the
/// end of the run.
#[derive(Debug)]
pub struct JoinHandle<T> {
    result: oneshot::Receiver<T>,
}

impl<T> Future for JoinHandle<T> {
    type Output = Option<T>;

    /// `None` if the task panicked or was dropped before its end.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.result).poll(cx).map(Result::ok)
    }
}
