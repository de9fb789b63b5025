//! A run always ends, returns what it has, and leaves its shards fit for the next one.

#[path = "support/lib.rs"]
mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{FailureClass, Verdict};
use futures_lite::future::{block_on, poll_once};
use support::{
    assert_adds_up, failures, in_a_child, role, tell, until, visitor, wait, work, worker,
};

/// Waits until a target is asked for nothing any more, and answers how much it has served.
fn stands_still(target: &Target) -> u64 {
    let mut served = u64::MAX;
    until("a dropped run sends nothing any more", || {
        // The aggregator notices within its 20 ms and the shards at their next turn.
        std::thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut served, target.served()) == served
    });
    served
}

#[test]
fn a_dropped_future_stops_its_run_and_later_runs_work() {
    let target = Target::start().expect("a target");
    for run in [
        visitor(target.url()).tps(2_000),
        visitor(target.url()).concurrency(8),
        visitor(target.url()).tps(2_000).duration(Duration::from_secs(3_600)),
    ] {
        let before = target.served();
        let mut run = Box::pin(run);
        assert!(block_on(poll_once(&mut run)).is_none(), "it has just begun");
        until("the run sends", || target.served() > before + 50);
        drop(run);
        let stopped = stands_still(&target);

        let statistics = wait(visitor(target.url()).tps(200).duration(Duration::from_millis(500)));
        assert_adds_up(&statistics);
        support::assert_all_well(&statistics, 100);
        assert_eq!(target.served() - stopped, statistics.counts.started);
    }
}

#[test]
fn a_future_dropped_before_its_run_has_begun_leaves_nothing_running() {
    let target = Target::start().expect("a target");
    for _ in 0..5 {
        let mut run = Box::pin(visitor(target.url()).concurrency(4));
        assert!(block_on(poll_once(&mut run)).is_none());
    }
    // Never polled, never begun.
    drop(visitor(target.url()).concurrency(4));
    stands_still(&target);
}

