/// What happened to one scenario in one stretch of time, on one shard or, after
/// [`merge`](Window::merge), on all of them.
///
/// The counts are of events inside the window, not running totals. `backlog`,
/// `instances` and `in_flight` are states at its end.
///
/// ```
/// use balter_controllers::Window;
///
/// let mut whole = Window { length_ns: 500_000_000, succeeded: 40, ..Window::default() };
/// whole.merge(&Window { length_ns: 500_000_000, succeeded: 9, failed: 1, ..Window::default() });
/// assert_eq!(whole.completed(), 50);
/// assert_eq!(whole.throughput(), 100.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// Begin of the window, nanoseconds on the caller's clock.
    pub start_ns: u64,
    /// Length of the window in nanoseconds.
    pub length_ns: u64,
    /// Permits that became due, those counted as missed included.
    pub planned: u64,
    /// Transactions started.
    pub started: u64,
    /// Transactions that ended well.
    pub succeeded: u64,
    /// Transactions that ended badly, whoever was at fault.
    pub failed: u64,
    /// Transactions given up before they ended.
    pub cancelled: u64,
    /// Permits that were dropped without having been used.
    pub missed: u64,
    /// Those of them that the generator itself was too late for.
    pub stalled: u64,
    /// Permits overdue and waiting at the end of the window.
    pub backlog: u64,
    /// Scenario instances alive at the end of the window.
    pub instances: u32,
    /// Those of them that have not come to their first transaction.
    pub starting: u32,
    /// Transactions started and not ended at the end of the window.
    pub in_flight: u32,
    /// Sum of the service times of the completed transactions, in nanoseconds.
    pub service_sum_ns: u64,
    /// Time that permits waited because as many transactions were under way as may be, or because
    /// all instances were in one; in nanoseconds, summed over the permits.
    pub target_wait_ns: u64,
    /// Time that they waited because instances paused or were on their way to their first
    /// transaction.
    pub instance_wait_ns: u64,
    /// 99th percentile of actual minus intended start, in nanoseconds.
    pub lag_p99_ns: u64,
    /// 99th percentile of the response time, in nanoseconds.
    pub response_p99_ns: u64,
    /// Share of the window that the busiest shard spent working, `0.0..=1.0`.
    pub busy: f64,
    /// Failures that were the generator's own: descriptors, ports, memory, panics.
    pub generator_faults: u64,
    /// Parts whose counts are not all in here, because they told too late, see
    /// [`WindowGrid`](crate::WindowGrid). Of the target such a window says little.
    pub absent: u32,
}

