//! What is shown of a run while one of its shards is late: each shard counts as one.

#[path = "support/lib.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use balter_uring::Progress;
use balter_uring::prelude::*;
use support::{assert_adds_up, in_a_child, role, wait};

const INSTANCES: u32 = 4;
const EACH: Duration = Duration::from_millis(5);
const CELL: Duration = Duration::from_millis(100);
const BLOCKED: Duration = Duration::from_millis(1_500);

#[test]
fn a_shard_that_is_blocked_counts_as_one_shard_in_every_line() {
    // In a process of its own: it would hold up the other tests of this one.
    in_a_child("blocked for a while").assert_success();
}

/// Begin and end of the time in which the shard was blocked.
static BLOCK: OnceLock<(Instant, Instant)> = OnceLock::new();

/// Takes its time each time; fails once, having blocked its shard.
#[transaction]
async fn pause(blocks: bool) -> Result<(), ()> {
    balter_uring::time::sleep(EACH).await;
    if !blocks {
        return Ok(());
    }
    let begun = Instant::now();
    std::thread::sleep(BLOCKED);
    BLOCK.get_or_init(|| (begun, Instant::now()));
    Err(())
}

#[scenario]
async fn blocks_once() {
    static IS_DUE: AtomicBool = AtomicBool::new(true);
    let begun = Instant::now();
    loop {
        let is_due = begun.elapsed() > 5 * CELL && rustix::thread::sched_getcpu() == 0;
        let _ = pause(is_due && IS_DUE.swap(false, Ordering::SeqCst)).await;
    }
}

fn shown_while_a_shard_is_blocked() {
    let lines: Arc<Mutex<Vec<(Instant, Progress)>>> = Arc::default();
    let (duration, seen) = (Duration::from_secs(4), Arc::clone(&lines));
    let run = blocks_once().concurrency(INSTANCES as usize).cores([0, 1]);
    let run = run.on_progress(CELL, move |line| {
        seen.lock().expect("no panic").push((Instant::now(), line.clone()));
    });
    let statistics = wait(run.duration(duration));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.failed, 1, "{statistics}");
    let lines = lines.lock().expect("no panic");
    let &(begun, ended) = BLOCK.get().expect("it failed afterwards");

    // As many as the instances can do in the time of a line, if the transactions that its ends lie
    // in are counted as a whole; for each shard a part of one may be rounded up.
    let possible = |seconds: f64| f64::from(INSTANCES) * (seconds / EACH.as_secs_f64() + 2.0) + 2.0;
    let (mut before, mut failed) = (Duration::ZERO, 0);
    for (_, line) in &*lines {
        let seconds = (line.elapsed - before).as_secs_f64();
        before = line.elapsed;
        failed += line.failed;
        assert!(line.instances <= INSTANCES, "{line:?}");
        assert!(line.in_flight <= INSTANCES, "{line:?}");
        assert!(line.tps * seconds <= possible(seconds), "{line:?} over {seconds} s");
        if line.elapsed < duration {
            assert_eq!(line.elapsed.as_nanos() % CELL.as_nanos(), 0, "not on the grid: {line:?}");
            assert_eq!(line.instances, INSTANCES, "one shard is left out: {line:?}");
        }
    }
    assert_eq!(failed, 1, "what a late shard has counted is shown, and once: {lines:?}");
    let meanwhile = lines.iter().filter(|(at, _)| (begun..ended).contains(at)).count();
    assert!(meanwhile > 0, "nothing is shown while a shard is late: {lines:?}");
}

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("blocked for a while") => shown_while_a_shard_is_blocked(),
        Some(role) => panic!("no such role: {role}"),
    }
}
