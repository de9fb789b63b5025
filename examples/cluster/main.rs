//! A node of a cluster, with scenarios that requests can name.
//!
//! ```text
//! $ cargo run --release --features rt --example cluster
//! $ cargo run --release --features rt --example cluster -- -p 7622 -n 127.0.0.1:7621
//! $ curl 127.0.0.1:7621/run --json '{ "name": "idle", "duration": 10, "max_tps": 1000 }'
//! ```
//!
//! and then look at http://127.0.0.1:7621. `README.md` beside this file shows how to run nodes in
//! containers, and several of them on one machine.

use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::time::sleep;

/// Loads nothing: for trying things out.
#[scenario]
async fn idle() {
    loop {
        rest().await;
    }
}

#[transaction]
async fn rest() {
    sleep(Duration::from_millis(1)).await;
}

/// Loads a page. Nodes take the URL from a request only with `--allow-targets`.
#[scenario]
async fn visitor(url: String) {
    let client = Client::new();
    loop {
        let _ = page(&client, &url).await;
    }
}

#[transaction]
async fn page(client: &Client, url: &str) -> Result<(), Error> {
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

#[tokio::main]
async fn main() {
    BalterRuntime::new().with_args().run().await;
}
