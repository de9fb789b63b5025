//! Whether a long run leaves anything behind.
//!
//! Ten minutes at 20 000 transactions a second of a scenario that does what leaves something where
//! places have no owner: tasks with transactions of their own, sleeps of a minute that are dropped at
//! once, transactions that are given up while they wait for their permit and while they are under
//! way. Resident memory is looked at after a fifth of the run, when every pool has its size, and at
//! the end.
//!
//! ```text
//! cargo bench --bench soak
//! BALTER_SOAK_SECONDS=3600 cargo bench --bench soak
//! ```

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/harness.rs"]
mod harness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use balter_uring::{scenario, time, transaction};
use futures_lite::future::{block_on, or, poll_once};

use harness::{Claim, Plan, Table};

const TPS: u32 = 20_000;

const SECONDS: u64 = 600;

const MOST_MIB: Claim = Claim::AtMost(1.0);

#[transaction]
async fn step(length: Duration) {
    time::sleep(length).await;
}

#[scenario]
async fn untidy() {
    for round in 0_u32.. {
        step(Duration::from_micros(200)).await;
        // A task of its own, which pends; nobody waits for every other one.
        let child = balter_uring::spawn(step(Duration::from_micros(300)));
        if round.is_multiple_of(2) {
            child.await;
        }
        // A timer that is dropped long before it is due.
        let _ = poll_once(time::sleep(Duration::from_secs(60))).await;
        // Given up: while it waits for its permit, or under way.
        let given_up = step(Duration::from_secs(1));
        or(given_up, time::sleep(Duration::from_micros(u64::from(round % 300)))).await;
    }
}

fn main() {
    let plan = Plan::from_environment();
    plan.announce("soak");
    let asked = std::env::var("BALTER_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let length =
        if plan.quick { plan.length(0.0) } else { Duration::from_secs(asked.unwrap_or(SECONDS)) };
    let readings = Arc::new(Mutex::new(Vec::new()));
    let readers = Arc::clone(&readings);
    let statistics =
        block_on(untidy().tps(TPS).duration(length).on_progress(length / 50, move |progress| {
            let mut readings = readers.lock().expect("nothing panics while it is locked");
            readings.push((progress.elapsed, cpu::resident()));
        }));
    assert!(statistics.counts.add_up(), "{statistics}");
    let readings = readings.lock().expect("nothing panics while it is locked");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut table = Table::new("resident memory", &["after", "MiB"]);
    for (elapsed, bytes) in readings.iter().step_by(5) {
        table.row([format!("{:.0} s", elapsed.as_secs_f64()), format!("{:.2}", mib(*bytes))]);
    }
    table.print();
    let settled = readings.iter().find(|(elapsed, _)| *elapsed >= length / 5);
    let (Some(settled), Some(last)) = (settled, readings.last()) else { return };
    let grown = mib(last.1) - mib(settled.1);
    println!("{statistics}");
    println!("grown by {grown:.2} MiB since a fifth of the run: {}", MOST_MIB.judge("MiB", grown));
}
