//! Statistics: what a run returns.
use balter::prelude::*;

#[scenario]
async fn scenario_foo() {
    loop {
        work().await;
    }
}

#[transaction]
async fn work() {}

#[tokio::main]
async fn main() {
    let stats = scenario_foo()
        .tps(10_000)
        .duration(Duration::from_secs(10))
        .await;

    assert!(stats.actual_tps > 9_900.);
    assert!(stats.error_rate < 0.1);
}
