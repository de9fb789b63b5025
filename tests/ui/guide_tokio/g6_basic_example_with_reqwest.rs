//! Basic Example, with the client that it is printed with and without the limits that come later.
use balter::prelude::*;
use reqwest::{Client, StatusCode};

#[tokio::main]
async fn main() {
    basic_user_requests()
        .tps(5_000)
        .duration(Duration::from_secs(3600))
        .await;
}

#[scenario]
async fn basic_user_requests() {
    let client = reqwest::Client::new();
    loop {
        let _ = call_api(&client).await;
    }
}

#[transaction]
async fn call_api(client: &Client) -> Result<(), StatusCode> {
    let data = &["some", "data"];
    let res = client.post("https://example.com")
        .json(data)
        .send()
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;

    if res.status().is_success() {
        Ok(())
    } else {
        Err(StatusCode::BAD_REQUEST)
    }
}
