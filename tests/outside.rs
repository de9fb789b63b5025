//! What a scenario does outside of its transactions, as a log-in: it is counted, bounded and has a
//! deadline, and a scenario that never comes to a transaction does not go round as fast as it can.

#[path = "support/lib.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use balter_uring::Verdict;
use balter_uring::http::{Client, Error};
use balter_uring::prelude::*;
use balter_uring::target::Target;
use support::{assert_adds_up, told, visitor, wait, work};

/// Logs in, and works once that has succeeded.
#[scenario]
async fn member(url: String) {
    let login = Client::new().post(&url).send().await;
    let Ok(answer) = login.and_then(|answer| answer.error_for_status()) else { return };
    answer.discard().await.expect("the target answers in full");
    loop {
        work(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_log_in_that_fails_is_not_repeated_as_fast_as_it_goes_and_the_verdict_names_it() {
    let target = Target::builder().error_rate(1.0).start().expect("a target");
    let statistics = wait(member(target.url()).tps(10).duration(Duration::from_secs(3)));
    assert_adds_up(&statistics);
    assert!((1..=100).contains(&target.served()), "{}\n{statistics}", target.served());
    let counts = statistics.counts;
    assert_eq!((counts.planned, counts.started, counts.missed), (30, 0, 30), "{statistics}");
    let outside = statistics.outside;
    // The last may have been under way when the run ended.
    assert!(outside.requests.abs_diff(target.served()) <= 2, "{statistics}");
    assert!(outside.failed > 0 && outside.requests - outside.failed <= 2, "{statistics}");
    let Some(Verdict::NothingStarted { returned, outside: sent, outside_failed: failed }) =
        statistics.verdict
    else {
        panic!("{statistics}")
    };
    assert_eq!((sent, failed), (outside.requests, outside.failed));
    assert!(returned > 0, "{statistics}");
    assert!(statistics.tps_limited);
    let text = told(&statistics);
    assert!(text.contains("outside of transactions: "), "{text}");
    assert!(text.contains("no transaction started: the scenario returned"), "{text}");
}

#[test]
fn a_log_in_that_takes_a_second_is_waited_for() {
    let target = Target::builder().delay(Duration::from_secs(1)).start().expect("a target");
    let statistics = wait(member(target.url()).tps(20).duration(Duration::from_secs(4)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.counts.planned, 80, "{statistics}");
    assert!(statistics.counts.succeeded >= 20, "{statistics}");
    assert_eq!(statistics.counts.failed, 0, "{statistics}");
    assert_eq!(statistics.outside.failed, 0, "{statistics}");
    assert!(statistics.outside.requests > 0, "{statistics}");
}

#[test]
fn a_scenario_that_only_returns_backs_off_and_the_run_ends_on_time() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn quitter() {
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
    let begun = Instant::now();
    let run = quitter().concurrency(4).cores([0]).duration(Duration::from_secs(1));
    let statistics = wait(run.grace(Duration::from_secs(30)));
    assert!(begun.elapsed() < Duration::from_secs(10), "it waited for those who back off");
    assert_adds_up(&statistics);
    // After 0, 50, 150, 350 and 750 ms at the earliest.
    let calls = CALLS.load(Ordering::SeqCst);
    assert!((5..=20).contains(&calls), "{calls} calls\n{statistics}");
    assert!(
        matches!(
            statistics.verdict,
            Some(Verdict::NothingStarted { returned, outside: 0, .. }) if returned == calls
        ),
        "{statistics}"
    );
}

#[test]
fn a_scenario_that_returns_after_a_transaction_does_not_wait() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    /// Its tasks' transactions are its own.
    #[scenario]
    async fn brief(by_task: bool) {
        if by_task {
            balter_uring::spawn(work(Duration::ZERO)).await;
        } else {
            work(Duration::ZERO).await;
        }
        CALLS.fetch_add(1, Ordering::SeqCst);
    }
    for by_task in [false, true] {
        let before = CALLS.load(Ordering::SeqCst);
        let run = brief(by_task).concurrency(1).cores([0]).duration(Duration::from_secs(1));
        let statistics = wait(run);
        assert_adds_up(&statistics);
        let calls = CALLS.load(Ordering::SeqCst) - before;
        assert!(calls > 100, "{calls} calls, by a task: {by_task}\n{statistics}");
    }
}

#[test]
fn a_scenario_that_backed_off_goes_on_when_its_log_in_succeeds() {
    static TRIES: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn third_time_lucky() {
        if TRIES.fetch_add(1, Ordering::SeqCst) < 3 {
            return;
        }
        loop {
            work(Duration::from_millis(1)).await;
        }
    }
    let run = third_time_lucky().concurrency(1).cores([0]).duration(Duration::from_secs(3));
    let statistics = wait(run);
    assert_adds_up(&statistics);
    assert_eq!(TRIES.load(Ordering::SeqCst), 4, "{statistics}");
    assert!(statistics.counts.succeeded > 0, "{statistics}");
}

#[test]
fn requests_outside_of_transactions_are_bounded_by_the_rate_that_was_set() {
    let target = Target::start().expect("a target");
    /// A token for each transaction.
    #[scenario]
    async fn careful(url: String) {
        let token = Client::new().get(&url).prepare().expect("a valid URL");
        loop {
            let answer = token.send().await.expect("the target answers");
            answer.discard().await.expect("in full");
            work(Duration::ZERO).await;
        }
    }
    let run = careful(target.url()).concurrency(50).outside_tps(20);
    let statistics = wait(run.duration(Duration::from_secs(2)));
    assert_adds_up(&statistics);
    let outside = statistics.outside;
    assert!((2..=42).contains(&outside.requests), "{statistics}");
    assert_eq!(outside.failed, 0, "{statistics}");
    assert!(outside.held_back > 0, "{statistics}");
    assert!(outside.requests.abs_diff(target.served()) <= 1, "{statistics}");
    assert!(statistics.counts.started <= outside.requests, "{statistics}");
    assert!(statistics.counts.started > 0, "{statistics}");
}

#[test]
fn what_waits_for_its_turn_ends_with_the_run() {
    let target = Target::start().expect("a target");
    let begun = Instant::now();
    let run = member(target.url()).concurrency(20).outside_tps(1).grace(Duration::from_secs(30));
    let statistics = wait(run.duration(Duration::from_millis(500)));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_adds_up(&statistics);
    assert!(statistics.outside.requests <= 2, "{statistics}");
}

#[test]
fn what_a_transaction_sends_is_its_own_even_by_tasks() {
    let target = Target::start().expect("a target");
    #[scenario]
    async fn parallel(url: String) {
        let client = Client::new();
        loop {
            let _ = both(client.clone(), url.clone()).await;
        }
    }
    #[transaction]
    async fn both(client: Client, url: String) -> Result<(), Error> {
        let (other, other_url) = (client.clone(), url.clone());
        let task = balter_uring::spawn(async move {
            // A task of a task.
            let inner = balter_uring::spawn(async move { other.get(&other_url).send().await });
            inner.await
        });
        client.get(&url).send().await?.discard().await?;
        task.await.flatten().expect("neither panics")?.discard().await?;
        Ok(())
    }
    let run = parallel(target.url()).concurrency(2).outside_tps(1);
    let statistics = wait(run.duration(Duration::from_secs(1)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.outside.requests, 0, "{statistics}");
    assert!(statistics.counts.succeeded > 5, "{statistics}");
    assert!(target.served() >= 2 * statistics.counts.succeeded, "{statistics}");

    let run = visitor(target.url()).tps(100).outside_tps(1).duration(Duration::from_secs(1));
    let statistics = wait(run);
    support::assert_all_well(&statistics, 100);
    assert_eq!(statistics.outside.requests, 0, "{statistics}");
}

#[test]
fn requests_outside_of_transactions_have_a_deadline_up_to_the_last_byte_of_the_body() {
    static HEAD: AtomicU64 = AtomicU64::new(0);
    static BODY: AtomicU64 = AtomicU64::new(0);
    #[scenario]
    async fn patient(mute: String, slow: String) {
        let client = Client::new();
        match client.get(&mute).send().await {
            Err(Error::Timeout) => HEAD.fetch_add(1, Ordering::SeqCst),
            other => panic!("{other:?}"),
        };
        match client.get(&slow).send().await.expect("its head comes").bytes().await {
            Err(Error::Timeout) => BODY.fetch_add(1, Ordering::SeqCst),
            other => panic!("{other:?}"),
        };
    }
    let listen = || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
        (listener, url)
    };
    // The kernel accepts for it.
    let (_mute, mute_url) = listen();
    let (slow, slow_url) = listen();
    std::thread::spawn(move || {
        let mut streams = Vec::new();
        for mut stream in slow.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1_024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ");
            streams.push(stream);
        }
    });
    let run = patient(mute_url, slow_url).concurrency(1).timeout(Duration::from_millis(100));
    let statistics = wait(run.duration(Duration::from_secs(3)));
    assert_adds_up(&statistics);
    assert_eq!(statistics.panics, 0, "{statistics}");
    let (head, body) = (HEAD.load(Ordering::SeqCst), BODY.load(Ordering::SeqCst));
    assert!(head > 0 && body > 0, "{head} {body}\n{statistics}");
    // Those that failed at the head; the last may have been under way.
    let outside = statistics.outside;
    assert!(outside.failed == head, "{head}\n{statistics}");
    assert!(outside.requests >= head + body, "{statistics}");
}
