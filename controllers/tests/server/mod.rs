//! Targets of known capacity in virtual time, asked at a rate, one window after the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use balter_controllers::{Broken, Limit, Window};

pub(crate) const SECOND: f64 = 1e9;

/// xorshift64*: the same seed, the same run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
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

    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (2.0 * self.exponential()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// How many of `n` happen, each with probability `p`: drawn one by one while that is cheap,
    /// by the normal approximation beyond.
    pub(crate) fn binomial(&mut self, n: u64, p: f64) -> u64 {
        if n <= 400 {
            return (0..n).filter(|_| self.uniform() < p).count() as u64;
        }
        let mean = n as f64 * p;
        let drawn = mean + (mean * (1.0 - p)).sqrt() * self.normal();
        drawn.round().clamp(0.0, n as f64) as u64
    }
}

/// How a target answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A queue before servers. Service times are exponential, or Pareto with a heavy tail.
    Queue { servers: usize, service_ns: f64, heavy: bool },
    /// What is beyond the capacity fails at once.
    HardCap { tps: f64 },
    /// What is beyond the capacity waits, and is answered in order.
    QueueingCap { tps: f64 },
    /// Response time in proportion to the load, each within a tenth of it.
    Linear { ns_per_tps: f64 },
}

/// A target.
pub(crate) struct Server {
    kind: Kind,
    /// Share of failures whatever the load.
    background: f64,
    /// Standard deviation of its capacity from window to window.
    noise: f64,
    /// Its capacity is multiplied with this.
    pub(crate) health: f64,
    pub(crate) random: Random,
    now_ns: f64,
    /// When each server is free again.
    free_ns: BinaryHeap<Reverse<u64>>,
    /// Ends of what is under way, with its response time.
    under_way: BinaryHeap<Reverse<(u64, u64)>>,
    /// Stands still until then.
    pub(crate) stalled_until_ns: f64,
    carried: f64,
}

pub(crate) const WINDOW_NS: f64 = 1e8;

impl Server {
    pub(crate) fn new(kind: Kind, seed: u64) -> Self {
        let servers = match kind {
            Kind::Queue { servers, .. } => servers,
            _ => 1,
        };
        Self {
            kind,
            background: 0.0,
            noise: 0.0,
            health: 1.0,
            random: Random::new(seed),
            now_ns: 0.0,
            free_ns: (0..servers).map(|_| Reverse(0)).collect(),
            under_way: BinaryHeap::new(),
            stalled_until_ns: 0.0,
            carried: 0.0,
        }
    }

    pub(crate) fn background(mut self, share: f64) -> Self {
        self.background = share;
        self
    }

    pub(crate) fn noise(mut self, noise: f64) -> Self {
        self.noise = noise;
        self
    }

    pub(crate) fn now_s(&self) -> f64 {
        self.now_ns / SECOND
    }

    /// One window at a rate: what the controller is told of it.
    pub(crate) fn window(&mut self, tps: f64, limits: &[Limit]) -> (Window, Vec<Broken>) {
        let (begin, end) = (self.now_ns, self.now_ns + WINDOW_NS);
        self.now_ns = end;
        let asked = tps * WINDOW_NS / SECOND + self.carried;
        let count = asked.floor();
        self.carried = asked - count;
        let health = self.health * (1.0 + self.noise * self.random.normal()).max(0.1);
        let mut failed = 0;
        let mut over = vec![0; limits.len()];
        let (mut answered, mut service_sum_ns) = (0, 0);
        let bounds: Vec<_> = limits
            .iter()
            .map(|limit| match limit {
                Limit::Latency { bound_ns, .. } => *bound_ns as f64,
                _ => f64::INFINITY,
            })
            .collect();
        match self.kind {
            Kind::HardCap { tps: cap } => {
                answered = count as u64;
                let served = (cap * health * WINDOW_NS / SECOND).min(count);
                failed = count as u64 - served as u64;
            }
            Kind::Linear { ns_per_tps } => {
                answered = count as u64;
                // Each within a tenth either side, evenly: the share above a bound in closed form.
                let typical = tps * ns_per_tps / health;
                for (over, bound) in over.iter_mut().zip(&bounds) {
                    let share = ((1.1 - bound / typical) / 0.2).clamp(0.0, 1.0);
                    *over = self.random.binomial(answered, share);
                }
            }
            Kind::Queue { .. } | Kind::QueueingCap { .. } => {
                let gap = WINDOW_NS / count.max(1.0);
                for index in 0..count as u64 {
                    // Poisson arrivals: gaps drawn anew, spread over the window.
                    let at = begin + gap * (index as f64 + self.random.uniform());
                    self.arrive(at, health);
                }
                while let Some(&Reverse((done, response))) = self.under_way.peek() {
                    if done as f64 > end {
                        break;
                    }
                    self.under_way.pop();
                    service_sum_ns += response;
                    answered += 1;
                    for (over, bound) in over.iter_mut().zip(&bounds) {
                        *over += u64::from(response as f64 > *bound);
                    }
                }
            }
        }
        failed += self.random.binomial(answered - failed, self.background);
        let broken = limits.iter().zip(over).map(|(limit, over)| match limit {
            Limit::ErrorRate(_) => Broken { over: failed, of: answered },
            _ => Broken { over, of: answered },
        });
        let window = Window {
            start_ns: begin as u64,
            length_ns: WINDOW_NS as u64,
            planned: count as u64,
            started: count as u64,
            succeeded: answered - failed,
            failed,
            in_flight: self.under_way.len() as u32,
            service_sum_ns,
            ..Window::default()
        };
        (window, broken.collect())
    }

    fn arrive(&mut self, at: f64, health: f64) {
        let service = match self.kind {
            Kind::Queue { service_ns, heavy: false, .. } => service_ns * self.random.exponential(),
            // Pareto of shape 2.2, mean `service_ns`.
            Kind::Queue { service_ns, heavy: true, .. } => {
                let shape = 2.2;
                service_ns * (shape - 1.0) / shape * self.random.uniform().powf(-1.0 / shape)
            }
            Kind::QueueingCap { tps } => SECOND / tps,
            Kind::HardCap { .. } | Kind::Linear { .. } => 0.0,
        };
        let Some(Reverse(free)) = self.free_ns.pop() else { return };
        let start = at.max(free as f64).max(self.stalled_until_ns);
        let done = start + service / health;
        self.free_ns.push(Reverse(done as u64));
        self.under_way.push(Reverse((done as u64, (done - at) as u64)));
    }
}

/// The highest rate at which a target meets the limits, from long runs at one rate each.
pub(crate) fn truth(make: impl Fn(u64) -> Server, limits: &[Limit], from: f64, to: f64) -> f64 {
    let (mut low, mut high) = (from, to);
    while high / low > 1.003 {
        let tps = (low * high).sqrt();
        let mut meets = true;
        let mut sums = vec![Broken::default(); limits.len()];
        for seed in 0..4 {
            let mut server = make(seed);
            for window in 0..600 {
                let (_, broken) = server.window(tps, limits);
                if window >= 50 {
                    for (sum, broken) in sums.iter_mut().zip(broken) {
                        sum.over += broken.over;
                        sum.of += broken.of;
                    }
                }
            }
        }
        for (sum, limit) in sums.iter().zip(limits) {
            meets &= sum.share().unwrap_or(1.0) <= limit.share();
        }
        if meets { low = tps } else { high = tps }
    }
    (low * high).sqrt()
}
