//! One shard a core; their shares of a run add up to the whole.

#[path = "support/lib.rs"]
mod support;

use balter_uring::Arrival;
use balter_uring::prelude::*;
use balter_uring::target::Target;
use support::{Child, assert_adds_up, role, tell, wait, worker};

fn cores(statistics: &RunStatistics) -> Vec<usize> {
    statistics.shards.iter().map(|shard| shard.core).collect()
}

#[test]
fn a_rate_is_split_to_the_unit() {
    // Odd rates, and one that leaves a shard without any.
    for tps in [1, 2, 3, 1_001] {
        let run = worker(Duration::ZERO).tps(tps).cores([0, 1]);
        let statistics = wait(run.duration(Duration::from_secs(1)));
        assert_adds_up(&statistics);
        assert_eq!(cores(&statistics), [0, 1]);
        assert_eq!(statistics.counts.planned, u64::from(tps), "{statistics}");
        // A busy machine may miss the only one.
        assert_eq!(statistics.counts.failed + statistics.counts.cancelled, 0, "{statistics}");
        let shares: Vec<_> = statistics.shards.iter().map(|shard| shard.counts.planned).collect();
        assert!(shares[0].abs_diff(shares[1]) <= 1, "{shares:?}");
    }
}

#[test]
fn instances_are_split_to_the_unit() {
    for instances in [1, 2, 5] {
        let run = worker(Duration::from_secs(60)).concurrency(instances).cores([0, 1]);
        let run = run.grace(Duration::from_millis(50));
        let statistics = wait(run.duration(Duration::from_millis(300)));
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.cancelled, instances as u64, "{statistics}");
        let shares: Vec<_> = statistics.shards.iter().map(|shard| shard.counts.started).collect();
        assert!(shares[0].abs_diff(shares[1]) <= 1, "{shares:?}");
    }
}

#[test]
fn the_highest_concurrency_is_that_of_all_shards_together() {
    for instances in [1, 3] {
        let run = worker(Duration::from_secs(60)).tps(500).max_concurrency(instances);
        let run = run.cores([0, 1]).grace(Duration::from_millis(50));
        let statistics = wait(run.duration(Duration::from_millis(300)));
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.started, instances as u64, "{statistics}");
    }
}

#[test]
fn shards_draw_different_poisson_arrivals() {
    let run = worker(Duration::ZERO).tps(2_000).cores([0, 1]).arrival(Arrival::Poisson { seed: 1 });
    let statistics = wait(run.duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    let [one, other] = &statistics.shards[..] else { panic!("{statistics}") };
    assert!((700..1_300).contains(&one.counts.planned), "{statistics}");
    assert!((700..1_300).contains(&other.counts.planned), "{statistics}");
}

#[test]
fn a_slow_aggregator_loses_nothing_of_either_shard() {
    let run = worker(Duration::ZERO).tps(3_000).cores([0, 1]);
    let run = run.aggregator_delay_for_tests(Duration::from_millis(300));
    let statistics = wait(run.duration(Duration::from_secs(2)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.planned, 6_000);
    support::assert_all_well(&statistics, 6_000);
}

#[test]
fn a_core_named_twice_has_one_shard() {
    let run = worker(Duration::ZERO).tps(100).cores([0, 0, 0]);
    let statistics = wait(run.duration(Duration::from_millis(300)));
    assert_adds_up(&statistics);
    assert_eq!(cores(&statistics), [0]);
    assert_eq!(statistics.counts.planned, 30);
}

#[test]
fn instances_run_on_their_shards_core_and_stay_there() {
    #[scenario]
    async fn here() {
        let thread = std::thread::current().id();
        loop {
            let (at, core) = place().await;
            assert_eq!(at, thread, "an instance has moved");
            assert!(core < 2, "not on the cores asked for");
        }
    }
    #[transaction]
    async fn place() -> (std::thread::ThreadId, usize) {
        balter_uring::time::sleep(Duration::from_millis(1)).await;
        (std::thread::current().id(), rustix::thread::sched_getcpu())
    }
    let statistics = wait(here().concurrency(8).cores([0, 1]).duration(Duration::from_millis(300)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.panics, 0, "{statistics}");
    assert!(statistics.shards.iter().all(|shard| shard.counts.succeeded > 0), "{statistics}");
}

#[test]
fn the_environment_names_the_cores() {
    for (text, expected) in [("0", "[0]"), ("1", "[1]"), ("0-1", "[0, 1]"), (" ", "[0, 1]")] {
        let child = Child::start("cores", |command| {
            command.env("BALTER_CORES", text);
        });
        let ended = child.end();
        ended.assert_success();
        assert_eq!(ended.value("cores"), expected, "BALTER_CORES={text:?}");
    }
}

#[test]
fn a_target_has_its_core_to_itself_unless_told_otherwise() {
    let ended = Child::start("target", |_| {}).end();
    ended.assert_success();
}

#[test]
fn a_shard_that_is_kept_from_running_does_not_fall_asleep() {
    // Regression: glommio parks an executor that found its time slice over before its first task,
    // though tasks were ready; nothing woke it then. A busy core does that now and then, a process
    // that is stopped again and again does it soon.
    let mut child = Child::start("stopped again and again", |_| {});
    child.until_told("begun");
    child.stop_and_continue(Duration::from_millis(2), Duration::from_millis(1));
    child.end().assert_success();
}

#[test]
fn child() {
    let run = || worker(Duration::ZERO).tps(200).duration(Duration::from_millis(500));
    match role().as_deref() {
        None => {}
        Some("cores") => {
            let statistics = wait(run());
            assert_adds_up(&statistics);
            support::assert_all_well(&statistics, 100);
            tell(format_args!("cores={:?}", cores(&statistics)));
        }
        Some("target") => {
            let target = Target::start().expect("a target");
            assert_eq!(target.core(), 1);
            assert_eq!(cores(&wait(run())), [0]);
            assert_eq!(cores(&wait(run().cores([0, 1]))), [0, 1]);
            let both = support::visitor(target.url()).tps(200).cores([0, 1]);
            let statistics = wait(both.duration(Duration::from_millis(500)));
            assert_adds_up(&statistics);
            support::assert_all_well(&statistics, 100);
        }
        Some("stopped again and again") => {
            tell("begun");
            for _ in 0..4 {
                let begun = std::time::Instant::now();
                let statistics = wait(run().cores([0, 1]).duration(Duration::from_secs(1)));
                assert_adds_up(&statistics);
                assert!(statistics.shards.iter().all(|shard| !shard.lost), "{statistics}");
                assert_eq!(statistics.counts.planned, 200, "{statistics}");
                assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
            }
        }
        Some(role) => panic!("no such role: {role}"),
    }
}
