//! User code may panic anywhere: it is counted and told of, and nothing else suffers.

#[path = "support/lib.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use balter_uring::prelude::*;
use balter_uring::{FailureClass, Verdict};
use support::{assert_adds_up, failures, in_a_child, role, wait, work, worker};

#[test]
fn a_transaction_that_panics_now_and_then_is_counted_each_time() {
    support::without_backtraces();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    static BOOMS: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn shaky() {
        loop {
            flaky().await;
        }
    }
    #[transaction]
    async fn flaky() {
        balter_uring::time::sleep(Duration::from_micros(200)).await;
        if CALLS.fetch_add(1, Ordering::SeqCst) % 10 == 9 {
            let boom = BOOMS.fetch_add(1, Ordering::SeqCst);
            panic!("boom number {boom}");
        }
    }
    let statistics = wait(shaky().tps(500).duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    let booms = BOOMS.load(Ordering::SeqCst);
    assert!(booms >= 3, "{booms}");
    assert_eq!(statistics.panics, booms);
    assert_eq!(failures(&statistics, FailureClass::Panic), booms);
    assert_eq!(statistics.counts.failed, booms);
    assert_eq!(statistics.counts.completed(), CALLS.load(Ordering::SeqCst));
    assert_eq!(statistics.panic_message.as_deref(), Some("boom number 0"));
    assert_eq!(statistics.error_rate, 0.0, "a panic is no fault of the target");
    assert_eq!(statistics.counts.planned, 500);
}

#[test]
fn a_scenario_that_panics_between_transactions_is_replaced() {
    support::without_backtraces();
    #[scenario]
    async fn stumbling() {
        work(Duration::from_millis(1)).await;
        work(Duration::from_millis(1)).await;
        panic!("{} {}", "formatted", "text");
    }
    let statistics = wait(stumbling().tps(400).duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    assert!(statistics.panics >= 10, "{statistics}");
    assert_eq!(statistics.counts.failed, 0, "no transaction was under way: {statistics}");
    assert!(statistics.counts.succeeded >= 20, "{statistics}");
    assert_eq!(statistics.panic_message.as_deref(), Some("formatted text"));
}

#[test]
fn a_scenario_that_does_nothing_but_panic_ends_early_with_what_it_has() {
    support::without_backtraces();
    #[scenario]
    async fn hopeless() {
        panic!("hopeless");
    }
    #[scenario]
    async fn hopeless_in_a_transaction() {
        fail().await;
    }
    #[transaction]
    async fn fail() {
        panic!("hopeless");
    }
    for run in [
        hopeless().tps(1_000),
        hopeless().concurrency(3),
        hopeless_in_a_transaction().tps(1_000),
        hopeless_in_a_transaction().concurrency(3),
    ] {
        let begun = Instant::now();
        let statistics = wait(run.duration(Duration::from_secs(3_600)));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_adds_up(&statistics);
        assert!((100..1_000).contains(&statistics.panics), "{statistics}");
        assert_eq!(statistics.counts.succeeded, 0);
        assert_eq!(statistics.panic_message.as_deref(), Some("hopeless"));
        assert_eq!(
            statistics.verdict,
            Some(Verdict::Panics { panics: statistics.panics }),
            "{statistics}"
        );
        assert!(statistics.tps_limited);
        assert!(statistics.elapsed < Duration::from_secs(20), "{:?}", statistics.elapsed);
    }
}

#[test]
fn a_drop_that_panics_is_counted_and_its_run_goes_on() {
    support::without_backtraces();
    struct Sour;
    impl Drop for Sour {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("sour drop");
            }
        }
    }
    #[scenario]
    async fn sour() {
        // Held across a wait that its timeout ends: dropped with the future.
        work(Duration::from_micros(100)).await;
        let _sour = Sour;
        slow().await;
    }
    #[transaction]
    async fn slow() {
        let _sour = Sour;
        std::future::pending::<()>().await;
    }
    let run = sour().concurrency(4).timeout(Duration::from_millis(50));
    let statistics = wait(run.duration(Duration::from_millis(600)));
    assert_adds_up(&statistics);
    assert!(statistics.panics >= 4, "{statistics}");
    assert_eq!(statistics.panic_message.as_deref(), Some("sour drop"));
    assert!(failures(&statistics, FailureClass::Timeout) >= 4, "{statistics}");
    assert!(statistics.counts.succeeded >= 8, "it went on after the first: {statistics}");
}

