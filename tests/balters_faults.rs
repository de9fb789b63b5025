//! What Balter 0.8.2 does wrong, each with the tests that fail if this engine did the same.
//!
//! | | Balter's fault | held by |
//! |---|---|---|
//! | 1 | latency is clocked after the limiter: coordinated omission | `stall`; `endings::user_code_that_blocks_the_thread_shows_as_lag_and_distorts` |
//! | 2 | far above a latency's limit its controller changes nothing | controllers' `balters_faults::latencies_far_beyond_their_limit_bring_the_rate_down_at_once`; `limits::a_stall_lowers_the_rate_and_is_got_over` |
//! | 3 | from some 2 % of errors on it never raises the rate | controllers' `balters_faults::errors_below_their_limit_…`, `…::a_goal_is_reached_in_spite_of_errors_below_their_limit` |
//! | 4 | an idle interval passes for a good one and doubles the load | controllers' `balters_faults::idle_windows_…`, `rate::windows_without_anything_are_no_data`, `concurrency::windows_without_evidence_change_nothing` |
//! | 5 | the cap on the rate is undone a tick later | controllers' `balters_faults::the_goal_is_a_cap_for_an_hour`, `…::a_saturated_target_is_not_asked_for_more_again`; here `the_rate_asked_for_is_never_exceeded` |
//! | 6 | concurrency only grows | controllers' `concurrency::concurrency_comes_down_when_the_latency_has_…`; here `instances_end_when_a_slow_phase_is_over` |
//! | 7 | a step of its controllers takes 5 to 25 s | controllers' `balters_faults::a_step_of_the_search_takes_windows`; here `a_far_rate_is_reached_in_seconds` |
//! | 8 | statistics are of the last second | here `statistics_are_of_the_whole_run` and `what_was_held_is_told_apart_from_the_search` |
//! | 9 | work in flight is aborted; dead tasks are concurrency | `endings::the_grace_lets_what_is_in_flight_end`, `…::what_outlives_the_grace_is_cancelled`; `instances::a_closed_loop_has_exactly_so_many_in_flight`; here `the_dead_are_no_concurrency`, `what_is_in_flight_at_the_end_is_answered` |
//! | 10 | a run overshoots its duration by a sample | `counts::an_open_loop_plans_exactly_rate_times_seconds`; here `a_run_is_as_long_as_was_asked` |
//!
//! 11 to 14 are of its macros, its distribution and its features: `tests/ui`, `instances` and
//! `.ci/run`.

#[path = "support/lib.rs"]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{Progress, scenario, transaction};
use support::{assert_adds_up, visitor, wait, worker};

/// Runs a scenario, and answers what its progress was besides.
fn watched(run: Scenario) -> (RunStatistics, Vec<Progress>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let statistics = wait(run.on_progress(Duration::from_millis(100), move |progress| {
        notes.lock().expect("no other panics").push(progress.clone());
    }));
    assert_adds_up(&statistics);
    let seen = std::mem::take(&mut *seen.lock().expect("no other panics"));
    (statistics, seen)
}

#[test]
fn the_rate_asked_for_is_never_exceeded() {
    let target = Target::builder().capacity(1_000).start().expect("a target");
    let scenario = visitor(target.url()).tps(800).error_rate(0.05);
    let (statistics, seen) = watched(scenario.duration(Duration::from_secs(4)));
    assert!(!seen.is_empty() && seen.iter().all(|at| at.goal_tps <= 800), "{seen:?}");
    assert!(statistics.counts.planned <= 800 * 4, "{:?}", statistics.counts);
}

#[test]
fn instances_end_when_a_slow_phase_is_over() {
    let target = Target::builder().delay(Duration::from_millis(300)).start().expect("a target");
    let run = visitor(target.url()).tps(400).duration(Duration::from_secs(12));
    let running = std::thread::spawn(move || watched(run));
    support::until("the slow phase is under way", || target.served() >= 800);
    target.set_delay(Duration::ZERO);
    let (statistics, seen) = running.join().expect("the run ends");
    let most = seen.iter().map(|at| at.instances).max().expect("some progress");
    // 120 are in flight while each takes 300 ms.
    assert!(most >= 90, "{most}");
    assert!(statistics.concurrency < 60, "{} of {most}", statistics.concurrency);
}

/// From 512 a second to 16 times that, with nothing in the way.
#[test]
fn a_far_rate_is_reached_in_seconds() {
    let scenario = worker(Duration::ZERO).tps(8_192).error_rate(0.05);
    let (statistics, seen) = watched(scenario.duration(Duration::from_secs(8)));
    let first = seen.iter().find(|at| at.goal_tps == 8_192);
    let first = first.unwrap_or_else(|| panic!("never reached: {statistics}"));
    // Four steps; Balter takes 20 s at least.
    assert!(first.elapsed < Duration::from_secs(6), "{:?}", first.elapsed);
}

