//! A user's flow has pauses. The rate that was asked for is made all the same, without hints: see
//! `benches/load.rs` for the figures; here is what holds on any machine.

#[path = "support/lib.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use balter_uring::Verdict;
use balter_uring::prelude::*;
use support::{assert_adds_up, once_fit, wait, work};

/// One transaction of a millisecond, then a pause.
#[scenario]
async fn pausing(think: Duration) {
    loop {
        work(Duration::from_millis(1)).await;
        balter_uring::time::sleep(think).await;
    }
}

/// The same three times, with pauses of 50, 100 and 150 ms.
#[scenario]
async fn browsing() {
    loop {
        for pause_ms in [50, 100, 150] {
            work(Duration::from_millis(1)).await;
            balter_uring::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }
}

/// Asks for a rate; the run counts if this machine let the generator be in time.
fn at(scenario: impl Fn() -> Scenario, tps: u32, seconds: u64, cycle: Duration) -> RunStatistics {
    once_fit(|| {
        let statistics = wait(scenario().tps(tps).duration(Duration::from_secs(seconds)));
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.planned, u64::from(tps) * seconds, "{statistics}");
        // What the shards themselves stood still for says nothing of their instances.
        let own = statistics.lateness.quantile(0.95);
        if own > Duration::from_millis(20) || statistics.counts.missed > 0 {
            return Err(format!("late by {own:?} (p95): {statistics}"));
        }
        // Little's law, and room for what a busy machine holds up.
        let needed = f64::from(tps) * cycle.as_secs_f64();
        assert!(statistics.concurrency as f64 >= 0.9 * needed, "{needed}: {statistics}");
        assert!((statistics.concurrency as f64) < 2.0 * needed + 30.0, "{needed}: {statistics}");
        let ratio = statistics.cycle.as_secs_f64() / cycle.as_secs_f64();
        assert!((0.9..1.5).contains(&ratio), "a cycle of {:?}", statistics.cycle);
        Ok(statistics)
    })
}

#[test]
fn pauses_of_a_second_are_no_hindrance() {
    let think = Duration::from_secs(1);
    let statistics = at(move || pausing(think), 200, 4, Duration::from_millis(1_001));
    assert!(matches!(statistics.verdict, Some(Verdict::GoalReached { .. })), "{statistics}");
    assert!(statistics.waits.for_instances < Duration::from_secs(40), "{statistics}");
}

#[test]
fn nor_are_short_ones_nor_several_transactions() {
    let think = Duration::from_millis(100);
    let statistics = at(move || pausing(think), 200, 3, Duration::from_millis(101));
    assert!(matches!(statistics.verdict, Some(Verdict::GoalReached { .. })), "{statistics}");
    let statistics = at(browsing, 200, 3, Duration::from_millis(101));
    assert!(matches!(statistics.verdict, Some(Verdict::GoalReached { .. })), "{statistics}");
}

/// The pause comes first: nobody can be in time for what is due meanwhile, and what is due then is.
#[test]
fn a_pause_before_the_first_transaction_makes_no_burst() {
    #[scenario]
    async fn waiting_first(starts: Arc<AtomicU64>) {
        loop {
            balter_uring::time::sleep(Duration::from_millis(600)).await;
            starts.fetch_add(1, Ordering::Relaxed);
            work(Duration::from_millis(1)).await;
        }
    }
    once_fit(|| {
        let starts = Arc::new(AtomicU64::new(0));
        let run = waiting_first(Arc::clone(&starts)).tps(200).duration(Duration::from_secs(4));
        let statistics = wait(run);
        assert_adds_up(&statistics);
        let own = statistics.lateness.quantile(0.95);
        if own > Duration::from_millis(20) {
            return Err(format!("late by {own:?} (p95): {statistics}"));
        }
        // The first 600 ms of 4 s at most, and a little.
        assert!(statistics.counts.missed < 200, "{statistics}");
        // None of those who came late was handed something old.
        assert!(statistics.lag.quantile(0.95) < Duration::from_millis(60), "{statistics}");
        assert!((120..250).contains(&statistics.concurrency), "{statistics}");
        Ok(())
    });
}

/// Regression: 18 a second with ten instances.
#[test]
fn saturation_counts_what_is_under_way_and_not_who_pauses() {
    let run = pausing(Duration::from_secs(1)).saturate().max_concurrency(500);
    let statistics = wait(run.duration(Duration::from_secs(4)));
    assert_adds_up(&statistics);
    // All that may be there are wanted: each does one a second.
    assert!(statistics.concurrency > 400, "{statistics}");
    assert!(statistics.counts.completed() > 600, "{statistics}");
}

/// As many as there may be, and they pause: neither the target nor the generator is to blame.
#[test]
fn too_few_instances_for_the_pauses_are_named_with_the_number_that_it_takes() {
    let run = pausing(Duration::from_millis(500)).tps(200).max_concurrency(20);
    let statistics = wait(run.duration(Duration::from_secs(3)));
    assert_adds_up(&statistics);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::ConcurrencyLimit { .. }), "{statistics}");
    assert!(verdict.to_string().contains("so that the rate takes 1"), "{verdict}");
    assert!(statistics.waits.for_instances > statistics.waits.for_target, "{statistics}");
}

