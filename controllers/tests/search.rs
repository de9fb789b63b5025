//! The search for the highest rate within limits, against simulated targets of many kinds with random
//! arrivals. Each test prints what it measured; the bounds are a little above that, kind by kind.

mod simulator;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use balter_controllers::{Limit, RateConfig, RateController, RateEstimate, RateState, SearchEnd};
use simulator::{Bound, Change, Generator, Service, Target, truth};

const MS: f64 = 1e6;

fn errors(share: f64) -> Vec<Limit> {
    vec![Limit::ErrorRate(share)]
}

fn latency(ms: u64, quantile: f64) -> Vec<Limit> {
    vec![Limit::Latency { bound_ns: ms * 1_000_000, quantile }]
}

/// One search.
struct Run {
    generator: Generator,
    controller: RateController,
    /// Arrivals above the truth by more than a tenth, and all, while searching.
    above: f64,
    asked: f64,
}

impl Run {
    fn new(target: Target, limits: &[Limit], start_tps: u32, until_found: bool, seed: u64) -> Self {
        let config = RateConfig {
            limits: limits.to_vec(),
            start_tps,
            max_tps: 8_000_000,
            until_found,
            ..RateConfig::default()
        };
        Self {
            generator: Generator::new(target, limits, seed),
            controller: RateController::new(config),
            above: 0.0,
            asked: 0.0,
        }
    }

    fn tps(&self) -> f64 {
        f64::from(self.controller.decision().tps)
    }

    fn state(&self) -> RateState {
        self.controller.decision().state
    }

    fn step(&mut self, truth: f64) {
        let tps = self.tps();
        self.asked += tps;
        self.above += if tps > 1.1 * truth { tps } else { 0.0 };
        let (window, broken) = self.generator.window(tps);
        self.controller.update(&window, &broken);
    }

    /// Until it has ended, at most so many seconds. Answers how long it took.
    fn until_end(&mut self, truth: f64, seconds: f64) -> f64 {
        while self.controller.end().is_none() && self.generator.now_s() < seconds {
            self.step(truth);
        }
        self.generator.now_s()
    }
}

fn quantile(values: &mut [f64], quantile: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * quantile).round() as usize]
}

/// Runs the seeds on all cores.
fn seeds<T: Send>(count: u64, each: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if seed >= count {
                        return;
                    }
                    let one = each(seed);
                    done.lock().expect("no panic").push(one);
                }
            });
        }
    });
    done.into_inner().expect("no panic")
}

/// How one search ended.
struct Ended {
    end: Option<SearchEnd>,
    tps: f64,
    estimate: Option<RateEstimate>,
    took_s: f64,
    above: f64,
}

fn search(target: Target, limits: &[Limit], truth: f64, seed: u64) -> Ended {
    let mut run = Run::new(target, limits, 512, true, seed + 9);
    let took_s = run.until_end(truth, 300.0);
    let (end, estimate) = (run.controller.end(), run.controller.estimate());
    let found = match end {
        Some(SearchEnd::Saturated { tps } | SearchEnd::Found { tps }) => tps,
        _ => run.tps(),
    };
    let tps = estimate.map_or(found, |estimate| estimate.tps);
    Ended { end, tps, estimate, took_s, above: run.above / run.asked }
}

/// What is claimed of a kind of target: how far off the rate found is in the median and in 95 % of the
/// seeds, how often stated intervals hold the truth, and how long the search takes in 95 % of the seeds.
#[derive(Clone, Copy)]
struct Claim {
    median: f64,
    p95: f64,
    covers: f64,
    took_s: f64,
}

/// Of each kind; more by the environment variable of this name.
fn kinds_seeds() -> u64 {
    let given = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    given.unwrap_or(60)
}

