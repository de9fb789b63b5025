//! What the search does once it has found a rate, and its answers to single windows. How exactly it finds one
//! is in `search.rs`.

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod server;

use balter_controllers::{
    Broken, Limit, RateConfig, RateController, RateDecision, RateState, Window, proportion,
};
use server::{Kind, Server};

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

impl Run {
    fn new(server: Server, limits: &[Limit]) -> Self {
        let limits = limits.to_vec();
        let config =
            RateConfig { limits: limits.clone(), max_tps: 4_000_000, ..RateConfig::default() };
        Self { server, controller: RateController::new(config), limits }
    }

    fn tps(&self) -> f64 {
        f64::from(self.controller.decision().tps)
    }

    fn step(&mut self) -> RateState {
        let (window, broken) = self.server.window(self.tps(), &self.limits);
        self.controller.update(&window, &broken).state
    }

    /// Until the rate is held.
    fn search(&mut self) {
        for _ in 0..400 {
            if self.step() == RateState::Holding {
                return;
            }
        }
    }
}

fn quantile(values: &mut [f64], quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * quantile).round() as usize]
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
            run.search();
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
            run.search();
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
        assert!(relieved <= 1.5, "{kind:?}: relieved in {relieved} s");
        assert!(settled <= 13.0, "{kind:?}: settled in {settled} s");
    }
}

#[test]
fn what_was_found_is_held_for_ten_minutes() {
    for (kind, limits, truth) in targets() {
        let (mut inside, mut all) = (0, 0);
        for seed in 0..20 {
            let mut run = Run::new(Server::new(kind, seed), &limits);
            run.search();
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
        run.search();
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
            run.search();
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
    let planned = succeeded + failed;
    let window = Window {
        length_ns: 100_000_000,
        planned,
        started: planned,
        succeeded,
        failed,
        ..Window::default()
    };
    (window, [Broken { over: failed, of: succeeded + failed }])
}

fn controller(start_tps: u32, max_tps: u32) -> RateController {
    RateController::new(RateConfig {
        limits: error_rate(),
        start_tps,
        max_tps,
        ..RateConfig::default()
    })
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
    let config = RateConfig { limits, max_tps: 100_000, ..RateConfig::default() };
    let mut controller = RateController::new(config);
    for _ in 0..200 {
        let n = u64::from(controller.decision().tps) / 10;
        let (slow, failed) = (n.saturating_sub(500).min(n), n.saturating_sub(800));
        let window = Window {
            length_ns: 100_000_000,
            planned: n,
            started: n,
            succeeded: n - failed,
            failed,
            ..Window::default()
        };
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
