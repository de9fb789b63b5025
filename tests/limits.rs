//! Limits on errors and latencies against real targets: the rate that is found, and what it says.
//! Bounds are wide and rates low, since the machine is shared: a shard with little to do has its core
//! as soon as it asks for it. How exact the search is, and at what rates, is shown in virtual time.

#[path = "support/lib.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{Limit, RatePoint, SearchEnd, Verdict};
use support::{assert_adds_up, once_fit, visitor};

fn run(scenario: Scenario, seconds: u64) -> RunStatistics {
    let statistics = support::wait(scenario.duration(Duration::from_secs(seconds)));
    println!("{statistics}");
    assert_adds_up(&statistics);
    statistics
}

/// Whether the generator was in time: what a target met otherwise was another load.
fn in_time(statistics: RunStatistics) -> Result<RunStatistics, String> {
    let late = statistics.lateness.quantile(0.99);
    if late < Duration::from_millis(60) && statistics.counts.started > 0 {
        Ok(statistics)
    } else {
        Err(format!("a lag of {late:?} (p99): {statistics}"))
    }
}

/// How many a second came lately: an exponential mean, so that a bunch of them, as it comes from a
/// generator or a target that lost its core for some milliseconds, passes for no load.
struct Meter {
    begun: Instant,
    /// Time constant of the mean.
    lately_seconds: f64,
    state: Mutex<Load>,
}

#[derive(Default)]
struct Load {
    at_seconds: f64,
    tps: f64,
    /// What is beyond the capacity and has not been refused yet, below 1.
    owed: f64,
}

/// Time constant of the mean, for a service that refuses.
const LATELY_SECONDS: f64 = 0.4;

/// The same for one that is slow: what takes longer to come to its latency looks like a queue that
/// builds up.
const SLOW_SECONDS: f64 = 0.1;

impl Meter {
    fn new(lately_seconds: f64) -> Self {
        Self { begun: Instant::now(), lately_seconds, state: Mutex::default() }
    }

    /// Counts one. Answers the load, and whether one has to be refused to keep to the capacity.
    fn count(&self, capacity: f64) -> (f64, bool) {
        let now = self.begun.elapsed().as_secs_f64();
        let mut load = self.state.lock().expect("nothing panics while it is locked");
        let age = (now - load.at_seconds) / self.lately_seconds;
        load.at_seconds = now;
        load.tps = load.tps * (-age).exp() + 1.0 / self.lately_seconds;
        load.owed += (1.0 - capacity / load.tps).max(0.0);
        let refused = load.owed >= 1.0;
        load.owed -= f64::from(u8::from(refused));
        (load.tps, refused)
    }
}

/// A service that refuses what is beyond its capacity. The target of the crate does so too, but to
/// it what comes 10 ms too early is beyond it, and on a busy machine that is what comes too late.
#[scenario]
async fn refusing(meter: Arc<Meter>, capacity: f64) {
    loop {
        let _ = take(&meter, capacity).await;
    }
}

#[transaction]
async fn take(meter: &Meter, capacity: f64) -> Result<(), ()> {
    let (_, refused) = meter.count(capacity);
    balter_uring::time::sleep(Duration::from_millis(1)).await;
    if refused { Err(()) } else { Ok(()) }
}

/// Balter's own suite asks the same of its error rate controller, in 90 s.
#[test]
fn errors_beyond_a_capacity_are_kept_at_their_limit() {
    let statistics = once_fit(|| {
        let scenario =
            refusing(Arc::new(Meter::new(LATELY_SECONDS)), 650.0).tps(5_000).error_rate(0.03);
        in_time(run(scenario.hint(Hint::Tps(250)), 20))
    });
    let steady = statistics.steady.as_ref().expect("found within 20 s");
    assert!((600..725).contains(&statistics.goal_tps), "{}", statistics.goal_tps);
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

/// A service whose latency is its load over 1 000 a second times 400 ms, as in Balter's suite, but
/// for half the rate and twice the latency: a generator that is late by some milliseconds adds
/// little to that.
#[scenario]
async fn slower_with_load(meter: Arc<Meter>) {
    loop {
        answer(&meter).await;
    }
}

#[transaction]
async fn answer(meter: &Meter) {
    let (load, _) = meter.count(f64::INFINITY);
    balter_uring::time::sleep(Duration::from_secs_f64(0.4 * load / 1_000.0)).await;
}

/// Balter's suite: a p90 of 130 ms is between 120 and 140 ms then, and the rate 1 300.
#[test]
fn a_latency_that_grows_with_the_load_is_kept_at_its_limit() {
    let statistics = once_fit(|| {
        let scenario = slower_with_load(Arc::new(Meter::new(SLOW_SECONDS))).hint(Hint::Tps(350));
        in_time(run(scenario.latency(Duration::from_millis(260), 0.9), 20))
    });
    assert!((550..750).contains(&statistics.goal_tps), "{}", statistics.goal_tps);
    let p90 = statistics.latency_p90;
    assert!(p90 > Duration::from_millis(220) && p90 < Duration::from_millis(300), "{p90:?}");
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Limit { limit: Limit::Latency { .. }, .. }), "{verdict}");
    // Nothing else was asked for than to find it.
    assert!(!statistics.tps_limited);
}

