//! Basic Example, with this crate's client and without the limits that come later.
use balter::http::{Client, StatusCode};
use balter::prelude::*;

#[tokio::main]
async fn main() {
    // Run a scenario in parallel for 3600s such that:
    // - Max 5,000 transactions per second
    basic_user_requests()
        .tps(5_000)
        .duration(Duration::from_secs(3600))
        .await;
}

#[scenario]
async fn basic_user_requests() {
    let client = Client::new();
    loop {
        let _ = call_api(&client).await;
    }
}

#[transaction]
async fn call_api(client: &Client) -> Result<(), StatusCode> {
    let res = client.post("http://example.com")
        .body("data")
        .send()
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;

    if res.status().is_success() {
        Ok(())
    } else {
        Err(StatusCode::BAD_REQUEST)
    }
}
