//! Targets of known capacity in virtual time, asked at a rate by random (Poisson) arrivals, one window
//! after the other; and the generator that asks them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use balter_controllers::{Broken, Limit, Window};

pub(crate) const SECOND: f64 = 1e9;
pub(crate) const WINDOW_NS: f64 = 1e8;

/// xorshift64*: the same seed, the same run.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        // Neighbouring seeds begin alike.
        (0..8).for_each(|_| {
            random.uniform();
        });
        random
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11;
        (bits as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(crate) fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }
}

/// How long an answer takes where nothing waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    Fixed(f64),
    Exponential(f64),
    /// Pareto of shape 2.2 with this mean.
    Heavy(f64),
    /// The first, and in a share of the cases the second.
    Bimodal(f64, f64, f64),
}

impl Service {
    fn draw(self, random: &mut Random) -> f64 {
        match self {
            Service::Fixed(ns) => ns,
            Service::Exponential(mean) => mean * random.exponential(),
            Service::Bimodal(ns, slow_ns, share) => {
                if random.uniform() < share {
                    slow_ns
                } else {
                    ns
                }
            }
            Service::Heavy(mean) => {
                let shape = 2.2;
                mean * (shape - 1.0) / shape * random.uniform().powf(-1.0 / shape)
            }
        }
    }
}

/// What bounds the rate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    Nothing,
    /// So many servers, each busy for the service time, and a queue before them.
    Servers(usize),
    /// What is beyond it fails.
    Refuses {
        tps: f64,
        burst_s: f64,
        counts_refused: bool,
    },
    /// What of the load, as it was lately, is beyond it fails, evenly.
    RefusesShare {
        tps: f64,
        lately_s: f64,
    },
    /// What is beyond it waits in front of the service.
    Queues(f64),
    /// The service time is multiplied with the load over this rate, lately (100 ms).
    Slows(f64),
}

/// What happens to it in time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// From the second, its capacity is multiplied with the factor.
    Step(f64, f64),
    /// Fails everything at once from one second to another.
    Fails(f64, f64),
    /// Answers nothing from one second to another, and what was asked meanwhile after it.
    Freezes(f64, f64),
    /// Answers nothing for so many seconds of every so many, as for garbage collection.
    Pauses(f64, f64),
    /// Its capacity changes by this share of the original every second, between these seconds: a leak, a cache that warms.
    Drifts(f64, f64, f64),
}

/// A target.
#[derive(Clone)]
pub(crate) struct Target {
    service: Service,
    bound: Bound,
    changes: Vec<Change>,
    /// Share of failures whatever the load.
    errors: f64,
    random: Random,
    free_ns: BinaryHeap<Reverse<u64>>,
    queue_free_ns: f64,
    tokens: f64,
    token_ns: f64,
    load: f64,
    load_ns: f64,
}

impl Target {
    pub(crate) fn new(service: Service, bound: Bound, seed: u64) -> Self {
        let servers = if let Bound::Servers(servers) = bound { servers } else { 0 };
        let tokens =
            if let Bound::Refuses { tps, burst_s, .. } = bound { tps * burst_s } else { 0.0 };
        Self {
            service,
            bound,
            changes: Vec::new(),
            errors: 0.0,
            random: Random::new(seed),
            free_ns: (0..servers).map(|_| Reverse(0)).collect(),
            queue_free_ns: 0.0,
            tokens,
            token_ns: 0.0,
            load: 0.0,
            load_ns: 0.0,
        }
    }

    pub(crate) fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    pub(crate) fn errors(mut self, share: f64) -> Self {
        self.errors = share;
        self
    }

    fn health(&self, now_ns: f64) -> f64 {
        let now = now_ns / SECOND;
        self.changes.iter().fold(1.0, |health, change| match *change {
            Change::Step(at, factor) if now >= at => health * factor,
            Change::Drifts(from, to, share) => {
                (health + share * (now.min(to) - from).max(0.0)).max(0.01)
            }
            _ => health,
        })
    }

    /// Until when it stands still, if it does.
    fn still_until(&self, now_ns: f64) -> f64 {
        let now = now_ns / SECOND;
        self.changes.iter().fold(now_ns, |until, change| match *change {
            Change::Freezes(from, to) if (from..to).contains(&now) => until.max(to * SECOND),
            Change::Pauses(length, every) if now % every > every - length => {
                until.max(((now / every).floor() + 1.0) * every * SECOND)
            }
            _ => until,
        })
    }

