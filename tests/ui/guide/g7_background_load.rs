//! Patterns, Indefinite Background Load: a scenario in a task of tokio's.
use balter::prelude::*;
use tokio::time::sleep;

#[scenario]
async fn background_load() {
    loop {
        work().await;
    }
}

#[scenario]
async fn test_edge_case_load() {
    loop {
        work().await;
    }
}

#[transaction]
async fn work() {}

async fn disable_servers() {}

#[tokio::main]
async fn main() {
    tokio::spawn(async {
        background_load()
            .tps(10_000)
            .await;
    });

    // Wait for the background load to stabilize
    sleep(Duration::from_secs(300)).await;

    test_edge_case_load()
        .tps(1_000)
        .duration(Duration::from_secs(3600))
        .await;

    sleep(Duration::from_secs(300)).await;

    disable_servers().await;

    test_edge_case_load()
        .tps(1_000)
        .duration(Duration::from_secs(3600))
        .await;
}
