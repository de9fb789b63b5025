//! A generator that is stopped now and then owns up to it.

#[path = "support/lib.rs"]
mod support;

use balter_uring::prelude::*;
use support::{Child, assert_adds_up, role, tell, wait, worker};

/// Stopped for 100 ms of every 500 ms, at 5 000 a second of a target that takes no time: what lags
/// is the generator's doing, and it says so.
#[test]
fn a_generator_that_is_stopped_owns_up_to_its_lag() {
    let mut child = Child::start("stopped", |_| {});
    child.until_told("begun");
    child.stop_and_continue(Duration::from_millis(100), Duration::from_millis(400));
    let ended = child.end();
    ended.assert_success();
    let (lag, own) = (ended.number("lag_p99_us"), ended.number("own_p99_us"));
    // The permits due in the stop make up a fifth of all: the 99th percentile is one of them.
    assert!(lag >= 50_000, "{lag} µs, so that it was not stopped: {ended:#?}");
    assert!(own * 10 >= lag * 9, "{own} of {lag} µs: {ended:#?}");
    assert_eq!(ended.value("distorted"), "true");
}

#[test]
fn child() {
    if role().as_deref() != Some("stopped") {
        return;
    }
    // Shards and clock are there before the parent begins.
    wait(worker(Duration::ZERO).tps(100).duration(Duration::from_millis(100)));
    tell("begun");
    let statistics = wait(worker(Duration::ZERO).tps(5_000).duration(Duration::from_secs(4)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.planned, 20_000, "{statistics}");
    tell(format_args!("lag_p99_us={}", statistics.lag.quantile(0.99).as_micros()));
    tell(format_args!("own_p99_us={}", statistics.lateness.quantile(0.99).as_micros()));
    tell(format_args!("missed={}", statistics.counts.missed));
    tell(format_args!("distorted={}", statistics.distorted));
}