    /// One arrives: when it is answered, and whether well.
    fn arrive(&mut self, at: f64) -> (f64, bool) {
        let (health, free) = (self.health(at), self.still_until(at));
        let now = at / SECOND;
        let fails = |change: &Change| matches!(*change, Change::Fails(from, to) if (from..to).contains(&now));
        if self.changes.iter().any(fails) {
            return (at + 0.5e6, false);
        }
        let mut service = self.service.draw(&mut self.random);
        let mut well = self.errors == 0.0 || self.random.uniform() >= self.errors;
        let done = match self.bound {
            Bound::Nothing => free + service,
            Bound::Servers(_) => {
                let Some(Reverse(server)) = self.free_ns.pop() else { unreachable!() };
                let begin = self.still_until(at.max(server as f64));
                let done = begin + service / health;
                self.free_ns.push(Reverse(done as u64));
                done
            }
            Bound::Refuses { tps, burst_s, counts_refused } => {
                let most = tps * health * burst_s;
                let since = (at - self.token_ns) / SECOND;
                self.tokens = (self.tokens + since * tps * health).min(most);
                self.token_ns = at;
                let takes = self.tokens >= 1.0;
                if takes || counts_refused {
                    self.tokens = (self.tokens - 1.0).max(-most);
                }
                well &= takes;
                free + service
            }
            Bound::RefusesShare { tps, lately_s } => {
                let age = (at - self.load_ns) / SECOND / lately_s;
                self.load = self.load * (-age).exp() + 1.0 / lately_s;
                self.load_ns = at;
                self.tokens += (1.0 - tps * health / self.load).max(0.0);
                let refused = self.tokens >= 1.0;
                self.tokens -= f64::from(u8::from(refused));
                well &= !refused;
                free + service
            }
            Bound::Queues(tps) => {
                let begin = self.still_until(at.max(self.queue_free_ns));
                self.queue_free_ns = begin + SECOND / (tps * health);
                self.queue_free_ns + service
            }
            Bound::Slows(tps) => {
                let age = (at - self.load_ns) / 1e8;
                self.load = self.load * (-age).exp() + 10.0;
                self.load_ns = at;
                service *= (self.load / (tps * health)).max(0.01);
                free + service
            }
        };
        (done, well)
    }
}

/// A generator: asks a target at a rate, and tells what a controller is told of a window.
#[derive(Clone)]
pub(crate) struct Generator {
    target: Target,
    random: Random,
    limits: Vec<Limit>,
    now_ns: f64,
    next_ns: f64,
    rate: f64,
    /// Ends of what is under way: (when, intended, well).
    under_way: BinaryHeap<Reverse<(u64, u64, bool, u64)>>,
    /// Due, and not started.
    backlog: VecDeque<f64>,
    /// Starts no more a second than this.
    ceiling: f64,
    pub(crate) max_in_flight: usize,
    timeout_ns: f64,
    /// Arrivals are evenly spaced, not at random.
    even: bool,
}

impl Generator {
    pub(crate) fn new(target: Target, limits: &[Limit], seed: u64) -> Self {
        Self {
            target,
            random: Random::new(seed ^ 0x5EED),
            limits: limits.to_vec(),
            now_ns: 0.0,
            next_ns: 0.0,
            rate: 0.0,
            under_way: BinaryHeap::new(),
            backlog: VecDeque::new(),
            ceiling: f64::INFINITY,
            max_in_flight: 100_000,
            timeout_ns: 10e9,
            even: false,
        }
    }

    pub(crate) fn ceiling(mut self, tps: f64) -> Self {
        self.ceiling = tps;
        self
    }

    pub(crate) fn evenly(mut self) -> Self {
        self.even = true;
        self
    }

    pub(crate) fn now_s(&self) -> f64 {
        self.now_ns / SECOND
    }

    fn start(&mut self, at: f64, intended: f64) {
        let (done, well) = self.target.arrive(at);
        let late = at + self.timeout_ns;
        let (done, well) = if done > late { (late, false) } else { (done, well) };
        self.under_way.push(Reverse((done as u64, intended as u64, well, at as u64)));
    }

