//! The controller against simulated targets of known capacity.
//!
//! A target has `servers` that take `latency_ns` each; what finds none free
//! waits. Time moves in steps of a millisecond.

mod target;

use balter_controllers::ConcurrencyState::{Limited, Stable};
use balter_controllers::{
    ConcurrencyConfig, ConcurrencyController, ConcurrencyGoal, Saturation, Window,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use target::{MS, Simulation, Target};

fn open(tps: u32, initial: u32) -> ConcurrencyController {
    let goal = ConcurrencyGoal::Open { tps };
    ConcurrencyController::new(ConcurrencyConfig { goal, initial, max: 100_000, min: 1 })
}

fn saturate(initial: u32) -> ConcurrencyController {
    let goal = ConcurrencyGoal::Saturate;
    ConcurrencyController::new(ConcurrencyConfig { goal, initial, max: 100_000, min: 1 })
}

#[test]
fn fifty_a_second_at_a_quarter_second_get_their_thirteen_instances_soon() {
    for window_ms in [100, 250, 1_000] {
        let target = Target { servers: 10_000, latency_ns: 250 * MS };
        let mut sim = Simulation::new(target, Some(50), window_ms);
        let mut controller = open(50, 1);
        let windows = sim.run_until(&mut controller, 60, |decision| decision.limit >= 13);
        assert!(windows <= 8, "{window_ms} ms: {windows} windows");
        sim.run(&mut controller, 3_000 / window_ms + 10);
        let (completed, _) = sim.run(&mut controller, 10_000 / window_ms);
        assert!((495..=505).contains(&completed), "{window_ms} ms: {completed}");
        assert_eq!(sim.backlog(), 0);
        assert_eq!(controller.saturation(), None);
        assert!(controller.limit() <= 64, "{window_ms} ms: {}", controller.limit());
    }
}

#[test]
fn a_fast_target_is_followed_to_a_high_rate() {
    let target = Target { servers: 10_000, latency_ns: 20 * MS };
    let mut sim = Simulation::new(target, Some(20_000), 100);
    let mut controller = open(20_000, 1);
    let (_, last) = sim.run(&mut controller, 40);
    assert_eq!(last.state, Stable);
    assert!((400..=1_100).contains(&last.limit), "{}", last.limit);
    let (completed, _) = sim.run(&mut controller, 50);
    assert!((99_000..=101_000).contains(&completed), "{completed}");
}

#[test]
fn a_saturated_target_gets_no_more_than_it_can_use() {
    for (servers, latency, tps) in [(20, 50, 2_000), (1, 10, 1_000), (100, 20, 20_000)] {
        let target = Target { servers, latency_ns: latency * MS };
        let capacity = f64::from(servers) * 1e3 / latency as f64;
        let mut sim = Simulation::new(target, Some(tps), 200);
        let mut controller = open(tps, 1);
        let windows = sim.run_until(&mut controller, 150, |decision| decision.state == Limited);
        assert!(windows < 80, "{servers} servers: {windows} windows");
        let (mut highest, mut lowest) = (0, u32::MAX);
        for _ in 0..300 {
            let (_, decision) = sim.run(&mut controller, 1);
            assert_eq!(decision.state, Limited);
            highest = highest.max(decision.limit);
            lowest = lowest.min(decision.limit);
        }
        // The knee is the number of servers; steps double, a probe doubles once.
        assert!(lowest >= servers, "{servers} servers: {lowest}");
        assert!(highest <= 4 * servers, "{servers} servers: {highest}");
        let Saturation { throughput, concurrency } = controller.saturation().expect("saturated");
        assert!((throughput / capacity - 1.0).abs() < 0.1, "{throughput} of {capacity}");
        assert!((servers..=2 * servers).contains(&concurrency), "{concurrency}");
    }
}

#[test]
fn a_recovered_target_gets_the_whole_rate_again() {
    let target = Target { servers: 10, latency_ns: 20 * MS };
    let mut sim = Simulation::new(target, Some(5_000), 200);
    let mut controller = open(5_000, 4);
    sim.run(&mut controller, 200);
    assert!(controller.saturation().is_some());
    sim.target.servers = 10_000;
    // The back-off of the probes has grown meanwhile.
    let windows = sim.run_until(&mut controller, 400, |decision| decision.state == Stable);
    assert!(windows < 400, "the probe finds it");
    sim.run(&mut controller, 20);
    let (completed, last) = sim.run(&mut controller, 10);
    assert!((9_900..=10_100).contains(&completed), "{completed}");
    assert_eq!((last.state, controller.saturation()), (Stable, None));
}

/// Regression: with instances to spare no permit waits, whatever the target does;
/// the limit followed the growing service time, and that the limit.
#[test]
fn a_target_that_falls_behind_does_not_pull_the_instances_up() {
    let mut sim = Simulation::new(Target { servers: 2, latency_ns: 108 * MS }, Some(37), 100);
    let mut controller = open(37, 1);
    let (_, last) = sim.run(&mut controller, 600);
    assert!(last.limit <= 8, "{}", last.limit);
    assert_eq!(last.state, Limited);

    // The same in the middle of a run that was well.
    let mut sim = Simulation::new(Target { servers: 1_000, latency_ns: 100 * MS }, Some(500), 100);
    let mut controller = open(500, 100);
    sim.run(&mut controller, 100);
    sim.target.servers = 25;
    let mut highest = 0;
    for _ in 0..600 {
        highest = highest.max(sim.run(&mut controller, 1).1.limit);
    }
    assert!(highest <= 900, "{highest}");
    let knee = controller.saturation().expect("saturated").concurrency;
    assert!(knee <= 200, "{knee}");
}

#[test]
fn vain_probes_become_rarer() {
    let target = Target { servers: 10, latency_ns: 20 * MS };
    let mut sim = Simulation::new(target, Some(5_000), 200);
    let mut controller = open(5_000, 10);
    sim.run_until(&mut controller, 100, |decision| decision.state == Limited);
    let knee = controller.limit();
    let mut probes = Vec::new();
    let mut before = knee;
    for window in 0..1_500 {
        let (_, decision) = sim.run(&mut controller, 1);
        if decision.limit > knee && before == knee {
            probes.push(window);
        }
        before = decision.limit;
    }
    assert!((4..=7).contains(&probes.len()), "{probes:?}");
    let pauses: Vec<i32> = probes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.windows(2).all(|pair| pair[1] > pair[0] * 3 / 2), "{pauses:?}");
}