#[test]
fn a_drop_that_panics_when_the_run_ends_does_not_keep_it_from_its_statistics() {
    support::without_backtraces();
    struct Sour;
    impl Drop for Sour {
        fn drop(&mut self) {
            panic!("sour end");
        }
    }
    #[scenario]
    async fn sour_end() {
        let _sour = Sour;
        loop {
            work(Duration::from_millis(1)).await;
        }
    }
    let statistics = wait(sour_end().concurrency(3).duration(Duration::from_millis(300)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.panics, 3, "{statistics}");
    assert!(statistics.counts.succeeded > 10, "{statistics}");
    assert_eq!(statistics.panic_message.as_deref(), Some("sour end"));
}

#[test]
fn other_scenarios_do_not_notice() {
    support::without_backtraces();
    #[scenario]
    async fn noisy() {
        work(Duration::from_millis(1)).await;
        panic!("noise");
    }
    let quiet = worker(Duration::from_millis(1)).tps(500).duration(Duration::from_secs(1));
    let noisy = noisy().concurrency(3).duration(Duration::from_secs(1));
    let (quiet, noisy) = wait(futures_lite::future::zip(quiet, noisy));
    assert_adds_up(&quiet);
    assert_adds_up(&noisy);
    assert!(noisy.panics > 5, "{noisy}");
    assert_eq!((quiet.panics, quiet.panic_message.as_deref()), (0, None));
    support::assert_all_well(&quiet, 500);
}

#[test]
fn a_progress_callback_that_panics_does_not_end_its_run() {
    support::without_backtraces();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let run = worker(Duration::ZERO).tps(300).on_progress(Duration::from_millis(50), |_| {
        CALLS.fetch_add(1, Ordering::SeqCst);
        panic!("in the callback");
    });
    let statistics = wait(run.duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    support::assert_all_well(&statistics, 300);
    assert_eq!(CALLS.load(Ordering::SeqCst), 1, "it is not called again");
    assert_eq!(statistics.panics, 0, "it is no part of the scenario");
}

#[test]
fn a_progress_callback_is_called_and_sees_the_run() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = std::sync::Arc::clone(&seen);
    let run =
        worker(Duration::ZERO).tps(1_000).on_progress(Duration::from_millis(200), move |at| {
            notes.lock().expect("no other panics").push(at.clone());
        });
    let statistics = wait(run.duration(Duration::from_millis(1_500)));
    // A shard that stood still for as long as a line had nothing to tell in it.
    let stood_still = statistics.lag.max() > Duration::from_millis(100);
    let seen = seen.lock().expect("no other panics");
    assert!((1..=8).contains(&seen.len()), "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0].elapsed < pair[1].elapsed), "{seen:?}");
    for progress in &*seen {
        assert_eq!((progress.scenario, progress.goal_tps), ("worker", 1_000));
        // A shard that tells of its last window late has no instances any more by then.
        let is_over = progress.elapsed >= Duration::from_millis(1_500);
        assert!(progress.instances > 0 || is_over, "{progress:?}");
        assert!(progress.tps > 0.0 || stood_still, "{progress:?}");
    }
    assert!(seen.iter().any(|progress| progress.tps > 0.0), "{seen:?}");
}

#[test]
fn a_task_that_panics_is_counted_and_its_handle_says_so() {
    support::without_backtraces();
    static NONE: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn parent() {
        loop {
            let task = balter_uring::spawn(async {
                work(Duration::from_millis(2)).await;
                panic!("in a task");
            });
            if task.await.is_none() {
                NONE.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    let statistics = wait(parent().concurrency(1).duration(Duration::from_millis(300)));
    assert_adds_up(&statistics);
    assert!(statistics.panics >= 2, "{statistics}");
    assert!(NONE.load(Ordering::SeqCst).abs_diff(statistics.panics) <= 1, "{statistics}");
    assert_eq!(statistics.panic_message.as_deref(), Some("in a task"));
}

#[test]
fn arguments_whose_clone_or_drop_panics_end_their_own_run_alone() {
    for role in ["clone on a shard", "clone on the way", "drop"] {
        in_a_child(role).assert_success();
    }
}

#[test]
fn standard_error_gets_the_message_of_a_run_once_and_those_of_others_in_full() {
    let ended = in_a_child("many panics");
    ended.assert_success();
    let told = |message| ended.errors.matches(message).count();
    assert!(ended.number("panics") >= 199, "{ended:#?}");
    assert_eq!(told("boom in run 0"), 1, "{ended:#?}");
    assert_eq!(told("boom in run 1"), 1, "{ended:#?}");
    assert_eq!(told("nobody's run"), 3, "{ended:#?}");
}

/// Two runs on all shards whose transactions panic every other time, and a thread that does.
fn panic_often() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn booming(run: u64) {
        loop {
            boom(run).await;
        }
    }
    #[transaction]
    async fn boom(run: u64) {
        balter_uring::time::sleep(Duration::from_micros(100)).await;
        assert!(CALLS.fetch_add(1, Ordering::SeqCst).is_multiple_of(2), "boom in run {run}");
    }
    let elsewhere = || {
        let thread = std::thread::spawn(|| panic!("nobody's run"));
        assert!(thread.join().is_err());
    };
    elsewhere();
    let mut panics = 0;
    for run in 0..2 {
        let statistics = wait(booming(run).concurrency(8).duration(Duration::from_secs(1)));
        assert_adds_up(&statistics);
        panics += statistics.panics;
        elsewhere();
    }
    support::tell(format_args!("panics={panics}"));
}

#[test]
fn child() {
    support::without_backtraces();
    use std::sync::Arc;

    /// Panics in its n-th clone, and each one after, or in its drops.
    struct Argument {
        clones_left: Arc<AtomicU64>,
        sour: bool,
    }
    impl Clone for Argument {
        fn clone(&self) -> Self {
            let left = self.clones_left.load(Ordering::SeqCst);
            assert!(left > 0, "no more clones");
            self.clones_left.store(left - 1, Ordering::SeqCst);
            Self { clones_left: Arc::clone(&self.clones_left), sour: self.sour }
        }
    }
    impl Drop for Argument {
        fn drop(&mut self) {
            if self.sour && !std::thread::panicking() {
                panic!("a sour argument");
            }
        }
    }
    #[scenario]
    async fn takes(argument: Argument) {
        let _argument = argument;
        loop {
            work(Duration::from_millis(1)).await;
        }
    }

    let Some(role) = role() else { return };
    let (clones, sour) = match &*role {
        // The first is made where the run is begun, the next for each shard, the rest by them.
        "clone on a shard" => (2, false),
        "clone on the way" => (1, false),
        "drop" => (u64::MAX, true),
        "many panics" => return panic_often(),
        role => panic!("no such role: {role}"),
    };
    let argument = Argument { clones_left: Arc::new(AtomicU64::new(clones)), sour };
    let other = std::thread::spawn(|| {
        wait(worker(Duration::from_millis(1)).tps(300).cores([0]).duration(Duration::from_secs(2)))
    });
    std::thread::sleep(Duration::from_millis(700));
    let run = takes(argument).concurrency(2).cores([0]).duration(Duration::from_millis(300));
    let broken = std::thread::spawn(move || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            futures_lite::future::block_on(run.run())
        }))
    });
    let begun = Instant::now();
    let _ = broken.join();
    assert!(begun.elapsed() < Duration::from_secs(15), "it did not end");
    let other = other.join().expect("the other run ends");
    assert_adds_up(&other);
    assert!(other.error.is_none(), "{other}");
    support::assert_all_well(&other, 600);
}
