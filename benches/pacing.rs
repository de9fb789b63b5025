//! How well a rate is kept, and how much of a reported latency is the generator's own.
//!
//! Open loop against a target on another core. The response times of such a target are a few tens
//! of microseconds, so that what is reported beyond that is this generator's lateness.
//!
//! ```text
//! cargo bench --bench pacing
//! cargo bench --bench pacing -- latency
//! ```

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/harness.rs"]
mod harness;

use std::time::Duration;

use balter_uring::http::{Client, Error, PreparedRequest};
use balter_uring::target::Target;
use balter_uring::{Latencies, RunStatistics, Scenario, scenario, transaction};
use futures_lite::future::block_on;

use harness::{Claim, Plan, Series, Table, interleave};

#[scenario]
async fn visitor(url: String) {
    let page = Client::new().get(&url).prepare().expect("the target's own URL");
    loop {
        // What fails is counted, and `check` wants none.
        let _ = visit(&page).await;
    }
}

#[transaction]
async fn visit(page: &PreparedRequest) -> Result<(), Error> {
    page.send().await?.error_for_status()?.discard().await?;
    Ok(())
}

/// A figure in microseconds of a run at a rate, and what is claimed of it.
struct Figure {
    tps: u32,
    name: &'static str,
    of: fn(&RunStatistics) -> &Latencies,
    quantile: f64,
    claim: Option<Claim>,
}

const RATES: [u32; 3] = [1_000, 20_000, 100_000];

fn figures() -> Vec<Figure> {
    let lag: fn(&RunStatistics) -> &Latencies = |statistics| &statistics.lag;
    let response: fn(&RunStatistics) -> &Latencies = |statistics| &statistics.response;
    let at_most = |micros: f64| Some(Claim::AtMost(micros));
    let mut figures = Vec::new();
    for tps in RATES {
        let of_rate = [
            ("lag p50", lag, 0.5, None),
            ("lag p99", lag, 0.99, at_most(50.0).filter(|_| tps == 20_000)),
            ("lag p99.9", lag, 0.999, None),
            ("response p50", response, 0.5, at_most(if tps == 1_000 { 70.0 } else { 60.0 })),
            ("response p99", response, 0.99, at_most(200.0).filter(|_| tps <= 20_000)),
        ];
        figures.extend(of_rate.map(|(name, of, quantile, claim)| Figure {
            tps,
            name,
            of,
            quantile,
            claim,
        }));
    }
    figures
}

fn main() {
    let plan = Plan::from_environment();
    plan.announce("pacing");
    if plan.wants("latency") {
        latency(&plan);
    }
    if plan.wants("rate") {
        rate(&plan);
    }
    if plan.wants("slow") {
        slow(&plan);
    }
}

fn latency(plan: &Plan) {
    let target = Target::start().expect("a target starts");
    let measured = interleave(plan.repetitions, &RATES, |&tps| {
        run(visitor(target.url()).tps(tps), plan.length(5.0))
    });
    let mut table = Table::new(
        "lateness of the generator and response times as reported, µs",
        &["rate, figure", "µs", "(min–max)", "runs that met it", "claim"],
    );
    for figure in figures() {
        let at = RATES.iter().position(|&tps| tps == figure.tps).expect("made from the rates");
        let values = measured[at].iter().map(|statistics| {
            (figure.of)(statistics).quantile(figure.quantile).as_nanos() as f64 / 1e3
        });
        let values: Vec<_> = values.collect();
        let name = format!("{} TPS, {}", figure.tps, figure.name);
        table.row(judged(name, &values, 1, "µs", figure.claim));
    }
    let mut rates = Table::new(
        "rates reached",
        &["rate", "TPS", "(min–max)", "most missed", "distorted runs", "shard busy"],
    );
    for (tps, runs) in RATES.iter().zip(&measured) {
        let reached = Series::new(runs.iter().map(|statistics| statistics.actual_tps));
        rates.row([
            format!("{tps} TPS"),
            format!("{:.1}", reached.median()),
            reached.range(1),
            runs.iter().map(|run| run.counts.missed).max().unwrap_or(0).to_string(),
            runs.iter().filter(|run| run.distorted).count().to_string(),
            format!("{:.2}", Series::new(runs.iter().map(|run| run.shards[0].busy)).median()),
        ]);
    }
    table.print();
    rates.print();
}

fn rate(plan: &Plan) {
    let target = Target::start().expect("a target starts");
    let runs: Vec<_> = (0..plan.repetitions)
        .map(|_| run(visitor(target.url()).tps(50_000), plan.length(10.0)))
        .collect();
    let reached: Vec<_> = runs.iter().map(|statistics| statistics.actual_tps).collect();
    let missed: Vec<_> = runs.iter().map(|statistics| statistics.counts.missed as f64).collect();
    let mut table = Table::new(
        "`.tps(50_000)` on one shard for 10 s",
        &["figure", "value", "(min–max)", "runs that met it", "claim"],
    );
    let claim = Some(Claim::Within(49_950.0, 50_050.0));
    table.row(judged("rate reached".to_owned(), &reached, 1, "TPS", claim));
    table.row(judged("missed".to_owned(), &missed, 0, "missed", Some(Claim::AtMost(0.0))));
    table.print();
}

fn slow(plan: &Plan) {
    let delay = Duration::from_millis(if plan.quick { 25 } else { 250 });
    let target = Target::builder().delay(delay).start().expect("a target starts");
    let runs: Vec<_> = (0..plan.repetitions)
        .map(|_| run(visitor(target.url()).tps(50), plan.length(20.0)))
        .collect();
    let reached: Vec<_> = runs.iter().map(|statistics| statistics.actual_tps).collect();
    let mut table = Table::new(
        "`.tps(50)` for 20 s against a target that takes 250 ms (Balter's issue 8)",
        &["figure", "value", "(min–max)", "runs that met it", "claim"],
    );
    let claim = Some(Claim::Within(49.5, 50.5));
    table.row(judged("rate reached".to_owned(), &reached, 2, "TPS", claim));
    table.print();
}

/// One run on the generator's core, whose counts are checked.
fn run(scenario: Scenario, duration: Duration) -> RunStatistics {
    let (generator, _) = cpu::cores();
    let statistics = block_on(scenario.cores([generator]).duration(duration).run())
        .expect("the machine allows a run, since it allowed a target");
    let counts = &statistics.counts;
    assert!(counts.add_up(), "{counts:?}");
    assert_eq!(
        (counts.failed, counts.cancelled),
        (0, 0),
        "nothing fails: {:?}",
        statistics.failures
    );
    let planned = f64::from(statistics.goal_tps) * duration.as_secs_f64();
    assert!((counts.planned as f64 - planned).abs() <= 1.0, "{} of {planned}", counts.planned);
    for latencies in [&statistics.response, &statistics.service, &statistics.lag] {
        assert_eq!(latencies.len(), counts.completed(), "each transaction has all three times");
    }
    statistics
}

fn judged(
    name: String,
    values: &[f64],
    decimals: usize,
    unit: &str,
    claim: Option<Claim>,
) -> [String; 5] {
    let series = Series::new(values.iter().copied());
    let median = series.median();
    let met = |claim: Claim| {
        let met = values.iter().filter(|&&value| claim.holds(value)).count();
        format!("{met} of {}", values.len())
    };
    [
        name,
        format!("{median:.decimals$}"),
        series.range(decimals),
        claim.map_or_else(String::new, met),
        claim.map_or_else(String::new, |claim| claim.judge(unit, median)),
    ]
}
