//! The instances of an open loop with pauses: pacers, populations and the controller together, on
//! several shards, in virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use balter_controllers::{
    Arrival, ConcurrencyConfig, ConcurrencyController, ConcurrencyGoal, Crowd, Pacer, PacerConfig,
    Permit, Population, Shortage, Timetable, Window,
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const INITIAL: u32 = 10;

/// What an instance does: on its way to its first transaction, in one, pausing after it.
#[derive(Clone, Copy, Debug)]
struct User {
    log_in_ns: u64,
    service_ns: u64,
    think_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begun,
    Ended(u64),
    Back,
}

struct Shard {
    pacer: Pacer,
    population: Population,
    user: User,
    /// What it does first is a pause and no log-in.
    pauses_first: bool,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    alive: u32,
    starting: u32,
    in_flight: u32,
    waiting: u32,
    /// Response times of what has ended since the last window.
    responses: Vec<u64>,
    started: u64,
    taken: u64,
    shortage: Shortage,
    waits_ns: (u64, u64),
    last_counts: (u64, u64),
}

impl Shard {
    fn new(pacer: Pacer, initial: u32, user: User) -> Self {
        Self {
            pacer,
            population: Population::new(initial),
            user,
            pauses_first: false,
            events: BinaryHeap::new(),
            alive: 0,
            starting: 0,
            in_flight: 0,
            waiting: 0,
            responses: Vec::new(),
            started: 0,
            taken: 0,
            shortage: Shortage::default(),
            waits_ns: (0, 0),
            last_counts: (0, 0),
        }
    }

    fn start(&mut self, now: u64, permit: Permit) {
        self.in_flight += 1;
        self.started += 1;
        self.taken += 1;
        let intended = permit.intended_ns;
        self.events.push(Reverse((now + self.user.service_ns, Event::Ended(intended))));
    }

    /// As a shard turns.
    fn turn(&mut self, now: u64, limit: u32, most: u32, step: u64) {
        while let Some(&Reverse((at, event))) = self.events.peek()
            && at <= now
        {
            self.events.pop();
            match event {
                Event::Begun => {
                    self.starting -= u32::from(!self.pauses_first);
                    self.waiting += 1;
                }
                Event::Ended(intended) => {
                    self.in_flight -= 1;
                    self.responses.push(at - intended);
                    self.events.push(Reverse((at + self.user.think_ns, Event::Back)));
                }
                Event::Back => self.waiting += 1,
            }
        }
        self.hand_out(now, limit);
        let backlog = self.pacer.backlog() as u64;
        // As a shard does where nobody comes for permits.
        self.shortage.note(now, self.taken, backlog, self.in_flight == 0);
        if let Some(before) = self.shortage.shed_before(now) {
            self.pacer.shed(before);
        }
        match self.in_flight >= limit.min(self.alive) && self.in_flight > 0 {
            true => self.waits_ns.0 += backlog * step,
            false => self.waits_ns.1 += backlog * step,
        }
        let crowd = Crowd {
            alive: self.alive,
            starting: self.starting,
            in_flight: self.in_flight,
            waiting: self.waiting,
            taken: self.taken,
        };
        let cycle_ns = self.user.service_ns + self.user.think_ns;
        let leaving = self.population.surplus(now, &crowd, cycle_ns).min(self.waiting);
        self.alive -= leaving;
        self.waiting -= leaving;
        let wanted = self.population.wanted(now, &crowd, &self.pacer, limit, most);
        for _ in 0..wanted {
            self.alive += 1;
            // Who pauses before the first transaction asks nothing of the target.
            self.starting += u32::from(!self.pauses_first);
            self.events.push(Reverse((now + self.user.log_in_ns, Event::Begun)));
        }
        self.pacer.advance(now);
        self.hand_out(now, limit);
    }

    fn hand_out(&mut self, now: u64, limit: u32) {
        while self.waiting > 0
            && self.in_flight < limit
            && let Some(permit) = self.pacer.take()
        {
            self.waiting -= 1;
            self.start(now, permit);
        }
    }

    fn window(&mut self, length_ns: u64) -> Window {
        let counts = self.pacer.counts();
        let (planned, missed) = (counts.planned, counts.missed);
        let (planned_then, missed_then) =
            std::mem::replace(&mut self.last_counts, (planned, missed));
        let (target_wait_ns, instance_wait_ns) = std::mem::take(&mut self.waits_ns);
        Window {
            length_ns,
            planned: planned - planned_then,
            missed: missed - missed_then,
            started: std::mem::take(&mut self.started),
            succeeded: self.responses.len() as u64,
            service_sum_ns: self.responses.len() as u64 * self.user.service_ns,
            backlog: self.pacer.backlog() as u64,
            instances: self.alive,
            starting: self.starting,
            in_flight: self.in_flight,
            target_wait_ns,
            instance_wait_ns,
            ..Window::default()
        }
    }
}

struct Simulation {
    shards: Vec<Shard>,
    controller: ConcurrencyController,
    now: u64,
}