/// A transaction that is asked for once and then kept, or leaked, takes no permit from the others.
#[test]
fn transactions_that_nobody_polls_any_more_hold_nothing_up() {
    #[scenario]
    async fn forgetful(lost: Arc<AtomicU64>) {
        let mut kept = Vec::new();
        loop {
            work(Duration::ZERO).await;
            let mut other = Box::pin(work(Duration::ZERO));
            // Polled once, which takes its place in the queue of those that wait for a permit.
            if futures_lite::future::poll_once(&mut other).await.is_none() {
                match lost.fetch_add(1, Ordering::Relaxed) % 2 {
                    0 => kept.push(other),
                    _ => std::mem::forget(other),
                }
            }
        }
    }
    let lost = Arc::new(AtomicU64::new(0));
    let run = forgetful(Arc::clone(&lost)).tps(100).duration(Duration::from_secs(2));
    let statistics = wait(run.grace(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    assert!(lost.load(Ordering::Relaxed) > 10, "{statistics}");
    assert_eq!(statistics.counts.planned, 200);
    assert!(statistics.shards.iter().all(|shard| !shard.lost), "{statistics}");
    assert!(statistics.counts.succeeded > 100, "{statistics}");
}

/// More is asked for than the shards can do: that is their lateness, and no lack of instances.
#[test]
fn a_shard_without_time_of_its_own_is_late_itself() {
    #[transaction]
    async fn compute() {
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(1) {
            std::hint::spin_loop();
        }
    }
    #[scenario]
    async fn computing() {
        loop {
            compute().await;
        }
    }
    // At most 1 000 a second on a shard.
    let statistics = wait(computing().tps(20_000).duration(Duration::from_secs(2)));
    assert_adds_up(&statistics);
    assert!(statistics.distorted && statistics.tps_limited, "{statistics}");
    let (lag, own) = (statistics.lag.quantile(0.99), statistics.lateness.quantile(0.99));
    assert!(own.as_secs_f64() >= 0.9 * lag.as_secs_f64(), "{own:?} of {lag:?}: {statistics}");
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(
        matches!(verdict, Verdict::Generator { .. } | Verdict::Processor { .. }),
        "{statistics}"
    );
}

/// What a scenario gives up is told, whatever the verdict.
#[test]
fn transactions_that_the_scenario_gives_up_are_noted() {
    #[scenario]
    async fn impatient() {
        loop {
            let given_up = work(Duration::from_secs(5));
            let _ = futures_lite::future::or(
                given_up,
                balter_uring::time::sleep(Duration::from_millis(20)),
            )
            .await;
        }
    }
    let statistics = wait(impatient().tps(100).duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    assert!(statistics.counts.cancelled > 20, "{statistics}");
    let note = statistics.notes.iter().find(|note| note.contains("were given up"));
    assert!(note.is_some(), "{statistics}");
}

/// Started, and then kept: at its deadline it is timed out, and its place is free, though nobody asks
/// for its end.
#[test]
fn transactions_that_are_started_and_kept_give_their_place_back_at_their_deadline() {
    #[scenario]
    async fn keeping() {
        let mut kept = Vec::new();
        loop {
            let mut one = Box::pin(work(Duration::from_secs(60)));
            // It asks for its permit, is given it, and begins; nobody polls it after that.
            for _ in 0..40 {
                let _ = futures_lite::future::poll_once(&mut one).await;
                balter_uring::time::sleep(Duration::from_millis(2)).await;
            }
            kept.push(one);
        }
    }
    let run = keeping().tps(20).max_concurrency(1).timeout(Duration::from_millis(200));
    let statistics = wait(run.duration(Duration::from_secs(3)).grace(Duration::from_millis(100)));
    assert_adds_up(&statistics);
    let timeouts = support::failures(&statistics, balter_uring::FailureClass::Timeout);
    assert!(timeouts >= 5, "{statistics}");
    // Under way at the end are those of the last 200 ms at most, and whatever a busy machine adds.
    assert_eq!(statistics.counts.started, timeouts + statistics.counts.cancelled, "{statistics}");
    assert!(statistics.counts.cancelled <= 10, "{statistics}");
}

/// Started, and then leaked: it never ends, so the run waits for its grace and no longer.
#[test]
fn a_leaked_transaction_counts_as_cancelled() {
    #[scenario]
    async fn leaking() {
        let mut one = Box::pin(work(Duration::from_secs(60)));
        while futures_lite::future::poll_once(&mut one).await.is_none() {
            balter_uring::time::sleep(Duration::from_millis(20)).await;
            if leaks_now() {
                std::mem::forget(one);
                break;
            }
        }
        std::future::pending::<()>().await;
    }
    fn leaks_now() -> bool {
        static POLLS: AtomicU64 = AtomicU64::new(0);
        POLLS.fetch_add(1, Ordering::Relaxed) > 5
    }
    let run = leaking().tps(5).max_concurrency(1).duration(Duration::from_secs(1));
    let statistics = wait(run.grace(Duration::from_millis(300)));
    assert_adds_up(&statistics);
    assert_eq!((statistics.counts.started, statistics.counts.cancelled), (1, 1), "{statistics}");
}
