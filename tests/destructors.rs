//! Destructors of users that panic, wherever the engine drops what is theirs: the runs beside and
//! after go on.

#[path = "support/lib.rs"]
mod support;

use std::panic::panic_any;

use balter_uring::prelude::*;
use support::{assert_adds_up, told, wait, work, worker};

/// Panics when it is dropped, as a payload of a panic or wherever else.
struct Sour;

impl Drop for Sour {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a sour drop");
        }
    }
}

/// The engine still leads runs to their ends.
#[track_caller]
fn assert_goes_on() {
    let statistics = wait(worker(Duration::ZERO).tps(200).duration(Duration::from_millis(300)));
    assert_eq!(statistics.error, None);
    assert_adds_up(&statistics);
    assert!(statistics.counts.succeeded > 0, "{statistics}");
}

#[test]
fn of_the_payload_of_a_progress_callback() {
    let run = worker(Duration::ZERO).tps(300).duration(Duration::from_millis(600));
    let statistics = wait(run.on_progress(Duration::from_millis(50), |_| panic_any(Sour)));
    assert_eq!(statistics.error, None);
    assert_adds_up(&statistics);
    assert!(statistics.counts.succeeded > 0, "{statistics}");
    // Whoever has no subscriber sees it here.
    let noted = statistics.notes.iter().any(|note| note.contains("progress callback panicked"));
    assert!(noted, "{statistics}");
    assert!(told(&statistics).contains("note: the progress callback panicked"));
    assert_goes_on();
}

#[test]
fn of_what_a_progress_callback_has_captured() {
    let sour = Sour;
    let run = worker(Duration::ZERO).tps(300).duration(Duration::from_millis(300));
    let statistics = wait(run.on_progress(Duration::from_millis(50), move |_| {
        let _captured = &sour;
    }));
    assert_eq!(statistics.error, None);
    assert_adds_up(&statistics);
    assert_eq!(statistics.notes, [""; 0]);
    assert_goes_on();
}

#[test]
fn of_payloads_in_scenarios_transactions_and_tasks() {
    #[scenario]
    async fn sour() {
        let task = balter_uring::spawn(async {
            work(Duration::from_millis(1)).await;
            panic_any(Sour)
        });
        let _: Option<()> = task.await;
        fails().await;
    }
    #[transaction]
    async fn fails() {
        balter_uring::time::sleep(Duration::from_millis(1)).await;
        panic_any(Sour)
    }
    let statistics = wait(sour().concurrency(2).duration(Duration::from_millis(500)));
    assert_eq!(statistics.error, None);
    assert_adds_up(&statistics);
    assert!(statistics.panics >= 2, "{statistics}");
    let message = statistics.panic_message.as_deref();
    assert_eq!(message, Some("a panic with a payload that is no text"));
    assert_goes_on();
}

#[test]
fn of_what_a_task_returns_to_nobody() {
    #[scenario]
    async fn parent() {
        loop {
            // The handle goes first: the task's end drops what it returns.
            drop(balter_uring::spawn(async {
                work(Duration::from_millis(1)).await;
                Sour
            }));
            work(Duration::from_millis(2)).await;
        }
    }
    let statistics = wait(parent().concurrency(1).duration(Duration::from_millis(300)));
    assert_eq!(statistics.error, None);
    assert_adds_up(&statistics);
    assert!(statistics.panics >= 1, "{statistics}");
    assert_goes_on();
}
