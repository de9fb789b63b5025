//! A simulated target and the generator in front of it, in virtual time.

use std::collections::VecDeque;

use balter_controllers::{ConcurrencyController, ConcurrencyDecision, Window};

pub(crate) const MS: u64 = 1_000_000;

/// Permits wait for this long before they are missed.
const MAX_AGE_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) servers: u32,
    pub(crate) latency_ns: u64,
}

pub(crate) struct Simulation {
    pub(crate) target: Target,
    /// Open loop at this rate; a closed loop without.
    pub(crate) tps: Option<u32>,
    /// Time an instance spends between two transactions.
    pub(crate) think_ns: u64,
    /// Faults of the generator in each window.
    pub(crate) faults: u64,
    window_ms: u64,
    now_ms: u64,
    instances: u32,
    due: f64,
    waiting: VecDeque<u64>,
    /// Starts of transactions that no server has taken yet.
    queued: VecDeque<u64>,
    /// Ends and starts of those being served.
    served: Vec<(u64, u64)>,
    thinking: Vec<u64>,
}

impl Simulation {
    pub(crate) fn new(target: Target, tps: Option<u32>, window_ms: u64) -> Self {
        Simulation {
            target,
            tps,
            think_ns: 0,
            faults: 0,
            window_ms,
            now_ms: 0,
            instances: 0,
            due: 0.0,
            waiting: VecDeque::new(),
            queued: VecDeque::new(),
            served: Vec::new(),
            thinking: Vec::new(),
        }
    }

    pub(crate) fn backlog(&self) -> usize {
        self.waiting.len()
    }

    /// Runs so many windows; the completions in them and the last decision.
    pub(crate) fn run(
        &mut self,
        controller: &mut ConcurrencyController,
        windows: u64,
    ) -> (u64, ConcurrencyDecision) {
        let mut completed = 0;
        let mut decision = None;
        for _ in 0..windows {
            let window = self.window(controller.limit());
            completed += window.completed();
            decision = Some(controller.update(&window));
        }
        (completed, decision.expect("at least one window"))
    }

    /// Runs until the decision suits, for so many windows at most; how many.
    pub(crate) fn run_until(
        &mut self,
        controller: &mut ConcurrencyController,
        most: u64,
        suits: impl Fn(ConcurrencyDecision) -> bool,
    ) -> u64 {
        (1..=most).find(|_| suits(self.run(controller, 1).1)).unwrap_or(most)
    }

    fn window(&mut self, limit: u32) -> Window {
        let mut window = Window {
            start_ns: self.now_ms * MS,
            length_ns: self.window_ms * MS,
            generator_faults: self.faults,
            ..Window::default()
        };
        for _ in 0..self.window_ms {
            self.step(limit, &mut window);
        }
        window.backlog = self.waiting.len() as u64;
        window.instances = self.instances;
        window.in_flight = self.in_flight();
        window
    }

    fn in_flight(&self) -> u32 {
        (self.queued.len() + self.served.len()) as u32
    }

    fn step(&mut self, limit: u32, window: &mut Window) {
        self.now_ms += 1;
        let now_ns = self.now_ms * MS;
        let think_ns = self.think_ns;
        let (mut served, thinking) = (std::mem::take(&mut self.served), &mut self.thinking);
        served.retain(|&(end_ns, start_ns)| {
            if end_ns <= now_ns {
                window.succeeded += 1;
                window.service_sum_ns += end_ns - start_ns;
                thinking.push(end_ns + think_ns);
            }
            end_ns > now_ns
        });
        self.served = served;
        self.thinking.retain(|&end_ns| end_ns > now_ns);
        self.release(window);
        self.start(limit, window);
        // A server that falls free within the step takes the next at its end.
        while self.served.len() < self.target.servers as usize {
            let Some(start_ns) = self.queued.pop_front() else { break };
            self.served.push((now_ns + self.target.latency_ns, start_ns));
        }
    }

    fn release(&mut self, window: &mut Window) {
        let Some(tps) = self.tps else { return };
        self.due += f64::from(tps) / 1e3;
        while self.due >= 1.0 {
            self.due -= 1.0;
            window.planned += 1;
            self.waiting.push_back(self.now_ms);
        }
        while self.waiting.front().is_some_and(|&due| due + MAX_AGE_MS < self.now_ms) {
            self.waiting.pop_front();
            window.missed += 1;
        }
    }

    fn start(&mut self, limit: u32, window: &mut Window) {
        // Who thinks is not under way.
        let in_use = self.in_flight();
        // Instances above a lowered limit end once they have no work.
        self.instances = self.instances.min(limit.max(in_use));
        let free = limit.saturating_sub(in_use);
        let wanted = self.tps.map_or(free, |_| free.min(self.waiting.len() as u32));
        for _ in 0..wanted {
            self.waiting.pop_front();
            self.queued.push_back(self.now_ms * MS);
            window.started += 1;
        }
        self.instances = self.instances.max(in_use + wanted);
    }
}
