//! The current window of a run on its shard, and how it gets to the aggregator.

use crossbeam_channel::TrySendError;

use super::spec::{Report, RunSpec, WINDOWS_IN_FLIGHT};
use crate::engine::window::ShardWindow;

/// See the module's documentation.
pub(super) struct Windows {
    pub(super) current: Box<ShardWindow>,
    /// When the current window is to end: on the grid that all shards share.
    pub(super) end_ns: u64,
    allocated: usize,
    /// Emptied, and not needed when it was: the channel was full.
    spare: Option<Box<ShardWindow>>,
    /// What had been counted for good at the last window's end.
    accounted: Running,
}

/// Counts that go on from window to window; each window is given its share of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Running {
    /// `None` in a closed loop, where a transaction is planned when it starts.
    pub(super) planned: Option<u64>,
    pub(super) missed: u64,
    /// Those of them that the shard itself was too late for.
    pub(super) stalled: u64,
    pub(super) started: u64,
    pub(super) idle_ns: u64,
    /// Times from one permit of an instance to its asking for the next.
    pub(super) cycles: u64,
    pub(super) cycle_ns: u64,
    /// Times that permits waited for an instance, by what these were doing.
    pub(super) target_wait_ns: u64,
    pub(super) instance_wait_ns: u64,
}

/// How things stand at the end of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) running: Running,
    pub(super) backlog: u64,
    pub(super) instances: u32,
    pub(super) starting: u32,
    pub(super) in_flight: u32,
}

/// What became of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    /// It stays the current one and grows: nothing is lost but resolution.
    Later,
    /// The aggregator is gone, and with it whoever could want the rest.
    Never,
}

impl Windows {
    pub(super) fn new(spec: &RunSpec, idle_ns: u64) -> Self {
        let mut current = Box::new(ShardWindow::new(spec.open));
        current.start_ns = spec.start_ns;
        Self {
            current,
            end_ns: spec.start_ns.saturating_add(spec.window_ns),
            allocated: 1,
            spare: None,
            accounted: Running { idle_ns, ..Running::default() },
        }
    }

    /// Sends the current window off, if there is another to go on with and room in the channel.
    pub(super) fn close(
        &mut self,
        now: u64,
        last: bool,
        standing: &Standing,
        spec: &RunSpec,
    ) -> Sent {
        self.end_ns = next_end_ns(now, spec);
        let Some(mut next) = self.next(last, spec) else { return Sent::Later };
        next.start_ns = now;
        let mut window = std::mem::replace(&mut self.current, next);
        self.account(&mut window, now, standing);
        window.last = last;
        if last {
            // Kept or leaked by user code, so that they will never tell of their end.
            window.abandoned = u64::from(standing.in_flight);
        }
        match spec.reports.try_send(Report { run: spec.run, part: spec.part, window }) {
            Ok(()) => Sent::Yes,
            Err(TrySendError::Full(report)) => {
                let next = std::mem::replace(&mut self.current, report.window);
                // The one for after the last window is none of those.
                if !last {
                    self.spare = Some(next);
                }
                Sent::Later
            }
            Err(TrySendError::Disconnected(_)) => Sent::Never,
        }
    }

    fn next(&mut self, last: bool, spec: &RunSpec) -> Option<Box<ShardWindow>> {
        if last {
            return Some(Box::new(ShardWindow::new(false)));
        }
        if let Some(window) = self.spare.take().or_else(|| spec.returned.try_recv().ok()) {
            return Some(window);
        }
        if self.allocated > WINDOWS_IN_FLIGHT {
            return None;
        }
        self.allocated += 1;
        Some(Box::new(ShardWindow::new(spec.open)))
    }

    /// A window that could not be sent is given more when it is tried again.
    fn account(&mut self, window: &mut ShardWindow, now: u64, standing: &Standing) {
        let before = std::mem::replace(&mut self.accounted, standing.running);
        let running = &standing.running;
        window.end_ns = now;
        let started = running.started - before.started;
        window.started += started;
        window.planned += match running.planned {
            Some(planned) => planned - before.planned.unwrap_or(0),
            None => started,
        };
        window.missed += running.missed - before.missed;
        window.stalled += running.stalled - before.stalled;
        window.cycles += running.cycles - before.cycles;
        window.cycle_ns += running.cycle_ns - before.cycle_ns;
        window.target_wait_ns += running.target_wait_ns - before.target_wait_ns;
        window.instance_wait_ns += running.instance_wait_ns - before.instance_wait_ns;
        window.idle_ns += running.idle_ns - before.idle_ns;
        window.backlog = standing.backlog;
        window.instances = standing.instances;
        window.starting = standing.starting;
        window.in_flight = standing.in_flight;
    }
}

/// The first boundary after `now` of the grid that the windows of all shards end on. A shard that
/// was late for one makes up for it in its next window, which is shorter by so much; counted from
/// `now` on, lateness would add up, and each shard would have a grid of its own.
fn next_end_ns(now: u64, spec: &RunSpec) -> u64 {
    let since_ns = now.saturating_sub(spec.start_ns);
    now.saturating_sub(since_ns % spec.window_ns).max(spec.start_ns).saturating_add(spec.window_ns)
}
