//! Scenarios: one that calls the same transaction repeatedly.
use balter::prelude::*;

type Result<T> = std::result::Result<T, std::io::Error>;

#[scenario]
async fn scenario_foo() {
    loop {
        let _ = call_fetch_endpoint().await;
    }
}

#[transaction]
async fn call_fetch_endpoint() -> Result<()> {
    Ok(())
}

fn main() {
    drop(scenario_foo());
}
