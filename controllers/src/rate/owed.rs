//! What a target owes: transactions that were due and have not ended, by their age.

use std::collections::VecDeque;

use crate::Window;

/// Answers are overdue after so many times what one takes.
const PATIENCE: f64 = 4.0;

/// So many of them tell that the target is silent.
pub(super) const MANY: u64 = 10;

/// Patience while no answer has come at all, so that nothing is known of what one takes.
const UNKNOWN_NS: u64 = 2_000_000_000;

/// And never less than this: a pause of the machine is no silence of the target.
const LEAST_NS: u64 = 300_000_000;

/// Points of the curve that are kept: a minute and a half.
const MOST_POINTS: usize = 900;

/// Points over which what is under way is compared.
const GROWTH_POINTS: usize = 50;

/// See the module's documentation. Time is the sum of the windows' lengths.
#[derive(Clone, Debug, Default)]
pub(super) struct Owed {
    /// (time, due until then, under way then): the curve of arrivals.
    due: VecDeque<(u64, u64, u64)>,
    now_ns: u64,
    planned: u64,
    ended: u64,
    answered_ns: u64,
    /// Anything has ever succeeded.
    pub(super) has_succeeded: bool,
    /// Transactions due or begun and not ended.
    pub(super) under_way: u64,
    /// When that was last no more than usual.
    drained_ns: u64,
    /// Mean time of an answer lately.
    service_ns: Option<f64>,
    /// Answers at rates that were borne, and the sum of their times.
    borne: (f64, f64),
}

impl Owed {
    pub(super) fn push(&mut self, window: &Window) {
        self.now_ns += window.length_ns;
        self.planned += window.planned;
        self.under_way = u64::from(window.in_flight).saturating_add(window.backlog);
        // What was due has ended or is under way, also where a window was not told of.
        self.ended = self.planned.saturating_sub(self.under_way);
        self.has_succeeded |= window.succeeded > 0;
        self.due.push_back((self.now_ns, self.planned, self.under_way));
        if self.due.len() > MOST_POINTS {
            self.due.pop_front();
        }
        if let Some(mean_ns) = window.mean_service_ns() {
            self.answered_ns = self.now_ns;
            let of = self.service_ns.unwrap_or(mean_ns);
            self.service_ns = Some(of + 0.3 * (mean_ns - of));
        }
    }

    /// Mean time of an answer lately, in nanoseconds; nothing before the first one.
    pub(super) fn service_ns(&self) -> f64 {
        self.service_ns.unwrap_or(0.0)
    }

    /// What an answer takes at rates that are borne, as far as that is known; nothing before the first one.
    pub(super) fn usual_ns(&self) -> Option<f64> {
        let (count, sum_ns) = self.borne;
        if count > 0.0 { Some(sum_ns / count) } else { self.service_ns }
    }

    pub(super) fn base_ns(&self) -> f64 {
        self.usual_ns().unwrap_or(0.0)
    }

    /// So many answers took so long at a rate that is borne. What was seen before counts half as much,
    /// and what takes longer than before counts only where nothing can have piled up yet.
    pub(super) fn bears(&mut self, count: u64, sum_ns: u64, is_first_climb: bool) {
        let (known, known_sum_ns) = self.borne;
        let (count, sum_ns) = (count as f64, sum_ns as f64);
        let is_less = known > 0.0 && sum_ns * known < known_sum_ns * count;
        if count > 0.0 && (is_first_climb || is_less) {
            self.borne = (known / 2.0 + count, known_sum_ns / 2.0 + sum_ns);
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// At least so many have been due for longer than this and have not ended. Those that ended may
    /// have been younger ones, so it is a lower bound.
    pub(super) fn overdue(&self, age_ns: u64) -> u64 {
        let at = self.now_ns.saturating_sub(age_ns);
        let until = self.due.partition_point(|&(time, ..)| time <= at);
        let due = until.checked_sub(1).map_or(0, |index| self.due[index].1);
        due.saturating_sub(self.ended).min(self.under_way)
    }

    /// How long an answer is waited for before it is missed.
    pub(super) fn patience_ns(&self) -> u64 {
        match self.service_ns {
            None => UNKNOWN_NS,
            Some(service_ns) => LEAST_NS.max((PATIENCE * service_ns) as u64),
        }
    }

    /// Whether nothing is answered though it should be.
    pub(super) fn is_silent(&self) -> bool {
        let quiet_ns = self.now_ns - self.answered_ns;
        quiet_ns >= LEAST_NS.max(self.service_ns() as u64)
            && self.overdue(self.patience_ns()) >= MANY
    }

    /// By what share of what has become due the amount under way has grown in the last seconds, or since
    /// it was last usual, if that is more than an accident: a queue that grows too slowly to be seen at any
    /// one rate.
    pub(super) fn growth(&self) -> Option<f64> {
        let recent = self.due.iter().rev().take(GROWTH_POINTS);
        let (_, due, under_way) =
            *recent.take_while(|&&(at_ns, ..)| at_ns >= self.drained_ns).last()?;
        let grown = self.under_way.saturating_sub(under_way) as f64;
        let due = (self.planned - due) as f64;
        let accident = (2.0 * due + self.under_way as f64).sqrt();
        (grown > 3.0 * accident).then_some(grown / due.max(1.0))
    }

    /// A rate is set: whether no more is under way than is usual at it.
    pub(super) fn set_out(&mut self, tps: f64) {
        if self.is_drained(tps) {
            self.drained_ns = self.now_ns;
        }
    }

    /// Whether no more is under way than a rate has at the time that an answer usually takes.
    pub(super) fn is_drained(&self, tps: f64) -> bool {
        let usual = tps * self.base_ns() / 1e9;
        self.under_way as f64 <= 1.5 * usual + 3.0 * usual.sqrt() + 3.0
    }

    /// With more under way than this some of it waits.
    pub(super) fn queue(&self, tps: f64) -> f64 {
        1.5 * tps * self.base_ns() / 1e9 + 10.0
    }

    /// Whether much more is under way than is usual: what comes next would wait behind it.
    pub(super) fn is_swamped(&self, tps: f64) -> bool {
        let usual = tps * self.base_ns() / 1e9;
        self.under_way as f64 > 4.0 * usual + 6.0 * usual.sqrt() + 10.0
    }
}
