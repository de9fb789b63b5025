//! The closed loop, and what it does not see: a target that stands still for half a second shows it
//! in an open loop, and hardly in a closed one.
//!
//! ```text
//! cargo run --release --example closed_loop
//! ```

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;

#[tokio::main]
async fn main() -> Result<(), balter_uring::RunError> {
    // It takes 5 ms for an answer, so 10 instances make 2 000 transactions a second at most; with
    // more of them it makes 4 000.
    let target =
        Target::builder().delay(Duration::from_millis(5)).queueing_capacity(4_000).start()?;
    let url = target.url();

    // Ten workers, each waiting for its answer before it asks again.
    let closed = visitor(url.clone()).concurrency(10).duration(Duration::from_secs(4));
    let closed = with_a_stall(&target, closed).await;

    // The same load on a schedule: what is due while the target stands still is not left out.
    let tps = (closed.actual_tps as u32).max(1);
    let open = visitor(url.clone()).tps(tps).duration(Duration::from_secs(4));
    let open = with_a_stall(&target, open).await;

    println!("closed loop:\n{closed}");
    println!("open loop:\n{open}");
    println!("p99 with one stall of 500 ms in 4 s:");
    println!("  closed loop {:>9.1?}: it did not ask meanwhile", closed.latency_p99);
    println!("  open loop   {:>9.1?}: what users would have waited", open.latency_p99);

    // As fast as the target takes it: more instances, until they bring no more.
    let saturated = visitor(url).saturate().duration(Duration::from_secs(5)).await;
    println!("\nto saturation:\n{saturated}");
    Ok(())
}

/// The target stands still in the middle of the run.
async fn with_a_stall(target: &Target, run: Scenario) -> RunStatistics {
    let stall = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        target.stall(Duration::from_millis(500));
    };
    tokio::join!(run, stall).0
}

#[scenario]
async fn visitor(url: String) {
    let client = Client::new();
    loop {
        let _ = visit(&client, &url).await;
    }
}

#[transaction]
async fn visit(client: &Client, url: &str) -> Result<(), Error> {
    client.get(url).send().await?.error_for_status()?.discard().await?;
    Ok(())
}