/// All fail in the first half, and are slow then; the second half is well.
#[test]
fn statistics_are_of_the_whole_run() {
    let slow = Duration::from_millis(100);
    let target = Target::builder().error_rate(1.0).delay(slow).start().expect("a target");
    let run = visitor(target.url()).tps(500).duration(Duration::from_secs(4));
    let running = std::thread::spawn(move || wait(run));
    support::until("half of it is over", || target.served() >= 950);
    target.set_error_rate(0.0);
    target.set_delay(Duration::ZERO);
    let statistics = running.join().expect("the run ends");
    assert_adds_up(&statistics);
    assert!((0.3..0.7).contains(&statistics.error_rate), "{statistics}");
    assert!(statistics.latency_p90 >= slow, "{statistics}");
    assert_eq!(statistics.response.len(), statistics.counts.completed());
    assert!(statistics.counts.completed() > 1_500, "{statistics}");
}

/// With a limit, the figures are those of the rate that was found, over more than a second of it,
/// and the counts still of everything.
#[test]
fn what_was_held_is_told_apart_from_the_search() {
    let target = Target::start().expect("a target");
    let run = visitor(target.url()).tps(2_000).error_rate(0.05);
    let statistics = wait(run.duration(Duration::from_secs(8)));
    assert_adds_up(&statistics);
    let steady = statistics.steady.as_ref().expect("found within 8 s");
    assert!(steady.elapsed > Duration::from_secs(2), "{:?}", steady.elapsed);
    assert!(steady.elapsed < statistics.elapsed);
    assert!(steady.response.len() < statistics.response.len());
    assert!((1_500.0..2_100.0).contains(&statistics.actual_tps), "{statistics}");
    assert_eq!(target.served(), statistics.counts.started);
}

/// Instances that die are replaced, and only the living are counted.
#[test]
fn the_dead_are_no_concurrency() {
    support::without_backtraces();
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    struct Alive;
    impl Alive {
        fn new() -> Self {
            ALIVE.fetch_add(1, Ordering::SeqCst);
            Self
        }
    }
    impl Drop for Alive {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    #[scenario]
    async fn mortal() {
        let _alive = Alive::new();
        for _ in 0..3 {
            nap().await;
        }
        panic!("of age");
    }
    #[transaction]
    async fn nap() {
        balter_uring::time::sleep(Duration::from_millis(20)).await;
    }
    let most_alive = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most_alive);
    let run = mortal().concurrency(8).duration(Duration::from_secs(2));
    let statistics = wait(run.on_progress(Duration::from_millis(100), move |progress| {
        seen.fetch_max(ALIVE.load(Ordering::SeqCst), Ordering::SeqCst);
        assert!(progress.instances <= 8, "{progress:?}");
    }));
    assert_adds_up(&statistics);
    assert!(statistics.panics > 8, "each has died more than once: {}", statistics.panics);
    assert!(statistics.concurrency <= 8, "{}", statistics.concurrency);
    let most_alive = most_alive.load(Ordering::SeqCst);
    assert!((1..=8).contains(&most_alive), "{most_alive}");
    // Little's law: with the dead counted among the eight there would soon be none under way.
    let under_way = statistics.actual_tps * statistics.service.mean().as_secs_f64();
    assert!(under_way > 4.0, "{under_way} of 8: {statistics}");
    assert_eq!(ALIVE.load(Ordering::SeqCst), 0, "none outlives the run");
}

/// A rate that falls and a run that ends lose no answer that is on its way.
#[test]
fn what_is_in_flight_at_the_end_is_answered() {
    let target = Target::builder().delay(Duration::from_millis(250)).start().expect("a target");
    let run = visitor(target.url()).tps(200).hint(Hint::Concurrency(60));
    let statistics = wait(run.duration(Duration::from_secs(1)).grace(Duration::from_secs(10)));
    assert_adds_up(&statistics);
    assert_eq!((statistics.counts.failed, statistics.counts.cancelled), (0, 0), "{statistics}");
    assert_eq!(target.served(), statistics.counts.succeeded);
}

#[test]
fn a_run_is_as_long_as_was_asked() {
    let target = Target::start().expect("a target");
    let searched = visitor(target.url()).tps(5_000).error_rate(0.05);
    for (run, ms) in [
        (visitor(target.url()).tps(1_000), 300),
        (visitor(target.url()).tps(1_000), 1_700),
        // Balter samples such a rate every few seconds.
        (visitor(target.url()).tps(20), 1_100),
        (visitor(target.url()).concurrency(2), 700),
        (searched, 1_300),
    ] {
        let asked = Duration::from_millis(ms);
        let begun = Instant::now();
        let statistics = wait(run.duration(asked));
        let took = begun.elapsed();
        assert_adds_up(&statistics);
        assert_eq!(statistics.elapsed, asked);
        assert!(took >= asked && took < asked + Duration::from_millis(1_500), "{took:?}");
    }
}
