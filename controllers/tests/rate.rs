//! The search for the highest rate within limits, against targets of known capacity.

mod server;

use balter_controllers::{
    Broken, Limit, RateConfig, RateController, RateDecision, RateEstimate, RateState, Window,
    proportion,
};
use server::{Kind, Server, truth};

const SEEDS: u64 = 200;

fn error_rate() -> Vec<Limit> {
    vec![Limit::ErrorRate(0.03)]
}

fn p95(ms: u64) -> Vec<Limit> {
    vec![Limit::Latency { bound_ns: ms * 1_000_000, quantile: 0.95 }]
}

/// One search.
struct Run {
    server: Server,
    controller: RateController,
    limits: Vec<Limit>,
}

/// What came of one.
#[derive(Debug)]
struct Found {
    tps: f64,
    took_s: f64,
    /// Share of the search above the true rate by more than a tenth.
    above: f64,
}

impl Run {
    fn new(server: Server, limits: &[Limit]) -> Self {
        let limits = limits.to_vec();
        let config = RateConfig { limits: limits.clone(), start_tps: 512, max_tps: 4_000_000 };
        Self { server, controller: RateController::new(config), limits }
    }

    fn tps(&self) -> f64 {
        f64::from(self.controller.decision().tps)
    }

    fn step(&mut self) -> RateState {
        let (window, broken) = self.server.window(self.tps(), &self.limits);
        self.controller.update(&window, &broken).state
    }

    fn search(&mut self, truth: f64) -> Found {
        let (mut windows, mut above) = (0_u32, 0_u32);
        while self.controller.decision().state != RateState::Holding && windows < 400 {
            above += u32::from(self.tps() > 1.1 * truth);
            self.step();
            windows += 1;
        }
        Found {
            tps: self.tps(),
            took_s: f64::from(windows) / 10.0,
            above: f64::from(above) / f64::from(windows),
        }
    }
}

fn quantile(values: &mut [f64], quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * quantile).round() as usize]
}

/// Searches with many seeds and holds the claims against the results.
fn finds(make: impl Fn(u64) -> Server, limits: &[Limit], range: (f64, f64)) {
    let truth = truth(&make, limits, range.0, range.1);
    let found: Vec<_> =
        (0..SEEDS).map(|seed| Run::new(make(seed + 1_000), limits).search(truth)).collect();
    let mut off: Vec<_> = found.iter().map(|found| (found.tps / truth - 1.0).abs()).collect();
    let mut took: Vec<_> = found.iter().map(|found| found.took_s).collect();
    let above = found.iter().map(|found| found.above).sum::<f64>() / SEEDS as f64;
    let (median, p95) = (quantile(&mut off, 0.5), quantile(&mut off, 0.95));
    let took_p95 = quantile(&mut took, 0.95);
    println!("truth {truth:.0}: off by {median:.4}, p95 {p95:.4}; {took_p95} s; above {above:.3}");
    assert!(median <= 0.02, "off by {median}");
    assert!(p95 <= 0.05, "off by {p95} (p95)");
    assert!(took_p95 <= 15.0, "took {took_p95} s");
    assert!(above <= 0.1, "above the limit for {above} of the search");
}

#[test]
fn a_hard_cap_with_errors_is_found() {
    for cap in [1_000.0, 20_000.0, 1_000_000.0] {
        let kind = Kind::HardCap { tps: cap };
        finds(|seed| Server::new(kind, seed), &error_rate(), (cap / 2.0, cap * 2.0));
    }
}

#[test]
fn noise_and_background_errors_are_not_mistaken_for_the_limit() {
    for cap in [1_000.0, 20_000.0, 1_000_000.0] {
        let make =
            |seed| Server::new(Kind::HardCap { tps: cap }, seed).noise(0.05).background(0.01);
        finds(make, &error_rate(), (cap / 2.0, cap * 2.0));
    }
}