/// Balter's suite: 10 000 a second with a delay of 1 ms, which are as many at a time as 1 000 with
/// one of 10 ms; and 500 with one of 400 ± 300 ms.
#[test]
fn delays_do_not_lower_a_rate() {
    let target = Target::builder().delay(Duration::from_millis(10)).start().expect("a target");
    reaches(|| visitor(target.url()).tps(1_000), 3, 2_850);

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
    reaches(|| noisy().tps(500).hint(Hint::Concurrency(400)), 5, 2_400);
}

/// Starts more than so many. What a generator misses that says to be late itself tells nothing of
/// its target.
#[track_caller]
fn reaches(scenario: impl Fn() -> Scenario, seconds: u64, fewest: u64) {
    let statistics = once_fit(|| {
        let statistics = run(scenario(), seconds);
        let late = statistics.counts.started <= fewest && statistics.distorted;
        if late { Err(statistics.to_string()) } else { Ok(statistics) }
    });
    assert!(statistics.counts.started > fewest, "{statistics}");
}

/// Balter's suite: of ten parts of a rate a service does seven; the goal comes down to those.
#[test]
fn a_goal_beyond_the_capacity_comes_down_to_it() {
    let statistics = once_fit(|| {
        let target = Target::builder().queueing_capacity(700).start().expect("a target");
        let scenario = visitor(target.url()).tps(1_000).latency(Duration::from_millis(200), 0.95);
        let statistics = run(scenario.hint(Hint::Tps(400)), 20);
        // Before it was asked for more than it does, nothing of it can have been so late.
        let points = &statistics.search.as_ref().expect("a search").points;
        let mut before = points.iter().take_while(|point| point.tps <= 700);
        let late = |point: &RatePoint| point.broken.iter().any(|b| b.share() > Some(0.05));
        match before.find(|&point| late(point)) {
            Some(point) => Err(format!("late without cause: {point:?}")),
            None => in_time(statistics),
        }
    });
    assert!((600..730).contains(&statistics.goal_tps), "{statistics}");
    assert!(statistics.actual_tps > 600.0, "{statistics}");
    assert!(statistics.tps_limited, "{statistics}");
}

#[test]
fn a_goal_within_the_limits_is_reached() {
    let statistics = once_fit(|| {
        let target = Target::start().expect("a target");
        let scenario = visitor(target.url()).tps(500).error_rate(0.05).hint(Hint::Tps(125));
        in_time(run(scenario.latency(Duration::from_millis(500), 0.9), 8))
    });
    assert_eq!(statistics.goal_tps, 500);
    assert!((475.0..525.0).contains(&statistics.actual_tps), "{}", statistics.actual_tps);
    assert!(matches!(statistics.verdict, Some(Verdict::GoalReached { .. })), "{statistics}");
    assert!(!statistics.tps_limited);
}

#[test]
fn a_queue_in_the_target_is_not_grown_without_bound() {
    let statistics = once_fit(|| {
        let target = Target::builder().queueing_capacity(375).start().expect("a target");
        in_time(run(visitor(target.url()).error_rate(0.03).hint(Hint::Tps(125)), 20))
    });
    // It gives no errors, it is merely late: the rate stays where its answers keep up.
    assert!((250..450).contains(&statistics.goal_tps), "{statistics}");
    assert!(statistics.concurrency < 2_000, "{}", statistics.concurrency);
}

