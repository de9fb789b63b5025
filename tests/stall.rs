//! A target that stalls shows in the response times in full: no coordinated omission.

#[path = "support/lib.rs"]
mod support;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use support::{assert_adds_up, until, visitor};

/// Runs 4 s at 1 000 a second with a stall of 1 s in the middle: a quarter of all is due then.
fn run_with_a_stall(instances: usize) -> RunStatistics {
    let target = Target::start().expect("a target");
    let run = visitor(target.url()).tps(1_000).duration(Duration::from_secs(4));
    let run = run.hint(Hint::Concurrency(instances)).max_concurrency(instances);
    let running = std::thread::spawn(move || support::wait(run));
    until("a quarter of the run is over", || target.served() >= 1_000);
    target.stall(Duration::from_secs(1));
    let statistics = running.join().expect("the run ends");
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.planned, 4_000);
    support::assert_all_well(&statistics, 4_000);
    assert!(statistics.counts.missed < 200, "{statistics}");
    assert_eq!(target.served(), statistics.counts.started);
    statistics
}

/// What every client of such a target met, however the generator copes: a quarter of all
/// requests were due in the stall and waited for what was left of it.
fn assert_the_stall_is_in_the_response_times(statistics: &RunStatistics) {
    assert!(statistics.latency_p99 >= Duration::from_millis(800), "{statistics}");
    assert_eq!(statistics.latency_p99, statistics.response.quantile(0.99));
    // 200 of 4 000 were due in the first 200 ms of the stall, 400 in the first 400 ms.
    assert!(statistics.latency_p95 >= Duration::from_millis(600), "{statistics}");
    assert!(statistics.latency_p90 >= Duration::from_millis(400), "{statistics}");
    assert!(statistics.latency_p50 < Duration::from_millis(400), "{statistics}");
    assert!(statistics.response.max() < Duration::from_secs(5), "{statistics}");
}

#[test]
fn with_few_instances_the_stall_shows_though_few_requests_met_it() {
    let statistics = run_with_a_stall(8);
    assert_the_stall_is_in_the_response_times(&statistics);
    // Eight requests were under way when the target stalled. A clock that starts when a request
    // is sent sees those eight of 4 000, and takes the target for a quick one.
    assert!(statistics.service.quantile(0.5) < Duration::from_millis(100), "{statistics}");
    assert!(statistics.service.quantile(0.99) < Duration::from_millis(400), "{statistics}");
    assert!(statistics.lag.quantile(0.99) >= Duration::from_millis(700), "{statistics}");
    // They waited for an instance, since the target kept all of them: no fault of the generator.
    assert!(statistics.punctual.quantile(0.99) >= Duration::from_millis(700), "{statistics}");
}

#[test]
fn with_enough_instances_the_stall_shows_as_service_time() {
    let statistics = run_with_a_stall(1_200);
    assert_the_stall_is_in_the_response_times(&statistics);
    assert!(statistics.service.quantile(0.5) < Duration::from_millis(100), "{statistics}");
    // More instances than requests that were due in the stall, so all of them were sent into it.
    assert!(statistics.service.quantile(0.99) >= Duration::from_millis(800), "{statistics}");
    assert!(statistics.service.quantile(0.9) >= Duration::from_millis(400), "{statistics}");
    assert!(statistics.lag.quantile(0.5) < Duration::from_millis(100), "{statistics}");
    assert_eq!(statistics.concurrency, 1_200, "{statistics}");
}
