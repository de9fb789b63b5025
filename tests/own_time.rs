//! What a shard knows of its own time: how much of it was work, and how late it reads answers.

#[path = "support/lib.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use balter_uring::http::{Error, PreparedRequest};
use balter_uring::prelude::*;
use balter_uring::target::Target;
use support::{assert_adds_up, fetch, told, visitor, wait, worker};

/// One at a time: what another run does on the same shard is time of this one's, too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine that is busy with other things takes the core away in the middle of a turn, which the
/// shard cannot tell from work. So the best of several runs is asserted on; what does not hold for
/// any of them holds for none.
fn best_of(run: impl Fn() -> Scenario, holds: impl Fn(&RunStatistics) -> bool) -> RunStatistics {
    let mut tried = 0;
    loop {
        let statistics = wait(run().duration(Duration::from_millis(700)));
        assert_adds_up(&statistics);
        tried += 1;
        if holds(&statistics) || tried == 8 {
            return statistics;
        }
    }
}

fn busiest(statistics: &RunStatistics) -> f64 {
    statistics.shards.iter().map(|shard| shard.busy).fold(0.0, f64::max)
}

#[test]
fn waiting_for_an_answer_is_no_work() {
    let _alone = alone();
    for delay in [Duration::from_millis(1), Duration::from_millis(5)] {
        let target = Target::builder().delay(delay).start().expect("a target");
        let run = || visitor(target.url()).concurrency(1);
        let statistics = best_of(run, |statistics| busiest(statistics) < 0.5);
        assert!(statistics.counts.succeeded > 10, "{statistics}");
        // An exchange takes a small part of the delay, and the rest is waited for in the kernel,
        // where it is the answer that ends the wait.
        assert!(busiest(&statistics) < 0.5, "{delay:?}: {statistics}");
    }
}

#[test]
fn a_closed_loop_without_idle_time_says_that_it_queues() {
    let _alone = alone();
    let run = worker(Duration::ZERO).concurrency(4).cores([0]);
    let statistics = wait(run.duration(Duration::from_millis(500)));
    assert_adds_up(&statistics);
    assert!(busiest(&statistics) > 0.97, "{statistics}");
    let queues = |statistics: &RunStatistics| {
        statistics.notes.iter().any(|note| note.contains("the generator's own queue"))
    };
    assert!(queues(&statistics), "{statistics}");
    // One alone does not queue behind others, and an open loop has its lag to tell.
    for run in [worker(Duration::ZERO).concurrency(1).cores([0]), worker(Duration::ZERO).tps(100)] {
        let statistics = wait(run.duration(Duration::from_millis(300)));
        assert!(!queues(&statistics), "{statistics}");
    }
}

/// Takes the shard's core for so long, as a parser or a check of the user's may.
#[transaction]
async fn compute(length: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < length {
        std::hint::spin_loop();
    }
}

const COMPUTATION: Duration = Duration::from_millis(4);

#[scenario]
async fn asking_beside_computations(url: String) {
    let request = balter_uring::http::Client::new().get(&url).prepare().expect("a valid URL");
    futures_lite::future::zip(ask(&request), async {
        loop {
            compute(COMPUTATION).await;
            // Once a turn, so that what there is to read is read before the next.
            balter_uring::time::sleep(Duration::from_micros(1)).await;
        }
    })
    .await;
}

async fn ask(request: &PreparedRequest) -> Result<(), Error> {
    loop {
        fetch(request).await?;
    }
}

#[test]
fn answers_that_lie_while_the_shard_computes_are_told_to_be_read_late() {
    let _alone = alone();
    let target = Target::start().expect("a target");
    let run = asking_beside_computations(target.url()).concurrency(1);
    let statistics = wait(run.duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    assert!(statistics.counts.succeeded > 10, "{statistics}");
    assert_eq!(statistics.seen_late.len(), statistics.counts.completed());
    // An answer takes some 100 µs, the computation that it lies through 4 ms.
    let (late, half) = (statistics.seen_late.max(), COMPUTATION / 2);
    assert!(late > half, "{late:?}: {statistics}");
    assert!(told(&statistics).contains("answers read late"), "{statistics}");
    // So the kernel says, of the only connection, once it has begun to stamp what it receives.
    let (stamped, completed) = (statistics.receive_delay.len(), statistics.counts.completed());
    assert!((1..=completed).contains(&stamped), "{stamped} of {completed}");
    let delay = statistics.receive_delay.max();
    assert!(delay > half, "{delay:?}: {statistics}");
}

#[test]
fn a_shard_with_idle_time_reads_answers_soon() {
    let _alone = alone();
    let target = Target::builder().delay(Duration::from_millis(5)).start().expect("a target");
    let median = |statistics: &RunStatistics| statistics.seen_late.quantile(0.5);
    let run = || visitor(target.url()).concurrency(1);
    let statistics = best_of(run, |statistics| median(statistics) < Duration::from_millis(1));
    assert_eq!(statistics.seen_late.len(), statistics.counts.completed());
    // The waits of 5 ms in the kernel are no part of it.
    assert!(median(&statistics) > Duration::ZERO, "{statistics}");
    assert!(median(&statistics) < Duration::from_millis(1), "{statistics}");
}

#[test]
fn what_never_went_through_the_kernel_is_read_at_once() {
    let _alone = alone();
    let run = worker(Duration::ZERO).concurrency(1).duration(Duration::from_millis(300));
    let statistics = wait(run);
    assert_eq!(statistics.seen_late.len(), statistics.counts.completed());
    assert_eq!(statistics.seen_late.quantile(0.9), Duration::ZERO, "{statistics}");
}
