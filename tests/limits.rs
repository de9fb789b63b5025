//! Limits on errors and latencies against real targets: the rate that is found, and what it says.
//! Bounds are wide, since the machine is shared; how exact the search is is shown in virtual time.

#[path = "support/lib.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{Limit, Verdict};
use support::{assert_adds_up, visitor};

fn run(scenario: Scenario, seconds: u64) -> RunStatistics {
    let statistics = support::wait(scenario.duration(Duration::from_secs(seconds)));
    println!("{statistics}");
    assert_adds_up(&statistics);
    statistics
}

/// Balter's own suite asks the same of its error rate controller, in 90 s.
#[test]
fn errors_beyond_a_capacity_are_kept_at_their_limit() {
    let target = Target::builder().capacity(1_300).start().expect("a target");
    let statistics = run(visitor(target.url()).tps(10_000).error_rate(0.03), 20);
    let steady = statistics.steady.as_ref().expect("found within 20 s");
    assert!((1_200..1_450).contains(&statistics.goal_tps), "{}", statistics.goal_tps);
    assert!(statistics.error_rate > 0.0 && statistics.error_rate < 0.07, "{statistics}");
    assert!(steady.elapsed > Duration::from_secs(1));
    // Every transaction of the steady part has its response time there, and no other.
    assert_eq!(steady.response.len(), steady.succeeded + steady.failed);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Limit { limit: Limit::ErrorRate(_), .. }), "{verdict}");
    assert!(statistics.bound_transaction.is_some(), "{statistics}");
    // The goal was not reached, and that is said.
    assert!(statistics.tps_limited);
}

/// Begin and count of the current tenth of a second, and what the one before had.
struct Meter {
    begun: Instant,
    current: AtomicU64,
}

static METER: std::sync::LazyLock<Meter> =
    std::sync::LazyLock::new(|| Meter { begun: Instant::now(), current: AtomicU64::new(0) });

impl Meter {
    /// Counts one, and answers how many a second there were lately: a leaky mean over 100 ms.
    fn count(&self) -> f64 {
        // Tenths of a second in the upper half; in the lower, what was counted in this one.
        let tenth = self.begun.elapsed().as_millis() as u64 / 100;
        let mut lately = 0;
        let _ = self.current.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
            let (then, before, now) = (packed >> 40, packed >> 20 & 0xF_FFFF, packed & 0xF_FFFF);
            let (before, now) = match tenth - then {
                0 => (before, now + 1),
                1 => (now, 1),
                _ => (0, 1),
            };
            lately = before.max(now);
            Some(tenth << 40 | before << 20 | now)
        });
        lately as f64 * 10.0
    }
}

/// A service whose latency is its load over 2 000 a second times 200 ms, as in Balter's suite.
#[scenario]
async fn slower_with_load() {
    loop {
        answer().await;
    }
}

#[transaction]
async fn answer() {
    let load = METER.count();
    balter_uring::time::sleep(Duration::from_secs_f64(0.2 * load / 2_000.0)).await;
}

/// Balter's suite: a p90 of 130 ms is between 120 and 140 ms then, and the rate 1 300.
#[test]
fn a_latency_that_grows_with_the_load_is_kept_at_its_limit() {
    let limited = slower_with_load().latency(Duration::from_millis(130), 0.9);
    let statistics = run(limited.hint(Hint::Tps(700)), 20);
    assert!((1_100..1_500).contains(&statistics.goal_tps), "{}", statistics.goal_tps);
    let p90 = statistics.latency_p90;
    assert!(p90 > Duration::from_millis(110) && p90 < Duration::from_millis(150), "{p90:?}");
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Limit { limit: Limit::Latency { .. }, .. }), "{verdict}");
    // Nothing else was asked for than to find it.
    assert!(!statistics.tps_limited);
}

/// Balter's suite: 10 000 a second with a delay of 1 ms, and 500 with one of 400 ± 300 ms.
#[test]
fn delays_do_not_lower_a_rate() {
    let target = Target::builder().delay(Duration::from_millis(1)).start().expect("a target");
    let statistics = run(visitor(target.url()).tps(10_000), 3);
    assert!(statistics.actual_tps > 9_500.0, "{statistics}");

    #[scenario]
    async fn noisy() {
        loop {
            answer_at_some_time().await;
        }
    }

    #[transaction]
    async fn answer_at_some_time() {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // 100 to 700 ms, evenly, in an order that has no pattern a controller could follow.
        let step = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        balter_uring::time::sleep(Duration::from_millis(100 + step % 601)).await;
    }
    // 200 of them are under way on average; to find that out takes some answers of 400 ms.
    let statistics = run(noisy().tps(500).hint(Hint::Concurrency(400)), 5);
    assert!(statistics.counts.started > 2_400, "{statistics}");
}

/// Balter's suite: of 10 000 a second a service does 7 000; the goal comes down to those.
#[test]
fn a_goal_beyond_the_capacity_comes_down_to_it() {
    let target = Target::builder().queueing_capacity(7_000).start().expect("a target");
    let scenario = visitor(target.url()).tps(10_000).latency(Duration::from_millis(50), 0.95);
    let statistics = run(scenario.hint(Hint::Tps(4_000)), 20);
    assert!((6_000..7_300).contains(&statistics.goal_tps), "{statistics}");
    assert!(statistics.actual_tps > 6_000.0, "{statistics}");
    assert!(statistics.tps_limited, "{statistics}");
}

