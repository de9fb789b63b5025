//! One run after the other: the rate that a service bears is found, then four fifths of it are held,
//! then the rate climbs in steps until one is not held.
//!
//! ```text
//! cargo run --release --example steps
//! ```

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;

#[tokio::main]
async fn main() -> Result<(), balter_uring::RunError> {
    // A service that answers 4 000 requests a second; what is beyond that waits for its turn.
    let target = Target::builder().queueing_capacity(4_000).start()?;
    let url = target.url();

    // A search takes some 10 to 15 s, and is worth some more seconds of holding what it found.
    let found = visitor(url.clone())
        .latency(Duration::from_millis(20), 0.95)
        .duration(Duration::from_secs(25))
        .await;
    println!("{found}");
    if found.steady.is_none() {
        println!("the search was not at its end: let it run longer");
        return Ok(());
    }

    // Does it bear most of that for longer? Here for 5 s, in earnest for hours.
    let tps = (found.goal_tps / 5 * 4).max(1);
    let held = visitor(url.clone()).tps(tps).duration(Duration::from_secs(5)).await;
    println!("{held}");

    for tps in (1_000..=10_000).step_by(1_000) {
        // Short of grace: what a step leaves waiting at the target is not waited for.
        let stats = visitor(url.clone())
            .tps(tps)
            .duration(Duration::from_secs(2))
            .grace(Duration::from_millis(500))
            .await;
        println!("{tps:>6} TPS: {:>7.1} done, p99 {:?}", stats.actual_tps, stats.latency_p99);
        if stats.tps_limited {
            // The verdict says why.
            println!("{stats}");
            break;
        }
    }
    Ok(())
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