#[test]
fn a_stalled_target_does_not_drive_up_the_instances() {
    // From the first moment on.
    let stalled = Target { servers: 0, latency_ns: MS };
    let mut sim = Simulation::new(stalled, Some(1_000), 100);
    let mut controller = open(1_000, 10);
    sim.run(&mut controller, 200);
    assert!((20..=40).contains(&controller.limit()), "{}", controller.limit());

    // In the middle of a run, and back again.
    let target = Target { servers: 1_000, latency_ns: 20 * MS };
    let mut sim = Simulation::new(target, Some(1_000), 100);
    let mut controller = open(1_000, 10);
    sim.run(&mut controller, 50);
    let before = controller.limit();
    sim.target.servers = 0;
    sim.run(&mut controller, 100);
    assert!(controller.limit() <= 4 * before, "{} from {before}", controller.limit());
    sim.target.servers = 1_000;
    sim.run(&mut controller, 60);
    let (completed, last) = sim.run(&mut controller, 20);
    assert!((1_980..=2_020).contains(&completed), "{completed}");
    assert_eq!(last.state, Stable);
}

#[test]
fn a_target_that_stalls_again_and_again_keeps_the_instances_bounded() {
    let target = Target { servers: 1_000, latency_ns: 20 * MS };
    let mut sim = Simulation::new(target, Some(1_000), 100);
    let mut controller = open(1_000, 10);
    let mut highest = 0;
    for round in 0..40 {
        sim.target.servers = if round % 2 == 0 { 1_000 } else { 0 };
        for _ in 0..20 {
            highest = highest.max(sim.run(&mut controller, 1).1.limit);
        }
    }
    // Little's law: the rate times two seconds of stall, and a doubling.
    assert!(highest <= 4_000, "{highest}");
    sim.target.servers = 1_000;
    sim.run(&mut controller, 150);
    assert!(controller.limit() <= 60, "{}", controller.limit());
}

