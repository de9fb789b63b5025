//! How much does a service bear? The highest rate at which its errors and latencies stay within
//! limits, found and held.
//!
//! ```text
//! cargo run --release --example limits [-- --seconds S]
//! ```

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seconds = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--seconds"), Some(seconds)) => seconds.parse()?,
        _ => 20,
    };

    // A service that takes 5 ms for an answer and refuses what is beyond 8 000 a second.
    let target = Target::builder().delay(Duration::from_millis(5)).capacity(8_000).start()?;

    let stats = visitor(target.url())
        // At most so many, if the limits allow it.
        .tps(100_000)
        // 3 % of the requests may fail,
        .error_rate(0.03)
        // and 5 % may take longer than 20 ms.
        .latency(Duration::from_millis(20), 0.95)
        .duration(Duration::from_secs(seconds))
        .on_progress(Duration::from_secs(1), |progress| {
            println!(
                "  {:>5.1} s  asking for {:>7}/s  done {:>9.1}/s  failed {:>6}  p99 {:>9.2?}",
                progress.elapsed.as_secs_f64(),
                progress.goal_tps,
                progress.tps,
                progress.failed,
                progress.p99,
            );
        })
        .stop_on_ctrl_c()
        .await;

    println!("\n{stats}");
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
    // A status of 4xx or 5xx is an answer, and so no error, unless it is made one.
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}
