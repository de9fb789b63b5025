//! A run may be awaited anywhere: the work is the shards', the waiting is all that happens there.

#[path = "support/lib.rs"]
mod support;

use std::time::Instant;

use balter_uring::prelude::*;
use support::{assert_adds_up, wait, worker};

fn run(tps: u32) -> Scenario {
    worker(Duration::from_millis(1)).tps(tps).duration(Duration::from_millis(500))
}

#[track_caller]
fn assert_complete(statistics: &RunStatistics, tps: u32) {
    assert_adds_up(statistics);
    support::assert_all_well(statistics, u64::from(tps / 2));
    assert_eq!(statistics.goal_tps, tps);
    assert_eq!(statistics.scenario, "worker");
}

#[test]
fn tokio_with_several_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        assert_complete(&run(200).await, 200);
        // As tasks of their own, which asks for `Send`.
        let tasks = [run(200), run(400), run(600)].map(tokio::spawn);
        for (task, tps) in tasks.into_iter().zip([200, 400, 600]) {
            assert_complete(&task.await.expect("it does not panic"), tps);
        }
    });
}

#[test]
fn tokio_with_one_thread_stays_responsive() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ticks = async {
            let begun = Instant::now();
            let mut ticks = 0;
            while begun.elapsed() < Duration::from_millis(400) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                ticks += 1;
            }
            ticks
        };
        let (one, other, ticks) = tokio::join!(run(200), run(400), ticks);
        assert_complete(&one, 200);
        assert_complete(&other, 400);
        assert!(ticks >= 5, "the run has held the executor up: {ticks} ticks");
    });
}

#[test]
fn tokio_select_drops_the_run_that_loses() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let begun = Instant::now();
        tokio::select! {
            _ = worker(Duration::ZERO).tps(100) => panic!("it has no end"),
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn smol() {
    assert_complete(&smol::block_on(run(200)), 200);
    let executor = smol::Executor::new();
    let tasks = [executor.spawn(run(200)), executor.spawn(run(400))];
    let results = smol::block_on(executor.run(async {
        let [one, other] = tasks;
        (one.await, other.await)
    }));
    assert_complete(&results.0, 200);
    assert_complete(&results.1, 400);
}

#[test]
fn glommio_pinned_or_not() {
    for placement in [glommio::Placement::Unbound, glommio::Placement::Fixed(0)] {
        let executor = glommio::LocalExecutorBuilder::new(placement)
            .io_memory(64 << 10)
            .spawn(|| async { futures_lite::future::zip(run(200), run(400)).await })
            .expect("an executor");
        let (one, other) = executor.join().expect("it does not panic");
        assert_complete(&one, 200);
        assert_complete(&other, 400);
    }
}

#[test]
fn the_pin_of_the_thread_that_awaits_does_not_bind_the_shards() {
    // An executor that is pinned for reasons of its own.
    let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Fixed(0))
        .io_memory(64 << 10)
        .spawn(|| async {
            let all = run(200).await;
            let other = run(200).cores([1]).run().await;
            (all, other)
        })
        .expect("an executor");
    let (all, other) = executor.join().expect("it does not panic");
    let other = other.expect("the process may use core 1");
    assert_complete(&other, 200);
    assert_eq!(other.shards[0].core, 1);
    assert_complete(&all, 200);
    assert_eq!(all.shards.len(), 2, "all cores that the process may use: {all}");
}

#[test]
fn a_plain_thread() {
    let thread = std::thread::spawn(|| futures_lite::future::block_on(run(200)));
    assert_complete(&thread.join().expect("it does not panic"), 200);
}

#[test]
fn several_at_once_each_have_their_own_statistics() {
    let runs = (run(200), run(400), worker(Duration::from_millis(1)).concurrency(3));
    let (one, other, closed) = wait(async {
        let ((one, other), closed) = futures_lite::future::zip(
            futures_lite::future::zip(runs.0, runs.1),
            runs.2.duration(Duration::from_millis(500)),
        )
        .await;
        (one, other, closed)
    });
    assert_complete(&one, 200);
    assert_complete(&other, 400);
    assert_adds_up(&closed);
    assert_eq!((closed.goal_tps, closed.concurrency), (0, 3));
    assert_eq!(closed.counts.planned, closed.counts.started);
}

#[test]
fn a_run_may_be_awaited_in_a_scenario() {
    #[scenario]
    async fn outer() {
        let _ = inner().await;
        std::future::pending::<()>().await;
    }
    #[transaction]
    async fn inner() -> Result<(), RunStatistics> {
        let statistics = run(200).await;
        if statistics.counts.planned == 100 { Ok(()) } else { Err(statistics) }
    }
    let statistics = wait(outer().concurrency(1).duration(Duration::from_secs(2)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.succeeded, 1, "{statistics}");
}

#[test]
fn shards_are_used_again() {
    let threads = || {
        std::fs::read_dir("/proc/self/task")
            .expect("Linux")
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|name| name.starts_with("balter-shard"))
            .count()
    };
    for _ in 0..5 {
        let run = worker(Duration::ZERO).tps(100).duration(Duration::from_millis(50));
        assert_adds_up(&wait(run));
        // One a core with glommio's helper, which has its name; whatever other tests are doing.
        let cores = std::thread::available_parallelism().expect("Linux").get();
        assert!((1..=2 * cores).contains(&threads()), "{} threads", threads());
    }
}
