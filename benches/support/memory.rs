//! Memory of an instance that has a live connection.
//!
//! The target is a process of its own, this bench once more, so that its side of the connections
//! is not counted.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use balter_uring::Progress;
use balter_uring::http::Client;
use balter_uring::target::Target;
use futures_lite::future::block_on;

use crate::cpu;
use crate::harness::{Claim, Plan, Table};
use crate::ours;

/// In the child's environment: be a target.
const VARIABLE: &str = "BALTER_BENCH_BE_A_TARGET";

const INSTANCES: usize = 10_000;

/// Instances that are there before memory is first looked at, so that what a shard has once (its
/// ring, its buffers, its histograms) is not counted for each.
const BEFORE: usize = 100;

const MOST_KIB: Claim = Claim::AtMost(20.0);

/// Answers wait so long, so that all instances are in the midst of a transaction.
const DELAY: Duration = Duration::from_millis(500);

/// In the child: serves until its parent is gone, then says how many connections it has accepted.
pub(crate) fn be_a_target_if_asked() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let target = Target::builder().delay(DELAY).start().expect("a target starts");
    println!("{}", target.url());
    let _ = io::stdout().flush();
    let _ = io::stdin().read_to_end(&mut Vec::new());
    println!("{}", target.connections());
    std::process::exit(0);
}

struct Served {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
    url: String,
}

impl Served {
    fn start() -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(VARIABLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("the child has no pipe");
        let input = child.stdin.take().ok_or_else(missing)?;
        let mut output = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let mut url = String::new();
        output.read_line(&mut url)?;
        Ok(Self { child, input, output, url: url.trim().to_owned() })
    }

    /// Ends the child. Answers how many connections it has accepted.
    fn stop(mut self) -> io::Result<u64> {
        drop(self.input);
        let mut connections = String::new();
        self.output.read_line(&mut connections)?;
        self.child.wait()?;
        connections.trim().parse().map_err(io::Error::other)
    }
}

pub(crate) fn measure(plan: &Plan) {
    let instances = if plan.quick { 200 } else { INSTANCES };
    let before = if plan.quick { 20 } else { BEFORE };
    let length = if plan.quick { 1.0 } else { 8.0 };
    let served = Served::start().expect("this bench can be run once more");
    let first = resident_with(&served.url, before, length);
    // Once: what a process has used it keeps, so that a second time would look like nothing.
    let second = resident_with(&served.url, instances, length);
    let connections = served.stop().expect("the child tells its count and ends");
    assert!(connections >= (before + instances) as u64, "each instance has had its connection");
    let kibibytes = second.saturating_sub(first) as f64 / 1024.0 / (instances - before) as f64;
    let mut table = Table::new(
        format!("resident memory, {instances} instances on one shard, each with a live connection"),
        &["figure", "value", "claim"],
    );
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    table.row([format!("with {before} instances"), mebibytes(first), String::new()]);
    table.row([format!("with {instances} instances"), mebibytes(second), String::new()]);
    table.row([
        "each instance".to_owned(),
        format!("{kibibytes:.2} KiB"),
        MOST_KIB.judge("KiB", kibibytes),
    ]);
    table.print();
    println!("  one run: a process keeps what it has used; the target is another process");
}

/// The most memory that was in use while all instances were in flight.
fn resident_with(url: &str, instances: usize, seconds: f64) -> u64 {
    let (generator, _) = cpu::cores();
    let most = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&most);
    let look = move |progress: &Progress| {
        if progress.in_flight as usize == instances {
            seen.fetch_max(cpu::resident(), Ordering::Relaxed);
        }
    };
    let run = ours::visitor(Client::builder(), url.to_owned())
        .concurrency(instances)
        .cores([generator])
        .duration(Duration::from_secs_f64(seconds))
        .on_progress(Duration::from_millis(100), look);
    let statistics = block_on(run.run()).expect("the machine allows a run");
    assert!(statistics.counts.add_up(), "{:?}", statistics.counts);
    let completed = statistics.counts.completed() as usize;
    assert!(completed >= instances, "each instance has had an answer: {completed}");
    if statistics.counts.failed > 0 {
        println!("  of {instances} instances, failed: {:?}", statistics.failures);
    }
    let most = most.load(Ordering::Relaxed);
    assert!(most > 0, "all instances were in flight at once");
    most
}