impl Window {
    /// Transactions that came to an end of their own: succeeded or failed, not
    /// cancelled.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.succeeded.saturating_add(self.failed)
    }

    /// Completed transactions a second; zero for a window without length.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        if self.length_ns == 0 {
            return 0.0;
        }
        self.completed() as f64 * 1e9 / self.length_ns as f64
    }

    /// Mean service time of the completed transactions in nanoseconds, or
    /// `None` if none completed.
    #[must_use]
    pub fn mean_service_ns(&self) -> Option<f64> {
        match self.completed() {
            0 => None,
            completed => Some(self.service_sum_ns as f64 / completed as f64),
        }
    }

    /// What the limit on concurrency is for: transactions under way, and instances on their way to
    /// their first. An instance that pauses between two transactions asks nothing of the target.
    #[must_use]
    pub fn occupied(&self) -> u32 {
        self.in_flight.saturating_add(self.starting)
    }

    /// Whether the window holds no evidence about the target: nothing ended,
    /// nothing was under way and no permit waited.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.completed() == 0 && self.in_flight == 0 && self.backlog == 0
    }

    /// Adds the same stretch of time seen by another part (a shard, a node).
    ///
    /// Counts and states add up (saturating). The start is the earlier one that
    /// is set; length, busy share and percentiles are the larger ones. Percentiles cannot
    /// be merged exactly without their histograms: the larger one is an upper
    /// bound of the true one, and a caller who has the histograms overwrites it.
    pub fn merge(&mut self, other: &Window) {
        // A window without length is the empty one: its start says nothing.
        self.start_ns = match (self.length_ns, other.length_ns) {
            (0, _) => other.start_ns,
            (_, 0) => self.start_ns,
            _ => self.start_ns.min(other.start_ns),
        };
        self.length_ns = self.length_ns.max(other.length_ns);
        self.lag_p99_ns = self.lag_p99_ns.max(other.lag_p99_ns);
        self.response_p99_ns = self.response_p99_ns.max(other.response_p99_ns);
        self.busy = self.busy.max(other.busy);
        self.instances = self.instances.saturating_add(other.instances);
        self.starting = self.starting.saturating_add(other.starting);
        self.in_flight = self.in_flight.saturating_add(other.in_flight);
        self.absent = self.absent.saturating_add(other.absent);
        for (mine, theirs) in [
            (&mut self.planned, other.planned),
            (&mut self.started, other.started),
            (&mut self.succeeded, other.succeeded),
            (&mut self.failed, other.failed),
            (&mut self.cancelled, other.cancelled),
            (&mut self.missed, other.missed),
            (&mut self.stalled, other.stalled),
            (&mut self.backlog, other.backlog),
            (&mut self.service_sum_ns, other.service_sum_ns),
            (&mut self.target_wait_ns, other.target_wait_ns),
            (&mut self.instance_wait_ns, other.instance_wait_ns),
            (&mut self.generator_faults, other.generator_faults),
        ] {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// Adds the stretch of time that follows, seen by the same part.
    ///
    /// Counts and lengths add up, states are those of the later window, the busy share is the mean
    /// over time; percentiles as in [`merge`](Window::merge).
    pub fn append(&mut self, next: &Window) {
        let (before, length_ns) = (self.length_ns, self.length_ns.saturating_add(next.length_ns));
        let busy = match length_ns {
            0 => 0.0,
            length => {
                (self.busy * before as f64 + next.busy * next.length_ns as f64) / length as f64
            }
        };
        let absent = self.absent.max(next.absent);
        self.merge(next);
        (self.length_ns, self.busy, self.absent) = (length_ns, busy, absent);
        (self.backlog, self.instances, self.starting, self.in_flight) =
            (next.backlog, next.instances, next.starting, next.in_flight);
    }

    /// Takes off the front of the window, up to `at_ns`: `self` is what follows.
    ///
    /// What was counted is taken to be spread evenly over the window, and each count stays whole:
    /// both pieces together have as many as the window had. States, busy share and percentiles are
    /// those of the window in both. A window that ends by `at_ns` is taken as a whole.
    #[must_use]
    pub(crate) fn take_until(&mut self, at_ns: u64) -> Window {
        let end_ns = self.start_ns.saturating_add(self.length_ns);
        if at_ns >= end_ns {
            // What is left begins where it ended, so that it is nothing and not earlier.
            let nothing = Window { start_ns: end_ns, ..Window::default() };
            return std::mem::replace(self, nothing);
        }
        let (length_ns, front_ns) = (self.length_ns, at_ns.saturating_sub(self.start_ns));
        let mut front = self.clone();
        let completed = self.completed();
        for (whole, part) in [
            (&mut self.planned, &mut front.planned),
            (&mut self.started, &mut front.started),
            (&mut self.succeeded, &mut front.succeeded),
            (&mut self.failed, &mut front.failed),
            (&mut self.cancelled, &mut front.cancelled),
            (&mut self.missed, &mut front.missed),
            (&mut self.stalled, &mut front.stalled),
            (&mut self.target_wait_ns, &mut front.target_wait_ns),
            (&mut self.instance_wait_ns, &mut front.instance_wait_ns),
            (&mut self.generator_faults, &mut front.generator_faults),
        ] {
            *part = portion(*whole, front_ns, length_ns);
            *whole -= *part;
        }
        // The mean of the service times is that of the window wherever something completed.
        front.service_sum_ns = portion(self.service_sum_ns, front.completed(), completed);
        self.service_sum_ns -= front.service_sum_ns;
        front.length_ns = front_ns;
        self.start_ns += front_ns;
        self.length_ns -= front_ns;
        front
    }
}

/// `count` × `part` ÷ `whole`, to the nearest; nothing of nothing. `part` is at most `whole`.
fn portion(count: u64, part: u64, whole: u64) -> u64 {
    if whole == 0 {
        return 0;
    }
    let (part, whole) = (u128::from(part), u128::from(whole));
    // No more than `count`, so it fits.
    ((u128::from(count) * part + whole / 2) / whole) as u64
}
