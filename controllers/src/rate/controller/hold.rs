//! At the rate found: small corrections, and what tells that the target has changed.

use super::{COLLAPSED, LARGEST_STEP, NEAR, RateController, RateState};
use crate::rate::probe::{CAREFUL, Finding};

/// Step of the adjustments while holding. The target must not be made to swing.
const ADJUSTMENT: f64 = 0.01;

/// While holding, what was seen is looked at after so many windows, and not at each: who looks
/// often enough finds anything. At the first only whether the rate is too much, at the last it is
/// moved towards the estimate, and what was seen is forgotten, so that a drift is not drowned.
const LOOKS: [u32; 3] = [20, 40, 80];

/// Share of the rate that a target gets which was held above its capacity, to work off its queue.
/// Less than half, since it may have lost half of its capacity.
const RELIEF: f64 = 0.45;

/// Breaking a limit again within so many windows tells the same.
const SOON: u32 = 50;

/// A rate that was too much while holding is not tried again for so many windows.
const CEILING_HOLDS: u32 = 1_200;

impl RateController {
    /// A limit is plainly broken while holding. A target that was held a little above its capacity
    /// is relieved and held a little lower; one that has changed breaks the limit again, or does
    /// less than before.
    pub(super) fn overrun(&mut self) {
        let again = self.ceiling.0.is_finite() && self.ceiling.1 < SOON;
        if again || self.succeeded_tps < COLLAPSED * self.tps {
            return self.fall();
        }
        let tps = self.tps;
        self.ceiling = (tps, 0);
        self.adjusted = 0.0;
        self.recover_to(tps / LARGEST_STEP.sqrt(), RateState::Holding);
        self.tps = tps * RELIEF;
    }

    pub(super) fn hold(&mut self) {
        self.ceiling.1 += 1;
        if self.ceiling.1 > CEILING_HOLDS {
            self.ceiling = (f64::INFINITY, 0);
        }
        let [first, _, last] = LOOKS;
        let windows = self.probe.windows;
        if !LOOKS.contains(&windows) {
            return;
        }
        if let Some(kept) = self.probe.kept_up(&self.config.limits) {
            (self.bound_by, self.saturated) = (None, true);
            self.ceiling = (self.tps, 0);
            return self.adjust(kept - 1.0 - ADJUSTMENT / 2.0);
        }
        let at_goal = self.tps >= f64::from(self.config.max_tps);
        match self.judge(CAREFUL) {
            Finding::Over(limit) => {
                (self.bound_by, self.saturated) = (Some(limit), false);
                self.ceiling = (self.tps, 0);
                // Over again at the first look: a drift.
                let drifts = self.adjusted < 0.0 && windows == first;
                self.adjust(-if drifts { self.adjusted.abs() * 1.5 } else { ADJUSTMENT });
            }
            Finding::Under if windows > first => {
                // Far below all limits it is a target that has become faster.
                let again = self.adjusted > 0.0 && self.used() < 0.1;
                self.raise(if again { self.adjusted * 2.0 } else { ADJUSTMENT });
            }
            _ if windows == last && self.high.is_none() && self.used() < 1.0 && !at_goal => {
                // It came to rest without ever having met its limit.
                self.go_to(self.tps * NEAR, RateState::Growing);
            }
            _ if windows == last => {
                let step = -self.used().clamp(0.05, 20.0).ln() / self.refinement.steepness.max(6.0);
                if step > 0.0 {
                    self.raise(step.min(ADJUSTMENT) / 2.0);
                } else {
                    self.adjust(step.max(-ADJUSTMENT) / 2.0);
                }
            }
            _ => {}
        }
    }

    fn raise(&mut self, by: f64) {
        let most = f64::from(self.config.max_tps).min(self.ceiling.0 * (1.0 - ADJUSTMENT / 2.0));
        let by = by.min(most / self.tps - 1.0);
        self.adjust(by.max(0.0));
    }

    fn adjust(&mut self, by: f64) {
        self.adjusted = by.clamp(-0.2, 0.2);
        self.tps = (self.tps * (1.0 + self.adjusted)).clamp(1.0, f64::from(self.config.max_tps));
        self.reset();
    }
}