#[test]
fn a_goal_within_the_limits_is_reached() {
    let target = Target::start().expect("a target");
    let scenario = visitor(target.url()).tps(2_000).error_rate(0.05);
    let statistics = run(scenario.latency(Duration::from_millis(500), 0.9), 8);
    assert_eq!(statistics.goal_tps, 2_000);
    assert!((1_900.0..2_100.0).contains(&statistics.actual_tps), "{}", statistics.actual_tps);
    assert!(matches!(statistics.verdict, Some(Verdict::GoalReached { .. })), "{statistics}");
    assert!(!statistics.tps_limited);
}

#[test]
fn a_queue_in_the_target_is_not_grown_without_bound() {
    let target = Target::builder().queueing_capacity(1_500).start().expect("a target");
    let statistics = run(visitor(target.url()).error_rate(0.03), 20);
    // It gives no errors, it is merely late: the rate stays where its answers keep up.
    assert!((1_000..1_800).contains(&statistics.goal_tps), "{statistics}");
    assert!(statistics.concurrency < 3_000, "{}", statistics.concurrency);
}

#[test]
fn a_stall_lowers_the_rate_and_is_got_over() {
    let target = Target::builder().delay(Duration::from_millis(2)).start().expect("a target");
    let scenario = visitor(target.url()).tps(1_000).latency(Duration::from_millis(100), 0.95);
    let lowest = std::sync::Arc::new(AtomicU64::new(u64::MAX));
    let seen = std::sync::Arc::clone(&lowest);
    let scenario =
        scenario.hint(Hint::Tps(1_000)).on_progress(Duration::from_millis(100), move |progress| {
            seen.fetch_min(u64::from(progress.goal_tps), Ordering::Relaxed);
        });
    let running = std::thread::spawn(move || run(scenario, 20));
    support::until("it is under way", || target.served() >= 2_000);
    target.stall(Duration::from_secs(2));
    let statistics = running.join().expect("the run ends");
    let lowest = lowest.load(Ordering::Relaxed);
    assert!(lowest < 700, "asked for {lowest} at least, though it stood still");
    assert!(statistics.goal_tps > 700, "{statistics}");
}

#[test]
fn a_capacity_is_found_with_its_interval_and_ends_the_run() {
    let target = Target::builder().capacity(2_000).start().expect("a target");
    // It ends by itself, long before the minute is over.
    let statistics = run(visitor(target.url()).error_rate(0.05).find_capacity(), 59);
    assert!(statistics.elapsed < Duration::from_secs(50), "{:?}", statistics.elapsed);
    assert!(!statistics.stopped, "it has come to its own end: {statistics}");
    let search = statistics.search.as_ref().expect("a search");
    let capacity = search.capacity.expect("found");
    let (low, high) = capacity.interval.expect("bound by its limit");
    // 5 % more than the 2 000 that it answers.
    assert!((1_900.0..2_350.0).contains(&capacity.tps), "{capacity}");
    assert!(low < capacity.tps && capacity.tps < high, "{capacity}");
    assert_eq!(capacity.bound_by, Some(Limit::ErrorRate(0.05)));
    assert_eq!(search.limits, [Limit::ErrorRate(0.05)]);
    let completed: u64 = search.points.iter().map(|point| point.completed).sum();
    assert!(completed <= statistics.counts.completed());
    assert!(search.points.iter().any(|point| point.tps > 2_100), "it was never beyond");
}

#[test]
fn a_sweep_goes_up_and_down_again() {
    let target = Target::builder().delay(Duration::from_millis(1)).start().expect("a target");
    let sweep = visitor(target.url()).sweep([200, 400, 800], Duration::from_millis(700));
    let sweep = support::wait(sweep).expect("the machine allows runs");
    println!("{sweep}");
    let asked: Vec<_> = sweep.points.iter().map(|point| (point.tps, point.down)).collect();
    let expected =
        [(200, false), (400, false), (800, false), (800, true), (400, true), (200, true)];
    assert_eq!(asked, expected);
    for point in &sweep.points {
        assert_adds_up(&point.statistics);
        assert!(point.statistics.counts.completed() > u64::from(point.tps) / 2, "{sweep}");
        assert!(point.under_way() > 0.0);
    }
    assert!(sweep.knee().is_some() && sweep.scalability().is_some(), "{sweep}");
}

#[test]
fn what_ends_before_it_is_found_says_so() {
    let target = Target::builder().capacity(3_000).start().expect("a target");
    let statistics = run(visitor(target.url()).error_rate(0.03), 1);
    assert!(statistics.steady.is_none());
    assert!(matches!(statistics.verdict, Some(Verdict::Unsettled { .. })), "{statistics}");
}

#[test]
#[should_panic(expected = "above 0 and below 1")]
fn an_error_rate_in_per_cent_is_refused() {
    drop(visitor(String::new()).error_rate(3.0));
}

#[test]
#[should_panic(expected = "above 0 and below 1")]
fn a_quantile_in_per_cent_is_refused() {
    drop(visitor(String::new()).latency(Duration::from_millis(1), 95.0));
}
