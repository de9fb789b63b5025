//! Two scenarios at once, each with its own rate and statistics, on the same shards.
//!
//! ```text
//! cargo run --release --example parallel
//! ```

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;

#[tokio::main]
async fn main() -> Result<(), balter_uring::RunError> {
    let target = Target::start()?;
    let url = target.url();

    let (background, peak) = tokio::join!(
        async {
            // A steady load, from the beginning to the end.
            browse(url.clone()).tps(2_000).duration(Duration::from_secs(4)).await
        },
        async {
            // After a second of it, a peak for two seconds.
            tokio::time::sleep(Duration::from_secs(1)).await;
            buy(url.clone()).tps(10_000).duration(Duration::from_secs(2)).await
        },
    );

    println!("{background}\n{peak}");
    Ok(())
}

#[scenario]
async fn browse(url: String) {
    let client = Client::new();
    loop {
        let _ = look(&client, &url).await;
    }
}

#[scenario]
async fn buy(url: String) {
    let client = Client::new();
    loop {
        // What a user does in a row is a scenario with several transactions.
        if look(&client, &url).await.is_ok() {
            let _ = order(&client, &url).await;
        }
    }
}

#[transaction]
async fn look(client: &Client, url: &str) -> Result<(), Error> {
    client.get(url).send().await?.error_for_status()?.discard().await?;
    Ok(())
}

#[transaction]
async fn order(client: &Client, url: &str) -> Result<(), Error> {
    client.post(url).body("one of these").send().await?.error_for_status()?.discard().await?;
    Ok(())
}
