//! What the tests of the engine share: the sums that always hold, waiting with a limit, and a
//! second process to do things in that the test's own process would not survive.
//!
//! Included by path into each test binary, which uses a part of it.
#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use balter_uring::http::{Error, PreparedRequest};
use balter_uring::prelude::*;

/// Nothing in these tests takes so long, on the slowest machine: what does has hung.
const HUNG: Duration = Duration::from_secs(60);

/// The role that a child process plays.
const ROLE: &str = "BALTER_TEST_ROLE";

/// Waits for a future on this thread; a run that never ends fails the test instead of holding it.
pub(crate) fn wait<F>(future: F) -> F::Output
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (done, result) = channel();
    std::thread::spawn(move || done.send(futures_lite::future::block_on(future)));
    match result.recv_timeout(HUNG) {
        Ok(output) => output,
        Err(RecvTimeoutError::Timeout) => panic!("still not over after {HUNG:?}"),
        Err(RecvTimeoutError::Disconnected) => panic!("the thread that awaited it has panicked"),
    }
}

/// Waits until a condition holds that another thread brings about.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < HUNG, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Asserts everything about a run's statistics that holds however the run went.
#[track_caller]
pub(crate) fn assert_adds_up(statistics: &RunStatistics) {
    let counts = statistics.counts;
    assert_eq!(counts.planned, counts.started + counts.missed, "{counts:?}");
    assert_eq!(counts.started, counts.succeeded + counts.failed + counts.cancelled, "{counts:?}");
    if let Some(shortfall) = &statistics.shortfall {
        let sum: u64 = shortfall.shares.iter().map(|&(_, share)| share).sum();
        assert_eq!(sum, shortfall.asked - shortfall.succeeded, "{shortfall:?}");
    }

    let over_shards = |field: fn(&balter_uring::Counts) -> u64| -> u64 {
        statistics.shards.iter().map(|shard| field(&shard.counts)).sum()
    };
    assert_eq!(over_shards(|counts| counts.planned), counts.planned, "planned, over the shards");
    assert_eq!(over_shards(|counts| counts.started), counts.started, "started, over the shards");
    assert_eq!(over_shards(|counts| counts.missed), counts.missed, "missed, over the shards");
    assert_eq!(over_shards(|counts| counts.succeeded), counts.succeeded, "succeeded");
    assert_eq!(over_shards(|counts| counts.failed), counts.failed, "failed, over the shards");
    assert_eq!(over_shards(|counts| counts.cancelled), counts.cancelled, "cancelled");
    for shard in &statistics.shards {
        assert!(shard.counts.add_up(), "core {}: {:?}", shard.core, shard.counts);
        assert!((0.0..=1.0).contains(&shard.busy), "core {}: busy {}", shard.core, shard.busy);
    }

    let completed = counts.completed();
    assert_eq!(statistics.response.len(), completed, "response times of all that completed");
    assert_eq!(statistics.service.len(), completed, "service times of all that completed");
    assert_eq!(statistics.lag.len(), completed, "lags of all that completed");
    let classes: u64 = statistics.failures.iter().map(|&(_, count)| count).sum();
    assert_eq!(classes, counts.failed, "each failure has one class: {:?}", statistics.failures);
    let given_up = statistics.given_up.len();
    assert!(given_up <= counts.missed + counts.cancelled, "{given_up} waits, {counts:?}");
    let texts: u64 = statistics.errors.iter().map(|error| error.count).sum();
    assert_eq!(texts + statistics.other_errors, counts.failed, "{:?}", statistics.errors);

    let (mut succeeded, mut failed) = (0, 0);
    for transaction in &statistics.transactions {
        succeeded += transaction.succeeded;
        failed += transaction.failed;
        let completed = transaction.succeeded + transaction.failed;
        assert_eq!(transaction.response.len(), completed, "response times of {}", transaction.name);
        assert_eq!(transaction.service.len(), completed, "service times of {}", transaction.name);
        assert_eq!(transaction.lag.len(), completed, "lags of {}", transaction.name);
    }
    assert_eq!((succeeded, failed), (counts.succeeded, counts.failed), "over the transactions");
    assert!((0.0..=1.0).contains(&statistics.error_rate), "{}", statistics.error_rate);
    // With limits it is that of the part in which the rate was held.
    let rate = match &statistics.steady {
        Some(_) => statistics.actual_tps,
        None => completed as f64 / statistics.elapsed.as_secs_f64().max(1e-9),
    };
    assert!(
        (rate - statistics.actual_tps).abs() <= rate * 1e-6 + 1e-6,
        "{completed} completed in {:?}, but {}/s",
        statistics.elapsed,
        statistics.actual_tps
    );
}

/// Asserts that so many were due and that none of them came to harm. How many of them a machine
/// that is busy with other things was late for is no matter: those count as missed.
#[track_caller]
pub(crate) fn assert_all_well(statistics: &RunStatistics, planned: u64) {
    assert_adds_up(statistics);
    let counts = statistics.counts;
    assert_eq!(counts.planned, planned, "{statistics}");
    assert_eq!((counts.failed, counts.cancelled), (0, 0), "{statistics}");
    assert!(counts.succeeded > 0, "{statistics}");
}

