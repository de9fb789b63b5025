//! Whether the load that was asked for is made, by scenarios that pause.
//!
//! A user's flow has pauses, several transactions, and a log-in that is none. No hint is given. What
//! is judged is the second half of each run, or all of it after three cycles.
//!
//! ```text
//! cargo bench --bench load
//! ```

#[path = "support/harness.rs"]
mod harness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use balter_uring::http::{Client, Error};
use balter_uring::target::Target;
use balter_uring::{Progress, RunStatistics, Scenario, scenario, time, transaction};
use futures_lite::future::block_on;

use harness::{Claim, Plan, Series, Table};

/// Response time over service time, once the rate stands: no permit waits for an instance then.
const TWICE: Claim = Claim::AtMost(2.0);

#[transaction]
async fn work() {
    time::sleep(Duration::from_millis(1)).await;
}

#[scenario]
async fn pausing(think: Duration) {
    loop {
        work().await;
        time::sleep(think).await;
    }
}

#[transaction]
async fn page(client: &Client, url: &str) -> Result<(), Error> {
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

#[transaction]
async fn search(client: &Client, url: &str) -> Result<(), Error> {
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

#[transaction]
async fn order(client: &Client, url: &str) -> Result<(), Error> {
    client.post(url).body("one of each").send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

/// Logs in, then goes through three pages with a pause after each.
#[scenario]
async fn shopper(url: String) {
    let client = Client::new();
    if client.post(&url).body("name and password").send().await.is_err() {
        return;
    }
    loop {
        let _ = page(&client, &url).await;
        time::sleep(Duration::from_millis(50)).await;
        let _ = search(&client, &url).await;
        time::sleep(Duration::from_millis(100)).await;
        let _ = order(&client, &url).await;
        time::sleep(Duration::from_millis(150)).await;
    }
}

/// What was missed after so long, and the median over the lines of progress in the second half of
/// the run of their 99th percentile of the response time, in milliseconds.
fn watched(scenario: Scenario, after: Duration, length: Duration) -> (RunStatistics, u64, f64) {
    let seen = Arc::new(Mutex::new((0, Vec::new())));
    let seeing = Arc::clone(&seen);
    let watch = move |progress: &Progress| {
        let mut seen = seeing.lock().expect("nothing panics while it is locked");
        if progress.elapsed > after {
            seen.0 += progress.missed;
        }
        if progress.elapsed > length / 2 {
            seen.1.push(progress.p99.as_secs_f64() * 1e3);
        }
    };
    let scenario = scenario.duration(length);
    let statistics = block_on(scenario.on_progress(length / 40, watch));
    let seen = seen.lock().expect("nothing panics while it is locked");
    (statistics, seen.0, Series::new(seen.1.iter().copied()).median())
}

fn main() {
    let plan = Plan::from_environment();
    plan.announce("load");
    let mut table = Table::new(
        "load with pauses, no hints",
        &[
            "scenario",
            "asked/s",
            "done/s",
            "missed late",
            "instances",
            "by Little",
            "service p95",
            "response p99, settled",
            "",
        ],
    );
    let target = Target::start().expect("a target");
    let ms = Duration::from_millis;
    let cases: [(&str, Scenario, u32, f64, Duration); 6] = [
        ("1 ms, pause 1 s", pausing(ms(1_000)), 500, 12.0, ms(1_001)),
        ("1 ms, pause 3 s", pausing(ms(3_000)), 500, 14.0, ms(3_001)),
        ("1 ms, pause 1 s", pausing(ms(1_000)), 50, 8.0, ms(1_001)),
        ("1 ms, pause 100 ms", pausing(ms(100)), 500, 6.0, ms(101)),
        ("log-in, 3 pages, 50–150 ms", shopper(target.url()), 500, 8.0, ms(101)),
        ("1 ms, no pause", pausing(Duration::ZERO), 500, 4.0, ms(1)),
    ];
    for (name, scenario, tps, seconds, cycle) in cases {
        let length = plan.length(seconds);
        let (statistics, missed, settled) = watched(scenario.tps(tps), 3 * cycle, length);
        assert!(statistics.counts.add_up(), "{statistics}");
        let p95 = |times: &balter_uring::Latencies| times.quantile(0.95).as_secs_f64() * 1e3;
        let service = p95(&statistics.service);
        table.row([
            name.to_owned(),
            tps.to_string(),
            format!("{:.1}", statistics.actual_tps),
            missed.to_string(),
            statistics.concurrency.to_string(),
            format!("{:.0}", f64::from(tps) * cycle.as_secs_f64()),
            format!("{service:.2}"),
            format!("{settled:.2}"),
            TWICE.judge("×", settled / service.max(1e-9)),
        ]);
    }
    table.print();
    let length = plan.length(8.0);
    let saturated = block_on(pausing(ms(1_000)).saturate().duration(length));
    println!(
        "pause 1 s, as fast as it goes: {:.0}/s with {} instances",
        saturated.actual_tps, saturated.concurrency
    );
}