#[test]
fn a_latency_linear_in_the_load_is_found() {
    for cap in [1_000.0, 20_000.0, 1_000_000.0] {
        let kind = Kind::Linear { ns_per_tps: 20e6 / cap };
        for noise in [0.0, 0.05] {
            let make = |seed| Server::new(kind, seed).noise(noise);
            finds(make, &p95(20), (cap / 2.0, cap * 2.0));
        }
    }
}

#[test]
fn queues_are_found() {
    for (servers, service_ns) in [(20, 5e6), (100, 5e6), (8, 5e5)] {
        let capacity = servers as f64 * 1e9 / service_ns;
        let kind = Kind::Queue { servers, service_ns, heavy: false };
        finds(|seed| Server::new(kind, seed), &p95(20), (capacity / 2.0, capacity * 1.5));
    }
}

#[test]
fn queues_with_heavy_tails_are_found() {
    for (servers, service_ns) in [(20, 5e6), (100, 5e6), (8, 5e5)] {
        let capacity = servers as f64 * 1e9 / service_ns;
        let kind = Kind::Queue { servers, service_ns, heavy: true };
        finds(|seed| Server::new(kind, seed), &p95(20), (capacity / 2.0, capacity * 1.5));
    }
}

#[test]
fn a_cap_with_a_queue_before_it_is_found() {
    for cap in [2_500.0, 16_000.0] {
        let kind = Kind::QueueingCap { tps: cap };
        finds(|seed| Server::new(kind, seed), &p95(20), (cap / 2.0, cap * 1.5));
    }
}

/// Targets whose limit is where it is for reasons of different kinds, with that limit.
fn targets() -> [(Kind, Vec<Limit>, f64); 3] {
    [
        (Kind::Queue { servers: 20, service_ns: 1e6, heavy: false }, p95(8), 19_750.0),
        (Kind::HardCap { tps: 20_000.0 }, error_rate(), 20_618.0),
        (Kind::Linear { ns_per_tps: 1e3 }, p95(20), 18_365.0),
    ]
}

#[test]
fn a_target_that_is_merely_late_is_not_asked_for_ever_more() {
    for cap in [2_500.0, 16_000.0] {
        for seed in 0..20 {
            let server = Server::new(Kind::QueueingCap { tps: cap }, seed);
            let mut run = Run::new(server, &error_rate());
            run.search(cap);
            let mut most = 0.0_f64;
            for _ in 0..600 {
                run.step();
                most = most.max(run.tps());
            }
            let RateDecision { bound_by, saturated, .. } = run.controller.decision();
            assert_eq!((bound_by, saturated), (None, true));
            let off = run.tps() / cap - 1.0;
            assert!(off.abs() < 0.1 && most < 1.2 * cap, "cap {cap}: off by {off}, most {most}");
        }
    }
}

#[test]
fn a_target_that_loses_half_is_relieved_at_once_and_found_again() {
    for (kind, limits, before) in targets() {
        let after = before / 2.0;
        let (mut relieved, mut settled) = (Vec::new(), Vec::new());
        for seed in 0..50 {
            let mut run = Run::new(Server::new(kind, seed), &limits);
            run.search(before);
            for _ in 0..100 {
                run.step();
            }
            run.server.health = 0.5;
            let mut rates = Vec::new();
            for _ in 0..150 {
                rates.push(run.tps());
                run.step();
            }
            let below = rates.iter().position(|&tps| tps <= after);
            relieved.push(below.expect("relieved") as f64 / 10.0);
            // From here on it stays near, but for a moment's caution.
            let near = |tps: &f64| (tps / after - 1.0).abs() < 0.06;
            let last_far = rates.windows(5).rposition(|five| !five.iter().any(near));
            settled.push(last_far.map_or(0.0, |at| (at + 5) as f64 / 10.0));
        }
        let (relieved, settled) = (quantile(&mut relieved, 1.0), quantile(&mut settled, 0.9));
        println!("{kind:?}: relieved in {relieved} s, settled in {settled} s");
        assert!(relieved <= 1.0, "{kind:?}: relieved in {relieved} s");
        assert!(settled <= 8.0, "{kind:?}: settled in {settled} s");
    }
}

