//! What the statistics of a run account for: what went over the network, which transaction failed
//! how, and what was asked for.

#[path = "support/lib.rs"]
mod support;

use balter_uring::http::{Client, PreparedRequest};
use balter_uring::net::TcpStream;
use balter_uring::prelude::*;
use balter_uring::target::Target;
use balter_uring::{Contradiction, FailureClass, RunError, Verdict};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use support::{assert_adds_up, fetch, told, visitor, wait, work, worker};

/// The core that runs and targets share where a test wants both on one shard.
const SHARED: usize = 0;

#[test]
fn bytes_and_connections_are_those_of_the_scenario_alone() {
    #[scenario]
    async fn asks(url: String) {
        let request = Client::new().get(&url).prepare().expect("a valid URL");
        loop {
            let _ = fetch(&request).await;
        }
    }
    // On the shard of the run itself: what the target moves is none of the run's.
    let target = Target::builder().core(SHARED).start().expect("a target");
    let run = asks(format!("{}bytes/1000", target.url())).concurrency(3).cores([SHARED]);
    let statistics = wait(run.duration(Duration::from_millis(500)));
    assert_adds_up(&statistics);
    let (served, requests) = (target.served(), statistics.counts.started);
    assert!(requests > 10 && served <= requests, "{served}: {statistics}");
    assert_eq!(statistics.connections, target.connections(), "{statistics}");
    // `GET /bytes/1000 HTTP/1.1` and a host at least, and what the codec adds at most; each sent
    // once. An answer that the end of the run cut off may have come in part.
    let sent = statistics.bytes_sent;
    assert_eq!(sent % requests, 0, "all requests are alike: {sent} bytes, {requests} requests");
    assert!((40..200).contains(&(sent / requests)), "{sent} bytes, {requests} requests");
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".len() as u64;
    let (least, most) = (statistics.counts.succeeded, requests);
    let received = least * (1_000 + head)..=most * (1_000 + head);
    assert!(received.contains(&statistics.bytes_received), "{received:?}: {statistics}");
    let line = told(&statistics);
    assert!(line.contains("3 connections opened"), "{line}");
}

#[test]
fn streams_are_counted_outside_of_transactions_too() {
    #[scenario]
    async fn speaks(target: std::net::SocketAddr) {
        let mut stream = TcpStream::connect(target).await.expect("it listens");
        let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("it reads");
        stream.flush().await.expect("it reads");
        let mut answer = vec![0; 20];
        stream.read_exact(&mut answer).await.expect("it answers");
        loop {
            work(Duration::from_millis(1)).await;
        }
    }
    let target = Target::start().expect("a target");
    let run = speaks(target.address()).concurrency(2).duration(Duration::from_secs(1));
    let statistics = wait(run);
    assert_eq!(statistics.connections, 2, "{statistics}");
    assert_eq!(statistics.bytes_sent, 2 * 46, "{statistics}");
    // All of a chunk counts as received, read or not.
    assert!(statistics.bytes_received >= 2 * 20, "{statistics}");
}

#[test]
fn without_a_network_there_is_no_line_about_it() {
    let statistics = wait(worker(Duration::ZERO).tps(100).duration(Duration::from_millis(200)));
    assert_eq!((statistics.bytes_sent, statistics.connections), (0, 0));
    assert!(!told(&statistics).contains("connections opened"), "{statistics}");
    assert!(!statistics.stopped);
}

mod basket {
    use super::*;

    #[transaction]
    pub(super) async fn get(request: &PreparedRequest) -> Result<(), balter_uring::http::Error> {
        request.send().await?.error_for_status()?.discard().await?;
        Ok(())
    }
}

mod search {
    use super::*;

    #[transaction]
    pub(super) async fn get() -> Result<(), &'static str> {
        Err("nothing found")
    }
}