#[test]
fn concurrency_comes_down_when_the_latency_has_and_not_below_the_floor() {
    let target = Target { servers: 10_000, latency_ns: 400 * MS };
    let mut sim = Simulation::new(target, Some(500), 200);
    let mut controller = open(500, 8);
    sim.run(&mut controller, 100);
    assert!(controller.limit() >= 200);
    sim.target.latency_ns = 10 * MS;
    let high = controller.limit();
    let (_, next) = sim.run(&mut controller, 3);
    assert_eq!(next.limit, high, "not on the first sign");
    let (completed, last) = sim.run(&mut controller, 100);
    // Five in use and a margin.
    assert!((8..=20).contains(&last.limit), "{}", last.limit);
    assert!(completed >= 9_900, "the rate is held on the way down: {completed}");
    sim.target.latency_ns = MS;
    sim.run(&mut controller, 100);
    // The floor, or what is too little above it to be worth a move.
    assert!((8..=11).contains(&controller.limit()), "{}", controller.limit());
}

#[test]
fn a_short_dip_of_the_need_lowers_nothing() {
    let window = |service_ms: u64| Window {
        length_ns: 200 * MS,
        planned: 100,
        started: 100,
        succeeded: 100,
        service_sum_ns: 100 * service_ms * MS,
        instances: 50,
        in_flight: 5,
        ..Window::default()
    };
    let mut controller = open(500, 1);
    for _ in 0..20 {
        controller.update(&window(100));
    }
    let high = controller.limit();
    for _ in 0..20 {
        for _ in 0..4 {
            assert_eq!(controller.update(&window(1)).limit, high);
        }
        controller.update(&window(100));
    }
    for _ in 0..7 {
        controller.update(&window(1));
    }
    assert!(controller.limit() < high, "a lasting one does");
}

#[test]
fn a_step_down_is_gradual() {
    let target = Target { servers: 10_000, latency_ns: 400 * MS };
    let mut sim = Simulation::new(target, Some(500), 200);
    let mut controller = open(500, 1);
    sim.run(&mut controller, 100);
    sim.target.latency_ns = MS;
    let mut before = controller.limit();
    for _ in 0..60 {
        let (_, decision) = sim.run(&mut controller, 1);
        assert!(decision.limit * 4 >= before * 3, "{before} to {}", decision.limit);
        before = decision.limit;
    }
}

#[test]
fn windows_without_evidence_change_nothing() {
    let target = Target { servers: 10_000, latency_ns: 100 * MS };
    let mut sim = Simulation::new(target, Some(500), 200);
    let mut controller = open(500, 1);
    let (_, before) = sim.run(&mut controller, 50);
    let mut unused = controller.clone();
    for _ in 0..1_000 {
        let idle = Window { length_ns: 200 * MS, instances: 70, ..Window::default() };
        assert_eq!(unused.update(&idle), before);
    }
    assert_eq!(format!("{unused:?}"), format!("{controller:?}"));
}

#[test]
fn the_generators_own_faults_stop_growth() {
    let target = Target { servers: 10_000, latency_ns: 250 * MS };
    let mut sim = Simulation::new(target, Some(1_000), 100);
    let mut controller = open(1_000, 4);
    sim.faults = 1;
    let (_, decision) = sim.run(&mut controller, 50);
    assert_eq!((decision.limit, decision.state), (4, Limited));
    sim.faults = 0;
    sim.run(&mut controller, 100);
    assert!(controller.limit() >= 250, "and growth goes on without them");
}