#[test]
fn what_was_found_is_held_for_ten_minutes() {
    for (kind, limits, truth) in targets() {
        let (mut inside, mut all) = (0, 0);
        for seed in 0..20 {
            let mut run = Run::new(Server::new(kind, seed), &limits);
            run.search(truth);
            let mut rates: Vec<_> = (0..6_000)
                .filter_map(|_| {
                    let tps = run.tps();
                    (run.step() == RateState::Holding).then_some(tps)
                })
                .collect();
            let middle = quantile(&mut rates, 0.5);
            assert!((middle / truth - 1.0).abs() < 0.03, "{kind:?}: held at {middle}");
            inside += rates.iter().filter(|&&tps| (tps / middle - 1.0).abs() <= 0.03).count();
            all += 6_000;
        }
        let share = f64::from(inside as u32) / f64::from(all);
        println!("{kind:?}: within 3 % for {share:.4} of ten minutes");
        assert!(share > 0.97, "{kind:?}: within 3 % for {share} of the time");
    }
}

#[test]
fn a_target_that_drifts_is_followed_both_ways() {
    for (kind, limits, truth) in targets() {
        let mut run = Run::new(Server::new(kind, 7), &limits);
        run.search(truth);
        for (to, minutes) in [(0.8, 4), (1.0, 6)] {
            let from = run.server.health;
            for step in 0..minutes * 600 {
                run.server.health = from + (to - from) * (f64::from(step) / 1_200.0).min(1.0);
                run.step();
            }
            let off = run.tps() / (truth * to) - 1.0;
            assert!(off.abs() < 0.12, "{kind:?}: off by {off} after a drift to {to}");
        }
    }
}

#[test]
fn a_stall_of_two_seconds_is_survived() {
    for (kind, limits, truth) in targets() {
        let Kind::Queue { .. } = kind else { continue };
        for seed in 0..20 {
            let mut run = Run::new(Server::new(kind, seed), &limits);
            run.search(truth);
            run.server.stalled_until_ns = run.server.now_s() * server::SECOND + 2e9;
            for _ in 0..300 {
                run.step();
            }
            let off = run.tps() / truth - 1.0;
            let state = run.controller.decision().state;
            assert!(off.abs() < 0.05 || state != RateState::Holding, "{seed}: off by {off}");
        }
    }
}

fn window(succeeded: u64, failed: u64) -> (Window, [Broken; 1]) {
    let window = Window { length_ns: 100_000_000, succeeded, failed, ..Window::default() };
    (window, [Broken { over: failed, of: succeeded + failed }])
}

fn controller(start_tps: u32, max_tps: u32) -> RateController {
    RateController::new(RateConfig { limits: error_rate(), start_tps, max_tps })
}

#[test]
fn windows_without_anything_are_no_data() {
    let mut controller = controller(512, 100_000);
    let before = controller.decision();
    for _ in 0..1_000 {
        let nothing = Window { length_ns: 100_000_000, ..Window::default() };
        assert_eq!(controller.update(&nothing, &[Broken::default()]), before);
    }
}

#[test]
fn far_above_the_limit_the_rate_comes_down() {
    let mut controller = controller(50_000, 100_000);
    for _ in 0..200 {
        let tps = u64::from(controller.decision().tps);
        let (window, broken) = window((tps / 10).min(100), (tps / 10).saturating_sub(100));
        controller.update(&window, &broken);
    }
    let tps = controller.decision().tps;
    assert!((900..1_100).contains(&tps), "{tps}");
}

#[test]
fn the_goal_is_never_exceeded_and_is_held_where_no_limit_is_near() {
    let mut controller = controller(512, 7_000);
    for _ in 0..500 {
        let tps = controller.decision().tps;
        assert!(tps <= 7_000);
        let (window, broken) = window(u64::from(tps / 10), 0);
        controller.update(&window, &broken);
    }
    let RateDecision { tps, state, bound_by, .. } = controller.decision();
    assert_eq!((tps, state, bound_by), (7_000, RateState::Holding, None));
    // And it is not left again to look for more.
    for _ in 0..500 {
        let (window, broken) = window(700, 0);
        assert_eq!(controller.update(&window, &broken).state, RateState::Holding);
    }
}