/// Of one stretch of time.
#[derive(Debug, Default)]
struct Seen {
    completed: u64,
    missed: u64,
    responses: Vec<u64>,
    most_instances: u32,
}

impl Simulation {
    fn new(tps: u32, parts: u32, user: User) -> Self {
        let goal = ConcurrencyGoal::Open { tps };
        // As the engine begins: the rate times 10 ms.
        let initial = (tps / 100).clamp(INITIAL, 1_000);
        let config = ConcurrencyConfig { goal, initial, max: u32::MAX, min: 1 };
        let table = Timetable::new(0, tps);
        let working = parts.min(tps);
        let shard = |part| {
            let config = PacerConfig {
                arrival: Arrival::Constant,
                sequence: part,
                max_backlog: 1 << 20,
                max_backlog_age_ns: 10 * SECOND,
                max_late_ns: 250 * MS,
            };
            let initial = INITIAL / working + u32::from(part < INITIAL % working);
            let pacer = Pacer::new(config, table.ticks(part, working), u64::MAX);
            Shard::new(pacer, initial.max(1), user)
        };
        let shards = (0..working).map(shard).collect();
        Self { shards, controller: ConcurrencyController::new(config), now: 0 }
    }

    fn run(&mut self, until: u64) -> Seen {
        let mut seen = Seen::default();
        let parts = self.shards.len() as u32;
        while self.now < until {
            let begun = self.now;
            let limit = self.controller.limit().max(parts);
            while self.now < begun + 100 * MS {
                // A twentieth of a millisecond where much happens, as turns are.
                let step = if self.controller.limit() > 500 { MS / 2 } else { MS / 4 };
                self.now += step;
                for (index, shard) in self.shards.iter_mut().enumerate() {
                    let share = limit / parts + u32::from((index as u32) < limit % parts);
                    shard.turn(self.now, share, u32::MAX, step);
                }
            }
            let mut whole = Window::default();
            for shard in &mut self.shards {
                let window = shard.window(self.now - begun);
                whole.merge(&window);
                seen.responses.append(&mut shard.responses);
            }
            seen.completed += whole.completed();
            seen.missed += whole.missed;
            seen.most_instances = seen.most_instances.max(whole.instances);
            self.controller.update(&whole);
        }
        seen.responses.sort_unstable();
        seen
    }
}

/// The table: think times, rates, shards. From two cycles and a second on the rate stands.
#[test]
fn a_rate_with_pauses_gets_its_instances_within_two_cycles() {
    for think_ms in [0, 100, 1_000, 3_000, 30_000] {
        for tps in [1, 50, 500, 5_000, 100_000_u32] {
            for parts in [1, 3, 64] {
                let user = User { log_in_ns: 0, service_ns: MS, think_ns: think_ms * MS };
                let cycle_ns = user.service_ns + user.think_ns;
                let mut simulation = Simulation::new(tps, parts, user);
                let ramp = simulation.run(2 * cycle_ns + SECOND);
                let measured_s = if tps >= 5_000 { 2 } else { 20 };
                let from = simulation.now;
                let steady = simulation.run(from + measured_s * SECOND);
                let case = format!("think {think_ms} ms, {tps}/s on {parts} shards");
                let rate = steady.completed as f64 / ((simulation.now - from) as f64 / 1e9);
                let off = (rate / f64::from(tps) - 1.0).abs();
                assert!(off <= 0.01 || (rate - f64::from(tps)).abs() < 0.1, "{case}: {rate}/s");
                assert_eq!(steady.missed, 0, "{case}");
                let needed = f64::from(tps) * cycle_ns as f64 / 1e9;
                // With next to none needed each shard still has one, and the run its first ten.
                let most = (1.5 * needed).max(needed + f64::from(INITIAL.max(2 * parts.min(tps))));
                let had = ramp.most_instances.max(steady.most_instances);
                assert!(f64::from(had) <= most, "{case}: {had} instances, {needed:.1} needed");
                let p95 = steady.responses[steady.responses.len() * 95 / 100];
                assert!(p95 <= 2 * user.service_ns, "{case}: p95 {p95} ns");
                assert_eq!(simulation.controller.saturation(), None, "{case}");
            }
        }
    }
}

/// A log-in before the first transaction: those on their way are waited for, not doubled.
#[test]
fn instances_that_log_in_first_are_started_in_number() {
    for (log_in_ms, think_ms) in [(10, 0), (1_000, 0), (200, 1_000), (1_000, 1_000)] {
        let user = User { log_in_ns: log_in_ms * MS, service_ns: MS, think_ns: think_ms * MS };
        let mut simulation = Simulation::new(500, 2, user);
        simulation.run(2 * (think_ms + 1) * MS + 20 * log_in_ms * MS + SECOND);
        let from = simulation.now;
        let steady = simulation.run(from + 10 * SECOND);
        let case = format!("log-in {log_in_ms} ms, think {think_ms} ms");
        let rate = steady.completed as f64 / ((simulation.now - from) as f64 / 1e9);
        assert!((rate / 500.0 - 1.0).abs() <= 0.01, "{case}: {rate}/s");
        let needed = 500.0 * (think_ms + 1) as f64 / 1e3;
        let most = (2.2 * needed).max(20.0);
        assert!(f64::from(steady.most_instances) <= most, "{case}: {}", steady.most_instances);
    }
}