#[test]
fn a_stall_lowers_the_rate_and_is_got_over() {
    let target = Target::builder().delay(Duration::from_millis(2)).start().expect("a target");
    let scenario = visitor(target.url()).tps(1_000).latency(Duration::from_millis(100), 0.95);
    let lowest = Arc::new(AtomicU64::new(u64::MAX));
    let seen = Arc::clone(&lowest);
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
    let statistics = once_fit(|| {
        let scenario = refusing(Arc::new(Meter::new(LATELY_SECONDS)), 800.0).error_rate(0.05);
        // It ends by itself, long before the minute is over.
        in_time(run(scenario.hint(Hint::Tps(250)).find_capacity(), 59))
    });
    assert!(statistics.elapsed < Duration::from_secs(50), "{:?}", statistics.elapsed);
    assert!(!statistics.stopped, "it has come to its own end: {statistics}");
    let search = statistics.search.as_ref().expect("a search");
    let capacity = search.capacity.expect("found");
    let (low, high) = capacity.interval.expect("bound by its limit");
    // 5 % more than the 800 that it answers.
    assert!((750.0..930.0).contains(&capacity.tps), "{capacity}");
    assert!(low < capacity.tps && capacity.tps < high, "{capacity}");
    assert_eq!(capacity.bound_by, Some(Limit::ErrorRate(0.05)));
    assert_eq!(search.limits, [Limit::ErrorRate(0.05)]);
    let completed: u64 = search.points.iter().map(|point| point.completed).sum();
    assert!(completed <= statistics.counts.completed());
    assert!(search.points.iter().any(|point| point.tps > 840), "it was never beyond");
}

/// Every answer takes 400 ms, of any number: three windows without one are no dead target.
#[test]
fn answers_that_take_long_are_waited_for() {
    let statistics = once_fit(|| {
        let delay = Duration::from_millis(400);
        let target = Target::builder().delay(delay).start().expect("a target");
        let scenario = visitor(target.url()).tps(800).latency(Duration::from_secs(1), 0.95);
        in_time(run(scenario.hint(Hint::Tps(200)), 20))
    });
    assert_eq!(statistics.goal_tps, 800, "{statistics}");
    assert!(matches!(statistics.verdict, Some(Verdict::GoalReached { .. })), "{statistics}");
}

/// Every answer takes 50 ms where 20 ms may be: no rate helps, and the search ends and says so.
#[test]
fn a_limit_that_no_rate_meets_ends_the_search() {
    let target = Target::builder().delay(Duration::from_millis(50)).start().expect("a target");
    let scenario = visitor(target.url()).latency(Duration::from_millis(20), 0.95);
    let statistics = run(scenario.hint(Hint::Tps(200)).find_capacity(), 59);
    assert!(statistics.elapsed < Duration::from_secs(50), "{:?}", statistics.elapsed);
    let search = statistics.search.as_ref().expect("a search");
    assert!(matches!(search.end, Some(SearchEnd::Unreachable { .. })), "{:?}", search.end);
    assert!(search.capacity.is_none());
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::NotFound { .. }), "{verdict}");
}

/// A service that fails everything from one moment to another.
#[scenario]
async fn failing(from: Duration, to: Duration, begun: Instant) {
    loop {
        let _ = serve(from, to, begun).await;
    }
}

#[transaction]
async fn serve(from: Duration, to: Duration, begun: Instant) -> Result<(), ()> {
    balter_uring::time::sleep(Duration::from_millis(2)).await;
    if (from..to).contains(&begun.elapsed()) { Err(()) } else { Ok(()) }
}

#[test]
fn a_target_that_dies_is_relieved_and_the_run_has_not_reached_its_goal() {
    let (from, never) = (Duration::from_secs(6), Duration::MAX);
    let scenario = failing(from, never, Instant::now()).tps(1_000).error_rate(0.03);
    let statistics = run(scenario, 12);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Failing { .. }), "{verdict}");
    assert!(statistics.tps_limited);
    let failed: u64 = statistics.counts.failed;
    assert!(failed < 2_000, "{failed} were asked of a target that failed them all");
    // What it bore before it does no more.
    let search = statistics.search.as_ref().expect("searched");
    assert!(search.capacity.is_none() && search.end.is_none_or(|end| !end.is_found()));
}

#[test]
fn after_an_outage_the_former_rate_is_back() {
    let statistics = once_fit(|| {
        let (from, to) = (Duration::from_secs(6), Duration::from_secs(10));
        let scenario = failing(from, to, Instant::now()).tps(1_000).error_rate(0.03);
        in_time(run(scenario, 25))
    });
    assert_eq!(statistics.goal_tps, 1_000, "{statistics}");
    // Five of the ten seconds that there were after it, at the least.
    let steady = statistics.steady.as_ref().expect("held again");
    assert!(steady.elapsed > Duration::from_secs(5), "{statistics}");
    assert!(matches!(statistics.verdict, Some(Verdict::GoalReached { .. })), "{statistics}");
}

#[test]
fn what_ends_before_it_is_found_says_so() {
    let target = Target::builder().capacity(800).start().expect("a target");
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
