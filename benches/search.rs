//! How soon the highest rate within a limit is found, and how well it is kept: beside Balter 0.8.2,
//! on the same target.
//!
//! Both begin at their default, 512 a second, and on one core; the target has another. What a
//! generator does is read from the target's own count every 100 ms, as a rate over half a second,
//! which is the same measure for both; of this crate's the rate that it asks for is shown as well.
//! Found is the moment from which that rate stays within 5 % of the true one for 3 s.
//!
//! Errors: the target refuses what is beyond its capacity N, so that 3 % are refused at N / 0.97.
//! Latency: what is beyond N waits for its turn, so that N is the highest rate that does not make
//! a queue grow without end. Such a target answers N a second however far beyond it is asked, so
//! that it matters more how long its answers took, by the user's own code.
//!
//! ```text
//! cargo bench --bench search
//! cargo bench --bench search -- latency
//! ```

// The macros of Balter 0.8.2 expand to paths that begin with `::balter`.
extern crate balter_peer as balter;

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/harness.rs"]
mod harness;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use balter_uring::target::Target;
use futures_lite::future::block_on;

use harness::{Claim, Plan, Series, Table, interleave};

/// Of the target, a second: not far above the first rate, since Balter's steps take seconds. Its
/// second doubling, to 2 048, meets the limit of the one by chance; of the other it is beyond.
const CAPACITIES: [u32; 2] = [2_000, 1_700];
const ERROR_RATE: f64 = 0.03;
const LATENCY: Duration = Duration::from_millis(20);
const QUANTILE: f64 = 0.95;

const SAMPLE: Duration = Duration::from_millis(100);
/// Samples that a rate is measured over.
const OVER: usize = 5;
/// Seconds for which a rate has to stay near, and over which the last one is measured.
const STAYS: f64 = 3.0;

/// What the scenarios of both share: how long answers took, by the user's own code, and when they
/// were asked for.
static TIMES: Mutex<Vec<(Instant, Duration)>> = Mutex::new(Vec::new());

fn took(asked: Instant) {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner).push((asked, asked.elapsed()));
}

mod ours {
    use std::time::Instant;

    use balter_uring::http::{Client, Error, PreparedRequest};
    use balter_uring::{scenario, transaction};

    #[scenario]
    pub(crate) async fn visitor(url: String) {
        let page = Client::new().get(&url).prepare().expect("the target's own URL");
        loop {
            let _ = visit(&page).await;
        }
    }

    #[transaction]
    async fn visit(page: &PreparedRequest) -> Result<(), Error> {
        let asked = Instant::now();
        page.send().await?.error_for_status()?.discard().await?;
        super::took(asked);
        Ok(())
    }
}

/// Where Balter's scenario, which takes no arguments, finds its target.
static URL: RwLock<String> = RwLock::new(String::new());

mod theirs {
    use std::time::Instant;

    use balter::{scenario, transaction};
    use reqwest::{Client, Error};

    #[scenario]
    pub(crate) async fn visitor() {
        let client = Client::new();
        let url = super::URL.read().expect("nobody panics with it").clone();
        loop {
            let _ = visit(&client, &url).await;
        }
    }

    #[transaction]
    async fn visit(client: &Client, url: &str) -> Result<(), Error> {
        let asked = Instant::now();
        client.get(url).send().await?.error_for_status()?.bytes().await?;
        super::took(asked);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Contender {
    Ours,
    Balter,
}

/// What is to be kept, of a target of which capacity.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Errors(u32),
    Latency(u32),
}

impl Limit {
    fn target(self) -> Target {
        let builder = match self {
            Self::Errors(capacity) => Target::builder().capacity(capacity),
            Self::Latency(capacity) => Target::builder().queueing_capacity(capacity),
        };
        builder.start().expect("a target starts")
    }

    fn true_rate(self) -> f64 {
        match self {
            Self::Errors(capacity) => f64::from(capacity) / (1.0 - ERROR_RATE),
            Self::Latency(capacity) => f64::from(capacity),
        }
    }
}

/// A rate from some moment on, in seconds.
type Rates = Vec<(f64, f64)>;

/// What one search did.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Seconds; infinite if it was not found.
    found: f64,
    last: f64,
    /// The last one against the true one.
    off: f64,
    /// Share of the time in which the rate was above the true one by more than a tenth.
    above: f64,
}

