//! Waiting inside a scenario.

use crate::engine::clock::nanoseconds;
use std::time::Duration;

use crate::engine::shard;
use crate::engine::timers::SleepUntil;

/// Waits for so long, on the shard that the scenario runs on; accurate to some 50 µs.
///
/// # Panics
/// Outside of a scenario: there is no shard whose clock could be waited for.
///
/// # Examples
/// ```no_run
/// # use balter_uring::prelude::*;
/// #[scenario]
/// async fn user() {
///     loop {
///         // ... a transaction ...
///         balter_uring::time::sleep(Duration::from_millis(200)).await;
///     }
/// }
/// ```
pub async fn sleep(duration: Duration) {
    let shard = shard::current().expect("balter_uring::time::sleep is for code inside a scenario");
    let wait = nanoseconds(duration);
    let at = shard.now().saturating_add(wait);
    SleepUntil::new(shard, at).await;
}