/// Holds a claim against searches with many seeds. `near` is a rate in whose neighbourhood the truth is.
fn finds(
    name: &str,
    make: impl Fn(u64) -> Target + Sync,
    limits: &[Limit],
    near: f64,
    claim: Claim,
) {
    let truth = truth(&make, limits, near / 2.0, near * 1.5);
    let found = seeds(kinds_seeds(), |seed| search(make(seed + 1_000), limits, truth, seed));
    let mut off: Vec<_> = found.iter().map(|one| (one.tps / truth - 1.0).abs()).collect();
    let mut took: Vec<_> = found.iter().map(|one| one.took_s).collect();
    let mut above: Vec<_> = found.iter().map(|one| one.above).collect();
    let stated: Vec<_> = found.iter().filter_map(|one| one.estimate).collect();
    let held = stated.iter().filter(|one| (one.low..=one.high).contains(&truth)).count();
    let covers = held as f64 / stated.len().max(1) as f64;
    let (median, p95) = (quantile(&mut off, 0.5), quantile(&mut off, 0.95));
    let took_s = quantile(&mut took, 0.95);
    println!(
        "{name:22} truth {truth:6.0}: off by {median:.4}, p95 {p95:.4}; covers {covers:.3} of {}; took {:.1} s, \
         p95 {took_s:.1}; above by a tenth {:.3}",
        stated.len(),
        quantile(&mut took, 0.5),
        quantile(&mut above, 0.5)
    );
    assert!(median <= claim.median, "{name}: off by {median}");
    assert!(p95 <= claim.p95, "{name}: off by {p95} (p95)");
    assert!(covers >= claim.covers, "{name}: {covers}");
    assert!(took_s <= claim.took_s, "{name}: took {took_s} s");
}

fn refuses(tps: f64) -> Bound {
    Bound::Refuses { tps, burst_s: 0.05, counts_refused: false }
}

#[test]
fn a_capacity_beyond_which_requests_are_refused_is_found() {
    let claim = Claim { median: 0.01, p95: 0.03, covers: 0.9, took_s: 30.0 };
    for (cap, service_ms, share, claim) in [
        (1_000.0, 1.0, 0.03, claim),
        (10_000.0, 1.0, 0.03, claim),
        (10_000.0, 20.0, 0.01, claim),
        (2_000.0, 400.0, 0.1, Claim { took_s: 60.0, ..claim }),
        (10_000.0, 5.0, 0.001, Claim { p95: 0.08, took_s: 62.0, ..claim }),
        (100.0, 5.0, 0.03, Claim { median: 0.05, p95: 0.25, took_s: 62.0, ..claim }),
    ] {
        let make = |seed| Target::new(Service::Fixed(service_ms * MS), refuses(cap), seed);
        finds(&format!("refuses {cap}, {service_ms} ms"), make, &errors(share), cap, claim);
    }
    let make = |seed| Target::new(Service::Fixed(MS), refuses(5_000.0), seed).errors(0.01);
    finds("1 % fail in any case", make, &errors(0.03), 5_000.0, claim);
}

#[test]
fn the_capacity_of_a_queue_is_found() {
    let claim = Claim { median: 0.035, p95: 0.09, covers: 0.88, took_s: 60.0 };
    for (servers, service_ms, bound_ms, quantile) in
        [(1, 1.0, 20, 0.95), (20, 5.0, 20, 0.95), (100, 5.0, 20, 0.95), (100, 50.0, 400, 0.9)]
    {
        let cap = f64::from(servers) * 1_000.0 / service_ms;
        let bound = Bound::Servers(servers as usize);
        let make = |seed| Target::new(Service::Exponential(service_ms * MS), bound, seed);
        let limits = latency(bound_ms, quantile);
        finds(&format!("queue {servers} x {service_ms} ms"), make, &limits, cap, claim);
    }
    let make = |seed| Target::new(Service::Heavy(5.0 * MS), Bound::Servers(20), seed);
    finds("queue, heavy tail", make, &latency(20, 0.95), 4_000.0, claim);
    for cap in [1_000.0, 10_000.0] {
        let make = |seed| Target::new(Service::Fixed(5.0 * MS), Bound::Queues(cap), seed);
        finds(&format!("cap {cap} with a queue"), make, &latency(20, 0.95), cap, claim);
    }
}

#[test]
fn a_latency_that_grows_with_the_load_is_found() {
    let claim = Claim { median: 0.025, p95: 0.06, covers: 0.92, took_s: 30.0 };
    for cap in [1_000.0, 10_000.0] {
        let make = |seed| Target::new(Service::Exponential(5.0 * MS), Bound::Slows(cap), seed);
        finds(&format!("slows beyond {cap}"), make, &latency(20, 0.95), cap * 1.3, claim);
    }
}