impl Search {
    fn of(rates: &[(f64, f64)], truth: f64) -> Self {
        let end = rates.last().map_or(0.0, |&(at, _)| at);
        let near = |rate: f64| (rate / truth - 1.0).abs() <= 0.05;
        let stays = |from: f64| {
            let mut those = rates.iter().filter(|(at, _)| (from..from + STAYS).contains(at));
            from + STAYS <= end && those.all(|&(_, rate)| near(rate))
        };
        let found = rates.iter().map(|&(at, _)| at).find(|&at| stays(at));
        let from = (end - STAYS).max(end / 2.0);
        let (mut sum, mut count, mut above) = (0.0, 0_u32, 0_u32);
        for &(at, rate) in rates {
            above += u32::from(rate > 1.1 * truth);
            if at >= from {
                sum += rate;
                count += 1;
            }
        }
        let last = sum / f64::from(count.max(1));
        Self {
            found: found.unwrap_or(f64::INFINITY),
            last,
            off: last / truth - 1.0,
            above: f64::from(above) / rates.len().max(1) as f64,
        }
    }
}

/// What one contender did in one repetition.
#[derive(Clone, Copy, Debug)]
struct Measured {
    by_the_target: Search,
    /// By the rate that it says it asks for.
    by_itself: Option<Search>,
    /// Share of the answers that took longer than the limit on latencies.
    slow: f64,
    /// Of the last seconds, milliseconds.
    p95: f64,
}

fn main() {
    let plan = Plan::from_environment();
    plan.announce("search");
    let errors = CAPACITIES.map(|capacity| ("errors", Limit::Errors(capacity)));
    let latency = ("latency", Limit::Latency(CAPACITIES[1]));
    for (part, limit) in errors.into_iter().chain([latency]) {
        if plan.wants(part) {
            compare(&plan, limit);
        }
    }
}

fn compare(plan: &Plan, limit: Limit) {
    let length = Duration::from_secs(if plan.quick { 1 } else { 25 });
    let contenders = [Contender::Ours, Contender::Balter];
    let measured =
        interleave(plan.repetitions, &contenders, |&contender| measure(contender, limit, length));
    let (title, too_much) = match limit {
        Limit::Errors(capacity) => (
            format!("error rate 0.03 of a target that refuses more than {capacity}/s"),
            "10 % above",
        ),
        Limit::Latency(capacity) => (
            format!("p95 of 20 ms of a target that queues more than {capacity}/s"),
            "later than 20 ms",
        ),
    };
    let (right, seconds) = (limit.true_rate(), length.as_secs());
    let mut table = Table::new(
        format!("{title}: {right:.0}/s are right; {seconds} s"),
        &[
            "contender",
            "found, s",
            "(min–max)",
            "last rate",
            "(min–max)",
            "off by",
            too_much,
            "p95 at the end",
            "claim",
        ],
    );
    let [ours, theirs] = &measured[..] else { return };
    let by_the_target = |measured: &Measured| Some(measured.by_the_target);
    row(&mut table, "balter-uring", limit, ours, by_the_target, true);
    row(&mut table, "  by the rate asked for", limit, ours, |measured| measured.by_itself, false);
    row(&mut table, "Balter 0.8.2, reqwest", limit, theirs, by_the_target, false);
    table.print();
}

fn row(
    table: &mut Table,
    name: &str,
    limit: Limit,
    measured: &[Measured],
    search: impl Fn(&Measured) -> Option<Search>,
    claims: bool,
) {
    let searches: Vec<_> = measured.iter().filter_map(search).collect();
    let series = |of: fn(&Search) -> f64| Series::new(searches.iter().map(of));
    let whole = |of: fn(&Measured) -> f64| Series::new(measured.iter().map(of)).median();
    let (found, last) = (series(|search| search.found), series(|search| search.last));
    let too_much = match limit {
        Limit::Errors(_) => series(|search| search.above).median(),
        Limit::Latency(_) => whole(|measured| measured.slow),
    };
    let claim = if claims {
        Claim::AtMost(15.0).judge("s to find it", found.median()).replace("inf", "never")
    } else {
        String::new()
    };
    table.row([
        name.to_owned(),
        format!("{:.1}", found.median()).replace("inf", "never"),
        found.range(1).replace("inf", "never"),
        format!("{:.0}", last.median()),
        last.range(0),
        format!("{:+.1} %", series(|search| search.off).median() * 100.0),
        format!("{:.1} %", too_much * 100.0),
        format!("{:.2} ms", whole(|measured| measured.p95)),
        claim,
    ]);
}