#[test]
fn what_is_in_flight_when_the_run_is_dropped_is_dropped_too() {
    struct Alive;
    static ALIVE: AtomicU64 = AtomicU64::new(0);
    impl Drop for Alive {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    #[scenario]
    async fn stuck() {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        let _alive = Alive;
        work(Duration::from_secs(3_600)).await;
    }
    let mut run = Box::pin(stuck().concurrency(5));
    assert!(block_on(poll_once(&mut run)).is_none());
    until("five instances", || ALIVE.load(Ordering::SeqCst) == 5);
    drop(run);
    until("none is left", || ALIVE.load(Ordering::SeqCst) == 0);
}

#[test]
fn the_grace_lets_what_is_in_flight_end() {
    // All that is due in the first 300 ms ends after the run has.
    let run = worker(Duration::from_millis(600)).tps(100).max_concurrency(100);
    let statistics = wait(run.duration(Duration::from_millis(300)).grace(Duration::from_secs(5)));
    assert_adds_up(&statistics);
    support::assert_all_well(&statistics, statistics.counts.started);
    assert!(statistics.counts.succeeded >= 5, "{:?}", statistics.counts);
    assert_eq!(statistics.elapsed, Duration::from_millis(300), "the grace is no part of it");
}

#[test]
fn what_outlives_the_grace_is_cancelled() {
    let target = Target::start().expect("a target");
    target.stall(Duration::from_secs(6));
    let open = visitor(target.url()).tps(100).max_concurrency(50);
    let begun = Instant::now();
    let statistics =
        wait(open.duration(Duration::from_millis(400)).grace(Duration::from_millis(200)));
    assert!(begun.elapsed() < Duration::from_secs(4), "the grace was 200 ms");
    assert_adds_up(&statistics);
    let counts = statistics.counts;
    assert_eq!(counts.planned, 40);
    assert_eq!((counts.completed(), counts.cancelled), (0, counts.started), "{counts:?}");
    assert!(counts.cancelled >= 1, "{counts:?}");

    let closed = visitor(target.url()).concurrency(6).grace(Duration::from_millis(100));
    let statistics = wait(closed.duration(Duration::from_millis(300)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.cancelled, 6, "{:?}", statistics.counts);
    assert_eq!(statistics.counts.started, 6);
}

#[test]
fn a_transaction_that_outlives_its_timeout_fails_and_its_instance_starts_over() {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn never() {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        // Nothing wakes this: only the engine can end it.
        nothing().await;
        unreachable!("there is no result to go on with");
    }
    #[transaction]
    async fn nothing() {
        std::future::pending::<()>().await;
    }
    let run = never().concurrency(3).timeout(Duration::from_millis(100));
    let statistics = wait(run.duration(Duration::from_millis(750)));
    assert_adds_up(&statistics);
    let timeouts = failures(&statistics, FailureClass::Timeout);
    assert_eq!(timeouts, statistics.counts.failed);
    assert!((3..=3 * 8).contains(&timeouts), "{:?}", statistics.counts);
    assert!(BEGUN.load(Ordering::SeqCst) >= 6, "each started over at least once");
    assert_eq!(statistics.error_rate, 1.0, "a timeout is the target's fault");
    assert!(
        statistics.service.min() >= Duration::from_millis(99),
        "{:?}",
        statistics.service.min()
    );
    assert!(statistics.panic_message.is_none(), "{:?}", statistics.panic_message);
}

#[test]
fn a_client_gets_its_timeout_as_an_error_and_goes_on() {
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    static ERRORS: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn patient(url: String) {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        let request = balter_uring::http::Client::new().get(&url).prepare().expect("a valid URL");
        loop {
            if support::fetch(&request).await.is_err() {
                ERRORS.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    let target = Target::start().expect("a target");
    target.stall(Duration::from_secs(60));
    let run = patient(target.url()).concurrency(2).timeout(Duration::from_millis(100));
    let statistics = wait(run.duration(Duration::from_millis(650)));
    assert_adds_up(&statistics);
    let timeouts = failures(&statistics, FailureClass::Timeout);
    assert!(timeouts >= 2, "{:?}", statistics.counts);
    assert_eq!(timeouts, statistics.counts.failed);
    assert_eq!(BEGUN.load(Ordering::SeqCst), 2, "no instance had to start over");
    assert_eq!(ERRORS.load(Ordering::SeqCst), timeouts);
}

#[test]
fn a_scenario_without_transactions_ends_on_its_duration() {
    #[scenario]
    async fn idle() {
        std::future::pending::<()>().await;
    }
    #[scenario]
    async fn returning() {}
    for run in [idle().concurrency(3), idle().tps(100), returning().concurrency(2)] {
        let begun = Instant::now();
        let statistics = wait(run.duration(Duration::from_millis(300)));
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.started, 0, "{:?}", statistics.counts);
        assert_eq!(statistics.counts.missed, statistics.counts.planned);
    }
}

#[test]
fn a_scenario_that_returns_starts_over() {
    #[scenario]
    async fn once() {
        work(Duration::from_millis(1)).await;
    }
    let statistics = wait(once().tps(300).duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    support::assert_all_well(&statistics, 300);
}

#[test]
fn a_run_of_no_length_ends_at_once_with_nothing() {
    for run in [worker(Duration::ZERO).tps(1_000), worker(Duration::ZERO).concurrency(2)] {
        let statistics = wait(run.duration(Duration::ZERO));
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.planned, statistics.counts.started);
        assert_eq!(statistics.actual_tps, 0.0);
    }
}

#[test]
fn user_code_that_blocks_the_thread_shows_as_lag_and_distorts() {
    #[scenario]
    async fn blocking() {
        loop {
            block().await;
        }
    }
    #[transaction]
    async fn block() {
        std::thread::sleep(Duration::from_millis(300));
    }
    // In a process of its own: it would hold up the other tests of this one.
    if role().is_none() {
        in_a_child("blocking").assert_success();
        return;
    }
    let run = blocking().tps(100).max_concurrency(4).cores([0]);
    let statistics = wait(run.duration(Duration::from_millis(1_500)));
    assert_adds_up(&statistics);
    assert!(statistics.lag.quantile(0.99) >= Duration::from_millis(250), "{statistics}");
    assert!(statistics.service.min() >= Duration::from_millis(299), "{statistics}");
    assert!(statistics.distorted, "{statistics}");
    assert!(statistics.tps_limited, "{statistics}");
    assert!(statistics.counts.completed() >= 2, "{statistics}");
}

#[test]
fn the_run_of_a_scenario_that_never_yields_ends_all_the_same() {
    let ended = in_a_child("never yields");
    ended.assert_success();
    assert_eq!(ended.value("lost"), "true");
}

#[test]
fn a_lost_shard_ends_its_run_and_the_next_has_a_fresh_one() {
    for role in ["lost closed", "lost open", "lost one of two", "lost with windows under way"] {
        let ended = in_a_child(role);
        ended.assert_success();
        assert_eq!(ended.value("lost"), "true", "{role}");
        assert_eq!(ended.value("next"), "100", "{role}");
    }
}

#[test]
fn a_callback_that_is_slower_than_the_run_costs_no_count() {
    in_a_child("slow callback").assert_success();
}

#[test]
fn a_task_started_by_a_drop_at_the_end_does_not_outlive_the_run() {
    in_a_child("spawn in drop").assert_success();
}

#[test]
fn a_rate_that_no_machine_has_does_not_hold_the_shard_up() {
    in_a_child("impossible rate").assert_success();
}

#[test]
fn child() {
    static SPOIL: AtomicBool = AtomicBool::new(true);

    #[scenario]
    async fn stubborn() {
        work(Duration::from_millis(1)).await;
        loop {
            std::hint::spin_loop();
        }
    }

    static WORKED: AtomicU64 = AtomicU64::new(0);

    /// Does some work, however many share it, then has a task that nobody guards end the thread.
    #[scenario]
    async fn deadly(core: usize) {
        let here = rustix::thread::sched_getcpu() == core;
        while WORKED.load(Ordering::SeqCst) < 400 {
            work(Duration::from_millis(1)).await;
            WORKED.fetch_add(u64::from(here), Ordering::SeqCst);
        }
        if here && SPOIL.swap(false, Ordering::SeqCst) {
            // It first runs inside of this poll, which is guarded; later ones are the executor's.
            glommio::spawn_local(async {
                futures_lite::future::yield_now().await;
                panic!("nobody guards this");
            })
            .detach();
        }
        loop {
            work(Duration::from_millis(1)).await;
        }
    }

    let lost = |run: Scenario, cores: usize| {
        let begun = Instant::now();
        let statistics = wait(run);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_adds_up(&statistics);
        assert_eq!(
            statistics.verdict,
            Some(Verdict::ShardsLost { shards_lost: 1 }),
            "{statistics}"
        );
        assert!(statistics.tps_limited);
        assert_eq!(statistics.shards.len(), cores);
        assert_eq!(statistics.shards.iter().filter(|shard| shard.lost).count(), 1);
        assert!(statistics.shards[0].lost);
        assert!(statistics.counts.succeeded > 0, "{:?}", statistics.counts);
        tell("lost=true");
        let next =
            wait(worker(Duration::ZERO).tps(200).cores([0]).duration(Duration::from_millis(500)));
        assert_adds_up(&next);
        assert!(next.shards.iter().all(|shard| !shard.lost), "{next}");
        tell(format_args!("next={}", next.counts.planned));
    };
    match role().as_deref() {
        None => {}
        Some("never yields") => {
            let begun = Instant::now();
            let run = stubborn().concurrency(1).cores([0]).grace(Duration::from_millis(100));
            let statistics = wait(run.duration(Duration::from_millis(300)));
            assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
            assert_adds_up(&statistics);
            tell(format_args!("lost={}", statistics.shards[0].lost));
        }
        Some("lost closed") => lost(deadly(0).concurrency(4).cores([0]), 1),
        Some("lost open") => {
            lost(deadly(0).tps(800).cores([0]).duration(Duration::from_secs(3_600)), 1);
        }
        Some("lost one of two") => {
            lost(deadly(0).tps(1_600).cores([0, 1]).duration(Duration::from_secs(2)), 2);
        }
        Some("lost with windows under way") => {
            let run = deadly(0).tps(2_400).cores([0, 1]).duration(Duration::from_secs(2));
            lost(run.aggregator_delay_for_tests(Duration::from_millis(150)), 2);
        }
        Some("blocking") => user_code_that_blocks_the_thread_shows_as_lag_and_distorts(),
        Some("slow callback") => {
            let mut first = true;
            // Longer than the grace and the aggregator's patience with a shard together.
            let run = worker(Duration::from_millis(1))
                .tps(500)
                .grace(Duration::from_millis(1))
                .on_progress(Duration::from_millis(1), move |_| {
                    if std::mem::take(&mut first) {
                        std::thread::sleep(Duration::from_secs(7));
                    }
                });
            let statistics = wait(run.duration(Duration::from_secs(1)));
            assert_adds_up(&statistics);
            assert!(statistics.shards.iter().all(|shard| !shard.lost), "{statistics}");
            assert_eq!(statistics.counts.planned, 500, "{statistics}");
        }
        Some("impossible rate") => {
            let begun = Instant::now();
            let run = worker(Duration::ZERO).tps(u32::MAX).cores([0]);
            let statistics = wait(run.duration(Duration::from_millis(500)));
            assert_adds_up(&statistics);
            assert!(!statistics.shards[0].lost, "{statistics}");
            assert_eq!(statistics.counts.planned, u64::from(u32::MAX) / 2 + 1, "{statistics}");
            assert!(statistics.counts.missed > statistics.counts.succeeded, "{statistics}");
            assert!(statistics.counts.succeeded > 0, "{statistics}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        }
        Some("spawn in drop") => {
            struct Late;
            impl Drop for Late {
                fn drop(&mut self) {
                    drop(balter_uring::spawn(work(Duration::from_secs(3_600))));
                }
            }
            #[scenario]
            async fn late() {
                let _late = Late;
                loop {
                    work(Duration::from_millis(1)).await;
                }
            }
            let begun = Instant::now();
            let run = late().concurrency(2).grace(Duration::from_millis(100));
            let statistics = wait(run.duration(Duration::from_millis(300)));
            assert_adds_up(&statistics);
            assert!(statistics.shards.iter().all(|shard| !shard.lost), "{statistics}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
        Some(role) => panic!("no such role: {role}"),
    }
}

/// What serves nothing has not reached a goal, though each failure comes at once.
#[test]
fn a_target_that_refuses_or_never_answers_is_named() {
    // Bound, and closed again: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let run = visitor(format!("http://{address}/")).tps(300).duration(Duration::from_secs(2));
    let statistics = wait(run);
    assert_adds_up(&statistics);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Failing { class: Some(_), .. }), "{statistics}");
    assert!(statistics.tps_limited);

    // Accepted by the kernel, and never read.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let run = visitor(format!("http://{address}/")).concurrency(20);
    let statistics = wait(run.duration(Duration::from_secs(2)).grace(Duration::from_millis(100)));
    assert_adds_up(&statistics);
    let verdict = statistics.verdict.as_ref().expect("judged");
    assert!(matches!(verdict, Verdict::Silent { started: 1.. }), "{statistics}");
}
