//! What a transaction costs that does nothing: the whole way from the permit to the record, on
//! one core, side by side with Balter 0.8.2.
//!
//! The figure is the time that the generating thread has run, over the transactions; on a core
//! that others use as well it is not inflated by their turns, as elapsed time is.
//!
//! And how many transactions a second are done by ever more instances that sleep.
//!
//! ```text
//! cargo bench --bench engine
//! cargo bench --bench engine -- instances
//! ```

// The macros of Balter 0.8.2 expand to paths that begin with `::balter`.
extern crate balter_peer as balter;

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/harness.rs"]
mod harness;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use balter_uring::{RunStatistics, Scenario};
use futures_lite::future::block_on;

use cpu::Stretch;
use harness::{Claim, Plan, Series, Table, interleave, ratios};

const MOST_NS: Claim = Claim::AtMost(50.0);
const LEAST_RATIO: Claim = Claim::AtLeast(5.0);

/// 20 000 instances against 1 000: a turn costs what it starts.
const LEAST_OF_FEWER: Claim = Claim::AtLeast(0.95);

/// Of each transaction of the instances that sleep.
const SLEEP: Duration = Duration::from_millis(2);

/// So many transactions a second can be done by nobody, so that a permit is always overdue.
const BEYOND_REACH: u32 = 50_000_000;

/// Balter's limiter counts whole nanoseconds between permits; at one there is never a wait.
const BALTERS_HIGHEST: u32 = 1_000_000_000;

mod ours {
    use balter_uring::{scenario, transaction};

    #[scenario]
    pub(crate) async fn idler() {
        loop {
            nothing().await;
        }
    }

    #[transaction]
    async fn nothing() {}

    #[scenario]
    pub(crate) async fn sleeper() {
        loop {
            asleep().await;
        }
    }

    #[transaction]
    async fn asleep() {
        balter_uring::time::sleep(super::SLEEP).await;
    }
}

mod peer {
    use std::convert::Infallible;
    use std::sync::atomic::Ordering;

    use balter::{scenario, transaction};

    use super::{BATCH, DONE};

    #[scenario]
    pub(crate) async fn idler() {
        for _ in 0..BATCH {
            let _ = nothing().await;
        }
        // Only this thread writes it.
        DONE.store(DONE.load(Ordering::Relaxed) + BATCH, Ordering::Relaxed);
        // A scenario that never waits would keep tokio's thread from its timers.
        tokio::task::yield_now().await;
    }

    #[transaction]
    async fn nothing() -> Result<(), Infallible> {
        Ok(())
    }
}

/// Transactions that Balter has done, counted in batches so that counting costs next to nothing.
static DONE: AtomicU64 = AtomicU64::new(0);
const BATCH: u64 = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    OneInstance,
    Saturate,
    Paced,
    PacedWithinReach(u32),
    /// Within its first second, before it first sums up what it has gathered.
    BalterAtFirst,
    /// Over whole seconds, at each of which it sums up, on the same thread here.
    Balter,
}

impl Contender {
    fn name(self) -> String {
        match self {
            Self::OneInstance => "closed loop, 1 instance".to_owned(),
            Self::Saturate => "closed loop, saturate".to_owned(),
            Self::Paced => format!("paced, {BEYOND_REACH} TPS asked, permits overdue"),
            Self::PacedWithinReach(tps) => format!("paced, {tps} TPS asked, permits overdue"),
            Self::BalterAtFirst => "Balter 0.8.2, first second".to_owned(),
            Self::Balter => "Balter 0.8.2, later".to_owned(),
        }
    }
}

fn main() {
    let plan = Plan::from_environment();
    plan.announce("engine");
    if plan.wants("nothing") {
        nothing(&plan);
    }
    if plan.wants("instances") {
        instances(&plan);
    }
}

/// Transactions that only sleep, in closed loops: what a turn costs with ever more instances.
fn instances(plan: &Plan) {
    const OF: usize = 1_000;
    let counts = [1, 64, OF, 20_000];
    let (generator, _) = cpu::cores();
    let measured = interleave(plan.repetitions, &counts, |&instances| {
        let scenario = ours::sleeper().concurrency(instances).cores([generator]);
        let length = plan.length(2.0);
        let statistics = block_on(scenario.duration(length).run()).expect("a run is allowed");
        assert!(statistics.counts.add_up() && statistics.counts.failed == 0, "{statistics}");
        assert_eq!(statistics.concurrency, instances, "{statistics}");
        statistics.actual_tps
    });
    let against = counts.iter().position(|&count| count == OF).expect("it is one of them");
    let mut table = Table::new(
        "transactions that sleep 2 ms, closed loop, one core",
        &["instances", "transactions/s", "(min–max)", "of what they could", "÷ 1 000", "claim"],
    );
    for (&instances, rates) in counts.iter().zip(&measured) {
        let series = Series::new(rates.iter().copied());
        let ratio = ratios(rates, &measured[against]).median();
        // Where all of them could be served in time.
        let most = instances as f64 / SLEEP.as_secs_f64();
        table.row([
            instances.to_string(),
            format!("{:.0}", series.median()),
            series.range(0),
            format!("{:.2}", series.median() / most),
            format!("{ratio:.2}"),
            match instances > OF {
                true => LEAST_OF_FEWER.judge("× 1 000 instances", ratio),
                false => String::new(),
            },
        ]);
    }
    table.print();
}