    /// One window at a rate: what the controller is told of it.
    pub(crate) fn window(&mut self, tps: f64) -> (Window, Vec<Broken>) {
        let (begin, end) = (self.now_ns, self.now_ns + WINDOW_NS);
        if self.rate != tps {
            let left = (self.next_ns - begin).max(0.0);
            let scale = if self.rate > 0.0 { self.rate / tps } else { 1.0 };
            (self.rate, self.next_ns) = (tps, begin + left * scale);
        }
        let mut window =
            Window { start_ns: begin as u64, length_ns: WINDOW_NS as u64, ..Window::default() };
        let mut broken = vec![Broken::default(); self.limits.len()];
        let allowed = (self.ceiling * WINDOW_NS / SECOND) as u64;
        let gap = SECOND / self.ceiling.min(1e12);
        let mut free_ns = begin;
        loop {
            let ends = self.under_way.peek().map_or(f64::INFINITY, |Reverse((at, ..))| *at as f64);
            let waits = !self.backlog.is_empty() && self.under_way.len() < self.max_in_flight;
            let starts = if waits && window.started < allowed { free_ns } else { f64::INFINITY };
            let now = ends.min(self.next_ns).min(starts);
            if now >= end {
                break;
            }
            if starts <= ends && starts <= self.next_ns {
                if let Some(intended) = self.backlog.pop_front() {
                    window.started += 1;
                    let at = starts.max(intended);
                    self.start(at, intended);
                    free_ns = at + gap;
                }
            } else if ends <= self.next_ns {
                if let Some(Reverse((at, intended, well, started))) = self.under_way.pop() {
                    free_ns = free_ns.max(at as f64);
                    if well {
                        window.succeeded += 1;
                    } else {
                        window.failed += 1;
                    }
                    window.service_sum_ns += at - started;
                    for (broken, limit) in broken.iter_mut().zip(&self.limits) {
                        broken.of += 1;
                        // What the generator itself was late by is not judged.
                        let due = if self.ceiling.is_finite() { started } else { intended };
                        let breaks = match limit {
                            Limit::Latency { bound_ns, .. } => !well || at - due > *bound_ns,
                            _ => !well,
                        };
                        broken.over += u64::from(breaks);
                    }
                }
            } else {
                let at = self.next_ns;
                window.planned += 1;
                let gap = SECOND / tps * if self.even { 1.0 } else { self.random.exponential() };
                self.next_ns += gap;
                let fits = self.under_way.len() < self.max_in_flight;
                if self.backlog.is_empty() && fits && self.ceiling.is_infinite() {
                    window.started += 1;
                    self.start(at, at);
                } else {
                    self.backlog.push_back(at);
                    free_ns = free_ns.max(at.min(end));
                }
            }
        }
        self.now_ns = end;
        // What the generator cannot start is missed after 250 ms.
        while self.ceiling.is_finite() && self.backlog.front().is_some_and(|at| end - at > 2.5e8) {
            self.backlog.pop_front();
            window.missed += 1;
            window.stalled += 1;
        }
        window.busy = (window.started as f64 / allowed.max(1) as f64).min(1.0);
        window.backlog = self.backlog.len() as u64;
        window.in_flight = self.under_way.len() as u32;
        (window, broken)
    }
}

/// Share that breaks the limits (the nearest, over its own share) in a long run at one rate.
fn used(make: &impl Fn(u64) -> Target, limits: &[Limit], tps: f64, seconds: f64) -> f64 {
    let mut sums = vec![Broken::default(); limits.len()];
    for seed in 0..2 {
        let mut generator = Generator::new(make(seed), limits, seed + 77);
        for window in 0..(seconds * 10.0) as usize {
            let (_, broken) = generator.window(tps);
            if window >= 30 {
                for (sum, broken) in sums.iter_mut().zip(broken) {
                    sum.over += broken.over;
                    sum.of += broken.of;
                }
            }
        }
    }
    let used =
        sums.iter().zip(limits).map(|(sum, limit)| sum.share().unwrap_or(1.0) / limit.share());
    used.fold(0.0, f64::max)
}

/// The highest rate at which a target meets the limits, from long runs at one rate each.
pub(crate) fn truth(make: impl Fn(u64) -> Target, limits: &[Limit], from: f64, to: f64) -> f64 {
    let (mut low, mut high) = (from, to);
    while high / low > 1.004 {
        let tps = (low * high).sqrt();
        let seconds = (300_000.0 / to).clamp(if high / low > 1.05 { 30.0 } else { 150.0 }, 1_500.0);
        if used(&make, limits, tps, seconds) <= 1.0 { low = tps } else { high = tps }
    }
    (low * high).sqrt()
}
