//! The least that a load test needs: a scenario, a transaction, a rate and a duration.
//!
//! ```text
//! cargo run --release --example basic_tps
//! ```

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;

#[tokio::main]
async fn main() -> Result<(), balter_uring::RunError> {
    // Something to load; aim at your own service instead.
    let target = Target::start()?;

    // Run a scenario in parallel for 5 s, such that 5 000 transactions start each second.
    let stats = basic_user_requests(target.url()).tps(5_000).duration(Duration::from_secs(5)).await;

    println!("{stats}");
    Ok(())
}

// A scenario is an async function and can hold any logic. Every instance runs it anew; here each
// has a client, and so connections, of its own.
#[scenario]
async fn basic_user_requests(url: String) {
    let client = Client::new();
    loop {
        let _ = call_api(&client, &url).await;
    }
}

// A transaction is one request: what is paced, measured and counted.
#[transaction]
async fn call_api(client: &Client, url: &str) -> Result<(), Error> {
    let response = client.post(url).body("some data").send().await?;
    // Without this only failures of the network would count as failures.
    response.error_for_status()?.bytes().await?;
    Ok(())
}