fn measure(contender: Contender, limit: Limit, length: Duration) -> Measured {
    let target = limit.target();
    TIMES.lock().unwrap_or_else(PoisonError::into_inner).clear();
    // Still under way when the last sample is taken.
    let whole = length + Duration::from_millis(300);
    let asked_for = Arc::new(Mutex::new(Rates::new()));
    let running = match contender {
        Contender::Ours => run_ours(target.url(), limit, whole, Arc::clone(&asked_for)),
        Contender::Balter => run_balter(target.url(), limit, whole),
    };
    let begun = Instant::now();
    let rates = watch(&target, begun, length);
    // A peer that panics has found what it has found.
    if running.join().is_err() {
        println!("  {contender:?} has ended with a panic");
    }
    let asked_for = std::mem::take(&mut *asked_for.lock().expect("nobody panics with it"));
    let truth = limit.true_rate();
    let times = std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner));
    let slow = times.iter().filter(|(_, took)| *took > LATENCY).count();
    let last = length.as_secs_f64() - STAYS.min(length.as_secs_f64() / 2.0);
    let of_the_end = |asked: &Instant| asked.duration_since(begun).as_secs_f64() >= last;
    let at_the_end: Vec<_> = times
        .iter()
        .filter(|(asked, _)| of_the_end(asked))
        .map(|(_, took)| took.as_secs_f64() * 1e3)
        .collect();
    Measured {
        by_the_target: Search::of(&rates, truth),
        by_itself: (!asked_for.is_empty()).then(|| Search::of(&asked_for, truth)),
        slow: slow as f64 / times.len().max(1) as f64,
        p95: quantile(at_the_end, QUANTILE),
    }
}

fn quantile(mut values: Vec<f64>, quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * quantile) as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// The rates that the target sees.
fn watch(target: &Target, begun: Instant, length: Duration) -> Rates {
    let mut counts = vec![(0.0, target.served())];
    let mut next = SAMPLE;
    while next <= length {
        std::thread::sleep(next.saturating_sub(begun.elapsed()));
        let served = target.served();
        counts.push((begun.elapsed().as_secs_f64(), served));
        next += SAMPLE;
    }
    let rate = |pair: &[(f64, u64)]| {
        let (from, to) = (pair[0], pair[pair.len() - 1]);
        (from.0, (to.1 - from.1) as f64 / (to.0 - from.0))
    };
    counts.windows(OVER + 1).map(rate).collect()
}

fn run_ours(
    url: String,
    limit: Limit,
    length: Duration,
    asked_for: Arc<Mutex<Rates>>,
) -> JoinHandle<()> {
    let (core, _) = cpu::cores();
    let scenario = ours::visitor(url).cores([core]).duration(length);
    let scenario = match limit {
        Limit::Errors(_) => scenario.error_rate(ERROR_RATE),
        Limit::Latency(_) => scenario.latency(LATENCY, QUANTILE),
    };
    let scenario = scenario.on_progress(SAMPLE, move |progress| {
        let rate = (progress.elapsed.as_secs_f64(), f64::from(progress.goal_tps));
        asked_for.lock().expect("nobody panics with it").push(rate);
    });
    std::thread::spawn(move || {
        let statistics = block_on(scenario.run()).expect("the machine allows a run");
        assert!(statistics.counts.add_up(), "{:?}", statistics.counts);
    })
}

/// As it costs least: on one thread.
fn run_balter(url: String, limit: Limit, length: Duration) -> JoinHandle<()> {
    use balter::prelude::ConfigurableScenario as _;
    *URL.write().expect("nobody panics with it") = url;
    let (core, _) = cpu::cores();
    cpu::on_core("peer-balter", core, move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("tokio starts");
        runtime.block_on(async {
            let scenario = theirs::visitor().duration(Duration::from_secs(3_600));
            let scenario = match limit {
                Limit::Errors(_) => scenario.error_rate(ERROR_RATE),
                Limit::Latency(_) => scenario.latency(LATENCY, QUANTILE),
            };
            // It ends late; what is left is dropped with the runtime.
            let _ = tokio::time::timeout(length, scenario).await;
        });
    })
}