#[test]
fn a_target_that_answers_late_is_not_taken_for_dead() {
    let claim = Claim { median: 0.01, p95: 0.04, covers: 0.92, took_s: 175.0 };
    let make = |seed| Target::new(Service::Fixed(2_000.0 * MS), refuses(2_000.0), seed);
    finds("refuses 2000, 2 s", make, &errors(0.03), 2_000.0, claim);
}

/// All but a few of the seeds end as they should.
fn ends(
    name: &str,
    make: impl Fn(u64) -> Target + Sync,
    limits: &[Limit],
    seconds: f64,
    right: impl Fn(&Ended) -> bool,
) {
    ends_but(3, name, make, limits, seconds, right);
}

/// All but so many in a hundred.
fn ends_but(
    wrong_percent: usize,
    name: &str,
    make: impl Fn(u64) -> Target + Sync,
    limits: &[Limit],
    seconds: f64,
    right: impl Fn(&Ended) -> bool,
) {
    let found =
        seeds(kinds_seeds(), |seed| search(make(seed + 1_000), limits, f64::INFINITY, seed));
    let mut took: Vec<_> = found.iter().map(|one| one.took_s).collect();
    let wrong: Vec<_> = found.iter().filter(|one| !right(one)).map(|one| one.end).collect();
    let took_s = quantile(&mut took, 0.95);
    let shown = &wrong[..wrong.len().min(8)];
    println!("{name:22}: {} of {} wrong, p95 {took_s:.1} s; {shown:?}", wrong.len(), found.len());
    assert!(wrong.len() <= found.len() * wrong_percent / 100, "{name}: {wrong:?}");
    assert!(took_s <= seconds, "{name}: took {took_s} s");
}

#[test]
fn what_no_rate_helps_against_is_unreachable() {
    let unreachable = |one: &Ended| matches!(one.end, Some(SearchEnd::Unreachable { .. }));
    let make = |seed| Target::new(Service::Fixed(50.0 * MS), Bound::Nothing, seed);
    ends("50 ms, 20 ms may be", make, &latency(20, 0.95), 25.0, unreachable);
    let make = |seed| Target::new(Service::Fixed(5.0 * MS), refuses(5_000.0), seed).errors(0.05);
    let none_is_known = |one: &Ended| {
        unreachable(one) || matches!(one.end, Some(SearchEnd::OutOfTime { low: 0.0, .. }))
    };
    ends_but(15, "5 % fail, 3 % may", make, &errors(0.03), 62.0, unreachable);
    ends_but(5, "5 % fail, none is told", make, &errors(0.03), 62.0, none_is_known);
    let dead = Change::Fails(1.0, 1e9);
    let make = |seed| Target::new(Service::Fixed(5.0 * MS), refuses(5_000.0), seed).with(dead);
    ends("dead from second 1", make, &errors(0.03), 30.0, unreachable);
    let silent = Change::Freezes(0.0, 1e9);
    let make = |seed| Target::new(Service::Fixed(5.0 * MS), Bound::Nothing, seed).with(silent);
    ends("never answers", make, &errors(0.03), 180.0, unreachable);
    let make = |seed| Target::new(Service::Fixed(5.0 * MS), Bound::Queues(3.0), seed);
    ends("3/s, queues the rest", make, &latency(1_000, 0.95), 180.0, none_is_known);
    let make = |seed| Target::new(Service::Fixed(100.0 * MS), Bound::Queues(0.5), seed);
    ends("0.5/s, queues the rest", make, &latency(5_000, 0.95), 180.0, none_is_known);
}

/// What was found is within this of a rate.
fn is_near(one: &Ended, tps: f64, by: f64) -> bool {
    matches!(one.end, Some(SearchEnd::Found { .. })) && (one.tps / tps - 1.0).abs() < by
}

#[test]
fn a_target_with_a_memory_is_not_taken_at_its_first_word() {
    let limits = errors(0.03);
    let bucket = |seed| {
        let bound = Bound::Refuses { tps: 1_300.0, burst_s: 60.0, counts_refused: false };
        Target::new(Service::Fixed(MS), bound, seed)
    };
    ends("credit of a minute", bucket, &limits, 62.0, |one| {
        is_near(one, 1_340.0, 0.05) || matches!(one.end, Some(SearchEnd::OutOfTime { .. }))
    });
    for burst_s in [0.05, 1.0] {
        let counts = |seed| {
            let bound = Bound::Refuses { tps: 1_300.0, burst_s, counts_refused: true };
            Target::new(Service::Fixed(MS), bound, seed)
        };
        // It is not found in time. Nothing else is said.
        ends(&format!("counts what it refuses, {burst_s} s"), counts, &limits, 62.0, |one| {
            is_near(one, 1_310.0, 0.05) || matches!(one.end, Some(SearchEnd::OutOfTime { .. }))
        });
    }
}

