//! Finds the capacity of a service within limits, with its confidence interval, and sweeps the
//! rates below and above it.
//!
//! ```text
//! cargo run --release --example capacity
//! ```

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A service that answers 5 000 a second, one after the other: more has to wait.
    let target = Target::builder().queueing_capacity(5_000).start()?;

    println!("looking for the rate at which 95 % take no longer than 20 ms: 15 to 25 s");
    let stats = visitor(target.url())
        .latency(Duration::from_millis(20), 0.95)
        .find_capacity()
        .stop_on_ctrl_c()
        .await;
    println!("{stats}");
    let Some(search) = stats.search else { return Ok(()) };
    println!("     asked/s    seconds       done   too late");
    for point in &search.points {
        let late: f64 = point.broken.iter().filter_map(|broken| broken.share()).sum();
        println!(
            "  {:>10} {:>10.1} {:>10} {:>8.2} %  {:?}",
            point.tps,
            point.elapsed.as_secs_f64(),
            point.completed,
            late * 100.0,
            point.state,
        );
    }

    println!("\none rate after the other, up and down again");
    let rates = [1_000, 2_000, 3_000, 4_000, 4_800];
    let sweep = visitor(target.url()).sweep(rates, Duration::from_secs(2)).await?;
    println!("{sweep}");
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
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}
