//! Code of a scenario that keeps its shard to itself is named while it does, and nothing else is.

#[path = "support/lib.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use balter_uring::Verdict;
use balter_uring::prelude::*;
use support::{Child, assert_adds_up, in_a_child, role, tell, told, wait, work};

/// What is said of a scenario on the first core.
fn accusation(scenario: &str) -> String {
    format!(
        "scenario `{scenario}` on core 0 has not returned from a poll for 2 s; is an `.await` \
         missing, or does it block?"
    )
}

#[test]
fn a_scenario_that_never_yields_is_named_and_its_shard_is_lost() {
    let ended = in_a_child("never yields");
    ended.assert_success();
    assert_eq!(ended.errors.matches(&accusation("restless")).count(), 1, "{ended:#?}");
}

#[test]
fn a_scenario_that_blocks_for_long_is_named_and_goes_on() {
    let ended = in_a_child("blocks for long");
    ended.assert_success();
    assert_eq!(ended.errors.matches(&accusation("sleepy")).count(), 1, "{ended:#?}");
}

#[test]
fn a_process_that_was_stopped_accuses_nobody() {
    let mut child = Child::start("blocks often", |_| {});
    child.until_told("begun");
    child.stop_and_continue(Duration::from_secs(3), Duration::from_secs(2));
    let ended = child.end();
    ended.assert_success();
    assert!(!ended.errors.contains("has not returned from a poll"), "{ended:#?}");
}

#[test]
fn child() {
    /// Forgets an `.await`.
    #[scenario]
    async fn restless() {
        work(Duration::from_millis(1)).await;
        loop {
            drop(std::hint::black_box(work(Duration::from_millis(1))));
        }
    }

    #[scenario]
    async fn sleepy(for_long: bool) {
        static LONG: AtomicBool = AtomicBool::new(true);
        loop {
            work(Duration::from_millis(1)).await;
            if !for_long {
                std::thread::sleep(Duration::from_millis(300));
            } else if LONG.swap(false, Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(4_500));
            }
        }
    }

    match role().as_deref() {
        None => {}
        Some("never yields") => {
            let run = restless().tps(100).cores([0]).grace(Duration::from_millis(100));
            let statistics = wait(run.duration(Duration::from_secs(1)));
            assert_adds_up(&statistics);
            assert!(statistics.notes.contains(&accusation("restless")), "{statistics}");
            assert!(told(&statistics).contains("was given up"), "{statistics}");
            assert_eq!(
                statistics.verdict,
                Some(Verdict::ShardsLost { shards_lost: 1 }),
                "{statistics}"
            );
            let text = told(&statistics);
            assert!(text.contains("is an `.await` missing, or does it block?"), "{text}");
        }
        Some("blocks for long") => {
            let run = sleepy(true).concurrency(2).cores([0]).duration(Duration::from_secs(8));
            let statistics = wait(run);
            assert_adds_up(&statistics);
            assert!(statistics.notes.contains(&accusation("sleepy")), "{statistics}");
            assert!(!statistics.shards[0].lost, "{statistics}");
            assert!(statistics.counts.succeeded > 10, "it went on: {statistics}");
        }
        Some("blocks often") => {
            tell("begun");
            let run = sleepy(false).concurrency(1).cores([0]).duration(Duration::from_secs(6));
            let statistics = wait(run);
            assert_adds_up(&statistics);
            let accused = |note: &String| note.contains("has not returned from a poll");
            assert!(!statistics.notes.iter().any(accused), "{statistics}");
        }
        Some(role) => panic!("no such role: {role}"),
    }
}