#[test]
fn a_target_that_pauses_or_changes_is_told() {
    let queue = |seed| Target::new(Service::Exponential(5.0 * MS), Bound::Servers(20), seed);
    let often = |seed| queue(seed).with(Change::Pauses(0.2, 2.0));
    ends("pauses, 0.2 of 2 s", often, &latency(50, 0.95), 62.0, |one| {
        matches!(one.end, Some(SearchEnd::Unstable { .. }))
    });
    let collects = |seed| {
        Target::new(Service::Fixed(MS), refuses(5_000.0), seed).with(Change::Pauses(0.2, 10.0))
    };
    ends("pauses, 0.2 of 10 s", collects, &errors(0.03), 62.0, |one| {
        is_near(one, 5_150.0, 0.03) || matches!(one.end, Some(SearchEnd::Unstable { .. }))
    });
    let warms = |seed| {
        let cold = queue(seed).with(Change::Step(0.0, 0.3));
        cold.with(Change::Drifts(0.0, 10.0, 0.07))
    };
    ends_but(10, "cold, warm after 10 s", warms, &latency(20, 0.95), 62.0, |one| {
        is_near(one, 3_754.0, 0.1)
    });
    let slow = |seed| {
        let service = Service::Bimodal(5.0 * MS, 2_000.0 * MS, 0.04);
        Target::new(service, refuses(5_000.0), seed)
    };
    ends_but(10, "4 % take 2 s", slow, &latency(50, 0.95), 62.0, |one| is_near(one, 5_060.0, 0.04));
}

#[test]
fn a_search_that_begins_far_above_comes_down() {
    let make = |seed| Target::new(Service::Fixed(5.0 * MS), refuses(1_000.0), seed);
    let found = seeds(10, |seed| {
        let mut run = Run::new(make(seed), &errors(0.03), 200_000, true, seed);
        run.until_end(f64::INFINITY, 300.0);
        run.controller.end()
    });
    for end in found {
        let right =
            matches!(end, Some(SearchEnd::Found { tps }) if (tps / 1_032.0 - 1.0).abs() < 0.05);
        assert!(right, "{end:?}");
    }
}

#[test]
fn a_target_that_does_no_more_without_breaking_a_limit_is_saturated() {
    let make = |seed| Target::new(Service::Fixed(5.0 * MS), Bound::Queues(5_000.0), seed);
    ends(
        "queues beyond 5000",
        make,
        &errors(0.03),
        30.0,
        |one| matches!(one.end, Some(SearchEnd::Saturated { tps }) if (tps / 5_000.0 - 1.0).abs() < 0.03),
    );
}

#[test]
fn an_outage_while_searching_is_got_over() {
    let near = |one: &Ended| (one.tps / 5_100.0 - 1.0).abs() < 0.12;
    let outage = Change::Fails(1.0, 4.0);
    let make = |seed| Target::new(Service::Fixed(5.0 * MS), refuses(5_000.0), seed).with(outage);
    ends("fails for 3 s", make, &errors(0.03), 61.0, near);
    let frozen = Change::Freezes(1.0, 4.0);
    let make =
        |seed| Target::new(Service::Fixed(5.0 * MS), Bound::Queues(5_000.0), seed).with(frozen);
    ends("frozen for 3 s", make, &latency(50, 0.95), 61.0, near);
}

/// A run that goes on: 2 000/s of 5 000/s, all of which fail from second 10 to 25.
#[test]
fn after_an_outage_the_former_rate_is_back_within_ten_seconds() {
    for seed in 0..20 {
        let target = Target::new(Service::Fixed(5.0 * MS), refuses(5_000.0), seed)
            .with(Change::Fails(10.0, 25.0));
        let limits = errors(0.03);
        let config = RateConfig { limits: limits.clone(), max_tps: 2_000, ..RateConfig::default() };
        let mut run = Run {
            controller: RateController::new(config),
            ..Run::new(target, &limits, 512, false, seed)
        };
        let mut lowest = f64::INFINITY;
        while run.generator.now_s() < 35.0 {
            run.step(f64::INFINITY);
            if (12.0..25.0).contains(&run.generator.now_s()) {
                lowest = lowest.min(run.tps());
            }
        }
        assert!(lowest <= 200.0, "seed {seed}: still asked for {lowest}");
        assert_eq!((run.tps(), run.state()), (2_000.0, RateState::Holding), "seed {seed}");
    }
}