#[test]
fn transactions_of_one_name_stay_apart_with_their_failures() {
    #[scenario]
    async fn shops(url: String) {
        let request = Client::new().get(&url).prepare().expect("a valid URL");
        loop {
            let _ = basket::get(&request).await;
            let _ = search::get().await;
            balter_uring::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let target = Target::builder().error_rate(1.0).start().expect("a target");
    let run = shops(target.url()).concurrency(2).duration(Duration::from_millis(400));
    let statistics = wait(run);
    assert_adds_up(&statistics);
    let [basket, search] = &statistics.transactions[..] else { panic!("two: {statistics}") };
    assert_eq!((&*basket.name, &*search.name), ("get", "get"));
    assert!(basket.module.ends_with("::basket"), "{}", basket.module);
    assert!(search.module.ends_with("::search"), "{}", search.module);
    assert!(basket.failed > 0 && search.failed > 0, "{statistics}");
    assert_eq!(basket.failures, [(FailureClass::Status, basket.failed)]);
    assert_eq!(search.failures, [(FailureClass::Application, search.failed)]);
    let shown = told(&statistics);
    for part in ["accounts::basket::get", "accounts::search::get", "failed by: status"] {
        assert!(shown.contains(part), "{part} is missing in: {shown}");
    }
}

#[test]
fn names_that_are_clear_are_shown_without_their_modules() {
    #[scenario]
    async fn two_things(url: String) {
        let request = Client::new().get(&url).prepare().expect("a valid URL");
        loop {
            let _ = basket::get(&request).await;
            work(Duration::from_millis(1)).await;
        }
    }
    let target = Target::start().expect("a target");
    let run = two_things(target.url()).concurrency(1).duration(Duration::from_millis(200));
    let shown = wait(run).to_string();
    assert!(shown.contains(" work ") && !shown.contains("basket::"), "{shown}");
    assert!(!shown.contains("failed by"), "{shown}");
}

#[test]
fn a_run_of_which_nothing_was_asked_says_so() {
    let statistics = wait(worker(Duration::ZERO));
    assert_eq!(statistics.scenario, "worker");
    assert_eq!(statistics.verdict, Some(Verdict::NothingAsked));
    assert!(!statistics.tps_limited && statistics.error.is_none());
    let shown = told(&statistics);
    assert!(shown.starts_with("worker: not run: nothing was asked"), "{shown}");
    assert!(shown.contains("`.tps()`") && !shown.contains("planned"), "{shown}");
    let result = wait(worker(Duration::ZERO).duration(Duration::from_secs(1)).run());
    assert_eq!(result.map(|statistics| statistics.scenario), Ok("worker".to_owned()));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let limit = Duration::from_millis(20);
    let scenario = || worker(Duration::ZERO).duration(Duration::from_secs(3_600));
    for (refused, why, advice) in [
        (scenario().tps(9).concurrency(2), Contradiction::TpsAndConcurrency, "max_concurrency"),
        (scenario().concurrency(2).tps(9), Contradiction::TpsAndConcurrency, "drop `.tps()`"),
        (scenario().saturate().tps(9), Contradiction::TpsAndSaturate, "drop `.saturate()`"),
        (
            scenario().concurrency(2).saturate(),
            Contradiction::ConcurrencyAndSaturate,
            "drop `.saturate()`",
        ),
        (
            scenario().concurrency(2).error_rate(0.1).find_capacity(),
            Contradiction::CapacityOfClosedLoop,
            "Drop one",
        ),
        (scenario().tps(9).find_capacity(), Contradiction::CapacityWithoutLimit, "add"),
        (scenario().find_capacity(), Contradiction::CapacityWithoutLimit, "`.latency()`"),
        (
            scenario().concurrency(9).max_concurrency(3),
            Contradiction::ConcurrencyAboveMost,
            "no more than it allows",
        ),
        (scenario().tps(9).cores([]), Contradiction::NoCores, "name one core"),
    ] {
        let statistics = wait(refused);
        assert_eq!(statistics.error, Some(RunError::Contradiction(why)));
        assert!(statistics.tps_limited && statistics.counts.planned == 0);
        let shown = told(&statistics);
        assert!(shown.starts_with("worker: not run: ") && shown.contains(advice), "{shown}");
    }
    let result = wait(scenario().tps(9).saturate().run());
    assert_eq!(result.err(), Some(RunError::Contradiction(Contradiction::TpsAndSaturate)));
    let swept = wait(scenario().cores([]).sweep([100], limit));
    assert_eq!(swept.err(), Some(RunError::Contradiction(Contradiction::NoCores)));
    // What goes together: hints, bounds, limits, and the last of two rates.
    for allowed in [
        scenario().tps(9).tps(50).max_concurrency(4).hint(Hint::Concurrency(2)),
        scenario().concurrency(2).hint(Hint::Tps(5)).max_concurrency(4),
        scenario().saturate().error_rate(0.1).max_concurrency(4).hint(Hint::Tps(50)),
        scenario().tps(50).latency(limit, 0.9).error_rate(0.1).find_capacity(),
    ] {
        let statistics = wait(allowed.duration(Duration::from_millis(200)));
        assert_eq!(statistics.error, None);
        assert!(statistics.counts.planned > 0, "{statistics}");
    }
}

#[test]
fn a_run_that_the_generator_spoilt_is_not_fit_to_be_asserted_on() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    /// Panics one time in ten, never a hundred times in a row.
    #[scenario]
    async fn shaky() {
        loop {
            work(Duration::ZERO).await;
            if CALLS.fetch_add(1, Ordering::Relaxed) % 10 == 9 {
                panic!("one in ten");
            }
        }
    }
    // All the transactions succeed and the rate is held.
    let statistics = wait(shaky().tps(300).duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.error_rate, 0.0);
    assert_eq!(statistics.verdict, Some(Verdict::Panics { panics: statistics.panics }));
    assert!(statistics.tps_limited && statistics.distorted, "{statistics}");
    let shown = told(&statistics);
    assert!(shown.contains("panicked: assert nothing on these figures"), "{shown}");
    assert!(shown.contains("the first: one in ten"), "{shown}");
}

#[test]
fn a_run_that_gives_up_says_that_it_was_stopped() {
    #[scenario]
    async fn hopeless() {
        panic!("hopeless");
    }
    let statistics = wait(hopeless().tps(1_000).duration(Duration::from_secs(3_600)));
    assert!(statistics.stopped, "{statistics}");
    assert!(told(&statistics).contains("(stopped before its time)"), "{statistics}");
    // A sweep does not go on with what does nothing but panic.
    let sweep = wait(hopeless().sweep([1_000, 2_000], Duration::from_secs(3_600)));
    let sweep = sweep.expect("it starts");
    assert!(sweep.stopped && sweep.points.len() == 1, "{sweep}");
}

#[test]
fn a_run_that_ends_on_time_or_with_what_it_was_to_find_was_not_stopped() {
    let target = Target::builder().capacity(300).start().expect("a target");
    let statistics = wait(visitor(target.url()).tps(50).duration(Duration::from_millis(300)));
    assert!(!statistics.stopped, "{statistics}");
    let sweep = wait(worker(Duration::ZERO).sweep([100, 200], Duration::from_millis(200)));
    let sweep = sweep.expect("it starts");
    assert!(!sweep.stopped && sweep.points.len() == 4, "{sweep}");
}
