//! SIGINT ends a run that asked for it, once in good order and twice at once; others never see
//! the library take a signal.

#[path = "support/lib.rs"]
mod support;

use std::os::unix::process::ExitStatusExt;
use std::sync::Once;
use std::time::Instant;

use balter_uring::prelude::*;
use support::{Child, Ended, assert_adds_up, role, tell, tell_counts, wait, worker};

const SIGINT: i32 = 2;

/// What the counts that a child told add up to.
fn assert_told_counts_add_up(ended: &Ended) {
    let number = |key| ended.number(key);
    assert_eq!(number("planned"), number("started") + number("missed"));
    assert_eq!(
        number("started"),
        number("succeeded") + number("failed") + number("cancelled"),
        "{ended:?}"
    );
}

#[test]
fn once_ends_the_run_in_good_order() {
    for role in ["open", "closed"] {
        let mut child = Child::start(role, |_| {});
        child.until_told("begun");
        std::thread::sleep(Duration::from_millis(700));
        child.interrupt();
        let ended = child.end();
        ended.assert_success();
        assert_told_counts_add_up(&ended);
        // Transactions of 100 ms that were under way have ended by themselves.
        assert_eq!(ended.number("cancelled"), 0, "{ended:?}");
        assert!(ended.number("succeeded") > 0, "{ended:?}");
        assert!((500..10_000).contains(&ended.number("elapsed_ms")), "{ended:?}");
        assert_eq!(ended.value("stopped"), "true");
    }
}

#[test]
fn once_ends_a_whole_sweep() {
    let mut child = Child::start("sweep", |_| {});
    child.until_told("begun");
    std::thread::sleep(Duration::from_millis(300));
    child.interrupt();
    let ended = child.end();
    ended.assert_success();
    assert_eq!((ended.value("stopped"), ended.number("points")), ("true", 1), "{ended:?}");
    assert!(ended.number("started") > 0, "{ended:?}");
}

#[test]
fn twice_ends_it_at_once() {
    let mut child = Child::start("stuck", |_| {});
    child.until_told("begun");
    std::thread::sleep(Duration::from_millis(300));
    child.interrupt();
    // The first lets transactions that take an hour go on, the second does not.
    std::thread::sleep(Duration::from_millis(500));
    child.interrupt();
    let begun = Instant::now();
    // On a machine that is too busy to tell the first two apart, once more.
    while !child.ends_within(Duration::from_secs(5)) && begun.elapsed() < Duration::from_secs(15) {
        child.interrupt();
    }
    let ended = child.end();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    ended.assert_success();
    assert_told_counts_add_up(&ended);
    assert_eq!((ended.number("cancelled"), ended.number("started")), (5, 5), "{ended:?}");
}

#[test]
fn a_run_that_did_not_ask_dies_of_it() {
    let mut child = Child::start("not asked", |_| {});
    child.until_told("begun");
    child.interrupt();
    let ended = child.end();
    assert_eq!(ended.status.signal(), Some(SIGINT), "{ended:?}");
}

#[test]
fn after_the_run_it_ends_the_process_again() {
    let mut child = Child::start("afterwards", |_| {});
    child.until_told("over");
    child.interrupt();
    let ended = child.end();
    assert_eq!(ended.status.signal(), Some(SIGINT), "{ended:?}");
}

#[test]
fn one_that_did_not_ask_goes_on_beside_one_that_did() {
    let mut child = Child::start("beside", |_| {});
    child.until_told("begun");
    child.interrupt();
    let ended = child.end();
    ended.assert_success();
    assert_eq!(ended.value("other"), "600", "{ended:?}");
}

#[test]
fn child() {
    static BEGUN: Once = Once::new();

    /// Tells the parent once it has begun.
    #[scenario]
    async fn telling(length: Duration) {
        BEGUN.call_once(|| tell("begun"));
        loop {
            support::work(length).await;
        }
    }

    let hour = Duration::from_secs(3_600);
    let finish = |run: Scenario| {
        let statistics = wait(run.stop_on_ctrl_c());
        assert_adds_up(&statistics);
        tell_counts(&statistics);
        let early = statistics.elapsed < Duration::from_secs(60);
        tell(format_args!("stopped={}", statistics.stopped && early));
        println!("{statistics}");
    };
    let Some(role) = role() else { return };
    match &*role {
        "open" => finish(telling(Duration::from_millis(100)).tps(100).duration(hour)),
        "closed" => finish(telling(Duration::from_millis(100)).concurrency(5)),
        "stuck" => {
            let run = telling(hour).concurrency(5).timeout(hour);
            finish(run.grace(hour).duration(hour));
        }
        "sweep" => {
            let run = telling(Duration::from_millis(1)).stop_on_ctrl_c();
            let sweep = wait(run.sweep([100, 200], hour)).expect("it starts");
            tell_counts(&sweep.points[0].statistics);
            tell(format_args!("points={}", sweep.points.len()));
            tell(format_args!("stopped={}", sweep.stopped));
        }
        "not asked" => {
            let _ = wait(telling(Duration::from_millis(1)).tps(100).duration(hour));
        }
        "afterwards" => {
            let run = worker(Duration::from_millis(1)).tps(100).stop_on_ctrl_c();
            let _ = wait(run.duration(Duration::from_millis(200)));
            std::thread::sleep(Duration::from_millis(100));
            tell("over");
            std::thread::sleep(hour);
        }
        "beside" => {
            let other = worker(Duration::from_millis(1)).tps(300).duration(Duration::from_secs(2));
            let asked = telling(Duration::from_millis(1)).tps(100).stop_on_ctrl_c();
            let (other, asked) = wait(futures_lite::future::zip(other, asked));
            assert_adds_up(&other);
            assert_adds_up(&asked);
            tell(format_args!("other={}", other.counts.planned));
        }
        role => panic!("no such role: {role}"),
    }
}
