//! A transaction in the steady state allocates nothing.
//!
//! The counter is the whole process's: what the aggregator needs for a window is in it, what
//! glommio needs for a pass of its reactor, and the target's side of each request. None of it
//! depends on how many transactions there are, so a run of next to none is what the others are
//! compared with. One test, since another beside it would count too.

#[path = "support/lib.rs"]
mod support;

use std::alloc::System;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use balter_uring::prelude::*;
use balter_uring::target::Target;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{assert_adds_up, until, wait};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static DONE: AtomicU64 = AtomicU64::new(0);

/// An instance is warm after so many transactions.
const WARM: u64 = 3;

/// All transactions of a run are to fail.
static FAILING: AtomicBool = AtomicBool::new(false);

/// Instances of a run.
static BEGUN: AtomicU64 = AtomicU64::new(0);

fn allocations() -> u64 {
    let stats = ALLOCATOR.stats();
    (stats.allocations + stats.reallocations) as u64
}

/// What was counted in 700 ms of a run.
struct Measured {
    allocated: u64,
    done: u64,
    /// Instances that were started meanwhile, or not long before, by what they had done then: each
    /// allocates as it begins, and its first transactions open a connection.
    fresh: u64,
}

/// Lets a run warm up, then counts.
fn measure(run: Scenario) -> Measured {
    DONE.store(0, Ordering::SeqCst);
    BEGUN.store(0, Ordering::SeqCst);
    let running = std::thread::spawn(move || wait(run.duration(Duration::from_secs(2))));
    until("it has begun", || DONE.load(Ordering::Relaxed) > 0);
    std::thread::sleep(Duration::from_millis(700));
    let counted = || (allocations(), DONE.load(Ordering::Relaxed), BEGUN.load(Ordering::Relaxed));
    let before = counted();
    std::thread::sleep(Duration::from_millis(700));
    let after = counted();
    let statistics = running.join().expect("the run ends");
    assert_adds_up(&statistics);
    // All or none of them.
    let succeeded = if FAILING.load(Ordering::Relaxed) { 0 } else { statistics.counts.started };
    assert!(statistics.counts.succeeded.abs_diff(succeeded) <= 200, "{statistics}");
    let fresh = after.2.saturating_sub(before.1 / WARM);
    Measured { allocated: after.0 - before.0, done: after.1 - before.1, fresh }
}

#[transaction]
async fn nothing() {
    // One writer a run, on one shard.
    DONE.store(DONE.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[scenario]
async fn busy() {
    BEGUN.fetch_add(1, Ordering::Relaxed);
    loop {
        nothing().await;
    }
}

#[scenario]
async fn counting_visitor(url: String) {
    BEGUN.fetch_add(1, Ordering::Relaxed);
    let request = balter_uring::http::Client::new().get(&url).prepare().expect("a valid URL");
    loop {
        if support::fetch(&request).await.is_ok() {
            DONE.store(DONE.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct Missing(u64);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "order {} is not there", self.0)
    }
}

impl std::error::Error for Missing {}

/// It fails with an error of the scenario's own, whose number differs each time.
#[transaction]
async fn refused() -> Result<(), Missing> {
    let done = DONE.load(Ordering::Relaxed) + 1;
    DONE.store(done, Ordering::Relaxed);
    Err(Missing(done))
}

#[scenario]
async fn failing() {
    BEGUN.fetch_add(1, Ordering::Relaxed);
    loop {
        let _ = refused().await;
    }
}

#[transaction]
async fn checked(
    request: &balter_uring::http::PreparedRequest,
) -> Result<(), balter_uring::http::Error> {
    let answer = request.send().await?.error_for_status();
    DONE.store(DONE.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    answer?.discard().await?;
    Ok(())
}

#[scenario]
async fn failing_visitor(url: String) {
    BEGUN.fetch_add(1, Ordering::Relaxed);
    let request = balter_uring::http::Client::new().get(&url).prepare().expect("a valid URL");
    loop {
        let _ = checked(&request).await;
    }
}

#[test]
fn no_transaction_allocates() {
    // Next to nothing, on instances that are as good as warm: they do nothing.
    let Measured { allocated: idle, .. } = measure(busy().tps(10).cores([0]));
    println!("next to nothing: {idle} allocations");
    let check = |what: &str, make: &dyn Fn() -> Scenario| {
        support::once_fit(|| {
            let Measured { allocated, done, fresh } = measure(make());
            println!("{what}: {allocated} allocations in {done} transactions, {fresh} fresh");
            if fresh > 0 {
                return Err(format!("{what}: no steady state, {fresh} instances were not warm"));
            }
            // What does not depend on them is twice that of one shard where a target has another,
            // and some of it is glommio's for each pass: on a busy machine, where what is seldom due
            // has a pass of its own, up to two for three transactions. One for each is more.
            let bound = 2 * idle + done / 4 * 3;
            if allocated > bound {
                return Err(format!("{what}: {allocated} for {done}, {idle} for none"));
            }
            // One for each would have been seen.
            if done > bound {
                return Ok(());
            }
            Err(format!("{what}: {done} transactions are too few to tell"))
        });
    };
    check("a closed loop", &|| busy().concurrency(4).cores([0]));
    // Rates that a slow machine has room for: where they are not reached, instances are added.
    check("an open loop", &|| busy().tps(10_000).cores([0]));
    let target = Target::start().expect("a target");
    check("requests, closed", &|| counting_visitor(target.url()).concurrency(128));
    check("requests, open", &|| counting_visitor(target.url()).tps(4_000));
    // A text that is known is written again, and not kept.
    FAILING.store(true, Ordering::Relaxed);
    check("failures, closed", &|| failing().concurrency(4).cores([0]));
    check("failures, open", &|| failing().tps(10_000).cores([0]));
    target.set_error_rate(1.0);
    check("failing requests, closed", &|| failing_visitor(target.url()).concurrency(128));
    check("failing requests, open", &|| failing_visitor(target.url()).tps(4_000));
}