#[test]
fn the_highest_limit_is_kept() {
    let goal = ConcurrencyGoal::Open { tps: 1_000 };
    let mut controller =
        ConcurrencyController::new(ConcurrencyConfig { goal, initial: 1, max: 50, min: 1 });
    let mut sim =
        Simulation::new(Target { servers: 10_000, latency_ns: 100 * MS }, Some(1_000), 100);
    for _ in 0..100 {
        assert!(sim.run(&mut controller, 1).1.limit <= 50);
    }
    assert_eq!(sim.run(&mut controller, 1).1.state, Limited);
    assert_eq!(controller.limit(), 50);
    assert_eq!(controller.saturation(), None, "the target could do more");
}

#[test]
fn a_higher_rate_gets_its_instances_at_once_and_a_lower_one_gives_them_back() {
    let target = Target { servers: 10_000, latency_ns: 100 * MS };
    let mut sim = Simulation::new(target, Some(500), 200);
    let mut controller = open(500, 1);
    sim.run(&mut controller, 60);
    let before = controller.limit();
    controller.set_tps(1_500);
    assert!(controller.limit() >= 150, "{before} to {}", controller.limit());
    sim.tps = Some(1_500);
    let (completed, _) = sim.run(&mut controller, 20);
    assert!(completed >= 5_700, "{completed}");
    controller.set_tps(50);
    sim.tps = Some(50);
    sim.run(&mut controller, 100);
    assert!(controller.limit() <= 25, "{}", controller.limit());
}

#[test]
fn a_closed_loop_settles_at_the_knee() {
    for (servers, latency, window_ms) in
        [(20, 50, 200), (64, 5, 100), (200, 20, 100), (8, 250, 100)]
    {
        let target = Target { servers, latency_ns: latency * MS };
        let mut sim = Simulation::new(target, None, window_ms);
        let mut controller = saturate(1);
        let windows = sim.run_until(&mut controller, 400, |decision| decision.state == Stable);
        assert!(windows < 200, "{servers} servers: {windows} windows");
        let limit = controller.limit();
        assert!((servers..=2 * servers).contains(&limit), "{servers} servers: {limit}");
        let (_, last) = sim.run(&mut controller, 200);
        assert_eq!((last.limit, last.state), (limit, Stable), "and stays there");
        let capacity = f64::from(servers) * 1e3 / latency as f64;
        let throughput = controller.saturation().expect("found").throughput;
        assert!((throughput / capacity - 1.0).abs() < 0.1, "{throughput} of {capacity}");
    }
}

/// With hundreds of completions a window one look suffices; only where they are
/// few does the search wait for as long as its patience lasts.
#[test]
fn a_step_that_plainly_brings_nothing_is_judged_at_once() {
    let mut sim = Simulation::new(Target { servers: 32, latency_ns: 2 * MS }, None, 100);
    let mut controller = saturate(32);
    let windows = sim.run_until(&mut controller, 100, |decision| decision.state == Stable);
    assert!(windows <= 10, "{windows} windows");
    assert_eq!(controller.limit(), 32);
}

#[test]
fn a_closed_loop_looks_again_when_the_target_has_changed() {
    let mut sim = Simulation::new(Target { servers: 64, latency_ns: 20 * MS }, None, 200);
    let mut controller = saturate(1);
    sim.run(&mut controller, 100);
    assert_eq!(controller.limit(), 64);
    sim.target.latency_ns = 5 * MS;
    sim.target.servers = 256;
    sim.run(&mut controller, 100);
    assert_eq!(controller.limit(), 256);
}

#[test]
fn a_fixed_number_stays() {
    let goal = ConcurrencyGoal::Fixed(7);
    let config = ConcurrencyConfig { goal, initial: 1, max: 5, min: 1 };
    let mut controller = ConcurrencyController::new(config);
    let mut sim = Simulation::new(Target { servers: 2, latency_ns: 20 * MS }, None, 100);
    for _ in 0..50 {
        let (_, decision) = sim.run(&mut controller, 1);
        assert_eq!((decision.limit, decision.state), (7, Stable));
    }
}

