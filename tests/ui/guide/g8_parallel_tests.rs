//! Patterns, Parallel Tests: two scenarios at once, and also as tasks of their own.
use balter::prelude::*;
use tokio::time::sleep;

#[scenario]
async fn set_background_load() {
    loop {
        work().await;
    }
}

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
    tokio::join! {
        async {
            set_background_load()
                .tps(10_000)
                .await;
        },
        async {
            sleep(Duration::from_secs(300)).await;

            test_scaling_functionality()
                .tps(100_000)
                .duration(Duration::from_secs(3600))
                .await;
        },
    };

    // A scenario is a future that may go to another thread, configured or not.
    let first = tokio::spawn(test_scaling_functionality().tps(1).duration(Duration::from_secs(1)));
    let second = tokio::spawn(async { set_background_load().tps(1).await });
    let (first, second): (RunStatistics, RunStatistics) =
        (first.await.expect("it does not panic"), second.await.expect("it does not panic"));
    let _ = (first, second);
}
