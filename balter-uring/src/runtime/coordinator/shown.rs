//! What is shown of a run while it goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use balter_controllers::Window;

use super::Lead;
use super::member::Member;
use crate::engine::budget::Course;
use crate::runtime::view::RunState;

/// How often what is shown of a run is made anew.
const SHOWN_NS: u64 = 500_000_000;

#[derive(Default)]
pub(super) struct Shown {
    at_ns: u64,
    /// The windows of the last second: when they were merged, what completed, and their length.
    recent: VecDeque<(u64, u64, u64)>,
}

impl Shown {
    pub(super) fn window(&mut self, now: u64, window: &Window) {
        self.recent.push_back((now, window.completed(), window.length_ns));
        while self.recent.front().is_some_and(|&(at, ..)| now - at > 1_000_000_000) {
            self.recent.pop_front();
        }
    }

    fn tps(&self) -> f64 {
        let sum = |sum: (u64, u64), &(_, completed, length): &(u64, u64, u64)| {
            (sum.0 + completed, sum.1 + length)
        };
        match self.recent.iter().fold((0, 0), sum) {
            (_, 0) => 0.0,
            (completed, length) => completed as f64 * 1e9 / length as f64,
        }
    }
}

impl Lead {
    pub(super) fn show(&mut self, now: u64) {
        if now.saturating_sub(self.shown.at_ns) < SHOWN_NS {
            return;
        }
        self.shown.at_ns = now;
        let tps = self.shown.tps();
        let nodes = self.members.iter().map(|member| member.view(&self.steering, &self.book));
        let nodes: Vec<_> = nodes.collect();
        let instances = self.members.iter().map(Member::instances).sum();
        let elapsed_ns = now.min(self.end_ns).saturating_sub(self.start_ns);
        let is_draining = self.course > Course::Run || (self.end_ns > 0 && now >= self.end_ns);
        self.view.send_modify(|view| {
            let view = Arc::make_mut(view);
            view.show(&self.steering.totals, self.steering.load.is_open());
            if self.start_ns > 0 {
                view.elapsed = elapsed_ns as f64 / 1e9;
                view.state = if is_draining { RunState::Draining } else { RunState::Running };
            }
            (view.tps, view.goal_tps, view.instances) = (tps, self.book.goal().tps, instances);
            view.nodes = nodes;
            view.refused.clone_from(&self.refused);
        });
    }
}