#[test]
fn nonsensical_bounds_are_brought_into_order() {
    let goal = ConcurrencyGoal::Open { tps: u32::MAX };
    let config = ConcurrencyConfig { goal, initial: 0, max: 0, min: 9 };
    let mut controller = ConcurrencyController::new(config);
    let window = Window {
        length_ns: 1,
        succeeded: u64::MAX,
        failed: 1,
        service_sum_ns: u64::MAX,
        backlog: u64::MAX,
        instances: u32::MAX,
        ..Window::default()
    };
    for _ in 0..100 {
        assert_eq!(controller.update(&window).limit, 1);
    }
}

proptest! {
    // The seed is fixed because the property holds for nearly all targets, not for
    // every one: the judgements are statistical. For a search at large, raise the
    // number of cases and take the seed away.
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::with_cases(48)
    })]

    /// Any target that can do a fifth more than is asked is brought to do it, and
    /// any that cannot do half of it is not given many more than it can use.
    #[test]
    fn every_target_is_either_driven_at_the_rate_or_found_saturated(
        servers in 2..200u32,
        latency_ms in 2..200u64,
        load in prop_oneof![0.1..0.8f64, 2.0..20.0f64],
        initial in 1..30u32,
        window_ms in prop_oneof![Just(100u64), Just(500)],
    ) {
        let capacity = f64::from(servers) * 1e3 / latency_ms as f64;
        let tps = ((capacity * load) as u32).max(1);
        let mut sim =
            Simulation::new(Target { servers, latency_ns: latency_ms * MS }, Some(tps), window_ms);
        let mut controller = open(tps, initial);
        sim.run(&mut controller, 120_000 / window_ms);
        let (completed, last) = sim.run(&mut controller, 10_000 / window_ms);
        let expected = 10.0 * f64::from(tps).min(capacity);
        if load < 1.0 {
            prop_assert_eq!(last.state, Stable);
            prop_assert!(completed as f64 >= 0.98 * expected - 2.0, "{} of {}", completed, expected);
        } else {
            prop_assert_ne!(last.state, Stable);
            // A measurement may catch one wave of answers in five too many.
            prop_assert!(completed as f64 >= 0.75 * expected - 2.0, "{} of {}", completed, expected);
            // Within a step of the knee, and perhaps on a probe of one more; a slow
            // target may not be searched to the end yet.
            let most = 8 * servers.max(initial);
            prop_assert!(last.limit <= most, "{} for {} servers", last.limit, servers);
        }
    }

    /// Whatever the windows say, the limit stays in its bounds and moves by
    /// bounded steps.
    #[test]
    fn arbitrary_windows_never_lead_out_of_the_bounds(
        windows in prop::collection::vec(prop::array::uniform7(0..2_000u32), 1..300),
        saturate in any::<bool>(),
        initial in 0..100u32,
        max in 0..5_000u32,
        min in 0..100u32,
    ) {
        let goal = if saturate {
            ConcurrencyGoal::Saturate
        } else {
            ConcurrencyGoal::Open { tps: 700 }
        };
        let mut controller =
            ConcurrencyController::new(ConcurrencyConfig { goal, initial, max, min });
        let floor = controller.limit();
        for n in windows {
            let before = controller.limit();
            let window = Window {
                length_ns: u64::from(n[0]) * MS,
                succeeded: u64::from(n[1].saturating_sub(500)),
                missed: u64::from(n[2].saturating_sub(1_500)),
                backlog: u64::from(n[3].saturating_sub(1_000)),
                instances: n[4],
                in_flight: n[5],
                service_sum_ns: u64::from(n[1]) * u64::from(n[6]) * MS,
                ..Window::default()
            };
            let limit = controller.update(&window).limit;
            prop_assert_eq!(limit, controller.limit());
            prop_assert!((floor..=max.max(1)).contains(&limit));
            prop_assert!(limit <= before.saturating_mul(4), "{} to {}", before, limit);
        }
    }
}