/// A pause before the first transaction: one instance for each permit of it, the rest is missed, and
/// what comes then is no burst.
#[test]
fn instances_that_pause_first_come_at_the_rate() {
    for (pause_ms, tps) in [(100, 500), (500, 200), (1_000, 500), (3_000, 500), (3_000, 5)] {
        for parts in [1, 2] {
            let user = User { log_in_ns: pause_ms * MS, service_ns: MS, think_ns: pause_ms * MS };
            let mut simulation = Simulation::new(tps, parts, user);
            simulation.shards.iter_mut().for_each(|shard| shard.pauses_first = true);
            let case = format!("pause {pause_ms} ms first, {tps}/s on {parts} shards");
            let cycle_ns = (pause_ms + 1) * MS;
            let mut ramp = Seen::default();
            while simulation.now < 2 * cycle_ns + SECOND {
                let seen = simulation.run(simulation.now + 100 * MS);
                let most = f64::from(tps) / 10.0 * 2.0 + 30.0;
                assert!((seen.completed as f64) <= most, "{case}: {} at once", seen.completed);
                ramp.most_instances = ramp.most_instances.max(seen.most_instances);
            }
            let from = simulation.now;
            let steady = simulation.run(from + 10 * SECOND);
            let rate = steady.completed as f64 / ((simulation.now - from) as f64 / 1e9);
            assert!((rate / f64::from(tps) - 1.0).abs() <= 0.02, "{case}: {rate}/s");
            let had = ramp.most_instances.max(steady.most_instances);
            let needed = f64::from(tps) * cycle_ns as f64 / 1e9;
            assert!(f64::from(had) <= 1.5 * needed + 30.0, "{case}: {had} for {needed:.0}");
            let p95 = steady.responses[steady.responses.len() * 95 / 100];
            assert!(p95 <= 5 * MS, "{case}: p95 {p95} ns");
        }
    }
}

/// A log-in that hangs: no more are started than may be under way at all.
#[test]
fn log_ins_that_never_end_are_not_piled_up() {
    let user = User { log_in_ns: u64::MAX / 2, service_ns: MS, think_ns: 0 };
    let mut simulation = Simulation::new(500, 1, user);
    let seen = simulation.run(30 * SECOND);
    assert!(seen.most_instances <= 2 * INITIAL, "{}", seen.most_instances);
}

#[test]
fn instances_that_nobody_misses_any_more_are_given_back() {
    let user = User { log_in_ns: 0, service_ns: MS, think_ns: 500 * MS };
    let mut simulation = Simulation::new(1_000, 1, user);
    simulation.run(5 * SECOND);
    assert!(simulation.shards[0].alive >= 500);
    simulation.shards[0].user.think_ns = 20 * MS;
    simulation.run(40 * SECOND);
    let alive = simulation.shards[0].alive;
    assert!((21..=45).contains(&alive), "{alive}");
}

/// A thousand instances to begin with do not begin together.
#[test]
fn instances_start_one_after_the_other() {
    let mut population = Population::new(1_000);
    let (mut alive, mut now) = (0, 0);
    while alive < 1_000 {
        let started = population.paced(now, alive, 1_000 - alive);
        assert!(started <= 1 + alive / 4, "{started} beside {alive}");
        alive += started;
        now += MS / 4;
        assert!(now < 200 * MS, "{alive} after {now} ns");
    }
}

/// Sequences of permits, shortage and plenty: never more than there may be, never below the first.
#[test]
fn the_bounds_hold_whatever_happens() {
    let config = PacerConfig {
        arrival: Arrival::Constant,
        sequence: 0,
        max_backlog: 5,
        max_backlog_age_ns: 10 * MS,
        max_late_ns: 250 * MS,
    };
    let mut pacer = Pacer::new(config, Timetable::new(0, 700).ticks(0, 1), u64::MAX);
    let mut population = Population::new(5);
    let waiting = [0, 3, 0, 0, 100, 7];
    let (mut alive, mut taken) = (0, 0);
    for turn in 0..100_000_u64 {
        let now = turn * MS / 3;
        pacer.advance(now);
        taken += u64::from(turn % 5 == 0 && pacer.take().is_some());
        let crowd = Crowd {
            alive,
            waiting: waiting[turn as usize % 6].min(alive),
            in_flight: (turn % 13) as u32,
            taken,
            ..Crowd::default()
        };
        let wanted = population.wanted(now, &crowd, &pacer, 12, 40);
        let surplus = population.surplus(now, &crowd, 0);
        assert!(surplus <= alive);
        alive = alive + wanted - surplus;
        assert!(alive <= 40);
        assert!(turn < 100 || alive >= 5);
    }
}
