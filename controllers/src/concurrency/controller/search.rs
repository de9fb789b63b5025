//! The search for the limit beyond which the throughput no longer grows: up in
//! measured steps, back to the knee, and now and then a look beyond it.

use super::*;

/// Doublings allowed while nothing has completed. A target that answers slowly
/// gets four times the first load at most; one that is stalled gets no more.
const BLIND_STEPS: u32 = 2;

/// A leap may follow another one if the service time has not grown by more than
/// this: the target then scales. Two take a slow target from one instance to
/// dozens within a few of its service times.
const STILL_FAST: f64 = 1.5;
const LEAPS: u32 = 2;

/// Part of a window that may precede the first answers to a new limit without
/// spoiling the window as a measurement.
const UNSETTLED_SHARE: f64 = 0.05;

/// The first measurement of a search, which later ones are compared with, needs
/// so many completions, or windows.
const FIRST_COMPLETIONS: u64 = 10;
const FIRST_WINDOWS: u32 = 3;

/// In a closed loop all instances start at once and answers come in waves; a
/// second window evens them out.
const CLOSED_LOOP_WINDOWS: u32 = 2;

/// A probe that has not been decided after so many windows has failed. It has to
/// leave time for the queue of a saturated target to reach its new length.
const PROBE_PATIENCE: u32 = 100;

/// Windows between two looks for drift at the knee.
const DRIFT_WINDOWS: u32 = 5;

impl ConcurrencyController {
    pub(super) fn grow(&mut self, window: &Window) -> ConcurrencyState {
        if self.limit >= self.max && self.ladder.top() == Some(self.limit) {
            return ConcurrencyState::Limited;
        }
        if self.cool_down > 0 {
            return ConcurrencyState::Limited;
        }
        if !self.measure(window) {
            return self.grow_unmeasured(window);
        }
        let few = self.trial.completed < FIRST_COMPLETIONS && self.trial.windows < FIRST_WINDOWS;
        if self.ladder.is_empty() && few {
            return ConcurrencyState::Working;
        }
        if self.is_closed() && self.trial.windows < CLOSED_LOOP_WINDOWS {
            return ConcurrencyState::Working;
        }
        match self.judge() {
            Step::Unclear => ConcurrencyState::Working,
            Step::Grew => {
                let first = self.ladder.is_empty();
                if first {
                    // Nothing is proven yet: this may be the beginning of a stall.
                    self.blind_steps += 1;
                } else {
                    self.blind_steps = 0;
                }
                self.ladder.push(self.limit, self.trial);
                let leap = if first { self.leap(window) } else { 0 };
                self.raise_to(self.limit.saturating_mul(2).max(leap));
                self.growing_state()
            }
            Step::Flat => {
                self.ladder.push(self.limit, self.trial);
                self.return_to_knee()
            }
        }
    }

    /// Growth before the current limit has settled: two doublings while nothing
    /// has completed, and two leaps as soon as the service time is known.
    fn grow_unmeasured(&mut self, window: &Window) -> ConcurrencyState {
        let Some(service_ns) = window.mean_service_ns() else {
            if self.trial.windows > 0 || self.blind_steps >= BLIND_STEPS {
                return ConcurrencyState::Limited;
            }
            self.blind_steps += 1;
            self.raise_to(self.limit.saturating_mul(2));
            return self.growing_state();
        };
        let leap = self.leap(window);
        if self.ladder.is_empty()
            && self.leaps < LEAPS
            && (self.leaps == 0 || self.settled)
            && leap > self.limit
        {
            self.leaps += 1;
            self.leap_service_ns = service_ns;
            self.raise_to(leap);
        }
        self.growing_state()
    }

    fn leap(&self, window: &Window) -> u32 {
        let ConcurrencyGoal::Open { tps } = self.goal else {
            return 0;
        };
        match window.mean_service_ns() {
            Some(service_ns) if service_ns <= STILL_FAST * self.leap_service_ns => {
                let needed = Little::needed_at(tps, service_ns);
                needed.min(self.limit.saturating_mul(LEAP))
            }
            _ => 0,
        }
    }