/// The summary of a run as one line: its sentences are broken at 80 columns.
pub(crate) fn told(statistics: &RunStatistics) -> String {
    statistics.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Attempts that a test which needs a fit machine has.
const ATTEMPTS: usize = 6;

/// Gives what a test needs a fit machine for, from the first attempt in which it was one; `Err`
/// says why it was not. None in all attempts fails the test: it never passes unseen.
#[track_caller]
pub(crate) fn once_fit<T>(mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let mut reasons = Vec::new();
    for _ in 0..ATTEMPTS {
        match attempt() {
            Ok(output) => return output,
            Err(reason) => {
                println!("not fit: {reason}");
                reasons.push(reason);
            }
        }
    }
    panic!("the machine was not fit for it, {ATTEMPTS} times: {reasons:#?}");
}

/// Has panics tell their message and no backtrace, for tests that have user code panic: in a debug
/// build the first backtrace takes a second, in which its shard stands still.
pub(crate) fn without_backtraces() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
}

/// How many transactions failed with this class.
pub(crate) fn failures(statistics: &RunStatistics, class: balter_uring::FailureClass) -> u64 {
    statistics.failures.iter().find(|(other, _)| *other == class).map_or(0, |&(_, count)| count)
}

/// One request to a target, read to its end.
#[transaction]
pub(crate) async fn fetch(request: &PreparedRequest) -> Result<(), Error> {
    request.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

/// Asks the target at this URL again and again.
#[scenario]
pub(crate) async fn visitor(url: String) {
    let request = balter_uring::http::Client::new().get(&url).prepare().expect("a valid URL");
    loop {
        let _ = fetch(&request).await;
    }
}

/// Takes so long, and succeeds.
#[transaction]
pub(crate) async fn work(duration: Duration) {
    if !duration.is_zero() {
        balter_uring::time::sleep(duration).await;
    }
}

/// One transaction after the other that each take so long.
#[scenario]
pub(crate) async fn worker(duration: Duration) {
    loop {
        work(duration).await;
    }
}

/// What a child process is to do; `None` in the test process itself.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Tells the parent something.
pub(crate) fn tell(line: impl std::fmt::Display) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // The harness leaves its own line open.
    writeln!(out, "\n@@{line}").and_then(|()| out.flush()).expect("the parent reads on");
}

/// Another process of this test binary, which runs the test `child` in a role.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    role: String,
}

/// What became of a child.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// What it told, and in what order.
    pub(crate) lines: Vec<String>,
    /// All that it wrote to standard error.
    pub(crate) errors: String,
}

impl Child {
    /// Starts it; `prepare` may set its environment.
    pub(crate) fn start(role: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
        command
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env_remove("BALTER_CORES")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        prepare(&mut command);
        let mut process = command.spawn().expect("a test can start its own binary");
        let out = process.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix("@@")
                    && sender.send(line.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Self { process, lines, seen: Vec::new(), role: role.to_owned() }
    }

    /// Waits until it has told this.
    pub(crate) fn until_told(&mut self, wanted: &str) {
        let deadline = Instant::now() + HUNG;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = line == wanted;
                    self.seen.push(line);
                    if found {
                        return;
                    }
                }
                Err(_) => panic!("{}: `{wanted}` was never told, but {:?}", self.role, self.seen),
            }
        }
    }

    /// Sends it SIGINT.
    pub(crate) fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is alive");
    }

    /// Waits for its end for so long at most; `true` if it has come.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Until it ends, stops it for so long and has it go on for so long, by turns.
    pub(crate) fn stop_and_continue(&mut self, stopped: Duration, running: Duration) {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = Pid::from_child(&self.process);
        let begun = Instant::now();
        while begun.elapsed() < HUNG && matches!(self.process.try_wait(), Ok(None)) {
            let _ = kill_process(pid, Signal::STOP);
            std::thread::sleep(stopped);
            let _ = kill_process(pid, Signal::CONT);
            std::thread::sleep(running);
        }
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        use std::io::Read;
        let mut errors = self.process.stderr.take().expect("piped");
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().expect("it can be waited for") {
                break status;
            }
            if begun.elapsed() > HUNG {
                let _ = self.process.kill();
                panic!("{}: still alive after {HUNG:?}; told {:?}", self.role, self.seen);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut lines = std::mem::take(&mut self.seen);
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(5)) {
            lines.push(line);
        }
        Ended { status, lines, errors: reader.join().unwrap_or_default() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A test that failed in between leaves none behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Ended {
    /// The value of the line `key=value`.
    #[track_caller]
    pub(crate) fn value(&self, key: &str) -> &str {
        self.lines
            .iter()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("nothing was told of `{key}`: {self:#?}"))
    }

    /// The same, as a number.
    #[track_caller]
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.value(key).parse().unwrap_or_else(|_| panic!("`{key}` is no number: {self:#?}"))
    }

    /// Asserts that it came to its own end, all its assertions held.
    #[track_caller]
    pub(crate) fn assert_success(&self) {
        assert!(self.status.success(), "{self:#?}");
    }
}

/// Starts a child in a role and waits for its end.
pub(crate) fn in_a_child(role: &str) -> Ended {
    Child::start(role, |_| {}).end()
}

/// Tells the counts of a run to the parent.
pub(crate) fn tell_counts(statistics: &RunStatistics) {
    let counts = statistics.counts;
    for (key, value) in [
        ("planned", counts.planned),
        ("started", counts.started),
        ("missed", counts.missed),
        ("succeeded", counts.succeeded),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
    ] {
        tell(format_args!("{key}={value}"));
    }
    tell(format_args!("elapsed_ms={}", statistics.elapsed.as_millis()));
}
