//! Clients made for tokio inside scenarios: under the feature `tokio` they work, without it the
//! run ends and says what is missing.

#[path = "support/lib.rs"]
mod support;

use balter_uring::prelude::*;
use balter_uring::target::Target;
use support::{assert_adds_up, wait};

#[scenario]
async fn visitor(url: String) {
    let client = reqwest::Client::new();
    loop {
        let _ = visit(&client, &url).await;
    }
}

#[transaction]
async fn visit(client: &reqwest::Client, url: &str) -> Result<(), reqwest::Error> {
    client.get(url).send().await?.error_for_status()?.bytes().await?;
    Ok(())
}

#[cfg(not(feature = "tokio"))]
#[test]
fn without_the_feature_the_run_ends_and_says_what_is_missing() {
    use balter_uring::Verdict;

    let target = Target::start().expect("a target");
    let run = visitor(target.url()).tps(1_000).duration(Duration::from_secs(3_600));
    let statistics = wait(run);
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.succeeded, 0, "{statistics}");
    assert!(matches!(statistics.verdict, Some(Verdict::Panics { .. })), "{statistics}");
    let message = statistics.panic_message.as_deref().expect("it has panicked");
    assert!(message.contains("the feature `tokio` of balter-uring"), "{message}");
}

#[cfg(feature = "tokio")]
mod with_the_feature {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, OnceLock};
    use std::thread::ThreadId;
    use std::time::Instant;

    use balter_uring::FailureClass;
    use support::{assert_all_well, failures};

    use super::*;

    #[test]
    fn reqwest_asks_at_the_rate_wanted() {
        let target = Target::start().expect("a target");
        let statistics = wait(visitor(target.url()).tps(500).duration(Duration::from_secs(2)));
        println!("{statistics}");
        assert_all_well(&statistics, 1_000);
        assert!(target.served() >= statistics.counts.succeeded, "{}", target.served());
        // Some 0.2 ms on a quiet machine.
        assert!(statistics.service.quantile(0.5) < Duration::from_millis(50), "{statistics}");
        assert!(statistics.service.quantile(0.5) > Duration::from_micros(5), "{statistics}");
    }

    /// Against a target of its own, shorter, and with a latency that a disturbed machine keeps too.
    #[test]
    fn the_guides_basic_example_runs() {
        use reqwest::{Client, StatusCode};

        static URL: OnceLock<String> = OnceLock::new();

        #[tokio::main]
        async fn example() -> RunStatistics {
            basic_user_requests()
                .tps(1_000)
                .latency(Duration::from_secs(2), 0.95)
                .error_rate(0.03)
                .duration(Duration::from_secs(4))
                .await
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
            let res = client
                .post(URL.get().expect("set below"))
                .json(&["some", "data"])
                .send()
                .await
                .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;

            if res.status().is_success() { Ok(()) } else { Err(StatusCode::BAD_REQUEST) }
        }

        let target = Target::start().expect("a target");
        URL.set(target.url()).expect("set once");
        let statistics = example();
        assert_adds_up(&statistics);
        assert_eq!(statistics.error_rate, 0.0, "{statistics}");
        assert_eq!(statistics.goal_tps, 1_000, "{statistics}");
        assert!(statistics.counts.succeeded > 1_500, "{statistics}");
    }

    #[test]
    fn reqwest_in_a_closed_loop_asks_again_and_again() {
        let target = Target::start().expect("a target");
        let run = visitor(target.url()).concurrency(8).duration(Duration::from_secs(1));
        let statistics = wait(run);
        println!("{statistics}");
        assert_adds_up(&statistics);
        assert_eq!((statistics.counts.failed, statistics.panics), (0, 0), "{statistics}");
        // With wakes that are 10 ms late it would be some hundreds.
        assert!(statistics.counts.succeeded > 100, "{statistics}");
    }

    #[test]
    fn a_request_that_outlives_its_transaction_is_a_timeout() {
        let target = Target::builder().delay(Duration::from_secs(5)).start().expect("a target");
        let run = visitor(target.url())
            .tps(50)
            .timeout(Duration::from_millis(100))
            .duration(Duration::from_secs(1));
        let statistics = wait(run);
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.succeeded, 0, "{statistics}");
        let timeouts = failures(&statistics, FailureClass::Timeout);
        assert!(timeouts > 0, "{statistics}");
        assert_eq!(statistics.counts.failed, timeouts, "{statistics}");
    }

    #[test]
    fn a_timeout_of_the_clients_own_is_a_failure_of_the_application() {
        #[scenario]
        async fn hasty(url: String) {
            let client = reqwest::Client::builder()
                .timeout(Duration::from_millis(20))
                .build()
                .expect("a client without TLS");
            loop {
                let _ = visit(&client, &url).await;
            }
        }
        let target = Target::builder().delay(Duration::from_secs(5)).start().expect("a target");
        let statistics = wait(hasty(target.url()).tps(50).duration(Duration::from_secs(1)));
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.succeeded, 0, "{statistics}");
        let failed = failures(&statistics, FailureClass::Application);
        assert!(failed > 0 && failed == statistics.counts.failed, "{statistics}");
    }

    #[test]
    fn time_and_tasks_of_tokio_work_inside_a_transaction() {
        static HERE: AtomicU64 = AtomicU64::new(0);

        #[transaction]
        async fn sleep() -> Result<(), Duration> {
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            let slept = begun.elapsed();
            if slept >= Duration::from_millis(5) { Ok(()) } else { Err(slept) }
        }

        #[transaction]
        async fn elsewhere() -> Result<(), tokio::task::JoinError> {
            let shard: ThreadId = std::thread::current().id();
            let other = tokio::spawn(async { std::thread::current().id() }).await?;
            HERE.fetch_add(u64::from(other == shard), Ordering::Relaxed);
            let blocked = tokio::task::spawn_blocking(|| 1).await?;
            assert_eq!(blocked, 1);
            Ok(())
        }

        #[scenario]
        async fn sleeper() {
            loop {
                let _ = sleep().await;
                let _ = elsewhere().await;
            }
        }

        let statistics = wait(sleeper().tps(200).duration(Duration::from_secs(1)));
        println!("{statistics}");
        assert_all_well(&statistics, 200);
        assert_eq!(statistics.panics, 0, "{statistics}");
        assert_eq!(HERE.load(Ordering::Relaxed), 0, "tokio's tasks ran on a shard");
    }

    #[test]
    fn what_ends_with_the_scenario_is_dropped_in_the_context_too() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        struct NeedsRuntime;
        impl Drop for NeedsRuntime {
            fn drop(&mut self) {
                DROPPED.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async {});
            }
        }
        #[scenario]
        async fn holder() {
            let _held = NeedsRuntime;
            loop {
                support::work(Duration::from_millis(1)).await;
            }
        }
        let statistics = wait(holder().tps(100).duration(Duration::from_millis(500)));
        assert_all_well(&statistics, 50);
        assert_eq!(statistics.panics, 0, "{statistics}");
        assert!(DROPPED.load(Ordering::Relaxed) > 0);
    }

    /// What goes from one thread to another costs microseconds. Were it glommio that is woken, it
    /// would be some 10 ms each time, and this would take ten times as long.
    #[test]
    fn wakes_from_other_threads_come_at_once() {
        #[transaction]
        async fn pass() -> Result<(), tokio::task::JoinError> {
            tokio::spawn(async {}).await
        }
        #[scenario]
        async fn passer(done: Arc<AtomicU64>) {
            loop {
                if pass().await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let done = Arc::new(AtomicU64::new(0));
        let run = passer(Arc::clone(&done)).concurrency(1).duration(Duration::from_secs(2));
        let statistics = wait(run);
        println!("{statistics}");
        assert_adds_up(&statistics);
        assert_eq!(statistics.counts.failed, 0, "{statistics}");
        assert!(done.load(Ordering::Relaxed) > 1_000, "{statistics}");
    }
}