    pub(super) fn hold(
        &mut self,
        window: &Window,
        mut saturation: Saturation,
        mut knee: Sample,
        windows: u32,
    ) -> ConcurrencyState {
        self.phase = Phase::Held { saturation, knee, windows };
        if self.measure(window) && self.trial.windows >= DRIFT_WINDOWS {
            if self.trial.drifted(&knee) {
                self.restart();
                return ConcurrencyState::Working;
            }
            if self.trial.completed > 0 {
                knee = self.trial;
                saturation.throughput = knee.rate();
            }
            self.phase = Phase::Held { saturation, knee, windows };
            self.trial = Sample::default();
        }
        if self.is_closed() {
            return ConcurrencyState::Stable;
        }
        if windows >= self.probe_after && self.limit < self.max && self.cool_down == 0 {
            self.ladder.clear();
            self.ladder.push(self.limit, knee);
            self.raise_to(self.limit.saturating_mul(2));
            self.phase = Phase::Probing { saturation };
        }
        ConcurrencyState::Limited
    }

    pub(super) fn probe(&mut self, window: &Window, saturation: Saturation) -> ConcurrencyState {
        let step = if self.measure(window) {
            self.judge()
        } else if self.windows_since_change >= PROBE_PATIENCE {
            Step::Flat
        } else {
            Step::Unclear
        };
        match step {
            Step::Unclear => self.phase = Phase::Probing { saturation },
            Step::Grew => {
                self.probe_after = PROBE_AFTER;
                self.phase = Phase::Growing;
                self.ladder.push(self.limit, self.trial);
                self.raise_to(self.limit.saturating_mul(2));
                return self.growing_state();
            }
            Step::Flat => {
                self.probe_after = (self.probe_after * 2).min(PROBE_AT_LEAST_EVERY);
                // Back to where the probe came from, whatever the noise says.
                return self.return_to_knee();
            }
        }
        ConcurrencyState::Limited
    }

    fn return_to_knee(&mut self) -> ConcurrencyState {
        let searched = matches!(self.phase, Phase::Growing);
        if let Some((knee, saturation)) = self.ladder.cut_at_knee() {
            self.move_to(saturation.concurrency);
            self.phase = Phase::Held { saturation, knee, windows: 0 };
            if searched {
                return self.try_half(saturation, knee);
            }
        }
        self.held_state()
    }

    fn try_half(&mut self, saturation: Saturation, knee: Sample) -> ConcurrencyState {
        let half = saturation.concurrency / 2;
        if half < self.floor || self.ladder.below_top().is_some_and(|limit| limit >= half) {
            return self.held_state();
        }
        self.move_to(half);
        self.phase = Phase::Descending { saturation, knee };
        ConcurrencyState::Working
    }

    pub(super) fn descend(
        &mut self,
        window: &Window,
        saturation: Saturation,
        knee: Sample,
    ) -> ConcurrencyState {
        let measured = self.measure(window) && self.trial.spans(SERVICE_TIMES);
        if measured && self.trial.reaches(&knee) {
            let (knee, concurrency) = (self.trial, self.limit);
            self.ladder.push(concurrency, knee);
            let saturation = Saturation { throughput: knee.rate(), concurrency };
            self.phase = Phase::Held { saturation, knee, windows: 0 };
            return self.try_half(saturation, knee);
        }
        if !measured && self.windows_since_change < PROBE_PATIENCE {
            return ConcurrencyState::Working;
        }
        self.move_to(saturation.concurrency);
        self.phase = Phase::Held { saturation, knee, windows: 0 };
        self.held_state()
    }

    fn held_state(&self) -> ConcurrencyState {
        if self.is_closed() { ConcurrencyState::Stable } else { ConcurrencyState::Limited }
    }

    /// The target has become another one: search again from here.
    fn restart(&mut self) {
        self.phase = Phase::Growing;
        self.probe_after = PROBE_AFTER;
        self.ladder.clear();
    }

    /// Adds the window to the trial if the limit has settled: the answers in it
    /// are to transactions started since it changed.
    fn measure(&mut self, window: &Window) -> bool {
        if !self.settled {
            let Some(service_ns) = window.mean_service_ns() else {
                return false;
            };
            let slack_ns = UNSETTLED_SHARE * window.length_ns as f64;
            self.settled = self.since_change_ns as f64 + slack_ns >= service_ns;
            // A window chosen because something completed in it is no fair
            // sample, unless something always does.
            if !self.settled || service_ns > slack_ns {
                return false;
            }
        }
        self.trial.add(window);
        true
    }

    fn judge(&self) -> Step {
        if self.trial.spans(SERVICE_TIMES) { self.ladder.judge(&self.trial) } else { Step::Unclear }
    }

    fn growing_state(&self) -> ConcurrencyState {
        if self.limit >= self.max && self.ladder.top() == Some(self.max) {
            ConcurrencyState::Limited
        } else {
            ConcurrencyState::Working
        }
    }
}
