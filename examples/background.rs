//! A background load without an end, while edge cases are tested under it.
//!
//! ```text
//! cargo run --release --example background
//! ```

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;

#[tokio::main]
async fn main() -> Result<(), balter_uring::RunError> {
    let target = Target::start()?;
    let url = target.url();

    // Without a duration a scenario runs until it is dropped; aborting its task does that.
    let background = tokio::spawn({
        let url = url.clone();
        async move { visitor(url).tps(5_000).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;

    let calm = visitor(url.clone()).tps(500).duration(Duration::from_secs(2)).await;
    println!("under the background load:\n{calm}");

    // The edge case: the target stops answering for half a second.
    target.stall(Duration::from_millis(500));
    let stalled = visitor(url).tps(500).duration(Duration::from_secs(2)).await;
    println!("with a stall of 500 ms in it:\n{stalled}");

    background.abort();
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