fn nothing(plan: &Plan) {
    // Permits that nobody can take are work as well: they are made, and dropped as missed. At a
    // rate just out of reach there are few of them, which leaves the transactions' own cost. What
    // is in reach grows with the fewer that are asked for, so it is approached twice.
    let mut within = BEYOND_REACH;
    for beyond in [1.3, 1.1] {
        let asked = Contender::PacedWithinReach(within);
        let reached = measure(asked, plan.length(1.0), plan.quick).per_second();
        within = (reached * beyond) as u32;
    }
    let contenders = [
        Contender::OneInstance,
        Contender::Saturate,
        Contender::PacedWithinReach(within.max(1_000)),
        Contender::Paced,
        Contender::BalterAtFirst,
        Contender::Balter,
    ];
    let measured = interleave(plan.repetitions, &contenders, |&contender| {
        measure(contender, plan.length(3.0), plan.quick)
    });
    let each = |stretches: &[Stretch]| -> Vec<f64> {
        stretches.iter().map(Stretch::used_ns_each).collect()
    };
    let [.., balter_at_first, balter] = &measured[..] else { unreachable!("six contenders") };
    let (balter_at_first, balter) = (each(balter_at_first), each(balter));
    let mut table = Table::new(
        "transactions that do nothing, one core",
        &["contender", "ns each", "(min–max)", "M/s", "Balter ÷ it", "Balter later ÷ it", "claim"],
    );
    for (contender, stretches) in contenders.iter().zip(&measured) {
        let each = each(stretches);
        let series = Series::new(each.iter().copied());
        let rate = Series::new(stretches.iter().map(|stretch| stretch.per_second() / 1e6));
        let ratio = ratios(&balter_at_first, &each).median();
        let later = ratios(&balter, &each).median();
        let claims = match contender {
            Contender::BalterAtFirst | Contender::Balter => String::new(),
            _ => format!(
                "{}; {}",
                MOST_NS.judge("ns", series.median()),
                LEAST_RATIO.judge("× fewer than Balter later", later)
            ),
        };
        table.row([
            contender.name(),
            format!("{:.1}", series.median()),
            series.range(1),
            format!("{:.2}", rate.median()),
            format!("{ratio:.2}"),
            format!("{later:.2}"),
            claims,
        ]);
    }
    table.print();
    println!(
        "  paced: each takes a permit, reads the clock twice and is recorded in three histograms"
    );
}

fn measure(contender: Contender, length: Duration, quick: bool) -> Stretch {
    match contender {
        Contender::OneInstance => ours(ours::idler().concurrency(1), length),
        Contender::Saturate => ours(ours::idler().saturate(), length),
        Contender::Paced => paced(BEYOND_REACH, length),
        Contender::PacedWithinReach(tps) => paced(tps, length),
        Contender::BalterAtFirst => {
            balter(Duration::from_millis(150), length.min(Duration::from_millis(700)))
        }
        // Begun and ended between two sums, so that there is one for each second of it.
        Contender::Balter => balter(Duration::from_millis(if quick { 150 } else { 600 }), length),
    }
}

fn paced(tps: u32, length: Duration) -> Stretch {
    ours(ours::idler().tps(tps), length)
}

fn ours(scenario: Scenario, length: Duration) -> Stretch {
    let (generator, _) = cpu::cores();
    // The shard sleeps before and after its run, so all that it uses meanwhile is the run's.
    let before = cpu::of_shard(generator);
    let statistics = block_on(scenario.cores([generator]).duration(length).run())
        .expect("the machine allows a run");
    let used = cpu::of_shard(generator).since(before);
    check(&statistics);
    Stretch { count: statistics.counts.completed(), elapsed: statistics.elapsed, used }
}

/// Nothing on the way is left out: a permit for each, and three times for each.
fn check(statistics: &RunStatistics) {
    let counts = &statistics.counts;
    assert!(counts.add_up(), "{counts:?}");
    assert!(counts.succeeded > 0 && counts.failed == 0, "{counts:?}");
    for latencies in [&statistics.response, &statistics.service, &statistics.lag] {
        assert_eq!(latencies.len(), counts.completed(), "each transaction has all three times");
    }
    if statistics.goal_tps > 0 {
        let planned = f64::from(statistics.goal_tps) * statistics.elapsed.as_secs_f64();
        let apart = (counts.planned as f64 - planned).abs() / planned;
        assert!(apart < 0.01, "{} permits planned, {planned} expected", counts.planned);
    }
}

/// Balter on a tokio runtime of one thread, which is what costs it least.
fn balter(warm_up: Duration, length: Duration) -> Stretch {
    use balter::prelude::ConfigurableScenario as _;
    let (generator, _) = cpu::cores();
    let margin = Duration::from_millis(100);
    let running = cpu::on_core("peer-balter", generator, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a tokio runtime starts").block_on(async {
            let scenario = peer::idler().tps(BALTERS_HIGHEST).duration(Duration::from_secs(60));
            let _ = tokio::time::timeout(warm_up + length + margin, scenario).await;
        });
    });
    let done = || DONE.load(Ordering::Relaxed);
    let stretch = cpu::watch(warm_up, length, done, || cpu::of_threads("peer-balter"));
    running.join().expect("Balter does not panic");
    assert!(stretch.count > 0, "Balter has done something");
    stretch
}
