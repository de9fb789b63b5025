//! Functionality, Methods: they chain in any order.
use balter::prelude::*;

#[scenario]
async fn test_scaling_functionality() {
    loop {
        work().await;
    }
}

#[transaction]
async fn work() {}

#[tokio::main]
async fn main() {
    test_scaling_functionality()
        .tps(10_000)
        .duration(Duration::from_secs(3600))
        .await;
    test_scaling_functionality()
        .duration(Duration::from_secs(3600))
        .hint(Hint::Concurrency(75))
        .tps(10_000)
        .await;
}
