//! Counts add up to the unit, however transactions are spaced, started and gathered.

#[path = "support/lib.rs"]
mod support;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{Arrival, FailureClass};
use support::{assert_adds_up, failures, visitor, wait, work, worker};

#[test]
fn an_open_loop_plans_exactly_rate_times_seconds() {
    // A rate that divides neither a second nor a window evenly.
    for (tps, seconds) in [(997, 1), (1_234, 2), (3, 1)] {
        let statistics =
            wait(worker(Duration::ZERO).tps(tps).duration(Duration::from_secs(seconds)));
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.planned, u64::from(tps) * seconds, "{tps} tps, {seconds} s");
        assert_eq!(statistics.goal_tps, tps);
        assert_eq!(statistics.elapsed, Duration::from_secs(seconds));
    }
}

#[test]
fn transactions_that_end_at_once_all_succeed() {
    let statistics = wait(worker(Duration::ZERO).tps(500).duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    support::assert_all_well(&statistics, 500);
    assert_eq!(statistics.error_rate, 0.0);
}

#[test]
fn poisson_arrivals_add_up_and_have_the_rate_asked_for() {
    let run = worker(Duration::ZERO).tps(4_000).arrival(Arrival::Poisson { seed: 7 });
    let statistics = wait(run.duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    // The deviation of a Poisson count of 4 000 is 63; eight of them.
    let planned = statistics.counts.planned;
    assert!((3_500..4_500).contains(&planned), "{planned}");
}

#[test]
fn a_closed_loop_plans_what_it_starts() {
    let run = worker(Duration::from_millis(5)).concurrency(7);
    let statistics = wait(run.duration(Duration::from_millis(700)));
    assert_adds_up(&statistics);
    let counts = statistics.counts;
    assert_eq!((counts.planned, counts.missed), (counts.started, 0));
    assert!(counts.succeeded > 7, "{counts:?}");
    assert_eq!(statistics.goal_tps, 0);
    assert_eq!(statistics.concurrency, 7);
    // Due when started: no lag, and the response is the service.
    assert_eq!(statistics.lag.max(), Duration::ZERO);
    assert_eq!(statistics.response, statistics.service);
}

#[test]
fn the_target_has_answered_what_the_run_counted() {
    let target = Target::start().expect("a target");
    for run in [
        visitor(target.url()).tps(2_000).duration(Duration::from_secs(1)),
        visitor(target.url()).concurrency(16).duration(Duration::from_millis(500)),
    ] {
        let before = target.served();
        let statistics = wait(run);
        assert_adds_up(&statistics);
        assert!(statistics.counts.succeeded > 10, "{:?}", statistics.counts);
        assert_eq!(statistics.counts.cancelled, 0, "{:?}", statistics.counts);
        assert_eq!(target.served() - before, statistics.counts.completed());
    }
}

#[test]
fn a_slow_aggregator_costs_resolution_but_never_a_count() {
    let target = Target::start().expect("a target");
    let delay = Duration::from_millis(300);
    let open = visitor(target.url()).tps(1_500).duration(Duration::from_secs(2));
    let statistics = wait(open.aggregator_delay_for_tests(delay));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.planned, 3_000);
    assert_eq!(target.served(), statistics.counts.started, "{:?}", statistics.counts);
    assert!(statistics.shards.iter().all(|shard| !shard.lost), "{:?}", statistics.shards);

    let before = target.served();
    let closed = visitor(target.url()).concurrency(4).duration(Duration::from_secs(1));
    let statistics = wait(closed.aggregator_delay_for_tests(delay));
    assert_adds_up(&statistics);
    assert_eq!(target.served() - before, statistics.counts.started, "{:?}", statistics.counts);
}

#[test]
fn failures_of_the_target_are_counted_by_class_and_in_the_error_rate() {
    let target = Target::builder().error_rate(0.5).start().expect("a target");
    let statistics = wait(visitor(target.url()).tps(1_000).duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    assert_eq!(failures(&statistics, FailureClass::Status), statistics.counts.failed);
    // The deviation of 1 000 fair coins is 1.6 %; about eight of them.
    assert!((0.37..0.63).contains(&statistics.error_rate), "{}", statistics.error_rate);
    assert_eq!(target.served(), statistics.counts.completed());
}

#[test]
fn each_transaction_has_its_own_row() {
    #[scenario]
    async fn two_kinds() {
        loop {
            let _ = often().await;
            let _ = often().await;
            seldom().await;
        }
    }
    #[transaction]
    async fn often() -> Result<(), ()> {
        Err(())
    }
    #[transaction]
    async fn seldom() {}

    let statistics = wait(two_kinds().concurrency(1).duration(Duration::from_millis(300)));
    assert_adds_up(&statistics);
    let [often, seldom] = &statistics.transactions[..] else {
        panic!("two names, not {:?}", statistics.transactions);
    };
    assert_eq!((&*often.name, &*seldom.name), ("often", "seldom"));
    assert_eq!((often.succeeded, seldom.failed), (0, 0));
    assert!(often.failed.abs_diff(seldom.succeeded * 2) <= 2, "{often:?} {seldom:?}");
    assert_eq!(failures(&statistics, FailureClass::Application), statistics.counts.failed);
}

#[test]
fn more_than_the_target_takes_is_counted_as_missed_or_started_but_never_lost() {
    // One instance of 20 ms each can do 50 a second; 1 000 are due.
    let run = worker(Duration::from_millis(20)).tps(1_000).max_concurrency(1);
    let statistics = wait(run.timeout(Duration::from_millis(200)).duration(Duration::from_secs(2)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.planned, 2_000);
    assert!(statistics.counts.missed > 1_500, "{:?}", statistics.counts);
    assert!(statistics.tps_limited, "{:?}", statistics.verdict);
    // No permit is older than the timeout when it starts.
    assert!(statistics.lag.max() < Duration::from_millis(1_000), "{:?}", statistics.lag.max());
}

#[test]
fn transactions_of_a_select_that_lose_count_as_cancelled() {
    #[scenario]
    async fn racer() {
        loop {
            let quick = balter_uring::time::sleep(Duration::from_millis(2));
            futures_lite::future::or(work(Duration::from_secs(5)), quick).await;
        }
    }
    let statistics = wait(racer().concurrency(3).duration(Duration::from_millis(300)));
    assert_adds_up(&statistics);
    assert!(statistics.counts.cancelled > 3, "{:?}", statistics.counts);
    assert_eq!(statistics.counts.completed(), 0);
}
