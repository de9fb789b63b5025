//! A target that stalls shows in the response times in full: no coordinated omission.

#[path = "support/lib.rs"]
mod support;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use support::{assert_adds_up, until, visitor};

/// Tests of this file one at a time: two would share a shard, and each the stalls of the other.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs 4 s at 400 a second with a stall of 1 s in the middle: a quarter of all is due then.
fn run_with_a_stall(instances: usize) -> RunStatistics {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    support::once_fit(|| {
        let target = Target::start().expect("a target");
        let run = visitor(target.url()).tps(400).duration(Duration::from_secs(4));
        let run = run.hint(Hint::Concurrency(instances)).max_concurrency(instances);
        let begun = Instant::now();
        let running = std::thread::spawn(move || support::wait(run));
        until("a quarter of the run is over", || target.served() >= 400 || running.is_finished());
        let stalled_after = begun.elapsed();
        target.stall(Duration::from_secs(1));
        let statistics = running.join().expect("the run ends");
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.planned, 1_600);
        assert_eq!(target.served(), statistics.counts.started);
        // What follows is about the stall alone. It has to lie within the run, and a generator
        // that is late itself adds to the response times, or misses what was due in the stall.
        if stalled_after > Duration::from_millis(2_700) {
            return Err(format!("a quarter of the run took {stalled_after:?}"));
        }
        assert_eq!((statistics.counts.failed, statistics.counts.cancelled), (0, 0));
        if statistics.distorted || statistics.counts.missed >= 80 {
            return Err(statistics.to_string());
        }
        Ok(statistics)
    })
}

/// What every client of such a target met, however the generator copes: a quarter of all
/// requests were due in the stall and waited for what was left of it.
fn assert_the_stall_is_in_the_response_times(statistics: &RunStatistics) {
    assert!(statistics.latency_p99 >= Duration::from_millis(800), "{statistics}");
    assert_eq!(statistics.latency_p99, statistics.response.quantile(0.99));
    // 80 of 1 600 were due in the first 200 ms of the stall, 160 in the first 400 ms.
    assert!(statistics.latency_p95 >= Duration::from_millis(600), "{statistics}");
    assert!(statistics.latency_p90 >= Duration::from_millis(400), "{statistics}");
    assert!(statistics.latency_p50 < Duration::from_millis(400), "{statistics}");
    assert!(statistics.response.max() < Duration::from_secs(5), "{statistics}");
}

#[test]
fn with_few_instances_the_stall_shows_though_few_requests_met_it() {
    let statistics = run_with_a_stall(5);
    assert_the_stall_is_in_the_response_times(&statistics);
    // Five requests were under way when the target stalled. A clock that starts when a request
    // is sent sees those five of 1 600, and takes the target for a quick one.
    assert!(statistics.service.quantile(0.5) < Duration::from_millis(100), "{statistics}");
    assert!(statistics.service.quantile(0.99) < Duration::from_millis(400), "{statistics}");
    assert!(statistics.lag.quantile(0.99) >= Duration::from_millis(700), "{statistics}");
    // They waited for an instance, since the target kept all of them: no fault of the generator.
    assert!(statistics.punctual.quantile(0.99) >= Duration::from_millis(700), "{statistics}");
}

#[test]
fn with_enough_instances_the_stall_shows_as_service_time() {
    let statistics = run_with_a_stall(500);
    assert_the_stall_is_in_the_response_times(&statistics);
    assert!(statistics.service.quantile(0.5) < Duration::from_millis(100), "{statistics}");
    // More instances than requests that were due in the stall, so all of them were sent into it.
    assert!(statistics.service.quantile(0.99) >= Duration::from_millis(800), "{statistics}");
    assert!(statistics.service.quantile(0.9) >= Duration::from_millis(400), "{statistics}");
    assert!(statistics.lag.quantile(0.5) < Duration::from_millis(100), "{statistics}");
}
