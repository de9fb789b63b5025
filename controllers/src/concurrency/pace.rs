//! Whether transactions end as fast as they start.
//!
//! That no permit waits is no proof of a rate met: with instances to spare, a
//! target that is too slow collects transactions in flight instead.

use super::ladder::{SERVICE_TIMES, Sample};
use crate::Window;

/// Share of the started transactions that may remain in flight at the end of a
/// span of several service times.
const REMAINING: f64 = 0.02;

/// Beyond so many standard deviations of the started ones, the excess in flight
/// is a sign before the span is over.
const SURELY: f64 = 3.0;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    span: Sample,
    started: u64,
    ended: u64,
    kept: bool,
}

impl Pace {
    pub(super) fn add(&mut self, window: &Window) {
        self.span.add(window);
        self.started = self.started.saturating_add(window.started);
        self.ended = self.ended.saturating_add(window.completed().saturating_add(window.cancelled));
        let started = self.started as f64;
        let remaining = self.started.saturating_sub(self.ended) as f64;
        if self.span.spans(SERVICE_TIMES) {
            // One whole transaction is no sign at any rate.
            let kept = self.span.completed > 0 && remaining <= 1.0 + REMAINING * started;
            *self = Pace { kept, ..Pace::default() };
        } else if remaining > SURELY * started.sqrt() + REMAINING * started {
            // The service time of an overloaded target grows with the time that
            // has passed: the span would never be long enough.
            self.kept = false;
        }
    }

    /// Whether they did in the last whole span. A target that keeps pace is found
    /// to do so in at least half of the spans, whatever the scatter.
    pub(super) fn kept(&self) -> bool {
        self.kept
    }
}
