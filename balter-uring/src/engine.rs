//! The engine: shards that run scenarios, and the aggregator that leads them.

pub(crate) mod aggregator;
mod back_off;
pub(crate) mod blocks;
pub(crate) mod budget;
mod calls;
pub(crate) mod clock;
mod doorbell;
pub(crate) mod errors;
pub(crate) mod executor;
pub(crate) mod instance;
#[cfg(feature = "rt")]
pub(crate) mod lease;
mod observed;
mod outside;
mod panic_hook;
pub(crate) mod pool;
mod processor;
pub(crate) mod recorder;
#[cfg(feature = "tokio")]
pub(crate) mod remote_wake;
pub(crate) mod run;
mod search;
pub(crate) mod shard;
pub(crate) mod signals;
pub(crate) mod steering;
pub(crate) mod timers;
pub(crate) mod totals;
mod watchdog;
pub(crate) mod window;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_channel::oneshot;

use aggregator::Control;
use run::Maker;

use crate::RunError;
use crate::config::RunConfig;
use crate::statistics::RunStatistics;

/// A scenario and how it is to be run.
pub(crate) struct Request {
    pub(crate) name: &'static str,
    pub(crate) factory: Maker,
    pub(crate) config: RunConfig,
}

/// A run under way. Dropping it stops the run.
pub(crate) struct Running {
    done: oneshot::Receiver<Result<RunStatistics, RunError>>,
    /// Dropped with this, which is how the aggregator learns that nobody waits any more.
    _interest: Arc<()>,
}

/// Starts a run. What can take time (creating shards) is done by a thread of its own, so that the
/// executor that polls the scenario is not held up.
pub(crate) fn start(request: Request) -> Running {
    panic_hook::install();
    let (done, receiver) = oneshot::channel();
    let interest = Arc::new(());
    let watch = Arc::downgrade(&interest);
    let begin = move || match pool::prepare(&request.config, &request.factory) {
        Ok(prepared) => {
            let start = aggregator::Start { request, prepared, done, interest: watch };
            pool::aggregator().send(Control::Start(Box::new(start)));
        }
        Err(error) => drop(done.send(Err(error))),
    };
    let spawned = std::thread::Builder::new().name("balter-start".to_owned()).spawn(begin);
    let receiver = match spawned {
        Ok(_) => receiver,
        Err(error) => {
            // The closure, and with it the sender, is gone.
            let (failed, receiver) = oneshot::channel();
            let _ = failed.send(Err(RunError::Thread { reason: error.to_string() }));
            receiver
        }
    };
    Running { done: receiver, _interest: interest }
}

impl Future for Running {
    type Output = Result<RunStatistics, RunError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.done).poll(cx).map(|result| result.unwrap_or(Err(RunError::Lost)))
    }
}
