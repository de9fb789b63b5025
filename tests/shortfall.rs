//! What a real run did less than asked is shared out among its causes, and the largest is its verdict.

#[path = "support/lib.rs"]
mod support;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{Cause, Shortfall, Verdict};
use support::{assert_adds_up, visitor, wait, work, worker};

fn run(scenario: Scenario, seconds: u64) -> (RunStatistics, Shortfall) {
    let statistics = wait(scenario.duration(Duration::from_secs(seconds)));
    println!("{statistics}");
    assert_adds_up(&statistics);
    let shortfall = statistics.shortfall.clone().expect("less than asked");
    assert_eq!(shortfall.succeeded, statistics.counts.succeeded);
    assert!(shortfall.asked >= statistics.counts.planned, "{statistics}");
    let lines = shortfall.to_string();
    assert!(lines.lines().all(|line| line.chars().count() <= 80), "{lines}");
    assert!(statistics.to_string().contains(&lines), "{statistics}");
    (statistics, shortfall)
}

/// Whatever the machine takes from the generator meanwhile: its lateness is milliseconds, and the wait for
/// the target is seconds.
#[test]
fn a_serial_worker_of_ten_milliseconds_bears_a_hundred_a_second() {
    let target = Target::builder().queueing_capacity(100).start().expect("a target");
    let scenario = visitor(target.url()).tps(300).timeout(Duration::from_secs(1));
    let (statistics, shortfall) = run(scenario, 4);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Target { goal_tps: 300, .. }), "{statistics}");
    // It takes no more, and a busy machine less.
    assert!((20.0..130.0).contains(&(statistics.counts.succeeded as f64 / 4.0)), "{statistics}");
    assert_eq!(shortfall.largest(), Some(Cause::Target), "{statistics}");
    assert!(shortfall.share(Cause::Target) > shortfall.short() / 2, "{statistics}");
}

#[test]
fn a_limit_on_instances_is_named_with_its_share() {
    // 40 a second of 50 ms each.
    let (statistics, shortfall) =
        run(worker(Duration::from_millis(50)).tps(200).max_concurrency(2), 3);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::ConcurrencyLimit { max_instances: 2, .. }), "{statistics}");
    let share = shortfall.share(Cause::ConcurrencyLimit);
    assert!(share > shortfall.short() / 2, "{statistics}");
}

#[test]
fn pauses_at_a_limit_on_instances_are_its_share_too() {
    #[scenario]
    async fn pausing() {
        loop {
            work(Duration::from_millis(1)).await;
            balter_uring::time::sleep(Duration::from_millis(500)).await;
        }
    }
    let (statistics, shortfall) = run(pausing().tps(200).max_concurrency(10), 3);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::ConcurrencyLimit { max_instances: 10, .. }), "{statistics}");
    let share = shortfall.share(Cause::ConcurrencyLimit);
    assert!(share > shortfall.short() / 2, "{statistics}");
}

#[test]
fn a_target_that_refuses_most_has_not_taken_the_rate() {
    let target = Target::builder().capacity(60).start().expect("a target");
    let (statistics, shortfall) = run(visitor(target.url()).tps(300), 3);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Failures { class: Some(_), .. }), "{statistics}");
    assert_eq!(shortfall.largest(), Some(Cause::Failures), "{statistics}");
    assert!(statistics.tps_limited);
}

#[test]
fn panics_have_the_share_that_they_took() {
    support::without_backtraces();
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn shaky() {
        loop {
            stumble().await;
        }
    }
    #[transaction]
    async fn stumble() {
        balter_uring::time::sleep(Duration::from_millis(1)).await;
        assert!(CALLS.fetch_add(1, Ordering::Relaxed) % 10 >= 3, "three in ten");
    }
    let (statistics, shortfall) = run(shaky().tps(200), 3);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Panics { .. }), "{statistics}");
    assert_eq!(shortfall.largest(), Some(Cause::Faults), "{statistics}");
    assert!(shortfall.share(Cause::Faults) >= statistics.panics, "{statistics}");
}

/// Half a second in which nobody is served, on its only shard or on one of them.
#[test]
fn a_scenario_that_keeps_its_shard_is_the_generators_share() {
    #[scenario]
    async fn blocking() {
        loop {
            block().await;
        }
    }
    #[transaction]
    async fn block() {
        std::thread::sleep(Duration::from_millis(500));
    }
    let (statistics, shortfall) = run(blocking().tps(400), 3);
    let verdict = statistics.verdict.as_ref().expect("judged");
    let own = shortfall.share(Cause::Generator) + shortfall.share(Cause::Processor);
    assert!(own > shortfall.short() / 2, "{statistics}");
    assert!(
        matches!(verdict, Verdict::Generator { .. } | Verdict::Processor { .. }),
        "{statistics}"
    );
}

#[test]
fn a_run_that_did_what_was_asked_has_no_lines_of_it() {
    let statistics =
        wait(worker(Duration::from_millis(1)).tps(50).duration(Duration::from_secs(2)));
    assert_adds_up(&statistics);
    if statistics.counts.succeeded == 100 {
        assert_eq!(statistics.shortfall, None);
        assert!(!statistics.to_string().contains("short by"), "{statistics}");
    }
    let closed = wait(worker(Duration::ZERO).concurrency(1).duration(Duration::from_millis(100)));
    assert_eq!(closed.shortfall, None);
}