#[test]
fn a_capacity_that_shrinks_by_a_twelfth_is_left_soon_and_one_that_doubles_is_noticed() {
    for seed in 0..20 {
        let target = Target::new(Service::Fixed(5.0 * MS), refuses(5_000.0), seed)
            .with(Change::Step(30.0, 0.92))
            .with(Change::Step(90.0, 2.0));
        let mut run = Run::new(target, &errors(0.03), 512, false, seed);
        for (at_s, most) in [(32.0, 0.06), (35.0, 0.04)] {
            while run.generator.now_s() < at_s {
                run.step(f64::INFINITY);
            }
            let off = run.tps() / (0.92 * 5_000.0 / 0.97) - 1.0;
            assert!(off < most, "seed {seed}: off by {off} at second {at_s}");
        }
        while run.generator.now_s() < 400.0 {
            run.step(f64::INFINITY);
        }
        let off = run.tps() / (1.84 * 5_000.0 / 0.97) - 1.0;
        assert!(off.abs() < 0.1, "seed {seed}: off by {off}");
    }
}

#[test]
fn a_generator_with_a_ceiling_of_its_own_is_not_called_the_targets() {
    let found = seeds(20, |seed| {
        let target = Target::new(Service::Fixed(MS), Bound::Nothing, seed);
        let limits = latency(20, 0.95);
        let mut run = Run::new(target, &limits, 512, true, seed);
        run.generator = run.generator.clone().ceiling(20_000.0);
        run.until_end(f64::INFINITY, 300.0);
        run.controller.end()
    });
    println!("{found:?}");
    for end in found {
        let right = matches!(end, Some(SearchEnd::Generator { tps, .. }) if tps > 10_000.0);
        assert!(right, "{end:?}");
    }
}

/// A run that goes on, of evenly spaced arrivals at a few hundred a second: Balter's own suite.
#[test]
fn a_run_of_twenty_seconds_has_found_a_low_capacity_by_then() {
    let refusing = |seed| {
        let bound = Bound::RefusesShare { tps: 650.0, lately_s: 0.4 };
        Target::new(Service::Fixed(MS), bound, seed)
    };
    let slowing = |seed| Target::new(Service::Fixed(400.0 * MS), Bound::Slows(1_000.0), seed);
    within_a_run("refuses beyond 650", refusing, &errors(0.03), 250, 600.0..725.0);
    within_a_run("slows, 400 ms at 1000", slowing, &latency(260, 0.9), 350, 550.0..750.0);
    let queueing = |seed| Target::new(Service::Fixed(0.2 * MS), Bound::Queues(700.0), seed);
    within_a_run("queues beyond 700", queueing, &latency(200, 0.95), 400, 600.0..730.0);
    let jittery = |seed| Target::new(Service::Exponential(2.0 * MS), Bound::Queues(700.0), seed);
    within_a_run("queues beyond 700, 2 ms", jittery, &latency(200, 0.95), 400, 600.0..730.0);
}

fn within_a_run(
    name: &str,
    make: impl Fn(u64) -> Target + Sync,
    limits: &[Limit],
    start_tps: u32,
    right: std::ops::Range<f64>,
) {
    let held = seeds(kinds_seeds(), |seed| {
        let mut run = Run::new(make(seed), limits, start_tps, false, seed);
        run.generator = run.generator.clone().evenly();
        let took_s = run.until_end(f64::INFINITY, 20.0);
        (took_s, run.tps())
    });
    let mut took: Vec<_> = held.iter().map(|one| one.0).collect();
    let wrong = held.iter().filter(|one| !right.contains(&one.1)).count();
    let (median, most) = (quantile(&mut took, 0.5), quantile(&mut took, 1.0));
    println!("{name:22}: found after {median:.1} s, {most:.1} s at most; {wrong} wrong");
    assert!(most < 19.0 && wrong == 0, "{name}: {most} s, {wrong} wrong: {held:?}");
}