#[test]
fn of_two_limits_the_nearer_one_binds() {
    // Latencies break their limit at 5 000, errors at 8 000.
    let limits = vec![Limit::ErrorRate(0.03), p95(20)[0]];
    let config = RateConfig { limits, start_tps: 512, max_tps: 100_000 };
    let mut controller = RateController::new(config);
    for _ in 0..200 {
        let n = u64::from(controller.decision().tps) / 10;
        let (slow, failed) = (n.saturating_sub(500).min(n), n.saturating_sub(800));
        let window =
            Window { length_ns: 100_000_000, succeeded: n - failed, failed, ..Window::default() };
        let broken = [Broken { over: failed, of: n }, Broken { over: slow, of: n }];
        controller.update(&window, &broken);
    }
    let RateDecision { tps, bound_by, .. } = controller.decision();
    assert!((5_000..5_500).contains(&tps), "{tps}");
    assert_eq!(bound_by, Some(1));
}

/// Shares over independent windows, and over ones that lean towards their neighbours.
#[test]
fn intervals_of_95_per_cent_hold_the_truth_that_often() {
    for (share, of) in [(0.03, 1_000), (0.05, 400), (0.01, 5_000), (0.5, 200)] {
        let mut random = server::Random::new(of);
        let held = (0..4_000).filter(|_| {
            let over = (0..of).filter(|_| random.uniform() < share).count() as u64;
            let interval = proportion(Broken { over, of }, 1.96, 1.0);
            (interval.low..=interval.high).contains(&share)
        });
        let coverage = held.count() as f64 / 4_000.0;
        println!("share {share} of {of}: {coverage}");
        assert!((0.93..=0.97).contains(&coverage), "share {share} of {of}: {coverage}");
    }
}

/// Targets of several kinds: the intervals are somewhat wide for those that are exact, and a little
/// narrow where the noise is in steps of whole windows.
#[test]
fn stated_intervals_hold_the_true_rate_that_often() {
    let queue = |servers, heavy| Kind::Queue { servers, service_ns: 5e6, heavy };
    let (mut held, mut of) = (0, 0);
    for (kind, noise, limits, range) in [
        (Kind::HardCap { tps: 20_000.0 }, 0.05, error_rate(), (1e4, 3e4)),
        (Kind::Linear { ns_per_tps: 1e3 }, 0.05, p95(20), (1e4, 3e4)),
        (Kind::Linear { ns_per_tps: 1e3 }, 0.01, p95(20), (1e4, 3e4)),
        (queue(100, false), 0.0, p95(20), (1e4, 3e4)),
        (queue(20, false), 0.0, p95(20), (2e3, 6e3)),
    ] {
        let make = |seed| Server::new(kind, seed).noise(noise);
        let truth = truth(make, &limits, range.0, range.1);
        let estimates: Vec<_> = (0..SEEDS)
            .filter_map(|seed| {
                let mut run = Run::new(make(seed + 5_000), &limits);
                run.controller = run.controller.with_rounds(6);
                run.search(truth);
                run.controller.estimate()
            })
            .collect();
        let inside = |estimate: &&RateEstimate| (estimate.low..=estimate.high).contains(&truth);
        let inside = estimates.iter().filter(inside).count();
        let coverage = inside as f64 / estimates.len() as f64;
        println!("{kind:?}, noise {noise}: {coverage} of {}", estimates.len());
        assert!(estimates.len() > 150 && coverage > 0.87, "{kind:?}: {coverage}");
        held += inside;
        of += estimates.len();
    }
    let coverage = held as f64 / of as f64;
    println!("together: {coverage}");
    assert!((0.93..=0.975).contains(&coverage), "together: {coverage}");
}
